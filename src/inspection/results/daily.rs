//! What is left of a day: how its runs came out, and how long each rule took.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::inspection::run::{Counts, DAILY_SCHEMA, Daily, RuleDay, Run};

/// The day of a run, in UTC.
pub fn day(run: &Run) -> Date {
    run.scheduled_time.unwrap_or(run.start_time).to_zoned(TimeZone::UTC).date()
}

/// The sum of a day's runs.
pub fn sum<'a>(date: Date, runs: impl IntoIterator<Item = &'a Run>) -> Daily {
    let mut durations: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut daily = Daily {
        schema: DAILY_SCHEMA.to_owned(),
        date,
        runs: 0,
        outcomes: Counts::default(),
        rules: BTreeMap::new(),
    };
    for run in runs {
        daily.runs += 1;
        daily.outcomes.count(run.outcome);
        for rule in &run.rules {
            daily.rules.entry(rule.name.clone()).or_default().counts.count(rule.result);
            durations.entry(rule.name.clone()).or_default().push(rule.duration_millis);
        }
    }
    for (name, mut taken) in durations {
        taken.sort_unstable();
        let day = daily.rules.entry(name).or_default();
        (day.p50, day.p95) = (share(&taken, 50), share(&taken, 95));
    }
    daily
}

/// Adds a run to a day that was summed already: its runs may be gone, so the durations can only be said to be no longer
/// than the longest.
pub fn add(daily: &mut Daily, run: &Run) {
    let more = sum(daily.date, [run]);
    daily.runs += more.runs;
    daily.outcomes.count(run.outcome);
    for (name, day) in more.rules {
        let held: &mut RuleDay = daily.rules.entry(name).or_default();
        let counts = crate::inspection::run::Outcome::ALL.into_iter();
        counts.filter(|outcome| day.counts.of(*outcome) > 0).for_each(|outcome| held.counts.count(outcome));
        held.p95 = held.p95.max(day.p95);
        held.p50 = if held.p50 == 0 { day.p50 } else { held.p50 };
    }
}

/// The value that so many percent do not exceed (nearest rank).
fn share(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_and_nearly_all_are_the_nearest_rank() {
        let twenty: Vec<u64> = (1..=20).collect();
        assert_eq!((share(&twenty, 50), share(&twenty, 95)), (10, 19));
        assert_eq!((share(&[7], 50), share(&[7], 95), share(&[], 50)), (7, 7, 0));
    }
}
