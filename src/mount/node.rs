//! What a node plugin asks of the mounts of its machine, each with an answer in time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use tokio::time::Instant;

use super::ladder::{self, FLUSH, PLAIN};
use super::linux::{self, Unmount};
use super::ping;
use super::table::{self, Entry};
use super::{Answer, Found, Job, MountError, Rung, negotiate};
use crate::child::{Crew, Lost};
use crate::volume::{Export, MountOptions, SecretOptions, Usage};

/// Mounts, binds, measures and unmounts by its crew of children.
#[derive(Clone)]
pub struct Mounter {
    crew: Arc<Crew<Job, Answer>>,
    /// Superblocks of dead servers of which a mount was detached: out of sight, a process may hang on it.
    haunted: Arc<Mutex<HashSet<String>>>,
}

/// A call on a healthy local file system takes microseconds; a directory that lies on a dead mount never answers.
const LOCAL: Duration = Duration::from_secs(5);

/// A statfs of a living server takes a millisecond; one that needs this long is as good as dead.
const MEASURE: Duration = Duration::from_secs(3);

/// Why a path can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It is not one that can be.
    #[error("{0}")]
    Path(String),
    /// What lies on the way to it does not answer.
    #[error("{0} when it was looked at")]
    Lost(Lost),
}

/// Why something is still mounted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnmountError {
    /// A process on this machine uses it, and the server is well: force would lose its data.
    #[error("{target} is in use by a process on this node; it is unmounted when that process has left it")]
    Busy {
        /// The mount point.
        target: String,
    },
    /// Anything else.
    #[error("{target}: {why}")]
    Other {
        /// The mount point.
        target: String,
        /// What happened.
        why: String,
    },
}

