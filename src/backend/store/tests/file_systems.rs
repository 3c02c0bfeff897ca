//! File systems as some are.

use std::os::fd::BorrowedFd;

use rustix::io::{self, Errno};

use crate::backend::pool::fs::Plain;
use crate::backend::store::{FileSystem, Usage};
use crate::volume::{Key, Owner};

/// Does what it is asked, and loses the first answer, as a server may that is asked again.
pub struct Replayed(pub Plain);

/// Enforces sizes, of a file system of 1,000,000 bytes.
pub struct Small(pub Plain);

macro_rules! file_system {
    ($name:ident, $enforces:literal, $make:expr, $room:expr) => {
        impl FileSystem for $name {
            fn name(&self) -> &'static str {
                stringify!($name)
            }
            fn enforces(&self) -> bool {
                $enforces
            }
            fn make(
                &self,
                at: BorrowedFd<'_>,
                name: &str,
                key: &Key,
                owner: Owner,
                bytes: u64,
            ) -> io::Result<Option<u64>> {
                $make(self.0.make(at, name, key, owner, bytes))
            }
            fn settle(
                &self,
                at: BorrowedFd<'_>,
                key: &Key,
                owner: Owner,
                bytes: u64,
            ) -> io::Result<Option<u64>> {
                self.0.settle(at, key, owner, bytes)
            }
            fn limit(&self, _: BorrowedFd<'_>, _: Option<u64>, _: u64) -> io::Result<()> {
                Ok(())
            }
            fn usage(&self, at: BorrowedFd<'_>, quota: Option<u64>, bytes: u64) -> io::Result<Usage> {
                self.0.usage(at, quota, bytes)
            }
            fn remove(&self, parent: BorrowedFd<'_>, name: &str, quota: Option<u64>) -> io::Result<()> {
                self.0.remove(parent, name, quota)
            }
            fn room(&self, root: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
                $room(self.0.room(root))
            }
        }
    };
}

file_system!(Replayed, false, |_| Err(Errno::EXIST), |room| room);
file_system!(Small, true, |made| made, |_| Ok((1_000_000, 1_000_000)));
