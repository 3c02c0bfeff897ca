//! Pods' inline volumes on an export, by a node plugin without a controller.

use std::fs;
use std::time::Duration;

use kuration::csi::proto::node_client::NodeClient;
use kuration::mount::table;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::common::Driver;
use crate::inline::Pod;
use crate::server::{Share, Silence};
use crate::site::{home, nobody_is_stuck, timed, until, write_as};

/// A node plugin that may make inline volumes on a share.
pub async fn node(home: TempDir, share: &Share) -> (Driver, NodeClient<Channel>) {
    let allowed = format!("{},vers=4.1", share.flag());
    let driver = Driver::start(home, "node", &["--node-id", "node-1", "--inline-share", &allowed], &[]);
    let node = driver.node().await;
    (driver, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_volume_on_an_export_lives_as_long_as_its_pod() {
    let share = Share::on("xfs");
    let (driver, mut node) = node(home(), &share).await;
    let (one, other) = (Pod::new(driver.home.path(), "one"), Pod::new(driver.home.path(), "other"));
    for pod in [&one, &other] {
        for _ in 0..2 {
            node.node_publish_volume(pod.publish(&[("size", "8Mi")])).await.unwrap();
        }
    }
    let table = table::read().unwrap();
    let (first, second) =
        (table::at(&table, &one.target).unwrap(), table::at(&table, &other.target).unwrap());
    assert!(first.options.contains("vers=4.1"), "{first:?}");
    assert_ne!(first.device, second.device, "each has a superblock of its own");
    write_as(1000, &one.target.join("file"), 1).unwrap();
    assert_eq!(share.directories().len(), 2);
    node.node_get_volume_stats(one.stats()).await.unwrap();

    for _ in 0..2 {
        node.node_unpublish_volume(one.unpublish()).await.unwrap();
        assert!(!one.target.exists());
        assert_eq!(share.directories().len(), 1);
    }
    until("the data is gone", || share.trash().is_empty());
    // A new process, in which the other still is.
    let (_driver, mut node) = self::node(driver.kill(), &share).await;
    node.node_unpublish_volume(other.unpublish()).await.unwrap();
    until("all is gone", || share.directories().is_empty() && share.trash().is_empty());
    assert_eq!(share.volumes().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_also_while_the_server_is_gone_and_its_volume_is_removed_later() {
    let share = Share::on("xfs");
    let (driver, mut node) = node(home(), &share).await;
    let pod = Pod::new(driver.home.path(), "pod");
    node.node_publish_volume(pod.publish(&[])).await.unwrap();
    fs::write(pod.target.join("file"), "data").unwrap();
    let silence = Silence::begin();
    let (answer, took) = timed(node.node_unpublish_volume(pod.unpublish())).await;
    println!("NodeUnpublishVolume of an inline volume while the server hangs: {took:?}, {answer:?}");
    answer.unwrap();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(!pod.target.exists());
    pod.forget();
    drop(silence);
    until("the volume is gone", || share.directories().is_empty());
    until("the data is gone", || share.trash().is_empty());
    nobody_is_stuck();
}
