//! What is deleted, and when it is gone.

use std::fs;

use crate::common::listing;
use crate::server::Share;
use crate::site::{Order, Site, timed, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_does_not_grow_with_the_volume_and_the_reaper_takes_the_rest() {
    let share = Share::on("xfs");
    let site = Site::new(&["--trash-lifetime", "1h"]).await;
    let neighbour = site.create(&Order::on(&share, "neighbour")).await.unwrap();
    fs::write(share.path.join("neighbour/file"), "data").unwrap();
    let small = site.create(&Order::on(&share, "small")).await.unwrap();
    let large = site.create(&Order::on(&share, "large")).await.unwrap();
    let deep = share.path.join("large/a/b/c");
    fs::create_dir_all(&deep).unwrap();
    for number in 0..5000 {
        fs::write(deep.join(number.to_string()), "x").unwrap();
    }
    // Nothing below a link is the volume's.
    std::os::unix::fs::symlink(share.path.join("neighbour"), deep.join("link")).unwrap();

    let (deleted, of_none) = timed(site.delete(&small)).await;
    deleted.unwrap();
    let (deleted, of_many) = timed(site.delete(&large)).await;
    deleted.unwrap();
    println!("DeleteVolume of an empty volume: {of_none:?}; of 5,000 files: {of_many:?}");
    assert_eq!(share.directories(), ["neighbour"]);
    assert_eq!((share.volumes().len(), share.trash().len()), (1, 4));
    // Its time is not over.
    let site =
        Site::again(site.driver.kill(), "node-1", &["--trash-lifetime", "1h", "--reap-interval", "1s"]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(share.trash().len(), 4);

    let site =
        Site::again(site.driver.kill(), "node-1", &["--trash-lifetime", "0s", "--reap-interval", "1s"]).await;
    until("the trash is empty", || share.trash().is_empty());
    assert_eq!(fs::read_to_string(share.path.join("neighbour/file")).unwrap(), "data");
    assert_eq!(listing(&share.path), [".kuration", "neighbour"]);
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&neighbour.volume_id));
    site.delete(&neighbour).await.unwrap();
    until("the trash is empty", || share.trash().is_empty());
}
