//! What the children of a node do: every call that a dead server could hold up.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, statat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

use super::linux::{self, Unmount};
use super::{MountError, NfsMount, mount_detached};
use crate::volume::Usage;

/// One call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Job {
    /// Mount an export at a directory that is there.
    Stage {
        /// What and how.
        mount: Box<NfsMount>,
        /// Where.
        target: PathBuf,
    },
    /// Show what is at `source` at `target` too, which is made if it is missing.
    Bind {
        /// A mount point.
        source: PathBuf,
        /// Where.
        target: PathBuf,
        /// Whether nobody may write there.
        read_only: bool,
    },
    /// Make the directory `target`, if it is missing, for something to be mounted at.
    Prepare {
        /// The directory.
        target: PathBuf,
    },
    /// Look whether something may be mounted at `target`.
    Check {
        /// The directory.
        target: PathBuf,
    },
    /// Unmount what is at `target`.
    Unmount {
        /// Where.
        target: PathBuf,
        /// How.
        how: Unmount,
        /// Whether the directory goes too, once nothing is mounted there.
        remove: bool,
    },
    /// Remove the directory `target`, if it is there and empty.
    Remove {
        /// The directory.
        target: PathBuf,
    },
    /// Follow the links on the way to `path`, but not in its last name.
    Resolve {
        /// The path.
        path: PathBuf,
    },
    /// statfs(2), the one question that always goes to the server.
    Measure {
        /// A mount point.
        path: PathBuf,
    },
}

/// What came of it; one variant per kind of result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// Of [`Job::Stage`], [`Job::Bind`], [`Job::Prepare`] and [`Job::Check`].
    Mounted(Result<(), MountError>),
    /// Of [`Job::Remove`]: the error's number.
    Done(Result<(), i32>),
    /// Of [`Job::Unmount`]: whether the directory is gone too, or the error's number.
    Unmounted(Result<bool, i32>),
    /// Of [`Job::Resolve`]: the path without links, or why there is none.
    Path(Result<PathBuf, String>),
    /// Of [`Job::Measure`]: the error's number.
    Usage(Result<Usage, i32>),
}

/// Does a job. Runs in a child.
pub fn answer(job: Job) -> Answer {
    match job {
        Job::Stage { mount, target } => Answer::Mounted(stage(&mount, &target)),
        Job::Bind { source, target, read_only } => Answer::Mounted(bind(&source, &target, read_only)),
        Job::Prepare { target } => Answer::Mounted(prepare(&target)),
        Job::Check { target } => Answer::Mounted(usable(&target)),
        Job::Unmount { target, how, remove: and_remove } => {
            let done = linux::unmount(&target, how).map(|()| and_remove && remove(&target).is_ok());
            Answer::Unmounted(done.map_err(Errno::raw_os_error))
        }
        Job::Remove { target } => Answer::Done(remove(&target).map_err(Errno::raw_os_error)),
        Job::Resolve { path } => Answer::Path(resolve(&path)),
        Job::Measure { path } => Answer::Usage(measure(&path).map_err(Errno::raw_os_error)),
    }
}

fn at(target: &Path) -> impl Fn(String) -> MountError + '_ {
    |why| MountError::Target { target: target.display().to_string(), why }
}

fn stage(mount: &NfsMount, target: &Path) -> Result<(), MountError> {
    usable(target)?;
    let detached = mount_detached(mount)?;
    linux::attach(detached.as_fd(), target)
        .map_err(|errno| at(target)(format!("can't be mounted at: {errno}")))
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), MountError> {
    prepare(target)?;
    let mut flags = MountAttrFlags::empty();
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    linux::bind(source, target, flags).map_err(|errno| {
        // What was made for this is taken away again; it fails only where somebody else has begun to use it.
        remove(target).ok();
        at(target)(format!("{} can't be bound to it: {errno}", source.display()))
    })
}

/// Makes `target` unless it is there; its parent is the caller's to make (CSI specification, NodePublishVolume).
fn prepare(target: &Path) -> Result<(), MountError> {
    match rustix::fs::mkdir(target, Mode::from_raw_mode(0o750)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => usable(target),
        Err(Errno::NOENT) => Err(at(target)("its parent directory does not exist".to_owned())),
        Err(errno) => Err(at(target)(format!("can't be made: {errno}"))),
    }
}

/// Whether something may be mounted over `target`: an empty directory, not a link to one.
fn usable(target: &Path) -> Result<(), MountError> {
    let stat = statat(rustix::fs::CWD, target, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT);
    let kind = match stat {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Err(at(target)("does not exist".to_owned())),
        Err(errno) => return Err(at(target)(errno.to_string())),
    };
    match kind {
        FileType::Directory => {}
        FileType::Symlink => return Err(at(target)("is a symbolic link; a directory is needed".to_owned())),
        _ => return Err(at(target)("is a file; a directory is needed".to_owned())),
    }
    let mut entries = std::fs::read_dir(target).map_err(|error| at(target)(error.to_string()))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(at(target)("is not empty: what lies in it would be hidden by the volume".to_owned())),
    }
}

fn remove(target: &Path) -> rustix::io::Result<()> {
    match rustix::fs::rmdir(target) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn resolve(path: &Path) -> Result<PathBuf, String> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err("it is not the path of a directory below another".to_owned());
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        // Nothing is mounted below a directory that isn't there; whoever needs it there will say so.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn measure(path: &Path) -> rustix::io::Result<Usage> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Usage {
        total: bytes(stat.f_blocks),
        used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        available: bytes(stat.f_bavail),
        inodes: stat.f_files,
        inodes_used: stat.f_files.saturating_sub(stat.f_ffree),
        inodes_free: stat.f_ffree,
    })
}

/// The life of a node's child: one job at a time, until its parent ends.
pub fn work() -> std::io::Result<()> {
    crate::child::serve(1, answer)
}
