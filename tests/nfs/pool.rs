//! Limits that hold: a pool on real xfs and on real btrfs, reached by bind mounts.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kuration::csi::proto::Volume;
use tempfile::TempDir;
use tonic::Code;

use crate::common::{Driver, MIB};
use crate::server::run;
use crate::site::{Order, Site, home, timed, until, wire, write_as};

/// The third scratch disk, which is nobody's export, with a new file system.
struct Disk {
    mount: TempDir,
}

impl Disk {
    fn with(kind: &str) -> Self {
        let disks = std::env::var("GUEST_DISKS").expect("run by tests/guest/with-nfs");
        let disk = disks.split_ascii_whitespace().nth(2).expect("a third disk (-d)").to_owned();
        let mount = home();
        // -K: the guest's disks discard in tiny pieces.
        run(&format!("mkfs.{kind}"), &["-q", "-f", "-K", &disk]);
        let options = if kind == "xfs" { "nodiscard,prjquota" } else { "nodiscard" };
        run("mount", &["-t", kind, "-o", options, &disk, &wire(mount.path())]);
        Self { mount }
    }

    fn path(&self) -> PathBuf {
        self.mount.path().to_owned()
    }

    fn total(&self) -> i64 {
        let stat = rustix::fs::statvfs(self.mount.path()).unwrap();
        i64::try_from(stat.f_blocks * stat.f_frsize).unwrap()
    }

