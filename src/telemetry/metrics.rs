//! Numbers, in the OpenMetrics format.
//!
//! | name | labels | what |
//! |---|---|---|
//! | `kuration_build_info` | `version` | always 1 |
//! | `kuration_rpc_total` | `method`, `code` | requests answered |
//! | `kuration_rpc_duration_seconds` | `method` | how long they took |
//! | `kuration_rpc_in_flight` | `method` | requests under way |
//! | `kuration_mounts_total` | `result` | mounts tried |
//! | `kuration_children` | | child processes that exist |
//! | `kuration_child_kills_total` | `role` | children killed as they did not answer |
//! | `kuration_volumes`, `kuration_trash_volumes` | | volumes that are there, and that were deleted |
//! | `kuration_reaped_volumes_total` | | volumes removed from the trash for good |
//! | `kuration_startup_taints_removed_total` | | start-up taints taken off nodes |
//! | `process_resident_memory_bytes`, `process_open_fds` | | this process, without its children |
//!
//! What a process does not know (a node counts no volumes) is left out rather than shown as 0.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Upper bounds of the duration's buckets, in seconds: fine where a healthy driver answers (milliseconds), coarse where
/// one waits for a server, up to the sidecars' longest usual timeout.
const BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

/// The numbers of one process. A clone is another handle on the same ones.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    rpc: Family<Answered, Counter>,
    rpc_duration: Family<Method, Histogram, fn() -> Histogram>,
    rpc_in_flight: Family<Method, Gauge>,
    under_way: AtomicU64,
    mounts: Family<Tried, Counter>,
    reaped: Counter,
    untainted: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tried {
    result: &'static str,
}

/// How a mount went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountResult {
    /// It is there.
    Mounted,
    /// The kernel or the server said no.
    Refused,
    /// Nobody answered in time.
    TimedOut,
}

/// How many volumes a controller knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeCount {
    /// Those that are there.
    pub live: u64,
    /// Those that were deleted and can be brought back.
    pub trash: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Numbers that all stand at zero.
    pub fn new() -> Self {
        let (rpc, mounts, reaped) = (Family::default(), Family::default(), Counter::default());
        let untainted = Counter::default();
        let rpc_in_flight = Family::default();
        let rpc_duration: Family<Method, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let mut registry = Registry::default();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("kuration_build", "The release that runs", version);
        registry.register("kuration_rpc", "Requests answered", rpc.clone());
        registry.register("kuration_rpc_duration_seconds", "Time until the answer", rpc_duration.clone());
        registry.register("kuration_rpc_in_flight", "Requests under way", rpc_in_flight.clone());
        registry.register("kuration_mounts", "Mounts tried", mounts.clone());
        registry.register("kuration_reaped_volumes", "Volumes removed from the trash", reaped.clone());
        registry.register("kuration_startup_taints_removed", "Start-up taints removed", untainted.clone());
        let (registry, under_way) = (Mutex::new(registry), AtomicU64::new(0));
        let inner =
            Inner { registry, rpc, rpc_duration, rpc_in_flight, under_way, mounts, reaped, untainted };
        let metrics = Self(Arc::new(inner));
        metrics.gauge("process_resident_memory_bytes", "Resident memory of this process.", resident_bytes);
        metrics.gauge("process_open_fds", "Open file descriptors of this process.", open_descriptors);
        metrics
    }

    /// Counts a mount.
    pub fn mounted(&self, result: MountResult) {
        let result = match result {
            MountResult::Mounted => "mounted",
            MountResult::Refused => "refused",
            MountResult::TimedOut => "timed_out",
        };
        self.0.mounts.get_or_create(&Tried { result }).inc();
    }

    /// Counts volumes that were removed from the trash for good.
    pub fn reaped(&self, volumes: u64) {
        self.0.reaped.inc_by(volumes);
    }

    /// Counts a start-up taint that was taken off a node.
    pub fn startup_taint_removed(&self) {
        self.0.untainted.inc();
    }

    /// Lets each scrape read how many children there are, and how many of each role were killed so far.
    pub fn children(
        &self,
        alive: impl Fn() -> u64 + Send + Sync + 'static,
        killed: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
    ) {
        self.gauge("kuration_children", "Child processes that exist.", move || Some(alive()));
        self.read(Reading {
            name: "kuration_child_kills",
            help: "Children killed as they did not answer in time.",
            kind: MetricType::Counter,
            label: Some("role"),
            read: Box::new(killed),
        });
    }

    /// Lets each scrape read how many volumes there are; `None` while nobody has counted them. The reader must not wait
    /// for a server.
    pub fn volumes(&self, count: impl Fn() -> Option<VolumeCount> + Clone + Send + Sync + 'static) {
        let trash = count.clone();
        self.gauge("kuration_volumes", "Volumes that are there.", move || count().map(|c| c.live));
        self.gauge("kuration_trash_volumes", "Volumes in the trash.", move || trash().map(|c| c.trash));
    }

    /// Requests under way.
    pub fn under_way(&self) -> u64 {
        self.0.under_way.load(Ordering::Relaxed)
    }

    /// A request begins.
    pub(super) fn begun(&self, method: &'static str) {
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        self.0.rpc_in_flight.get_or_create(&Method { method }).inc();
    }

    /// It ended. To be called once for each that began.
    pub(super) fn ended(&self, method: &'static str, code: &'static str, duration: Duration) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.rpc_in_flight.get_or_create(&Method { method }).dec();
        self.0.rpc_duration.get_or_create(&Method { method }).observe(duration.as_secs_f64());
        self.0.rpc.get_or_create(&Answered { method, code }).inc();
    }

    /// All of them as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        Ok(self.pieces()?.concat())
    }

    /// The same in pieces. A thousand tasks' numbers take megabytes, which as one text would be twice that while it grows, and an
    /// allocator that had to give so much at once keeps as much for the next time.
    pub fn pieces(&self) -> Result<Vec<String>, fmt::Error> {
        let mut pieces = Pieces::default();
        let registry = self.0.registry.lock();
        prometheus_client::encoding::text::encode(&mut pieces, &registry)?;
        Ok(pieces.0)
    }

    fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) {
        let read = Box::new(move || read().map(|value| ("", value)).into_iter().collect());
        self.read(Reading { name, help, kind: MetricType::Gauge, label: None, read });
    }

    fn read(&self, reading: Reading) {
        self.collect(Box::new(reading));
    }

    pub(super) fn collect(&self, collector: Box<dyn Collector>) {
        let mut registry = self.0.registry.lock();
        registry.register_collector(collector);
    }
}

