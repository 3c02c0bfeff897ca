//! Many durations in five numbers.

use std::time::Duration;

use serde::Serialize;

use crate::client::percentile;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_summary_sorts_for_itself() {
        let summary = Summary::of("x", &millis([30, 10, 20, 40]));
        assert_eq!((summary.count, summary.p50, summary.max), (4, 20.0, 40.0));
    }
}
