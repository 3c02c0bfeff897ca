//! Deleting a volume: into the trash, at once, however large it is.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, renameat, statat};
use rustix::io::Errno;

use super::create::{is_noted, reservation, reservations_among};
use super::trees::Trees;
use super::{Store, tree};
use crate::backend::{DeleteError, Trouble};
use crate::fault_point;
use crate::volume::{Key, OnDelete, Publication, Record};

impl Store {
    /// Success where there is no such volume (any more).
    pub(super) fn delete(&self, key: Key) -> Result<(), DeleteError> {
        let Some(trees) = self.trees()? else { return Ok(()) };
        let Some(record) = self.record(&trees, key)? else { return self.delete_none(&trees, key) };
        self.refuse_published(&trees, key)?;
        self.throw_away(&trees, &record)
    }

    /// Refuses a volume that a node has.
    pub(super) fn refuse_published(&self, trees: &Trees, key: Key) -> Result<(), DeleteError> {
        let doing = self.trouble("deleting the volume");
        // That it can be removed says in one step that no node has the volume at this moment.
        match tree::remove_empty(trees.published.as_fd(), &key.to_string()) {
            Ok(()) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let published = self.published(trees, key)?;
                if !published.is_empty() {
                    return Err(in_use(published));
                }
                // The last was taken down between the two looks.
                tree::remove_empty(trees.published.as_fd(), &key.to_string())
                    .map_err(|errno| doing(errno).into())
            }
            Err(errno) => Err(doing(errno).into()),
        }
    }

    /// Moves a volume that no node had a moment ago out of the way, and brings it back if one got it meanwhile.
    ///
    /// Another process may publish it at any moment. It puts its note up and looks for the record then; here the record goes,
    /// and the notes are looked at then. So one of the two sees the other: the publication is refused, or the delete is.
    pub(super) fn throw_away(&self, trees: &Trees, record: &Record) -> Result<(), DeleteError> {
        let doing = self.trouble("deleting the volume");
        // The directory goes first: a retry after a crash in between finds the record, and finishes.
        let mut in_order = false;
        if is_trashed(record) && !self.others_noted(trees, record.key, &record.directory)? {
            in_order = self.move_to_trash(trees, record)?;
        }
        fault_point!("delete.moved");
        // What is forgotten before the record goes is forgotten by a retry too.
        if is_noted(record) {
            self.forget_directory(trees, record.key, &record.directory);
        }
        let (name, (shelf, new)) = (record.key.to_string(), shelf(trees, record));
        // Its age in the trash is counted from now; a rename sets no time on every server.
        let touched = tree::touch(trees.volumes.as_fd(), &name);
        let ours = match touched.and_then(|()| renameat(&trees.volumes, &name, shelf, new)) {
            Ok(()) => true,
            // Gone: another controller was at it too, and was faster.
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(doing(errno).into()),
        };
        fault_point!("delete.committed");
        let published = self.published(trees, record.key);
        if !published.as_ref().is_ok_and(Vec::is_empty) {
            // By the one who moved it, and also where the notes can't be read: the next try looks again.
            if ours {
                self.bring_back(trees, record)?;
            }
            return Err(in_use(published?));
        }
        if in_order {
            return Ok(self.settled(shelf.as_fd())?);
        }
        self.names_settled(shelf.as_fd())?;
        Ok(self.names_settled(trees.volumes.as_fd())?)
    }

    /// Where there is no volume. Nodes that have it nevertheless are those of a delete that died when it should have brought the
    /// volume back: whoever tries again does that.
    ///
    /// A publication that is about to be refused has its note up for a moment, too. Then what was deleted comes back, and goes
    /// at the next try.
    fn delete_none(&self, trees: &Trees, key: Key) -> Result<(), DeleteError> {
        let published = self.published(trees, key)?;
        if published.is_empty() {
            return Ok(());
        }
        // A delete that is under way finds that done, or this does.
        match self.thrown_last(trees, key)? {
            Some(record) => self.bring_back(trees, &record)?,
            None => return Ok(()),
        }
        Err(in_use(published))
    }

    /// The record of the volume of `key` that was deleted last.
    fn thrown_last(&self, trees: &Trees, key: Key) -> Result<Option<Record>, Trouble> {
        let doing = self.trouble("looking for a deleted volume");
        let mut thrown = Vec::new();
        for (part, shelf, end) in [("trash", &trees.trash, ".json"), ("retained", &trees.retained, "")] {
            let names = reservations_among(trees.names(part).map_err(&doing)?, key);
            for name in names.into_iter().filter(|name| name.ends_with(end)) {
                // Its time is that of its delete.
                let stat = statat(shelf, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(&doing)?;
                thrown.push(((stat.st_mtime, stat.st_mtime_nsec), part, shelf, name));
            }
        }
        let last = thrown.into_iter().max_by_key(|(at, ..)| *at);
        let Some((_, part, shelf, name)) = last else { return Ok(None) };
        let content =
            tree::read(shelf.as_fd(), &name).map_err(self.trouble_io("reading a deleted volume"))?;
        content.map(|content| self.parse(&self.installation, part, &name, &content)).transpose()
    }

    /// Undoes a delete. What somebody made in the volume's place meanwhile stays, and the volume in the trash then.
    pub(super) fn bring_back(&self, trees: &Trees, record: &Record) -> Result<(), Trouble> {
        let doing = self.trouble("bringing back the volume, which a node got while it was deleted");
        // An expansion that sees the record on its shelf takes it for deleted. A lock that can't be had is no reason to leave
        // it so.
        let _lock = self.lock(trees, record.key).ok();
        // First, as at a creation: whoever wants the directory looks for the note.
        if is_noted(record) {
            self.note(trees, record)?;
        }
        if is_trashed(record) {
            let (parent, leaf) = self.parent_of(&record.directory)?;
            match tree::move_where_none_is(trees.trash.as_fd(), &thrown(record), parent.as_fd(), leaf) {
                Ok(()) => self.names_settled(parent.as_fd())?,
                // It never moved, since others use it.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(doing(errno)),
            }
        }
        let (shelf, name) = shelf(trees, record);
        let back = record.key.to_string();
        match tree::move_where_none_is(shelf.as_fd(), &name, trees.volumes.as_fd(), &back) {
            // Another try was faster.
            Err(Errno::NOENT) if self.record(trees, record.key)?.as_ref() == Some(record) => {}
            other => other.map_err(doing)?,
        }
        self.names_settled(trees.volumes.as_fd())?;
        self.names_settled(shelf.as_fd())
    }

    /// So that it lasts; or, `true`, so that nothing lasts that comes after, unless it does.
    fn move_to_trash(&self, trees: &Trees, record: &Record) -> Result<bool, DeleteError> {
        let Some((parent, leaf)) = self.existing_parent(&record.directory)? else { return Ok(false) };
        let name = thrown(record);
        // By the slash only a directory is moved.
        match renameat(&parent, format!("{leaf}/"), &trees.trash, &name) {
            Ok(()) if self.file_system.renames_in_order(trees.trash.as_fd(), &name) => Ok(true),
            Ok(()) | Err(Errno::NOENT) => {
                self.names_settled(parent.as_fd())?;
                Ok(false)
            }
            Err(Errno::NOTDIR) => {
                let what = format!("{}: {}", self.place, record.directory);
                let why = "it was a directory, and something else is there now".to_owned();
                Err(Trouble::Damaged { what, why }.into())
            }
            Err(errno) => Err(self.trouble("moving the volume's directory to the trash")(errno).into()),
        }
    }
}

fn in_use(published: Vec<Publication>) -> DeleteError {
    DeleteError::InUse(published.into_iter().map(|publication| publication.node).collect())
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
