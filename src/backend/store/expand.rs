//! Growing a volume.

use std::os::fd::AsFd;

use rustix::fs::renameat;

use super::delete::shelf;
use super::promise::Promise;
use super::trees::Trees;
use super::{Store, tree};
use crate::backend::{ExpandError, Trouble};
use crate::fault_point;
use crate::plan;
use crate::volume::{Capacity, Key, Record};

impl Store {
    /// The volume's size afterwards, in bytes.
    pub(super) fn expand(&self, key: Key, required: i64, limit: i64) -> Result<u64, ExpandError> {
        let trees = self.trees()?.ok_or(ExpandError::NotFound)?;
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
        let _promise = match self.promise(&trees, key, bytes.saturating_sub(record.capacity))? {
            Promise::Kept(lock) => lock,
            Promise::TooLarge { available } => {
                let available = available.saturating_add(record.capacity);
                return Err(ExpandError::TooLarge { bytes, available });
            }
        };
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
    pub(super) fn replace(&self, trees: &Trees, record: &Record) -> Result<(), ExpandError> {
        let doing = self.trouble("writing the volume's record");
        let new = self.write_beside(trees, record)?;
        fault_point!("expand.written");
        renameat(&trees.reserved, new, &trees.volumes, record.key.to_string()).map_err(&doing)?;
        // A delete takes no lock. Where it was faster, there was no record to replace, and now there is one again.
        let (shelf, name) = shelf(trees, record);
        if tree::is_there(shelf.as_fd(), &name).map_err(&doing)? {
            // Unless a volume of that name was made since.
            let there = self.record(trees, record.key)?;
            if there.is_some_and(|there| there.generation == record.generation) {
                tree::remove_file(trees.volumes.as_fd(), &record.key.to_string()).map_err(&doing)?;
            }
            return Err(ExpandError::NotFound);
        }
        self.names_settled(trees.volumes.as_fd()).map_err(Trouble::into)
    }
}
