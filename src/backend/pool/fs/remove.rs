//! Removal of a directory with all that it holds, written by whoever had the volume.
//!
//! What lies there may be hostile or merely odd, and the caller is root. So no path is ever put together, no link is
//! followed, each step down is one name from an open directory, and each step up is checked to lead where we came from.
//! One directory is open at a time and the way back is a list, so depth costs neither descriptors nor stack.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, unlinkat};
use rustix::io::{Errno, Result};

/// What to do with a mount that stands within the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// Stop with `EXDEV`: something of another file system is none of the tree's.
    Keep,
    /// Go on in there. An NFS client makes mounts of its own accord, where the server's export spans file systems.
    Enter,
}

/// How often a directory that was emptied and is not empty may be emptied again, in one removal. A writer that is faster
/// than that is to be met by the next round, not by this one.
const AGAIN: u32 = 100;

/// A directory on the way down to the open one.
struct Level {
    /// Its name in the directory above.
    name: CString,
    /// Device and inode number, by which it is known again.
    identity: (u64, u64),
    /// The directories in it that are still to be removed.
    waiting: Vec<CString>,
}

/// Removes `name` in `parent`: a file, a link, or a directory with everything beneath it.
///
/// `ENOENT` where it isn't there, `EXDEV` at a mount that is to be kept, `ENOTEMPTY` where somebody goes on writing,
/// `EAGAIN` where somebody moves directories about meanwhile. After an error part of the tree may be gone; another call
/// goes on from there. Many calls may work on the same tree.
pub fn remove(parent: BorrowedFd<'_>, name: &str, mounts: Mounts) -> Result<()> {
    super::plain::check(name)?;
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match unlinkat(parent, &name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    let mut again = AGAIN;
    let mut here = open(parent, &name, mounts)?;
    let mut levels = vec![Level::clear(here.as_fd(), name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.waiting.pop() {
            match open(here.as_fd(), &name, mounts) {
                Ok(directory) => {
                    levels.push(Level::clear(directory.as_fd(), name)?);
                    here = directory;
                }
                Err(Errno::NOENT) => {}
                // It was a directory a moment ago, and is a file or a link now.
                Err(Errno::NOTDIR | Errno::LOOP) => gone(unlinkat(&here, &name, AtFlags::empty()))?,
                Err(errno) => return Err(errno),
            }
            continue;
        }
        // Nothing is left in here: up, and remove it from there.
        let Some(done) = levels.pop() else { break };
        let above = levels.last().map(|above| up(here.as_fd(), above)).transpose()?;
        match gone(unlinkat(above.as_ref().map_or(parent, AsFd::as_fd), &done.name, AtFlags::REMOVEDIR)) {
            Ok(()) => here = above.unwrap_or(here),
            // Something came in behind us; servers call that either.
            Err(Errno::NOTEMPTY | Errno::EXIST) if again > 0 => {
                again -= 1;
                levels.push(Level::clear(here.as_fd(), done.name)?);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Level {
    /// Removes all from `directory` that is no directory, and notes those.
    fn clear(directory: BorrowedFd<'_>, name: CString) -> Result<Self> {
        let mut waiting = Vec::new();
        // A new open of it, so that its position is at the start also the second time.
        for entry in Dir::read_from(directory)? {
            let entry = match entry {
                // Another remover took the directory itself.
                Err(Errno::NOENT) => break,
                other => other?,
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            // The type is a hint, which some servers don't give. What unlink refuses is a directory.
            if entry.file_type() == FileType::Directory {
                waiting.push(name.to_owned());
                continue;
            }
            match gone(unlinkat(directory, name, AtFlags::empty())) {
                Err(Errno::ISDIR) => waiting.push(name.to_owned()),
                other => other?,
            }
        }
        Ok(Self { name, identity: identity(directory)?, waiting })
    }
}

/// Opens a directory for reading, if it is one and neither a link nor, where those are kept, a mount.
fn open(parent: BorrowedFd<'_>, name: &CStr, mounts: Mounts) -> Result<OwnedFd> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let resolve = if mounts == Mounts::Keep { beneath | ResolveFlags::NO_XDEV } else { beneath };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(parent, name, flags, Mode::empty(), resolve)
}

/// Opens the directory above `here`, if that is still the one that we came from: somebody may have moved `here` to where
/// nothing must be removed.
fn up(here: BorrowedFd<'_>, above: &Level) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        openat2(here, c"..", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)?;
    if identity(directory.as_fd())? == above.identity { Ok(directory) } else { Err(Errno::AGAIN) }
}

fn identity(directory: BorrowedFd<'_>) -> Result<(u64, u64)> {
    fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

/// What another remover took is as good as taken by us.
fn gone(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{mkdirat, openat};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn remove_in(directory: &Path, name: &str) -> Result<()> {
        remove(fs::File::open(directory).unwrap().as_fd(), name, Mounts::Keep)
    }

    #[test]
    fn a_link_is_removed_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir_all(outside.join("deep")).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::create_dir_all(directory.path().join("tree/sub")).unwrap();
        for at in ["tree/link", "tree/sub/link"] {
            symlink(&outside, directory.path().join(at)).unwrap();
        }
        remove_in(directory.path(), "tree").unwrap();
        assert!(!directory.path().join("tree").exists() && outside.join("kept").exists());
        symlink(&outside, directory.path().join("itself")).unwrap();
        remove_in(directory.path(), "itself").unwrap();
        assert!(outside.join("kept").exists() && outside.join("deep").exists());
    }

    #[test]
    fn files_of_every_kind_go() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/b/new\nline \u{fc}"), "x").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("a/socket")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, tree.join("fifo"), Mode::RWXU).unwrap();
        remove_in(directory.path(), "tree").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(remove_in(directory.path(), "tree"), Err(Errno::NOENT));
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let mut here: OwnedFd = fs::File::open(directory.path()).unwrap().into();
        for level in 0..3000 {
            let name = if level == 0 { "tree" } else { "d" };
            mkdirat(&here, name, Mode::RWXU).unwrap();
            here = openat(&here, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        drop(here);
        remove_in(directory.path(), "tree").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_removers_of_one_tree_do_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        for branch in 0..40 {
            let at = directory.path().join(format!("tree/{branch}/x/y"));
            fs::create_dir_all(&at).unwrap();
            (0..20).for_each(|file| fs::write(at.join(file.to_string()), "").unwrap());
        }
        std::thread::scope(|scope| {
            let removers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| remove_in(directory.path(), "tree"))).collect();
            for remover in removers {
                assert!(matches!(remover.join().unwrap(), Ok(()) | Err(Errno::NOENT)));
            }
        });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_nobody_may_write_to_goes_where_the_caller_is_root() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let sub = directory.path().join("tree/sub");
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join("file"), "x").unwrap();
        for at in [&sub, &directory.path().join("tree")] {
            fs::set_permissions(at, fs::Permissions::from_mode(0o555)).unwrap();
        }
        remove_in(directory.path(), "tree").unwrap();
        assert!(!directory.path().join("tree").exists());
    }

    #[test]
    fn the_way_up_must_lead_to_where_we_came_from() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        let a = fs::File::open(directory.path().join("a")).unwrap();
        let b = fs::File::open(directory.path().join("a/b")).unwrap();
        let level =
            Level { name: c"a".to_owned(), identity: identity(a.as_fd()).unwrap(), waiting: Vec::new() };
        assert!(up(b.as_fd(), &level).is_ok());
        fs::rename(directory.path().join("a/b"), directory.path().join("b")).unwrap();
        assert_eq!(up(b.as_fd(), &level).err(), Some(Errno::AGAIN));
    }
}
