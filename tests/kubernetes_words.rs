//! What Kubernetes adds to requests of its own accord is understood, or refused in words that help.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;

use std::collections::HashMap;
use std::process::Command;

use asks::{Asker, node_unpublish, unstage};
use common::{Driver, MIB, Mode, capability, capability_with, create, map, node_publish, stage};
use kuration::csi::proto::volume_capability::AccessType;
use kuration::csi::proto::{
    ControllerPublishVolumeRequest, NodeGetCapabilitiesRequest, ValidateVolumeCapabilitiesRequest, Volume,
};
use tonic::Code;

/// What the kubelet adds to a volume's context (podInfoOnMount, tokenRequests), the provisioner to a PersistentVolume, and
/// whatever they will add one day.
fn words(volume: &Volume) -> HashMap<String, String> {
    let mut context = volume.volume_context.clone();
    context.extend(map(&[
        ("csi.storage.k8s.io/pod.name", "p"),
        ("csi.storage.k8s.io/pod.namespace", "default"),
        ("csi.storage.k8s.io/pod.uid", "6f1f52c0-3b1e-4a3c-8f0a-4f1c7f6d0000"),
        ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ("csi.storage.k8s.io/serviceAccount.tokens", "{}"),
        ("csi.storage.k8s.io/ephemeral", "false"),
        ("csi.storage.k8s.io/something.new", "x"),
        ("storage.kubernetes.io/csiProvisionerIdentity", "1763737200000-1234-pool.csi.kuration.io"),
    ]));
    context
}

#[tokio::test]
async fn whose_pod_it_is_and_who_provisioned_it_is_never_refused() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let mode = Mode::SingleNodeWriter;
    let volume = asker.volume(create("pvc-1", MIB, &[])).await.unwrap();
    let (staging, target) = (driver.home.path().join("staging"), driver.home.path().join("target"));
    std::fs::create_dir(&staging).unwrap();

    let publish = ControllerPublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        node_id: "node-1".into(),
        volume_capability: Some(capability(mode)),
        volume_context: words(&volume),
        ..Default::default()
    };
    asker.done(publish).await;
    let validate = ValidateVolumeCapabilitiesRequest {
        volume_id: volume.volume_id.clone(),
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter)],
        volume_context: words(&volume),
        ..Default::default()
    };
    let answer = driver.controller().await.validate_volume_capabilities(validate).await.unwrap().into_inner();
    assert!(answer.confirmed.is_some(), "{answer:?}");
    let mut asked = stage(&volume, &staging, mode);
    asked.volume_context = words(&volume);
    asker.done(asked).await;
    let mut asked = node_publish(&volume, &staging, &target, mode);
    asked.volume_context = words(&volume);
    asker.done(asked).await;
    asker.done(node_unpublish(&volume.volume_id, &target)).await;
    asker.done(unstage(&volume.volume_id, &staging)).await;
}

#[tokio::test]
async fn a_label_that_a_bind_mount_can_not_have_is_refused_by_its_name() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let volume = asker.volume(create("pvc-1", MIB, &[])).await.unwrap();
    let staging = driver.home.path().join("staging");
    std::fs::create_dir(&staging).unwrap();
    let mut asked = stage(&volume, &staging, Mode::SingleNodeWriter);
    let label = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
    asked.volume_capability = Some(capability_with(Mode::SingleNodeWriter, &[label]));
    let refusal = asker.ask(asked).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(
        refusal.message().contains("context=") && refusal.message().contains("seLinuxMount"),
        "{refusal}"
    );
}

#[tokio::test]
async fn the_group_of_a_volume_is_the_kubelets_to_set() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let answer = asker.done(NodeGetCapabilitiesRequest {}).await;
    assert!(!answer.contains("VolumeMountGroup"), "{answer}");
    let mut request = create("pvc-1", MIB, &[]);
    if let Some(AccessType::Mount(mount)) = &mut request.volume_capabilities[0].access_type {
        mount.volume_mount_group = "1000".into();
    }
    let refusal = asker.ask(request).await.unwrap_err();
    assert!(refusal.message().contains("fsGroup"), "{refusal}");
}

#[test]
fn a_port_that_is_taken_ends_the_driver_with_the_address_and_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Command::new(env!("CARGO_BIN_EXE_kuration"))
        .env_clear()
        .args(["node", "--node-id", "n1", "--admin", &address, "--endpoint"])
        .arg(format!("unix://{}", home.path().join("csi.sock").display()))
        .arg("--state-dir")
        .arg(home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("--admin {address}")) && said.contains("choose another"), "{said}");
}
