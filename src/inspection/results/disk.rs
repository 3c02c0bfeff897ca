//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Makes what was changed in a directory last.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A new file, on the disk when this returns.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Replaces a file: whoever reads sees the old one or the new one. `unique` tells writers apart.
pub fn replace(path: &Path, contents: &[u8], unique: &str) -> io::Result<()> {
    replace_by(path, unique, |file| file.write_all(contents))
}

/// The same by what `fill` writes, which need not be in memory at once.
pub fn replace_by(
    path: &Path,
    unique: &str,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{unique}"));
    let filled = || {
        let mut file = BufWriter::new(File::create(&temporary)?);
        fill(&mut file)?;
        file.into_inner()?.sync_all()
    };
    let done = filled().and_then(|()| rename(&temporary, path)).and_then(|()| sync(directory));
    if done.is_err() {
        // A full disk needs the room back; that it can't be had changes nothing about the error.
        fs::remove_file(&temporary).ok();
    }
    done
}

/// A rename that a server carried out and whose answer was lost is asked again, and then there is nothing left to rename:
/// the target says whether it happened.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let before = fs::symlink_metadata(from).map(|found| std::os::unix::fs::MetadataExt::ino(&found));
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let after = fs::symlink_metadata(to).map(|found| std::os::unix::fs::MetadataExt::ino(&found));
            match (before, after) {
                (Ok(before), Ok(after)) if before == after => Ok(()),
                _ => Err(error),
            }
        }
        other => other,
    }
}

/// Makes a directory and those above it that are not there, and makes each last.
///
/// An NFS client that looked for a name in vain believes it for up to a minute, also when mkdir has just told it that the name is
/// taken, by another host: to list the directory above makes it ask again.
pub fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = directory.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."));
    let made = match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(above)?;
            fs::create_dir(directory)
        }
        other => other,
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::read_dir(above)?.next().transpose().map(drop)
        }
        other => other.and_then(|()| sync(above)),
    }
}

/// Removes a directory and all in it; one that is not there is removed already.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The bytes of a directory's files.
pub fn size(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.metadata()?;
        bytes += if found.is_dir() { size(&entry.path())? } else { found.len() };
    }
    Ok(bytes)
}

/// As hexadecimal digits.
pub fn sha256(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON as people can read it, with an end of line.
pub fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}
