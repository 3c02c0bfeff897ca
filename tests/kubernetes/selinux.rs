//! Labels of SELinux as mount options: what a kubelet on a node that enforces a policy asks the driver for, and what pods get.
//!
//! In Kubernetes 1.36 it asks for volumes of the access mode ReadWriteOncePod, and with its feature gate SELinuxMount for all. The
//! first of `KURATION_NFS_NODES` has that gate here, the second has not.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::objects;
use super::outage::{restart_kubelet, to};
use super::space::Space;

crate::for_driver!(share: Share; a_volume_of_one_pod_has_the_label_of_that_pod, a_volume_of_many_has_one_label_at_a_time,
    without_the_gate_a_volume_of_many_has_no_label, a_pod_may_decline_the_label_of_the_mount);
crate::alone!(machines: Share; a_kubelet_that_is_restarted_finds_the_label_again);

/// A pod with this level, on a node.
fn of_level(level: &str, node: &str) -> Value {
    let context = json!({ "seLinuxOptions": { "level": level } });
    json!({ "spec": { "nodeSelector": objects::on(node), "securityContext": context } })
}

/// The label that the kubelet makes of a level, by what the node's policy says of containers.
fn label(level: &str) -> String {
    format!("system_u:object_r:container_file_t:{level}")
}

/// The second node's name.
fn without_the_gate(space: &Space) -> &str {
    space.site.nfs_nodes.get(1).expect("this case needs a second node in KURATION_NFS_NODES")
}

/// The options of a pod's mount at /data, as the kernel shows them.
async fn options(space: &Space, pod: &str) -> String {
    space.sh(pod, "grep ' /data ' /proc/mounts").await
}

/// The label that a pod's volume has on its node, and a file in it.
async fn label_on_node(space: &Space, pod: &Pod, file: &str) -> String {
    let (uid, volume) = (pod.uid().unwrap(), space.bound("data").await.name_any());
    let path = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount/{file}");
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap();
    to(&node, &["run", "stat", "-c", "%C", &path]).await
}

async fn a_volume_of_one_pod_has_the_label_of_that_pod(space: &Space) {
    space.claim("data", json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } })).await;
    for (node, level) in space.site.nfs_nodes.iter().zip(["s0:c10,c20", "s0:c11,c21"]) {
        space.pod("pod", "data", of_level(level, node)).await;
        let pod = space.running("pod").await;
        assert!(options(space, "pod").await.contains(&format!("context=\"{}\"", label(level))), "{level}");
        space.sh("pod", "echo x >> /data/note && sync").await;
        for file in ["", "note"] {
            assert_eq!(label_on_node(space, &pod, file).await, label(level), "{file:?} on {node}");
        }
        space.end("pod").await;
    }
}

async fn a_volume_of_many_has_one_label_at_a_time(space: &Space) {
    space.claim("data", json!({})).await;
    for pod in ["one", "two"] {
        space.pod(pod, "data", of_level("s0:c10,c20", space.node())).await;
        let pod = space.running(pod).await;
        assert_eq!(label_on_node(space, &pod, "").await, label("s0:c10,c20"));
    }
    space.sh("one", "echo x > /data/note && sync").await;
    // On another node there is another mount.
    space.pod("away", "data", of_level("s0:c12,c22", without_the_gate(space))).await;
    space.running("away").await;
    space.pod("other", "data", of_level("s0:c11,c21", space.node())).await;
    space.event("Pod", "other", &["conflicting SELinux labels", "s0:c10,c20", "s0:c11,c21"]).await;
    space.end("one").await;
    space.end("two").await;
    let other = space.running("other").await;
    assert_eq!(space.sh("other", "cat /data/note").await, "x");
    assert_eq!(label_on_node(space, &other, "note").await, label("s0:c11,c21"));
}

async fn without_the_gate_a_volume_of_many_has_no_label(space: &Space) {
    space.claim("data", json!({})).await;
    for (pod, level) in [("one", "s0:c10,c20"), ("two", "s0:c11,c21")] {
        space.pod(pod, "data", of_level(level, without_the_gate(space))).await;
        space.running(pod).await;
        let options = options(space, pod).await;
        assert!(!options.contains("context="), "{options}");
    }
}

async fn a_pod_may_decline_the_label_of_the_mount(space: &Space) {
    space.claim("data", json!({})).await;
    for (pod, level) in [("one", "s0:c10,c20"), ("two", "s0:c11,c21")] {
        let mut declines = of_level(level, space.node());
        declines["spec"]["securityContext"]["seLinuxChangePolicy"] = "Recursive".into();
        space.pod(pod, "data", declines).await;
        space.running(pod).await;
        let options = options(space, pod).await;
        assert!(!options.contains("context="), "{options}");
    }
}

async fn a_kubelet_that_is_restarted_finds_the_label_again(space: &Space) {
    // As OpenShift writes levels; the kernel shows it the other way round.
    let level = "s0:c20,c10";
    space.claim("data", json!({})).await;
    space.pod("one", "data", of_level(level, space.node())).await;
    space.running("one").await;
    restart_kubelet(space, space.node(), "one").await;
    // The new kubelet has the volume staged again before it gives it to one more.
    space.pod("two", "data", of_level(level, space.node())).await;
    space.running("two").await;
    for pod in ["one", "two"] {
        let options = options(space, pod).await;
        assert!(options.contains(&label("s0:c10,c20")), "{options}");
        let of_pod = ListParams::default().fields(&format!("involvedObject.name={pod},reason=FailedMount"));
        let events = space.api::<Event>().list(&of_pod).await.unwrap().items;
        assert!(events.is_empty(), "{events:#?}");
    }
}
