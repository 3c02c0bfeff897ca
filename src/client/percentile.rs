//! What so many of a hundred durations do not exceed.

use std::time::Duration;

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
}
