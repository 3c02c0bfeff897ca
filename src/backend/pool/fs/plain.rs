//! Volumes as bare directories, on a file system that limits none of them. Sizes are recorded and reported, not enforced.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, chmod, chownat, fstat, fstatvfs, mkdirat, openat, unlinkat,
};
use rustix::io::{self, Errno};

use super::remove::{self, Mounts};
use crate::backend::store::{FileSystem, Usage};
use crate::volume::{Key, Owner};

/// Directories on any file system.
pub struct Plain {
    name: &'static str,
    mounts: Mounts,
}

impl Plain {
    /// On a file system of our own.
    pub fn local() -> Self {
        Self { name: "plain", mounts: Mounts::Keep }
    }

    /// On an NFS export. There a directory that the server has another file system at looks like a mount here, and is a
    /// part of the volume like any other.
    pub fn nfs() -> Self {
        Self { name: "nfs", mounts: Mounts::Enter }
    }
}

impl FileSystem for Plain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn enforces(&self) -> bool {
        false
    }

    fn make(
        &self,
        parent: BorrowedFd<'_>,
        name: &str,
        _: &Key,
        owner: Owner,
        _: u64,
    ) -> io::Result<Option<u64>> {
        // Opened by O_PATH: to read it, an NFS client would ask its server's leave. And with its mode from the start where its
        // owner is who makes it, for a call less, of a dozen.
        let mode = if owner.is_makers() { Mode::from_raw_mode(owner.mode) } else { Mode::RWXU };
        make_directory(parent, name, (mode, OFlags::PATH), |directory| dress(directory, owner))?;
        Ok(None)
    }

    fn settle(&self, directory: BorrowedFd<'_>, _: &Key, owner: Owner, _: u64) -> io::Result<Option<u64>> {
        dress(directory, owner)?;
        Ok(None)
    }

    fn limit(&self, _: BorrowedFd<'_>, _: Option<u64>, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// That of the whole file system, which the volume shares with others: what the volume itself holds, only a walk
    /// through all of it could tell.
    fn usage(&self, directory: BorrowedFd<'_>, _: Option<u64>, _: u64) -> io::Result<Usage> {
        usage(directory)
    }

    fn remove(&self, parent: BorrowedFd<'_>, name: &str, _: Option<u64>) -> io::Result<()> {
        remove::remove(parent, name, self.mounts)
    }

    fn room(&self, root: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
        room(root)
    }
}

/// Makes the directory `name` in `parent`, with a mode of which the umask may take something away, and brings it to what it should
/// be by `finish`, which gets it opened with the flags, and whose failure takes it away again. `EEXIST` where something of that
/// name is there.
pub(super) fn make_directory<T>(
    parent: BorrowedFd<'_>,
    name: &str,
    (mode, flags): (Mode, OFlags),
    finish: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
) -> io::Result<T> {
    use std::os::fd::AsFd;
    check(name)?;
    mkdirat(parent, name, mode)?;
    open_as(parent, name, flags).and_then(|directory| finish(directory.as_fd())).inspect_err(|_| {
        // It is empty, since nobody knows of it yet; should it stay all the same, the next try settles it.
        unlinkat(parent, name, AtFlags::REMOVEDIR).ok();
    })
}

/// Gives a directory, which may be opened by `O_PATH` alone, the owner and mode that were asked for, whatever the umask is.
pub(super) fn dress(directory: BorrowedFd<'_>, owner: Owner) -> io::Result<()> {
    if !owner.is_makers() {
        let (uid, gid) = (owner.uid.map(Uid::from_raw), owner.gid.map(Gid::from_raw));
        chownat(directory, "", uid, gid, AtFlags::EMPTY_PATH)?;
    } else if fstat(directory)?.st_mode & 0o7777 == owner.mode {
        return Ok(());
    }
    // After the owner, since a change of owner may clear bits of the mode (chown(2)). By /proc, since what is opened by
    // O_PATH has no fchmod(2).
    chmod(format!("/proc/self/fd/{}", directory.as_raw_fd()), Mode::from_raw_mode(owner.mode))
}

/// Opens the directory `name` in `parent`, if it is one and no link.
pub(super) fn open(parent: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    open_as(parent, name, OFlags::RDONLY)
}

fn open_as(parent: BorrowedFd<'_>, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    check(name)?;
    openat(parent, name, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// One name and no path.
pub(super) fn check(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        Err(Errno::INVAL)
    } else {
        Ok(())
    }
}

/// What the whole file system holds, by statfs(2).
pub(super) fn usage(directory: BorrowedFd<'_>) -> io::Result<Usage> {
    let all = fstatvfs(directory)?;
    Ok(Usage {
        total: all.f_blocks.saturating_mul(all.f_frsize),
        used: all.f_blocks.saturating_sub(all.f_bfree).saturating_mul(all.f_frsize),
        available: all.f_bavail.saturating_mul(all.f_frsize),
        inodes: all.f_files,
        inodes_used: all.f_files.saturating_sub(all.f_ffree),
        inodes_free: all.f_ffree,
    })
}

/// Bytes of the whole file system: (in all, free).
pub(super) fn room(root: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    usage(root).map(|all| (all.total, all.available))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn key() -> Key {
        Key::of("test", "volume")
    }

    #[test]
    fn the_mode_is_exact_whatever_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(directory.path()).unwrap();
        for mode in [0o777, 0o2770, 0o1777, 0o700] {
            let name = format!("{mode:o}");
            let us = std::fs::metadata(directory.path()).unwrap();
            // Also where the owner is set, which may clear bits of the mode.
            let (uid, gid) = if mode & 0o2000 != 0 { (Some(us.uid()), Some(us.gid())) } else { (None, None) };
            let owner = Owner { uid, gid, mode };
            assert_eq!(Plain::local().make(root.as_fd(), &name, &key(), owner, 1), Ok(None));
            let made = std::fs::metadata(directory.path().join(name)).unwrap();
            assert_eq!(made.permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn making_twice_says_that_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(directory.path()).unwrap();
        let owner = Owner { uid: None, gid: None, mode: 0o755 };
        let make = |name| Plain::local().make(root.as_fd(), name, &key(), owner, 1);
        assert_eq!(make("a"), Ok(None));
        assert_eq!(make("a"), Err(Errno::EXIST));
        for path in ["", ".", "..", "b/c", "/b"] {
            assert_eq!(make(path), Err(Errno::INVAL), "{path:?}");
        }
    }

    #[test]
    fn a_directory_that_cant_be_finished_is_not_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(directory.path()).unwrap();
        let failed: io::Result<()> =
            make_directory(root.as_fd(), "a", (Mode::RWXU, OFlags::RDONLY), |_| Err(Errno::PERM));
        assert_eq!(failed, Err(Errno::PERM));
        assert!(!directory.path().join("a").exists());
    }
}
