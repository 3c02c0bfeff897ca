//! What the kubelet and the attacher know: CSINode, VolumeAttachment, and how full a volume is.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, VolumeAttachment};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::site;
use super::space::{PATIENCE, Space};

crate::for_every_driver!(
    a_node_lists_the_driver_with_its_id,
    a_volume_tells_how_full_it_is;
    pool: attaching_comes_before_staging_and_goes_after_unstaging, volumes_of_a_pool_name_their_node,
        a_topology_that_the_pool_is_not_in_is_refused;
    share: a_share_is_not_attached
);

async fn a_node_lists_the_driver_with_its_id(space: &Space) {
    let node = space.all::<CSINode>().get(space.node()).await.unwrap();
    let driver =
        node.spec.drivers.iter().find(|driver| driver.name == space.driver.name()).expect("registered");
    assert_eq!(driver.node_id, space.node());
    let keys = driver.topology_keys.clone().unwrap_or_default();
    let wanted: &[&str] = if space.driver.is_pool() { &["pool.csi.kuration.io/node"] } else { &[] };
    assert_eq!(keys, wanted);
    // No limit was set, and none is shown: an absent count, not a zero.
    assert!(driver.allocatable.as_ref().is_none_or(|allocatable| allocatable.count.is_none()), "{driver:?}");
    let driver = space.all::<CSIDriver>().get(space.driver.name()).await.unwrap().spec;
    assert_eq!(driver.attach_required, Some(space.driver.is_pool()));
    assert_eq!(driver.pod_info_on_mount, Some(true));
    let modes = driver.volume_lifecycle_modes.unwrap();
    assert!(modes.contains(&"Persistent".to_owned()) && modes.contains(&"Ephemeral".to_owned()), "{modes:?}");
    // A label of the kubelet's by which the scheduler and the provisioner find the pool.
    if space.driver.is_pool() {
        let node = space.all::<k8s_openapi::api::core::v1::Node>().get(space.node()).await.unwrap();
        assert_eq!(node.labels().get("pool.csi.kuration.io/node").map(String::as_str), Some(space.node()));
    }
}

