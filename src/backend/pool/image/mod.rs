//! A pool in a file: `--pool-image SIZE`, where the directory's own file system limits nothing.
//!
//! In the pool's directory stand `pool.img`, a sparse file that holds a file system, and `fs`, where that is mounted by way
//! of a loop device. The file gets its name only when its file system is complete and was seen to work, so what bears the
//! name is never formatted, whatever it holds. It is formatted by mkfs.xfs or mkfs.btrfs; all else is system calls.
//!
//! The mount outlives the process, as a mount does, and the next start finds it. The loop device lets go of the file by
//! itself when it is unmounted (`LO_FLAGS_AUTOCLEAR`), also where this process is killed half-way.

mod device;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags, statx};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use self::device::{BLOCK, Device, attach, attached};
use crate::mount::table;

/// The image, once it is complete.
pub const IMAGE: &str = "pool.img";
/// The image while it is made. What is found under this name was never in use.
const UNFINISHED: &str = "pool.img.new";
/// Where it is mounted.
const MOUNTED: &str = "fs";

/// A file system in a file, mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its top directory: the root of the pool.
    pub root: PathBuf,
    /// What is in it.
    pub kind: Kind,
    /// Its size in bytes. An image that was there keeps its own, whatever was asked for.
    pub size: u64,
}

/// Why an image can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A call failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was tried.
        doing: String,
        /// The kernel's words.
        error: io::Error,
    },
    /// The directory is in use as a pool already.
    #[error(
        "{0} holds volumes of a pool without an image, which an image would hide: start without --pool-image"
    )]
    Occupied(PathBuf),
    /// Something else is mounted there.
    #[error("{0} is a mount of {1}, not of this pool's image: unmount it, or choose another directory")]
    Mounted(PathBuf, String),
    /// The image is not one of ours.
    #[error("{0} holds neither xfs nor btrfs, and is left as it is: move it away to have a new one made")]
    Unknown(PathBuf),
    /// The image is of another kind than the one asked for.
    #[error("{path} holds {found}, not {asked}: ask for that, or move it away to have a new one made")]
    Another {
        /// The image.
        path: PathBuf,
        /// What is in it.
        found: &'static str,
        /// What was asked for.
        asked: &'static str,
    },
    /// It doesn't fit.
    #[error("an image of {wanted} bytes does not fit: {free} bytes are free in {directory}")]
    TooLarge {
        /// The size asked for.
        wanted: u64,
        /// What is free.
        free: u64,
        /// Where.
        directory: PathBuf,
    },
    /// No file system could be made.
    #[error("no file system with quota can be had for a pool image: {}", .0.join("; "))]
    NoFileSystem(Vec<String>),
}

/// Says what was tried when something fails.
trait Doing<T> {
    fn doing(self, what: impl Into<String>) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::Io { doing: what.into(), error: error.into() })
    }
}

/// A file system that can be in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// xfs with project quota.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl Kind {
    /// xfs first, since its limits show in `df`; its mount fails where the kernel's xfs has no quota.
    const ALL: [Self; 2] = [Self::Xfs, Self::Btrfs];

    /// Its name, as mount(2) knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The program that makes it, with arguments, and the package that has the program.
    fn mkfs(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Xfs => (&["mkfs.xfs", "-q", "-f", "-s", "size=4096", "-m", "reflink=1"], "xfsprogs"),
            Self::Btrfs => (&["mkfs.btrfs", "-q", "-f"], "btrfs-progs"),
        }
    }

    /// The bytes by which it is known, and where they are.
    fn magic(self) -> (u64, &'static [u8]) {
        match self {
            Self::Xfs => (0, b"XFSB"),
            Self::Btrfs => (0x1_0040, b"_BHRfS_M"),
        }
    }

    /// Mount options; a value follows `=`. What a volume frees is to be freed in the image, too.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Xfs => &["prjquota", "discard"],
            Self::Btrfs => &["discard=async"],
        }
    }
}

impl Image {
    /// The image in the directory `pool`, mounted: as it is, or attached again, or newly made with `size` bytes. Many may
    /// call this at once; all get the same.
    pub fn open(pool: &Path, size: u64) -> Result<Self, ImageError> {
        Self::open_as(pool, size, None)
    }

