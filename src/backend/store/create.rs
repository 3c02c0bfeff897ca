//! Making a volume.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, linkat, statat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::trees::{INSTALLATIONS, Trees, random};
use super::{Store, tree};
use crate::backend::{CreateError, Trouble};
use crate::fault_point;
use crate::plan;
use crate::volume::{Directory, Identity, Key, OnDelete, RECORD_VERSION, Record, Volume, Wanted};

impl Store {
    pub(super) fn create(&self, wanted: Wanted) -> Result<(Identity, Volume), CreateError> {
        let trees = self.trees_made()?;
        if let Some(record) = self.record(&trees, wanted.key)? {
            return self.keep(&trees, &wanted, record);
        }
        let bytes = wanted.capacity().bytes();
        // Promising is a look at all sizes and then one more; nobody may promise in between. A share promises nothing.
        let _promise = self.overcommit.map(|_| self.lock_all(&trees)).transpose()?;
        if self.overcommit.is_some() {
            // Another controller may have made it while this one waited.
            if let Some(record) = self.record(&trees, wanted.key)? {
                return self.keep(&trees, &wanted, record);
            }
            let available = self.promisable(&trees)?;
            if bytes > available {
                return Err(CreateError::TooLarge { bytes, available });
            }
        }
        if wanted.chosen {
            self.refuse_nesting(&trees, &wanted.directory)?;
        }
        let record = self.reserve(&trees, &wanted, bytes)?;
        fault_point!("create.reserved");
        let name = reservation(&record);
        let record = match self.make_directory(&trees, record) {
            Ok(record) => record,
            Err(error) => {
                self.withdraw(&trees, &wanted, &name);
                // What is in the way may be this very volume, made by another controller a moment ago.
                return match (error, self.record(&trees, wanted.key)?) {
                    (CreateError::Occupied { .. }, Some(record)) => self.keep(&trees, &wanted, record),
                    (error, _) => Err(error),
                };
            }
        };
        fault_point!("create.made");
        // A commit that fails leaves the reservation: by it the next try knows the directory as ours.
        self.commit(&trees, &wanted, record)
    }

    /// What stands is what was asked for, or it isn't.
    fn keep(&self, trees: &Trees, wanted: &Wanted, record: Record) -> Result<(Identity, Volume), CreateError> {
        match plan::create(wanted, &record) {
            plan::Create::Keep => {
                let published = self.published(trees, wanted.key)?;
                Ok((trees.identity, Volume { record, published }))
            }
            plan::Create::Differs(difference) => Err(CreateError::Differs(difference)),
        }
    }

    fn reserve(&self, trees: &Trees, wanted: &Wanted, capacity: u64) -> Result<Record, CreateError> {
        let doing = self.trouble("reserving the volume");
        let generation: String =
            random::<4>().map_err(&doing)?.iter().map(|byte| format!("{byte:02x}")).collect();
        let record = Record {
            version: RECORD_VERSION,
            name: wanted.name.clone(),
            key: wanted.key,
            installation: self.installation.clone(),
            generation,
            directory: wanted.directory.clone(),
            owns_directory: true,
            capacity,
            on_delete: wanted.on_delete,
            owner: wanted.owner,
            mount_options: wanted.mount_options.clone(),
            fingerprint: wanted.fingerprint.clone(),
            created: wanted.now,
            quota_id: None,
        };
        self.write_reservation(trees, &record)?;
        if wanted.chosen {
            let users = tree::make_directory(trees.directories.as_fd(), &place_of(&wanted.directory), 0o700);
            let noted = users.and_then(|users| {
                tree::put_note(users.as_fd(), &self.user(wanted.key), wanted.directory.as_str())
            });
            match noted {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => {
                    self.withdraw(trees, wanted, &reservation(&record));
                    return Err(doing(errno).into());
                }
            }
        }
        Ok(record)
    }

    fn write_reservation(&self, trees: &Trees, record: &Record) -> Result<(), Trouble> {
        let content = serde_json::to_vec(record).map_err(|error| Trouble::Own(error.to_string()))?;
        tree::write_new(trees.reserved.as_fd(), &reservation(record), &content)
            .map_err(self.trouble_io("writing the volume's record"))
    }

