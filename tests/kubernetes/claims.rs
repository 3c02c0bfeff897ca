//! A claim's life: bound, used by pods in every access mode, its data kept while pods come and go.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use serde_json::json;

use super::objects;
use super::space::Space;

crate::for_every_driver!(
    a_claim_becomes_a_volume_and_goes_with_it,
    data_outlives_the_pod_that_wrote_it,
    two_pods_read_and_write_one_volume,
    a_volume_of_one_node_serves_its_pods,
    a_volume_of_one_pod_lets_no_second_in,
    a_volume_of_readers_is_mounted_by_many,
    a_claim_waits_for_its_first_consumer;
    pool: ;
    share: pods_on_two_nodes_write_one_volume, a_share_is_mounted_by_nfs_4_2;
    share3: .., pods_on_two_nodes_write_one_volume, the_mount_speaks_the_version_that_the_class_says
);

async fn the_mount_speaks_the_version_that_the_class_says(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    let mounts = space.sh("pod", "grep ' /data ' /proc/mounts").await;
    assert!(mounts.contains("vers=3,"), "{mounts}");
}

async fn a_claim_becomes_a_volume_and_goes_with_it(space: &Space) {
    space.claim("data", json!({})).await;
    let volume = space.bound("data").await;
    let spec = volume.spec.as_ref().unwrap();
    let csi = spec.csi.as_ref().expect("a CSI volume");
    assert_eq!(csi.driver, space.driver.name());
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
    // The size asked for, to the byte: not rounded, not the file system's.
    assert_eq!(spec.capacity.as_ref().unwrap()["storage"].0, "64Mi");
    let claim = space.api::<PersistentVolumeClaim>().get("data").await.unwrap();
    assert_eq!(claim.status.unwrap().capacity.unwrap()["storage"].0, "64Mi");
    space.delete(space.api::<PersistentVolumeClaim>(), "data").await;
    let name = volume.name_any();
    space.gone(space.all::<PersistentVolume>(), &name, &volume.uid().unwrap()).await;
}

async fn data_outlives_the_pod_that_wrote_it(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    space
        .sh("pod", "echo kept > /data/note && mkdir /data/folder && ln -s note /data/folder/link && sync")
        .await;
    space.end("pod").await;
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    assert_eq!(space.sh("pod", "cat /data/note && readlink /data/folder/link").await, "kept\nnote");
}

async fn two_pods_read_and_write_one_volume(space: &Space) {
    space.claim("data", json!({})).await;
    for pod in ["one", "two"] {
        space.pod(pod, "data", json!({})).await;
    }
    for pod in ["one", "two"] {
        space.running(pod).await;
    }
    space.sh("one", "echo from one > /data/note && sync").await;
    assert_eq!(space.sh("two", "cat /data/note && echo from two >> /data/note && sync").await, "from one");
    assert_eq!(space.sh("one", "cat /data/note").await, "from one\nfrom two");
    // The first takes nothing away from the second.
    space.end("one").await;
    assert_eq!(space.sh("two", "echo still >> /data/note && tail -n 1 /data/note").await, "still");
}

async fn pods_on_two_nodes_write_one_volume(space: &Space) {
    assert!(space.site.nfs_nodes.len() > 1, "this case needs two nodes in KURATION_NFS_NODES");
    space.claim("data", json!({})).await;
    for (pod, node) in ["one", "two"].into_iter().zip(&space.site.nfs_nodes) {
        space.pod(pod, "data", json!({ "spec": { "nodeSelector": objects::on(node) } })).await;
    }
    let mut nodes = Vec::new();
    for pod in ["one", "two"] {
        nodes.push(space.running(pod).await.spec.unwrap().node_name.unwrap());
    }
    assert_eq!(nodes, space.site.nfs_nodes[..2]);
    // Each makes a directory before it counts on, which one alone can; a count that was read from a cache would lose some.
    let script = "i=0; while [ $i -lt 10 ]; do i=$((i+1)); until mkdir /data/lock 2> /dev/null; do usleep 20000; done; \
                  n=0; [ ! -e /data/count ] || read -r n < /data/count; echo $((n+1)) > /data/count; rmdir /data/lock; done";
    tokio::join!(space.sh("one", script), space.sh("two", script));
    for pod in ["one", "two"] {
        assert_eq!(space.sh(pod, "cat /data/count").await, "20");
    }
}

async fn a_share_is_mounted_by_nfs_4_2(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    let mounts = space.sh("pod", "grep ' /data ' /proc/mounts").await;
    assert!(mounts.contains("vers=4.2,"), "the newest that both know: {mounts}");
}

async fn a_volume_of_one_node_serves_its_pods(space: &Space) {
    space.claim("data", json!({ "spec": { "accessModes": ["ReadWriteOnce"] } })).await;
    for pod in ["one", "two"] {
        space.pod(pod, "data", json!({})).await;
        space.running(pod).await;
    }
    space.sh("one", "echo x > /data/note && sync").await;
    assert_eq!(space.sh("two", "cat /data/note").await, "x");
}

async fn a_volume_of_one_pod_lets_no_second_in(space: &Space) {
    space.claim("data", json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } })).await;
    space.pod("one", "data", json!({})).await;
    space.running("one").await;
    space.sh("one", "echo x > /data/note").await;
    space.pod("two", "data", json!({})).await;
    space.event("Pod", "two", &["ReadWriteOncePod"]).await;
    // As soon as the first is gone the second may.
    space.end("one").await;
    space.running("two").await;
    assert_eq!(space.sh("two", "cat /data/note").await, "x");
}

async fn a_volume_of_readers_is_mounted_by_many(space: &Space) {
    space.claim("data", json!({ "spec": { "accessModes": ["ReadOnlyMany"] } })).await;
    for pod in ["one", "two"] {
        space.pod(pod, "data", json!({})).await;
    }
    for pod in ["one", "two"] {
        space.running(pod).await;
        let refused = space.try_sh(pod, "touch /data/note").await.expect_err("nobody may write here");
        assert!(refused.contains("Read-only file system"), "{refused}");
    }
}

async fn a_claim_waits_for_its_first_consumer(space: &Space) {
    let class = space.class("late", json!({ "volumeBindingMode": "WaitForFirstConsumer" })).await;
    space.claim_of("data", &class).await;
    space.event("PersistentVolumeClaim", "data", &["waiting for first consumer"]).await;
    assert!(space.volumes().await.is_empty(), "a volume before there is a pod");
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    space.sh("pod", "echo x > /data/note").await;
    let pod = space.api::<Pod>().get("pod").await.unwrap();
    assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some(space.node()));
}
