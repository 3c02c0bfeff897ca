//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{BenchOptions, Children, Cycle, NfsCalls, Process, Summary};
use crate::client::Plugin;

/// The outcome of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The driver's name.
    pub driver: String,
    /// Its version.
    pub version: String,
    /// Life cycles asked for.
    pub count: usize,
    /// How many at a time.
    pub concurrency: usize,
    /// The size of each volume in bytes.
    pub size: u64,
    /// Life cycles that went well from end to end.
    pub succeeded: usize,
    /// The bare system calls on the same server, where they were measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bare: Vec<Summary>,
    /// Life cycles in which something failed, or that were not begun: somebody pressed Ctrl-C, or nothing succeeded any more.
    pub failed: usize,
    /// The whole run, in seconds.
    pub seconds: f64,
    /// Life cycles that went well, per second.
    pub per_second: f64,
    /// Probe: what a call costs that does nothing.
    pub floor: Summary,
    /// Each RPC, in the order of a life, of the life cycles that went well.
    pub rpcs: Vec<Summary>,
    /// From the first request to the last answer, the kubelet's own part (directories made and removed) included.
    pub life_cycle: Summary,
    /// Failed calls by method and code, with the first one's words.
    pub errors: Vec<Failure>,
    /// The process behind the socket, before and after; `None` where it can't be seen from here.
    pub process: Option<Load>,
    /// Mounts beneath the root.
    pub mounts: Mounts,
    /// NFS calls per life cycle, the whole machine's; `None` where the kernel has no NFS client.
    pub nfs_calls_per_life_cycle: Option<f64>,
    /// The same by procedure.
    pub nfs_procedures_per_life_cycle: BTreeMap<String, f64>,
}

/// A kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The RPC, or `-` for the kubelet's own part.
    pub method: &'static str,
    /// The code.
    pub code: &'static str,
    /// How often.
    pub count: usize,
    /// The first one's words.
    pub message: String,
}

/// The driver's process over the run.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// Its number.
    pub pid: u32,
    /// As it was after the warm-up.
    pub before: Process,
    /// As it was at the end.
    pub after: Process,
    /// The children it had in between.
    pub children: Children,
}

/// Mounts beneath the root, at two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Mounts {
    /// After the warm-up.
    pub before: usize,
    /// At the end.
    pub after: usize,
}

impl Report {
    pub(super) fn new(
        plugin: &Plugin,
        options: &BenchOptions,
        floor: &[Duration],
        cycles: &[Cycle],
        elapsed: Duration,
    ) -> Self {
        let good: Vec<&Cycle> = cycles.iter().filter(|cycle| cycle.error.is_none()).collect();
        let mut rpcs: Vec<(&str, Vec<Duration>)> = Vec::new();
        for call in good.iter().flat_map(|cycle| &cycle.calls).filter(|call| call.error.is_none()) {
            match rpcs.iter_mut().find(|(method, _)| *method == call.method) {
                Some((_, durations)) => durations.push(call.took),
                None => rpcs.push((call.method, vec![call.took])),
            }
        }
        let whole: Vec<Duration> = good.iter().map(|cycle| cycle.took).collect();
        let seconds = elapsed.as_secs_f64();
        Self {
            driver: plugin.name.clone(),
            version: plugin.version.clone(),
            count: options.count,
            concurrency: options.concurrency.max(1),
            size: options.size,
            succeeded: good.len(),
            bare: Vec::new(),
            failed: options.count.saturating_sub(good.len()),
            seconds,
            per_second: if seconds > 0.0 { good.len() as f64 / seconds } else { 0.0 },
            floor: Summary::of("Probe", floor),
            rpcs: rpcs.iter().map(|(method, durations)| Summary::of(method, durations)).collect(),
            life_cycle: Summary::of("whole life cycle", &whole),
            errors: errors(cycles),
            process: None,
            mounts: Mounts::default(),
            nfs_calls_per_life_cycle: None,
            nfs_procedures_per_life_cycle: BTreeMap::new(),
        }
    }

    pub(super) fn with_surroundings(
        mut self,
        process: Option<Load>,
        mounts: Mounts,
        nfs: Option<NfsCalls>,
    ) -> Self {
        self.process = process;
        self.mounts = mounts;
        let each = |count: u64| count as f64 / self.count.max(1) as f64;
        if let Some(nfs) = nfs {
            self.nfs_calls_per_life_cycle = Some(each(nfs.calls));
            self.nfs_procedures_per_life_cycle =
                nfs.procedures.iter().map(|(name, count)| (name.clone(), each(*count))).collect();
        }
        self
    }

