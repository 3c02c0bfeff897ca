//! Loop devices: which has an image, and giving one to it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::io::Errno;

use crate::backend::pool::ioctl::loops;

/// Block size of the devices, in bytes: what direct I/O needs on any disk of today, and a part of the format of xfs.
pub(super) const BLOCK: u32 = 4096;

/// A loop device that has a file for as long as this is open or it is mounted.
pub(super) struct Device {
    number: u32,
    opened: OwnedFd,
}

impl Device {
    /// Opens it, making its name in /dev where that is missing.
    fn open(number: u32) -> io::Result<Self> {
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

    /// Its name in /dev.
    pub(super) fn path(&self) -> String {
        format!("/dev/loop{}", self.number)
    }
}

/// The loop device that has `image` already.
pub(super) fn attached(image: &File) -> io::Result<Option<Device>> {
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
        if let Ok((on, inode, _)) = loops::status(&device.opened)
            && (on, inode) == (image.dev(), image.ino())
        {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// Attaches `image` to a free loop device.
pub(super) fn attach(image: &File) -> io::Result<Device> {
    let control = OwnedFd::from(OpenOptions::new().read(true).write(true).open("/dev/loop-control")?);
    loop {
        let device = Device::open(loops::free(&control)?)?;
        let configure = |flags| loops::configure(&device.opened, image.as_fd(), BLOCK, flags);
        let configured = match configure(loops::AUTOCLEAR | loops::DIRECT) {
            // Some file systems below can't be read and written directly.
            Err(Errno::INVAL) => configure(loops::AUTOCLEAR),
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
