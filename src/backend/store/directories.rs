//! Who uses which directory, and where directories lie in each other.
//!
//! A volume whose directory follows from its name is found by that name. One whose class chose the directory (subDir), and
//! one that uses a directory which was there before, has a note in `.kuration/directories`. Who is about to use a
//! directory puts the note, or a reservation, up first and looks at the others' afterwards: of two, one sees the other.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::create::reservations_among;
use super::trees::{DIRECTORIES, INSTALLATIONS, Trees};
use super::{Store, tree};
use crate::backend::{CreateError, Trouble};
use crate::volume::{Directory, Key, Record, short_hash};

impl Store {
    /// Notes that a volume uses its directory.
    pub(super) fn note(&self, trees: &Trees, record: &Record) -> Result<(), Trouble> {
        let place = place_of(&record.directory);
        let users = tree::make_directory(trees.directories.as_fd(), &place, 0o700);
        match users.and_then(|users| {
            tree::put_note(users.as_fd(), &self.user(record.key), record.directory.as_str())
        }) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.trouble("noting who uses the directory")(errno)),
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
    fn user(&self, key: Key) -> String {
        format!("{}.{key}", self.installation)
    }

    /// Whether another volume has noted that it uses `directory`. All that a delete has to know: a directory that follows
    /// from a name is used by others only with a note.
    pub(super) fn others_noted(
        &self,
        trees: &Trees,
        key: Key,
        directory: &Directory,
    ) -> Result<bool, Trouble> {
        match tree::open_directory(trees.directories.as_fd(), &place_of(directory)) {
            Ok(users) => {
                let names = tree::names(users).map_err(self.trouble("reading who uses the directory"))?;
                Ok(names.iter().any(|(name, _)| *name != self.user(key)))
            }
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.trouble("reading who uses the directory")(errno)),
        }
    }

    /// Whether another volume uses `directory`, or is about to.
    pub(super) fn others_use(&self, trees: &Trees, key: Key, directory: &Directory) -> Result<bool, Trouble> {
        Ok(self.others_noted(trees, key, directory)? || self.is_anothers_by_name(key, directory)?)
    }

    /// Refuses a directory within another volume's: a delete of the outer one would eat the inner.
    pub(super) fn refuse_nesting(
        &self,
        trees: &Trees,
        key: Key,
        directory: &Directory,
    ) -> Result<(), CreateError> {
        for ancestor in directory.ancestors() {
            if self.others_use(trees, key, &ancestor)? {
                return Err(nested(directory, ancestor.as_str()));
            }
        }
        Ok(())
    }

    /// Refuses a directory with another volume's beneath it: they would see each other's files. A look at all notes, but
    /// only for a directory that was there before.
    pub(super) fn refuse_beneath(&self, key: Key, directory: &Directory) -> Result<(), CreateError> {
        let doing = self.trouble("reading which directories are used");
        let all = tree::open_directory(self.root.as_fd(), DIRECTORIES).map_err(&doing)?;
        for (place, _) in tree::names_in(all.as_fd()).map_err(&doing)? {
            let users = match tree::open_directory(all.as_fd(), &place) {
                Ok(users) => users,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(doing(errno).into()),
            };
            for (user, _) in tree::names_in(users.as_fd()).map_err(&doing)? {
                let used = tree::read_note(users.as_fd(), &user).map_err(&doing)?.unwrap_or_default();
                let beneath = used.strip_prefix(directory.as_str()).is_some_and(|rest| rest.starts_with('/'));
                if beneath && user != self.user(key) {
                    return Err(nested(directory, &used));
                }
            }
        }
        Ok(())
    }

    /// Whether a volume of any installation other than `key` lies in `directory` because that is its name, or is about to.
    fn is_anothers_by_name(&self, key: Key, directory: &Directory) -> Result<bool, Trouble> {
        if directory.names().count() > 1 {
            return Ok(false);
        }
        let doing = self.trouble("looking for other volumes");
        let all = tree::open_directory(self.root.as_fd(), INSTALLATIONS).map_err(&doing)?;
        let by_key = directory.as_str().strip_prefix("volume-").and_then(|key| key.parse().ok());
        for (installation, _) in tree::names_in(all.as_fd()).map_err(&doing)? {
            let of = tree::open_directory(all.as_fd(), &installation).map_err(&doing)?;
            let by_name = Key::of(&installation, directory.as_str());
            for other in [Some(by_name), by_key].into_iter().flatten().filter(|other| *other != key) {
                if self.is_there(&of, other, directory)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether a record or reservation for `key` in the tree of an installation speaks of `directory`.
    fn is_there(&self, of: &OwnedFd, key: Key, directory: &Directory) -> Result<bool, Trouble> {
        let doing = self.trouble("looking for other volumes");
        // In this order: who commits links the record first, and removes his reservation then.
        for shelf in ["reserved", "volumes"] {
            let records = match tree::open_directory(of.as_fd(), shelf) {
                Ok(records) => records,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(doing(errno)),
            };
            let names = match shelf {
                "volumes" => vec![key.to_string()],
                _ => reservations_among(tree::names_in(records.as_fd()).map_err(&doing)?, key),
            };
            for name in names {
                let content = tree::read(records.as_fd(), &name);
                let content = content.map_err(self.trouble_io("looking for other volumes"))?;
                // What can't be read may speak of any directory.
                let speaks = |content: Vec<u8>| match serde_json::from_slice::<Record>(&content) {
                    Ok(record) => record.directory == *directory,
                    Err(_) => true,
                };
                if content.is_some_and(speaks) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// As far on the way to `directory` as there are directories: the last of these, and the names that are left, of which
    /// the volume's own is always one.
    pub(super) fn reach<'a>(&self, directory: &'a Directory) -> Result<(OwnedFd, Vec<&'a str>), Trouble> {
        let doing = self.trouble("opening the volume's parent directory");
        let mut here = rustix::io::dup(&self.root).map_err(&doing)?;
        let names: Vec<&str> = directory.names().collect();
        let mut gone = 0;
        while gone + 1 < names.len() {
            match tree::open_directory(here.as_fd(), names[gone]) {
                Ok(next) => here = next,
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(doing(errno)),
            }
            gone += 1;
        }
        Ok((here, names[gone..].to_vec()))
    }

    /// The directory that holds `directory`, if it is there, and the last name.
    pub(super) fn existing_parent<'a>(
        &self,
        directory: &'a Directory,
    ) -> Result<Option<(OwnedFd, &'a str)>, Trouble> {
        let (parent, rest) = self.reach(directory)?;
        Ok(match rest[..] {
            [leaf] => Some((parent, leaf)),
            _ => None,
        })
    }

    /// The directory that holds `directory`, made if need be, and the last name.
    pub(super) fn parent_of<'a>(&self, directory: &'a Directory) -> Result<(OwnedFd, &'a str), Trouble> {
        let (mut parent, mut rest) = self.reach(directory)?;
        let leaf = rest.pop().unwrap_or_default();
        for name in rest {
            parent = tree::make_directory(parent.as_fd(), name, 0o755)
                .map_err(self.trouble("making the volume's parent directory"))?;
        }
        Ok((parent, leaf))
    }
}

fn nested(directory: &Directory, other: &str) -> CreateError {
    CreateError::Nested { directory: directory.to_string(), other: other.to_owned() }
}

/// A directory's place in the index of directories.
fn place_of(directory: &Directory) -> String {
    short_hash(directory.as_str())
}
