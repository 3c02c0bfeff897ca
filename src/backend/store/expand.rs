//! Growing a volume, and what may be promised in all.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::PoisonError;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::renameat;
use rustix::io::Errno;

use super::trees::{Trees, random};
use super::{Store, tree};
use crate::backend::{CapacityFault, ExpandError, Room, Trouble};
use crate::fault_point;
use crate::plan;
use crate::volume::{Capacity, Key, Record};

impl Store {
    /// The volume's size afterwards, in bytes.
    pub(super) fn expand(&self, key: Key, required: i64, limit: i64) -> Result<u64, ExpandError> {
        let trees = self.trees()?.ok_or(ExpandError::NotFound)?;
        let _promise = self.overcommit.map(|_| self.lock_all(&trees)).transpose()?;
        let _lock = self.lock(&trees, key)?;
        let mut record = self.record(&trees, key)?.ok_or(ExpandError::NotFound)?;
        let range = Capacity::parse(required, limit).unwrap_or_default();
        let bytes = match plan::expand(record.capacity, range) {
            plan::Expand::Keep => return Ok(record.capacity),
            plan::Expand::Shrink { limit } => {
                return Err(ExpandError::Shrink { current: record.capacity, limit });
            }
            plan::Expand::Grow(bytes) => bytes,
        };
        if self.overcommit.is_some() {
            let available = self.promisable(&trees)?.saturating_add(record.capacity);
            if bytes > available {
                return Err(ExpandError::TooLarge { bytes, available });
            }
        }
        // The limit first: a crash in between leaves a record that says less than there is, and the retry goes on.
        let directory = self.open(&record.directory)?;
        self.file_system
            .limit(directory.as_fd(), record.quota_id, bytes)
            .map_err(self.trouble("moving the volume's limit"))?;
        fault_point!("expand.limited");
        record.capacity = bytes;
        self.replace(&trees, &record)?;
        Ok(bytes)
    }

    /// Writes a record over the one that is there, in one step.
    fn replace(&self, trees: &Trees, record: &Record) -> Result<(), Trouble> {
        let doing = self.trouble("writing the volume's record");
        let content = serde_json::to_vec(record).map_err(|error| Trouble::Own(error.to_string()))?;
        let draw: String = random::<4>().map_err(&doing)?.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}.{draw}", record.key);
        tree::write_new(trees.reserved.as_fd(), &name, &content)
            .map_err(self.trouble_io("writing the volume's record"))?;
        fault_point!("expand.written");
        renameat(&trees.reserved, name, &trees.volumes, record.key.to_string()).map_err(&doing)?;
        self.names_settled(trees.volumes.as_fd())
    }

    pub(super) fn capacity(&self) -> Result<Room, CapacityFault> {
        let (total, free) = self.room()?;
        if self.overcommit.is_none() {
            return Ok(Room { available: free, largest: total });
        }
        let available = match self.trees()? {
            Some(trees) => self.promisable(&trees)?,
            None => self.promisable_of(total, free, 0),
        };
        Ok(Room { available, largest: available })
    }

    fn room(&self) -> Result<(u64, u64), Trouble> {
        self.file_system.room(self.root.as_fd()).map_err(self.trouble("asking for free space"))
    }

    /// Bytes that may still be promised to volumes.
    pub(super) fn promisable(&self, trees: &Trees) -> Result<u64, Trouble> {
        let (total, free) = self.room()?;
        Ok(self.promisable_of(total, free, self.promised(trees)?))
    }

    fn promisable_of(&self, total: u64, free: u64, promised: u64) -> u64 {
        let ratio = self.overcommit.unwrap_or(1.0);
        plan::promisable(total, free, promised, ratio, self.file_system.enforces())
    }

    /// The sum of all volumes' sizes.
    fn promised(&self, trees: &Trees) -> Result<u64, Trouble> {
        let names = tree::names(&trees.volumes).map_err(self.trouble("reading the volumes"))?;
        let known = std::mem::take(&mut *self.sizes.lock().unwrap_or_else(PoisonError::into_inner));
        let mut sizes = HashMap::with_capacity(names.len());
        for (name, inode) in names {
            let entry = (name, inode);
            let bytes = match known.get(&entry) {
                Some(bytes) => *bytes,
                None => match tree::read(trees.volumes.as_fd(), &entry.0) {
                    Ok(Some(content)) => self.parse(&entry.0, &content)?.capacity,
                    // Deleted meanwhile.
                    Ok(None) => continue,
                    Err(error) => return Err(self.trouble_io("reading a record")(error)),
                },
            };
            sizes.insert(entry, bytes);
        }
        let promised = sizes.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = sizes;
        Ok(promised)
    }

    /// Waits until nobody else changes the record of `key`, on this host or another, and keeps it so.
    fn lock(&self, trees: &Trees, key: Key) -> Result<Lock, Trouble> {
        // A place in the file for each volume, far behind byte 0: 60 bits of the key.
        let digits = &key.to_string()[..15];
        let at = i64::from_str_radix(digits, 16).map_err(|error| Trouble::Own(error.to_string()))?;
        self.lock_at(trees, at.saturating_add(1))
    }

    /// Waits until nobody else promises space.
    pub(super) fn lock_all(&self, trees: &Trees) -> Result<Lock, Trouble> {
        self.lock_at(trees, 0)
    }

    fn lock_at(&self, trees: &Trees, at: i64) -> Result<Lock, Trouble> {
        let doing = self.trouble("locking the volume's record");
        // An open file of its own: locks belong to it, and threads of one process must exclude each other too.
        let file = tree::open_file(trees.lock.as_fd()).map_err(&doing)?;
        let mut range = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: at,
            l_len: 1,
            l_pid: 0,
        };
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&range)) {
                Ok(_) => return Ok(Lock { _file: file }),
                Err(nix::errno::Errno::EINTR) => range.l_pid = 0,
                Err(errno) => return Err(doing(Errno::from_raw_os_error(errno as i32))),
            }
        }
    }
}

/// A lock that is held until this is dropped: closing the open file it belongs to gives it back.
pub(super) struct Lock {
    _file: std::os::fd::OwnedFd,
}
