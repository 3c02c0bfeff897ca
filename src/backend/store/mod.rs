//! Records and directories of volumes, beneath one open directory: the same code on a pool and on an NFS export.
//!
//! Each change is reserve → effect → commit, and each step is one that a retry after a crash, or a second controller at
//! the same moment, can repeat or take over:
//!
//! | step | means | exclusive by |
//! |---|---|---|
//! | reserve | the record, written and synced, under a name of its own in `reserved/` | its random generation |
//! | effect | the directory is made, its owner and limit set | mkdir |
//! | commit | the record gets its second name, in `volumes/` | link(2), which fails where there is one |
//!
//! A delete is a rename of the directory, then of the record, into `trash/`. A published node is a note of its own. What
//! does need a lock (a record that changes: expansion) takes one on a byte range of `lock`, which NFS keeps for all hosts.
//!
//! Everything here blocks. A share's store runs in a child, which its parent ends when the server stops answering.

mod claim;
mod create;
mod delete;
mod directories;
mod expand;
mod filesystem;
mod list;
mod lock;
mod promise;
mod publish;
mod reap;
#[cfg(test)]
mod tests;
pub mod tree;
mod trees;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::io::Errno;

pub use filesystem::{FileSystem, Usage, open_beneath};
use trees::{INSTALLATIONS, Trees};
pub use trees::{OWN, random};

use super::{Answer, Ask, FindError, Job, Trouble};
use crate::volume::{Directory, Identity, Key, RECORD_VERSION, Record, Volume};

/// The volumes of one installation on one export or pool.
pub struct Store {
    root: OwnedFd,
    /// What to call the export or pool in an error.
    place: String,
    installation: String,
    file_system: Box<dyn FileSystem>,
    /// How much of the file system may be promised in all, as a multiple of its size; `None` where sizes are recorded
    /// and not guaranteed (a share).
    overcommit: Option<f64>,
    trees: Mutex<Option<Arc<Trees>>>,
    /// Sizes by file name and inode of the record, for each directory of records: a record that changes is a new file, so an
    /// entry is never stale. Only spares reading; the names are read anew whenever the directory has changed.
    sizes: Mutex<HashMap<String, promise::Shelf>>,
    /// Whose turn it is, of this process' threads, to promise space.
    turn: Mutex<()>,
    /// What can be promised without a look at the sizes, in bytes, and since when, as long as `token` is in the pool's lock file.
    spare: Mutex<Option<(u64, Instant)>>,
    /// Without random numbers there is none, and each promise takes a look.
    token: Option<promise::Token>,
}

impl Store {
    /// A store beneath `root`, which is called `place` in errors.
    pub fn new(
        root: OwnedFd,
        place: String,
        installation: String,
        file_system: Box<dyn FileSystem>,
        overcommit: Option<f64>,
    ) -> Self {
        Self {
            root,
            place,
            installation,
            file_system,
            overcommit,
            trees: Mutex::default(),
            sizes: Mutex::default(),
            turn: Mutex::default(),
            spare: Mutex::default(),
            token: random().ok(),
        }
    }

    /// Does what is asked, if this is the export or pool that is meant.
    pub fn answer(&self, ask: Ask) -> Answer {
        if let Some(recorded) = ask.identity
            && let Err(trouble) = self.check(recorded)
        {
            return Answer::Refused(trouble);
        }
        match ask.job {
            Job::Open { .. } => Answer::Open(Err(Trouble::Own("the store is open already".to_owned()))),
            Job::Create(wanted) => Answer::Create(self.create(*wanted)),
            Job::Delete { key } => Answer::Delete(self.delete(key)),
            Job::Find { key } => Answer::Find(self.find(key)),
            Job::Publish { key, publication, limit } => {
                Answer::Publish(self.publish(key, &publication, limit))
            }
            Job::Unpublish { key, node } => Answer::Unpublish(self.unpublish(key, node.as_deref())),
            Job::Expand { key, required, limit } => Answer::Expand(self.expand(key, required, limit)),
            Job::Claim { key, claim } => Answer::Claim(self.claim(key, claim)),
            Job::List { after, most } => Answer::List(self.list(after, most)),
            Job::Capacity => Answer::Capacity(self.capacity()),
            Job::Reap { lifetime } => Answer::Reap(self.reap(lifetime, &|| false)),
            Job::Ping => Answer::Ping(self.ping()),
        }
    }

