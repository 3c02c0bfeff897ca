//! What a store needs of the file system beneath it: to make a directory that can be limited, to measure and to remove it.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io;

use crate::volume::{Directory, Key, Owner};

pub use crate::volume::Usage;

/// How volumes are made on one kind of file system. All calls block, and take directories by descriptor: no path of a
/// request is ever joined to another.
pub trait FileSystem: Send + Sync {
    /// Its name, as a user knows it: `xfs`, `btrfs`, `plain`, `nfs`.
    fn name(&self) -> &'static str;

    /// Whether a limit set here is enforced by the kernel.
    fn enforces(&self) -> bool;

    /// Whether a [`commit`](FileSystem::commit) can be had; else directories are synced one by one.
    fn commits_all(&self) -> bool {
        false
    }

    /// Makes all that was done until now outlast a power cut, in one step. What is synced by itself before may last without what was
    /// done earlier.
    fn commit(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Whether a power cut that takes the rename by which the directory `name` came into `parent` takes all that was done later,
    /// too, so that one [`commit`](FileSystem::commit) after both is enough.
    fn renames_in_order(&self, _: BorrowedFd<'_>, _: &str) -> bool {
        false
    }

    /// Makes the directory `name` in `parent` with this owner and mode, and limits it to `bytes` where that can be.
    /// Gives back the quota's number, if there is one. `EEXIST` where something of that name is there; in any other
    /// failure nothing is left behind.
    fn make(
        &self,
        parent: BorrowedFd<'_>,
        name: &str,
        key: &Key,
        owner: Owner,
        bytes: u64,
    ) -> io::Result<Option<u64>>;

    /// Brings a directory that an earlier, interrupted try made to what [`FileSystem::make`] would have left.
    fn settle(
        &self,
        directory: BorrowedFd<'_>,
        key: &Key,
        owner: Owner,
        bytes: u64,
    ) -> io::Result<Option<u64>>;

    /// Moves the limit of a volume to `bytes`, at once, also under a running writer.
    fn limit(&self, directory: BorrowedFd<'_>, quota_id: Option<u64>, bytes: u64) -> io::Result<()>;

    /// What the volume in `directory` uses, whose size is `bytes`.
    fn usage(&self, directory: BorrowedFd<'_>, quota_id: Option<u64>, bytes: u64) -> io::Result<Usage>;

    /// Removes `name` in `parent` with everything below it, and its quota. Called by the reaper, on trash.
    fn remove(&self, parent: BorrowedFd<'_>, name: &str, quota_id: Option<u64>) -> io::Result<()>;

    /// Bytes of the whole file system: (in all, free to us).
    fn room(&self, root: BorrowedFd<'_>) -> io::Result<(u64, u64)>;
}

/// Opens `directory` beneath `root`, without following a link anywhere on the way.
pub fn open_beneath(root: BorrowedFd<'_>, directory: &Directory) -> io::Result<OwnedFd> {
    super::tree::open_directory(root, directory.as_str())
}
