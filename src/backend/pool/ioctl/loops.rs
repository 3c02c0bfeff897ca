//! Loop devices (linux/loop.h).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl};

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    own_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u8; 64]; 2],
    key: [u8; 32],
    unused: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Configuration {
    file: u32,
    block_size: u32,
    info: Info,
    unused: [u64; 8],
}

const CONFIGURE: Opcode = 0x4C0A;
const STATUS: Opcode = 0x4C05;
const FREE: Opcode = 0x4C82;
/// `LO_FLAGS_AUTOCLEAR`: the device lets go of its file when nobody has it open or mounted any more.
pub const AUTOCLEAR: u32 = 4;
/// `LO_FLAGS_DIRECT_IO`: it reads and writes past the page cache, so that nothing is cached twice.
pub const DIRECT: u32 = 16;

/// A call that answers with a number of its own.
struct Number<const OPCODE: Opcode>;

// SAFETY: it passes a null pointer, which LOOP_CTL_GET_FREE doesn't look at, and reads nothing back through it.
unsafe impl<const OPCODE: Opcode> Ioctl for Number<OPCODE> {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(number: IoctlOutput, _: *mut std::ffi::c_void) -> Result<u32> {
        u32::try_from(number).map_err(|_| Errno::IO)
    }
}

/// The number of a loop device that was free a moment ago; `control` is /dev/loop-control.
pub fn free(control: &OwnedFd) -> Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE has no argument.
    unsafe { ioctl(control, Number::<FREE>) }
}

/// Attaches `file` to a loop device. `EBUSY` where it has a file already.
pub fn configure(device: &OwnedFd, file: BorrowedFd<'_>, block_size: u32, flags: u32) -> Result<()> {
    let info = Info { flags, ..empty() };
    let file = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let mut argument = Configuration { file, block_size, info, unused: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one loop_config.
    unsafe { ioctl(device, Updater::<CONFIGURE, Configuration>::new(&mut argument)) }
}

/// Device and inode number of the file that a loop device has, and its flags. `ENXIO` where it has none.
pub fn status(device: &OwnedFd) -> Result<(u64, u64, u32)> {
    let mut info = empty();
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64.
    unsafe { ioctl(device, Updater::<STATUS, Info>::new(&mut info)) }?;
    Ok((info.device, info.inode, info.flags))
}

const fn empty() -> Info {
    Info {
        device: 0,
        inode: 0,
        own_device: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encryption: [0; 2],
        flags: 0,
        names: [[0; 64]; 2],
        key: [0; 32],
        unused: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!((size_of::<Info>(), offset_of!(Info, flags)), (232, 52));
        assert_eq!((size_of::<Configuration>(), offset_of!(Configuration, info)), (304, 8));
    }
}
