//! Exports that are not what they were.

use std::fs;

use tonic::Code;

use crate::server::{Exchangeable, Share, nfsd};
use crate::site::{Order, Site, retried};

/// Nothing is done for this volume, since the export is another one.
async fn is_not_the_one(site: &Site, volume: &kuration::csi::proto::Volume, order: &Order) {
    let answers = [
        retried_status(async || site.delete(volume).await).await,
        site.expand(volume, 128 << 20, 0).await.map(drop),
        site.attach(volume, order).await,
        site.detach(volume).await,
        site.nodes(volume).await.map(drop),
    ];
    for answer in answers {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("is not the one that this volume was made on"), "{status}");
    }
}

/// Asks again while the server comes back.
async fn retried_status(
    mut ask: impl AsyncFnMut() -> Result<(), tonic::Status>,
) -> Result<(), tonic::Status> {
    retried(async || match ask().await {
        Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) => Err(status),
        other => Ok(other),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_disk_at_the_exports_path_is_seen_at_once() {
    let export = Exchangeable::new(70);
    let site = Site::new(&["--operation-timeout", "10s"]).await;
    let order = Order::new("pvc-1", &export.parameters());
    let volume = site.create(&order).await.unwrap();
    export.exchange(70);
    fs::create_dir(export.path.join("pvc-1")).unwrap();
    fs::write(export.path.join("pvc-1/file"), "somebody's").unwrap();
    is_not_the_one(&site, &volume, &order).await;
    // Also when volumes are made there again.
    let other = site.create(&Order { name: "pvc-2".into(), ..order.clone() }).await.unwrap();
    assert_ne!(volume.volume_id, other.volume_id);
    is_not_the_one(&site, &volume, &order).await;
    assert_eq!(fs::read_to_string(export.path.join("pvc-1/file")).unwrap(), "somebody's");
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&other.volume_id));
    site.delete(&other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_at_the_exports_path_is_seen_after_a_restart() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let volume = site.create(&order).await.unwrap();
    fs::write(share.path.join("pvc-1/file"), "data").unwrap();
    let home = site.driver.kill();
    fs::remove_file(share.path.join(".kuration/id")).unwrap();
    std::os::unix::fs::symlink("0badcafe", share.path.join(".kuration/id")).unwrap();
    let site = Site::again(home, "node-1", &[]).await;
    is_not_the_one(&site, &volume, &order).await;
    assert_eq!(fs::read_to_string(share.path.join("pvc-1/file")).unwrap(), "data");
    assert_eq!((share.directories(), share.volumes().len()), (vec!["pvc-1".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_under_another_number_is_mounted_anew() {
    let export = Exchangeable::new(71);
    let site = Site::new(&["--operation-timeout", "10s"]).await;
    let order = Order::new("pvc-1", &export.parameters());
    let volume = site.create(&order).await.unwrap();
    export.renumber(72);
    // Without a retry: what is stale is mounted again within the request.
    assert_eq!(site.nodes(&volume).await.unwrap(), Vec::<String>::new());
    export.renumber(73);
    assert_eq!(site.create(&order).await.unwrap().volume_id, volume.volume_id);
    export.renumber(74);
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&volume.volume_id));
    export.renumber(75);
    let parameters = export.parameters();
    let parameters = parameters.each_ref().map(|(key, value)| (key.as_str(), value.as_str()));
    assert!(site.capacity(&parameters).await.unwrap() > 0);
    export.renumber(76);
    site.delete(&volume).await.unwrap();
    assert!(!export.path.join("pvc-1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_disturbs_nobody() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let (volume, target) = site.up(&order).await;
    let mut file = fs::File::create(target.join("file")).unwrap();
    nfsd(&["stop"]);
    nfsd(&["start"]);
    nfsd(&["end-grace"]);
    std::io::Write::write_all(&mut file, b"data").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read_to_string(share.path.join("pvc-1/file")).unwrap(), "data");
    drop(file);
    assert!(site.stats(&volume, &target).await.unwrap().total > 0);
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&volume.volume_id));
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_directory_is_gone_can_be_unstaged_and_deleted() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let (volume, target) = site.up(&order).await;
    fs::write(target.join("file"), "data").unwrap();
    fs::remove_dir_all(share.path.join("pvc-1")).unwrap();
    let status = site.stats(&volume, &target).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(status.message().contains("directory is gone"), "{status}");
    let status = site.expand(&volume, 128 << 20, 0).await;
    assert!(status.is_err(), "{status:?}");
    site.down(&volume).await;
    assert_eq!((share.directories().len(), share.volumes().len()), (0, 0));
    assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
}