/// A text in pieces of this many bytes.
const PIECE: usize = 32 << 10;

#[derive(Default)]
struct Pieces(Vec<String>);

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.0.last_mut().filter(|last| last.len() + text.len() <= PIECE) {
            Some(last) => last.push_str(text),
            None => {
                let mut piece = String::with_capacity(PIECE.max(text.len()));
                piece.push_str(text);
                self.0.push(piece);
            }
        }
        Ok(())
    }
}

/// A number that somebody else keeps, read at each scrape. Without a label the reader gives one value or none.
struct Reading {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    label: Option<&'static str>,
    read: Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Reading {
    fn value(&self, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(value).encode(encoder),
        }
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let values = (self.read)();
        if values.is_empty() {
            return Ok(());
        }
        let mut encoder = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        for (label, value) in values {
            match self.label {
                Some(name) => self.value(value, encoder.encode_family(&[(name, label)])?)?,
                None => return self.value(value, encoder),
            }
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn open_descriptors() -> Option<u64> {
    // The directory that is read here is one of them.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_it_ended() {
        let metrics = Metrics::new();
        metrics.begun("Probe");
        assert_eq!(metrics.under_way(), 1);
        assert!(metrics.text().unwrap().contains("kuration_rpc_in_flight{method=\"Probe\"} 1"));
        metrics.ended("Probe", "OK", Duration::from_millis(3));
        let text = metrics.text().unwrap();
        for line in [
            "kuration_rpc_total{method=\"Probe\",code=\"OK\"} 1",
            "kuration_rpc_in_flight{method=\"Probe\"} 0",
            "kuration_rpc_duration_seconds_bucket{le=\"0.002\",method=\"Probe\"} 0",
            "kuration_rpc_duration_seconds_bucket{le=\"0.004\",method=\"Probe\"} 1",
            concat!("kuration_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert_eq!(metrics.under_way(), 0);
    }

    #[test]
    fn what_others_keep_is_read_at_each_scrape_and_left_out_while_unknown() {
        let metrics = Metrics::new();
        metrics.children(|| 2, || vec![("share", 1), ("mount", 3)]);
        metrics.volumes(|| None);
        metrics.mounted(MountResult::TimedOut);
        metrics.reaped(4);
        let text = metrics.text().unwrap();
        for line in [
            "kuration_children 2",
            "kuration_child_kills_total{role=\"mount\"} 3",
            "kuration_mounts_total{result=\"timed_out\"} 1",
            "kuration_reaped_volumes_total 4",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("kuration_volumes") && !text.contains("kuration_trash_volumes"), "{text}");
        let metrics = Metrics::new();
        metrics.volumes(|| Some(VolumeCount { live: 5, trash: 6 }));
        let text = metrics.text().unwrap();
        assert!(
            text.contains("kuration_volumes 5\n") && text.contains("kuration_trash_volumes 6\n"),
            "{text}"
        );
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(open_descriptors().unwrap() >= 3);
    }
}