    /// The same, of this kind and no other.
    pub fn open_as(pool: &Path, size: u64, only: Option<Kind>) -> Result<Self, ImageError> {
        let shown = pool.display().to_string();
        let pool = pool.canonicalize().doing(format!("opening {shown}"))?;
        // Held until the mount stands. Not on the image: its loop device would hold the lock as long as it has the file.
        let directory = File::open(&pool).doing(format!("opening {shown}"))?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).doing(format!("locking {shown}"))?;
        let (path, root) = (pool.join(IMAGE), pool.join(MOUNTED));
        let mounting = || format!("mounting {} at {}", path.display(), root.display());
        let image = existing(&path).doing(format!("opening {}", path.display()))?;
        if image.is_none() && pool.join(".kuration").exists() {
            return Err(ImageError::Occupied(pool));
        }
        fs::create_dir_all(&root).doing(format!("making {}", root.display()))?;
        let source = mounted_at(&root).doing(format!("looking for a mount at {}", root.display()))?;
        let Some(image) = image else {
            if let Some(source) = source {
                return Err(ImageError::Mounted(root, source));
            }
            let (kind, size, file_system) = make(&pool, size, only)?;
            place(&file_system, &root).doing(mounting())?;
            return Ok(Self { root, kind, size });
        };
        let kind = kind_of(&image).doing(format!("reading {}", path.display()))?;
        let kind = kind.ok_or_else(|| ImageError::Unknown(path.clone()))?;
        if let Some(only) = only.filter(|only| *only != kind) {
            return Err(ImageError::Another { path, found: kind.name(), asked: only.name() });
        }
        let attached = attached(&image).doing("looking for the image's loop device")?;
        match (source, attached) {
            (Some(source), Some(device)) if source == device.path() => {}
            (Some(source), _) => return Err(ImageError::Mounted(root, source)),
            (None, attached) => {
                // A device that has the image already, mounted in another namespace perhaps, is used again: two devices
                // with one file would be two caches of the same blocks.
                let device = attached.map_or_else(|| attach(&image), Ok).doing(ATTACHING)?;
                let file_system = superblock(kind, &device).doing(mounting())?;
                place(&file_system, &root).doing(mounting())?;
            }
        }
        let size = image.metadata().doing(format!("asking {}", path.display()))?.len();
        Ok(Self { root, kind, size })
    }

    /// Unmounts it, which detaches the loop device. `EBUSY` while anything in it is open: a store holds its root.
    pub fn close(self) -> io::Result<()> {
        Ok(mount::unmount(&self.root, UnmountFlags::NOFOLLOW)?)
    }
}

const ATTACHING: &str =
    "attaching a loop device (the kernel's loop driver, and the right to use it, are needed)";

/// The image, opened, if there is one. An empty file is none; nothing is ever done to one that isn't empty, or that can't
/// be looked at.
fn existing(path: &Path) -> io::Result<Option<File>> {
    let image = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if image.metadata()?.len() == 0 {
        fs::remove_file(path)?;
        return Ok(None);
    }
    Ok(Some(image))
}

/// Makes the image with the first kind of file system that works here. Gives back its kind and size, and its superblock,
/// which is not mounted yet.
fn make(pool: &Path, size: u64, only: Option<Kind>) -> Result<(Kind, u64, OwnedFd), ImageError> {
    let wanted = size - size % u64::from(BLOCK);
    let there = rustix::fs::statvfs(pool).doing("asking for free space")?;
    let free = there.f_bavail.saturating_mul(there.f_frsize);
    if wanted > free {
        return Err(ImageError::TooLarge { wanted, free, directory: pool.to_owned() });
    }
    let path = pool.join(UNFINISHED);
    let mut whys = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| only.is_none_or(|only| only == *kind)) {
        match make_as(kind, &path, wanted) {
            Ok(file_system) => {
                // A link and not a rename, which would write over what had the name. By its directory the name outlasts a
                // power cut.
                let named = fs::hard_link(&path, pool.join(IMAGE))
                    .and_then(|()| fs::remove_file(&path))
                    .and_then(|()| File::open(pool)?.sync_all());
                return named.map(|()| (kind, wanted, file_system)).doing("naming the image");
            }
            Err(why) => whys.push(format!("{}: {why}", kind.name())),
        }
    }
    fs::remove_file(&path).ok();
    Err(ImageError::NoFileSystem(whys))
}

