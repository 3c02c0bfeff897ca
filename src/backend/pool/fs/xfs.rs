//! Volumes as directories with a project id each, on xfs with project quota.
//!
//! What is made below such a directory inherits its project, and the project's limit holds for everybody, root included:
//! a write beyond it gets `ENOSPC`. statfs(2) of such a directory speaks of the project (measured on Linux 6.1), so `df` in
//! a pod shows the volume's size. A rename or a hard link into another project gets `EXDEV`, out into the trash works,
//! since the trash is in no project.
//!
//! Who reaches a volume over NFS can't change a project id, for NFS has no such call. On the pool's own machine the owner
//! of a file can (ioctl_xfs_fssetxattr(2)): there the limit guards against accidents, not against malice.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{self, Errno};

use super::projects::Projects;
use super::remove::{self, Mounts};
use super::{plain, room_for};
use crate::backend::pool::ioctl::project::{self, Quota};
use crate::backend::store::{FileSystem, Usage};
use crate::volume::{Key, Owner};

/// The unit of xfs quota: a basic block, in bytes (linux/dqblk_xfs.h).
const BLOCK: u64 = 512;

/// Directories with project quota.
pub struct Xfs {
    projects: Projects,
}

impl Xfs {
    /// On the file system of `root`, the pool's top directory.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { projects: Projects::new(root) }
    }

    /// Whether somebody without a note uses the project: what a volume of ours left is removed before its note.
    fn foreign(&self, id: u32) -> io::Result<bool> {
        match project::quota(self.projects.root(), id) {
            Ok(quota) => Ok(quota != Quota::default()),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The project of the volume in `directory`: the recorded one, since a directory's own may be changed by its owner.
    fn project(directory: BorrowedFd<'_>, quota_id: Option<u64>) -> io::Result<Option<u32>> {
        let recorded = quota_id.map(|id| u32::try_from(id).map_err(|_| Errno::INVAL)).transpose()?;
        let id = recorded.map_or_else(|| project::id(directory), Ok)?;
        Ok((id != 0).then_some(id))
    }

    fn assign(
        &self,
        directory: BorrowedFd<'_>,
        id: u32,
        owner: Owner,
        bytes: u64,
    ) -> io::Result<Option<u64>> {
        // The limit before the first byte can be written, and what lets others in at the end.
        self.limit_to(id, bytes)?;
        project::set_id(directory, id)?;
        plain::dress(directory, owner)?;
        Ok(Some(id.into()))
    }

    fn limit_to(&self, id: u32, bytes: u64) -> io::Result<()> {
        // 0 would mean "no limit".
        project::limit(self.projects.root(), id, bytes.div_ceil(BLOCK).max(1))
    }

    fn is_empty(&self, id: u32) -> io::Result<bool> {
        match project::quota(self.projects.root(), id) {
            Ok(quota) => Ok(quota.inodes == 0),
            Err(Errno::NOENT) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    fn forget(&self, id: u32) -> io::Result<()> {
        match project::limit(self.projects.root(), id, 0) {
            Ok(()) | Err(Errno::NOENT) => self.projects.release(id),
            Err(errno) => Err(errno),
        }
    }
}

impl FileSystem for Xfs {
    fn name(&self) -> &'static str {
        "xfs"
    }

    fn enforces(&self) -> bool {
        true
    }

    fn make(
        &self,
        parent: BorrowedFd<'_>,
        name: &str,
        key: &Key,
        owner: Owner,
        bytes: u64,
    ) -> io::Result<Option<u64>> {
        // The directory first: who made it is the only one to work for this key, so that taking back what a failed try
        // reserved can't take it from a try that succeeded.
        // And nobody else's until it has its owner and mode.
        plain::make_directory(parent, name, (Mode::RWXU, OFlags::RDONLY), |directory| {
            let id = self.projects.reserve(key, |id| self.foreign(id))?;
            self.assign(directory, id, owner, bytes).inspect_err(|_| {
                self.forget(id).ok();
            })
        })
    }

    /// The directory must hold nothing yet: what lies in it stays in no project, and is not counted.
    fn settle(
        &self,
        directory: BorrowedFd<'_>,
        key: &Key,
        owner: Owner,
        bytes: u64,
    ) -> io::Result<Option<u64>> {
        let id = match project::id(directory)? {
            own if own != 0 && self.projects.owner(own)? == Some(key.to_string()) => own,
            _ => self.projects.reserve(key, |id| self.foreign(id))?,
        };
        self.assign(directory, id, owner, bytes)
    }

    fn limit(&self, directory: BorrowedFd<'_>, quota_id: Option<u64>, bytes: u64) -> io::Result<()> {
        match Self::project(directory, quota_id)? {
            Some(id) => self.limit_to(id, bytes),
            // Made while the file system was mounted without quota.
            None => Ok(()),
        }
    }

    /// To the block, and at once: data that is still in memory is counted as reserved.
    fn usage(&self, directory: BorrowedFd<'_>, quota_id: Option<u64>, bytes: u64) -> io::Result<Usage> {
        let all = plain::usage(self.projects.root())?;
        let Some(id) = Self::project(directory, quota_id)? else { return Ok(all) };
        let quota = match project::quota(self.projects.root(), id) {
            Err(Errno::NOENT) => Quota::default(),
            other => other?,
        };
        let total = if quota.limit == 0 { bytes } else { quota.limit.saturating_mul(BLOCK) };
        Ok(Usage {
            inodes: quota.inodes.saturating_add(all.inodes_free),
            inodes_used: quota.inodes,
            inodes_free: all.inodes_free,
            ..room_for(total, quota.blocks.saturating_mul(BLOCK), all.available)
        })
    }

    fn remove(&self, parent: BorrowedFd<'_>, name: &str, quota_id: Option<u64>) -> io::Result<()> {
        let recorded = quota_id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != 0);
        // A record that says another id than the directory itself was not written about this directory (a pool restored
        // from a copy). Then neither id is freed: one that leaks costs nothing, one that two volumes have costs both
        // their limits.
        let found = plain::open(parent, name).and_then(|directory| project::id(directory.as_fd()));
        let id = match (recorded, found) {
            (Some(recorded), Ok(found)) if found != recorded && found != 0 => None,
            (recorded, Ok(found)) => recorded.or((found != 0).then_some(found)),
            (recorded, Err(_)) => recorded,
        };
        let note = id.map(|id| self.projects.note(id)).transpose()?.flatten();
        let removed = remove::remove(parent, name, Mounts::Keep);
        if !matches!(removed, Ok(()) | Err(Errno::NOENT)) {
            return removed;
        }
        // Another remover may have been faster, and a new volume of the same name may have got the id since: then the note
        // is a new one; or the directory was gone before we looked, and the project holds the new one's.
        if let Some(id) = id
            && self.projects.note(id)? == note
            && (found.is_ok() || self.is_empty(id)?)
        {
            self.forget(id)?;
        }
        removed
    }

    fn room(&self, root: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
        plain::room(root)
    }
}
