//! Locks that hold between processes and hosts: on one byte of a file, by fcntl(2), which NFS keeps for all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use parking_lot::MutexGuard;
use rustix::io::Errno;

use super::trees::{OWN, Trees};
use super::{Store, tree};
use crate::backend::Trouble;
use crate::volume::Key;

/// How long a volume's lock is waited for. Who holds one needs milliseconds; but a host that died with it holds it until
/// its server gives it up, after minutes or never, and nobody may wait for that without an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a pool's is. It is held by processes of this machine alone and ends with them, but while many volumes grow
/// at once, each syncing to a slow disk, the last has to wait for all.
const PATIENCE_OF_A_POOL: Duration = Duration::from_secs(30);

/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// A lock that is held until this is dropped: closing the open file it belongs to gives it back.
pub(super) struct Lock {
    file: OwnedFd,
}

/// The pool's lock, and this process' turn to have it.
pub(super) struct PromiseLock<'store> {
    // In this order: the next of this process finds the file's lock free.
    lock: Lock,
    _turn: MutexGuard<'store, ()>,
}

impl PromiseLock<'_> {
    /// The file on which it lies.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.lock.file.as_fd()
    }
}

impl Store {
    /// Waits until nobody else changes the record of `key`, on this host or another, and keeps it so.
    pub(super) fn lock(&self, trees: &Trees, key: Key) -> Result<Lock, Trouble> {
        // A place in the file for each volume, behind byte 0: 60 bits of the key.
        let digits = &key.to_string()[..15];
        let at = i64::from_str_radix(digits, 16).map_err(|error| Trouble::Own(error.to_string()))?;
        // An open file of its own: locks belong to it, and threads of one process must exclude each other too.
        let file =
            tree::open_file(trees.lock.as_fd()).map_err(self.trouble("locking the volume's record"))?;
        self.take(file, at.saturating_add(1), PATIENCE)
    }

    /// Waits until no other installation or controller promises space of this pool, and keeps it so.
    pub(super) fn lock_promises(&self) -> Result<PromiseLock<'_>, Trouble> {
        // Threads of this process wait in a line, for a lock of the kernel can only be tried again and again: a hundred that
        // do so need more of the processor than all they wait for.
        let turn = self.turn.try_lock_for(PATIENCE_OF_A_POOL);
        let turn = turn.ok_or_else(|| Trouble::Locked { place: self.place.clone() })?;
        let own = tree::open_directory(self.root.as_fd(), OWN);
        let file = own.and_then(|own| tree::open_lock(own.as_fd(), "lock"));
        let file = file.map_err(self.trouble("locking the pool"))?;
        Ok(PromiseLock { lock: self.take(file, 0, PATIENCE_OF_A_POOL)?, _turn: turn })
    }

    pub(super) fn take(&self, file: OwnedFd, at: i64, patience: Duration) -> Result<Lock, Trouble> {
        let range = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: at,
            l_len: 1,
            l_pid: 0,
        };
        let until = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        // In tries, since nothing ends a wait in the kernel but the process's end.
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&range)) {
                Ok(_) => return Ok(Lock { file }),
                Err(nix::errno::Errno::EAGAIN) if Instant::now() < until => {
                    std::thread::sleep(pause);
                    pause = PAUSE.min(pause * 2);
                }
                Err(nix::errno::Errno::EAGAIN) => return Err(Trouble::Locked { place: self.place.clone() }),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(self.trouble("locking")(Errno::from_raw_os_error(errno as i32))),
            }
        }
    }
}
