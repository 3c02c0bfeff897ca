//! Volumes on real file systems: limits that hold, numbers that are right, removals that are complete.
//!
//! They need root, loop devices, and mkfs.btrfs or mkfs.xfs; without root each prints that and returns. Those called
//! `xfs_…` need a kernel whose xfs has project quota, as the guest's of `tests/guest/run` has: they run where
//! `KURATION_XFS_QUOTA=1` says so, and fail there if it isn't true.
//!
//! Each test has a mount namespace of its own, so no mount and no loop device outlives it, however it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kuration::backend::pool::fs::{Probed, probe};
use kuration::backend::pool::image::{Image, ImageError, Kind};
use kuration::volume::{Key, Owner};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

const MIB: u64 = 1 << 20;
const ANYBODY: Owner = Owner { uid: None, gid: None, mode: 0o777 };

/// Whether this test can run; says why where it can't.
fn runs(needs_xfs_quota: bool) -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: needs root");
        return false;
    }
    if needs_xfs_quota && std::env::var_os("KURATION_XFS_QUOTA").is_none_or(|value| value != "1") {
        eprintln!(
            "not run: needs xfs project quota; runs in the guest (tests/guest/run), with KURATION_XFS_QUOTA=1"
        );
        return false;
    }
    own_namespace();
    true
}

/// Mounts made from now on are this thread's, and go with it.
fn own_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}

/// A temporary directory, removed with what a test mounted in it.
struct Directory(tempfile::TempDir);

impl Directory {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            // Most are no mount points.
            nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH).ok();
        }
    }
}

fn directory() -> Directory {
    let directory = tempfile::tempdir().unwrap();
    // For the writers that are not root.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Directory(directory)
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().expect(program);
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A file system of 1 GiB, mounted, with what makes volumes on it.
struct Pool {
    directory: Directory,
    probed: Probed,
    root: OwnedFd,
}

impl Pool {
    fn new(kind: &str, options: &str) -> Self {
        let directory = directory();
        let (image, root) = (directory.path().join("image"), directory.path().join("root"));
        File::create(&image).unwrap().set_len(1024 * MIB).unwrap();
        fs::create_dir(&root).unwrap();
        let (image, path) = (image.to_str().unwrap(), root.to_str().unwrap());
        run(&format!("mkfs.{kind}"), &["-q", image]);
        run("mount", &["-o", &format!("loop{options}"), image, path]);
        let root = OwnedFd::from(File::open(path).unwrap());
        Self { directory, probed: probe(root.as_fd()).unwrap(), root }
    }

    fn btrfs() -> Self {
        let pool = Self::new("btrfs", "");
        assert_eq!(pool.probed.file_system.name(), "btrfs", "{}", pool.probed.why);
        pool
    }

    fn xfs() -> Self {
        let pool = Self::new("xfs", ",prjquota");
        assert_eq!(pool.probed.file_system.name(), "xfs", "{}", pool.probed.why);
        pool
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn make(&self, name: &str, bytes: u64) -> Volume<'_> {
        let file_system = &self.probed.file_system;
        let id = file_system.make(self.root.as_fd(), name, &Key::of("test", name), ANYBODY, bytes).unwrap();
        self.open(name, id, bytes)
    }

    fn open(&self, name: &str, id: Option<u64>, bytes: u64) -> Volume<'_> {
        let path = self.path().join(name);
        Volume { pool: self, descriptor: File::open(&path).unwrap().into(), path, id, bytes }
    }

    fn remove(&self, name: &str, id: Option<u64>) {
        self.probed.file_system.remove(self.root.as_fd(), name, id).unwrap();
        assert!(!self.path().join(name).exists());
    }

    fn notes(&self) -> usize {
        fs::read_dir(self.path().join(".kuration/projects")).map_or(0, Iterator::count)
    }
}

struct Volume<'a> {
    pool: &'a Pool,
    path: PathBuf,
    descriptor: OwnedFd,
    id: Option<u64>,
    bytes: u64,
}

