//! Calls of the kernel that no safe crate wraps: project ids and their quota, btrfs subvolumes and quota groups, loop
//! devices. Each function here is one call or two; numbers and layouts are those of the kernel's uapi headers, which never
//! change.
//!
//! The only place of this room with `unsafe`: a call whose argument is not of the size that its number says would let the
//! kernel write over memory. So every structure stands here, and tests check sizes, fields and numbers against what a C
//! compiler makes of the headers on 64-bit machines.

#![allow(unsafe_code, reason = "ioctl(2) and quotactl_fd(2) take untyped pointers")]

pub mod btrfs;
pub mod loops;
pub mod project;
