//! Why an export can't be mounted, in words that say what to do.

use serde::{Deserialize, Serialize};

use crate::volume::Version;

/// Why an export can't be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MountError {
    /// The server's name has no address.
    #[error(
        "the server {server:?} has no address: {why}; check its name, and /etc/hosts or DNS where this process runs"
    )]
    Resolve {
        /// The name.
        server: String,
        /// The resolver's words.
        why: String,
    },
    /// Nothing listens there.
    #[error(
        "{source_} ({address}): connection refused: no NFS server listens there; start it, or check the address and the \
         port (2049, and 111 for NFSv3)"
    )]
    Refused {
        /// server:/path.
        source_: String,
        /// The address that was tried.
        address: String,
    },
    /// No way to it, or no answer from the network.
    #[error("{source_} ({address}): can't be reached: {why}; check the address, routes and firewalls")]
    Unreachable {
        /// server:/path.
        source_: String,
        /// The address that was tried.
        address: String,
        /// The kernel's words.
        why: String,
    },
    /// No answer within the deadline.
    #[error(
        "{source_} ({address}): no answer within {seconds} s, so the mount was given up; check that the server is up, and that \
         firewalls let its port through (2049)"
    )]
    TimedOut {
        /// server:/path.
        source_: String,
        /// The address that was tried.
        address: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The server doesn't let this host.
    #[error(
        "{source_}: access denied by the server ({why}); export the path to the address of this host, and allow its kind of \
         security (sec=)"
    )]
    Denied {
        /// server:/path.
        source_: String,
        /// The kernel's words.
        why: String,
    },
    /// The server has no such path.
    #[error("{source_}: the server has no such path; check the share, and that the directory exists there")]
    NoSuchPath {
        /// server:/path.
        source_: String,
    },
    /// None of the versions.
    #[error(
        "{source_}: the server speaks none of NFS {}; name a version that it speaks in mountOptions (vers=), or enable one \
         of these there",
        list(.versions)
    )]
    Version {
        /// server:/path.
        source_: String,
        /// Those that were tried.
        versions: Vec<Version>,
    },
    /// The kernel refuses an option.
    #[error(
        "{source_}: the kernel refuses the mount options \"{options}\": {why}; mend the mountOptions of the class"
    )]
    Options {
        /// server:/path.
        source_: String,
        /// All options.
        options: String,
        /// The kernel's words.
        why: String,
    },
    /// NFSv3 without a lock daemon.
    #[error(
        "{source_}: NFSv3 locks need rpc.statd on this host, and it is not running ({why}); start it, or use vers=4.1 or \
         4.2, or say nolock in mountOptions, which keeps locks on one host each"
    )]
    NoLockDaemon {
        /// server:/path.
        source_: String,
        /// What was found.
        why: String,
    },
    /// This kernel knows no NFS.
    #[error(
        "this host's kernel has no NFS client (version {0}); load the modules nfs and nfsv4 (nfsv3) there"
    )]
    NoClient(Version),
    /// The place to mount at.
    #[error("{target}: {why}")]
    Target {
        /// The path.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else.
    #[error("{source_}: {why}")]
    Other {
        /// server:/path.
        source_: String,
        /// The kernel's words.
        why: String,
    },
}

fn list(versions: &[Version]) -> String {
    versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
