//! Who sees and may do what with a volume.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use nix::mount::{MsFlags, mount};

use crate::common::Mode;
use crate::host::{HERE, OtherHost};
use crate::server::Share;
use crate::site::{Order, Site, write_as};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_writes_another_sees() {
    let share = Share::on("xfs");
    let other = OtherHost::new(&[]).await;
    let (one, two) = (Site::at("node-1", &[]).await, other.site());
    let order = Order::new("pvc-1", &[("server", HERE), ("share", &share.share)]);
    let (volume, first) = one.up(&order).await;
    two.attach(&volume, &order).await.unwrap();
    two.stage(&volume, &order).await.unwrap();
    let second = two.publish(&volume, &order, "pod").await.unwrap();
    let third = one.publish(&volume, &order, "pod-2").await.unwrap();

    fs::write(first.join("file"), "from the first").unwrap();
    for other in [&second, &third] {
        assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "from the first");
    }
    fs::write(second.join("file"), "from the second, and longer").unwrap();
    for other in [&first, &third] {
        assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "from the second, and longer");
    }
    assert_eq!(one.nodes(&volume).await.unwrap(), ["node-1", "node-2"]);

    two.unpublish(&volume, "pod").await.unwrap();
    two.unstage(&volume).await.unwrap();
    two.detach(&volume).await.unwrap();
    // One target less leaves the other alone.
    one.unpublish(&volume, "pod-2").await.unwrap();
    fs::write(first.join("file"), "still here").unwrap();
    one.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_staged_volume_has_a_superblock_of_its_own() {
    let share = Share::on("xfs");
    let (site, other) = (Site::at("node-1", &[]).await, Site::at("node-2", &[]).await);
    let (a, b) = (Order::on(&share, "pvc-a"), Order::on(&share, "pvc-b"));
    let ((volume_a, target_a), (volume_b, target_b)) = (site.up(&a).await, site.up(&b).await);
    other.stage(&volume_a, &a).await.unwrap();
    let mut devices = vec![
        site.mount_at(&site.staging(&volume_a)).device,
        site.mount_at(&site.staging(&volume_b)).device,
        other.mount_at(&other.staging(&volume_a)).device,
    ];
    assert_eq!(site.mount_at(&target_a).device, devices[0]);
    assert_eq!(site.mount_at(&target_b).device, devices[1]);
    assert_ne!(fs::metadata(&target_a).unwrap().dev(), fs::metadata(&target_b).unwrap().dev());
    devices.sort();
    devices.dedup();
    assert_eq!(devices.len(), 3, "{devices:?}");
    other.unstage(&volume_a).await.unwrap();
    site.down(&volume_a).await;
    site.down(&volume_b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_user_may_write_unless_the_class_says_whom_it_belongs_to() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let (open, target) = site.up(&Order::on(&share, "open")).await;
    write_as(1000, &target.join("file"), 1).unwrap();
    assert_eq!(fs::metadata(share.path.join("open/file")).unwrap().uid(), 1000);
    site.down(&open).await;

    let owned =
        Order::on(&share, "owned").with("uid", "1000").with("gid", "1000").with("mountPermissions", "0750");
    let (owned, target) = site.up(&owned).await;
    let stat = fs::metadata(share.path.join("owned")).unwrap();
    assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (1000, 1000, 0o750));
    write_as(1000, &target.join("file"), 1).unwrap();
    let refused = write_as(1001, &target.join("other"), 1).unwrap_err();
    assert!(refused.contains("Permission denied"), "{refused}");
    site.down(&owned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_target_reads_only_while_another_writes() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let (volume, writer) = site.up(&order).await;
    let reader = site.publish_as(&volume, &order, "reader", true).await.unwrap();
    fs::write(writer.join("file"), "data").unwrap();
    assert_eq!(fs::read_to_string(reader.join("file")).unwrap(), "data");
    for path in ["file", "new"] {
        assert_eq!(
            fs::write(reader.join(path), "x").unwrap_err().kind(),
            ErrorKind::ReadOnlyFilesystem,
            "{path}"
        );
    }
    let refused = write_as(0, &reader.join("file"), 1).unwrap_err();
    assert!(refused.contains("Read-only file system"), "{refused}");
    fs::write(writer.join("file"), "more").unwrap();
    // Asked for in the other way, it is refused, and stays as it is.
    assert_eq!(site.publish(&volume, &order, "reader").await.unwrap_err().code(), tonic::Code::AlreadyExists);
    assert!(fs::write(reader.join("new"), "x").is_err());
    site.unpublish(&volume, "reader").await.unwrap();
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_read_the_superblock_is_read_only() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1").mode(Mode::MultiNodeReaderOnly);
    let (volume, target) = site.up(&order).await;
    let staged = site.mount_at(&site.staging(&volume));
    assert!(staged.superblock_read_only, "{}", staged.options);
    // On the server it is as writable as any.
    fs::write(share.path.join("pvc-1/file"), "data").unwrap();
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "data");
    for path in [&target, &site.staging(&volume)] {
        // A pod that may mount could make the bind writable; the superblock holds.
        let writable = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount(None::<&str>, path, None::<&str>, writable, None::<&str>).unwrap();
        let refused = write_as(0, &path.join("new"), 1).unwrap_err();
        assert!(refused.contains("Read-only file system"), "{refused}");
    }
    assert!(!share.path.join("pvc-1/new").exists());
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_given_a_volume_for_reading_gets_a_read_only_superblock() {
    let share = Share::on("xfs");
    let (reader, writer) = (Site::at("node-1", &[]).await, Site::at("node-2", &[]).await);
    let order = Order::on(&share, "pvc-1");
    let (volume, written) = writer.up(&order).await;
    fs::write(written.join("file"), "data").unwrap();
    let context = reader.attach_as(&volume, &order, "node-1", true).await.unwrap();
    let staging = reader.stage_as(&volume, &order, context).await.unwrap();
    let target = reader.publish(&volume, &order, "pod").await.unwrap();
    assert!(reader.mount_at(&staging).superblock_read_only);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "data");
    assert_eq!(fs::write(target.join("new"), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    reader.unpublish(&volume, "pod").await.unwrap();
    reader.unstage(&volume).await.unwrap();
    reader.detach(&volume).await.unwrap();
    fs::write(written.join("new"), "x").unwrap();
    writer.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mode_of_one_target_gets_no_second() {
    let share = Share::on("xfs");
    let (site, other) = (Site::at("node-1", &[]).await, Site::at("node-2", &[]).await);
    let order = Order::on(&share, "pvc-1").mode(Mode::SingleNodeSingleWriter);
    let (volume, _) = site.up(&order).await;
    let refused = site.publish(&volume, &order, "second").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    let refused = other.attach(&volume, &order).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("node-1"), "{refused}");
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_shows_the_exports_figures() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let (volume, target) = site.up(&order).await;
    write_as(0, &target.join("file"), 8).unwrap();
    let stats = site.stats(&volume, &target).await.unwrap();
    let df = rustix::fs::statvfs(&target).unwrap();
    let bytes = |blocks: u64| i64::try_from(blocks * df.f_frsize).unwrap();
    assert_eq!(stats.total, bytes(df.f_blocks));
    assert_eq!(stats.used, bytes(df.f_blocks - df.f_bfree));
    assert_eq!(stats.available, bytes(df.f_bavail));
    let server = rustix::fs::statvfs(&share.path).unwrap();
    assert_eq!(stats.total, i64::try_from(server.f_blocks * server.f_frsize).unwrap());
    assert!(stats.used >= 8 << 20, "{stats:?}");
    // Free space is the export's too: nothing is promised where nothing is enforced.
    let capacity = site.capacity(&share.parameters()).await.unwrap();
    assert!(capacity <= stats.total && capacity > stats.total / 2, "{capacity}");
    site.down(&volume).await;
}
