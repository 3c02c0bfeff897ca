//! Volumes on real file systems: limits that hold, numbers that are right, removals that are complete.
//!
//! They need root, loop devices, and mkfs.btrfs or mkfs.xfs. Those that are ignored need a kernel whose xfs has project quota, as
//! the guest's of `tests/guest/run` has: `tests/run`'s stage 'xfs quota' runs them there, with `--include-ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod pool_filesystems {
    mod btrfs;
    mod every;
    mod image;
    mod plain;
    mod records;
    mod stand;
    mod xfs;
}
