//! Calls of the kernel that no safe crate wraps: project ids and their quota, btrfs subvolumes and quota groups, loop
//! devices. Each function here is one call; numbers and layouts are those of the kernel's uapi headers `linux/fs.h`,
//! `linux/dqblk_xfs.h`, `linux/btrfs.h`, `linux/btrfs_tree.h` and `linux/loop.h`, which never change.
//!
//! The only place of this room with `unsafe`: a call whose argument is not of the size that its number says would let the
//! kernel write over memory. So every structure stands here, and the tests below check each size and number.

#![allow(unsafe_code, reason = "ioctl(2) and quotactl_fd(2) take untyped pointers")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};

// Project ids (linux/fs.h).

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
pub fn project(inode: BorrowedFd<'_>) -> Result<u32> {
    attributes(inode).map(|attributes| attributes.project)
}

/// Gives a directory a project id, which all that is made in it from now on inherits. What it holds already keeps its own.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> Result<()> {
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

// Project quota (linux/dqblk_xfs.h, linux/quota.h).

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
pub const PROJECTS_COUNTED: u16 = 1 << 4;
/// `FS_QUOTA_PDQ_ENFD`: a project's limit is enforced.
pub const PROJECTS_ENFORCED: u16 = 1 << 5;

/// What a project uses and may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectQuota {
    /// The most it may use, in blocks of 512 bytes; 0: as much as there is.
    pub limit: u64,
    /// Blocks of 512 bytes in use, those among them that are promised to data still in memory.
    pub blocks: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// The flags of the file system's quota. `ENOSYS` where the kernel or the file system has none.
pub fn project_quota_state(inode: BorrowedFd<'_>) -> Result<u16> {
    // 1 is FS_QSTATV_VERSION1, by which the kernel knows what to fill in.
    let mut state = QuotaState { version: 1, padding: 0, flags: 0, rest: [0; 39] };
    // SAFETY: Q_XGETQSTATV reads and writes one fs_quota_statv.
    unsafe { quotactl(inode, GET_STATE, 0, &mut state) }?;
    Ok(state.flags)
}

/// What a project uses. `ENOENT` where nothing is known of it, `EPERM` without CAP_SYS_ADMIN.
pub fn project_quota(inode: BorrowedFd<'_>, project: u32) -> Result<ProjectQuota> {
    let mut quota = DiskQuota::default();
    // SAFETY: Q_XGETQUOTA writes one fs_disk_quota.
    unsafe { quotactl(inode, GET_QUOTA, project, &mut quota) }?;
    Ok(ProjectQuota { limit: quota.block_hard_limit, blocks: quota.blocks, inodes: quota.inodes })
}

/// Limits a project to so many blocks of 512 bytes; 0 takes the limit away.
pub fn limit_project(inode: BorrowedFd<'_>, project: u32, blocks: u64) -> Result<()> {
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

// Btrfs (linux/btrfs.h, linux/btrfs_tree.h).

const BTRFS: u8 = 0x94;
/// `BTRFS_FIRST_FREE_OBJECTID`: the inode number of each subvolume's own root, and of nothing else on btrfs.
pub const SUBVOLUME_INODE: u64 = 256;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Named {
    descriptor: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct Lookup {
    tree: u64,
    inode: u64,
    path: [u8; 4080],
}

/// `struct btrfs_ioctl_quota_ctl_args` and `struct btrfs_ioctl_qgroup_create_args`: a verb and a number.
type Pair = [u64; 2];
/// `struct btrfs_ioctl_qgroup_limit_args`: id, flags, max_rfer, max_excl, rsv_rfer, rsv_excl.
type Limit = [u64; 6];
/// `struct btrfs_ioctl_quota_rescan_args`.
type Rescan = [u64; 8];

/// `char[BTRFS_LABEL_SIZE]`.
type Label = [u8; 256];

const SUBVOLUME_CREATE: Opcode = opcode::write::<Named>(BTRFS, 14);
const SNAPSHOT_DESTROY: Opcode = opcode::write::<Named>(BTRFS, 15);
const INODE_LOOKUP: Opcode = opcode::read_write::<Lookup>(BTRFS, 18);
const GET_FLAGS: Opcode = opcode::read::<u64>(BTRFS, 25);
const SET_FLAGS: Opcode = opcode::write::<u64>(BTRFS, 26);
const QUOTA_CONTROL: Opcode = opcode::read_write::<Pair>(BTRFS, 40);
const QGROUP_CREATE: Opcode = opcode::write::<Pair>(BTRFS, 42);
const QGROUP_LIMIT: Opcode = opcode::read::<Limit>(BTRFS, 43);
const QUOTA_RESCAN: Opcode = opcode::write::<Rescan>(BTRFS, 44);
const GET_LABEL: Opcode = opcode::read::<Label>(BTRFS, 49);
const SET_LABEL: Opcode = opcode::write::<Label>(BTRFS, 50);

/// Makes the subvolume `name` in `parent`.
pub fn create_subvolume(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    // SAFETY: BTRFS_IOC_SUBVOL_CREATE reads one btrfs_ioctl_vol_args.
    unsafe { ioctl(parent, Updater::<SUBVOLUME_CREATE, Named>::new(&mut *named(name)?)) }
}

/// Removes the subvolume `name` in `parent` with all its files, but not one that holds subvolumes (`ENOTEMPTY`).
pub fn destroy_subvolume(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    // SAFETY: BTRFS_IOC_SNAP_DESTROY reads one btrfs_ioctl_vol_args.
    unsafe { ioctl(parent, Updater::<SNAPSHOT_DESTROY, Named>::new(&mut *named(name)?)) }
}

fn named(name: &[u8]) -> Result<Box<Named>> {
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::INVAL);
    }
    let mut argument = Box::new(Named { descriptor: 0, name: [0; 4088] });
    // One byte less than there is, for the NUL.
    argument.name[..4087].get_mut(..name.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name);
    Ok(argument)
}

