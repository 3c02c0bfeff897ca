//! Many durations in five numbers.

use std::time::Duration;

use serde::Serialize;

/// How long something took, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// What was measured: an RPC, or the whole life cycle.
    pub name: String,
    /// How often.
    pub count: usize,
    /// Half were at most so long.
    pub p50: f64,
    /// 95 of 100 were.
    pub p95: f64,
    /// 99 of 100 were.
    pub p99: f64,
    /// All were.
    pub max: f64,
}

impl Summary {
    /// Of these durations, in any order.
    pub fn of(name: &str, durations: &[Duration]) -> Self {
        let mut sorted = durations.to_vec();
        sorted.sort_unstable();
        // Whole microseconds: what lies beneath is noise.
        let at = |percent| percentile(&sorted, percent).as_micros() as f64 / 1000.0;
        let (p50, p95, p99, max) = (at(50), at(95), at(99), at(100));
        Self { name: name.to_owned(), count: sorted.len(), p50, p95, p99, max }
    }
}

/// The smallest of the sorted durations that `percent` of 100 do not exceed (nearest rank: a value that was measured, not
/// one between two). Zero where nothing was measured.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = millis(1..=100);
        for (percent, value) in [(50, 50), (95, 95), (99, 99), (100, 100), (1, 1), (0, 1)] {
            assert_eq!(percentile(&hundred, percent), Duration::from_millis(value), "p{percent}");
        }
        let few = millis([10, 20, 30]);
        assert_eq!(percentile(&few, 50), Duration::from_millis(20));
        assert_eq!(percentile(&few, 95), Duration::from_millis(30));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn a_summary_sorts_for_itself() {
        let summary = Summary::of("x", &millis([30, 10, 20, 40]));
        assert_eq!((summary.count, summary.p50, summary.max), (4, 20.0, 40.0));
    }
}
