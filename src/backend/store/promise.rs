//! What may be promised to volumes in all.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::PoisonError;

use rustix::io::Errno;

use super::lock::Lock;
use super::trees::{INSTALLATIONS, Trees};
use super::{Store, tree};
use crate::backend::{CapacityFault, Room, Trouble};
use crate::plan;

/// The sizes of the records in one directory, by file name and inode.
pub(super) type Sizes = HashMap<(String, u64), u64>;

/// What came of asking for space.
pub(super) enum Promise {
    /// It can be had, and nobody else promises any until the lock is dropped; a share promises nothing, and locks nothing.
    Kept(Option<Lock>),
    /// There is not so much.
    TooLarge { available: u64 },
}

impl Store {
    /// Sees to it that `more` bytes can be promised. That is a look at all sizes and then one more, so the lock is to be
    /// held until that one is on record.
    pub(super) fn promise(&self, trees: &Trees, more: u64) -> Result<Promise, Trouble> {
        if self.overcommit.is_none() {
            return Ok(Promise::Kept(None));
        }
        loop {
            let lock = self.lock_promises()?;
            let available = self.promisable()?;
            if more > available {
                return Ok(Promise::TooLarge { available });
            }
            // Trash is promised to nobody, and takes space all the same. Where sizes are enforced, each volume must find
            // what it was promised, so trash that stands in the way goes before its lifetime is over. Where they are not,
            // only what is free was promised, and trash is not.
            let trash =
                if self.file_system.enforces() { self.size_of(&self.installation, "trash")? } else { 0 };
            if trash == 0 || more.saturating_add(trash) <= available {
                return Ok(Promise::Kept(Some(lock)));
            }
            // That may take minutes, for which nobody else must wait; what happened meanwhile, the next look tells.
            drop(lock);
            let emptied = self.empty_trash(trees, None, &|| false);
            if let Some(trouble) = emptied.trouble {
                return Err(trouble);
            }
            tracing::info!(volumes = emptied.removed, "trash removed early: a new volume needs its space");
        }
    }

    pub(super) fn capacity(&self) -> Result<Room, CapacityFault> {
        if self.overcommit.is_none() {
            let (total, free) = self.room()?;
            return Ok(Room { available: free, largest: total });
        }
        let available = self.promisable()?;
        Ok(Room { available, largest: available })
    }

    fn room(&self) -> Result<(u64, u64), Trouble> {
        self.file_system.room(self.root.as_fd()).map_err(self.trouble("asking for free space"))
    }

    /// Bytes that may still be promised to volumes.
    fn promisable(&self) -> Result<u64, Trouble> {
        let (total, free) = self.room()?;
        let ratio = self.overcommit.unwrap_or(1.0);
        Ok(plan::promisable(total, free, self.promised()?, ratio, self.file_system.enforces()))
    }

    /// The sum of the sizes of all volumes, of every installation: the pool is one.
    fn promised(&self) -> Result<u64, Trouble> {
        let doing = self.trouble("reading the installations");
        let all = match tree::open_directory(self.root.as_fd(), INSTALLATIONS) {
            Ok(all) => all,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(doing(errno)),
        };
        let mut sum: u64 = 0;
        for (installation, _) in tree::names(&all).map_err(&doing)? {
            sum = sum.saturating_add(self.size_of(&installation, "volumes")?);
        }
        Ok(sum)
    }

    /// The sum of the sizes that the records on a shelf of an installation say. One that can't be read makes all of it an
    /// error, which names it: left out, its space would be promised a second time.
    fn size_of(&self, installation: &str, shelf: &str) -> Result<u64, Trouble> {
        let doing = self.trouble("reading the volumes' sizes");
        let path = format!("{INSTALLATIONS}/{installation}/{shelf}");
        let directory = match tree::open_directory(self.root.as_fd(), &path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(doing(errno)),
        };
        let mut names = tree::names(&directory).map_err(&doing)?;
        // In the trash, directories lie beside their records.
        names.retain(|(name, _)| shelf != "trash" || name.ends_with(".json"));
        let known =
            self.sizes.lock().unwrap_or_else(PoisonError::into_inner).remove(&path).unwrap_or_default();
        let mut sizes = Sizes::with_capacity(names.len());
        for entry in names {
            let bytes = match known.get(&entry) {
                Some(bytes) => *bytes,
                None => match tree::read(directory.as_fd(), &entry.0) {
                    Ok(Some(content)) => self.parse(installation, shelf, &entry.0, &content)?.capacity,
                    // Deleted meanwhile.
                    Ok(None) => continue,
                    Err(error) => return Err(self.trouble_io("reading a record")(error)),
                },
            };
            sizes.insert(entry, bytes);
        }
        let sum = sizes.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(path, sizes);
        Ok(sum)
    }
}
