//! Subvolumes and quota groups of btrfs (linux/btrfs.h, linux/btrfs_tree.h).

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!((size_of::<Named>(), size_of::<Lookup>(), size_of::<Label>()), (4096, 4096, 256));
        assert_eq!((size_of::<Pair>(), size_of::<Limit>(), size_of::<Rescan>()), (16, 48, 64));
        assert_eq!((size_of::<SearchKey>(), offset_of!(SearchKey, items)), (104, 64));
        assert_eq!((size_of::<SearchHead>(), offset_of!(Search, buffer)), (112, 112));
    }

    /// Architectures differ in how they encode the direction of a call; these two agree.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn calls_have_the_kernels_numbers() {
        assert_eq!((SUBVOLUME_CREATE, SNAPSHOT_DESTROY), (0x5000_940e, 0x5000_940f));
        assert_eq!((TREE_SEARCH, INODE_LOOKUP), (0xc070_9411, 0xd000_9412));
        assert_eq!((GET_FLAGS, SET_FLAGS), (0x8008_9419, 0x4008_941a));
        assert_eq!((QUOTA_CONTROL, QGROUP_CREATE), (0xc010_9428, 0x4010_942a));
        assert_eq!((QGROUP_LIMIT, QUOTA_RESCAN), (0x8030_942b, 0x4040_942c));
        assert_eq!((GET_LABEL, SET_LABEL), (0x8100_9431, 0x4100_9432));
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