    /// The same with the bare system calls.
    pub(super) fn with_bare(self, bare: Vec<Summary>) -> Self {
        Self { bare, ..self }
    }

    /// The report as one JSON document, and a newline.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// The report as a person reads it.
    pub fn table(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.write_table(&mut text).map(|()| text)
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let size = bytesize::ByteSize(self.size);
        writeln!(
            out,
            "{} {}, {} life cycles of {size}, {} at a time",
            self.driver, self.version, self.count, self.concurrency
        )?;
        writeln!(
            out,
            "\n{:28} {:>6} {:>9} {:>9} {:>9} {:>9}",
            "milliseconds", "n", "p50", "p95", "p99", "max"
        )?;
        let rows = self
            .bare
            .iter()
            .chain(std::iter::once(&self.floor))
            .chain(&self.rpcs)
            .chain(std::iter::once(&self.life_cycle));
        for row in rows {
            let Summary { name, count, p50, p95, p99, max } = row;
            let name = if name == "Probe" { "Probe (the floor)" } else { name };
            writeln!(out, "{name:28} {count:>6} {p50:>9.2} {p95:>9.2} {p99:>9.2} {max:>9.2}")?;
        }
        writeln!(
            out,
            "\n{:.1} life cycles/s; {} succeeded, {} failed",
            self.per_second, self.succeeded, self.failed
        )?;
        for Failure { count, message, .. } in &self.errors {
            writeln!(out, "  {count} × {message}")?;
        }
        match &self.process {
            Some(load) => load.write(out, self.count.max(1) as f64)?,
            None => writeln!(
                out,
                "\nThe driver's process can't be seen: it has ended, or is in another process namespace."
            )?,
        }
        writeln!(
            out,
            "mounts beneath the root          {:>10} {:>10}",
            self.mounts.before, self.mounts.after
        )?;
        if let Some(calls) = self.nfs_calls_per_life_cycle {
            writeln!(out, "\nNFS calls per life cycle (the whole machine's): {calls:.1}")?;
            let mut procedures: Vec<_> = self.nfs_procedures_per_life_cycle.iter().collect();
            procedures.sort_by(|a, b| b.1.total_cmp(a.1));
            let named: Vec<String> = procedures.iter().map(|(name, n)| format!("{name} {n:.2}")).collect();
            for line in named.chunks(5) {
                writeln!(out, "  {}", line.join(", "))?;
            }
        }
        Ok(())
    }
}

impl Load {
    fn write(&self, out: &mut String, cycles: f64) -> std::fmt::Result {
        let (before, after) = (&self.before, &self.after);
        let title = format!("process {}", self.pid);
        writeln!(out, "\n{title:32} {:>10} {:>10}", "before", "after")?;
        let mut row =
            |name: &str, before: u64, after: u64| writeln!(out, "{name:32} {before:>10} {after:>10}");
        row("resident memory, KiB", before.rss_kib, after.rss_kib)?;
        row("  of it its own (anonymous)", before.anon_kib, after.anon_kib)?;
        row("threads", before.threads, after.threads)?;
        if let (Some(before), Some(after)) = (before.descriptors, after.descriptors) {
            row("file descriptors", before as u64, after as u64)?;
        }
        row("children", before.children as u64, after.children as u64)?;
        row("  their resident memory, KiB", before.children_rss_kib, after.children_rss_kib)?;
        let each = |after: f64, before: f64| (after - before) / cycles;
        writeln!(
            out,
            "processor time per life cycle: {:.2} ms its own, {:.2} ms of children that ended",
            each(after.cpu_ms, before.cpu_ms),
            each(after.ended_children_cpu_ms, before.ended_children_cpu_ms)
        )?;
        let Children { seen, machine_forks } = self.children;
        writeln!(
            out,
            "children started meanwhile: {seen} seen (looking every 10 ms), at most {machine_forks} \
             (all\n  that the machine started: processes, threads, the kernel's own)"
        )
    }
}

fn errors(cycles: &[Cycle]) -> Vec<Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    for cycle in cycles {
        let calls = cycle.calls.iter().filter_map(|call| call.error.as_ref());
        // What is no call's error (a target left behind, a directory that can't be made) counts too.
        let other =
            cycle.error.as_ref().filter(|error| !cycle.calls.iter().any(|c| c.error.as_ref() == Some(error)));
        for error in calls.chain(other) {
            let (method, code) = error.method_and_code();
            match failures.iter_mut().find(|f| f.method == method && f.code == code) {
                Some(failure) => failure.count += 1,
                None => failures.push(Failure { method, code, count: 1, message: error.to_string() }),
            }
        }
    }
    failures
}
