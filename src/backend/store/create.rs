//! Making a volume.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, fstat, linkat, renameat};
use rustix::io::Errno;

use super::lock::PromiseLock;
use super::promise::Promise;
use super::trees::{Trees, random};
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
        match self.make(&trees, &wanted) {
            // What is in the way may be this very volume, made by another controller a moment ago.
            Err(error @ (CreateError::Occupied { .. } | CreateError::TooLarge { .. })) => {
                let record = self.record(&trees, wanted.key)?.ok_or(error)?;
                self.keep(&trees, &wanted, record)
            }
            other => other,
        }
    }

    /// What stands is what was asked for, or it isn't.
    fn keep(
        &self,
        trees: &Trees,
        wanted: &Wanted,
        record: Record,
    ) -> Result<(Identity, Volume), CreateError> {
        match plan::create(wanted, &record) {
            plan::Create::Keep => {
                let published = self.published(trees, wanted.key)?;
                if published.is_empty() {
                    self.make_whole(trees, &record)?;
                }
                Ok((trees.identity, Volume { record, published }))
            }
            plan::Create::Differs(difference) => Err(CreateError::Differs(difference)),
        }
    }

    /// Finishes what an earlier try may have left, of which nobody was told that the volume is there: a commit that never came; and
    /// where the commit is of everything, a power cut before it, which can take the directory and leave the record.
    fn make_whole(&self, trees: &Trees, record: &Record) -> Result<(), CreateError> {
        if record.owns_directory && self.file_system.commits_all() {
            let is_there = match self.existing_parent(&record.directory)? {
                Some((parent, leaf)) => tree::is_there(parent.as_fd(), leaf)
                    .map_err(self.trouble("looking for the volume's directory"))?,
                None => false,
            };
            if !is_there {
                tracing::warn!(directory = %record.directory, "the directory of a volume that nobody has is missing, and made anew");
                self.make_directory(trees, &mut record.clone())?;
            }
        }
        Ok(self.settled(trees.volumes.as_fd())?)
    }

    fn make(&self, trees: &Trees, wanted: &Wanted) -> Result<(Identity, Volume), CreateError> {
        let bytes = wanted.capacity().bytes();
        let lock = match self.promise(trees, wanted.key, bytes)? {
            Promise::Kept(lock) => lock,
            Promise::TooLarge { available } => return Err(CreateError::TooLarge { bytes, available }),
        };
        self.refuse_nesting(trees, wanted.key, &wanted.directory)?;
        // Before the reservation, so that one which calls the directory ours says: it was not there when we began.
        let ours = self.is_free(trees, wanted)?;
        if !ours {
            if let Some(record) = self.record(trees, wanted.key)? {
                return self.keep(trees, wanted, record);
            }
            if wanted.on_delete == OnDelete::Delete {
                return Err(CreateError::Occupied { directory: wanted.directory.to_string() });
            }
        }
        let mut record = self.reserve(trees, wanted, bytes, ours, lock)?;
        fault_point!("create.reserved");
        if let Err(error) = self.place(trees, &mut record) {
            // What can't be taken back now, the reaper finds.
            self.undo(trees, &record).ok();
            return Err(error);
        }
        fault_point!("create.made");
        // A commit that fails leaves the reservation: by it the next try knows the directory as ours.
        self.commit(trees, wanted, record)
    }

    /// Whether the volume's directory is still to be made, or was made by an earlier try of ours that never ended.
    fn is_free(&self, trees: &Trees, wanted: &Wanted) -> Result<bool, CreateError> {
        let doing = self.trouble("looking for the volume's directory");
        let (parent, rest) = self.reach(&wanted.directory)?;
        if wanted.chosen && wanted.on_delete == OnDelete::Delete {
            // A rename, which a delete is, leads to no other file system. A directory that is made is on its parent's.
            let device = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| stat.st_dev).map_err(&doing);
            if device(parent.as_fd())? != device(trees.trash.as_fd())? {
                return Err(CreateError::OtherFileSystem { directory: wanted.directory.to_string() });
            }
        }
        let [leaf] = rest[..] else { return Ok(true) };
        if !tree::is_there(parent.as_fd(), leaf).map_err(&doing)? {
            return Ok(true);
        }
        for name in self.reservations(trees, wanted.key)? {
            let earlier = self.reserved(trees, &name)?;
            if earlier.is_some_and(|earlier| earlier.owns_directory && earlier.directory == wanted.directory)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the record of a volume that is to be made. The `lock` is held until the next who promises sees it: its sync, which
    /// many can wait for at once, comes after. What a power cut takes before that, nothing was made for.
    pub(super) fn reserve(
        &self,
        trees: &Trees,
        wanted: &Wanted,
        capacity: u64,
        owns_directory: bool,
        lock: Option<PromiseLock<'_>>,
    ) -> Result<Record, CreateError> {
        let record = Record {
            version: RECORD_VERSION,
            name: wanted.name.clone(),
            key: wanted.key,
            installation: self.installation.clone(),
            generation: self.draw()?,
            directory: wanted.directory.clone(),
            owns_directory,
            capacity,
            on_delete: wanted.on_delete,
            owner: wanted.owner,
            mount_options: wanted.mount_options.clone(),
            fingerprint: wanted.fingerprint.clone(),
            created: wanted.now,
            quota_id: None,
            claim: wanted.claim.clone(),
            scratch: wanted.scratch.clone(),
        };
        let content = self.content(&record)?;
        tree::write_new_and(trees.reserved.as_fd(), &reservation(&record), &content, || drop(lock))
            .map_err(self.trouble_io("writing the volume's record"))?;
        if is_noted(&record)
            && let Err(trouble) = self.note(trees, &record)
        {
            self.undo(trees, &record).ok();
            return Err(trouble.into());
        }
        Ok(record)
    }

    /// Makes the directory, or takes the one that is there, where that can be.
    pub(super) fn place(&self, trees: &Trees, record: &mut Record) -> Result<(), CreateError> {
        let reserved = (record.owns_directory, record.quota_id);
        if record.owns_directory {
            self.make_directory(trees, record)?;
        }
        if !record.owns_directory {
            // It is somebody's, and noted by now: a delete by its owner looks for that, and so does who makes a volume beneath.
            self.open(&record.directory)?;
            self.refuse_beneath(record.key, &record.directory)?;
        }
        // Again: whoever wants a directory above at this moment noted it before he looked for ours, as we did.
        self.refuse_nesting(trees, record.key, &record.directory)?;
        if (record.owns_directory, record.quota_id) != reserved {
            let new = self.write_beside(trees, record)?;
            renameat(&trees.reserved, new, &trees.reserved, reservation(record))
                .map_err(self.trouble("writing the volume's record"))?;
        }
        Ok(())
    }

    /// Says in the record what came of it: whether the directory is ours, and its quota's number.
    fn make_directory(&self, trees: &Trees, record: &mut Record) -> Result<(), CreateError> {
        let (parent, leaf) = self.parent_of(&record.directory)?;
        let doing = self.trouble("making the volume's directory");
        let (key, owner, bytes) = (&record.key, record.owner, record.capacity);
        record.quota_id = match self.file_system.make(parent.as_fd(), leaf, key, owner, bytes) {
            Ok(quota_id) => quota_id,
            Err(Errno::EXIST) => {
                let occupied = || CreateError::Occupied { directory: record.directory.to_string() };
                if self.record(trees, record.key)?.is_some() {
                    return Err(occupied());
                }
                let directory = self.open(&record.directory)?;
                // It was not there when we looked. An empty one that is nobody else's is from a try of ours that was
                // interrupted, from one whose answer was lost (NFS asks again by itself), or from another controller's at
                // this volume. Should a stranger have made it in that moment, he loses nothing.
                if tree::is_empty(&directory).map_err(&doing)?
                    && !self.others_use(trees, record.key, &record.directory)?
                {
                    self.file_system.settle(directory.as_fd(), key, owner, bytes).map_err(&doing)?
                } else if record.on_delete == OnDelete::Retain {
                    record.owns_directory = false;
                    return Ok(self.note(trees, record)?);
                } else {
                    return Err(occupied());
                }
            }
            Err(errno) => return Err(doing(errno).into()),
        };
        // Before the record, that of a volume which is there. Where one commit is of both, it comes after both.
        if !self.file_system.commits_all() {
            self.names_settled(parent.as_fd())?;
        }
        Ok(())
    }

    /// Gives the record its place among the volumes, unless another controller was faster; then its word counts.
    pub(super) fn commit(
        &self,
        trees: &Trees,
        wanted: &Wanted,
        record: Record,
    ) -> Result<(Identity, Volume), CreateError> {
        let name = reservation(&record);
        let remove = || {
            tree::remove_file(trees.reserved.as_fd(), &name).map_err(self.trouble("committing the volume"))
        };
        let linked = linkat(&trees.reserved, &name, &trees.volumes, record.key.to_string(), AtFlags::empty());
        match linked {
            Ok(()) => {
                fault_point!("create.committed");
                self.settled(trees.volumes.as_fd())?;
                remove()?;
                Ok((trees.identity, Volume { record, published: Vec::new() }))
            }
            Err(Errno::EXIST) => {
                let Some(first) = self.record(trees, wanted.key)? else {
                    return Err(Trouble::Stale { place: self.place.clone() }.into());
                };
                if first.directory != record.directory {
                    self.give_back(trees, &record)?;
                } else if !is_noted(&first) {
                    self.forget_directory(trees, record.key, &record.directory);
                }
                remove()?;
                self.keep(trees, wanted, first)
            }
            Err(errno) => Err(self.not_linked(errno).into()),
        }
    }

    pub(super) fn not_linked(&self, errno: Errno) -> Trouble {
        let doing = "committing the volume";
        match errno {
            Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK => Trouble::Io {
                place: self.place.clone(),
                doing: doing.to_owned(),
                error: format!(
                    "link(2) says {errno}: its file system has no hard links, by which records are kept; export another"
                ),
            },
            errno => self.trouble(doing)(errno),
        }
    }

    /// The names of the reservations for `key`.
    pub(super) fn reservations(&self, trees: &Trees, key: Key) -> Result<Vec<String>, Trouble> {
        let names = trees.names("reserved").map_err(self.trouble("reading the reservations"))?;
        Ok(reservations_among(names, key))
    }

    /// What a reservation says; `None` where it is gone, or not yet written to its end.
    pub(super) fn reserved(&self, trees: &Trees, name: &str) -> Result<Option<Record>, Trouble> {
        let content = tree::read(trees.reserved.as_fd(), name);
        let content = content.map_err(self.trouble_io("reading a reservation"))?;
        Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
    }

    /// Takes back what a creation left that failed, or died: all that its reservation speaks of, and that last.
    pub(super) fn undo(&self, trees: &Trees, record: &Record) -> Result<(), Trouble> {
        let alone = self.is_alone(trees, record)?;
        if alone {
            self.give_back(trees, record)?;
        }
        tree::remove_file(trees.reserved.as_fd(), &reservation(record))
            .map_err(self.trouble("undoing a creation"))?;
        // Of two that gave up at once, each saw the other's reservation.
        if !alone && self.is_alone(trees, record)? {
            self.give_back(trees, record)?;
        }
        Ok(())
    }

    /// Whether no other controller makes this volume, or has made it.
    fn is_alone(&self, trees: &Trees, record: &Record) -> Result<bool, Trouble> {
        let own = reservation(record);
        // In this order: who commits links the record first, and removes his reservation then.
        let alone = self.reservations(trees, record.key)?.iter().all(|name| *name == own);
        Ok(alone && self.record(trees, record.key)?.is_none())
    }

    /// Removes the directory that a creation made, and its note. Only ever an empty one: what holds a file is somebody's.
    fn give_back(&self, trees: &Trees, record: &Record) -> Result<(), Trouble> {
        let doing = self.trouble("removing what a creation made");
        if record.owns_directory
            && !self.others_use(trees, record.key, &record.directory)?
            && let Some((parent, leaf)) = self.existing_parent(&record.directory)?
        {
            match tree::remove_empty(parent.as_fd(), leaf) {
                Ok(()) => {
                    // By a name that nothing has: its quota goes, and nothing else can. On xfs, that is; btrfs before Linux
                    // 6.10 keeps the empty quota group of a subvolume that goes this way, which limits nothing.
                    let name = format!("{}.undone", reservation(record));
                    match self.file_system.remove(trees.trash.as_fd(), &name, record.quota_id) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(errno) => return Err(doing(errno)),
                    }
                }
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(errno) => return Err(doing(errno)),
            }
        }
        self.forget_directory(trees, record.key, &record.directory);
        Ok(())
    }

    /// Makes what was done last, be it in one commit or, of names in `directory`, by its sync.
    pub(super) fn settled(&self, directory: BorrowedFd<'_>) -> Result<(), Trouble> {
        if self.file_system.commits_all() {
            return self.file_system.commit(directory).map_err(self.trouble("committing what was done"));
        }
        self.names_settled(directory)
    }

    /// Makes names last on a local file system; a server does so by itself.
    pub(super) fn names_settled(&self, directory: BorrowedFd<'_>) -> Result<(), Trouble> {
        if self.overcommit.is_none() {
            return Ok(());
        }
        tree::settle_names(directory).map_err(self.trouble("syncing a directory"))
    }

    /// Writes a record that is to replace another by rename: its name among the reservations, of which it is none.
    pub(super) fn write_beside(&self, trees: &Trees, record: &Record) -> Result<String, Trouble> {
        let name = format!("{}.{}{BESIDE}", record.key, self.draw()?);
        tree::write_new(trees.reserved.as_fd(), &name, &self.content(record)?)
            .map_err(self.trouble_io("writing the volume's record"))?;
        Ok(name)
    }

    fn content(&self, record: &Record) -> Result<Vec<u8>, Trouble> {
        let content = serde_json::to_vec(record).map_err(|error| Trouble::Own(error.to_string()))?;
        if content.len() as u64 >= tree::LARGEST {
            let (bytes, most) = (content.len(), tree::LARGEST - 1);
            return Err(Trouble::Own(format!(
                "the volume's record would have {bytes} bytes, and may have {most}: its parameters or mount options are too long"
            )));
        }
        Ok(content)
    }

    /// A number that nobody draws twice: by it alone a reservation's name is its own, see [`tree::write_new`].
    fn draw(&self) -> Result<String, Trouble> {
        let drawn = random::<8>().map_err(self.trouble("drawing a number"))?;
        Ok(drawn.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// How the name of a record ends that waits to replace another.
const BESIDE: &str = ".new";

/// Whether a file among the reservations is none, but a record that waits to replace another.
pub(super) fn is_beside(name: &str) -> bool {
    name.ends_with(BESIDE)
}

/// The reservations for `key` among the files that lie there.
pub(super) fn reservations_among(names: Vec<(String, u64)>, key: Key) -> Vec<String> {
    let prefix = format!("{key}.");
    let wanted = |name: &String| name.starts_with(&prefix) && !is_beside(name);
    names.into_iter().map(|(name, _)| name).filter(wanted).collect()
}

/// The key, as text, of the volume that a reservation is for.
pub(super) fn key_of(reservation: &str) -> &str {
    reservation.split_once('.').map_or(reservation, |(key, _)| key)
}

/// A reservation's file name.
pub(super) fn reservation(record: &Record) -> String {
    format!("{}.{}", record.key, record.generation)
}

/// Whether a note says that the volume uses its directory: where that follows from the volume's name, nobody else looks
/// for a note, unless the directory was somebody's before.
pub(super) fn is_noted(record: &Record) -> bool {
    !record.owns_directory || record.directory != Directory::of_name(&record.name, &record.key)
}
