//! A pool in a file: `--pool-image SIZE`, where the directory's own file system limits nothing.
//!
//! In the pool's directory stand `pool.img`, a sparse file that holds a file system, and `fs`, where that is mounted by way
//! of a loop device. The file gets its name only when its file system is complete and was seen to work, so what bears the
//! name is never formatted, whatever it holds. It is formatted by mkfs.xfs or mkfs.btrfs; all else is system calls.
//!
//! The mount outlives the process, as a mount does, and the next start finds it. The loop device lets go of the file by
//! itself when it is unmounted (`LO_FLAGS_AUTOCLEAR`), also where this process is killed half-way.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FlockOperation, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use super::ioctl::{self, LOOP_AUTOCLEAR, LOOP_DIRECT};
use crate::mount::table;

/// The image, once it is complete.
const IMAGE: &str = "pool.img";
/// The image while it is made. What is found under this name was never in use.
const UNFINISHED: &str = "pool.img.new";
/// Where it is mounted.
const MOUNTED: &str = "fs";
/// Block size of the loop device, in bytes: what direct I/O needs on any disk of today, and a part of the format of xfs.
const BLOCK: u32 = 4096;

/// A file system in a file, mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its top directory: the root of the pool.
    pub root: PathBuf,
    /// `xfs` or `btrfs`.
    pub kind: &'static str,
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
struct Kind {
    name: &'static str,
    mkfs: &'static [&'static str],
    package: &'static str,
    /// Where its magic bytes are, and which.
    magic: (u64, &'static [u8]),
    /// Mount options; a value follows `=`. What a volume frees is to be freed in the image, too.
    options: &'static [&'static str],
}

/// xfs first, since its limits show in `df`; its mount fails where the kernel's xfs has no quota.
const KINDS: [Kind; 2] = [
    Kind {
        name: "xfs",
        mkfs: &["mkfs.xfs", "-q", "-f", "-s", "size=4096", "-m", "reflink=1"],
        package: "xfsprogs",
        magic: (0, b"XFSB"),
        options: &["prjquota", "discard"],
    },
    Kind {
        name: "btrfs",
        mkfs: &["mkfs.btrfs", "-q", "-f"],
        package: "btrfs-progs",
        magic: (0x1_0040, b"_BHRfS_M"),
        options: &["discard=async"],
    },
];

impl Image {
    /// The image in the directory `pool`, mounted: as it is, or attached again, or newly made with `size` bytes. Many may
    /// call this at once; all get the same.
    pub fn open(pool: &Path, size: u64) -> Result<Self, ImageError> {
        let shown = pool.display().to_string();
        let pool = pool.canonicalize().doing(format!("opening {shown}"))?;
        // Held until the mount stands. Not on the image: its loop device would hold the lock as long as it has the file.
        let directory = File::open(&pool).doing(format!("opening {shown}"))?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).doing(format!("locking {shown}"))?;
        let (path, root) = (pool.join(IMAGE), pool.join(MOUNTED));
        let complete = fs::metadata(&path).is_ok_and(|image| image.len() > 0);
        if !complete && pool.join(".kuration").exists() {
            return Err(ImageError::Occupied(pool));
        }
        fs::create_dir_all(&root).doing(format!("making {}", root.display()))?;
        let source = mounted_at(&root).doing(format!("looking for a mount at {}", root.display()))?;
        if !complete {
            if let Some(source) = source {
                return Err(ImageError::Mounted(root, source));
            }
            let (kind, file_system) = make(&pool, size)?;
            place(&file_system, &root).doing(format!("mounting at {}", root.display()))?;
            return Ok(Self { root, kind, size: length(&path)? });
        }
        let image = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .doing(format!("opening {}", path.display()))?;
        let kind = kind_of(&image).doing(format!("reading {}", path.display()))?;
        let kind = kind.ok_or_else(|| ImageError::Unknown(path.clone()))?;
        let attached = attached(&image).doing("looking for the image's loop device")?;
        match (source, attached) {
            (Some(source), Some(device)) if source == device.path() => {}
            (Some(source), _) => return Err(ImageError::Mounted(root, source)),
            (None, attached) => {
                // A device that has the image already, mounted in another namespace perhaps, is used again: two devices
                // with one file would be two caches of the same blocks.
                let device = attached.map_or_else(|| attach(&image), Ok).doing(ATTACHING)?;
                superblock(kind, &device)
                    .and_then(|file_system| place(&file_system, &root))
                    .doing(format!("mounting {} at {}", path.display(), root.display()))?;
            }
        }
        Ok(Self { root, kind: kind.name, size: length(&path)? })
    }

    /// Unmounts it, which detaches the loop device. `EBUSY` while anything in it is open: a store holds its root.
    pub fn close(self) -> io::Result<()> {
        Ok(mount::unmount(&self.root, UnmountFlags::NOFOLLOW)?)
    }
}

const ATTACHING: &str =
    "attaching a loop device (the kernel's loop driver, and the right to use it, are needed)";

/// Makes the image with the first kind of file system that works here, and gives back its superblock, not yet mounted.
fn make(pool: &Path, size: u64) -> Result<(&'static str, OwnedFd), ImageError> {
    let wanted = size - size % u64::from(BLOCK);
    let there = rustix::fs::statvfs(pool).doing("asking for free space")?;
    let free = there.f_bavail.saturating_mul(there.f_frsize);
    if wanted > free {
        return Err(ImageError::TooLarge { wanted, free, directory: pool.to_owned() });
    }
    let path = pool.join(UNFINISHED);
    let mut whys = Vec::new();
    for kind in &KINDS {
        match make_as(kind, &path, wanted) {
            Ok(file_system) => {
                // By its directory the new name outlasts a power cut.
                let named = fs::rename(&path, pool.join(IMAGE)).and_then(|()| File::open(pool)?.sync_all());
                return named.map(|()| (kind.name, file_system)).doing("naming the image");
            }
            Err(why) => whys.push(format!("{}: {why}", kind.name)),
        }
    }
    fs::remove_file(&path).ok();
    Err(ImageError::NoFileSystem(whys))
}