/// The id of the subvolume that an inode lies in.
pub fn subvolume_id(inode: BorrowedFd<'_>) -> Result<u64> {
    lookup(inode, 0, SUBVOLUME_INODE).map(|found| found.tree)
}

/// The path of the directory `inode` within `subvolume`, which ends with a slash, or is empty for its root.
pub fn path_in_subvolume(file_system: BorrowedFd<'_>, subvolume: u64, inode: u64) -> Result<Vec<u8>> {
    let found = lookup(file_system, subvolume, inode)?;
    Ok(found.path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
}

fn lookup(file_system: BorrowedFd<'_>, tree: u64, inode: u64) -> Result<Box<Lookup>> {
    let mut argument = Box::new(Lookup { tree, inode, path: [0; 4080] });
    // SAFETY: BTRFS_IOC_INO_LOOKUP reads and writes one btrfs_ioctl_ino_lookup_args.
    unsafe { ioctl(file_system, Updater::<INODE_LOOKUP, Lookup>::new(&mut argument)) }?;
    Ok(argument)
}

/// Makes a read-only subvolume writable.
pub fn make_writable(subvolume: BorrowedFd<'_>) -> Result<()> {
    let mut flags = 0_u64;
    // SAFETY: BTRFS_IOC_SUBVOL_GETFLAGS writes one u64.
    unsafe { ioctl(subvolume, Updater::<GET_FLAGS, u64>::new(&mut flags)) }?;
    // BTRFS_SUBVOL_RDONLY.
    flags &= !(1 << 1);
    // SAFETY: BTRFS_IOC_SUBVOL_SETFLAGS reads one u64.
    unsafe { ioctl(subvolume, Updater::<SET_FLAGS, u64>::new(&mut flags)) }
}

/// Brings what was done to subvolumes and quota groups to the disk, without waiting for what others wrote to their files,
/// as a sync would.
///
/// It writes the label that the file system has already: the one call that commits a transaction, waits for that, and does
/// nothing else. BTRFS_IOC_START_SYNC with _WAIT_SYNC is meant for it, but only wakes the kernel's own thread, and a
/// wake-up that comes just before that goes to sleep is lost: then it takes the 30 s of the regular commit (seen on 6.18).
pub fn commit_transaction(file_system: BorrowedFd<'_>) -> Result<()> {
    let mut label: Label = [0; 256];
    // SAFETY: BTRFS_IOC_GET_FSLABEL writes 256 bytes.
    unsafe { ioctl(file_system, Updater::<GET_LABEL, Label>::new(&mut label)) }?;
    // SAFETY: BTRFS_IOC_SET_FSLABEL reads 256 bytes.
    unsafe { ioctl(file_system, Updater::<SET_LABEL, Label>::new(&mut label)) }
}

/// Turns quota groups on, for the whole file system, and starts counting what is there (in the background).
pub fn enable_qgroups(file_system: BorrowedFd<'_>) -> Result<()> {
    // BTRFS_QUOTA_CTL_ENABLE.
    let mut argument: Pair = [1, 0];
    // SAFETY: BTRFS_IOC_QUOTA_CTL reads and writes one btrfs_ioctl_quota_ctl_args.
    unsafe { ioctl(file_system, Updater::<QUOTA_CONTROL, Pair>::new(&mut argument)) }
}

/// Starts to count anew what all quota groups use, in the background. `EINPROGRESS` where that is being done.
pub fn recount_qgroups(file_system: BorrowedFd<'_>) -> Result<()> {
    let mut argument: Rescan = [0; 8];
    // SAFETY: BTRFS_IOC_QUOTA_RESCAN reads one btrfs_ioctl_quota_rescan_args.
    unsafe { ioctl(file_system, Updater::<QUOTA_RESCAN, Rescan>::new(&mut argument)) }
}

/// Limits what a subvolume refers to, shared or not, to so many bytes.
pub fn limit_qgroup(file_system: BorrowedFd<'_>, subvolume: u64, bytes: u64) -> Result<()> {
    // BTRFS_QGROUP_LIMIT_MAX_RFER. All ones would mean "no limit".
    let mut argument: Limit = [subvolume, 1, bytes.min(u64::MAX - 1), 0, 0, 0];
    // SAFETY: BTRFS_IOC_QGROUP_LIMIT reads one btrfs_ioctl_qgroup_limit_args, whatever the direction in its number says.
    unsafe { ioctl(file_system, Updater::<QGROUP_LIMIT, Limit>::new(&mut argument)) }
}

/// Removes the quota group of a subvolume that is no more.
pub fn remove_qgroup(file_system: BorrowedFd<'_>, subvolume: u64) -> Result<()> {
    let mut argument: Pair = [0, subvolume];
    // SAFETY: BTRFS_IOC_QGROUP_CREATE reads one btrfs_ioctl_qgroup_create_args.
    unsafe { ioctl(file_system, Updater::<QGROUP_CREATE, Pair>::new(&mut argument)) }
}

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
struct SearchKey {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transactions: [u64; 2],
    kinds: [u32; 2],
    items: u32,
    unused: [u32; 9],
}

/// `struct btrfs_ioctl_search_args_v2` without its buffer, as it counts for the call's number.
#[repr(C)]
struct SearchHead {
    key: SearchKey,
    size: u64,
}

const SEARCH_BUFFER: usize = 16 << 10;

/// The same, with a buffer.
#[repr(C)]
struct Search {
    head: SearchHead,
    buffer: [u8; SEARCH_BUFFER],
}

const TREE_SEARCH: Opcode = opcode::read_write::<SearchHead>(BTRFS, 17);

/// An item of a btrfs tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The last part of its key.
    pub offset: u64,
    /// What it holds; numbers in it are little-endian.
    pub data: Vec<u8>,
}

