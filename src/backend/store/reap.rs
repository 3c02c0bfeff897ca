//! The reaper: what has lain in the trash for its lifetime is removed for good, and what a crash left half made is undone.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::trees::Trees;
use super::{Store, tree};
use crate::backend::{Reaped, Trouble};
use crate::volume::{Directory, Record};

/// A reservation this old, in seconds, belongs to no request that still runs; the longest deadline is far below.
const ABANDONED: u64 = 3600;

impl Store {
    /// One round. Several at once, even on several hosts, do no harm: each step is a removal that may find nothing left.
    pub(super) fn reap(&self, lifetime: u64, now: u64) -> Result<Reaped, Trouble> {
        let Some(trees) = self.trees()? else { return Ok(Reaped::default()) };
        let doing = self.trouble("emptying the trash");
        let mut done = Reaped::default();
        for (name, _) in tree::names(&trees.trash).map_err(&doing)? {
            let Some(directory) = name.strip_suffix(".json") else { continue };
            if self.age(&trees.trash, &name, now)? < lifetime {
                done.waiting += 1;
                continue;
            }
            let content = tree::read(trees.trash.as_fd(), &name).map_err(self.trouble_io("reading the trash"))?;
            let Some(content) = content else { continue };
            let record = self.parse(&name, &content)?;
            match self.file_system.remove(trees.trash.as_fd(), directory, record.quota_id) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(doing(errno)),
            }
            // The record last: without it nobody would know what the directory was.
            tree::remove_file(trees.trash.as_fd(), &name).map_err(&doing)?;
            done.removed += 1;
        }
        self.undo_abandoned(&trees, now)?;
        done.volumes = tree::names(&trees.volumes).map_err(&doing)?.len() as u64;
        Ok(done)
    }

    fn undo_abandoned(&self, trees: &Trees, now: u64) -> Result<(), Trouble> {
        let doing = self.trouble("undoing an interrupted creation");
        for (name, _) in tree::names(&trees.reserved).map_err(&doing)? {
            if self.age(&trees.reserved, &name, now)? < ABANDONED {
                continue;
            }
            let content = tree::read(trees.reserved.as_fd(), &name).map_err(self.trouble_io("reading a reservation"))?;
            let record = content.and_then(|content| serde_json::from_slice::<Record>(&content).ok());
            // Where there is another reservation, a creation may be under way with the same directory.
            if let Some(record) = record
                && self.record(trees, record.key)?.is_none()
                && self.reservations(trees, record.key)?.len() <= 1
            {
                self.remove_if_empty(&record.directory, record.owns_directory)?;
                self.forget_directory(trees, record.key, &record.directory);
            }
            tree::remove_file(trees.reserved.as_fd(), &name).map_err(&doing)?;
        }
        Ok(())
    }

    /// Only ever an empty one: what holds a file is somebody's.
    fn remove_if_empty(&self, directory: &Directory, owns: bool) -> Result<(), Trouble> {
        if !owns {
            return Ok(());
        }
        let (parent, leaf) = self.parent_of(directory)?;
        match tree::remove_empty(parent.as_fd(), leaf) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(self.trouble("undoing an interrupted creation")(errno)),
        }
    }

    /// Seconds since the file `name` came here: a rename sets its change time.
    fn age(&self, parent: &std::os::fd::OwnedFd, name: &str, now: u64) -> Result<u64, Trouble> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(now.saturating_sub(u64::try_from(stat.st_ctime).unwrap_or(0))),
            // Removed by another round: as young as can be, so this one leaves it.
            Err(Errno::NOENT) => Ok(0),
            Err(errno) => Err(self.trouble("reading the trash")(errno)),
        }
    }
}
