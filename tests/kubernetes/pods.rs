//! What a pod may ask of its volume: a part of it, reading alone, a group, options, a volume of its own.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::objects;
use super::space::Space;

crate::for_every_driver!(
    a_sub_path_shows_a_part_of_the_volume,
    a_pod_that_asks_to_read_alone_cannot_write,
    a_mount_that_is_read_only_stands_beside_one_that_writes,
    a_group_of_the_pod_owns_what_it_writes,
    a_group_is_not_given_again_where_the_root_has_it,
    an_ephemeral_claim_lives_as_long_as_its_pod;
    pool: a_volume_without_options_takes_those_of_any_mount;
    share: options_of_a_class_reach_the_mount, options_of_a_volume_reach_the_mount;
    // Options of a case's own would take the place of those that say which version it is.
    share3: ..
);

/// A pod's changed container.
fn container(more: Value) -> Value {
    let mut pod = objects::pod("x", "x", json!({}));
    let mut container = pod["spec"]["containers"][0].take();
    objects::lay_over(&mut container, more);
    json!({ "spec": { "containers": [container] } })
}

async fn a_sub_path_shows_a_part_of_the_volume(space: &Space) {
    space.claim_in_pod("data", "whole").await;
    let part = container(json!({ "volumeMounts": [
        { "name": "data", "mountPath": "/data", "subPath": "a/part" },
        { "name": "data", "mountPath": "/named", "subPathExpr": "of-$(NAME)" },
    ], "env": [{ "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }] }));
    space.pod("part", "data", part).await;
    space.running("part").await;
    space.sh("part", "echo x > /data/note && echo y > /named/note && sync").await;
    assert_eq!(space.sh("whole", "cat /data/a/part/note /data/of-part/note").await, "x\ny");
    assert_eq!(space.sh("part", "ls -A /data").await, "note", "the part alone is seen");
}

async fn a_pod_that_asks_to_read_alone_cannot_write(space: &Space) {
    space.claim_in_pod("data", "writer").await;
    space.sh("writer", "echo x > /data/note && sync").await;
    // A share's staged mount may be read by one and written by another; so may a pool's.
    let reads = json!({ "spec": { "volumes": [{
        "name": "data", "persistentVolumeClaim": { "claimName": "data", "readOnly": true },
    }] } });
    space.end("writer").await;
    space.pod("reader", "data", reads).await;
    space.running("reader").await;
    assert_eq!(space.sh("reader", "cat /data/note").await, "x");
    let refused = space.try_sh("reader", "echo y > /data/note").await.expect_err("a reader");
    assert!(refused.contains("Read-only file system"), "{refused}");
}

async fn a_mount_that_is_read_only_stands_beside_one_that_writes(space: &Space) {
    space.claim_in_pod("data", "writer").await;
    let reads =
        container(json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data", "readOnly": true }] }));
    space.pod("reader", "data", reads).await;
    space.running("reader").await;
    space.sh("writer", "echo x > /data/note && sync").await;
    assert_eq!(space.sh("reader", "cat /data/note").await, "x");
    let refused = space.try_sh("reader", "touch /data/other").await.expect_err("a reader");
    assert!(refused.contains("Read-only file system"), "{refused}");
    space.sh("writer", "touch /data/other").await;
}

/// A pod's context: nobody's user, and a group for its volumes.
fn of_group(group: u32, policy: &str) -> Value {
    json!({ "spec": { "securityContext": {
        "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": group, "fsGroupChangePolicy": policy,
    } } })
}

async fn a_group_of_the_pod_owns_what_it_writes(space: &Space) {
    // A directory that others may not write, so that the group is what lets the pod in.
    let parameters = json!({ "parameters": { "mountPermissions": "0750" } });
    let class = space.class("closed", parameters).await;
    space.claim_of("data", &class).await;
    space.pod("root", "data", json!({})).await;
    space.running("root").await;
    space
        .sh("root", "mkdir -m 700 /data/folder && echo x > /data/folder/note && chmod 600 /data/folder/note")
        .await;
    space.end("root").await;
    space.pod("pod", "data", of_group(3000, "Always")).await;
    space.running("pod").await;
    assert_eq!(space.sh("pod", "touch /data/mine && stat -c %u:%g /data/mine").await, "1000:3000");
    // What was there is the group's now.
    assert_eq!(space.sh("pod", "cat /data/folder/note && stat -c %g /data/folder/note").await, "x\n3000");
}

async fn a_group_is_not_given_again_where_the_root_has_it(space: &Space) {
    space.claim_in_pod("data", "root").await;
    // The root has the group and the bits that the kubelet would set; a file within does not.
    space
        .sh("root", "echo x > /data/note && chmod 644 /data/note && chgrp 3000 /data && chmod 2775 /data")
        .await;
    space.end("root").await;
    space.pod("pod", "data", of_group(3000, "OnRootMismatch")).await;
    space.running("pod").await;
    assert_eq!(
        space.sh("pod", "stat -c %g /data/note").await,
        "0",
        "the root was right, so nothing is changed"
    );
    assert_eq!(space.sh("pod", "touch /data/mine && stat -c %g /data/mine").await, "3000");
    space.end("pod").await;
    space.pod("pod", "data", of_group(3000, "Always")).await;
    space.running("pod").await;
    assert_eq!(space.sh("pod", "stat -c %g /data/note").await, "3000");
}

async fn an_ephemeral_claim_lives_as_long_as_its_pod(space: &Space) {
    let mut template = objects::claim("x", space.driver.class());
    let template = json!({ "spec": template["spec"].take() });
    let ephemeral = json!({ "ephemeral": { "volumeClaimTemplate": template } });
    space.make::<k8s_openapi::api::core::v1::Pod>(objects::pod("pod", space.node(), ephemeral)).await;
    space.running("pod").await;
    space.sh("pod", "echo x > /data/note && cat /data/note").await;
    let volume = space.bound("pod-data").await;
    let claim = space.api::<PersistentVolumeClaim>().get("pod-data").await.unwrap().uid().unwrap();
    space.end("pod").await;
    space.gone(space.api::<PersistentVolumeClaim>(), "pod-data", &claim).await;
    space.gone(space.all::<PersistentVolume>(), &volume.name_any(), &volume.uid().unwrap()).await;
}

/// The line of a pod's mount at /data.
async fn mount_of(space: &Space, pod: &str) -> String {
    space.sh(pod, "grep ' /data ' /proc/mounts").await
}

async fn options_of_a_class_reach_the_mount(space: &Space) {
    let options = json!({ "mountOptions": ["rsize=65536", "noatime", "hard", "timeo=77"] });
    let class = space.class("options", options).await;
    space.claim_of("data", &class).await;
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    let mount = mount_of(space, "pod").await;
    for option in ["rsize=65536", "noatime", "hard", "timeo=77"] {
        assert!(mount.contains(option), "{option} is not in {mount}");
    }
}

async fn options_of_a_volume_reach_the_mount(space: &Space) {
    space.claim("data", json!({})).await;
    let volume = space.bound("data").await.name_any();
    let options = json!({ "spec": { "mountOptions": ["wsize=32768", "noatime"] } });
    space.change(space.all::<PersistentVolume>(), &volume, options).await;
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    let mount = mount_of(space, "pod").await;
    for option in ["wsize=32768", "noatime"] {
        assert!(mount.contains(option), "{option} is not in {mount}");
    }
}

async fn a_volume_without_options_takes_those_of_any_mount(space: &Space) {
    let class = space.class("options", json!({ "mountOptions": ["noatime", "noexec"] })).await;
    space.claim_of("data", &class).await;
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    let mount = mount_of(space, "pod").await;
    assert!(mount.contains("noatime") && mount.contains("noexec"), "{mount}");
    let claims = space.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap();
    assert_eq!(claims.items.len(), 1);
}
