//! btrfs, whose quota groups count subvolumes.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use kuration::backend::pool::fs::probe;
use kuration::volume::Key;
use rustix::io::Errno;

use super::stand::{ANYBODY, MIB, Pool, begin, run};
use super::{every, records};

#[test]
fn quota_groups_are_turned_on() {
    begin();
    let pool = Pool::btrfs();
    assert!(
        pool.probed.file_system.enforces() && pool.probed.why.contains("were off"),
        "{}",
        pool.probed.why
    );
    let again = probe(pool.root.as_fd()).unwrap();
    assert_eq!(again.why, "btrfs with quota groups: sizes are enforced");
    every::owner_and_mode_are_exact(&pool);
}

#[test]
fn limit_holds_for_everybody() {
    begin();
    every::limit_holds_for_everybody(&Pool::btrfs(), "Disk quota exceeded");
}

#[test]
fn limit_grows_under_a_writer() {
    begin();
    every::limit_grows_under_a_writer(&Pool::btrfs());
}

#[test]
fn usage_is_right_when_synced() {
    begin();
    every::usage_is_right_when_synced(&Pool::btrfs(), 64 << 10);
}

#[test]
fn trees_are_removed() {
    begin();
    every::trees_are_removed(&Pool::btrfs());
}

#[test]
fn many_are_made_at_once() {
    begin();
    every::many_are_made_at_once(&Pool::btrfs());
}

#[test]
fn volumes_outlast_a_power_cut() {
    begin();
    every::outlasts_a_power_cut("btrfs", "");
    // The regular commit comes after the test.
    records::outlast_a_power_cut("btrfs", ",commit=300");
}

/// btrfs gives up counting where it would take too long; the next look has it begin anew.
#[test]
fn counting_that_was_given_up_is_begun_anew() {
    begin();
    let pool = Pool::new("btrfs", ",commit=1");
    let path = pool.path();
    let uuid = Command::new("findmnt").args(["-no", "UUID"]).arg(&path).output().unwrap().stdout;
    let groups = PathBuf::from(format!("/sys/fs/btrfs/{}/qgroups", String::from_utf8(uuid).unwrap().trim()));
    let inconsistent = || fs::read_to_string(groups.join("inconsistent")).unwrap().trim() == "1";
    // From which height of a tree on it gives up.
    fs::write(groups.join("drop_subtree_threshold"), "0").unwrap();
    let volume = pool.make("volume", 256 * MIB);
    for n in 0..2000 {
        fs::write(volume.path.join(n.to_string()), vec![1; 3000]).unwrap();
    }
    let copy = path.join("copy");
    run("btrfs", &["subvolume", "snapshot", volume.path.to_str().unwrap(), copy.to_str().unwrap()]);
    fs::write(volume.path.join("more"), vec![1; MIB as usize]).unwrap();
    rustix::fs::syncfs(&volume.descriptor).unwrap();
    let right = volume.usage().used;
    run("btrfs", &["subvolume", "delete", copy.to_str().unwrap()]);
    run("btrfs", &["subvolume", "sync", path.to_str().unwrap()]);
    assert!(inconsistent());
    volume.usage();
    let begun = Instant::now();
    while inconsistent() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(volume.usage().used, right);
}

#[test]
fn what_a_power_cut_leaves_of_a_delete_is_its_beginning() {
    begin();
    // The regular commit comes after the test.
    let pool = Pool::new("btrfs", ",commit=300");
    let path = |path: &str| pool.path().join(path);
    let synced = |path| File::open(path).unwrap().sync_all().unwrap();
    pool.make("volume", 16 * MIB);
    for directory in ["bare", "trash", "records"] {
        fs::create_dir(path(directory)).unwrap();
    }
    fs::write(path("records/volume"), "x").unwrap();
    let file_system = &pool.probed.file_system;
    assert!(file_system.commits_all());
    file_system.commit(pool.root.as_fd()).unwrap();
    let trash = File::open(path("trash")).unwrap();
    fs::rename(path("bare"), path("trash/bare")).unwrap();
    assert!(!file_system.renames_in_order(trash.as_fd(), "bare"));
    fs::rename(path("volume"), path("trash/volume")).unwrap();
    assert!(file_system.renames_in_order(trash.as_fd(), "volume"));
    fs::rename(path("records/volume"), path("trash/volume.json")).unwrap();
    // Somebody else's.
    fs::write(path("records/another"), "x").unwrap();
    synced(path("records/another"));
    synced(path("records"));
    drop(trash);
    let pool = every::after_a_power_cut(pool, (), "btrfs", "");
    let is_there = |path: &str| pool.path().join(path).exists();
    assert!(is_there("records/another"));
    assert!(!is_there("records/volume") && is_there("trash/volume.json"));
    assert!(!is_there("volume") && is_there("trash/volume"));
}

#[test]
fn interrupted_make_is_settled() {
    begin();
    let pool = Pool::btrfs();
    // What a crash right after the first step leaves.
    run("btrfs", &["subvolume", "create", pool.path().join("half").to_str().unwrap()]);
    let (file_system, key) = (&pool.probed.file_system, Key::of("test", "half"));
    assert_eq!(file_system.make(pool.root.as_fd(), "half", &key, ANYBODY, MIB), Err(Errno::EXIST));
    let half = File::open(pool.path().join("half")).unwrap();
    let id = file_system.settle(half.as_fd(), &key, ANYBODY, 32 * MIB).unwrap();
    let volume = pool.open("half", id, 32 * MIB);
    assert_eq!(volume.usage().total, 32 * MIB);
    assert!(volume.write("file", 40, 0).is_err());
    assert_eq!(file_system.settle(half.as_fd(), &key, ANYBODY, 32 * MIB), Ok(id));
    // A bare directory is never taken for the subvolume that it lies in.
    fs::create_dir(pool.path().join("bare")).unwrap();
    let bare = File::open(pool.path().join("bare")).unwrap();
    assert_eq!(file_system.settle(bare.as_fd(), &key, ANYBODY, MIB), Ok(None));
    file_system.limit(bare.as_fd(), None, MIB).unwrap();
    assert_eq!(pool.open("bare", None, 0).write("file", 8, 0), Ok(()));
    pool.remove("bare", None);
}

#[test]
fn subvolumes_within_a_volume_are_removed() {
    begin();
    // Destroyed subvolumes are cleared away after a commit, and their groups with them.
    let pool = Pool::new("btrfs", ",commit=1");
    let volume = pool.make("outer", 64 * MIB);
    let at = |path: &str| volume.path.join(path).to_str().unwrap().to_owned();
    for path in ["a", "a/b", "a/b/c"] {
        run("btrfs", &["subvolume", "create", &at(path)]);
    }
    fs::create_dir_all(volume.path.join("x/y/z")).unwrap();
    for n in 0..20 {
        run("btrfs", &["subvolume", "create", &at(&format!("x/y/z/{n}"))]);
        fs::write(volume.path.join(format!("x/y/z/{n}/file")), "x").unwrap();
    }
    run("btrfs", &["subvolume", "snapshot", "-r", &at("x/y/z/1"), &at("a/b/snapshot")]);
    run("btrfs", &["property", "set", &at("a/b"), "ro", "true"]);
    drop(volume.descriptor);
    pool.remove("outer", volume.id);
    run("btrfs", &["subvolume", "sync", pool.path().to_str().unwrap()]);
    let left =
        Command::new("btrfs").args(["qgroup", "show", pool.path().to_str().unwrap()]).output().unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    println!("{left}");
    assert_eq!(left.lines().filter(|line| line.trim_start().starts_with("0/")).count(), 1, "{left}");
}
