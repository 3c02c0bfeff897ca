//! Volumes as subvolumes with a quota group each, on btrfs.
//!
//! A limit holds for everybody, root included: a write beyond it gets `EDQUOT`, at once or, where the data waits in memory,
//! at fsync. It limits what the subvolume refers to, metadata among it (16 KiB from the start), and moves at once. btrfs
//! shows it nowhere: statfs(2) speaks of the whole file system.
//!
//! What is used is counted when data is written out and its transaction committed, which btrfs does every 30 s by itself.
//! [`Btrfs::usage`] doesn't ask for that: a sync waits for all that anybody wrote to the whole pool (measured under one
//! writer: 0.2 to 4 s), and each volume is measured each minute. So its numbers are up to 30 s old (100 MiB just written
//! show as none); those by which writes are refused are not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, fstat, openat2, statat};
use rustix::io::{self, Errno, fcntl_dupfd_cloexec};

use super::commits::Commits;
use super::remove::{self, Mounts};
use super::{plain, room_for};
use crate::backend::pool::ioctl::btrfs::{self as ioctl, SUBVOLUME_INODE};
use crate::backend::store::{FileSystem, Usage};
use crate::volume::{Key, Owner};

// Trees, kinds of items and flags (linux/btrfs_tree.h).
const ROOT_TREE: u64 = 1;
const QUOTA_TREE: u64 = 8;
const ROOT_REF: u32 = 156;
const QGROUP_STATUS: u32 = 240;
const QGROUP_INFO: u32 = 242;
const QGROUP_LIMIT: u32 = 244;
const STATUS_ON: u64 = 1 << 0;
const STATUS_RESCAN: u64 = 1 << 1;
const STATUS_INCONSISTENT: u64 = 1 << 2;
const LIMITS_REFERRED: u64 = 1 << 0;

/// Subvolumes with quota groups.
#[derive(Default)]
pub struct Btrfs {
    commits: Commits,
}

impl Btrfs {
    /// Whether quota groups are on, and turns them on where they are not; then gives back `true`. Fails where the caller
    /// may not (`EPERM`: it takes CAP_SYS_ADMIN), or the file system is read-only.
    pub(super) fn enable(root: BorrowedFd<'_>) -> io::Result<bool> {
        if status(root)? & STATUS_ON != 0 {
            recount_if_wrong(root);
            return Ok(false);
        }
        // This also starts to count what is there. Volumes made from now on are right from the start, so nobody has to
        // wait for that; older subvolumes are measured too low until it is done.
        ioctl::enable_qgroups(root)?;
        if status(root)? & STATUS_ON != 0 { Ok(true) } else { Err(Errno::OPNOTSUPP) }
    }
}

impl FileSystem for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    fn enforces(&self) -> bool {
        true
    }

    /// A power cut could take a subvolume away from under its record: since Linux 6.6 making one doesn't commit it, and a sync of
    /// other files is done by a log that knows nothing of subvolumes. A sync of the directory that holds it is such a commit, too,
    /// but only while it is new, and another one where others have made theirs meanwhile.
    fn commit(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.commits.commit(|| ioctl::commit_transaction(directory))
    }

    fn commits_all(&self) -> bool {
        true
    }

    /// Of a subvolume: btrfs logs nothing in a transaction that has renamed one, so each sync of anybody commits all of it
    /// (`btrfs_rename`: "force full log commit if subvolume involved"). The log of another directory may outrun a bare one's.
    fn renames_in_order(&self, parent: BorrowedFd<'_>, name: &str) -> bool {
        statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_ino == SUBVOLUME_INODE)
    }

    fn make(
        &self,
        parent: BorrowedFd<'_>,
        name: &str,
        key: &Key,
        owner: Owner,
        bytes: u64,
    ) -> io::Result<Option<u64>> {
        plain::check(name)?;
        ioctl::create_subvolume(parent, name.as_bytes())?;
        plain::open(parent, name).and_then(|made| self.settle(made.as_fd(), key, owner, bytes)).inspect_err(
            |_| {
                self.remove(parent, name, None).ok();
            },
        )
    }

    fn settle(
        &self,
        directory: BorrowedFd<'_>,
        _: &Key,
        owner: Owner,
        bytes: u64,
    ) -> io::Result<Option<u64>> {
        let id = subvolume(directory)?;
        if let Some(id) = id {
            ioctl::limit_qgroup(directory, id, bytes)?;
        }
        plain::dress(directory, owner)?;
        // The group's number is the subvolume's own, which nobody can change: to record it would be another synced file.
        Ok(None)
    }

    fn limit(&self, directory: BorrowedFd<'_>, _: Option<u64>, bytes: u64) -> io::Result<()> {
        match subvolume(directory)? {
            Some(id) => {
                ioctl::limit_qgroup(directory, id, bytes)?;
                // Without company, for which others would have to wait: the pool is locked.
                ioctl::commit_transaction(directory)
            }
            // Made as a bare directory, when quota groups could not be had.
            None => Ok(()),
        }
    }

    fn usage(&self, directory: BorrowedFd<'_>, _: Option<u64>, bytes: u64) -> io::Result<Usage> {
        let all = plain::usage(directory)?;
        let Some(id) = subvolume(directory)? else { return Ok(all) };
        recount_if_wrong(directory);
        let item = |kind| match ioctl::search(directory, QUOTA_TREE, 0, kind, id..=id) {
            Err(Errno::NOENT) => Ok(None),
            items => Ok(items?.into_iter().next()),
        };
        // struct btrfs_qgroup_info_item: generation, referred to, …; struct btrfs_qgroup_limit_item: flags, most, …
        let Some(info) = item(QGROUP_INFO)? else {
            // Somebody turned quota groups off since.
            return Ok(all);
        };
        let used = info.number(8)?;
        let total = match item(QGROUP_LIMIT)? {
            Some(limit) if limit.number(0)? & LIMITS_REFERRED != 0 => limit.number(8)?,
            _ => bytes,
        };
        // btrfs makes inodes as it needs them and counts none.
        Ok(room_for(total, used, all.available))
    }

    fn remove(&self, parent: BorrowedFd<'_>, name: &str, _: Option<u64>) -> io::Result<()> {
        let is_subvolume = plain::open(parent, name).and_then(|found| subvolume(found.as_fd()));
        if matches!(is_subvolume, Ok(Some(_))) && destroy(parent, name).is_ok() {
            return Ok(());
        }
        // File by file: a bare directory, or subvolumes nested so oddly that they can't be reached from above (a path
        // beyond PATH_MAX). An emptied subvolume goes by rmdir(2) like any directory.
        remove::remove(parent, name, Mounts::Keep)
    }

    fn room(&self, root: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
        plain::room(root)
    }
}

