//! Project ids (linux/fs.h) and their quota (linux/dqblk_xfs.h, linux/quota.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

const GET_ATTRIBUTES: Opcode = opcode::read::<Attributes>(b'X', 31);
const SET_ATTRIBUTES: Opcode = opcode::write::<Attributes>(b'X', 32);
/// `FS_XFLAG_PROJINHERIT`: what is made in this directory gets its project id.
const INHERIT: u32 = 0x200;

/// The project id of an inode; 0 is that of everything which was given none.
pub fn id(inode: BorrowedFd<'_>) -> Result<u32> {
    attributes(inode).map(|attributes| attributes.project)
}

/// Gives a directory a project id, which all that is made in it from now on inherits. What it holds already keeps its own.
pub fn set_id(directory: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= INHERIT;
    // SAFETY: FS_IOC_FSSETXATTR reads one fsxattr.
    unsafe { ioctl(directory, Updater::<SET_ATTRIBUTES, Attributes>::new(&mut attributes)) }
}

fn attributes(inode: BorrowedFd<'_>) -> Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: FS_IOC_FSGETXATTR writes one fsxattr.
    unsafe { ioctl(inode, Updater::<GET_ATTRIBUTES, Attributes>::new(&mut attributes)) }?;
    Ok(attributes)
}

/// `struct fs_disk_quota`: space in basic blocks of 512 bytes.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    kind: i8,
    fields: u16,
    id: u32,
    block_hard_limit: u64,
    block_soft_limit: u64,
    inode_hard_limit: u64,
    inode_soft_limit: u64,
    blocks: u64,
    inodes: u64,
    timers: [i32; 2],
    warnings: [u16; 2],
    timers_high: [i8; 4],
    realtime: [u64; 3],
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: [u16; 5],
}

/// `struct fs_quota_statv`, of which only the flags are of use here.
#[repr(C)]
struct QuotaState {
    version: i8,
    padding: u8,
    flags: u16,
    rest: [u32; 39],
}

/// `QCMD(XQM_CMD(number), PRJQUOTA)`.
const fn project_command(number: u32) -> u32 {
    ((((b'X' as u32) << 8) + number) << 8) | 2
}

const GET_QUOTA: u32 = project_command(3);
const SET_LIMITS: u32 = project_command(4);
const GET_STATE: u32 = project_command(8);
/// `FS_DQ_BHARD`: of all fields, only the hard limit of blocks is to be set.
const BLOCK_HARD_LIMIT: u16 = 1 << 3;
/// `FS_PROJ_QUOTA`.
const PROJECT_QUOTA: i8 = 2;
/// `FS_QUOTA_PDQ_ACCT`: what a project uses is counted.
pub const COUNTED: u16 = 1 << 4;
/// `FS_QUOTA_PDQ_ENFD`: a project's limit is enforced.
pub const ENFORCED: u16 = 1 << 5;

/// What a project uses and may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// The most it may use, in blocks of 512 bytes; 0: as much as there is.
    pub limit: u64,
    /// Blocks of 512 bytes in use, those among them that are promised to data still in memory.
    pub blocks: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// The flags of the file system's quota. `ENOSYS` where the kernel or the file system has none.
pub fn state(inode: BorrowedFd<'_>) -> Result<u16> {
    // 1 is FS_QSTATV_VERSION1, by which the kernel knows what to fill in.
    let mut state = QuotaState { version: 1, padding: 0, flags: 0, rest: [0; 39] };
    // SAFETY: Q_XGETQSTATV reads and writes one fs_quota_statv.
    unsafe { quotactl(inode, GET_STATE, 0, &mut state) }?;
    Ok(state.flags)
}

/// What a project uses. `ENOENT` where nothing is known of it, `EPERM` without CAP_SYS_ADMIN.
pub fn quota(inode: BorrowedFd<'_>, project: u32) -> Result<Quota> {
    let mut quota = DiskQuota::default();
    // SAFETY: Q_XGETQUOTA writes one fs_disk_quota.
    unsafe { quotactl(inode, GET_QUOTA, project, &mut quota) }?;
    Ok(Quota { limit: quota.block_hard_limit, blocks: quota.blocks, inodes: quota.inodes })
}

/// Limits a project to so many blocks of 512 bytes; 0 takes the limit away.
pub fn limit(inode: BorrowedFd<'_>, project: u32, blocks: u64) -> Result<()> {
    let mut quota = DiskQuota {
        version: 1,
        kind: PROJECT_QUOTA,
        fields: BLOCK_HARD_LIMIT,
        id: project,
        block_hard_limit: blocks,
        ..DiskQuota::default()
    };
    // SAFETY: Q_XSETQLIM reads one fs_disk_quota.
    unsafe { quotactl(inode, SET_LIMITS, project, &mut quota) }
}

/// quotactl_fd(2) (Linux 5.14), which needs no path to a block device.
///
/// # Safety
/// `T` must be what `command` reads and writes.
unsafe fn quotactl<T>(inode: BorrowedFd<'_>, command: u32, id: u32, argument: &mut T) -> Result<()> {
    let argument: *mut T = argument;
    // SAFETY: the descriptor is open and the pointer good for the length of the call; of its type the caller is sure.
    let result = unsafe { libc::syscall(libc::SYS_quotactl_fd, inode.as_raw_fd(), command, id, argument) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!((size_of::<Attributes>(), offset_of!(Attributes, project)), (28, 12));
        assert_eq!((size_of::<DiskQuota>(), offset_of!(DiskQuota, block_hard_limit)), (112, 8));
        assert_eq!((offset_of!(DiskQuota, blocks), offset_of!(DiskQuota, inodes)), (40, 48));
        assert_eq!((size_of::<QuotaState>(), offset_of!(QuotaState, flags)), (160, 2));
    }

    /// Architectures differ in how they encode the direction of a call; these two agree.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn calls_have_the_kernels_numbers() {
        assert_eq!((GET_ATTRIBUTES, SET_ATTRIBUTES), (0x801c_581f, 0x401c_5820));
        assert_eq!((GET_QUOTA, SET_LIMITS, GET_STATE), (0x0058_0302, 0x0058_0402, 0x0058_0802));
    }
}
