//! The process behind the socket: its memory, threads, descriptors and children.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Clock ticks per second in /proc/PID/stat: `USER_HZ`, 100 on every architecture that Kuration is built for.
const TICKS: f64 = 100.0;

/// How often the children are looked at.
const SAMPLE: Duration = Duration::from_millis(10);

/// A process at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Process {
    /// Resident memory in KiB (`VmRSS`).
    pub rss_kib: u64,
    /// Of it, memory of its own rather than pages of files (`RssAnon`).
    pub anon_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors; `None` where the bench may not look (another user's process).
    pub descriptors: Option<usize>,
    /// Its children.
    pub children: usize,
    /// Resident memory of the children together, in KiB. Pages that they share with their parent count twice.
    pub children_rss_kib: u64,
    /// Processor time it has used, in milliseconds, to the kernel's 10.
    pub cpu_ms: f64,
    /// Processor time of children that have ended, in milliseconds.
    pub ended_children_cpu_ms: f64,
    /// Processes and threads that the whole machine has started since it booted.
    pub machine_forks: u64,
}

impl Process {
    /// The process of this number now; `None` where it is gone.
    pub fn read(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in brackets and may hold anything; the fields after it are numbered from 3, the state.
        let ticks: Vec<f64> =
            stat.rsplit_once(')')?.1.split_ascii_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        let millis = |first: usize| ticks.iter().skip(first - 3).take(2).sum::<f64>() * 1000.0 / TICKS;
        let children = children(pid);
        let resident = |child: &u32| {
            fs::read_to_string(format!("/proc/{child}/status")).map_or(0, |s| field(&s, "VmRSS"))
        };
        Some(Self {
            rss_kib: field(&status, "VmRSS"),
            anon_kib: field(&status, "RssAnon"),
            threads: field(&status, "Threads"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).ok(),
            children: children.len(),
            children_rss_kib: children.iter().map(resident).sum(),
            cpu_ms: millis(14),
            ended_children_cpu_ms: millis(16),
            machine_forks: machine_forks(),
        })
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn machine_forks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("processes ")?.trim().parse().ok()).unwrap_or(0)
}

/// The direct children; each thread has a list of those it started.
fn children(pid: u32) -> BTreeSet<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// The children that came up while life cycles were driven.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Children {
    /// Distinct children that were not there at the start, seen by looking every 10 ms. One that lived shorter may have
    /// been missed; [`Children::machine_forks`] bounds what was.
    pub seen: usize,
    /// Processes and threads that the whole machine started meanwhile, kernel threads and the bench's own included. The driver can't
    /// have
    /// started more than so many children.
    pub machine_forks: u64,
}

/// Looks at a process's children until it is stopped.
pub(super) struct Watch {
    stop: Arc<Notify>,
    task: JoinHandle<Children>,
}

/// Begins to look.
pub(super) fn watch(pid: Option<u32>) -> Watch {
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    // Now, and not when the task first runs: what is started meanwhile counts.
    let forks = machine_forks();
    let there = pid.map(children).unwrap_or_default();
    let task = tokio::spawn(async move {
        let mut seen = there.clone();
        let mut tick = tokio::time::interval(SAMPLE);
        loop {
            tokio::select! {
                _ = tick.tick() => seen.extend(pid.map(children).unwrap_or_default()),
                () = stopped.notified() => break,
            }
        }
        Children {
            seen: seen.difference(&there).count(),
            machine_forks: machine_forks().saturating_sub(forks),
        }
    });
    Watch { stop, task }
}

impl Watch {
    /// Ends the looking.
    pub(super) async fn stop(self) -> Children {
        self.stop.notify_one();
        self.task.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_itself() {
        let me = Process::read(std::process::id()).unwrap();
        assert!(me.rss_kib >= me.anon_kib && me.anon_kib > 0 && me.threads >= 1, "{me:?}");
        assert!(me.descriptors.unwrap() > 2 && me.machine_forks > 0, "{me:?}");
        assert_eq!(Process::read(u32::MAX), None);
    }

    #[tokio::test]
    async fn a_child_is_seen() {
        let watch = watch(Some(std::process::id()));
        tokio::process::Command::new("sleep").arg("0.1").status().await.unwrap();
        let children = watch.stop().await;
        assert!(children.seen >= 1 && children.machine_forks >= 1, "{children:?}");
    }
}
