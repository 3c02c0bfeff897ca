//! What breaks, and what a pod sees of it: nothing, or an end in seconds.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, NodeCondition, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use super::objects;
use super::site::{self, CONTROLLERS, LATER_NODE, NAMESPACE};
use super::space::{self, PATIENCE, Space};

crate::alone!(pool: Pool; a_driver_that_is_replaced_interrupts_no_pod,
    a_controller_that_dies_in_mid_provision_leaves_nothing_undone,
    a_pod_that_is_deleted_by_force_leaves_a_usable_volume);
crate::alone!(share: Share; a_driver_that_is_replaced_interrupts_no_pod,
    a_controller_that_dies_in_mid_provision_leaves_nothing_undone,
    a_pod_that_is_deleted_by_force_leaves_a_usable_volume);
crate::alone!(machines: Share; a_server_that_is_rebooted_interrupts_no_writer, a_server_that_is_frozen_keeps_no_pod,
    a_node_that_is_rebooted_has_its_pods_volumes_again, a_node_that_is_deleted_while_it_has_a_volume_lets_it_go,
    a_node_that_is_added_later_has_volumes, a_kubelet_that_is_restarted_interrupts_no_pod);

/// The driver's own pods: the parts of one component. One that has ended for good stands in nobody's way.
async fn parts(space: &Space, component: &str) -> Vec<Pod> {
    let pods = Api::<Pod>::namespaced(space.client.clone(), NAMESPACE);
    let of = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
    let mut parts = pods.list(&of).await.expect("the driver's pods").items;
    parts.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Failed" | "Succeeded"))
    });
    parts
}

/// The containers that a pod is known to have, by ids that no other has or had.
fn containers(pod: &Pod) -> BTreeSet<String> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().filter_map(|container| container.container_id.clone()).collect()
}

fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
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
    all_ready_without(space, &old.iter().flat_map(containers).collect()).await;
}

