//! What can be asked of a store, and what it answers: the words that cross to the child process and back.

use serde::{Deserialize, Serialize};

use super::fault::{
    CapacityFault, CreateError, DeleteError, ExpandError, FindError, ListError, PublishError, Trouble,
    UnpublishError,
};
use crate::mount::NfsMount;
use crate::volume::{Claim, Identity, Key, Publication, Volume, Wanted};

/// A job, and which export or pool it is meant for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// The identity that the volume's id names; where the store has another, nothing is done.
    pub identity: Option<Identity>,
    /// What to do.
    pub job: Job,
}

/// One request to a store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Job {
    /// Mount an export and work on it from now on. Asked once of a share's child, before all else.
    Open {
        /// What to mount and how.
        mount: Box<NfsMount>,
        /// Whose volumes to work on.
        installation: String,
    },
    /// Make a volume, or find the one that an earlier try made.
    Create(Box<Wanted>),
    /// Move a volume to the trash.
    Delete {
        /// Which one.
        key: Key,
    },
    /// Look a volume up.
    Find {
        /// Which one.
        key: Key,
    },
    /// Note that a node has a volume.
    Publish {
        /// Which one.
        key: Key,
        /// The node, and how it uses the volume.
        publication: Publication,
        /// How many volumes the node may have, where that is limited.
        limit: Option<u64>,
    },
    /// Forget that a node has a volume.
    Unpublish {
        /// Which one.
        key: Key,
        /// The node; `None`: all nodes.
        node: Option<String>,
    },
    /// Grow a volume.
    Expand {
        /// Which one.
        key: Key,
        /// At least so many bytes.
        required: i64,
        /// At most so many bytes.
        limit: i64,
    },
    /// Record whose a volume is.
    Claim {
        /// Which one.
        key: Key,
        /// Who has it now.
        claim: Claim,
    },
    /// Volumes in the order of their keys.
    List {
        /// Only those behind this one.
        after: Option<Key>,
        /// At most so many.
        most: usize,
    },
    /// Free space.
    Capacity,
    /// Remove from the trash what has been there for longer than its lifetime, and Pods' scratch.
    Reap {
        /// Lifetime in seconds; `None`: scratch alone, and no look at anything else.
        lifetime: Option<u64>,
    },
    /// Answer at once; tells that the export answers.
    Ping,
}

/// What a store says, one variant per [`Job`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Job::Open`].
    Open(Result<(), Trouble>),
    /// To [`Job::Create`]: the identity of the export or pool, and the volume.
    Create(Result<(Identity, Volume), CreateError>),
    /// To [`Job::Delete`].
    Delete(Result<(), DeleteError>),
    /// To [`Job::Find`].
    Find(Result<(Identity, Volume), FindError>),
    /// To [`Job::Publish`].
    Publish(Result<(), PublishError>),
    /// To [`Job::Unpublish`].
    Unpublish(Result<(), UnpublishError>),
    /// To [`Job::Expand`]: the volume's size in bytes.
    Expand(Result<u64, ExpandError>),
    /// To [`Job::Claim`]: whether that was news.
    Claim(Result<bool, ExpandError>),
    /// To [`Job::List`].
    List(Result<Page, ListError>),
    /// To [`Job::Capacity`].
    Capacity(Result<Room, CapacityFault>),
    /// To [`Job::Reap`]: what was removed, and what is still there.
    Reap(Result<Reaped, Trouble>),
    /// To [`Job::Ping`].
    Ping(Result<(), Trouble>),
    /// To any job: it was not even begun, or could not be.
    Refused(Trouble),
}

impl Answer {
    /// The trouble that the export or pool itself is in, if that is what the answer says.
    pub fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Open(Err(trouble))
            | Self::Ping(Err(trouble))
            | Self::Reap(Err(trouble))
            | Self::Refused(trouble) => Some(trouble),
            Self::Create(Err(CreateError::Trouble(trouble)))
            | Self::Delete(Err(DeleteError::Trouble(trouble)))
            | Self::Find(Err(FindError::Trouble(trouble)))
            | Self::Publish(Err(PublishError::Trouble(trouble)))
            | Self::Unpublish(Err(UnpublishError::Trouble(trouble)))
            | Self::Expand(Err(ExpandError::Trouble(trouble)))
            | Self::Claim(Err(ExpandError::Trouble(trouble)))
            | Self::List(Err(ListError::Trouble(trouble)))
            | Self::Capacity(Err(CapacityFault::Trouble(trouble))) => Some(trouble),
            _ => None,
        }
    }
}

/// Some of a store's volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The identity of the export or pool; `None` where nothing was ever made.
    pub identity: Option<Identity>,
    /// The volumes, in the order of their keys.
    pub volumes: Vec<Volume>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// Free space, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// What a new volume could get.
    pub available: u64,
    /// The largest single volume, where that is less.
    pub largest: u64,
}

/// What one round of the reaper did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaped {
    /// Volumes removed for good.
    pub removed: u64,
    /// Volumes that wait in the trash.
    pub waiting: u64,
    /// Volumes that there are, outside the trash. A round for scratch alone counts none.
    pub volumes: u64,
    /// Why some of it could not be done; the first reason of several.
    pub trouble: Option<Trouble>,
}
