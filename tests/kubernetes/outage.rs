//! What breaks, and what a pod sees of it: nothing, or an end in seconds.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::driver::Driver;
use super::site::{self, NAMESPACE, RELEASE};
use super::space::{self, PATIENCE, Space};

/// Tests that run alone, each for both drivers.
macro_rules! alone {
    ($module:ident: $driver:ident; $($case:ident),* $(,)?) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    super::space::run_alone(super::Driver::$driver, super::$case);
                }
            )*
        }
    };
}

alone!(pool: Pool; a_driver_that_is_replaced_interrupts_no_pod, a_controller_that_dies_in_mid_provision_leaves_nothing_undone,
    a_pod_that_is_deleted_by_force_leaves_a_usable_volume);
alone!(share: Share; a_driver_that_is_replaced_interrupts_no_pod,
    a_controller_that_dies_in_mid_provision_leaves_nothing_undone,
    a_pod_that_is_deleted_by_force_leaves_a_usable_volume);
alone!(machines: Share; a_server_that_is_rebooted_interrupts_no_writer, a_server_that_is_frozen_keeps_no_pod,
    a_node_that_is_rebooted_has_its_pods_volumes_again, a_node_that_is_deleted_while_it_has_a_volume_lets_it_go,
    a_kubelet_that_is_restarted_interrupts_no_pod);

/// The driver's own pods: the parts of one component.
async fn parts(space: &Space, component: &str) -> Vec<Pod> {
    let pods = Api::<Pod>::namespaced(space.client.clone(), NAMESPACE);
    let of = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    pods.list(&of).await.expect("the driver's pods").items
}

/// Deletes the driver's pods of one component, at once where `force`, and waits for those that replace them.
async fn replace(space: &Space, component: &str, force: bool) {
    let pods = Api::<Pod>::namespaced(space.client.clone(), NAMESPACE);
    let how = if force { DeleteParams::default().grace_period(0) } else { DeleteParams::default() };
    let old = parts(space, component).await;
    assert!(!old.is_empty(), "no pod of {component}");
    for pod in &old {
        pods.delete(&pod.name_any(), &how).await.expect("a pod of the driver's");
    }
    for pod in &old {
        space.gone(pods.clone(), &pod.name_any(), &pod.uid().unwrap()).await;
    }
    all_ready(space).await;
}

