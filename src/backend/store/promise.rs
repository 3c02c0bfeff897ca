//! What may be promised to volumes in all.
//!
//! A volume's size counts from its reservation on, so the lock is held for a look at all sizes and the writing of one file:
//! what is slow in making a volume, the syncs (that file's, too), is done by as many at once as there are. As long as nobody else
//! promises, a look is good for ten seconds and as much as it found to be spare.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::{Errno, dup, pread, pwrite};

use super::create::{is_beside, key_of};
use super::lock::PromiseLock;
use super::reap::Due;
use super::trees::{INSTALLATIONS, Trees};
use super::{Store, tree};
use crate::backend::{CapacityFault, Room, Trouble};
use crate::plan;
use crate::volume::Key;

/// What a store is known by in the pool's lock file.
pub(super) type Token = [u8; 16];

/// The sizes of the records in one directory: inode and bytes, by file name.
pub(super) type Sizes = HashMap<String, (u64, u64)>;

/// What was read of one directory of records.
#[derive(Default)]
pub(super) struct Shelf {
    sizes: Arc<Sizes>,
    /// When the directory was last changed, where its next change can't have the same time.
    settled: Option<(i64, i64)>,
}

/// How long ago a directory's last change must be for the next one to have another time: file systems' clocks tick every few
/// milliseconds, and some write down seconds. In seconds.
const TICK: i64 = 3;

/// How long a look at the sizes is good for. Somebody may make the file system smaller.
const FRESH: Duration = Duration::from_secs(10);

/// What came of asking for space.
pub(super) enum Promise<'store> {
    /// It can be had, and nobody else promises any until the lock is dropped; a share promises nothing, and locks nothing.
    Kept(Option<PromiseLock<'store>>),
    /// There is not so much.
    TooLarge { available: u64 },
}

