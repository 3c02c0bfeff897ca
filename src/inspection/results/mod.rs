//! What is kept of runs, on a volume that may be slow, full, hung or gone.
//!
//! ```text
//! NAMESPACE/TASK-UID8/
//!   task.json latest.json index.json report.html  replaced whole, by rename
//!   daily/2026-09-01.json                       what is left of a day when its runs are gone
//!   runs/2026/09/01/ID/run.json SHA256SUMS …    a run: a directory that appears whole, by rename
//!   runs/2026/09/01/ID/report.html              its page, made of it afterwards; it may go and be made anew
//!   runs/2026/09/01/ID/shards/NODE.json         what each node has found, where every node is looked at
//!   runs/.tmp-POD/                              a run on its way; swept when it is old
//!   .lock/owner.json                            held for index and retention alone
//! ```
//!
//! Nothing is appended to: NFS has no atomic append. The index is made from the runs, so losing it loses nothing. Names that
//! are not ours are neither read nor removed.
//!
//! The process that inspects never touches the volume: a child does ([`Keeper`]), which can be killed when the volume hangs.

mod daily;
mod disk;
mod index;
mod keeper;
mod lock;
mod pages;
mod retention;
mod shards;
mod store;
mod volume;

pub use keeper::{Keeper, room, try_out, work};
pub use retention::Limits;
pub use shards::Fleet;
pub use store::{Attachment, Kept, Loaded, Problem, Saving, load, save};
pub use volume::{Room, Tried};
