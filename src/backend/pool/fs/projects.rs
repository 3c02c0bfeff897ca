//! Project ids, each of which belongs to one volume.
//!
//! An id is reserved by a note `.kuration/projects/ID`, a symbolic link that says the volume's key: making one is a single
//! step that only one of many controllers can win, and the note outlives all of them. Where to look first follows from
//! the key, so an interrupted try finds its own note again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::{Errno, Result};

use crate::volume::Key;

/// Ids are 1 to 2^31 - 1. 0 is the project of all that has none, and some tools take ids for signed numbers.
const HIGHEST: u32 = i32::MAX as u32;

/// Which note: its inode number, which may be used again, and the time when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note(u64, i64, u64);

/// The notes of one pool.
pub(super) struct Projects {
    root: OwnedFd,
}

impl Projects {
    /// Those beneath `root`, whose directory is made when the first id is needed.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    /// The root of the pool.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The id of the volume `key`: the one that is noted for it, or a new one for which `foreign` says no. An id can be in
    /// use without a note: by another pool on the same file system, or by an administrator's own projects.
    pub(super) fn reserve(&self, key: &Key, foreign: impl Fn(u32) -> Result<bool>) -> Result<u32> {
        let notes = self.notes()?;
        let key_text = key.to_string();
        let mut id = first(&key_text);
        loop {
            match symlinkat(&key_text, &notes, id.to_string()) {
                Ok(()) => match foreign(id) {
                    Ok(false) => return Ok(id),
                    other => {
                        self.release(id)?;
                        other?;
                    }
                },
                Err(Errno::EXIST) if self.owner(id)?.as_deref() == Some(&key_text) => return Ok(id),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            id = id % HIGHEST + 1;
        }
    }

    /// The key that an id is noted for; `None` where it is free.
    pub(super) fn owner(&self, id: u32) -> Result<Option<String>> {
        match readlinkat(self.notes()?, id.to_string(), Vec::new()) {
            Ok(key) => Ok(Some(key.to_string_lossy().into_owned())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What tells the note of an id from a later one of the same id; `None` where it is free.
    pub(super) fn note(&self, id: u32) -> Result<Option<Note>> {
        match statat(self.notes()?, id.to_string(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Note(stat.st_ino, stat.st_ctime, stat.st_ctime_nsec))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Frees an id.
    pub(super) fn release(&self, id: u32) -> Result<()> {
        match unlinkat(self.notes()?, id.to_string(), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn notes(&self) -> Result<OwnedFd> {
        let (own, notes) = (".kuration", ".kuration/projects");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = |path| openat2(&self.root, path, flags, Mode::empty(), beneath);
        let make = |parent: &OwnedFd, name| match mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        };
        match open(notes) {
            Err(Errno::NOENT) => {
                make(&self.root, own)?;
                make(&open(own)?, "projects")?;
                open(notes)
            }
            other => other,
        }
    }
}

/// Where to look first: 31 bits of the key, which is a hash.
fn first(key: &str) -> u32 {
    u32::from_str_radix(&key[..8], 16).unwrap_or(0) % HIGHEST + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn projects() -> (tempfile::TempDir, Projects) {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(directory.path()).unwrap();
        (directory, Projects::new(root.into()))
    }

    fn reserve(projects: &Projects, key: &Key) -> u32 {
        projects.reserve(key, |_| Ok(false)).unwrap()
    }

    #[test]
    fn a_second_try_finds_its_own_id() {
        let (_directory, projects) = projects();
        let key = Key::of("i", "a");
        let id = reserve(&projects, &key);
        assert_eq!(reserve(&projects, &key), id);
        assert_eq!(projects.owner(id).unwrap(), Some(key.to_string()));
        let note = projects.note(id).unwrap();
        projects.release(id).unwrap();
        projects.release(id).unwrap();
        assert_eq!((projects.owner(id), projects.note(id)), (Ok(None), Ok(None)));
        assert_eq!(reserve(&projects, &key), id);
        assert!(note.is_some() && projects.note(id).unwrap() != note);
    }

    #[test]
    fn an_id_that_is_taken_is_passed_over() {
        let (directory, projects) = projects();
        let key = Key::of("i", "a");
        let id = reserve(&projects, &key);
        projects.release(id).unwrap();
        std::os::unix::fs::symlink("f".repeat(32), directory.path().join(format!(".kuration/projects/{id}")))
            .unwrap();
        assert_eq!(reserve(&projects, &key), id + 1);
    }

    #[test]
    fn an_id_in_foreign_use_is_passed_over_and_not_kept() {
        let (_directory, projects) = projects();
        let key = Key::of("i", "a");
        let first = first(&key.to_string());
        assert_eq!(projects.reserve(&key, |id| Ok(id == first)), Ok(first + 1));
        assert_eq!(projects.owner(first), Ok(None));
    }

    #[test]
    fn ids_that_cant_be_looked_up_are_not_kept() {
        let (_directory, projects) = projects();
        let key = Key::of("i", "a");
        assert_eq!(projects.reserve(&key, |_| Err(Errno::PERM)), Err(Errno::PERM));
        assert_eq!(projects.owner(first(&key.to_string())), Ok(None));
    }

    #[test]
    fn ids_are_never_0_and_never_negative() {
        assert_eq!(first("00000000"), 1);
        assert!((1..=HIGHEST).contains(&first("ffffffff")));
        assert!((1..=HIGHEST).contains(&first("7fffffff")));
    }

    #[test]
    fn many_at_once_get_an_id_each() {
        let (_directory, projects) = projects();
        // All of one key would share; keys whose first digits are the same compete for the same ids.
        let keys: Vec<Key> = (0..16).map(|n| format!("abcdef01{n:024x}").parse().unwrap()).collect();
        let ids: HashSet<u32> = std::thread::scope(|scope| {
            let tries: Vec<_> = keys.iter().map(|key| scope.spawn(|| reserve(&projects, key))).collect();
            tries.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(ids.len(), keys.len());
    }
}
