//! `kuration bench`: what a driver's RPCs cost, measured at its socket.
//!
//! Whole life cycles (create, publish, stage, node publish, stats and back) are driven through any CSI driver, as the
//! sidecars and the kubelet would, a number of them at a time. What is told is the time per RPC and per life cycle, the
//! memory and children of the process behind the socket, and the NFS calls that one life cycle causes.

mod nfs;
mod process;
mod raw;
mod report;
mod summary;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Call, Client, ClientError, Kubelet, Life, Order, interrupted, mounts_beneath};
use crate::volume::{Kind, Mode, MountOptions, Parameters};
pub use nfs::NfsCalls;
pub use process::{Children, Process};
pub use report::{Failure, Load, Mounts, Report};
pub use summary::Summary;

/// How often Probe is asked for the floor.
const PROBES: usize = 100;

/// After so many failures in a row the rest is not begun.
const FAILURES: usize = 20;

/// What to measure. It holds secrets, so it has no `Debug`.
pub struct BenchOptions {
    /// The driver's socket, `unix:///path/to/csi.sock`.
    pub endpoint: String,
    /// How many life cycles are measured.
    pub count: usize,
    /// How many of them go on at a time.
    pub concurrency: usize,
    /// How many go before, unmeasured.
    pub warmup: usize,
    /// The StorageClass's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The secret of every step.
    pub secrets: BTreeMap<String, String>,
    /// The StorageClass's mount options.
    pub mount_flags: Vec<String>,
    /// The size of each volume in bytes.
    pub size: u64,
    /// One JSON document instead of a table.
    pub json: bool,
    /// Whether the bare system calls are measured too, on the export that the parameters name.
    pub raw: bool,
    /// A kubelet's directory for staging and targets, seen by the driver under the same path. Without one, a temporary
    /// directory.
    pub root: Option<PathBuf>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The driver could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It has no controller service.
    #[error("{0} has no controller service on this socket, so it creates no volume to measure")]
    NoController(String),
    /// Not even one life cycle went well.
    #[error("the first life cycle failed, so nothing is measured: {0}")]
    First(ClientError),
    /// A file or directory of the bench's own.
    #[error("{0}")]
    Local(#[from] io::Error),
}

/// One life cycle as it went.
struct Cycle {
    took: Duration,
    calls: Vec<Call>,
    error: Option<ClientError>,
}

/// Measures, and prints what came of it to standard output. The run went well where [`Report::failed`] is 0.
pub async fn run(options: BenchOptions) -> Result<Report, BenchError> {
    let client = Client::connect(&options.endpoint, Duration::from_secs(3)).await?;
    if !client.plugin().controller {
        return Err(BenchError::NoController(client.plugin().name.clone()));
    }
    let temporary = match options.root {
        Some(_) => None,
        None => {
            Some(Emptied(tempfile::Builder::new().prefix("kuration-bench-").disable_cleanup(true).tempdir()?))
        }
    };
    let root = temporary.as_ref().map(|directory| directory.0.path().to_owned()).or(options.root.clone());
    let root = std::path::absolute(root.unwrap_or_default())?;
    let bench = Arc::new(Bench {
        kubelet: Kubelet::new(&root, &client.plugin().name),
        order: Order {
            size: options.size,
            mode: Mode::MultiNodeMultiWriter,
            mount_flags: options.mount_flags.clone(),
            parameters: options.parameters.clone(),
            secrets: options.secrets.clone(),
        },
        client,
        next: AtomicUsize::new(0),
        failures: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    });
    let stopper = Arc::clone(&bench);
    tokio::spawn(async move {
        interrupted().await;
        stopper.stop.store(true, Ordering::Relaxed);
    });

    let bare = if options.raw { bare(&options).await? } else { Vec::new() };
    for warmed in 0..options.warmup {
        if bench.stop.load(Ordering::Relaxed) {
            break;
        }
        if let (0, Some(error)) = (warmed, bench.cycle().await.error) {
            return Err(BenchError::First(error));
        }
    }
    let mut floor = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let start = Instant::now();
        bench.client.probe().await?;
        floor.push(start.elapsed());
    }