    /// Makes the directory, or takes over the one that an interrupted try of ours left.
    fn make_directory(&self, trees: &Trees, mut record: Record) -> Result<Record, CreateError> {
        let (parent, leaf) = self.parent_of(&record.directory)?;
        let doing = self.trouble("making the volume's directory");
        let made = self.file_system.make(parent.as_fd(), leaf, &record.key, record.owner, record.capacity);
        let (owns, quota_id) = match made {
            Ok(quota_id) => (true, quota_id),
            Err(Errno::EXIST) => {
                let directory = self.open(&record.directory)?;
                if self.left_by_us(trees, &record, &directory)? {
                    let settled =
                        self.file_system.settle(directory.as_fd(), &record.key, record.owner, record.capacity);
                    (true, settled.map_err(doing)?)
                } else if record.on_delete == OnDelete::Retain {
                    (false, None)
                } else {
                    return Err(CreateError::Occupied { directory: record.directory.to_string() });
                }
            }
            Err(errno) => return Err(doing(errno).into()),
        };
        self.names_settled(parent.as_fd())?;
        if (owns, quota_id) != (record.owns_directory, record.quota_id) {
            tree::remove_file(trees.reserved.as_fd(), &reservation(&record))
                .map_err(self.trouble("writing the volume's record"))?;
            (record.owns_directory, record.quota_id) = (owns, quota_id);
            self.write_reservation(trees, &record).inspect_err(|_| {
                if owns {
                    tree::remove_empty(parent.as_fd(), leaf).ok();
                }
            })?;
        }
        Ok(record)
    }

    /// Whether an earlier try for this volume made that directory: it noted that it would, and nothing lies in it. An empty
    /// directory of somebody else's that was taken for ours by a crash at the wrong moment loses nothing.
    fn left_by_us(&self, trees: &Trees, record: &Record, directory: &OwnedFd) -> Result<bool, Trouble> {
        let doing = self.trouble("looking for an interrupted try");
        for name in self.reservations(trees, record.key)? {
            if name == reservation(record) {
                continue;
            }
            let content = tree::read(trees.reserved.as_fd(), &name).map_err(self.trouble_io("reading a reservation"))?;
            let earlier = content.and_then(|content| serde_json::from_slice::<Record>(&content).ok());
            if earlier.is_some_and(|earlier| earlier.directory == record.directory && earlier.owns_directory) {
                return tree::is_empty(directory).map_err(doing);
            }
        }
        Ok(false)
    }

    pub(super) fn reservations(&self, trees: &Trees, key: Key) -> Result<Vec<String>, Trouble> {
        let names = tree::names(&trees.reserved).map_err(self.trouble("reading the reservations"))?;
        let prefix = format!("{key}.");
        Ok(names.into_iter().map(|(name, _)| name).filter(|name| name.starts_with(&prefix)).collect())
    }

    /// Gives the record its place among the volumes, unless another controller was faster; then its word counts.
    fn commit(&self, trees: &Trees, wanted: &Wanted, record: Record) -> Result<(Identity, Volume), CreateError> {
        let doing = self.trouble("committing the volume");
        let name = reservation(&record);
        let linked = linkat(&trees.reserved, &name, &trees.volumes, record.key.to_string(), AtFlags::empty());
        match linked {
            Ok(()) => {
                fault_point!("create.committed");
                self.names_settled(trees.volumes.as_fd())?;
                tree::remove_file(trees.reserved.as_fd(), &name).map_err(doing)?;
                Ok((trees.identity, Volume { record, published: Vec::new() }))
            }
            Err(Errno::EXIST) => {
                let Some(first) = self.record(trees, wanted.key)? else {
                    return Err(Trouble::Stale { place: self.place.clone() }.into());
                };
                if first.directory != record.directory {
                    if record.owns_directory && !self.others_use(trees, &record)? {
                        let (parent, leaf) = self.parent_of(&record.directory)?;
                        self.file_system.remove(parent.as_fd(), leaf, record.quota_id).map_err(&doing)?;
                    }
                    self.forget_directory(trees, wanted.key, &record.directory);
                }
                tree::remove_file(trees.reserved.as_fd(), &name).map_err(doing)?;
                self.keep(trees, wanted, first)
            }
            Err(errno) => Err(doing(errno).into()),
        }
    }

