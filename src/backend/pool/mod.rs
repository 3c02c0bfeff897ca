//! Volumes in a file system that Kuration owns: what that file system does best, found by probing.
//!
//! Here a volume is reached by a bind mount on the pool's own machine. Serving it to others over NFS will be a room of its
//! own beside `fs`, which opens and closes exports as volumes are published; nothing else needs to change for it.

pub mod fs;
pub mod image;
mod ioctl;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::store::Store;
use super::{Answer, Ask, Backend, FindError, Handle, Job, Local, Place, Reaped, Trouble};
use crate::mount::table;
use crate::plan::Origin;
use crate::volume::{Directory, Export, Kind, MountOptions, SecretOptions, Usage, VolumeId};

/// One pool.
pub struct Pool {
    store: Arc<Store>,
    root: PathBuf,
    /// The pool's superblock, and the pool's root in it, as the mount table has them.
    device: String,
    within: PathBuf,
    enforcement: Result<(), String>,
}

/// Why a pool can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Its directory.
    #[error("the pool's directory {}: {error}", .directory.display())]
    Directory {
        /// Which one.
        directory: PathBuf,
        /// The kernel's words.
        error: std::io::Error,
    },
    /// Its volumes are in an image that isn't asked for.
    #[error(
        "{} holds {}: this pool's volumes are in that image; start with --pool-image (any size: it keeps its own)",
        .0.display(), image::IMAGE
    )]
    Image(PathBuf),
    /// Its place in the mount table.
    #[error("the pool's directory {} is in no mount that /proc/self/mountinfo shows", .0.display())]
    NoMount(PathBuf),
}

impl Pool {
    /// Opens the pool in `directory`, of which `overcommit` times its size may be promised.
    pub fn open(directory: &Path, installation: String, overcommit: f64) -> Result<Self, PoolError> {
        let fail = |error: std::io::Error| PoolError::Directory { directory: directory.to_owned(), error };
        let root = directory.canonicalize().map_err(fail)?;
        if root.join(image::IMAGE).exists() {
            return Err(PoolError::Image(root));
        }
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let opened: OwnedFd =
            rustix::fs::open(&root, flags, rustix::fs::Mode::empty()).map_err(|e| fail(e.into()))?;
        let mounts = table::read().map_err(fail)?;
        let (device, within) = place_of(&root, &mounts).ok_or_else(|| PoolError::NoMount(root.clone()))?;
        let probed = fs::probe(opened.as_fd()).map_err(|errno| fail(errno.into()))?;
        let enforcement = if probed.file_system.enforces() { Ok(()) } else { Err(probed.why.clone()) };
        tracing::info!(
            pool = %root.display(), file_system = probed.file_system.name(), why = %probed.why, "pool opened"
        );
        let place = format!("pool {}", root.display());
        let store = Arc::new(Store::new(opened, place, installation, probed.file_system, Some(overcommit)));
        Ok(Self { store, root, device, within, enforcement })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.map_err(|error| Trouble::Own(format!("the pool's work broke off: {error}")))
    }
}

/// The superblock that `path` is on, and `path` in it.
fn place_of(path: &Path, mounts: &[table::Entry]) -> Option<(String, PathBuf)> {
    // The longest mount point above it; of several at one place, the uppermost, which is the last.
    let above = mounts.iter().filter(|entry| path.starts_with(&entry.target));
    let entry = above.max_by_key(|entry| entry.target.components().count())?;
    let rest = path.strip_prefix(&entry.target).ok()?;
    Some((entry.device.clone(), join(&entry.root, rest)))
}

/// `root/rest` without a slash at its end.
fn join(root: &Path, rest: &Path) -> PathBuf {
    root.join(rest).components().collect()
}

/// Tells a thread, which nobody can end from outside, that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl Backend for Pool {
    fn kind(&self) -> Kind {
        Kind::Pool
    }

    async fn run(&self, _: &Place, ask: Ask, _: Instant) -> Result<Answer, Trouble> {
        // To its end, whatever the deadline: the request is answered in time all the same, and the next one for this volume
        // waits for this work.
        self.blocking(move |store| store.answer(ask)).await
    }

    fn place(&self, _: Option<&Export>, _: &MountOptions, _: &SecretOptions) -> Option<Place> {
        Some(Place::Pool)
    }

    fn places(&self) -> Vec<Place> {
        vec![Place::Pool]
    }

    fn locate(&self, handle: &Handle) -> Result<Option<Place>, Trouble> {
        Ok(matches!(handle.id, VolumeId::Pool { .. }).then_some(Place::Pool))
    }

    async fn reap(&self, _: &Place, lifetime: Option<u64>) -> Result<Reaped, Trouble> {
        let stop = Arc::new(AtomicBool::new(false));
        let _dropped = StopOnDrop(Arc::clone(&stop));
        self.blocking(move |store| store.reap(lifetime, &|| stop.load(Ordering::Relaxed))).await?
    }

    async fn local(&self, id: &VolumeId) -> Result<Option<Local>, FindError> {
        if !matches!(id, VolumeId::Pool { .. }) {
            return Err(FindError::NotFound);
        }
        let ask = Ask { identity: id.identity(), job: Job::Find { key: id.key() } };
        let (device, within) = (self.device.clone(), self.within.clone());
        self.blocking(move |store| {
            let volume = match store.answer(ask) {
                Answer::Find(found) => found?.1,
                Answer::Refused(trouble) => return Err(trouble.into()),
                _ => return Err(Trouble::Own("a store answered another question".to_owned()).into()),
            };
            let directory: &Directory = &volume.record.directory;
            let root = join(&within, Path::new(directory.as_str()));
            let origin = Origin::Local { device, root };
            Ok(Some(Local { directory: store.open(directory)?, origin, volume }))
        })
        .await?
    }

    async fn usage(&self, local: Local) -> Result<Usage, Trouble> {
        let place = self.root.display().to_string();
        self.blocking(move |store| {
            let record = &local.volume.record;
            let usage = store.file_system().usage(local.directory.as_fd(), record.quota_id, record.capacity);
            usage.map_err(|errno| Trouble::Io {
                place,
                doing: "measuring the volume".to_owned(),
                error: errno.to_string(),
            })
        })
        .await?
    }

    fn enforcement(&self) -> Result<(), String> {
        self.enforcement.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_found_in_the_mount_that_holds_it() {
        let table = table::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n40 22 0:42 /sub /data rw - btrfs /dev/sdb rw\n",
        );
        let place = |path: &str| place_of(Path::new(path), &table);
        assert_eq!(place("/data/pool"), Some(("0:42".into(), "/sub/pool".into())));
        assert_eq!(place("/data"), Some(("0:42".into(), "/sub".into())));
        assert_eq!(place("/database"), Some(("8:1".into(), "/database".into())));
    }
}
