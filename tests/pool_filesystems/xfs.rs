//! xfs, whose projects count directories.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use kuration::backend::pool::fs::probe;
use kuration::volume::Key;
use rustix::io::Errno;

use super::stand::{ANYBODY, MIB, Pool, begin};
use super::{every, records};

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn limit_holds_for_everybody() {
    begin();
    every::limit_holds_for_everybody(&Pool::xfs(), "No space left on device");
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn limit_grows_under_a_writer() {
    begin();
    every::limit_grows_under_a_writer(&Pool::xfs());
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn usage_is_right_when_synced() {
    begin();
    every::usage_is_right_when_synced(&Pool::xfs(), 64 << 10);
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn trees_are_removed_and_their_projects_freed() {
    begin();
    let pool = Pool::xfs();
    every::trees_are_removed(&pool);
    assert_eq!(pool.notes(), 0);
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn many_are_made_at_once() {
    begin();
    let pool = Pool::xfs();
    every::many_are_made_at_once(&pool);
    assert_eq!(pool.notes(), 16);
    every::owner_and_mode_are_exact(&pool);
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn volumes_outlast_a_power_cut() {
    begin();
    every::outlasts_a_power_cut("xfs", ",prjquota");
    records::outlast_a_power_cut("xfs", ",prjquota");
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn statfs_speaks_of_the_volume() {
    begin();
    let pool = Pool::xfs();
    let volume = pool.make("seen", 64 * MIB);
    let seen = || {
        let seen = rustix::fs::fstatvfs(&volume.descriptor).unwrap();
        (seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize)
    };
    assert_eq!(seen(), (64 * MIB, 64 * MIB));
    volume.limit(96 * MIB);
    volume.write("file", 32, 0).unwrap();
    assert_eq!(seen(), (96 * MIB, 64 * MIB));
    let usage = volume.usage();
    assert_eq!((usage.total, usage.used, usage.inodes_used), (96 * MIB, 32 * MIB, 2));
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn interrupted_make_is_settled() {
    begin();
    let pool = Pool::xfs();
    let (file_system, key) = (&pool.probed.file_system, Key::of("test", "half"));
    let settle = || {
        let half = File::open(pool.path().join("half")).unwrap();
        file_system.settle(half.as_fd(), &key, ANYBODY, 32 * MIB).unwrap()
    };
    // A crash right after mkdir.
    fs::create_dir(pool.path().join("half")).unwrap();
    assert_eq!(file_system.make(pool.root.as_fd(), "half", &key, ANYBODY, MIB), Err(Errno::EXIST));
    let id = settle();
    assert_eq!((settle(), pool.notes()), (id, 1));
    // A crash after the id was reserved, and before the directory had it.
    fs::remove_dir(pool.path().join("half")).unwrap();
    fs::create_dir(pool.path().join("half")).unwrap();
    assert_eq!((settle(), pool.notes()), (id, 1));
    assert!(pool.open("half", id, 32 * MIB).write("file", 40, 0).is_err());
    // A reaper that crashed between the directory and the note goes on where it was.
    fs::remove_file(pool.path().join("half/file")).unwrap();
    fs::remove_dir(pool.path().join("half")).unwrap();
    // xfs clears away what was removed in the background.
    let begun = Instant::now();
    while pool.notes() > 0 {
        assert_eq!(file_system.remove(pool.root.as_fd(), "half", id), Err(Errno::NOENT));
        assert!(begun.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that comes late takes nothing from a new volume of the same name.
    let volume = pool.make("half", 32 * MIB);
    assert_eq!(volume.id, id);
    assert_eq!(file_system.remove(pool.root.as_fd(), "gone", id), Err(Errno::NOENT));
    assert_eq!((volume.usage().total, pool.notes()), (32 * MIB, 1));
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn a_foreign_project_is_left_alone() {
    begin();
    let pool = Pool::xfs();
    let volume = pool.make("first", 16 * MIB);
    let id = volume.id.unwrap();
    // The same volume in another pool on the same file system: its notes know nothing of this one's.
    fs::create_dir(pool.path().join("second")).unwrap();
    let second = File::open(pool.path().join("second")).unwrap();
    let other = probe(second.as_fd()).unwrap().file_system;
    let key = Key::of("test", "first");
    assert_eq!(other.make(second.as_fd(), "v", &key, ANYBODY, 32 * MIB), Ok(Some(id + 1)));
    assert_eq!(volume.usage().total, 16 * MIB);
    // A record that says another id than the directory has frees neither.
    other.remove(second.as_fd(), "v", Some(id)).unwrap();
    assert_eq!((volume.usage().total, pool.notes()), (16 * MIB, 1));
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn without_quota_is_plain_and_says_what_to_do() {
    begin();
    let pool = Pool::new("xfs", "");
    assert_eq!(pool.probed.file_system.name(), "plain");
    assert!(pool.probed.why.contains("mount it with -o prjquota"), "{}", pool.probed.why);
}
