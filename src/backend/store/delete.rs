//! Deleting a volume: into the trash, at once, however large it is.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, renameat, statat};
use rustix::io::Errno;

use super::create::place_of;
use super::trees::Trees;
use super::{Store, tree};
use crate::backend::{DeleteError, Trouble};
use crate::fault_point;
use crate::volume::{Directory, Key, OnDelete, Record};

impl Store {
    /// Success where there is no such volume (any more).
    pub(super) fn delete(&self, key: Key) -> Result<(), DeleteError> {
        let Some(trees) = self.trees()? else { return Ok(()) };
        let Some(record) = self.record(&trees, key)? else { return Ok(()) };
        let published = self.published(&trees, key)?;
        if !published.is_empty() {
            return Err(DeleteError::InUse(published.into_iter().map(|p| p.node).collect()));
        }
        let doing = self.trouble("deleting the volume");
        let in_trash = format!("{}.{}", record.key, record.generation);
        let to_trash = record.owns_directory && record.on_delete == OnDelete::Delete;
        // The directory goes first: a retry after a crash in between finds the record, and finishes.
        if to_trash && !self.others_use(&trees, &record)? {
            self.move_to_trash(&trees, &record, &in_trash)?;
        }
        fault_point!("delete.moved");
        // What is forgotten before the record goes is forgotten by a retry too.
        if was_chosen(&record) {
            self.forget_directory(&trees, key, &record.directory);
        }
        // Empty, as was seen above; where a node was added meanwhile, it stays for its unpublish.
        tree::remove_empty(trees.published.as_fd(), &key.to_string()).ok();
        let (shelf, name) = if to_trash {
            (&trees.trash, format!("{in_trash}.json"))
        } else {
            (&trees.retained, in_trash)
        };
        match renameat(&trees.volumes, key.to_string(), shelf, name) {
            // Gone: another controller was at it too, and was faster.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(doing(errno).into()),
        }
        fault_point!("delete.committed");
        self.names_settled(shelf.as_fd())?;
        self.names_settled(trees.volumes.as_fd())?;
        Ok(())
    }

    fn move_to_trash(&self, trees: &Trees, record: &Record, in_trash: &str) -> Result<(), DeleteError> {
        let doing = self.trouble("moving the volume's directory to the trash");
        let (parent, leaf) = match self.existing_parent(&record.directory)? {
            Some(found) => found,
            None => return Ok(()),
        };
        let stat = match statat(&parent, leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(doing(errno).into()),
        };
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
            let what = format!("{}: {}", self.place, record.directory);
            let why = "it was a directory, and something else is there now".to_owned();
            return Err(Trouble::Damaged { what, why }.into());
        }
        match renameat(&parent, leaf, &trees.trash, in_trash) {
            Ok(()) | Err(Errno::NOENT) => self.names_settled(parent.as_fd()).map_err(Into::into),
            Err(errno) => Err(doing(errno).into()),
        }
    }

    /// The directory that holds `directory`, if it is there, and the last name.
    fn existing_parent<'a>(
        &self,
        directory: &'a Directory,
    ) -> Result<Option<(std::os::fd::OwnedFd, &'a str)>, Trouble> {
        let (parent, leaf) = directory.as_str().rsplit_once('/').unwrap_or((".", directory.as_str()));
        match tree::open_directory(self.root.as_fd(), parent) {
            Ok(parent) => Ok(Some((parent, leaf))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.trouble("opening the volume's parent directory")(errno)),
        }
    }

    /// Whether another volume has the same directory. Then the data stays, for it.
    pub(super) fn others_use(&self, trees: &Trees, record: &Record) -> Result<bool, Trouble> {
        match tree::open_directory(trees.directories.as_fd(), &place_of(&record.directory)) {
            Ok(users) => {
                let names = tree::names(&users).map_err(self.trouble("reading who uses the directory"))?;
                Ok(names.iter().any(|(name, _)| *name != self.user(record.key)))
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.trouble("reading who uses the directory")(errno)),
        }
    }
}

/// Whether the class chose the directory, rather than the volume's name.
fn was_chosen(record: &Record) -> bool {
    record.directory != Directory::of_name(&record.name, &record.key)
}
