//! Files and directories below an open directory, never through a link and never by a joined path.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, fstat, mkdirat,
    openat2, readlinkat, renameat, renameat_with, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::{Errno, Result};

/// No way out: not by `..`, not by a link, not by /proc's.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens the directory `path` beneath `root`.
pub fn open_directory(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(root, path, flags, Mode::empty(), BENEATH)
}

/// Makes the directory `name` in `parent`, unless it is there, and opens it.
pub fn make_directory(parent: BorrowedFd<'_>, name: &str, mode: u32) -> Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => open_directory(parent, name),
        Err(errno) => Err(errno),
    }
}

/// A record is a few KiB; a file of so many bytes was not written by us, and is read no further.
pub const LARGEST: u64 = 1 << 20;

/// More than a record mostly has, in bytes.
const USUAL: usize = 4 << 10;

/// The content of the file `name` in `parent`; `None` where there is none.
pub fn read(parent: BorrowedFd<'_>, name: &str) -> std::io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match openat2(parent, name, flags, Mode::empty(), BENEATH) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    // Room for any but odd ones, so that two calls read it and not seven.
    let mut content = Vec::with_capacity(USUAL);
    file.take(LARGEST).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Writes the file `name` in `parent`, down to the disk of the server. The name must be the caller's alone: with a number of 64 bits
/// in it, drawn at random, or in a directory that is his.
///
/// That nothing is there can't be asked for by `O_EXCL`: an NFS client pays for that with a further call, a SETATTR, since a server
/// may keep in the times of such a file what it knows the client's second try by (RFC 8881, section 18.16.3).
pub fn write_new(parent: BorrowedFd<'_>, name: &str, content: &[u8]) -> std::io::Result<()> {
    write_new_and(parent, name, content, || ())
}

/// The same. `seen` is called as soon as others can read all of it, which a power cut still takes.
pub fn write_new_and(
    parent: BorrowedFd<'_>,
    name: &str,
    content: &[u8],
    seen: impl FnOnce(),
) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = std::fs::File::from(openat2(parent, name, flags, Mode::from_raw_mode(0o600), BENEATH)?);
    let written = file.write_all(content).and_then(|()| {
        seen();
        file.sync_all()
    });
    // Closed first: NFS keeps an open file that is unlinked under another name.
    drop(file);
    if written.is_err() {
        unlinkat(parent, name, AtFlags::empty()).ok();
    }
    written
}

/// Makes what was done to names in `directory` outlast a power cut. NFS servers do that with each operation by themselves
/// (RFC 7530, section 4.2); local file systems need to be told.
pub fn settle_names(directory: BorrowedFd<'_>) -> Result<()> {
    match rustix::fs::fsync(directory) {
        // Some servers' directories can't be synced, and need not be.
        Err(Errno::INVAL | Errno::BADF) => Ok(()),
        other => other,
    }
}

/// Sets the times of `name` in `parent` to now, by the clock of the server.
pub fn touch(parent: BorrowedFd<'_>, name: &str) -> Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    utimensat(
        parent,
        name,
        &Timestamps { last_access: now, last_modification: now },
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// When names in `directory` were last changed, by the clock of the file system: seconds since 1970, and nanoseconds.
pub fn changed(directory: BorrowedFd<'_>) -> Result<(i64, i64)> {
    fstat(directory).map(|stat| (stat.st_mtime, stat.st_mtime_nsec as i64))
}

/// Renames a file or a directory; `EXIST` where there is something of the new name.
///
/// Local file systems see to that by themselves. An NFS client can't ask for it: there a look comes first, and what is made
/// between the two is lost, unless it is a directory with something in it.
pub fn move_where_none_is(from: BorrowedFd<'_>, name: &str, to: BorrowedFd<'_>, new: &str) -> Result<()> {
    match renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if is_there(to, new)? => Err(Errno::EXIST),
        Err(Errno::INVAL | Errno::NOSYS) => renameat(from, name, to, new),
        other => other,
    }
}

/// Removes the file `name` in `parent`, if it is there.
pub fn remove_file(parent: BorrowedFd<'_>, name: &str) -> Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Removes the directory `name` in `parent`, if it is there and empty.
pub fn remove_empty(parent: BorrowedFd<'_>, name: &str) -> Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// A short text under a name, put there in one step that only one of many can win: a symbolic link that leads nowhere.
/// It costs one call to the server, where a file costs three, and is never seen half written.
pub fn put_note(parent: BorrowedFd<'_>, name: &str, text: &str) -> Result<()> {
    symlinkat(text, parent, name)
}

/// Reads a note; `None` where there is none.
pub fn read_note(parent: BorrowedFd<'_>, name: &str) -> Result<Option<String>> {
    match readlinkat(parent, name, Vec::new()) {
        Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names in `directory` and their inode numbers, without `.` and `..`, in no order. It must just have been opened, since the
/// position in a directory belongs to its open file.
pub fn names(directory: OwnedFd) -> Result<Vec<(String, u64)>> {
    let mut names = Vec::new();
    for entry in Dir::new(directory)? {
        let entry = entry?;
        let name = CString::from(entry.file_name()).into_string();
        // Names that are not text are nobody's of ours.
        let Ok(name) = name else { continue };
        if name != "." && name != ".." {
            names.push((name, entry.ino()));
        }
    }
    Ok(names)
}

/// The same of a directory that stays open.
pub fn names_in(directory: BorrowedFd<'_>) -> Result<Vec<(String, u64)>> {
    names(open_directory(directory, ".")?)
}

/// Whether there is something of that name in `parent`.
pub fn is_there(parent: BorrowedFd<'_>, name: &str) -> Result<bool> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether nothing lies in `directory`.
pub fn is_empty(directory: &OwnedFd) -> Result<bool> {
    Ok(names_in(directory.as_fd())?.is_empty())
}

/// Opens the file `name` in `parent` for locks, making it if need be.
pub fn open_lock(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(parent, name, flags, Mode::from_raw_mode(0o600), BENEATH)
}

/// Opens again, for reading and writing, what `file` is.
pub fn open_file(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    // By /proc, the one way to a second open file of the same inode whose name may be gone.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}
