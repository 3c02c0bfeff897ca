//! How full a volume is.

use serde::{Deserialize, Serialize};

/// A volume's use of its space; bytes and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Size: the limit where one is enforced, else that of the file system.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can still be written.
    pub available: u64,
    /// Inodes in all; 0 where the file system doesn't count them.
    pub inodes: u64,
    /// Inodes in use.
    pub inodes_used: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}
