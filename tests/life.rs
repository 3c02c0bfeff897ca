//! A volume's whole life in a pool, over the socket.

mod common;

use common::{Driver, MIB, Mode, capability, create, listing, mounts_beneath, node_publish, stage};
use kuration::csi::proto;

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_and_leaves_nothing_behind() {
    let driver = Driver::pool(&[]);
    let (mut controller, mut node) = (driver.controller().await, driver.node().await);
    let created = controller.create_volume(create("pvc-1", 64 * MIB, &[])).await.unwrap().into_inner();
    let volume = created.volume.unwrap();
    assert_eq!(volume.capacity_bytes, 64 * MIB);

    let home = driver.home.path().to_owned();
    let (staging, target) = (home.join("globalmount"), home.join("pod"));
    std::fs::create_dir(&staging).unwrap();
    let mode = Mode::MultiNodeMultiWriter;
    let publish = proto::ControllerPublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        node_id: "node-1".into(),
        volume_capability: Some(capability(mode)),
        ..Default::default()
    };
    controller.controller_publish_volume(publish).await.unwrap();
    node.node_stage_volume(stage(&volume, &staging, mode)).await.unwrap();
    node.node_publish_volume(node_publish(&volume, &staging, &target, mode)).await.unwrap();
    std::fs::write(target.join("file"), "data").unwrap();
    assert_eq!(std::fs::read_to_string(home.join("pool/pvc-1/file")).unwrap(), "data");

    let (volume_id, target_path) = (volume.volume_id.clone(), target.to_string_lossy().into_owned());
    let unpublish = proto::NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path };
    node.node_unpublish_volume(unpublish).await.unwrap();
    assert!(!target.exists());
    let staging_target_path = staging.to_string_lossy().into_owned();
    let unstage = proto::NodeUnstageVolumeRequest { volume_id: volume_id.clone(), staging_target_path };
    node.node_unstage_volume(unstage).await.unwrap();
    let unpublish = proto::ControllerUnpublishVolumeRequest {
        volume_id: volume_id.clone(),
        node_id: "node-1".into(),
        ..Default::default()
    };
    controller.controller_unpublish_volume(unpublish).await.unwrap();
    let delete = proto::DeleteVolumeRequest { volume_id, ..Default::default() };
    controller.delete_volume(delete).await.unwrap();

    assert_eq!(mounts_beneath(&home), Vec::<std::path::PathBuf>::new());
    assert_eq!(listing(&home.join("pool")), [".kuration"]);
    let tree = home.join("pool/.kuration/installations/default");
    for part in ["volumes", "reserved", "published"] {
        assert_eq!(listing(&tree.join(part)), Vec::<String>::new(), "{part}");
    }
    assert_eq!(listing(&tree.join("trash")).len(), 2);
    let (status, _home) = driver.stop();
    assert_eq!(status.code(), Some(0));
}
