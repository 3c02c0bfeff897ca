//! Inline ephemeral volumes: a pod's own, without a claim, where the administrator allows them.

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::objects;
use super::space::Space;

crate::for_driver!(pool: Pool; an_inline_volume_lives_as_long_as_its_pod_and_holds_its_size, more_than_is_allowed_is_refused,
    a_pod_names_no_place);
crate::for_driver!(share: Share; inline_volumes_are_refused_unless_they_are_allowed);

/// A pod with an inline volume.
fn inline(space: &Space, pod: &str, attributes: Value) -> Value {
    let source = json!({ "csi": { "driver": space.driver.name(), "volumeAttributes": attributes } });
    objects::pod(pod, space.node(), source)
}

async fn an_inline_volume_lives_as_long_as_its_pod_and_holds_its_size(space: &Space) {
    space.make::<Pod>(inline(space, "pod", json!({ "size": "16Mi" }))).await;
    space.running("pod").await;
    assert_eq!(space.sh("pod", "ls -A /data && echo x > /data/note && cat /data/note").await, "x");
    let refused = space.try_sh("pod", "dd if=/dev/zero of=/data/large bs=1M count=32 conv=fsync").await;
    let refused = refused.expect_err("more than its size");
    assert!(refused.contains("quota") || refused.contains("No space"), "{refused}");
    space.end("pod").await;
    // A new pod has a new volume.
    space.make::<Pod>(inline(space, "pod", json!({ "size": "16Mi" }))).await;
    space.running("pod").await;
    assert_eq!(space.sh("pod", "ls -A /data").await, "");
}

async fn refused(space: &Space, attributes: Value, words: &[&str]) {
    space.make::<Pod>(inline(space, "pod", attributes)).await;
    space.event("Pod", "pod", words).await;
    space.api::<Pod>().delete("pod", &DeleteParams::default()).await.expect("a pod that never ran");
}

async fn more_than_is_allowed_is_refused(space: &Space) {
    refused(space, json!({ "size": "2Gi" }), &["--inline-limit"]).await;
}

async fn a_pod_names_no_place(space: &Space) {
    refused(
        space,
        json!({ "server": "198.51.100.2", "share": "/xfs" }),
        &["an inline volume can't have", "administrator"],
    )
    .await;
}

async fn inline_volumes_are_refused_unless_they_are_allowed(space: &Space) {
    refused(space, json!({}), &["--inline-share", "nfs.inline.enabled"]).await;
}
