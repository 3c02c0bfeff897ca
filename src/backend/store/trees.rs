//! `.kuration/`, as it lies at the top of an export or pool.
//!
//! ```text
//! .kuration/id                                   a note: the identity of this export or pool
//! .kuration/lock                                 (a pool) its first byte: who may promise space; in it, who did last
//! .kuration/directories/HASH/INSTALLATION.KEY    a note per volume whose directory the class chose (subDir), or was there before
//! .kuration/installations/INSTALLATION/volumes/KEY             the record of a volume, JSON
//! .kuration/installations/INSTALLATION/reserved/KEY.GENERATION the record of a volume that is being made
//! .kuration/installations/INSTALLATION/published/KEY/NODE      a note per node that has the volume
//! .kuration/installations/INSTALLATION/trash/KEY.GENERATION    the directory of a deleted volume; its record beside it, with .json
//! .kuration/installations/INSTALLATION/trash/KEY.GENERATION.scratch  the same of a Pod's inline volume, which is due at once
//! .kuration/installations/INSTALLATION/retained/KEY.GENERATION the record of a volume whose data was to stay
//! .kuration/installations/INSTALLATION/lock                    one byte range per volume: who may change its record
//! ```

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::tree::{self, make_directory, open_directory};
use crate::volume::Identity;

/// The directory of Kuration's own at the top of an export or pool.
pub const OWN: &str = ".kuration";

/// Beneath it, who uses which directory.
pub const DIRECTORIES: &str = ".kuration/directories";

/// Beneath it, a directory for each installation.
pub const INSTALLATIONS: &str = ".kuration/installations";

/// The open directories of one installation's tree. They stay open, so that a request costs no walk.
pub struct Trees {
    pub identity: Identity,
    tree: OwnedFd,
    pub directories: OwnedFd,
    pub volumes: OwnedFd,
    pub reserved: OwnedFd,
    pub published: OwnedFd,
    pub trash: OwnedFd,
    pub retained: OwnedFd,
    pub lock: OwnedFd,
}

/// Nobody but root reads these: records name what others mount.
const PRIVATE: u32 = 0o700;

impl Trees {
    /// Opens the tree, or says `None` where this installation never made a volume.
    pub fn open(root: &OwnedFd, installation: &str) -> Result<Option<Self>> {
        match open_directory(root.as_fd(), &format!("{INSTALLATIONS}/{installation}")) {
            // Its lock is the last thing made.
            Ok(tree) if tree::is_there(tree.as_fd(), "lock")? => Self::make(root, installation).map(Some),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Opens the tree, making what is missing. Several may do so at once.
    pub fn make(root: &OwnedFd, installation: &str) -> Result<Self> {
        let own = make_directory(root.as_fd(), OWN, PRIVATE)?;
        let identity = identity(&own)?;
        let directories = make_directory(own.as_fd(), "directories", PRIVATE)?;
        let installations = make_directory(own.as_fd(), "installations", PRIVATE)?;
        let tree = make_directory(installations.as_fd(), installation, PRIVATE)?;
        let part = |name| make_directory(tree.as_fd(), name, PRIVATE);
        Ok(Self {
            identity,
            directories,
            volumes: part("volumes")?,
            reserved: part("reserved")?,
            published: part("published")?,
            trash: part("trash")?,
            retained: part("retained")?,
            lock: tree::open_lock(tree.as_fd(), "lock")?,
            tree,
        })
    }

    /// The names in one of the directories, and their inode numbers. It is looked up anew, for that makes an NFS client ask
    /// its server whether the directory has changed, which a directory that stays open doesn't.
    pub fn names(&self, part: &str) -> Result<Vec<(String, u64)>> {
        tree::names(open_directory(self.tree.as_fd(), part)?)
    }
}

/// The identity that was drawn for this export or pool, drawing it now if nobody has.
fn identity(own: &OwnedFd) -> Result<Identity> {
    if let Some(text) = tree::read_note(own.as_fd(), "id")? {
        return text.parse().map_err(|_| Errno::ILSEQ);
    }
    let drawn = Identity::new(random()?);
    match tree::put_note(own.as_fd(), "id", &drawn.to_string()) {
        Ok(()) => Ok(drawn),
        Err(Errno::EXIST) => {
            let text = tree::read_note(own.as_fd(), "id")?.ok_or(Errno::STALE)?;
            text.parse().map_err(|_| Errno::ILSEQ)
        }
        Err(errno) => Err(errno),
    }
}

/// Random bytes of the kernel.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if got == N { Ok(bytes) } else { Err(Errno::IO) }
}
