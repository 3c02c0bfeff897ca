//! The exports that were used, kept on disk: a volume's id may name its export by a hash alone, and a list must visit all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::volume::{Export, ExportName, MountOptions, SecretOptions};
use parking_lot::Mutex;

/// Exports and how each was reached last.
pub struct Known {
    file: PathBuf,
    exports: Mutex<Vec<Entry>>,
}

/// An export, the options that stand in the file, and those out of a secret, which are kept in memory alone.
type Entry = (Export, MountOptions, SecretOptions);

/// As the file has them.
fn read(file: &Path) -> io::Result<Vec<(Export, MountOptions)>> {
    match std::fs::read(file) {
        Ok(content) => serde_json::from_slice(&content)
            .map_err(|error| io::Error::other(format!("{}: {error}; mend or remove it", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Known {
    /// Reads `DIRECTORY/exports.json`, if it is there.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = directory.join("exports.json");
        let exports =
            read(&file)?.into_iter().map(|(export, options)| (export, options, SecretOptions::default()));
        Ok(Self { exports: Mutex::new(exports.collect()), file })
    }

    /// Notes how an export was reached. It is known from now on even where it can't be written down, and that is said.
    pub fn add(&self, export: &Export, options: &MountOptions, secret: &SecretOptions) {
        let mut exports = self.exports.lock();
        let entry = (export.clone(), options.clone(), secret.clone());
        let held = exports.iter().position(|(known, ..)| known == export);
        let written = held.is_some_and(|at| exports[at].1 == *options);
        match held {
            Some(at) => exports[at] = entry,
            None => exports.push(entry),
        }
        if !written && let Err(error) = self.write(&exports) {
            tracing::warn!(file = %self.file.display(), %error, "known exports can't be written down");
        }
    }

    /// Writes the file, with what another process added to it meanwhile.
    fn write(&self, exports: &[Entry]) -> io::Result<()> {
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory)?;
        let lock = std::fs::File::open(directory)?;
        lock.lock()?;
        let others = read(&self.file)?;
        let ours = exports.iter().map(|(export, options, _)| (export, options));
        let theirs = others.iter().filter(|(other, _)| !exports.iter().any(|(export, ..)| export == other));
        let all: Vec<(&Export, &MountOptions)> =
            ours.chain(theirs.map(|(export, options)| (export, options))).collect();
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec_pretty(&all)?)?;
        file.as_file().sync_all()?;
        file.persist(&self.file).map_err(|error| error.error)?;
        Ok(())
    }

    /// All of them, in the order they were met.
    pub fn all(&self) -> Vec<Entry> {
        self.exports.lock().clone()
    }

    /// How `export` was reached last.
    pub fn options_of(&self, export: &Export) -> Option<(MountOptions, SecretOptions)> {
        self.all()
            .into_iter()
            .find(|(known, ..)| known == export)
            .map(|(_, options, secret)| (options, secret))
    }

    /// The export that an id calls `hash`.
    pub fn of_hash(&self, hash: &str) -> Option<Export> {
        self.all().into_iter().map(|(export, ..)| export).find(|export| ExportName::hash(export) == hash)
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
        let secret = SecretOptions::new(MountOptions::parse(["clientaddr=192.0.2.7"]).unwrap());
        Known::open(directory.path()).unwrap().add(&export, &options, &secret);
        let again = Known::open(directory.path()).unwrap();
        assert_eq!(again.options_of(&export), Some((options, SecretOptions::default())));
        let file = std::fs::read_to_string(directory.path().join("exports.json")).unwrap();
        assert!(!file.contains("192.0.2.7"), "{file}");
        assert_eq!(again.of_hash(&ExportName::hash(&export)), Some(export));
    }

    #[test]
    fn two_processes_add_to_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (Known::open(directory.path()).unwrap(), Known::open(directory.path()).unwrap());
        let add = |known: &Known, export: &str| {
            known.add(&export.parse().unwrap(), &MountOptions::default(), &SecretOptions::default());
        };
        add(&one, "h:/a");
        add(&two, "h:/b");
        add(&one, "h:/a");
        assert_eq!(Known::open(directory.path()).unwrap().all().len(), 2);
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("exports.json"), "nonsense").unwrap();
        assert!(Known::open(directory.path()).is_err());
    }
}