impl Mounter {
    /// A mounter with its first child started.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { crew: Arc::new(Crew::new("mount")?), haunted: Arc::default() })
    }

    /// Lets children go that have had nothing to do for a while.
    pub fn retire(&self) {
        self.crew.retire();
    }

    /// `path` without links on the way to it, as the mount table has it.
    pub async fn resolve(&self, path: &Path) -> Result<PathBuf, ResolveError> {
        if path.parent().is_some_and(linux::is_plain) {
            return Ok(path.to_owned());
        }
        let job = Job::Resolve { path: path.to_owned() };
        match self.crew.run(&job, Instant::now() + LOCAL).await {
            Ok(Answer::Path(answer)) => answer.map_err(ResolveError::Path),
            Ok(_) | Err(Lost::Died) => Err(ResolveError::Lost(Lost::Died)),
            Err(lost) => Err(ResolveError::Lost(lost)),
        }
    }

    /// Mounts `path` of `export` at `target`, with a superblock of its own.
    pub async fn stage(
        &self,
        export: &Export,
        path: &str,
        options: (&MountOptions, &SecretOptions),
        read_only: bool,
        target: &Path,
        deadline: Instant,
    ) -> Result<Found, MountError> {
        negotiate(export, path, options, (read_only, true), deadline, |mount, until| {
            let target = target.to_owned();
            async move {
                let began = Instant::now();
                let (source_, address) = (mount.source.clone(), mount.address.to_string());
                let job = Job::Stage { mount: Box::new(mount), target };
                self.mounted(&job, until).await.unwrap_or_else(|lost| {
                    Err(match lost {
                        Lost::Deadline => {
                            MountError::TimedOut { source_, address, seconds: began.elapsed().as_secs() }
                        }
                        Lost::Died => MountError::Other { source_, why: lost.to_string() },
                    })
                })
            }
        })
        .await
    }

    /// Shows what is mounted at `source` at `target` too.
    pub async fn bind(
        &self,
        source: &Path,
        target: &Path,
        read_only: bool,
        deadline: Instant,
    ) -> Result<(), MountError> {
        let job = Job::Bind { source: source.to_owned(), target: target.to_owned(), read_only };
        let began = Instant::now();
        self.mounted(&job, deadline).await.unwrap_or_else(|lost| {
            let source_ = source.display().to_string();
            Err(match lost {
                Lost::Deadline => {
                    let address = "binding it".to_owned();
                    MountError::TimedOut { source_, address, seconds: began.elapsed().as_secs() }
                }
                Lost::Died => MountError::Other { source_, why: lost.to_string() },
            })
        })
    }

    /// Makes the directory `target` unless it is there, in one that is.
    pub async fn prepare(&self, target: &Path, deadline: Instant) -> Result<(), MountError> {
        self.looked_at(target, Job::Prepare { target: target.to_owned() }, deadline).await
    }

    /// Whether something may be mounted at `target`: an empty directory.
    pub async fn check(&self, target: &Path, deadline: Instant) -> Result<(), MountError> {
        self.looked_at(target, Job::Check { target: target.to_owned() }, deadline).await
    }

    async fn looked_at(&self, target: &Path, job: Job, deadline: Instant) -> Result<(), MountError> {
        self.mounted(&job, deadline).await.unwrap_or_else(|lost| {
            Err(MountError::Target { target: target.display().to_string(), why: lost.to_string() })
        })
    }

    async fn mounted(&self, job: &Job, deadline: Instant) -> Result<Result<(), MountError>, Lost> {
        match self.crew.run(job, deadline).await? {
            Answer::Mounted(answer) => Ok(answer),
            _ => Err(Lost::Died),
        }
    }

    /// What the file system mounted at `path` says of its size; an error's words where it does not.
    pub async fn measure(&self, path: &Path) -> Result<Usage, MeasureError> {
        let job = Job::Measure { path: path.to_owned() };
        match self.crew.run(&job, Instant::now() + MEASURE).await {
            Ok(Answer::Usage(Ok(usage))) => Ok(usage),
            Ok(Answer::Usage(Err(number))) => Err(match Errno::from_raw_os_error(number) {
                Errno::STALE | Errno::NOENT => MeasureError::Gone,
                errno => MeasureError::Failed(errno),
            }),
            Ok(_) | Err(Lost::Died) => Err(MeasureError::Failed(Errno::IO)),
            Err(Lost::Deadline) => Err(MeasureError::Hung(MEASURE.as_secs())),
        }
    }

    /// Unmounts whatever is at `target`, all of it if several are stacked there, and removes the directory if `remove`.
    ///
    /// Where the server is well and a process uses the mount, that is the answer. Where it is not, the ladder is climbed.
    pub async fn unmount(&self, target: &Path, remove: bool) -> Result<Rung, UnmountError> {
        let other = |why: String| UnmountError::Other { target: target.display().to_string(), why };
        let mut highest = Rung::Nothing;
        // Every turn takes one mount away, or ends; a table with more than this many at one place is no longer ours to mend.
        for _ in 0..16 {
            let table = table::read().map_err(|error| other(error.to_string()))?;
            let Some(entry) = table::at(&table, target) else {
                return if remove { self.remove(target).await.map(|()| highest) } else { Ok(highest) };
            };
            let (rung, removed) = self.unmount_one(entry, &table, remove).await?;
            highest = rung;
            if removed {
                return Ok(highest);
            }
        }
        Err(other("mounts are stacked there without end".to_owned()))
    }

    fn haunted(&self) -> MutexGuard<'_, HashSet<String>> {
        self.haunted.lock()
    }

    async fn remove(&self, target: &Path) -> Result<(), UnmountError> {
        let other = |why: String| UnmountError::Other { target: target.display().to_string(), why };
        let job = Job::Remove { target: target.to_owned() };
        match self.crew.run(&job, Instant::now() + LOCAL).await {
            Ok(Answer::Done(Ok(()))) => Ok(()),
            Ok(Answer::Done(Err(number))) => {
                let errno = Errno::from_raw_os_error(number);
                Err(other(format!("nothing is mounted there, and it can't be removed: {errno}")))
            }
            Ok(_) | Err(_) => Err(other("it can't be removed".to_owned())),
        }
    }

    /// Whether the server of a mount that is being taken away answers. Where it is out of the table already, what can be asked
    /// at its place is another file system.
    async fn lives(&self, entry: &Entry) -> bool {
        let seen = table::read().is_ok_and(|table| table.iter().any(|other| other.id == entry.id));
        if seen { self.measure(&entry.target).await.is_ok() } else { ping::answers(entry, MEASURE).await }
    }

    /// One mount less, by which rung, and whether the directory is gone too.
    async fn unmount_one(
        &self,
        entry: &Entry,
        table: &[Entry],
        remove: bool,
    ) -> Result<(Rung, bool), UnmountError> {
        let target = entry.target.as_path();
        let other = |why: String| UnmountError::Other { target: target.display().to_string(), why };
        let shared = table.iter().any(|other| other.device == entry.device && other.id != entry.id);
        let job = |how| Job::Unmount { target: target.to_owned(), how, remove };
        // The last mount that can be seen would go without resistance, and leave those that hang on others to hang.
        let haunted = !shared && self.haunted().remove(&entry.device);
        if !haunted || !matches!(self.measure(target).await, Err(MeasureError::Hung(_))) {
            let lives = async { !entry.is_nfs() || self.lives(entry).await };
            // What was written and not yet sent goes to the server now, which may take a living one a while.
            match self.crew.run_patiently(&job(Unmount::Plain), PLAIN, lives, FLUSH).await {
                Ok(Answer::Unmounted(Ok(removed))) => return Ok((Rung::Plain, removed)),
                Ok(Answer::Unmounted(Err(number))) => match Errno::from_raw_os_error(number) {
                    // Unmounted by somebody else meanwhile.
                    Errno::INVAL | Errno::NOENT => return Ok((Rung::Plain, false)),
                    Errno::BUSY if !entry.is_nfs() || self.measure(target).await.is_ok() => {
                        return Err(UnmountError::Busy { target: target.display().to_string() });
                    }
                    Errno::BUSY => {}
                    errno => return Err(other(errno.to_string())),
                },
                Ok(_) | Err(Lost::Died) => {
                    return Err(other("the child process that unmounts it ended".to_owned()));
                }
                Err(Lost::Deadline) if entry.is_nfs() => {}
                Err(Lost::Deadline) => return Err(other("its unmount did not come back".to_owned())),
            }
        }
        let climbed = ladder::climb(entry, shared, |how, limit| {
            let (crew, job) = (Arc::clone(&self.crew), job(how));
            async move {
                // What it says is not the question; the mount table is.
                drop(crew.run(&job, Instant::now() + limit).await);
            }
        });
        let rung = climbed.await.map_err(|error| other(error.to_string()))?;
        if shared && entry.is_nfs() {
            self.haunted().insert(entry.device.clone());
        }
        tracing::warn!(target = %target.display(), ?rung, "a mount whose server does not answer was taken away");
        Ok((rung, false))
    }
}

/// Why a mount can't be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// No answer.
    #[error("the server did not answer within {0} s")]
    Hung(u64),
    /// The server has no such directory any more.
    #[error("the volume's directory is gone on its server")]
    Gone,
    /// An error.
    #[error("{0}")]
    Failed(Errno),
}