/// A gauge of the kubelet's about a claim.
pub async fn gauge(space: &Space, name: &str, claim: &str) -> Option<f64> {
    let path = format!("/api/v1/nodes/{}/proxy/metrics", space.node());
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let metrics = space.client.request_text(request).await.expect("the kubelet's metrics");
    let label = |key: &str, value: &str| format!("{key}=\"{value}\"");
    let (namespace, claim) = (label("namespace", &space.name), label("persistentvolumeclaim", claim));
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("kubelet_volume_stats_{name}{{")));
    let line = lines.into_iter().find(|line| line.contains(&namespace) && line.contains(&claim))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn a_volume_tells_how_full_it_is(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    space.claim_in_pod("empty", "neighbour").await;
    space.sh("pod", "dd if=/dev/urandom of=/data/file bs=1M count=20 conv=fsync && sync").await;
    // The kubelet looks once in volumeStatsAggPeriod: a minute, and less on the test cluster's nodes.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let full = 20.0 * 1024.0 * 1024.0;
    loop {
        let found = (gauge(space, "used_bytes", "data").await, gauge(space, "used_bytes", "empty").await);
        if let (Some(used), Some(empty)) = found {
            let capacity = gauge(space, "capacity_bytes", "data").await.unwrap();
            let available = gauge(space, "available_bytes", "data").await.unwrap();
            assert!(available < capacity && capacity > 0.0, "{available} of {capacity}");
            if !space.driver.is_pool() {
                // A server's own figures: of the export.
                assert!(capacity > 1e9, "{capacity}");
                return;
            }
            // The volume's own, neither the pool's nor the neighbour's.
            assert_eq!(capacity, 64.0 * 1024.0 * 1024.0);
            assert!(empty < 1e6, "the neighbour's volume is empty, and has {empty}");
            if used >= full {
                assert!(used < full * 1.2, "{used}");
                return;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "the kubelet says {found:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The attachments of a volume.
async fn attachments(space: &Space, volume: &str) -> Vec<VolumeAttachment> {
    let mut found = space.all::<VolumeAttachment>().list(&ListParams::default()).await.unwrap().items;
    found.retain(|one| one.spec.source.persistent_volume_name.as_deref() == Some(volume));
    found
}

async fn attaching_comes_before_staging_and_goes_after_unstaging(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    let volume = space.bound("data").await;
    let handle = volume.spec.as_ref().unwrap().csi.as_ref().unwrap().volume_handle.clone();
    let found = attachments(space, &volume.name_any()).await;
    let [attachment] = found.as_slice() else { panic!("one attachment: {found:?}") };
    assert_eq!(
        (attachment.spec.attacher.as_str(), attachment.spec.node_name.as_str()),
        (space.driver.name(), space.node())
    );
    assert_eq!(attachment.finalizers(), ["external-attacher/pool-csi-kuration-io"]);
    assert_eq!(
        attachment.annotations().get("csi.alpha.kubernetes.io/node-id").map(String::as_str),
        Some(space.node())
    );
    assert!(attachment.status.as_ref().is_some_and(|status| status.attached));
    let (name, uid) = (attachment.name_any(), attachment.uid().unwrap());
    space.end("pod").await;
    space.gone(space.all::<VolumeAttachment>(), &name, &uid).await;
    let calls = calls(space, &handle).await;
    let wanted = [
        "ControllerPublishVolume",
        "NodeStageVolume",
        "NodePublishVolume",
        "NodeUnpublishVolume",
        "NodeUnstageVolume",
        "ControllerUnpublishVolume",
    ];
    assert_eq!(calls, wanted);
}

/// The calls about a volume that changed something on its way to a pod and back, in their order, by the driver's log.
async fn calls(space: &Space, handle: &str) -> Vec<String> {
    let pods = Api::<Pod>::namespaced(space.client.clone(), site::NAMESPACE);
    let log =
        LogParams { container: Some("kuration".to_owned()), since_seconds: Some(600), ..Default::default() };
    let log = pods.logs(&format!("{}-pool-0", site::RELEASE), &log).await.expect("the driver's log");
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut calls = Vec::new();
    for line in lines.filter(|line| line.to_string().contains(handle)) {
        let call = line["span"]["rpc.method"].as_str().unwrap_or_default();
        let counts = ["PublishVolume", "StageVolume", "UnpublishVolume", "UnstageVolume"];
        if counts.iter().any(|one| call.ends_with(one)) && calls.last().is_none_or(|last| last != call) {
            calls.push(call.to_owned());
        }
    }
    calls
}

async fn volumes_of_a_pool_name_their_node(space: &Space) {
    space.claim("data", json!({})).await;
    let volume = space.bound("data").await;
    let affinity = serde_json::to_value(volume.spec.unwrap().node_affinity).unwrap();
    let terms = &affinity["required"]["nodeSelectorTerms"];
    let wanted = json!([{ "matchExpressions": [
        { "key": "pool.csi.kuration.io/node", "operator": "In", "values": [space.node()] },
    ] }]);
    assert_eq!(*terms, wanted);
    // Elsewhere it can't be used, and the scheduler says so.
    let elsewhere =
        json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": space.site.nfs_nodes[0] } } });
    space.pod("elsewhere", "data", elsewhere).await;
    space.event("Pod", "elsewhere", &["nodes are available"]).await;
    // Where no node is named, the volume leads the pod to its own.
    space.pod("anywhere", "data", json!({ "spec": { "nodeSelector": null } })).await;
    assert_eq!(space.running("anywhere").await.spec.unwrap().node_name.as_deref(), Some(space.node()));
}

async fn a_topology_that_the_pool_is_not_in_is_refused(space: &Space) {
    let on = |node: &str| {
        json!({
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": [{ "matchLabelExpressions": [{ "key": "pool.csi.kuration.io/node", "values": [node] }] }],
        })
    };
    let class = space.class("elsewhere", on("no-such-node")).await;
    space.claim_of("elsewhere", &class).await;
    space.pod("waits", "elsewhere", json!({})).await;
    space.event("Pod", "waits", &["nodes are available"]).await;
    assert!(space.volumes().await.is_empty());
    let class = space.class("here", on(space.node())).await;
    space.claim_of("here", &class).await;
    space.pod("runs", "here", json!({})).await;
    space.running("runs").await;
}

async fn a_share_is_not_attached(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    let volume = space.bound("data").await.name_any();
    assert!(attachments(space, &volume).await.is_empty(), "attachRequired is false");
}