/// The id of the subvolume of which `directory` is the root, if it is one's. A bare directory lies in the pool's own
/// subvolume, which must not be taken for it.
fn subvolume(directory: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    if fstat(directory)?.st_ino == SUBVOLUME_INODE {
        ioctl::subvolume_id(directory).map(Some)
    } else {
        Ok(None)
    }
}

/// Removes a subvolume and those in it, which a user may have made, and which would keep it from being removed.
///
/// It is gone at once; btrfs gives its space back in the background.
fn destroy(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut waiting = vec![(fcntl_dupfd_cloexec(parent, 0)?, name.as_bytes().to_vec())];
    while let Some((directory, name)) = waiting.last() {
        let subvolume = open_beneath(directory.as_fd(), name);
        let id = subvolume.as_ref().ok().and_then(|opened| ioctl::subvolume_id(opened.as_fd()).ok());
        match ioctl::destroy_subvolume(directory.as_fd(), name) {
            Ok(()) => {
                // Kernels since 6.10 do this by themselves and refuse it here; older ones would keep the group for ever.
                id.and_then(|id| ioctl::remove_qgroup(directory.as_fd(), id).ok());
                waiting.pop();
            }
            // Another remover took it.
            Err(Errno::NOENT) => drop(waiting.pop()),
            Err(Errno::NOTEMPTY) => {
                let subvolume = subvolume?;
                // What is in a read-only one can't be removed.
                ioctl::make_writable(subvolume.as_fd())?;
                waiting.push(nested(subvolume.as_fd(), id.ok_or(Errno::NOTEMPTY)?)?);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The first of the subvolumes that lie directly in one: the directory it is in, and its name there.
fn nested(subvolume: BorrowedFd<'_>, id: u64) -> io::Result<(OwnedFd, Vec<u8>)> {
    let found = ioctl::search(subvolume, ROOT_TREE, id, ROOT_REF, 0..=u64::MAX)?;
    let item = found.first().ok_or(Errno::NOTEMPTY)?;
    // struct btrfs_root_ref: the directory's inode, a sequence number, the name's length in two bytes, the name.
    let path = ioctl::path_in_subvolume(subvolume, id, item.number(0)?)?;
    let directory = open_beneath(subvolume, if path.is_empty() { b"." } else { &path })?;
    Ok((directory, item.data.get(18..).ok_or(Errno::ILSEQ)?.to_vec()))
}

fn open_beneath(directory: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(directory, path, flags, Mode::empty(), beneath | ResolveFlags::NO_XDEV)
}

/// The flags of the quota groups; 0 where there are none.
fn status(file_system: BorrowedFd<'_>) -> io::Result<u64> {
    match ioctl::search(file_system, QUOTA_TREE, 0, QGROUP_STATUS, 0..=0) {
        // struct btrfs_qgroup_status_item: version, generation, flags, …
        Ok(items) => items.first().map_or(Ok(0), |item| item.number(16)),
        Err(Errno::NOENT) => Ok(0),
        Err(errno) => Err(errno),
    }
}

/// Has everything counted anew where btrfs gave up counting, as it does when a large snapshot is deleted (since Linux 6.1).
/// It goes on in the background; until it is done, use is measured wrong, and a limit may be passed.
fn recount_if_wrong(file_system: BorrowedFd<'_>) {
    if status(file_system)
        .is_ok_and(|flags| flags & (STATUS_INCONSISTENT | STATUS_RESCAN) == STATUS_INCONSISTENT)
    {
        // Being done already, or not to be had: the next look tries again.
        ioctl::recount_qgroups(file_system).ok();
    }
}
