//! A driver process gives up what its role does not need, and can do all that it does without.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Driver, MIB, Mode, create, listing, node_publish, stage};
use kuration::csi::proto::{DeleteVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};

// Numbers of capabilities, from linux/capability.h.
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const FOWNER: u64 = 1 << 3;
const FSETID: u64 = 1 << 4;
const SYS_ADMIN: u64 = 1 << 21;

/// A field of /proc/PID/status that is a set.
fn set(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

/// Something of /proc about a thread or a process, unless that has ended meanwhile.
fn read<T>(what: std::io::Result<T>) -> Option<T> {
    match what {
        Ok(read) => Some(read),
        Err(error) if [Some(nix::libc::ENOENT), Some(nix::libc::ESRCH)].contains(&error.raw_os_error()) => {
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The directories of a process's threads.
fn threads(pid: u32) -> Vec<PathBuf> {
    let found = read(std::fs::read_dir(format!("/proc/{pid}/task"))).into_iter().flatten();
    found.filter_map(|entry| Some(read(entry)?.path())).collect()
}

/// The children that a thread has.
fn children_of(thread: &Path) -> Vec<u32> {
    let children = read(std::fs::read_to_string(thread.join("children"))).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// The sets of every thread of `pid`, and of its children: (bounding, permitted, inheritable).
fn sets(pid: u32) -> Vec<(u64, u64, u64)> {
    let mut found = Vec::new();
    for thread in threads(pid) {
        let Some(status) = read(std::fs::read_to_string(thread.join("status"))) else { continue };
        found.push((set(&status, "CapBnd"), set(&status, "CapPrm"), set(&status, "CapInh")));
        children_of(&thread).into_iter().for_each(|child| found.extend(sets(child)));
    }
    found
}

fn children(pid: u32) -> usize {
    threads(pid).iter().map(|thread| children_of(thread).len()).sum()
}

/// Asserts that `driver`, its threads and its children may have `kept` and no more.
fn assert_kept(driver: &Driver, kept: u64) {
    // Root here may have less than all: nothing is added to that.
    let ours = set(&std::fs::read_to_string("/proc/self/status").unwrap(), "CapBnd");
    assert_eq!(ours & kept, kept, "this test must run with all capabilities");
    assert!(children(driver.pid()) > 0, "a driver has children");
    let sets = sets(driver.pid());
    assert!(sets.len() >= 4, "threads and children: {sets:?}");
    for (bounding, permitted, inheritable) in sets {
        assert_eq!(bounding, kept, "{bounding:x}");
        assert_eq!(permitted, kept, "{permitted:x}");
        assert_eq!(inheritable, 0, "{inheritable:x}");
    }
}

#[test]
fn a_node_of_shares_keeps_the_right_to_mount_and_nothing_else() {
    let driver = Driver::start(tempfile::tempdir().unwrap(), "node", &["--node-id", "node-1"], &[]);
    assert_kept(&driver, SYS_ADMIN);
}

#[tokio::test]
async fn a_pool_keeps_what_its_volumes_need_and_can_do_all_its_work_with_that() {
    let driver = Driver::pool(&["--trash-lifetime", "0s", "--reap-interval", "1s"]);
    let kept = CHOWN | DAC_OVERRIDE | FOWNER | FSETID | SYS_ADMIN;
    assert_kept(&driver, kept);

    let mut controller = driver.controller().await;
    let parameters = [("uid", "1234"), ("gid", "5678"), ("mountPermissions", "2770")];
    let volume =
        controller.create_volume(create("v", MIB, &parameters)).await.unwrap().into_inner().volume.unwrap();
    let (staging, target) = (driver.home.path().join("staging"), driver.home.path().join("target"));
    std::fs::create_dir(&staging).unwrap();
    let mut node = driver.node().await;
    let mode = Mode::MultiNodeMultiWriter;
    node.node_stage_volume(stage(&volume, &staging, mode)).await.unwrap();
    node.node_publish_volume(node_publish(&volume, &staging, &target, mode)).await.unwrap();
    let made = target.metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1234, 5678, 0o2770));

    // What a stranger leaves behind, in a directory that lets nobody else in and is sticky on top.
    let private = target.join("private");
    std::fs::create_dir(&private).unwrap();
    std::fs::write(private.join("file"), "theirs").unwrap();
    for path in [private.join("file"), private.clone()] {
        std::os::unix::fs::chown(&path, Some(4321), Some(4321)).unwrap();
    }
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o1000)).unwrap();

    let (volume_id, at) = (volume.volume_id.clone(), |path: &Path| path.display().to_string());
    let unpublish = NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path: at(&target) };
    node.node_unpublish_volume(unpublish).await.unwrap();
    let unstage =
        NodeUnstageVolumeRequest { volume_id: volume_id.clone(), staging_target_path: at(&staging) };
    node.node_unstage_volume(unstage).await.unwrap();
    controller.delete_volume(DeleteVolumeRequest { volume_id, ..Default::default() }).await.unwrap();
    let trash = driver.home.path().join("pool/.kuration/installations/default/trash");
    let until = Instant::now() + Duration::from_secs(20);
    while !listing(&trash).is_empty() {
        assert!(Instant::now() < until, "the trash is not emptied: {:?}", listing(&trash));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Whatever it did, no child got more.
    assert_kept(&driver, kept);
}