impl Volume<'_> {
    fn usage(&self) -> kuration::volume::Usage {
        self.pool.probed.file_system.usage(self.descriptor.as_fd(), self.id, self.bytes).unwrap()
    }

    fn limit(&self, bytes: u64) {
        self.pool.probed.file_system.limit(self.descriptor.as_fd(), self.id, bytes).unwrap();
    }

    /// Writes so many MiB as this user; the error's text where that fails.
    fn write(&self, name: &str, mib: u64, uid: u32) -> Result<(), String> {
        let (of, count) = (format!("of={}", self.path.join(name).display()), format!("count={mib}"));
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/urandom", &of, "bs=1M", &count, "conv=fsync"]).env("LC_ALL", "C").uid(uid).gid(uid);
        let done = dd.output().unwrap();
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
    }
}

/// What a power cut at the end of `what` leaves: all that was written to the disk by then, and nothing else.
fn outlasts_a_power_cut(kind: &str, options: &str) {
    let pool = Pool::new(kind, options);
    let id = pool.make("cut", 16 * MIB).id;
    pool.make("grown", 16 * MIB).limit(48 * MIB);
    // The store syncs the name of the volume's record after that.
    fs::create_dir(pool.path().join("records")).unwrap();
    fs::write(pool.path().join("records/cut"), "x").unwrap();
    File::open(pool.path().join("records")).unwrap().sync_all().unwrap();
    let (disk, copy) = (pool.directory.path().join("image"), pool.directory.path().join("copy"));
    run("cp", &["--sparse=always", disk.to_str().unwrap(), copy.to_str().unwrap()]);
    let Pool { directory, probed, root } = pool;
    drop((probed, root));
    let path = directory.path().join("root");
    run("umount", &[path.to_str().unwrap()]);
    if kind == "btrfs" {
        // Or the kernel would take the copy for an older state of the same disk.
        run("btrfs", &["device", "scan", "--forget"]);
    }
    run("mount", &["-o", &format!("loop{options}"), copy.to_str().unwrap(), path.to_str().unwrap()]);
    let root = OwnedFd::from(File::open(&path).unwrap());
    let pool = Pool { directory, probed: probe(root.as_fd()).unwrap(), root };
    assert_eq!(pool.open("cut", id, 0).usage().total, 16 * MIB);
    assert_eq!(pool.open("grown", None, 0).usage().total, 48 * MIB);
    assert_eq!(fs::metadata(pool.path().join("cut")).unwrap().mode() & 0o7777, 0o777);
}

fn limit_holds_for_everybody(pool: &Pool, words: &str) {
    let volume = pool.make("limited", 64 * MIB);
    for (name, uid) in [("roots", 0), ("users", 1000)] {
        let failed = volume.write(name, 100, uid).unwrap_err();
        assert!(failed.contains(words), "{failed}");
        rustix::fs::syncfs(&volume.descriptor).unwrap();
        let usage = volume.usage();
        assert!(usage.used <= 64 * MIB && usage.used > 60 * MIB, "{usage:?}");
        assert!(usage.available < 4 * MIB && usage.total == 64 * MIB, "{usage:?}");
        // A full volume can be emptied, also by who filled it.
        let path = volume.path.join(name);
        let emptied = Command::new("rm").arg(&path).uid(uid).output().unwrap();
        assert!(emptied.status.success(), "{}", String::from_utf8_lossy(&emptied.stderr));
        rustix::fs::syncfs(&volume.descriptor).unwrap();
        assert_eq!(volume.write("small", 8, uid), Ok(()));
        fs::remove_file(volume.path.join("small")).unwrap();
        rustix::fs::syncfs(&volume.descriptor).unwrap();
    }
    // Its neighbour's limit is its own.
    assert_eq!(pool.make("neighbour", 64 * MIB).write("file", 32, 1000), Ok(()));
}