fn make_as(kind: Kind, path: &Path, size: u64) -> Result<OwnedFd, String> {
    // A new file: one of this name that a crash left may still be attached.
    fs::remove_file(path).ok();
    let image = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let image =
        image.and_then(|image| image.set_len(size).map(|()| image)).map_err(|error| error.to_string())?;
    let (mkfs, package) = kind.mkfs();
    format(mkfs, package, path)?;
    let device = attach(&image).map_err(|error| format!("{ATTACHING}: {error}"))?;
    let options = kind.options().join(",");
    superblock(kind, &device).map_err(|error| format!("this kernel can't mount it with {options}: {error}"))
}

fn format(mkfs: &[&str], package: &str, path: &Path) -> Result<(), String> {
    // Neither a service's path nor a user's need have them.
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let made = Command::new(mkfs[0]).args(&mkfs[1..]).arg(path).env("PATH", search).output();
    match made {
        Ok(made) if made.status.success() => Ok(()),
        Ok(made) => {
            // After its reason comes how to call it.
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            let reason: Vec<&str> = said.lines().take_while(|line| !line.starts_with("Usage")).collect();
            Err(format!("{}: {}", mkfs[0], reason.join(", ")))
        }
        // The second where a directory of the path is closed to us and no other has the program.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Err(format!("{} is missing ({error}); install the package {package}", mkfs[0]))
        }
        Err(error) => Err(format!("{}: {error}", mkfs[0])),
    }
}

fn kind_of(image: &File) -> io::Result<Option<Kind>> {
    for kind in Kind::ALL {
        let (at, magic) = kind.magic();
        let mut found = vec![0; magic.len()];
        if image.read_at(&mut found, at)? == magic.len() && found == magic {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// Has the kernel read the file system on `device`, without mounting it anywhere: when what is given back is dropped, all
/// of it is gone.
fn superblock(kind: Kind, device: &Device) -> io::Result<OwnedFd> {
    let context = mount::fsopen(kind.name(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_set_string(&context, "source", device.path())?;
    for option in kind.options() {
        match option.split_once('=') {
            Some((name, value)) => mount::fsconfig_set_string(&context, name, value)?,
            None => mount::fsconfig_set_flag(&context, *option)?,
        }
    }
    mount::fsconfig_create(&context)?;
    Ok(context)
}

fn place(file_system: &OwnedFd, root: &Path) -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let made = mount::fsmount(file_system, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(mount::move_mount(made, "", CWD, root, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What is mounted at `root`, if anything is.
fn mounted_at(root: &Path) -> io::Result<Option<String>> {
    let found = statx(CWD, root, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
    if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(None);
    }
    // Of this thread: its mounts are what the calls of this file see.
    let table = table::parse(&fs::read("/proc/thread-self/mountinfo")?);
    Ok(table.into_iter().find(|entry| entry.id == found.stx_mnt_id).map(|entry| entry.source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_by_its_magic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(IMAGE);
        let known = || kind_of(&File::open(&path).unwrap()).unwrap();
        for content in [vec![0; 100_000], b"short".to_vec()] {
            fs::write(&path, content).unwrap();
            assert_eq!(known(), None);
        }
        for kind in Kind::ALL {
            let mut content = vec![0; 100_000];
            let (at, magic) = kind.magic();
            content[at as usize..at as usize + magic.len()].copy_from_slice(magic);
            fs::write(&path, content).unwrap();
            assert_eq!(known(), Some(kind));
        }
    }

    #[test]
    fn an_empty_file_is_no_image_and_one_that_cant_be_opened_is_no_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(IMAGE);
        assert!(existing(&path).unwrap().is_none());
        File::create(&path).unwrap();
        assert!(existing(&path).unwrap().is_none() && !path.exists());
        fs::create_dir(&path).unwrap();
        assert!(existing(&path).is_err());
    }

    #[test]
    fn nothing_is_mounted_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(mounted_at(directory.path()).unwrap(), None);
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let why = format(&["mkfs.nowhere"], "some-package", Path::new("x")).unwrap_err();
        assert!(why.contains("mkfs.nowhere") && why.contains("some-package"), "{why}");
    }
}
