//! What was staged on this node and how: what the mount table can't tell.
//!
//! Kept beside the mounts, in the state directory. When a file is missing (an upgrade that lost the directory), the mount
//! table alone decides; it is the truth in any case.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::volume::{Mode, short_hash};

/// One staged volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The volume's id.
    pub volume_id: String,
    /// Where it is staged.
    pub staging: PathBuf,
    /// The mode of the capability it was staged with.
    pub mode: Mode,
}

/// The notes, one file each.
#[derive(Debug, Clone)]
pub struct Notes {
    directory: PathBuf,
}

impl Notes {
    /// The notes in `state`, a directory that is there.
    pub fn open(state: &std::path::Path) -> io::Result<Self> {
        let directory = state.join("staged");
        std::fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    fn file(&self, volume_id: &str) -> PathBuf {
        self.directory.join(short_hash(volume_id))
    }

    /// The note on a volume; one that can't be read counts as missing.
    pub fn of(&self, volume_id: &str) -> Option<Staged> {
        let content = std::fs::read(self.file(volume_id)).ok()?;
        serde_json::from_slice(&content).ok().filter(|staged: &Staged| staged.volume_id == volume_id)
    }

    /// Writes a note. Not synced: it shall not outlive a reboot, which the mounts don't either.
    pub fn put(&self, staged: &Staged) -> io::Result<()> {
        std::fs::write(self.file(&staged.volume_id), serde_json::to_vec(staged)?)
    }

    /// Removes a note, if there is one.
    pub fn remove(&self, volume_id: &str) -> io::Result<()> {
        match std::fs::remove_file(self.file(volume_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