    /// Takes back what a failed try noted. What it could not take back, the reaper finds.
    fn withdraw(&self, trees: &Trees, wanted: &Wanted, reservation: &str) {
        tree::remove_file(trees.reserved.as_fd(), reservation).ok();
        // Another controller may be at the same volume, or done with it; then the note is its own as well.
        let others = || -> Result<bool, Trouble> {
            let made = self.record(trees, wanted.key)?.is_some();
            Ok(made || !self.reservations(trees, wanted.key)?.is_empty())
        };
        if wanted.chosen && others().is_ok_and(|others| !others) {
            self.forget_directory(trees, wanted.key, &wanted.directory);
        }
    }

    /// Removes the note that a volume uses `directory`, and its place in the index when that was the last.
    pub(super) fn forget_directory(&self, trees: &Trees, key: Key, directory: &Directory) {
        let place = place_of(directory);
        if let Ok(users) = tree::open_directory(trees.directories.as_fd(), &place) {
            tree::remove_file(users.as_fd(), &self.user(key)).ok();
            tree::remove_empty(trees.directories.as_fd(), &place).ok();
        }
    }

    /// How this installation's volume is named among the users of a directory.
    pub(super) fn user(&self, key: Key) -> String {
        format!("{}.{key}", self.installation)
    }

    /// Refuses a directory within another volume's: a delete of the outer one would eat the inner.
    fn refuse_nesting(&self, trees: &Trees, directory: &Directory) -> Result<(), CreateError> {
        for ancestor in directory.ancestors() {
            let chosen = tree::open_directory(trees.directories.as_fd(), &place_of(&ancestor));
            let by_name = || self.is_directory_of_a_name(&ancestor);
            if chosen.is_ok() || by_name()? {
                let (directory, other) = (directory.to_string(), ancestor.to_string());
                return Err(CreateError::Nested { directory, other });
            }
        }
        Ok(())
    }

    /// Whether some installation's volume lies there because that is its name.
    fn is_directory_of_a_name(&self, directory: &Directory) -> Result<bool, Trouble> {
        if directory.names().count() > 1 {
            return Ok(false);
        }
        let doing = self.trouble("looking for other installations");
        let all = tree::open_directory(self.root.as_fd(), INSTALLATIONS).map_err(&doing)?;
        for (installation, _) in tree::names(&all).map_err(&doing)? {
            let path = format!("{INSTALLATIONS}/{installation}/volumes");
            let Ok(volumes) = tree::open_directory(self.root.as_fd(), &path) else { continue };
            let key = Key::of(&installation, directory.as_str()).to_string();
            if statat(&volumes, key, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The directory that holds `directory`, made if need be, and the last name.
    pub(super) fn parent_of<'a>(&self, directory: &'a Directory) -> Result<(OwnedFd, &'a str), Trouble> {
        let doing = self.trouble("opening the volume's parent directory");
        let mut names: Vec<&str> = directory.names().collect();
        let leaf = names.pop().unwrap_or_default();
        let mut parent = rustix::io::dup(&self.root).map_err(&doing)?;
        for name in names {
            parent = tree::make_directory(parent.as_fd(), name, 0o755).map_err(&doing)?;
        }
        Ok((parent, leaf))
    }

    /// Makes names last on a local file system; a server does so by itself.
    pub(super) fn names_settled(&self, directory: BorrowedFd<'_>) -> Result<(), Trouble> {
        if self.overcommit.is_none() {
            return Ok(());
        }
        tree::settle_names(directory).map_err(self.trouble("syncing a directory"))
    }
}

/// A reservation's file name.
fn reservation(record: &Record) -> String {
    format!("{}.{}", record.key, record.generation)
}

/// A directory's place in the index of directories that classes chose.
pub(super) fn place_of(directory: &Directory) -> String {
    Sha256::digest(directory.as_str())[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
