//! One at a time for index and retention: a directory, as making one is atomic on NFS too.
//!
//! Whoever dies with it leaves it to expire. Whoever comes too late after that finds that it is another's, and stops.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk;

/// How long index and retention may take: far more than they do.
const LIFE: i64 = 120;

/// How long another is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    pod: String,
    expires: Timestamp,
}

/// Held until it is dropped.
pub struct Lock {
    directory: PathBuf,
}

impl Lock {
    /// Takes it, or `None` where somebody holds it for longer than one should wait.
    pub fn take(task: &Path, pod: &str, now: Timestamp) -> io::Result<Option<Self>> {
        let directory = task.join(".lock");
        let mut waited = Duration::ZERO;
        loop {
            match fs::create_dir(&directory) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if expired(&directory, now) {
                // By rename, as two may find it expired at once: one of them gets it.
                let aside = task.join(format!(".lock-expired-{pod}"));
                if fs::rename(&directory, &aside).is_ok() {
                    disk::remove(&aside)?;
                }
            } else if waited >= PATIENCE {
                return Ok(None);
            } else {
                std::thread::sleep(STEP);
                waited += STEP;
            }
        }
        let lock = Self { directory };
        let expires = Timestamp::from_second(now.as_second() + LIFE).unwrap_or(now);
        let owner = disk::json(&Owner { pod: pod.to_owned(), expires })?;
        match disk::write(&lock.directory.join("owner.json"), &owner) {
            // On a full volume it has to be held to make room; the directory's age lets it expire.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            other => other?,
        }
        Ok(Some(lock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What can't be removed expires.
        disk::remove(&self.directory).ok();
    }
}

/// An owner that can't be read has died between two calls, or its clock is far ahead: then the directory's own age counts.
fn expired(directory: &Path, now: Timestamp) -> bool {
    let owner = fs::read(directory.join("owner.json")).ok();
    let owner: Option<Owner> = owner.and_then(|text| serde_json::from_slice(&text).ok());
    let age = fs::metadata(directory).and_then(|found| found.modified()).ok();
    let age = age.and_then(|at| at.elapsed().ok()).unwrap_or_default();
    let old = age > Duration::from_secs(LIFE.unsigned_abs());
    owner.is_some_and(|owner| owner.expires < now) || old
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_expires_with_its_owner() {
        let place = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-09-01T12:00:00Z".parse().unwrap();
        let held = Lock::take(place.path(), "a", now).unwrap().unwrap();
        assert!(Lock::take(place.path(), "b", now).unwrap().is_none());
        std::mem::forget(held);
        let later = Timestamp::from_second(now.as_second() + LIFE + 1).unwrap();
        let taken = Lock::take(place.path(), "b", later).unwrap().unwrap();
        drop(taken);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