fn limit_grows_under_a_writer(pool: &Pool) {
    let volume = pool.make("growing", 32 * MIB);
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut file = File::create(volume.path.join("file")).unwrap();
            for _ in 0..64 {
                file.write_all(&vec![1; MIB as usize])?;
                file.sync_all()?;
                written.fetch_add(1, Ordering::SeqCst);
            }
            std::io::Result::Ok(())
        });
        while written.load(Ordering::SeqCst) < 16 {
            assert!(!writer.is_finished());
            std::thread::sleep(Duration::from_millis(1));
        }
        let begun = Instant::now();
        volume.limit(128 * MIB);
        println!("a limit moved in {:?}", begun.elapsed());
        writer.join().unwrap().unwrap();
    });
    assert_eq!(volume.usage().total, 128 * MIB);
}

fn usage_is_right_when_synced(pool: &Pool, slack: u64) {
    let volume = pool.make("used", 256 * MIB);
    let before = volume.usage();
    volume.write("file", 40, 0).unwrap();
    let unsynced = volume.usage().used;
    let begun = Instant::now();
    rustix::fs::syncfs(&volume.descriptor).unwrap();
    let took = begun.elapsed();
    let begun = Instant::now();
    let after = volume.usage();
    println!(
        "40 MiB: {unsynced} bytes, after a sync of {took:?} {}, read in {:?}",
        after.used,
        begun.elapsed()
    );
    assert!(
        after.used - before.used >= 40 * MIB && after.used - before.used <= 40 * MIB + slack,
        "{after:?}"
    );
    assert_eq!(after.available, 256 * MIB - after.used);
}

fn trees_are_removed(pool: &Pool) {
    let volume = pool.make("tree", 256 * MIB);
    let outside = pool.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    symlink(&outside, volume.path.join("link")).unwrap();
    for branch in 0..50 {
        let branch = volume.path.join(format!("many/{branch}"));
        fs::create_dir_all(&branch).unwrap();
        (0..100).for_each(|file| drop(File::create(branch.join(file.to_string())).unwrap()));
        symlink(&outside, branch.join("link")).unwrap();
        fs::set_permissions(&branch, fs::Permissions::from_mode(0o555)).unwrap();
    }
    let mut here = volume.descriptor.try_clone().unwrap();
    for _ in 0..3000 {
        mkdirat(&here, "deep", Mode::RWXU).unwrap();
        here = openat(&here, "deep", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    // As a delete does: into the trash, which belongs to no volume, and back, and in again.
    let (id, trash) = (volume.id, pool.path().join(".kuration/trash"));
    fs::create_dir_all(&trash).unwrap();
    for (from, to) in
        [("tree", ".kuration/trash/t"), (".kuration/trash/t", "tree"), ("tree", ".kuration/trash/t")]
    {
        fs::rename(pool.path().join(from), pool.path().join(to)).unwrap();
    }
    drop((here, volume));
    let begun = Instant::now();
    pool.probed.file_system.remove(File::open(&trash).unwrap().as_fd(), "t", id).unwrap();
    println!("5,000 files and 3,000 levels removed in {:?}", begun.elapsed());
    assert!(fs::read_dir(&trash).unwrap().next().is_none() && outside.join("kept").exists());
    let again = pool.probed.file_system.remove(File::open(&trash).unwrap().as_fd(), "t", id);
    assert_eq!(again, Err(Errno::NOENT));
}

fn many_are_made_at_once(pool: &Pool) {
    let begun = Instant::now();
    // What the quota is of: an xfs project, or a btrfs subvolume, which is a device of its own.
    let quota_of = |n: u32| {
        let name = format!("v{n}");
        let id = pool.make(&name, 16 * MIB).id;
        id.unwrap_or_else(|| fs::metadata(pool.path().join(&name)).unwrap().dev())
    };
    let ids: HashSet<u64> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..16).map(|n| scope.spawn(move || quota_of(n))).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    println!("16 volumes made in {:?}", begun.elapsed());
    assert_eq!(ids.len(), 16);
    for n in 0..16 {
        assert_eq!(pool.open(&format!("v{n}"), None, 0).usage().total, 16 * MIB);
    }
    let taken = pool.probed.file_system.make(pool.root.as_fd(), "v3", &Key::of("test", "v3"), ANYBODY, MIB);
    assert_eq!(taken, Err(Errno::EXIST));
}

fn owner_and_mode_are_exact(pool: &Pool) {
    let owner = Owner { uid: Some(1234), gid: Some(4321), mode: 0o2770 };
    pool.probed.file_system.make(pool.root.as_fd(), "owned", &Key::of("test", "owned"), owner, MIB).unwrap();
    let made = fs::metadata(pool.path().join("owned")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1234, 4321, 0o2770));
}

