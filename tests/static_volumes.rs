//! Volumes that nobody made here: a PersistentVolume with a handle of its author's choice, and a context that says where it is.
//!
//! What is asked of a controller about them needs no server. tests/nfs mounts them.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;

use asks::Asker;
use common::{Driver, MIB, Mode, capability, map};
use kuration::csi::proto::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerPublishVolumeRequest,
    ControllerUnpublishVolumeRequest, DeleteVolumeRequest, ValidateVolumeCapabilitiesRequest,
};
use tonic::Code;

/// Names of an author's choice: one word, one that says where the volume is, and one in the form of another driver's ids.
const HANDLES: [&str; 3] = ["data", "10.0.0.1:/data with spaces", "a/b/c##d"];
const CONTEXT: [(&str, &str); 3] = [("server", "192.0.2.1"), ("share", "/data"), ("subDir", "media")];

fn shares() -> Driver {
    Driver::start(tempfile::tempdir().unwrap(), "all", &["--node-id", "node-1"], &[])
}

fn publish(handle: &str, node: &str, context: &[(&str, &str)]) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest {
        volume_id: handle.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(capability(Mode::MultiNodeMultiWriter)),
        volume_context: map(context),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_static_volume_is_attached_and_detached_without_a_record() {
    let driver = shares();
    let asker = Asker::of(&driver).await;
    for handle in HANDLES {
        for _ in 0..2 {
            assert_eq!(asker.code(publish(handle, "node-1", &CONTEXT)).await, Code::Ok, "{handle}");
        }
        let (volume_id, node_id) = (handle.to_owned(), "node-1".to_owned());
        let unpublish = ControllerUnpublishVolumeRequest { volume_id, node_id, ..Default::default() };
        for _ in 0..2 {
            assert_eq!(asker.code(unpublish.clone()).await, Code::Ok, "{handle}");
        }
    }
    assert_eq!(asker.code(publish("data", "node-9", &CONTEXT)).await, Code::NotFound);
}

#[tokio::test]
async fn a_static_volume_that_is_attached_for_reading_says_so_to_the_node() {
    let driver = shares();
    let mut asked = publish("data", "node-1", &CONTEXT);
    asked.readonly = true;
    let answer = driver.controller().await.controller_publish_volume(asked).await.unwrap().into_inner();
    assert_eq!(answer.publish_context, map(&[("readonly", "true")]));
}

#[tokio::test]
async fn without_a_server_and_a_share_there_is_no_such_volume() {
    let driver = shares();
    let asker = Asker::of(&driver).await;
    for context in [&[][..], &[("csi.storage.k8s.io/pod.name", "p")]] {
        assert_eq!(asker.code(publish("data", "node-1", context)).await, Code::NotFound, "{context:?}");
    }
    // Half of it is a mistake, and which half is said.
    for (context, word) in [
        (&[("server", "192.0.2.1")][..], "\"share\""),
        (&[("share", "/data")], "\"server\""),
        (&[("server", "192.0.2.1"), ("share", "/data"), ("subDir", "../up")], "../up"),
    ] {
        let refusal = asker.ask(publish("data", "node-1", context)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
        assert!(refusal.message().contains(word), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_static_volume_is_never_deleted_and_never_grows() {
    let driver = shares();
    let asker = Asker::of(&driver).await;
    for handle in HANDLES {
        let volume_id = handle.to_owned();
        let delete = DeleteVolumeRequest { volume_id: volume_id.clone(), ..Default::default() };
        // Success, since what was never made is not there; the server, which is none, was not asked.
        assert_eq!(asker.code(delete).await, Code::Ok, "{handle}");
        let capacity_range = Some(CapacityRange { required_bytes: MIB, limit_bytes: 0 });
        let expand = ControllerExpandVolumeRequest { volume_id, capacity_range, ..Default::default() };
        let refusal = asker.ask(expand).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NotFound, "{refusal:?}");
        assert!(refusal.message().contains("a static volume's size is its server's"), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_static_volume_is_confirmed_for_what_every_volume_can_do() {
    let driver = shares();
    let ask = |volume_capabilities| ValidateVolumeCapabilitiesRequest {
        volume_id: "data".to_owned(),
        volume_context: map(&CONTEXT),
        volume_capabilities,
        ..Default::default()
    };
    let mut controller = driver.controller().await;
    let many = vec![capability(Mode::MultiNodeMultiWriter)];
    let answer = controller.validate_volume_capabilities(ask(many.clone())).await.unwrap().into_inner();
    assert_eq!(answer.confirmed.unwrap().volume_capabilities, many);
    let unknown = vec![capability(Mode::Unknown)];
    let answer = controller.validate_volume_capabilities(ask(unknown)).await.unwrap().into_inner();
    assert!(answer.confirmed.is_none() && !answer.message.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn an_id_in_our_own_form_is_no_static_volume() {
    let driver = shares();
    let asker = Asker::of(&driver).await;
    let gone = "pool1~85f1144cca5a61c5e1e80ed5366f22c8e513021e";
    assert_eq!(asker.code(publish(gone, "node-1", &CONTEXT)).await, Code::NotFound);
}

#[tokio::test]
async fn a_pool_has_no_static_volumes() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    assert_eq!(asker.code(publish("data", "node-1", &CONTEXT)).await, Code::NotFound);
}
