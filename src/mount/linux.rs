//! The system calls, and the one that needs `unsafe`.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::{self, Errno};
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use sys_mount::UnmountFlags;

use crate::volume::Attributes;

/// Attaches a detached mount to `target`, which must exist and is not followed if it is a link.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    move_mount(mount, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Shows the directory behind `source` at `target` too, with `flags` in force before anybody can see it.
pub fn bind(source: &Path, target: &Path, flags: MountAttrFlags) -> io::Result<()> {
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_NO_AUTOMOUNT;
    let tree = open_tree(rustix::fs::CWD, source, clone | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?;
    set_attributes(tree.as_fd(), flags)?;
    attach(tree.as_fd(), target)
}

/// The same for a directory that is open already.
pub fn bind_open(source: BorrowedFd<'_>, target: &Path, flags: MountAttrFlags) -> io::Result<()> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(source, "", clone | OpenTreeFlags::AT_EMPTY_PATH)?;
    set_attributes(tree.as_fd(), flags)?;
    attach(tree.as_fd(), target)
}

/// mount_setattr(2), Linux 5.12: sets `flags` on one mount, leaving the others as they are.
#[allow(unsafe_code)]
fn set_attributes(mount: BorrowedFd<'_>, flags: MountAttrFlags) -> io::Result<()> {
    if flags.is_empty() {
        return Ok(());
    }
    let set = u64::from(flags.bits());
    // The access-time modes are a field, not bits: whoever sets one must clear the field first.
    let atime = u64::from(MountAttrFlags::MOUNT_ATTR__ATIME.bits());
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: if set & atime == 0 { 0 } else { atime },
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open for the length of the call, the path is an empty C string, and the structure is
    // passed with its own size; the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// How to unmount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unmount {
    /// As it should be.
    Plain,
    /// MNT_FORCE: requests that wait for the server are given up.
    Force,
    /// MNT_DETACH: out of sight, and gone when the last user leaves.
    Detach,
}

/// umount2(2), never through a link.
pub fn unmount(target: &Path, how: Unmount) -> io::Result<()> {
    // sys-mount would pass the kernel a null pointer for such a path.
    if target.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Errno::INVAL);
    }
    // sys-mount 3.1.1's own NOFOLLOW is open(2)'s flag of that name, which umount2 refuses.
    let flags = UnmountFlags::from_bits_retain(libc::UMOUNT_NOFOLLOW)
        | match how {
            Unmount::Plain => UnmountFlags::empty(),
            Unmount::Force => UnmountFlags::FORCE,
            Unmount::Detach => UnmountFlags::DETACH,
        };
    sys_mount::unmount(target, flags).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Tells the NFS client to give up on a superblock for good (`/sys/fs/nfs/MAJOR:MINOR/shutdown`, Linux 6.5): whatever
/// waits for the server gets EIO at once. Whether there is such a switch.
pub fn shut_down(device: &str) -> bool {
    fs::write(format!("/sys/fs/nfs/{device}/shutdown"), "1").is_ok()
}

/// Shows an open directory at `target`, with these attributes.
pub fn bind_directory(
    source: &std::os::fd::OwnedFd,
    target: &Path,
    attributes: Attributes,
) -> io::Result<()> {
    bind_open(source.as_fd(), target, super::nfs::flags(attributes))
}

/// Whether `path` is a directory without a link on the way to it, told without waiting for anybody: what the kernel would
/// have to ask a disk or a server for counts as "not known" (`RESOLVE_CACHED`, Linux 5.12).
pub fn is_plain(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
    rustix::fs::openat2(rustix::fs::CWD, path, flags, rustix::fs::Mode::empty(), resolve).is_ok()
}
