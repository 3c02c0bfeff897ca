//! What holds on every file system that enforces sizes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kuration::backend::pool::fs::probe;
use kuration::volume::{Key, Owner};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::stand::{ANYBODY, MIB, Pool, run};

pub fn outlasts_a_power_cut(kind: &str, options: &str) {
    let pool = Pool::new(kind, options);
    pool.make("grown", 16 * MIB).limit(48 * MIB);
    let id = pool.make("cut", 16 * MIB).id;
    pool.probed.file_system.commit(pool.root.as_fd()).unwrap();
    // The store syncs the name of the volume's record after that.
    fs::create_dir(pool.path().join("records")).unwrap();
    fs::write(pool.path().join("records/cut"), "x").unwrap();
    File::open(pool.path().join("records")).unwrap().sync_all().unwrap();
    let pool = after_a_power_cut(pool, (), kind, options);
    assert_eq!(pool.open("cut", id, 0).usage().total, 16 * MIB);
    assert_eq!(pool.open("grown", None, 0).usage().total, 48 * MIB);
    assert_eq!(fs::metadata(pool.path().join("cut")).unwrap().mode() & 0o7777, 0o777);
}

/// What a power cut leaves now: all that was written to the disk, and nothing else. What has the pool open, `users`, ends with it.
pub fn after_a_power_cut<T>(pool: Pool, users: T, kind: &str, options: &str) -> Pool {
    let (disk, copy) = (pool.directory.path().join("image"), pool.directory.path().join("copy"));
    run("cp", &["--sparse=always", disk.to_str().unwrap(), copy.to_str().unwrap()]);
    let Pool { directory, probed, root } = pool;
    drop((probed, root, users));
    let path = directory.path().join("root");
    unmount(&path);
    if kind == "btrfs" {
        // Or the kernel would take the copy for an older state of the same disk.
        run("btrfs", &["device", "scan", "--forget"]);
    }
    run("mount", &["-o", &format!("loop{options}"), copy.to_str().unwrap(), path.to_str().unwrap()]);
    let root = OwnedFd::from(File::open(&path).unwrap());
    Pool { directory, probed: probe(root.as_fd()).unwrap(), root }
}

/// A program that another test starts at this moment has what this process has open, until it is executed.
fn unmount(path: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    while let Err(errno) = nix::mount::umount(path) {
        assert!(errno == nix::errno::Errno::EBUSY && Instant::now() < end, "{}: {errno}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn limit_holds_for_everybody(pool: &Pool, words: &str) {
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

pub fn limit_grows_under_a_writer(pool: &Pool) {
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

pub fn usage_is_right_when_synced(pool: &Pool, slack: u64) {
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

pub fn trees_are_removed(pool: &Pool) {
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

pub fn many_are_made_at_once(pool: &Pool) {
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

pub fn owner_and_mode_are_exact(pool: &Pool) {
    let owner = Owner { uid: Some(1234), gid: Some(4321), mode: 0o2770 };
    pool.probed.file_system.make(pool.root.as_fd(), "owned", &Key::of("test", "owned"), owner, MIB).unwrap();
    let made = fs::metadata(pool.path().join("owned")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1234, 4321, 0o2770));
}