#[test]
fn btrfs_quota_groups_are_turned_on() {
    if !runs(false) {
        return;
    }
    let pool = Pool::btrfs();
    assert!(
        pool.probed.file_system.enforces() && pool.probed.why.contains("were off"),
        "{}",
        pool.probed.why
    );
    let again = probe(pool.root.as_fd()).unwrap();
    assert_eq!(again.why, "btrfs with quota groups: sizes are enforced");
    owner_and_mode_are_exact(&pool);
}

#[test]
fn btrfs_limit_holds_for_everybody() {
    if runs(false) {
        limit_holds_for_everybody(&Pool::btrfs(), "Disk quota exceeded");
    }
}

#[test]
fn btrfs_limit_grows_under_a_writer() {
    if runs(false) {
        limit_grows_under_a_writer(&Pool::btrfs());
    }
}

#[test]
fn btrfs_usage_is_right_when_synced() {
    if runs(false) {
        usage_is_right_when_synced(&Pool::btrfs(), 64 << 10);
    }
}

#[test]
fn btrfs_trees_are_removed() {
    if runs(false) {
        trees_are_removed(&Pool::btrfs());
    }
}

#[test]
fn btrfs_many_are_made_at_once() {
    if runs(false) {
        many_are_made_at_once(&Pool::btrfs());
    }
}

#[test]
fn btrfs_volumes_outlast_a_power_cut() {
    if runs(false) {
        outlasts_a_power_cut("btrfs", "");
    }
}

