//! Volumes that nobody made here, on a server.

use std::fs;

use kuration::csi::proto::Volume;
use tonic::Code;

use crate::common::{MIB, map};
use crate::server::Share;
use crate::site::{Order, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_static_volume_lives_without_a_record_and_its_data_outlives_it() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "static");
    let (server, path) = (share.parameters()[0].1, share.share.as_str());
    let made = site.up(&order).await;
    fs::write(made.1.join("file"), "data").unwrap();

    // The same directory by hand, under a handle of the administrator's own and under one of csi-driver-nfs.
    let theirs = format!("{}#{}#static#pv-1#", server, path.trim_start_matches('/'));
    for handle in ["my data", &theirs] {
        let context = [("server", server), ("share", path), ("subDir", "static")];
        let volume =
            Volume { volume_id: handle.to_owned(), volume_context: map(&context), ..Default::default() };
        site.attach(&volume, &order).await.unwrap();
        let staging = site.stage(&volume, &order).await.unwrap();
        let target = site.publish(&volume, &order, "pod-static").await.unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "data", "{handle}");

        let size = site.stats(&volume, &target).await.unwrap().total;
        assert_eq!(site.node_expand(&volume, &target, MIB).await.unwrap(), MIB);
        let refusal = site.node_expand(&volume, &target, size + MIB).await.unwrap_err();
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal:?}");
        assert!(refusal.message().contains("a static volume's size"), "{refusal:?}");
        let refusal = site.expand(&volume, 2 * MIB, 0).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NotFound, "{refusal:?}");

        // A node that has lost its notes still knows an NFS mount when it sees one.
        let notes = site.driver.home.path().join("state/staged");
        for note in fs::read_dir(&notes).unwrap() {
            fs::remove_file(note.unwrap().path()).unwrap();
        }
        assert_eq!(site.stats(&volume, &target).await.unwrap().total, size);

        site.unpublish(&volume, "pod-static").await.unwrap();
        site.unstage(&volume).await.unwrap();
        assert!(!staging.exists());
        site.detach(&volume).await.unwrap();
        site.delete(&volume).await.unwrap();
        assert_eq!(fs::read_to_string(made.1.join("file")).unwrap(), "data", "{handle}");
    }
    assert_eq!(share.trash().len(), 0);
    site.down(&made.0).await;
}