/// Waits until every part of the driver is there and ready, by containers that are none of `old`.
///
/// Before a break they all were ready, and the API server says so until it hears of it: only a container that was not there before
/// tells that this is over.
async fn all_ready_without(space: &Space, old: &BTreeSet<String>) {
    let wanted = [("nfs-node", space.site.nfs_nodes.len()), ("nfs-controller", CONTROLLERS), ("pool", 1)];
    let deadline = Instant::now() + PATIENCE;
    for (component, count) in wanted {
        loop {
            let parts = parts(space, component).await;
            let new = |pod: &Pod| containers(pod).is_disjoint(old);
            if parts.len() == count && parts.iter().all(|pod| space::ready(pod) && new(pod)) {
                break;
            }
            let found: Vec<_> =
                parts.iter().map(|pod| (pod.name_any(), space::ready(pod), new(pod))).collect();
            assert!(
                Instant::now() < deadline,
                "{count} of {component} must be ready and new; there are {found:?}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A loop in a pod that writes a line five times a second and stops at the first error, which it leaves in /tmp/error.
async fn start_writing(space: &Space, pod: &str) {
    let script = "(n=0; while :; do n=$((n+1)); { echo $n >> /data/lines && sync; } 2> /tmp/error || exit 1; echo $n > /tmp/count; \
                  usleep 200000; done) > /dev/null 2>&1 &";
    space.sh(pod, script).await;
}

/// How many lines that loop has written. For a moment, the file that tells is empty.
async fn written(space: &Space, pod: &str) -> u64 {
    let script = "n=; until [ -n \"$n\" ]; do read -r n < /tmp/count; done; echo $n";
    space.sh(pod, script).await.parse().unwrap()
}

/// That the loop still runs, got on since, and left out no line.
async fn still_writing(space: &Space, pod: &str) {
    let before = written(space, pod).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = written(space, pod).await;
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
    const CLAIMS: usize = 60;
    let component = if space.driver.is_pool() { "pool" } else { "nfs-controller" };
    let claims = space.api::<PersistentVolumeClaim>();
    let small = json!({ "spec": { "resources": { "requests": { "storage": "1Mi" } } } });
    let names: Vec<String> = (0..CLAIMS).map(|number| format!("data-{number}")).collect();
    let made = futures::future::join_all(names.iter().map(|name| space.claim(name, small.clone()))).await;
    let uids: Vec<String> = made.iter().map(|claim| claim.uid().unwrap()).collect();

    let deadline = Instant::now() + PATIENCE;
    while space.volumes().await.is_empty() {
        assert!(Instant::now() < deadline, "no volume");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let now = claims.list(&ListParams::default()).await.expect("claims").items;
    let bound = now.iter().filter(|claim| space::phase(claim) == "Bound").count();
    assert!(bound < CLAIMS, "all were bound already: this is not in the middle of anything");
    replace(space, component, true).await;
    let mut volumes = Vec::new();
    for claim in &names {
        volumes.push(space.bound(claim).await.name_any());
    }
    volumes.sort();
    volumes.dedup();
    assert_eq!(volumes.len(), CLAIMS, "each claim has a volume of its own");
    // None that nobody knows of: as many as there are claims.
    assert_eq!(space.volumes().await.len(), CLAIMS);
    // Nor a directory: each is called after its claim.
    assert_eq!(directories(space, &uids).await.len(), CLAIMS);

    // Deletions die in the middle as well.
    claims.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
    let deadline = Instant::now() + PATIENCE;
    let left = loop {
        let left = space.volumes().await.len();
        if left < CLAIMS {
            break left;
        }
        assert!(Instant::now() < deadline, "no volume is deleted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(left > 0, "all were gone already: this is not in the middle of anything");
    replace(space, component, true).await;
    space.empty().await;
    assert_eq!(directories(space, &uids).await, [""; 0], "directories without a volume");
}

/// The directories on the export or in the pool that are called after one of these claims; of those in the trash, none.
async fn directories(space: &Space, claims: &[String]) -> Vec<String> {
    let names = space.oversee("ls -A /data").await;
    let of_one = |name: &&str| claims.iter().any(|claim| name.contains(claim.as_str()));
    names.lines().filter(of_one).map(str::to_owned).collect()
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

/// A claim, and a pod that has it on another NFS node than the server's: that node, and the pod.
async fn away_with_a_volume(space: &Space) -> (String, Pod) {
    let node = space.site.nfs_nodes.get(1);
    let node = node.expect("this case needs a second node in KURATION_NFS_NODES, not the server's");
    space.claim("data", json!({})).await;
    space.pod("pod", "data", json!({ "spec": { "nodeSelector": objects::on(node) } })).await;
    (node.clone(), space.running("pod").await)
}

/// Does something to the machine of the server, the first NFS node.
async fn to_the_server(space: &Space, what: &str) {
    to(&space.site.nfs_nodes[0], &[what]).await;
}

/// Does something to the machine of an NFS node: what the program `nfs-node` prints.
pub async fn to(node: &str, what: &[&str]) -> String {
    let mut command = site::tool("nfs-node");
    command.env("NFS_NODE", node).args(what);
    if node == LATER_NODE {
        command.env("NFS_NODE_NUMBER", "4");
    }
    let done = tokio::task::spawn_blocking(move || site::output(&mut command));
    done.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"))
}

/// Reboots the machine of an NFS node, and waits until the driver works there again.
async fn reboot(space: &Space, node: &str) {
    let mut old = BTreeSet::new();
    for component in ["nfs-node", "nfs-controller"] {
        old.extend(parts(space, component).await.iter().filter(|pod| is_on(pod, node)).flat_map(containers));
    }
    to(node, &["reboot"]).await;
    all_ready_without(space, &old).await;
}

/// What a node says of itself.
fn readiness(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|one| one.type_ == "Ready")
}

/// Waits until a node has said since this call that it is ready. What the API server knew before may be 20 s old.
async fn says_that_it_is_ready(space: &Space, node: &str, patience: Duration) {
    let nodes = space.all::<Node>();
    let last = readiness(&nodes.get(node).await.unwrap()).and_then(|ready| ready.last_heartbeat_time.clone());
    let anew = |node: &Node| {
        readiness(node).is_some_and(|ready| ready.status == "True" && ready.last_heartbeat_time > last)
    };
    space.until_within(patience, nodes, node, "says that it is Ready", anew).await;
}

/// Waits until the driver is registered on a node, by another CSINode than the one of this uid.
async fn registered(space: &Space, node: &str, old: Option<String>) {
    let lists = |found: &CSINode| {
        found.uid() != old && found.spec.drivers.iter().any(|driver| driver.name == space.driver.name())
    };
    space.until(space.all::<CSINode>(), node, "lists the driver", lists).await;
}

async fn a_server_that_is_rebooted_interrupts_no_writer(space: &Space) {
    away_with_a_volume(space).await;
    start_writing(space, "pod").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    reboot(space, &space.site.nfs_nodes[0]).await;
    // The grace period of the server, in which it takes no writes, is 10 s here.
    still_writing(space, "pod").await;
    space.end("pod").await;
}

async fn a_server_that_is_frozen_keeps_no_pod(space: &Space) {
    let (node, _) = away_with_a_volume(space).await;
    // Calls that a signal ends. A process that waits in sync(2) for a dead server can't be killed on Linux, and keeps its pod
    // whatever the driver does.
    space.sh("pod", "echo x > /data/note && sync && (while :; do touch /data/mark; ls /data; usleep 100000; done) > /dev/null 2>&1 &").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    to_the_server(space, "freeze").await;
    let began = Instant::now();
    let outcome = AssertUnwindSafe(async {
        // It hangs in the kernel by now.
        tokio::time::sleep(Duration::from_secs(2)).await;
        space.end("pod").await;
        let took = began.elapsed();
        says_that_it_is_ready(space, &node, Duration::from_secs(20)).await;
        took
    });
    let outcome = outcome.catch_unwind().await;
    to_the_server(space, "thaw").await;
    let took = outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    assert!(took < Duration::from_secs(60), "the pod was gone after {took:?}");
    says_that_it_is_ready(space, &space.site.nfs_nodes[0], PATIENCE).await;
    all_ready_without(space, &BTreeSet::new()).await;
}

async fn a_node_that_is_rebooted_has_its_pods_volumes_again(space: &Space) {
    let (node, _) = away_with_a_volume(space).await;
    space.sh("pod", "echo kept > /data/note && sync").await;
    reboot(space, &node).await;
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
    let (node, pod) = away_with_a_volume(space).await;
    space.sh("pod", "echo kept > /data/note && sync").await;
    let before = space.all::<CSINode>().get(&node).await.unwrap().uid();
    space.delete(space.all::<Node>(), &node).await;
    // Its pods go with it, and the volume is another node's.
    space.gone(space.api::<Pod>(), "pod", &pod.uid().unwrap()).await;
    space.pod("next", "data", json!({})).await;
    space.running("next").await;
    assert_eq!(space.sh("next", "cat /data/note").await, "kept");
    // The machine comes back, as a node that was never there before, and can have the volume again.
    reboot(space, &node).await;
    registered(space, &node, before).await;
    space.pod("back", "data", json!({ "spec": { "nodeSelector": objects::on(&node) } })).await;
    space.running("back").await;
    assert_eq!(space.sh("back", "cat /data/note").await, "kept");
}

async fn a_node_that_is_added_later_has_volumes(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    space.sh("pod", "echo here > /data/note && sync").await;
    let outcome = AssertUnwindSafe(async {
        // A client alone.
        to(LATER_NODE, &["up", "-m", "1024", "-n"]).await;
        registered(space, LATER_NODE, None).await;
        space.pod("there", "data", json!({ "spec": { "nodeSelector": objects::on(LATER_NODE) } })).await;
        let there = space.running("there").await;
        assert_eq!(there.spec.unwrap().node_name.as_deref(), Some(LATER_NODE));
        assert_eq!(space.sh("there", "cat /data/note && echo there > /data/note && sync").await, "here");
        assert_eq!(space.sh("pod", "cat /data/note").await, "there");
        space.end("there").await;
    });
    let outcome = outcome.catch_unwind().await;
    // It and the Node; Kubernetes itself takes a minute to forget its pods.
    to(LATER_NODE, &["down"]).await;
    let pods = Api::<Pod>::namespaced(space.client.clone(), NAMESPACE);
    for pod in parts(space, "nfs-node").await.iter().filter(|pod| is_on(pod, LATER_NODE)) {
        drop(pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await);
    }
    outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    // As many parts as before.
    all_ready_without(space, &BTreeSet::new()).await;
}

/// Ends the kubelet of a node on which `pod` runs, and waits until the next one is there.
pub async fn restart_kubelet(space: &Space, node: &str, pod: &str) {
    // The node's supervisor starts it again. (ps and pkill fail on that kernel.)
    let end = "for c in /proc/[0-9]*/comm; do read -r n < $c; [ $n != kubelet ] || { p=${c#/proc/}; kill ${p%/comm}; }; done 2> /dev/null";
    to(node, &["run", "bash", "-c", end]).await;
    let (began, mut refused) = (Instant::now(), false);
    // It was away, and is back.
    while space.try_sh(pod, "true").await.is_err() || !refused {
        refused |= space.try_sh(pod, "true").await.is_err();
        assert!(
            began.elapsed() < PATIENCE,
            "the kubelet was {}",
            if refused { "away for good" } else { "never away" }
        );
    }
}

async fn a_kubelet_that_is_restarted_interrupts_no_pod(space: &Space) {
    let (node, _) = away_with_a_volume(space).await;
    start_writing(space, "pod").await;
    restart_kubelet(space, &node, "pod").await;
    still_writing(space, "pod").await;
    // And the driver is still registered with the new one.
    space.end("pod").await;
}