/// btrfs gives up counting where it would take too long; the next look has it begin anew.
#[test]
fn btrfs_counting_that_was_given_up_is_begun_anew() {
    if !runs(false) {
        return;
    }
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
fn btrfs_interrupted_make_is_settled() {
    if !runs(false) {
        return;
    }
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
fn btrfs_subvolumes_within_a_volume_are_removed() {
    if !runs(false) {
        return;
    }
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

#[test]
fn xfs_limit_holds_for_everybody() {
    if runs(true) {
        limit_holds_for_everybody(&Pool::xfs(), "No space left on device");
    }
}

#[test]
fn xfs_limit_grows_under_a_writer() {
    if runs(true) {
        limit_grows_under_a_writer(&Pool::xfs());
    }
}

#[test]
fn xfs_usage_is_right_when_synced() {
    if runs(true) {
        usage_is_right_when_synced(&Pool::xfs(), 64 << 10);
    }
}

#[test]
fn xfs_trees_are_removed_and_their_projects_freed() {
    if runs(true) {
        let pool = Pool::xfs();
        trees_are_removed(&pool);
        assert_eq!(pool.notes(), 0);
    }
}

#[test]
fn xfs_many_are_made_at_once() {
    if runs(true) {
        let pool = Pool::xfs();
        many_are_made_at_once(&pool);
        assert_eq!(pool.notes(), 16);
        owner_and_mode_are_exact(&pool);
    }
}

#[test]
fn xfs_volumes_outlast_a_power_cut() {
    if runs(true) {
        outlasts_a_power_cut("xfs", ",prjquota");
    }
}

#[test]
fn xfs_statfs_speaks_of_the_volume() {
    if !runs(true) {
        return;
    }
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
fn xfs_interrupted_make_is_settled() {
    if !runs(true) {
        return;
    }
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
fn xfs_a_foreign_project_is_left_alone() {
    if !runs(true) {
        return;
    }
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
fn xfs_without_quota_is_plain_and_says_what_to_do() {
    if !runs(true) {
        return;
    }
    let pool = Pool::new("xfs", "");
    assert_eq!(pool.probed.file_system.name(), "plain");
    assert!(pool.probed.why.contains("mount it with -o prjquota"), "{}", pool.probed.why);
}

#[test]
fn plain_trees_are_removed() {
    if runs(false) {
        let pool = Pool::new("ext4", "");
        assert!(pool.probed.why.starts_with("ext4: "), "{}", pool.probed.why);
        trees_are_removed(&pool);
    }
}

#[test]
fn plain_a_mount_within_is_never_crossed() {
    if !runs(false) {
        return;
    }
    let pool = Pool::new("ext4", "");
    fs::create_dir_all(pool.path().join("volume/a/mounted")).unwrap();
    let kept = pool.directory.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let at = pool.path().join("volume/a/mounted");
    run("mount", &["--bind", kept.to_str().unwrap(), at.to_str().unwrap()]);
    let removed = pool.probed.file_system.remove(pool.root.as_fd(), "volume", None);
    assert_eq!(removed, Err(Errno::XDEV));
    assert!(kept.join("file").exists());
    run("umount", &[at.to_str().unwrap()]);
    pool.remove("volume", None);
}

// Pools in a file.

const IMAGE: u64 = 512 * MIB;

/// Loop devices that have the image of this pool.
fn loops(pool: &Path) -> Vec<String> {
    let files = fs::read_dir("/sys/block").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        Path::new(file.trim_end()).starts_with(pool).then(|| entry.file_name().into_string().unwrap())
    });
    files.collect()
}

fn no_loop_is_left(pool: &Path) {
    let begun = Instant::now();
    while !loops(pool).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", loops(pool));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn image_is_kept_over_a_restart() {
    if !runs(false) {
        return;
    }
    let pool = directory();
    let begun = Instant::now();
    let image = Image::open(pool.path(), IMAGE).unwrap();
    let made = begun.elapsed();
    let number = loops(pool.path()).pop().unwrap();
    let direct = fs::read_to_string(format!("/sys/block/{number}/loop/dio")).unwrap();
    println!("{:?} made in {made:?}, direct I/O {}", image.kind, direct.trim());
    let root = OwnedFd::from(File::open(&image.root).unwrap());
    let probed = probe(root.as_fd()).unwrap();
    assert_eq!(
        (probed.file_system.name(), probed.file_system.enforces()),
        (image.kind.name(), true),
        "{}",
        probed.why
    );
    probed.file_system.make(root.as_fd(), "v", &Key::of("i", "v"), ANYBODY, 16 * MIB).unwrap();
    fs::write(image.root.join("v/file"), "kept").unwrap();
    // Still mounted, as after a crash; another size changes nothing.
    let begun = Instant::now();
    assert_eq!(Image::open(pool.path(), 2 * IMAGE).unwrap(), image);
    println!("found mounted in {:?}", begun.elapsed());
    assert_eq!(loops(pool.path()), [number]);
    drop((probed, root));
    image.clone().close().unwrap();
    no_loop_is_left(pool.path());
    // Not mounted, as after a boot. What an interrupted making left doesn't matter.
    fs::write(pool.path().join("pool.img.new"), "half").unwrap();
    assert_eq!(Image::open(pool.path(), IMAGE).unwrap(), image);
    assert_eq!(fs::read_to_string(image.root.join("v/file")).unwrap(), "kept");
    let root = OwnedFd::from(File::open(&image.root).unwrap());
    let why = probe(root.as_fd()).unwrap().why;
    assert!(why.ends_with("sizes are enforced"), "{why}");
    drop(root);
    image.close().unwrap();
    no_loop_is_left(pool.path());
}

#[test]
fn image_is_mounted_once_by_many_starters() {
    if !runs(false) {
        return;
    }
    let pool = directory();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = pool.path();
            scope.spawn(move || {
                let image = Image::open(path, IMAGE).unwrap();
                fs::write(image.root.join(n.to_string()), "x").unwrap();
            });
        }
    });
    assert_eq!(loops(pool.path()).len(), 1);
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert_eq!(mounts.lines().filter(|line| line.contains(pool.path().to_str().unwrap())).count(), 1);
    // Starters in mount namespaces of their own, as containers are: each mounts it, all by the one device.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let path = pool.path();
            scope.spawn(move || {
                own_namespace();
                rustix::mount::unmount(path.join("fs"), rustix::mount::UnmountFlags::empty()).unwrap();
                let image = Image::open(path, IMAGE).unwrap();
                assert_eq!(
                    fs::read_dir(&image.root)
                        .unwrap()
                        .filter(|e| e.as_ref().unwrap().path().is_file())
                        .count(),
                    8
                );
                assert_eq!(loops(path).len(), 1);
            });
        }
    });
    let image = Image::open(pool.path(), IMAGE).unwrap();
    image.close().unwrap();
    no_loop_is_left(pool.path());
}

