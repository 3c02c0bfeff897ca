//! Work that may hang, done by child processes that can be killed.
//!
//! A system call on an NFS mount whose server is gone waits, and a thread that waits there can't be cancelled; only a
//! whole process can be ended, by SIGKILL, within milliseconds (research on Linux 6.1 to 7.2: the wait is
//! `TASK_KILLABLE`). So whatever touches such a mount runs in a child of this program (`kuration worker ROLE`), which
//! reads jobs from its standard input and writes answers to it, each a length and JSON. The parent waits with a deadline
//! and kills.
//!
//! A child lives on after its job: fork and exec are the dearest thing on a request's path (3 ms in a virtual machine,
//! against 0.1 ms for a question over the socket), so a healthy driver starts a few children once and none per request.
//!
//! What it costs: one process of some 2 MB that is mostly shared with the driver's own pages.

mod crew;
mod parent;
mod serve;

use std::sync::atomic::{AtomicU64, Ordering};

pub use crew::Crew;
pub use parent::{Child, Lost};
pub use serve::serve;

/// Longest message in either direction, in bytes: a page of a listing is the largest, at some 2 KiB a volume.
const MAX_MESSAGE: usize = 64 << 20;

/// Children started since this process began.
pub static STARTED: AtomicU64 = AtomicU64::new(0);
/// Children killed because they did not answer in time, by role.
pub static KILLED: [(&str, AtomicU64); 3] =
    [("share", AtomicU64::new(0)), ("mount", AtomicU64::new(0)), ("results", AtomicU64::new(0))];
/// Children that exist now.
pub static ALIVE: AtomicU64 = AtomicU64::new(0);

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