impl Item {
    /// The `u64` at byte `at`.
    pub fn number(&self, at: usize) -> Result<u64> {
        number(&self.data, at)
    }
}

fn number(bytes: &[u8], at: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_le_bytes).ok_or(Errno::ILSEQ)
}

/// The items of `tree` with this object, kind, and an offset from `offsets`: the first of them, as many as fit in 16 KiB.
/// `ENOENT` where there is no such tree, `EPERM` without CAP_SYS_ADMIN.
pub fn search(
    file_system: BorrowedFd<'_>,
    tree: u64,
    object: u64,
    kind: u32,
    offsets: std::ops::RangeInclusive<u64>,
) -> Result<Vec<Item>> {
    let key = SearchKey {
        tree,
        objects: [object, object],
        offsets: [*offsets.start(), *offsets.end()],
        transactions: [0, u64::MAX],
        kinds: [kind, kind],
        items: u32::MAX,
        unused: [0; 9],
    };
    let head = SearchHead { key, size: SEARCH_BUFFER as u64 };
    let mut argument = Box::new(Search { head, buffer: [0; SEARCH_BUFFER] });
    // SAFETY: BTRFS_IOC_TREE_SEARCH_V2 reads one btrfs_ioctl_search_args_v2 and writes at most `size` bytes behind it.
    unsafe { ioctl(file_system, Updater::<TREE_SEARCH, Search>::new(&mut argument)) }?;
    let mut items = Vec::new();
    let mut rest = argument.buffer.as_slice();
    for _ in 0..argument.head.key.items {
        // struct btrfs_ioctl_search_header, in the machine's byte order: transaction, object, offset, kind, length.
        let (head, tail) = rest.split_at_checked(32).ok_or(Errno::ILSEQ)?;
        let word = |at: usize| head[at..at + 8].try_into().map(u64::from_ne_bytes).map_err(|_| Errno::ILSEQ);
        let length = head[28..32].try_into().map(u32::from_ne_bytes).map_err(|_| Errno::ILSEQ)?;
        let (data, tail) = tail.split_at_checked(length as usize).ok_or(Errno::ILSEQ)?;
        items.push(Item { offset: word(16)?, data: data.to_vec() });
        rest = tail;
    }
    Ok(items)
}