impl Store {
    /// Sees to it that `more` bytes can be promised to the volume `key`. That is a look at all sizes and then one more, so
    /// the lock is to be held until that one is on record.
    pub(super) fn promise(&self, trees: &Trees, key: Key, more: u64) -> Result<Promise<'_>, Trouble> {
        if self.overcommit.is_none() {
            return Ok(Promise::Kept(None));
        }
        loop {
            let lock = self.lock_promises()?;
            if self.has_promised_last(&lock) && self.take_spare(more) {
                return Ok(Promise::Kept(Some(lock)));
            }
            let available = self.promisable(Some(key))?;
            if more > available {
                return Ok(Promise::TooLarge { available });
            }
            // Trash is promised to nobody, and takes space all the same. Where sizes are enforced, each volume must find
            // what it was promised, so trash that stands in the way goes before its lifetime is over. Where they are not,
            // only what is free was promised, and trash is not.
            let trash = if self.file_system.enforces() {
                sum(self.sizes(&self.installation, "trash")?.values())
            } else {
                0
            };
            if trash == 0 || more.saturating_add(trash) <= available {
                self.promises_now(&lock).map_err(self.trouble("noting who promised space last"))?;
                let spare = available.saturating_sub(trash.saturating_add(more));
                *self.spare.lock() = self.file_system.enforces().then(|| (spare, Instant::now()));
                return Ok(Promise::Kept(Some(lock)));
            }
            // That may take minutes, for which nobody else must wait; what happened meanwhile, the next look tells.
            drop(lock);
            let emptied = self.empty_trash(trees, Due::All, &|| false);
            if let Some(trouble) = emptied.trouble {
                return Err(trouble);
            }
            tracing::info!(volumes = emptied.removed, "trash removed early: a new volume needs its space");
        }
    }

    /// Whether all that was promised since this store's last look at the sizes was promised by it: the pool's lock file says who was
    /// the last. Nobody's token outlives its process, so this need not outlast anything.
    fn has_promised_last(&self, lock: &PromiseLock<'_>) -> bool {
        let mut last = Token::default();
        let read = pread(lock.file(), &mut last, 0);
        self.token.is_some_and(|token| read == Ok(token.len()) && last == token)
    }

    fn promises_now(&self, lock: &PromiseLock<'_>) -> rustix::io::Result<()> {
        let token = self.token.unwrap_or_default();
        if pwrite(lock.file(), &token, 0)? == token.len() { Ok(()) } else { Err(Errno::IO) }
    }

    /// Takes `more` of the space that the last look found to be spare, if that was a moment ago, and there is so much. A delete only
    /// makes more of it: what goes from the volumes into the trash is promised no longer, and in the way as before.
    fn take_spare(&self, more: u64) -> bool {
        let mut spare = self.spare.lock();
        let taken = spare.filter(|(_, looked)| looked.elapsed() < FRESH);
        let left = taken.and_then(|(bytes, looked)| Some((bytes.checked_sub(more)?, looked)));
        *spare = left;
        left.is_some()
    }

    pub(super) fn capacity(&self) -> Result<Room, CapacityFault> {
        if self.overcommit.is_none() {
            let (total, free) = self.room()?;
            return Ok(Room { available: free, largest: total });
        }
        let available = self.promisable(None)?;
        Ok(Room { available, largest: available })
    }

    fn room(&self) -> Result<(u64, u64), Trouble> {
        self.file_system.room(self.root.as_fd()).map_err(self.trouble("asking for free space"))
    }

    /// Bytes that may still be promised, to the volume `key` if one is named.
    fn promisable(&self, key: Option<Key>) -> Result<u64, Trouble> {
        let (total, free) = self.room()?;
        let ratio = self.overcommit.unwrap_or(1.0);
        Ok(plan::promisable(total, free, self.promised(key)?, ratio, self.file_system.enforces()))
    }

    /// The sum of the sizes of all volumes and of those being made, of every installation: the pool is one. What `key` has
    /// reserved is left out, for its creation asks for all of it, also where an earlier try died.
    fn promised(&self, key: Option<Key>) -> Result<u64, Trouble> {
        let doing = self.trouble("reading the installations");
        let all = match tree::open_directory(self.root.as_fd(), INSTALLATIONS) {
            Ok(all) => all,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(doing(errno)),
        };
        let key = key.map(|key| key.to_string());
        let mut promised: u64 = 0;
        for (installation, _) in tree::names(all).map_err(&doing)? {
            // In this order: a commit links the record first, and removes the reservation then.
            let reserved = self.sizes(&installation, "reserved")?;
            let volumes = self.sizes(&installation, "volumes")?;
            let making = reserved.iter().filter(|(name, _)| {
                let of = key_of(name);
                key.as_deref() != Some(of) && !volumes.contains_key(of)
            });
            let making = sum(making.map(|(_, size)| size));
            promised = promised.saturating_add(sum(volumes.values())).saturating_add(making);
        }
        Ok(promised)
    }

    /// The sizes that the records on a shelf of an installation say. One that can't be read makes all of it an error, which
    /// names it: left out, its space would be promised a second time.
    fn sizes(&self, installation: &str, shelf: &str) -> Result<Arc<Sizes>, Trouble> {
        let doing = self.trouble("reading the volumes' sizes");
        let path = format!("{INSTALLATIONS}/{installation}/{shelf}");
        let directory = match tree::open_directory(self.root.as_fd(), &path) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Arc::default()),
            Err(errno) => return Err(doing(errno)),
        };
        // Before the names are read: what changes meanwhile has a later time.
        let changed = tree::changed(directory.as_fd()).map_err(&doing)?;
        let known = match self.sizes.lock().get(&path) {
            // The trash above all, which may hold thousands and mostly lies still while volumes are made.
            Some(shelf) if shelf.settled == Some(changed) => return Ok(Arc::clone(&shelf.sizes)),
            Some(shelf) => Arc::clone(&shelf.sizes),
            None => Arc::default(),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(changed.0);
        let settled = (age > TICK).then_some(changed);
        // Its records are opened by it afterwards.
        let mut names = dup(&directory).and_then(tree::names).map_err(&doing)?;
        match shelf {
            // Directories lie beside their records there.
            "trash" => names.retain(|(name, _)| name.ends_with(".json")),
            // What waits to replace a record is none yet.
            "reserved" => names.retain(|(name, _)| !is_beside(name)),
            _ => {}
        }
        let mut sizes = Sizes::with_capacity(names.len());
        for (name, inode) in names {
            let bytes = match known.get(&name) {
                Some((of, bytes)) if *of == inode => *bytes,
                _ => match tree::read(directory.as_fd(), &name) {
                    Ok(Some(content)) => match self.parse(installation, shelf, &name, &content) {
                        Ok(record) => record.capacity,
                        // Its writer died over it, and made nothing.
                        Err(_) if shelf == "reserved" => 0,
                        Err(trouble) => return Err(trouble),
                    },
                    // Deleted meanwhile.
                    Ok(None) => continue,
                    Err(error) => return Err(self.trouble_io("reading a record")(error)),
                },
            };
            sizes.insert(name, (inode, bytes));
        }
        let sizes = Arc::new(sizes);
        self.sizes.lock().insert(path, Shelf { sizes: Arc::clone(&sizes), settled });
        Ok(sizes)
    }
}

fn sum<'size>(sizes: impl Iterator<Item = &'size (u64, u64)>) -> u64 {
    sizes.fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes))
}
