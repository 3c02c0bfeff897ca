//! What tests stand on: file systems of their own, and volumes on them.
//!
//! Each test has a mount namespace of its own, so no mount and no loop device outlives it, however it ends.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kuration::backend::pool::fs::{Probed, probe};
use kuration::volume::{Key, Owner};

pub const MIB: u64 = 1 << 20;
pub const ANYBODY: Owner = Owner { uid: None, gid: None, mode: 0o777 };

/// What every test begins with: it must be root's, and what it mounts is its own.
pub fn begin() {
    assert!(rustix::process::geteuid().is_root(), "needs root, for mounts and loop devices");
    own_namespace();
}

/// Mounts made from now on are this thread's, and go with it.
pub fn own_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}

/// A temporary directory, removed with what a test mounted in it.
pub struct Directory(tempfile::TempDir);

impl Directory {
    pub fn path(&self) -> &Path {
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

pub fn directory() -> Directory {
    let directory = tempfile::tempdir().unwrap();
    // For the writers that are not root.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Directory(directory)
}

pub fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().expect(program);
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A file system of 1 GiB, mounted, with what makes volumes on it.
pub struct Pool {
    pub directory: Directory,
    pub probed: Probed,
    pub root: OwnedFd,
}

impl Pool {
    pub fn new(kind: &str, options: &str) -> Self {
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

    pub fn btrfs() -> Self {
        let pool = Self::new("btrfs", "");
        assert_eq!(pool.probed.file_system.name(), "btrfs", "{}", pool.probed.why);
        pool
    }

    pub fn xfs() -> Self {
        let pool = Self::new("xfs", ",prjquota");
        assert_eq!(pool.probed.file_system.name(), "xfs", "{}", pool.probed.why);
        pool
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub fn make(&self, name: &str, bytes: u64) -> Volume<'_> {
        let file_system = &self.probed.file_system;
        let id = file_system.make(self.root.as_fd(), name, &Key::of("test", name), ANYBODY, bytes).unwrap();
        self.open(name, id, bytes)
    }

    pub fn open(&self, name: &str, id: Option<u64>, bytes: u64) -> Volume<'_> {
        let path = self.path().join(name);
        Volume { pool: self, descriptor: File::open(&path).unwrap().into(), path, id, bytes }
    }

    pub fn remove(&self, name: &str, id: Option<u64>) {
        self.probed.file_system.remove(self.root.as_fd(), name, id).unwrap();
        assert!(!self.path().join(name).exists());
    }

    pub fn notes(&self) -> usize {
        fs::read_dir(self.path().join(".kuration/projects")).map_or(0, Iterator::count)
    }
}

pub struct Volume<'a> {
    pool: &'a Pool,
    pub path: PathBuf,
    pub descriptor: OwnedFd,
    pub id: Option<u64>,
    bytes: u64,
}

impl Volume<'_> {
    pub fn usage(&self) -> kuration::volume::Usage {
        self.pool.probed.file_system.usage(self.descriptor.as_fd(), self.id, self.bytes).unwrap()
    }

    pub fn limit(&self, bytes: u64) {
        self.pool.probed.file_system.limit(self.descriptor.as_fd(), self.id, bytes).unwrap();
    }

    /// Writes so many MiB as this user; the error's text where that fails.
    pub fn write(&self, name: &str, mib: u64, uid: u32) -> Result<(), String> {
        let (of, count) = (format!("of={}", self.path.join(name).display()), format!("count={mib}"));
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/urandom", &of, "bs=1M", &count, "conv=fsync"]).env("LC_ALL", "C").uid(uid).gid(uid);
        let done = dd.output().unwrap();
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
    }
}