// Loop devices (linux/loop.h).

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
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
struct LoopConfiguration {
    file: u32,
    block_size: u32,
    info: LoopInfo,
    unused: [u64; 8],
}

const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_STATUS: Opcode = 0x4C05;
const LOOP_FREE: Opcode = 0x4C82;
/// `LO_FLAGS_AUTOCLEAR`: the device lets go of its file when nobody has it open or mounted any more.
pub const LOOP_AUTOCLEAR: u32 = 4;
/// `LO_FLAGS_DIRECT_IO`: it reads and writes past the page cache, so that nothing is cached twice.
pub const LOOP_DIRECT: u32 = 16;

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
pub fn free_loop(control: &OwnedFd) -> Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE has no argument.
    unsafe { ioctl(control, Number::<LOOP_FREE>) }
}

/// Attaches `file` to a loop device. `EBUSY` where it has a file already.
pub fn configure_loop(device: &OwnedFd, file: BorrowedFd<'_>, block_size: u32, flags: u32) -> Result<()> {
    let info = LoopInfo { flags, ..empty_loop() };
    let file = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let mut argument = LoopConfiguration { file, block_size, info, unused: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one loop_config.
    unsafe { ioctl(device, Updater::<LOOP_CONFIGURE, LoopConfiguration>::new(&mut argument)) }
}

/// Device and inode number of the file that a loop device has, and its flags. `ENXIO` where it has none.
pub fn loop_status(device: &OwnedFd) -> Result<(u64, u64, u32)> {
    let mut info = empty_loop();
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64.
    unsafe { ioctl(device, Updater::<LOOP_STATUS, LoopInfo>::new(&mut info)) }?;
    Ok((info.device, info.inode, info.flags))
}

const fn empty_loop() -> LoopInfo {
    LoopInfo {
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

    /// Sizes as a C compiler gives them for the headers' structures, on 64-bit machines.
    #[test]
    fn structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<Attributes>(), 28);
        assert_eq!(size_of::<DiskQuota>(), 112);
        assert_eq!(size_of::<QuotaState>(), 160);
        assert_eq!((size_of::<Named>(), size_of::<Lookup>()), (4096, 4096));
        assert_eq!((size_of::<Pair>(), size_of::<Limit>(), size_of::<Rescan>()), (16, 48, 64));
        assert_eq!((size_of::<SearchKey>(), size_of::<SearchHead>()), (104, 112));
        assert_eq!(std::mem::offset_of!(Search, buffer), 112);
        assert_eq!((size_of::<LoopInfo>(), size_of::<LoopConfiguration>()), (232, 304));
    }

    #[test]
    fn fields_lie_where_the_kernel_looks_for_them() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(Attributes, project), 12);
        assert_eq!((offset_of!(DiskQuota, block_hard_limit), offset_of!(DiskQuota, blocks)), (8, 40));
        assert_eq!(offset_of!(DiskQuota, inodes), 48);
        assert_eq!(offset_of!(QuotaState, flags), 2);
        assert_eq!(offset_of!(SearchKey, items), 64);
        assert_eq!((offset_of!(LoopInfo, flags), offset_of!(LoopConfiguration, info)), (52, 8));
    }

    /// Numbers as that compiler prints them; architectures differ in how they encode the direction, and these two agree.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn calls_have_the_kernels_numbers() {
        assert_eq!((GET_ATTRIBUTES, SET_ATTRIBUTES), (0x801c_581f, 0x401c_5820));
        assert_eq!((GET_QUOTA, SET_LIMITS, GET_STATE), (0x0058_0302, 0x0058_0402, 0x0058_0802));
        assert_eq!((SUBVOLUME_CREATE, SNAPSHOT_DESTROY), (0x5000_940e, 0x5000_940f));
        assert_eq!((TREE_SEARCH, INODE_LOOKUP), (0xc070_9411, 0xd000_9412));
        assert_eq!((GET_FLAGS, SET_FLAGS), (0x8008_9419, 0x4008_941a));
        assert_eq!((GET_LABEL, SET_LABEL), (0x8100_9431, 0x4100_9432));
        assert_eq!((QUOTA_CONTROL, QGROUP_CREATE), (0xc010_9428, 0x4010_942a));
        assert_eq!((QGROUP_LIMIT, QUOTA_RESCAN), (0x8030_942b, 0x4040_942c));
    }

    #[test]
    fn a_subvolumes_name_is_one_name() {
        for bad in [&b""[..], b"a/b", b"a\0b"] {
            assert_eq!(named(bad).err(), Some(Errno::INVAL));
        }
        assert_eq!(named(&[b'a'; 4088]).err(), Some(Errno::NAMETOOLONG));
        assert_eq!(&named(b"vol").unwrap().name[..4], b"vol\0");
    }
}