    async fn site(&self, arguments: &[&str]) -> Site {
        let path = wire(self.mount.path());
        let all = [&["--node-id", "node-1", "--pool", &path], arguments].concat();
        Site::of(Driver::start(home(), "all", &all, &[]), "node-1").await
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while nix::mount::umount(self.mount.path()).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn order(name: &str) -> Order {
    Order::new(name, &[] as &[(&str, &str)])
}

/// Writes without end, past refusals, until `bytes` are written, and says how often it was refused.
fn write_on(file: &Path, bytes: i64) -> u32 {
    let mut file = File::create(file).unwrap();
    let (piece, mut written, mut refused) = (vec![1; 1 << 20], 0, 0);
    while written < bytes {
        match file.write(&piece) {
            Ok(length) => written += i64::try_from(length).unwrap(),
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    }
    file.sync_all().unwrap();
    refused
}

/// The whole of it, on a file system that refuses with `words` what is too much.
async fn limits_hold(kind: &str, words: &str) {
    let disk = Disk::with(kind);
    let site = disk.site(&[]).await;
    let room = site.capacity(&[]).await.unwrap();
    assert!(room > disk.total() / 2 && room <= disk.total(), "{room} of {}", disk.total());

    // Root and a pod's user are held to it alike.
    for user in [0, 1000] {
        let (volume, target) = site.up(&order(&format!("pvc-{user}"))).await;
        assert_eq!(site.capacity(&[]).await.unwrap(), room - 64 * MIB, "what is promised is no longer free");
        let seen = |stats: &kuration::csi::proto::VolumeUsage| (stats.total, stats.used, stats.available);
        let (total, used, _) = seen(&site.stats(&volume, &target).await.unwrap());
        assert!(total == 64 * MIB && used < MIB, "{total} {used}");
        write_as(user, &target.join("fits"), 40).unwrap();
        settle(&disk);
        let (total, used, available) = seen(&site.stats(&volume, &target).await.unwrap());
        assert_eq!((total, used / MIB), (64 * MIB, 40));
        assert!((23 * MIB..=24 * MIB).contains(&available), "{available}");
        let refused = write_as(user, &target.join("too-much"), 40).unwrap_err();
        assert!(refused.contains(words), "user {user}: {refused}");
        df_agrees(kind, &target, 64 * MIB);
        settle(&disk);
        let (_, used, available) = seen(&site.stats(&volume, &target).await.unwrap());
        assert!(used <= 64 * MIB && available <= MIB, "{used} {available}");
        down(&site, &volume).await;
        assert_eq!(site.capacity(&[]).await.unwrap(), room);
    }

    expand_under_a_writer(kind, &site, &disk).await;
    what_does_not_fit(&site, room).await;
    drop(site);
}

/// btrfs counts at the end of a transaction, which is every 30 s or now.
fn settle(disk: &Disk) {
    rustix::fs::syncfs(File::open(disk.path()).unwrap()).unwrap();
}

/// What df shows: on xfs the limit.
fn df_agrees(kind: &str, path: &Path, limit: i64) {
    let stat = rustix::fs::statvfs(path).unwrap();
    let total = i64::try_from(stat.f_blocks * stat.f_frsize).unwrap();
    match kind {
        "xfs" => assert_eq!(total, limit),
        _ => assert!(total > limit, "btrfs shows the whole file system"),
    }
}

async fn down(site: &Site, volume: &Volume) {
    site.down(volume).await;
    assert_eq!(site.mounts(), Vec::<PathBuf>::new());
}

async fn expand_under_a_writer(kind: &str, site: &Site, disk: &Disk) {
    let (volume, target) = site.up(&order("grows")).await;
    let file = target.join("file");
    let writer = tokio::task::spawn_blocking(move || write_on(&file, 100 * MIB));
    let full = async || {
        settle(disk);
        site.stats(&volume, &target).await.unwrap().available < 2 * MIB
    };
    let began = Instant::now();
    while !full().await {
        assert!(began.elapsed() < Duration::from_secs(60), "the writer does not get to the limit");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!writer.is_finished());
    let (size, took) = timed(site.expand(&volume, 128 * MIB, 0)).await;
    assert_eq!(size.unwrap(), 128 * MIB);
    println!("{kind}: ControllerExpandVolume under a writer: {took:?}");
    assert_eq!(site.node_expand(&volume, &target, 128 * MIB).await.unwrap(), 128 * MIB);
    assert_eq!(site.node_expand(&volume, &site.staging(&volume), 128 * MIB).await.unwrap(), 128 * MIB);
    let refused = writer.await.unwrap();
    settle(disk);
    assert!(refused > 0, "the limit was never felt");
    let stats = site.stats(&volume, &target).await.unwrap();
    assert_eq!((stats.total, stats.used / MIB), (128 * MIB, 100));
    df_agrees(kind, &target, 128 * MIB);

    // Less than it has is no shrink; at most less than it has is one.
    assert_eq!(site.expand(&volume, 64 * MIB, 0).await.unwrap(), 128 * MIB);
    let refused = site.expand(&volume, 64 * MIB, 96 * MIB).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains("can't shrink"), "{refused}");
    // A node that has not seen the new size does not say that it has.
    let refused = site.node_expand(&volume, &target, 256 * MIB).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert_eq!(site.stats(&volume, &target).await.unwrap().total, 128 * MIB);
    down(site, &volume).await;
}

async fn what_does_not_fit(site: &Site, room: i64) {
    let half = site.create(&order("half").bytes(room / 2)).await.unwrap();
    let left = site.capacity(&[]).await.unwrap();
    assert_eq!(left, room - half.capacity_bytes);
    let refused = site.create(&order("too-large").bytes(left + MIB)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert!(refused.message().contains(&left.to_string()), "{refused}");
    let refused = site.expand(&half, room + MIB, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(site.expand(&half, room, 0).await.unwrap(), room);
    assert_eq!(site.capacity(&[]).await.unwrap(), 0);
    let refused = site.create(&order("one-more")).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&half.volume_id));
    site.delete(&half).await.unwrap();
    assert_eq!(site.capacity(&[]).await.unwrap(), room);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_on_xfs() {
    limits_hold("xfs", "No space left on device").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_on_btrfs() {
    limits_hold("btrfs", "Disk quota exceeded").await;
}

/// Twice its size may be promised, and no more; the trash gives back what it held.
async fn overcommitted(kind: &str) {
    let disk = Disk::with(kind);
    let site = disk.site(&["--overcommit", "2", "--trash-lifetime", "0s", "--reap-interval", "1s"]).await;
    let room = site.capacity(&[]).await.unwrap();
    assert!(room > disk.total() && room <= 2 * disk.total(), "{room} of {}", disk.total());
    let size = disk.total() / MIB * MIB;
    let first = site.create(&order("first").bytes(size)).await.unwrap();
    let second = site.create(&order("second").bytes(room - size)).await.unwrap();
    assert_eq!(site.capacity(&[]).await.unwrap(), 0);
    let refused = site.create(&order("third")).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    site.delete(&first).await.unwrap();
    site.delete(&second).await.unwrap();
    let trash = disk.path().join(".kuration/installations/default/trash");
    until("the trash is empty", || crate::common::listing(&trash).is_empty());
    assert_eq!(site.capacity(&[]).await.unwrap(), room);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overcommitted_pool_promises_no_more_than_it_was_told() {
    overcommitted("xfs").await;
    overcommitted("btrfs").await;
}