#[test]
fn image_of_something_else_is_left_as_it_is() {
    if !runs(false) {
        return;
    }
    let pool = directory();
    let path = pool.path().join("pool.img");
    fs::write(&path, vec![7; 200_000]).unwrap();
    assert!(matches!(Image::open(pool.path(), IMAGE), Err(ImageError::Unknown(_))));
    // One that is damaged behind its magic can't be mounted, and is not made anew either.
    File::options().write(true).open(&path).unwrap().write_at(b"_BHRfS_M", 0x1_0040).unwrap();
    let error = Image::open(pool.path(), IMAGE).unwrap_err();
    assert!(matches!(error, ImageError::Io { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap().len(), 200_000);
    no_loop_is_left(pool.path());
    fs::remove_file(&path).unwrap();
    fs::create_dir(pool.path().join(".kuration")).unwrap();
    assert!(matches!(Image::open(pool.path(), IMAGE), Err(ImageError::Occupied(_))));
    fs::remove_dir(pool.path().join(".kuration")).unwrap();
    run("mount", &["-t", "tmpfs", "stranger", pool.path().join("fs").to_str().unwrap()]);
    assert!(matches!(Image::open(pool.path(), IMAGE), Err(ImageError::Mounted(..))));
}

#[test]
fn image_is_of_the_kind_asked_for() {
    if !runs(false) {
        return;
    }
    let pool = directory();
    let image = Image::open_as(pool.path(), IMAGE, Some(Kind::Btrfs)).unwrap();
    assert_eq!(image.kind, Kind::Btrfs);
    assert_eq!(Image::open_as(pool.path(), IMAGE, None).unwrap(), image);
    let error = Image::open_as(pool.path(), IMAGE, Some(Kind::Xfs)).unwrap_err();
    assert!(matches!(error, ImageError::Another { .. }), "{error}");
    image.close().unwrap();
    no_loop_is_left(pool.path());
}

#[test]
fn image_that_cant_be_says_why() {
    if !runs(false) {
        return;
    }
    let pool = directory();
    assert!(matches!(Image::open(pool.path(), u64::MAX), Err(ImageError::TooLarge { .. })));
    let error = Image::open(pool.path(), MIB).unwrap_err().to_string();
    assert!(error.contains("xfs: ") && error.contains("btrfs: "), "{error}");
    println!("{error}");
    assert!(!pool.path().join("pool.img").exists() && !pool.path().join("pool.img.new").exists());
    no_loop_is_left(pool.path());
}

#[test]
fn xfs_is_what_an_image_gets() {
    if !runs(true) {
        return;
    }
    let pool = directory();
    let image = Image::open(pool.path(), IMAGE).unwrap();
    assert_eq!(image.kind, Kind::Xfs);
    image.close().unwrap();
    no_loop_is_left(pool.path());
}