/// Waits until every part of the driver is ready.
async fn all_ready(space: &Space) {
    let daemons = Api::<DaemonSet>::namespaced(space.client.clone(), NAMESPACE);
    space
        .until(daemons, &format!("{RELEASE}-nfs-node"), "is ready everywhere", |set| {
            set.status.as_ref().is_some_and(|status| {
                status.desired_number_scheduled > 0 && status.number_ready == status.desired_number_scheduled
            })
        })
        .await;
    let pools = Api::<StatefulSet>::namespaced(space.client.clone(), NAMESPACE);
    space
        .until(pools, &format!("{RELEASE}-pool"), "is ready", |set| {
            set.status.as_ref().is_some_and(|status| status.ready_replicas == Some(1))
        })
        .await;
    let deadline = Instant::now() + PATIENCE;
    while !parts(space, "nfs-controller").await.iter().all(space::ready) {
        assert!(Instant::now() < deadline, "the controllers are not ready");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A loop in a pod that writes a line five times a second and stops at the first error, which it leaves in /tmp/error.
async fn start_writing(space: &Space, pod: &str) {
    let script = "(n=0; while :; do n=$((n+1)); { echo $n >> /data/lines && sync; } 2> /tmp/error || exit 1; echo $n > /tmp/count; \
                  usleep 200000; done) > /dev/null 2>&1 &";
    space.sh(pod, script).await;
}

/// That the loop still runs, got on since, and left out no line.
async fn still_writing(space: &Space, pod: &str) {
    let before: u64 = space.sh(pod, "cat /tmp/count").await.parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now: u64 = space.sh(pod, "cat /tmp/count").await.parse().unwrap_or_default();
        if now > before + 3 {
            break;
        }
        let error = space.sh(pod, "cat /tmp/error").await;
        assert!(Instant::now() < deadline && error.is_empty(), "stopped at {now}: {error}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(space.sh(pod, "cat /tmp/error").await, "");
    let holes = "awk '$1 != NR { print \"line \" NR \" is \" $1; exit }' /data/lines";
    assert_eq!(space.sh(pod, holes).await, "");
}

async fn a_driver_that_is_replaced_interrupts_no_pod(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    start_writing(space, "pod").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let component = if space.driver.is_pool() { "pool" } else { "nfs-node" };
    replace(space, component, false).await;
    still_writing(space, "pod").await;
    // What the new one finds mounted it can take down, and a new pod can have the volume beside the old.
    space.pod("other", "data", json!({})).await;
    space.running("other").await;
    space.sh("other", "tail -n 1 /data/lines").await;
    space.end("other").await;
    still_writing(space, "pod").await;
    space.end("pod").await;
}

async fn a_controller_that_dies_in_mid_provision_leaves_nothing_undone(space: &Space) {
    let claims: Vec<String> = (0..12).map(|number| format!("data-{number}")).collect();
    for claim in &claims {
        space.claim(claim, json!({})).await;
    }
    let component = if space.driver.is_pool() { "pool" } else { "nfs-controller" };
    replace(space, component, true).await;
    let mut volumes = Vec::new();
    for claim in &claims {
        volumes.push(space.bound(claim).await.name_any());
    }
    volumes.sort();
    volumes.dedup();
    assert_eq!(volumes.len(), claims.len(), "each claim has a volume of its own");
    // None that nobody knows of: as many as there are claims.
    assert_eq!(space.volumes().await.len(), claims.len());
    // Deletions die in the middle as well.
    let all = ListParams::default();
    space
        .api::<PersistentVolumeClaim>()
        .delete_collection(&DeleteParams::default(), &all)
        .await
        .expect("deleted");
    replace(space, component, true).await;
}

async fn a_pod_that_is_deleted_by_force_leaves_a_usable_volume(space: &Space) {
    let once = json!({ "spec": { "accessModes": ["ReadWriteOncePod"] } });
    space.claim("data", once).await;
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    space.sh("pod", "echo kept > /data/note && sync").await;
    space.api::<Pod>().delete("pod", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    space.pod("next", "data", json!({})).await;
    space.running("next").await;
    assert_eq!(space.sh("next", "cat /data/note").await, "kept");
}

/// A pod on another NFS node than the server's.
async fn away_from_the_server(space: &Space) -> Value {
    let away = space
        .site
        .nfs_nodes
        .get(1)
        .expect("this case needs a second node in KURATION_NFS_NODES, not the server's");
    json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": away } } })
}

/// Does something to the machine of the server, the first NFS node.
async fn to_the_server(space: &Space, what: &str) {
    to(&space.site.nfs_nodes[0], &[what]).await;
}

/// Does something to the machine of an NFS node.
async fn to(node: &str, what: &[&str]) {
    let mut command = site::tool("nfs-node");
    command.env("NFS_NODE", node).args(what);
    let done = tokio::task::spawn_blocking(move || site::output(&mut command));
    done.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
}

async fn node_is(space: &Space, node: &str, ready: bool) {
    let wanted = if ready { "True" } else { "Unknown" };
    space
        .until(space.all::<Node>(), node, &format!("has Ready={wanted}"), |node| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == wanted)
        })
        .await;
}

async fn a_server_that_is_rebooted_interrupts_no_writer(space: &Space) {
    let away = away_from_the_server(space).await;
    space.claim("data", json!({})).await;
    space.pod("pod", "data", away).await;
    space.running("pod").await;
    start_writing(space, "pod").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    to_the_server(space, "reboot").await;
    all_ready(space).await;
    // The grace period of the server, in which it takes no writes, is 15 s here.
    still_writing(space, "pod").await;
    space.end("pod").await;
}

async fn a_server_that_is_frozen_keeps_no_pod(space: &Space) {
    let away = away_from_the_server(space).await;
    let node = away["spec"]["nodeSelector"]["kubernetes.io/hostname"].as_str().unwrap().to_owned();
    space.claim("data", json!({})).await;
    space.pod("pod", "data", away).await;
    space.running("pod").await;
    // Calls that a signal ends. A process that waits in sync(2) for a dead server can't be killed on Linux, and keeps its pod
    // whatever the driver does.
    space.sh("pod", "echo x > /data/note && sync && (while :; do touch /data/mark; ls /data; usleep 100000; done) > /dev/null 2>&1 &").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    to_the_server(space, "freeze").await;
    let began = Instant::now();
    let outcome = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(async {
        // It hangs in the kernel by now.
        tokio::time::sleep(Duration::from_secs(2)).await;
        space.end("pod").await;
    }))
    .await;
    let took = began.elapsed();
    let conditions = space.all::<Node>().get(&node).await.unwrap().status.unwrap().conditions.unwrap();
    to_the_server(space, "thaw").await;
    outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    assert!(took < Duration::from_secs(60), "the pod was gone after {took:?}");
    assert!(conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"), "{conditions:?}");
    node_is(space, &space.site.nfs_nodes[0].clone(), true).await;
    all_ready(space).await;
}

async fn a_node_that_is_rebooted_has_its_pods_volumes_again(space: &Space) {
    let away = away_from_the_server(space).await;
    let node = away["spec"]["nodeSelector"]["kubernetes.io/hostname"].as_str().unwrap().to_owned();
    space.claim("data", json!({})).await;
    space.pod("pod", "data", away).await;
    space.running("pod").await;
    space.sh("pod", "echo kept > /data/note && sync").await;
    to(&node, &["reboot"]).await;
    all_ready(space).await;
    // The kubelet starts the pod's container anew, and has mounted its volume before.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match space.try_sh("pod", "cat /data/note && grep -c ' /data nfs' /proc/mounts").await {
            Ok(said) if said == "kept\n1" => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    space.running("pod").await;
    space.end("pod").await;
}

async fn a_node_that_is_deleted_while_it_has_a_volume_lets_it_go(space: &Space) {
    let away = away_from_the_server(space).await;
    let node = away["spec"]["nodeSelector"]["kubernetes.io/hostname"].as_str().unwrap().to_owned();
    space.claim("data", json!({})).await;
    let pod = space.pod("pod", "data", away).await;
    space.running("pod").await;
    space.sh("pod", "echo kept > /data/note && sync").await;
    space.delete(space.all::<Node>(), &node).await;
    // Its pods go with it, and the volume is another node's.
    space.gone(space.api::<Pod>(), "pod", &pod.uid().unwrap()).await;
    space.pod("next", "data", json!({})).await;
    space.running("next").await;
    assert_eq!(space.sh("next", "cat /data/note").await, "kept");
    // The machine comes back, as a node that was never there before.
    to(&node, &["reboot"]).await;
    all_ready(space).await;
}

async fn a_kubelet_that_is_restarted_interrupts_no_pod(space: &Space) {
    let away = away_from_the_server(space).await;
    let node = away["spec"]["nodeSelector"]["kubernetes.io/hostname"].as_str().unwrap().to_owned();
    space.claim("data", json!({})).await;
    space.pod("pod", "data", away).await;
    space.running("pod").await;
    start_writing(space, "pod").await;
    // The node's supervisor starts it again. (ps and pkill fail on that kernel.)
    let end = "for c in /proc/[0-9]*/comm; do read -r n < $c; [ $n != kubelet ] || { p=${c#/proc/}; kill ${p%/comm}; }; done 2> /dev/null";
    to(&node, &["run", "bash", "-c", end]).await;
    let (began, mut refused) = (Instant::now(), false);
    // It was away, and is back.
    while space.try_sh("pod", "true").await.is_err() || !refused {
        refused |= space.try_sh("pod", "true").await.is_err();
        assert!(
            began.elapsed() < PATIENCE,
            "the kubelet was {}",
            if refused { "away for good" } else { "never away" }
        );
    }
    still_writing(space, "pod").await;
    // And the driver is still registered with the new one.
    space.end("pod").await;
}
