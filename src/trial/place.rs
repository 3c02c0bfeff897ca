//! The temporary place where a trial happens, and how it is left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::client::mounts_beneath;

/// A temporary directory. It is removed with [`Place::sweep`] alone: never while something is mounted in it, or the
/// files behind that mount would be removed too.
pub(super) struct Place {
    directory: PathBuf,
}

impl Place {
    pub(super) fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("kuration-try-").disable_cleanup(true).tempdir()?;
        // mountinfo has no symbolic links in it, and /tmp may be one.
        Ok(Self { directory: fs::canonicalize(directory.path())? })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("csi.sock")
    }

    pub(super) fn pool(&self) -> PathBuf {
        self.directory.join("pool")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub(super) fn kubelet(&self) -> PathBuf {
        self.directory.join("kubelet")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("driver.log")
    }

    /// What is mounted at or beneath `path`.
    pub(super) fn mounts(path: &Path) -> Vec<String> {
        let entries = mounts_beneath("self", path).unwrap_or_default();
        entries.iter().map(|entry| entry.target.display().to_string()).collect()
    }

    /// Unmounts what is left and removes the directory. The driver must have ended.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for entry in mounts_beneath("self", &self.directory)?.iter().rev() {
            // Lazily: a dead server must not hold up the end. What fails is seen below.
            umount2(&entry.target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
        }
        let left = mounts_beneath("self", &self.directory)?;
        if let Some(entry) = left.first() {
            return Err(io::Error::other(format!(
                "{} can't be unmounted, so {} stays",
                entry.target.display(),
                self.directory.display()
            )));
        }
        fs::remove_dir_all(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_removed_with_what_is_in_it() {
        let place = Place::new().unwrap();
        fs::create_dir_all(place.kubelet().join("pods")).unwrap();
        fs::write(place.log(), "x").unwrap();
        assert!(Place::mounts(&place.directory).is_empty());
        place.sweep().unwrap();
        assert!(!place.directory.exists());
    }
}
