//! Deleting a volume: into the trash, at once, however large it is.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::renameat;
use rustix::io::Errno;

use super::create::{is_noted, reservation};
use super::trees::Trees;
use super::{Store, tree};
use crate::backend::{DeleteError, Trouble};
use crate::fault_point;
use crate::volume::{Key, OnDelete, Record};

impl Store {
    /// Success where there is no such volume (any more).
    pub(super) fn delete(&self, key: Key) -> Result<(), DeleteError> {
        let Some(trees) = self.trees()? else { return Ok(()) };
        let Some(record) = self.record(&trees, key)? else { return Ok(()) };
        let doing = self.trouble("deleting the volume");
        // That it can be removed says in one step that no node has the volume.
        match tree::remove_empty(trees.published.as_fd(), &key.to_string()) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let published = self.published(&trees, key)?;
                if !published.is_empty() {
                    return Err(DeleteError::InUse(published.into_iter().map(|p| p.node).collect()));
                }
                // The last was taken down between the two looks.
                tree::remove_empty(trees.published.as_fd(), &key.to_string()).map_err(&doing)?;
            }
            Err(errno) => return Err(doing(errno).into()),
        }
        // The directory goes first: a retry after a crash in between finds the record, and finishes.
        if is_trashed(&record) && !self.others_noted(&trees, key, &record.directory)? {
            self.move_to_trash(&trees, &record)?;
        }
        fault_point!("delete.moved");
        // What is forgotten before the record goes is forgotten by a retry too.
        if is_noted(&record) {
            self.forget_directory(&trees, key, &record.directory);
        }
        let (name, (shelf, new)) = (key.to_string(), shelf(&trees, &record));
        // Its age in the trash is counted from now; a rename sets no time on every server.
        let touched = tree::touch(trees.volumes.as_fd(), &name);
        match touched.and_then(|()| renameat(&trees.volumes, &name, shelf, new)) {
            // Gone: another controller was at it too, and was faster.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(doing(errno).into()),
        }
        fault_point!("delete.committed");
        self.names_settled(shelf.as_fd())?;
        self.names_settled(trees.volumes.as_fd())?;
        Ok(())
    }

    fn move_to_trash(&self, trees: &Trees, record: &Record) -> Result<(), DeleteError> {
        let Some((parent, leaf)) = self.existing_parent(&record.directory)? else { return Ok(()) };
        // By the slash only a directory is moved.
        match renameat(&parent, format!("{leaf}/"), &trees.trash, thrown(record)) {
            Ok(()) | Err(Errno::NOENT) => self.names_settled(parent.as_fd()).map_err(Into::into),
            Err(Errno::NOTDIR) => {
                let what = format!("{}: {}", self.place, record.directory);
                let why = "it was a directory, and something else is there now".to_owned();
                Err(Trouble::Damaged { what, why }.into())
            }
            Err(errno) => Err(self.trouble("moving the volume's directory to the trash")(errno).into()),
        }
    }
}

/// Whether a delete throws the directory away, rather than leaving it where it is.
fn is_trashed(record: &Record) -> bool {
    record.owns_directory && record.on_delete == OnDelete::Delete
}

/// How the name of a Pod's scratch ends in the trash: nobody brings it back, so it waits for no lifetime there.
const SCRATCH: &str = ".scratch";

/// The name of a thrown away directory in the trash.
fn thrown(record: &Record) -> String {
    let end = if record.scratch.is_some() { SCRATCH } else { "" };
    format!("{}{end}", reservation(record))
}

/// Whether a directory of this name in the trash was a Pod's scratch.
pub(super) fn is_scratch(thrown: &str) -> bool {
    thrown.ends_with(SCRATCH)
}

/// Where the record of a deleted volume goes, and its name there.
pub(super) fn shelf<'a>(trees: &'a Trees, record: &Record) -> (&'a OwnedFd, String) {
    match is_trashed(record) {
        true => (&trees.trash, format!("{}.json", thrown(record))),
        false => (&trees.retained, reservation(record)),
    }
}
