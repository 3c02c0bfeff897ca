//! What can't be had: an event says why, and what to do.

use serde_json::json;

use super::space::Space;

crate::for_every_driver!(
    a_raw_block_volume_is_refused,
    a_misspelt_parameter_is_refused_with_the_nearest_known_one,
    an_unknown_mount_option_is_refused_with_the_nearest_known_one;
    pool: a_pool_that_is_too_small_says_what_is_left, options_of_nfs_mean_nothing_in_a_pool;
    share: a_server_that_is_not_there_is_named, an_export_that_is_not_there_is_named, a_squashed_root_is_told_what_to_do,
        an_export_for_readers_is_told_what_to_do, a_class_without_a_server_is_refused
);

/// A claim of a class that can't work: its event says all of `words`, and the claim stays as it is.
async fn refused(space: &Space, class: serde_json::Value, words: &[&str]) {
    let class = space.class("wrong", class).await;
    space.claim_of("data", &class).await;
    space.event("PersistentVolumeClaim", "data", words).await;
    assert!(space.volumes().await.is_empty(), "a volume of a class that can't work");
}

async fn a_raw_block_volume_is_refused(space: &Space) {
    space.claim("data", json!({ "spec": { "volumeMode": "Block" } })).await;
    let words = ["block volumes can't be had", "volumeMode Filesystem"];
    space.event("PersistentVolumeClaim", "data", &words).await;
}

async fn a_misspelt_parameter_is_refused_with_the_nearest_known_one(space: &Space) {
    let class = json!({ "parameters": { "onDelte": "retain" } });
    refused(space, class, &["unknown parameter", "onDelte", "onDelete"]).await;
}

async fn an_unknown_mount_option_is_refused_with_the_nearest_known_one(space: &Space) {
    refused(space, json!({ "mountOptions": ["noatme"] }), &["unknown mount option", "noatme", "noatime"])
        .await;
}

async fn a_pool_that_is_too_small_says_what_is_left(space: &Space) {
    space.claim("data", json!({ "spec": { "resources": { "requests": { "storage": "9Ti" } } } })).await;
    space.event("PersistentVolumeClaim", "data", &["9895604649984 bytes do not fit", "bytes are free"]).await;
}

async fn options_of_nfs_mean_nothing_in_a_pool(space: &Space) {
    refused(space, json!({ "mountOptions": ["rsize=65536"] }), &["rsize=65536", "leave them out"]).await;
}

async fn a_server_that_is_not_there_is_named(space: &Space) {
    // Of the network for examples: nobody answers there.
    let words = ["198.51.100.250:", "can't be reached", "check the address"];
    refused(space, json!({ "parameters": { "server": "198.51.100.250" } }), &words).await;
}

/// A class of an export that can't be used.
async fn refused_share(space: &Space, share: &str, words: &[&str]) {
    refused(space, json!({ "parameters": { "share": share } }), words).await;
}

async fn an_export_that_is_not_there_is_named(space: &Space) {
    refused_share(space, "/no/such/export", &[":/no/such/export", "no such path", "check the share"]).await;
}

async fn a_squashed_root_is_told_what_to_do(space: &Space) {
    refused_share(space, "/squash", &[":/squash denies it", "no_root_squash"]).await;
}

async fn an_export_for_readers_is_told_what_to_do(space: &Space) {
    refused_share(space, "/readonly", &[":/readonly is read-only", "export it rw"]).await;
}

async fn a_class_without_a_server_is_refused(space: &Space) {
    refused(space, json!({ "parameters": { "server": null } }), &["parameter \"server\" is missing"]).await;
}
