//! What a pool's file system can do for volumes, found by trying.
//!
//! | file system | volume | limit | seen by statfs | use is counted |
//! |---|---|---|---|---|
//! | xfs mounted with `prjquota` | directory with a project id | enforced, `ENOSPC` | yes | at once |
//! | btrfs | subvolume | enforced, `EDQUOT` | no | within 30 s |
//! | any other | directory | recorded | no | of the whole file system |

mod btrfs;
mod commits;
mod plain;
mod projects;
pub mod remove;
mod xfs;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstatfs, openat};
use rustix::io::{self, Errno};

pub use btrfs::Btrfs;
pub use plain::Plain;
pub use xfs::Xfs;

use super::ioctl::project;
use crate::backend::store::{FileSystem, Usage};

// By these numbers statfs(2) names the kind of a file system (linux/magic.h; xfs' own is in statfs(2)).
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683e;
const NAMED: [(i64, &str); 7] = [
    (0xef53, "ext4"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x6969, "nfs"),
];

/// How volumes are made on a pool, and why so.
pub struct Probed {
    /// What makes them.
    pub file_system: Box<dyn FileSystem>,
    /// A sentence for whoever runs the pool: what was found, and what would have to be done where sizes are not enforced.
    pub why: String,
}

/// Finds out how volumes are made beneath `root`, a pool's top directory. Where btrfs has its quota groups off, they are
/// turned on, for the whole file system, since there is no other way to a limit.
///
/// What is given back holds `root` open, so a pool can't be unmounted before it is dropped. Fails only where `root` can't
/// be asked at all.
pub fn probe(root: BorrowedFd<'_>) -> io::Result<Probed> {
    // The type's width and sign differ between architectures; its low 32 bits count.
    #[allow(clippy::unnecessary_cast, reason = "f_type is not i64 everywhere")]
    let magic = fstatfs(root)?.f_type as i64 & 0xffff_ffff;
    let (file_system, why): (Box<dyn FileSystem>, _) = match magic {
        XFS => match xfs_quota(root) {
            Ok(()) => {
                (Box::new(Xfs::new(reopen(root)?)), "xfs with project quota: sizes are enforced".to_owned())
            }
            Err(why) => (Box::new(Plain::local()), why),
        },
        BTRFS => match Btrfs::enable(root) {
            Ok(turned_on) => {
                let now = if turned_on { ", which were off and are on from now on" } else { "" };
                (Box::new(Btrfs::default()), format!("btrfs with quota groups{now}: sizes are enforced"))
            }
            Err(errno) => {
                let why =
                    format!("btrfs whose quota groups can't be used ({errno}): sizes are not enforced; ");
                (Box::new(Plain::local()), why + "run as root with CAP_SYS_ADMIN, or run btrfs quota enable")
            }
        },
        other => {
            let name = NAMED.iter().find(|(magic, _)| *magic == other).map(|(_, name)| (*name).to_owned());
            let name = name.unwrap_or_else(|| format!("a file system of type {other:#x}"));
            let why =
                "sizes are recorded and not enforced; for enforced ones use xfs with -o prjquota, or btrfs";
            (Box::new(Plain::local()), format!("{name}: {why}"))
        }
    };
    Ok(Probed { file_system, why })
}

const OFF: &str =
    "without project quota: sizes are not enforced; mount it with -o prjquota (on Linux 5.14 or newer)";

/// Whether xfs limits projects here, and we may set limits; else why not.
fn xfs_quota(root: BorrowedFd<'_>) -> Result<(), String> {
    let not = |why: &str| Err(format!("xfs {why}"));
    match project::state(root) {
        Ok(flags) if flags & project::COUNTED == 0 => return not(OFF),
        Ok(flags) if flags & project::ENFORCED == 0 => {
            return not(
                "that counts project quota and doesn't enforce it: mount it with -o prjquota, not pqnoenforce",
            );
        }
        Ok(_) => {}
        // The kernel says the same of a file system that has its quota off as of one that can't have any. This file is
        // there where xfs was built with quota.
        Err(Errno::NOSYS) if !std::path::Path::new("/proc/fs/xfs/xqm").exists() => {
            return not("on a kernel whose xfs has no quota: sizes are not enforced; use btrfs here");
        }
        Err(Errno::NOSYS) => return not(OFF),
        Err(errno) => {
            return not(&format!("whose quota can't be asked for ({errno}): sizes are not enforced"));
        }
    }
    // Anybody may ask for the state. That we may do more shows only when we do more.
    match project::quota(root, 1) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => not(&format!(
            "whose quota can't be used ({errno}): sizes are not enforced; run with CAP_SYS_ADMIN"
        )),
    }
}

fn reopen(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    openat(root.as_fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The use of a volume of `total` bytes on a file system that has `free` bytes for all. What is left to a volume is never
/// more than what is left to everybody, and may be nothing where the limit was passed or moved down.
fn room_for(total: u64, used: u64, free: u64) -> Usage {
    Usage { total, used, available: total.saturating_sub(used).min(free), ..Usage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_no_more_room_than_the_pool() {
        assert_eq!(room_for(100, 40, 1000).available, 60);
        assert_eq!(room_for(100, 40, 10).available, 10);
        assert_eq!(room_for(100, 140, 1000).available, 0);
    }

    #[test]
    fn what_has_no_quota_is_plain_and_says_so() {
        let proc = std::fs::File::open("/proc").unwrap();
        let probed = probe(proc.as_fd()).unwrap();
        assert_eq!((probed.file_system.name(), probed.file_system.enforces()), ("plain", false));
        assert!(probed.why.contains("0x9fa0") && probed.why.contains("not enforced"), "{}", probed.why);
    }
}
