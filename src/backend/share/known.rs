//! The exports that were used, kept on disk: a volume's id may name its export by a hash alone, and a list must visit all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::volume::{Export, ExportName, MountOptions};

/// Exports and how each was reached last.
pub struct Known {
    file: PathBuf,
    exports: Mutex<Vec<(Export, MountOptions)>>,
}

impl Known {
    /// Reads `DIRECTORY/exports.json`, if it is there.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = directory.join("exports.json");
        let exports = match std::fs::read(&file) {
            Ok(content) => serde_json::from_slice(&content)
                .map_err(|error| io::Error::other(format!("{}: {error}; mend or remove it", file.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { file, exports: Mutex::new(exports) })
    }

    /// Adds an export. It is known from now on even where it can't be written down, and that is said.
    pub fn add(&self, export: &Export, options: &MountOptions) {
        let mut exports = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        if exports.iter().any(|known| (&known.0, &known.1) == (export, options)) {
            return;
        }
        exports.push((export.clone(), options.clone()));
        if let Err(error) = self.write(&exports) {
            tracing::warn!(file = %self.file.display(), %error, "known exports can't be written down");
        }
    }

    fn write(&self, exports: &[(Export, MountOptions)]) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(exports)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.file).map_err(|error| error.error)?;
        Ok(())
    }

    /// All of them, in the order they were met.
    pub fn all(&self) -> Vec<(Export, MountOptions)> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How `export` was reached last.
    pub fn options_of(&self, export: &Export) -> Option<MountOptions> {
        self.all().into_iter().rev().find(|(known, _)| known == export).map(|(_, options)| options)
    }

    /// The export that an id calls `hash`.
    pub fn of_hash(&self, hash: &str) -> Option<Export> {
        self.all().into_iter().map(|(export, _)| export).find(|export| ExportName::hash(export) == hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_known_after_a_restart_too() {
        let directory = tempfile::tempdir().unwrap();
        let export: Export = "h:/a".parse().unwrap();
        let options = MountOptions::parse(["vers=3,nolock"]).unwrap();
        Known::open(directory.path()).unwrap().add(&export, &options);
        let again = Known::open(directory.path()).unwrap();
        assert_eq!(again.options_of(&export), Some(options));
        assert_eq!(again.of_hash(&ExportName::hash(&export)), Some(export));
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("exports.json"), "nonsense").unwrap();
        assert!(Known::open(directory.path()).is_err());
    }
}