    /// The file system beneath.
    pub fn file_system(&self) -> &dyn FileSystem {
        &*self.file_system
    }

    /// A volume's directory, opened.
    pub fn open(&self, directory: &Directory) -> Result<OwnedFd, Trouble> {
        open_beneath(self.root.as_fd(), directory).map_err(self.trouble("opening the volume's directory"))
    }

    fn find(&self, key: Key) -> Result<(Identity, Volume), FindError> {
        let trees = self.trees()?.ok_or(FindError::NotFound)?;
        let record = self.record(&trees, key)?.ok_or(FindError::NotFound)?;
        Ok((trees.identity, Volume { published: self.published(&trees, key)?, record }))
    }

    fn check(&self, recorded: Identity) -> Result<(), Trouble> {
        let found = match self.trees()? {
            Some(trees) => trees.identity.to_string(),
            None => {
                let path = format!("{OWN}/id");
                let note = tree::read_note(self.root.as_fd(), &path)
                    .map_err(self.trouble("reading its identity"))?;
                note.unwrap_or_else(|| "one where Kuration never made a volume".to_owned())
            }
        };
        if found == recorded.to_string() {
            return Ok(());
        }
        Err(Trouble::Another { place: self.place.clone(), found, recorded })
    }

    fn ping(&self) -> Result<(), Trouble> {
        rustix::fs::fstatvfs(&self.root).map(|_| ()).map_err(self.trouble("asking for its size"))
    }

    /// The installation's tree, if it ever made a volume here.
    fn trees(&self) -> Result<Option<Arc<Trees>>, Trouble> {
        let mut known = self.trees.lock();
        if known.is_none() {
            *known = Trees::open(&self.root, &self.installation)
                .map_err(self.trouble("opening Kuration's own directory"))?
                .map(Arc::new);
        }
        Ok(known.clone())
    }

    /// The same, made if need be.
    fn trees_made(&self) -> Result<Arc<Trees>, Trouble> {
        if let Some(trees) = self.trees()? {
            return Ok(trees);
        }
        let made = Trees::make(&self.root, &self.installation)
            .map(Arc::new)
            .map_err(self.trouble("making Kuration's own directory"))?;
        *self.trees.lock() = Some(Arc::clone(&made));
        Ok(made)
    }

    /// The record of a volume, if there is such a volume.
    fn record(&self, trees: &Trees, key: Key) -> Result<Option<Record>, Trouble> {
        let name = key.to_string();
        let content =
            tree::read(trees.volumes.as_fd(), &name).map_err(self.trouble_io("reading a record"))?;
        content.map(|content| self.parse(&self.installation, "volumes", &name, &content)).transpose()
    }

    /// Reads the record `name` on a shelf of an installation.
    fn parse(&self, installation: &str, shelf: &str, name: &str, content: &[u8]) -> Result<Record, Trouble> {
        let what = || format!("{}: the record {INSTALLATIONS}/{installation}/{shelf}/{name}", self.place);
        let damaged = |why: String| Trouble::Damaged { what: what(), why };
        let record: Record = serde_json::from_slice(content).map_err(|error| damaged(error.to_string()))?;
        if record.version > RECORD_VERSION {
            return Err(damaged(format!("version {} is of a newer Kuration", record.version)));
        }
        if record.installation != installation {
            return Err(damaged(format!("it belongs to installation {:?}", record.installation)));
        }
        Ok(record)
    }

    /// What became of `doing`, in terms of the export or pool.
    fn trouble(&self, doing: &str) -> impl Fn(Errno) -> Trouble + use<> {
        let (place, doing) = (self.place.clone(), doing.to_owned());
        move |errno| {
            let (place, doing) = (place.clone(), doing.clone());
            match errno {
                Errno::ROFS => Trouble::ReadOnly { place, doing },
                Errno::NOSPC | Errno::DQUOT => Trouble::Full { place, doing },
                Errno::ACCESS | Errno::PERM => Trouble::Denied { place, doing },
                Errno::STALE => Trouble::Stale { place },
                errno => Trouble::Io { place, doing, error: errno.to_string() },
            }
        }
    }

    fn trouble_io(&self, doing: &str) -> impl Fn(io::Error) -> Trouble + use<> {
        let trouble = self.trouble(doing);
        move |error| trouble(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}
