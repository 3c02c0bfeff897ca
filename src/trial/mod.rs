//! `kuration try`: the first thing a new user runs.
//!
//! It starts the driver as a child in a temporary place and drives a volume through its whole life over the driver's own
//! socket, as the sidecars and the kubelet would, showing each step. What works here works in a cluster, as far as one
//! machine can tell; and nothing of it stays behind.

mod abilities;
mod driver;
mod namespace;
mod place;
mod pod;
mod server;
mod show;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::client::{Kubelet, Life, Order, interrupted};
use crate::volume::{Export, Mode};

use driver::{Backend, Driver};
use place::Place;
use show::{Failed, Teller};

pub use abilities::Finding;
pub use namespace::{NamespaceError, Standing, enter_namespace};
pub use show::{Step, Surroundings, Verdict};

/// The size of the volume: small enough to be filled in a moment, large enough for any file system.
const SIZE: u64 = 64 << 20;

/// How much of the driver's log is shown after a failure.
const LOG_LINES: usize = 15;

/// What to try.
#[derive(Debug, Clone)]
pub struct TryOptions {
    /// Who tries, as [`enter_namespace`] found.
    pub standing: Standing,
    /// An NFS server's export, instead of a pool in a temporary place.
    pub server: Option<Export>,
    /// Options to mount it with.
    pub mount_flags: Vec<String>,
    /// One JSON document instead of a line per step.
    pub json: bool,
    /// What the driver writes to standard error meanwhile. Without it, warnings are kept, and shown after a failure.
    pub log: Option<String>,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// NFS is mounted by root alone.
    #[error(
        "mounting NFS needs root: run `sudo kuration try --server … --share …`; without a server, no root is needed"
    )]
    NeedsRoot,
    /// The temporary place, or standard output.
    #[error("{0}")]
    Local(#[from] io::Error),
}

/// A trial under way.
struct Trial {
    standing: Standing,
    server: Option<Export>,
    log: Option<String>,
    place: Place,
    teller: Teller,
    backend: Backend,
    /// Whether a volume's size is a limit that the file system enforces.
    limits: bool,
    order: Order,
    kubelet: Kubelet,
    /// What lay in the pool before there was a volume.
    pool_before: BTreeSet<PathBuf>,
    /// Shared with whoever may be at work in a volume.
    at_work: Arc<()>,
    driver: Option<Driver>,
    life: Option<Life>,
}

/// Tries the driver, tells how it goes on standard output, and leaves nothing behind, also when it is interrupted.
pub async fn run(options: TryOptions) -> Result<Verdict, TrialError> {
    let TryOptions { standing, server, mount_flags, json, log } = options;
    if server.is_some() && standing != Standing::Root {
        return Err(TrialError::NeedsRoot);
    }
    let place = Place::new()?;
    let mut parameters = BTreeMap::new();
    if let Some(export) = &server {
        parameters.insert("server".to_owned(), export.server().to_owned());
        parameters.insert("share".to_owned(), export.path().to_owned());
    }
    let order = Order {
        size: SIZE,
        mode: Mode::MultiNodeMultiWriter,
        mount_flags,
        parameters,
        secrets: BTreeMap::new(),
    };
    let mut trial = Trial {
        standing,
        server,
        log,
        kubelet: Kubelet::new(&place.kubelet(), ""),
        place,
        teller: Teller::new(json),
        backend: Backend::Pool { image: false },
        limits: false,
        order,
        pool_before: BTreeSet::new(),
        at_work: Arc::new(()),
        driver: None,
        life: None,
    };

    let stopped = tokio::select! {
        _ = trial.forward() => false,
        () = interrupted() => true,
    };
    // Whoever presses Ctrl-C once more does not want to wait for a dead server.
    let undone = tokio::select! {
        () = trial.backward() => true,
        () = interrupted() => false,
    };
    let failed = trial.teller.failed().cloned();
    let log = if failed.is_some() { driver::log_tail(&trial.place, LOG_LINES) } else { Vec::new() };
    trial.clean().await;
    let stopped = stopped.then_some(undone);
    let verdict = verdict(stopped, failed.as_ref().or(trial.teller.failed()), trial.server.as_ref());
    trial.teller.close(&verdict, &log)?;
    Ok(verdict)
}

/// `stopped`: whether somebody interrupted it, and whether all was undone before somebody did so again.
fn verdict(stopped: Option<bool>, failed: Option<&Failed>, server: Option<&Export>) -> Verdict {
    let place = server.map_or("on this machine".to_owned(), |export| format!("with {export}"));
    // It holds the export's identity, by which volumes know it again.
    let but = if server.is_some() { " there but its directory .kuration" } else { "" };
    match failed {
        None => match stopped {
            None => Verdict {
                works: true,
                summary: format!("Kuration works {place}, and nothing is left behind{but}."),
            },
            Some(true) => Verdict { works: false, summary: "Interrupted; all was undone.".to_owned() },
            Some(false) => {
                Verdict { works: false, summary: "Interrupted, before all was undone.".to_owned() }
            }
        },
        Some(Failed { step, why }) => {
            let why = why.lines().next().unwrap_or_default();
            Verdict { works: false, summary: format!("Kuration does not work {place}: {step}: {why}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_says_what_failed() {
        let failed = Failed { step: "stage", why: "NodeStageVolume answered INTERNAL: no\nmore".to_owned() };
        let told = verdict(Some(true), Some(&failed), None);
        assert!(
            !told.works && told.summary.ends_with("stage: NodeStageVolume answered INTERNAL: no"),
            "{told:?}"
        );
        assert!(verdict(None, None, None).works && !verdict(Some(true), None, None).works);
    }

    #[tokio::test]
    async fn a_server_needs_root() {
        let server = Some(Export::new("nfs.example", "/data").unwrap());
        let (standing, mount_flags) = (Standing::User { uid: 1000 }, Vec::new());
        let tried = run(TryOptions { standing, server, mount_flags, json: true, log: None }).await;
        assert!(matches!(tried, Err(TrialError::NeedsRoot)));
    }
}