fn make_as(kind: &Kind, path: &Path, size: u64) -> Result<OwnedFd, String> {
    let image = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let image =
        image.and_then(|image| image.set_len(size).map(|()| image)).map_err(|error| error.to_string())?;
    format(kind, path)?;
    let device = attach(&image).map_err(|error| format!("{ATTACHING}: {error}"))?;
    let options = kind.options.join(",");
    superblock(kind, &device).map_err(|error| format!("this kernel can't mount it with {options}: {error}"))
}

fn format(kind: &Kind, path: &Path) -> Result<(), String> {
    // Neither a service's path nor a user's need have them.
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let made = Command::new(kind.mkfs[0]).args(&kind.mkfs[1..]).arg(path).env("PATH", search).output();
    match made {
        Ok(made) if made.status.success() => Ok(()),
        Ok(made) => {
            // After its reason comes how to call it.
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            let reason: Vec<&str> = said.lines().take_while(|line| !line.starts_with("Usage")).collect();
            Err(format!("{}: {}", kind.mkfs[0], reason.join(", ")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{} is missing; install the package {}", kind.mkfs[0], kind.package))
        }
        Err(error) => Err(format!("{}: {error}", kind.mkfs[0])),
    }
}

fn length(path: &Path) -> Result<u64, ImageError> {
    fs::metadata(path).map(|image| image.len()).doing(format!("asking {}", path.display()))
}

fn kind_of(image: &File) -> io::Result<Option<&'static Kind>> {
    for kind in &KINDS {
        let (at, magic) = kind.magic;
        let mut found = vec![0; magic.len()];
        if image.read_at(&mut found, at)? == magic.len() && found == magic {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// A loop device that has a file for as long as this is open or it is mounted.
struct Device {
    number: u32,
    opened: OwnedFd,
}

impl Device {
    fn open(number: u32) -> io::Result<Self> {
        use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, open};
        let path = format!("/dev/loop{number}");
        let again = || open(path.as_str(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let opened = match again() {
            // A container's /dev has the devices that were there when it started. 7 is the major number of loop devices.
            Err(Errno::NOENT) => {
                match mknodat(
                    CWD,
                    path.as_str(),
                    FileType::BlockDevice,
                    Mode::RUSR | Mode::WUSR,
                    makedev(7, number),
                ) {
                    Ok(()) | Err(Errno::EXIST) => again()?,
                    Err(errno) => return Err(errno.into()),
                }
            }
            other => other?,
        };
        Ok(Self { number, opened })
    }

    fn path(&self) -> String {
        format!("/dev/loop{}", self.number)
    }
}

/// The loop device that has `image` already.
fn attached(image: &File) -> io::Result<Option<Device>> {
    let image = image.metadata()?;
    let entries = match fs::read_dir("/sys/block") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok());
        // A device without a file has no such directory, and isn't worth to be opened.
        let Some(number) = number.filter(|_| entry.path().join("loop").exists()) else { continue };
        let Ok(device) = Device::open(number) else { continue };
        if let Ok((on, inode, _)) = ioctl::loop_status(&device.opened)
            && (on, inode) == (image.dev(), image.ino())
        {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// Attaches `image` to a free loop device.
fn attach(image: &File) -> io::Result<Device> {
    let control = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/loop-control")?);
    loop {
        let device = Device::open(ioctl::free_loop(&control)?)?;
        let configure = |flags| ioctl::configure_loop(&device.opened, image.as_fd(), BLOCK, flags);
        let configured = match configure(LOOP_AUTOCLEAR | LOOP_DIRECT) {
            // Some file systems below can't be read and written directly.
            Err(Errno::INVAL) => configure(LOOP_AUTOCLEAR),
            other => other,
        };
        match configured {
            Ok(()) => return Ok(device),
            // Somebody else was faster at this one.
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Has the kernel read the file system on `device`, without mounting it anywhere: when what is given back is dropped, all
/// of it is gone.
fn superblock(kind: &Kind, device: &Device) -> io::Result<OwnedFd> {
    let context = mount::fsopen(kind.name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_set_string(&context, "source", device.path())?;
    for option in kind.options {
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
        fs::write(&path, vec![0; 100_000]).unwrap();
        assert!(kind_of(&File::open(&path).unwrap()).unwrap().is_none());
        for kind in &KINDS {
            let mut content = vec![0; 100_000];
            let at = kind.magic.0 as usize;
            content[at..at + kind.magic.1.len()].copy_from_slice(kind.magic.1);
            fs::write(&path, content).unwrap();
            assert_eq!(
                kind_of(&File::open(&path).unwrap()).unwrap().map(|found| found.name),
                Some(kind.name)
            );
        }
    }

    #[test]
    fn nothing_is_mounted_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(mounted_at(directory.path()).unwrap(), None);
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let kind = Kind { mkfs: &["mkfs.nowhere"], ..KINDS[0] };
        let why = format(&kind, Path::new("x")).unwrap_err();
        assert!(why.contains("mkfs.nowhere") && why.contains("xfsprogs"), "{why}");
    }
}
