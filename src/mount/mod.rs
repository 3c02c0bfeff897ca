//! A node's mounts: what is mounted (read from mountinfo, which never blocks), mounting, binding, measuring, unmounting.
//!
//! All that could wait for a server happens in a child ([`crate::child`]); the answers here come within their deadlines.

mod error;
mod job;
mod ladder;
pub mod linux;
mod negotiate;
mod nfs;
mod node;
mod ping;
mod rpcbind;
pub mod table;

pub use error::MountError;
pub use job::{Answer, Job, work};
pub use ladder::Rung;
pub use negotiate::{Found, negotiate};
pub use nfs::{NfsMount, mount_detached};
pub use node::{MeasureError, Mounter, ResolveError, UnmountError};