    let pid = bench.client.server_process().await;
    let before = pid.and_then(Process::read);
    let mounts_before = mounts(pid, &root);
    let nfs_before = NfsCalls::read();
    let children = process::watch(pid);
    let start = Instant::now();
    let cycles = bench.all(options.count, options.concurrency.max(1)).await;
    let elapsed = start.elapsed();
    let children = children.stop().await;
    let nfs = NfsCalls::read().zip(nfs_before).map(|(after, before)| after.since(&before));
    let load = pid.and_then(|pid| {
        let (before, after) = (before?, Process::read(pid)?);
        Some(Load { pid, before, after, children })
    });
    let mounts = Mounts { before: mounts_before, after: mounts(pid, &root) };

    let report = Report::new(bench.client.plugin(), &options, &floor, &cycles, elapsed)
        .with_surroundings(load, mounts, nfs)
        .with_bare(bare);
    let text = if options.json {
        report.json().map_err(io::Error::from)?
    } else {
        report.table().map_err(io::Error::other)?
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(report)
}

/// The bare system calls, on the export of the parameters `server` and `share`.
async fn bare(options: &BenchOptions) -> Result<Vec<Summary>, BenchError> {
    let parameters = Parameters::parse(Kind::Share, &options.parameters).map_err(io::Error::other)?;
    let export =
        parameters.export.ok_or_else(|| io::Error::other("--raw needs the parameters server and share"))?;
    let flags = MountOptions::parse(&options.mount_flags).map_err(io::Error::other)?;
    Ok(raw::measure(&export, &flags).await?)
}

/// A temporary directory that is removed if it is empty. Were it removed with what is in it, a mount that a driver left
/// there would lose its files.
struct Emptied(tempfile::TempDir);

impl Drop for Emptied {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(self.0.path()));
    }
}

/// Mounts beneath the root that the bench sees or, if it lives apart, the driver.
fn mounts(pid: Option<u32>, root: &std::path::Path) -> usize {
    let count = |process: &str| mounts_beneath(process, root).map_or(0, |points| points.len());
    count("self").max(pid.map_or(0, |pid| count(&pid.to_string())))
}

struct Bench {
    client: Client,
    kubelet: Kubelet,
    order: Order,
    next: AtomicUsize,
    /// Life cycles that failed since one succeeded.
    failures: AtomicUsize,
    stop: AtomicBool,
}

impl Bench {
    /// `count` life cycles, `concurrency` at a time, until they are done or somebody presses Ctrl-C; those under way are
    /// finished, so that nothing is left behind.
    async fn all(self: &Arc<Self>, count: usize, concurrency: usize) -> Vec<Cycle> {
        let mut workers = JoinSet::new();
        for _ in 0..concurrency.min(count) {
            let bench = Arc::clone(self);
            workers.spawn(async move {
                let mut cycles = Vec::new();
                while !bench.stop.load(Ordering::Relaxed)
                    && bench.next.fetch_add(1, Ordering::Relaxed) < count
                {
                    let cycle = bench.cycle().await;
                    bench.heed(&cycle);
                    cycles.push(cycle);
                }
                cycles
            });
        }
        let mut cycles = Vec::with_capacity(count);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let terminal = io::stderr().is_terminal();
        loop {
            tokio::select! {
                done = workers.join_next() => match done {
                    Some(Ok(more)) => cycles.extend(more),
                    Some(Err(_)) => {}
                    None => break,
                },
                _ = tick.tick(), if terminal => {
                    let begun = self.next.load(Ordering::Relaxed).min(count);
                    eprint!("\r{begun} of {count} life cycles ");
                }
            }
        }
        if terminal {
            eprint!("\r\x1b[K");
        }
        cycles
    }

    /// Gives up where nothing succeeds any more: a driver that has died won't come back for the rest.
    fn heed(&self, cycle: &Cycle) {
        if cycle.error.is_none() {
            self.failures.store(0, Ordering::Relaxed);
        } else if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// One volume, there and back.
    async fn cycle(&self) -> Cycle {
        let mut life = Life::new(self.client.clone(), self.kubelet.clone(), self.order.clone());
        let start = Instant::now();
        let mut error = up(&mut life).await.err();
        let down = life.down().await;
        error = error.or(down.err());
        Cycle { took: start.elapsed(), calls: life.take_calls(), error }
    }
}

async fn up(life: &mut Life) -> Result<(), ClientError> {
    life.create().await?;
    life.publish().await?;
    life.stage().await?;
    let target = life.node_publish().await?;
    life.stats(&target).await?;
    Ok(())
}
