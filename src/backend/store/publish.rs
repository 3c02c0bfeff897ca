//! Which nodes have a volume.
//!
//! Each is a note of its own, so two controllers at once lose nothing, and there is no lock: who publishes puts his note up
//! first and looks at the others', and whether the volume is still there, afterwards, and takes it down again where they
//! forbid it. Of two that exclude each other, at most one stays; at worst neither, and both are tried again. A delete looks at
//! the notes once more when the record is gone, so it and a publication exclude each other in the same way.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::trees::Trees;
use super::{Store, tree};
use crate::backend::{PublishError, Trouble, UnpublishError};
use crate::fault_point;
use crate::plan;
use crate::volume::{Key, Publication, short_hash};

impl Store {
    pub(super) fn publish(
        &self,
        key: Key,
        wanted: &Publication,
        limit: Option<u64>,
    ) -> Result<(), PublishError> {
        let trees = self.trees()?.ok_or(PublishError::NotFound)?;
        let doing = self.trouble("publishing the volume");
        let notes = tree::make_directory(trees.published.as_fd(), &key.to_string(), 0o700).map_err(&doing)?;
        let name = note_of(&wanted.node);
        let text = serde_json::to_string(wanted).map_err(|error| Trouble::Own(error.to_string()))?;
        let new = match tree::put_note(notes.as_fd(), &name, &text) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => {
                // A delete took the directory away, and goes on.
                self.refuse_missing(&trees, key)?;
                return Err(doing(errno).into());
            }
        };
        fault_point!("publish.noted");
        if let Err(error) = self.refuse_missing(&trees, key) {
            if error == PublishError::NotFound {
                tree::remove_file(notes.as_fd(), &name).map_err(&doing)?;
                // Another node's note may be there, which its own request takes down.
                tree::remove_empty(trees.published.as_fd(), &key.to_string()).ok();
            }
            return Err(error);
        }
        let all = self.publications(&notes)?;
        let verdict = match plan::publish(wanted, &all) {
            plan::Publish::Keep => Ok(()),
            plan::Publish::Differs { held } => {
                let asked = plan::describe(wanted.access);
                Err(PublishError::Differs { node: wanted.node.clone(), held, asked })
            }
            plan::Publish::Elsewhere { node, mode } => Err(PublishError::Elsewhere { node, mode }),
        };
        let verdict = verdict.and_then(|()| match limit {
            Some(limit) if new && self.volumes_on(&trees, &name)? > limit => {
                Err(PublishError::Limit { node: wanted.node.clone(), limit })
            }
            _ => Ok(()),
        });
        if new && verdict.is_err() {
            tree::remove_file(notes.as_fd(), &name).map_err(doing)?;
        }
        self.names_settled(notes.as_fd())?;
        verdict
    }

    pub(super) fn unpublish(&self, key: Key, node: Option<&str>) -> Result<(), UnpublishError> {
        let Some(trees) = self.trees()? else { return Ok(()) };
        let doing = self.trouble("unpublishing the volume");
        let notes = match tree::open_directory(trees.published.as_fd(), &key.to_string()) {
            Ok(notes) => notes,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(doing(errno).into()),
        };
        let names = match node {
            Some(node) => vec![note_of(node)],
            None => {
                tree::names_in(notes.as_fd()).map_err(&doing)?.into_iter().map(|(name, _)| name).collect()
            }
        };
        for name in names {
            tree::remove_file(notes.as_fd(), &name).map_err(&doing)?;
        }
        fault_point!("unpublish.removed");
        self.names_settled(notes.as_fd())?;
        Ok(())
    }

    /// The nodes that have the volume, sorted.
    pub(super) fn published(&self, trees: &Trees, key: Key) -> Result<Vec<Publication>, Trouble> {
        match tree::open_directory(trees.published.as_fd(), &key.to_string()) {
            Ok(notes) => self.publications(&notes),
            Err(Errno::NOENT) => Ok(Vec::new()),
            Err(errno) => Err(self.trouble("reading who has the volume")(errno)),
        }
    }

    fn publications(&self, notes: &OwnedFd) -> Result<Vec<Publication>, Trouble> {
        let doing = self.trouble("reading who has the volume");
        let mut all = Vec::new();
        for (name, _) in tree::names_in(notes.as_fd()).map_err(&doing)? {
            // Taken down between the two looks.
            let Some(text) = tree::read_note(notes.as_fd(), &name).map_err(&doing)? else { continue };
            let publication: Publication = serde_json::from_str(&text).map_err(|error| Trouble::Damaged {
                what: format!("{}: published node {name}", self.place),
                why: error.to_string(),
            })?;
            all.push(publication);
        }
        all.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(all)
    }

    fn refuse_missing(&self, trees: &Trees, key: Key) -> Result<(), PublishError> {
        let there = tree::is_there(trees.volumes.as_fd(), &key.to_string());
        match there.map_err(self.trouble("looking for the volume"))? {
            true => Ok(()),
            false => Err(PublishError::NotFound),
        }
    }

    /// How many volumes of this export or pool the node behind `note` has. A look at each volume, so it is only taken where
    /// nodes are limited; Kubernetes' scheduler counts by itself.
    fn volumes_on(&self, trees: &Trees, note: &str) -> Result<u64, Trouble> {
        let doing = self.trouble("counting the node's volumes");
        let mut count = 0;
        for (key, _) in trees.names("published").map_err(&doing)? {
            let there = tree::is_there(trees.published.as_fd(), &format!("{key}/{note}")).map_err(&doing)?;
            count += u64::from(there);
        }
        Ok(count)
    }
}

/// The name of a node's note: node ids may hold any character, file names may not.
fn note_of(node: &str) -> String {
    short_hash(node)
}
