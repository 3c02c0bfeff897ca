//! The reaper: what has lain in the trash for its lifetime is removed for good, and what a crash left half made is undone.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, fstat, statat};
use rustix::io::Errno;

use super::create::is_beside;
use super::delete::is_scratch;
use super::trees::Trees;
use super::{Store, tree};
use crate::backend::{Reaped, Trouble};

/// A reservation this old, in seconds, belongs to no request that still runs; the longest deadline is far below.
const ABANDONED: u64 = 3600;

/// What is old enough to go.
#[derive(Clone, Copy)]
pub(super) struct Age {
    /// The server's clock, in seconds since 1970.
    now: u64,
    least: u64,
}

/// What of the trash is to go. A Pod's scratch always is.
#[derive(Clone, Copy)]
pub(super) enum Due {
    /// All of it.
    All,
    /// What is old enough.
    Old(Age),
    /// Nothing but scratch.
    Scratch,
}

impl Store {
    /// One round. Several at once, even on several hosts, do no harm: each step is a removal that may find nothing left.
    ///
    /// Before each removal `stop` is asked whether to leave the rest alone. Without a `lifetime` (in seconds) only Pods' scratch
    /// goes, which costs one look at the names in the trash and nothing for all else that lies there.
    pub fn reap(&self, lifetime: Option<u64>, stop: &dyn Fn() -> bool) -> Result<Reaped, Trouble> {
        let Some(trees) = self.trees()? else { return Ok(Reaped::default()) };
        let Some(least) = lifetime else { return Ok(self.empty_trash(&trees, Due::Scratch, stop)) };
        let now = self.now(&trees)?;
        let mut done = self.empty_trash(&trees, Due::Old(Age { now, least }), stop);
        let undone = self.undo_abandoned(&trees, Age { now, least: ABANDONED }, stop);
        done.volumes = trees.names("volumes").map_err(self.trouble("counting the volumes"))?.len() as u64;
        done.trouble = done.trouble.or(undone.err());
        Ok(done)
    }

    /// Removes what is due. What can't be removed keeps nothing else from it.
    pub(super) fn empty_trash(&self, trees: &Trees, due: Due, stop: &dyn Fn() -> bool) -> Reaped {
        let mut done = Reaped::default();
        let names = trees.names("trash").map_err(self.trouble("reading the trash"));
        let names = names.unwrap_or_else(|trouble| {
            done.trouble = Some(trouble);
            Vec::new()
        });
        for (name, _) in names {
            let Some(directory) = name.strip_suffix(".json") else { continue };
            if stop() {
                done.waiting += 1;
                continue;
            }
            match self.remove_trash(trees, &name, directory, due) {
                Ok(true) => done.removed += 1,
                Ok(false) => done.waiting += 1,
                Err(trouble) => {
                    done.waiting += 1;
                    done.trouble.get_or_insert(trouble);
                }
            }
        }
        done
    }

    /// Whether it was due.
    fn remove_trash(&self, trees: &Trees, name: &str, directory: &str, due: Due) -> Result<bool, Trouble> {
        let doing = self.trouble("emptying the trash");
        let is_due = match due {
            Due::All => true,
            _ if is_scratch(directory) => true,
            Due::Old(age) => self.is_old(&trees.trash, name, age)?,
            Due::Scratch => false,
        };
        if !is_due {
            return Ok(false);
        }
        let content = tree::read(trees.trash.as_fd(), name).map_err(self.trouble_io("reading the trash"))?;
        let Some(content) = content else { return Ok(false) };
        let record = self.parse(&self.installation, "trash", name, &content)?;
        match self.file_system.remove(trees.trash.as_fd(), directory, record.quota_id) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(doing(errno)),
        }
        // The record last: without it nobody would know what the directory was.
        tree::remove_file(trees.trash.as_fd(), name).map_err(doing)?;
        Ok(true)
    }

    fn undo_abandoned(&self, trees: &Trees, age: Age, stop: &dyn Fn() -> bool) -> Result<(), Trouble> {
        let doing = self.trouble("undoing an interrupted creation");
        let mut done = Ok(());
        for (name, _) in trees.names("reserved").map_err(&doing)? {
            let undone = || {
                if stop() || !self.is_old(&trees.reserved, &name, age)? {
                    return Ok(());
                }
                if !is_beside(&name)
                    && let Some(record) = self.reserved(trees, &name)?
                {
                    // Which removes it, after all that it speaks of.
                    return self.undo(trees, &record);
                }
                tree::remove_file(trees.reserved.as_fd(), &name).map_err(&doing)
            };
            done = done.and(undone());
        }
        done
    }

    /// The clock by which files get their times: that of the server, which may be far from ours.
    fn now(&self, trees: &Trees) -> Result<u64, Trouble> {
        let doing = self.trouble("asking for the time");
        // A directory, since of a file the times may be in the client's hands for a while (RFC 9754).
        let stat = tree::touch(trees.trash.as_fd(), ".").and_then(|()| fstat(&trees.trash)).map_err(doing)?;
        Ok(u64::try_from(stat.st_mtime).unwrap_or(0))
    }

    /// Whether the file `name` was written, or came into the trash, so long ago: a delete sets its time.
    fn is_old(&self, parent: &OwnedFd, name: &str, age: Age) -> Result<bool, Trouble> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let since = u64::try_from(stat.st_mtime).unwrap_or(0);
                Ok(age.now.saturating_sub(since) >= age.least)
            }
            // Removed by another round, so this one leaves it.
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.trouble("reading its age")(errno)),
        }
    }
}
