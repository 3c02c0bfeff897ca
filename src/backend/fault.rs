//! What can go wrong, one small enum per operation; `csi::status` gives each its code.

use serde::{Deserialize, Serialize};

use crate::mount::MountError;
use crate::volume::{Identity, Mode};

/// The export or the pool itself is in trouble, whatever was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Trouble {
    /// It can't be mounted. Nothing was begun.
    #[error("{0}")]
    Mount(MountError),
    /// It can't be mounted, and an earlier try to make the same volume was given up in the middle: it may have been made.
    #[error("{0}; an earlier request was given up in the middle, and may have been carried out")]
    MountAgain(MountError),
    /// It stopped answering in the middle: what was asked may or may not have been done.
    #[error(
        "{place} did not answer within {seconds} s, and is asked again at the next try; if this goes on, see whether the \
         server is up and can be reached"
    )]
    Hung {
        /// The export or pool.
        place: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It was found to be hanging a moment ago, and nothing was asked of it.
    #[error(
        "{place} does not answer (seen {seconds} s ago), and is asked again at the next try; see whether the server is up and \
         can be reached"
    )]
    Down {
        /// The export or pool.
        place: String,
        /// How long ago that was seen.
        seconds: u64,
        /// Whether an earlier try to make the same volume was given up in the middle, and may have made it.
        unsure: bool,
    },
    /// Another controller changes the same record, and has for some seconds.
    #[error("{place}: another controller holds the volume's lock; try again")]
    Locked {
        /// The export or pool.
        place: String,
    },
    /// It is read-only.
    #[error("{doing}: {place} is read-only; make the server export it rw")]
    ReadOnly {
        /// The export or pool.
        place: String,
        /// What was tried.
        doing: String,
    },
    /// It is full.
    #[error(
        "{doing}: {place} has no space left; free some there or enlarge it (deleted volumes stay in the trash for a while)"
    )]
    Full {
        /// The export or pool.
        place: String,
        /// What was tried.
        doing: String,
    },
    /// It doesn't let us.
    #[error(
        "{doing}: {place} denies it; root is probably squashed there: export it with no_root_squash to the controller, or \
         make its directory writable for the squashed user"
    )]
    Denied {
        /// The export or pool.
        place: String,
        /// What was tried.
        doing: String,
    },
    /// Its file handles are gone: the server exports something else at this path now.
    #[error(
        "{place} is stale: the server no longer has what was mounted from it; it is mounted anew at the next try"
    )]
    Stale {
        /// The export or pool.
        place: String,
    },
    /// It isn't the one that the volume was made on.
    #[error(
        "{place} is not the one that this volume was made on (it is {found}, the volume's was {recorded}): was its disk \
         exchanged, or another one mounted over it?"
    )]
    Another {
        /// The export or pool.
        place: String,
        /// Its identity now.
        found: String,
        /// The identity in the volume's id.
        recorded: Identity,
    },
    /// An export that an id names by its hash alone is not among the known ones.
    #[error("the volume's export (hash {0}) is not known here: name it with --share server:/path")]
    UnknownExport(String),
    /// Something on it is not what Kuration wrote.
    #[error("{what} can't be read as Kuration wrote it ({why}); it was left as it is")]
    Damaged {
        /// Which file.
        what: String,
        /// Why.
        why: String,
    },
    /// Anything else that a system call says.
    #[error("{doing} on {place}: {error}")]
    Io {
        /// The export or pool.
        place: String,
        /// What was tried.
        doing: String,
        /// The kernel's words.
        error: String,
    },
    /// Something that Kuration itself needs is missing or broken.
    #[error("{0}")]
    Own(String),
}

/// Why a volume could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CreateError {
    /// The export or pool.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// The name is taken by a volume that was asked for in other words.
    #[error("a volume of this name exists and differs: {0}")]
    Differs(String),
    /// Its directory is there, and isn't ours.
    #[error(
        "the directory {directory:?} exists and was not made by Kuration, so it would be deleted with the volume; set \
         onDelete: retain to use it as it is, or choose another subDir"
    )]
    Occupied {
        /// The directory, beneath the export.
        directory: String,
    },
    /// Its directory lies in or around another volume's.
    #[error("the directory {directory:?} lies within {other:?} or around it, and that is another volume's")]
    Nested {
        /// The directory asked for.
        directory: String,
        /// The volume in the way.
        other: String,
    },
    /// Its directory lies on another file system than the trash.
    #[error(
        "the directory {directory:?} lies on another file system than the top of the export, so a delete could not move it to \
         the trash; set onDelete: retain, or make that file system a share of its own"
    )]
    OtherFileSystem {
        /// The directory asked for.
        directory: String,
    },
    /// It doesn't fit.
    #[error(
        "{bytes} bytes do not fit: {available} bytes are free of what the pool promises in all; ask for less, delete volumes, \
         enlarge the pool, or let it promise more (--overcommit)"
    )]
    TooLarge {
        /// The size asked for.
        bytes: u64,
        /// What could be had.
        available: u64,
    },
}

/// Why a volume could not be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeleteError {
    /// The export or pool.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// Somebody still has it.
    #[error("the volume is still published to {}; unpublish it first", .0.join(", "))]
    InUse(Vec<String>),
}

/// Why a volume could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum FindError {
    /// The export or pool.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// There is none.
    #[error("no such volume")]
    NotFound,
}

/// Why a volume could not be published to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PublishError {
    /// The export or pool.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// There is no such volume.
    #[error("there is no such volume; it was deleted, or its record is gone from the export")]
    NotFound,
    /// The node has it in another way.
    #[error("the volume is published to node {node:?} as {held}, not as {asked}; unpublish it first")]
    Differs {
        /// The node.
        node: String,
        /// How it has it.
        held: String,
        /// How it was asked for.
        asked: String,
    },
    /// Another node has it, and only one may.
    #[error("the volume is published to node {node:?}, and access mode {mode} allows no second")]
    Elsewhere {
        /// The node that has it.
        node: String,
        /// The mode in the way.
        mode: Mode,
    },
    /// The node has as many volumes as it may.
    #[error("node {node:?} has {limit} volumes, as many as it may")]
    Limit {
        /// The node.
        node: String,
        /// Its limit.
        limit: u64,
    },
}

/// Why a volume could not be taken from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum UnpublishError {
    /// The export or pool.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// Why a volume could not grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ExpandError {
    /// The export or pool.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// There is no such volume.
    #[error("no such volume")]
    NotFound,
    /// It would shrink.
    #[error("the volume has {current} bytes, more than the limit of {limit}; a volume can't shrink")]
    Shrink {
        /// Its size.
        current: u64,
        /// The most that the request allows.
        limit: u64,
    },
    /// It doesn't fit.
    #[error(
        "{bytes} bytes do not fit: {available} bytes could be had; ask for less, delete volumes, enlarge the pool, or let it \
         promise more (--overcommit)"
    )]
    TooLarge {
        /// The size asked for.
        bytes: u64,
        /// The largest that could be had.
        available: u64,
    },
}

/// Why volumes could not be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ListError {
    /// An export or the pool. A list that left its volumes out would read as "deleted".
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

/// Why free space could not be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CapacityFault {
    /// The export or pool.
    #[error(transparent)]
    Trouble(#[from] Trouble),
}
