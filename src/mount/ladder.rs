//! How to get rid of a mount whose server may be dead: from the gentlest means to the last.
//!
//! Measured on Linux 6.1 to 6.12: MNT_DETACH first is a trap, since a writer then waits where nobody can kill it and
//! nothing can be forced any more. So it comes last, after everything that lets such a writer go.

use std::time::Duration;

use super::linux::{self, Unmount};
use super::table::{self, Entry};

/// What got rid of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// There was nothing.
    Nothing,
    /// A plain unmount.
    Plain,
    /// The kernel's `shutdown` of the superblock, and then an unmount.
    Shutdown,
    /// MNT_FORCE, as often as it took.
    Force,
    /// MNT_DETACH: out of the table, though a process may still hold on to it.
    Detach,
}

/// A plain unmount takes milliseconds where nothing is left to write, and up to 10 s where the kernel waits in vain to end
/// its session; a forced one needs two or three tries.
pub(super) const PLAIN: Duration = Duration::from_secs(3);
/// How long a server that answers is given to take what was written and not yet sent.
pub(super) const FLUSH: Duration = Duration::from_secs(600);
const FORCE: Duration = Duration::from_secs(2);
const FORCED_TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(200);

/// The rungs above the plain unmount of `entry`. `unmount` does one call with its own deadline; the mount table says whether
/// it helped. Where the superblock is `shared` with other mounts, which stay, nothing is done to it: only this mount goes.
pub(super) async fn climb<F>(
    entry: &Entry,
    shared: bool,
    mut unmount: impl FnMut(Unmount, Duration) -> F,
) -> std::io::Result<Rung>
where
    F: Future<Output = ()>,
{
    let gone = || table::read().map(|table| !table.iter().any(|other| other.id == entry.id));
    if shared {
        unmount(Unmount::Detach, PLAIN).await;
        return if gone()? { Ok(Rung::Detach) } else { Err(std::io::Error::other("it can't be detached")) };
    }
    if linux::shut_down(&entry.device) {
        for _ in 0..3 {
            unmount(Unmount::Plain, PLAIN).await;
            if gone()? {
                return Ok(Rung::Shutdown);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    for _ in 0..FORCED_TRIES {
        unmount(Unmount::Force, FORCE).await;
        if gone()? {
            return Ok(Rung::Force);
        }
        tokio::time::sleep(PAUSE).await;
    }
    unmount(Unmount::Detach, PLAIN).await;
    if gone()? { Ok(Rung::Detach) } else { Err(std::io::Error::other("the mount outlived every means")) }
}
