//! Whole lives, in every version of the protocol.

use std::fs;

use kuration::mount::table::Entry;
use rustix::fs::{FlockOperation, fcntl_lock};

use crate::common::MIB;
use crate::server::Share;
use crate::site::{Order, Site, retried, superblocks, until};

/// A whole life with these mount options; the staged mount is handed to `check`.
async fn live(options: &[&str], check: impl Fn(&Entry)) {
    let share = Share::on("xfs");
    let before = superblocks();
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1").flags(options);
    let (volume, target) = site.up(&order).await;
    assert!(volume.volume_id.len() <= 128, "{}", volume.volume_id);
    let staged = site.mount_at(&site.staging(&volume));
    check(&staged);
    let kept: Vec<&str> = staged.options.split(',').filter(|o| o.starts_with("addr=")).collect();
    assert_eq!(kept, ["addr=127.0.0.1"]);

    // What the pod writes is on the server, and a lock can be had.
    fs::write(target.join("file"), "data").unwrap();
    assert_eq!(fs::read_to_string(share.path.join("pvc-1/file")).unwrap(), "data");
    let file = fs::File::options().write(true).open(target.join("file")).unwrap();
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    drop(file);

    assert_eq!(site.nodes(&volume).await.unwrap(), ["node-1"]);
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&volume.volume_id));
    assert_eq!(site.expand(&volume, 128 * MIB, 0).await.unwrap(), 128 * MIB);
    assert_eq!(site.node_expand(&volume, &target, 128 * MIB).await.unwrap(), 128 * MIB);
    assert!(site.stats(&volume, &target).await.unwrap().total > 128 * MIB);
    // The same again is the same volume.
    assert_eq!(site.create(&order.clone().bytes(128 * MIB)).await.unwrap().volume_id, volume.volume_id);

    let refused = site.delete(&volume).await.unwrap_err();
    assert!(refused.message().contains("node-1"), "{refused}");
    site.down(&volume).await;
    assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
    assert_eq!(share.directories(), Vec::<String>::new());
    assert_eq!((share.volumes().len(), share.trash().len()), (0, 2));
    assert_eq!(
        fs::read_dir(share.path.join(".kuration/installations/default/published")).unwrap().count(),
        0
    );
    let (status, home) = site.driver.stop();
    assert_eq!(status.code(), Some(0));
    drop(home);
    until("its last mounts go", || superblocks() == before);
}

fn version(entry: &Entry) -> (&str, &str) {
    let version = entry.options.split(',').find_map(|option| option.strip_prefix("vers="));
    (&entry.kind, version.expect("a version"))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_version_the_newest_is_taken() {
    live(&[], |staged| assert_eq!(version(staged), ("nfs4", "4.2"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_over_nfs_4_2() {
    live(&["vers=4.2"], |staged| assert_eq!(version(staged), ("nfs4", "4.2"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_over_nfs_4_1() {
    live(&["nfsvers=4.1"], |staged| assert_eq!(version(staged), ("nfs4", "4.1"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_over_nfs_4_0() {
    live(&["vers=4,minorversion=0"], |staged| assert_eq!(version(staged), ("nfs4", "4.0"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_over_nfs_3_with_locks_of_one_host() {
    live(&["vers=3", "nolock"], |staged| {
        assert_eq!(version(staged), ("nfs", "3"));
        assert!(staged.options.contains("nolock"), "{}", staged.options);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_over_nfs_3_with_a_status_monitor() {
    live(&["vers=3"], |staged| {
        assert_eq!(version(staged), ("nfs", "3"));
        assert!(!staged.options.contains("nolock"), "{}", staged.options);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_on_a_server_reached_by_ipv6_or_by_name() {
    for server in ["::1", "localhost"] {
        let share = Share::on("btrfs");
        let site = Site::new(&[]).await;
        let order = Order::new("pvc-1", &[("server", server), ("share", &share.share)]);
        let (volume, target) = site.up(&order).await;
        fs::write(target.join("file"), "data").unwrap();
        site.down(&volume).await;
        assert_eq!(share.directories(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mount_options_of_class_and_process_reach_the_mount() {
    let share = Share::on("xfs");
    let site = Site::new(&["--mount-options", "timeo=70,noatime"]).await;
    let order = Order::on(&share, "pvc-1").flags(&["nconnect=2,noexec", "rsize=65536"]);
    let (volume, target) = site.up(&order).await;
    let staged = site.mount_at(&site.staging(&volume));
    let has = |option: &str| staged.options.split(',').any(|o| o == option);
    assert!(has("timeo=70") && has("rsize=65536"), "{}", staged.options);
    // Attributes of the mount go along to the pod's.
    for path in [site.staging(&volume), target.clone()] {
        let flags = rustix::fs::statvfs(&path).unwrap().f_flag;
        let wanted = rustix::fs::StatVfsMountFlags::NOEXEC | rustix::fs::StatVfsMountFlags::NOATIME;
        assert!(flags.contains(wanted), "{}: {flags:?}", path.display());
    }
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_driver_goes_on_where_it_was() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let (volume, target) = site.up(&order).await;
    fs::write(target.join("file"), "before").unwrap();
    let patience = site.patience;

    let site = Site::again(site.driver.kill(), "node-1", &[]).await;
    assert_eq!(site.patience, patience);
    // The pod went on without it.
    fs::write(target.join("file"), "after").unwrap();
    assert_eq!(site.create(&order).await.unwrap().volume_id, volume.volume_id);
    assert_eq!(share.directories(), ["pvc-1"]);
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&volume.volume_id));
    assert_eq!(site.nodes(&volume).await.unwrap(), ["node-1"]);
    // What the kubelet asks again is done already.
    site.attach(&volume, &order).await.unwrap();
    site.stage(&volume, &order).await.unwrap();
    site.publish(&volume, &order, "pod").await.unwrap();
    assert_eq!(site.mounts().len(), 2);
    assert!(site.stats(&volume, &target).await.unwrap().used > 0);
    assert_eq!(site.expand(&volume, 128 * MIB, 0).await.unwrap(), 128 * MIB);
    assert_eq!(fs::read_to_string(share.path.join("pvc-1/file")).unwrap(), "after");

    // Between each two steps of the way back as well.
    site.unpublish(&volume, "pod").await.unwrap();
    let site = Site::again(site.driver.kill(), "node-1", &[]).await;
    site.unstage(&volume).await.unwrap();
    let site = Site::again(site.driver.kill(), "node-1", &[]).await;
    site.detach(&volume).await.unwrap();
    let site = Site::again(site.driver.kill(), "node-1", &[]).await;
    retried(async || site.delete(&volume).await).await;
    let site = Site::again(site.driver.kill(), "node-1", &[]).await;
    assert_eq!(site.list().await.unwrap(), Vec::<String>::new());
    assert_eq!((share.directories().len(), share.trash().len()), (0, 2));
    assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
}
