//! Which runs are to go, and which of their pages. Decided from the index alone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::inspection::run::{IndexEntry, Outcome};
use crate::inspection::task::History;

/// Runs removed for their age at once: so a clock that jumped ahead takes no more than these with it.
const OLD_AT_ONCE: usize = 50;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How many runs.
    pub runs: usize,
    /// How old they may be, in seconds.
    pub age: i64,
    /// How many bytes they may take together.
    pub bytes: u64,
    /// How many of those that did not pass outlive the first two limits.
    pub failed: usize,
}

impl Limits {
    /// Of a task's history; a size that can't be read is the default one.
    pub fn of(history: &History) -> Self {
        Self {
            runs: usize::try_from(history.max_runs).unwrap_or(usize::MAX).max(1),
            age: history.max_age_seconds,
            bytes: history
                .max_bytes
                .bytes()
                .or_else(|| History::default().max_bytes.bytes())
                .unwrap_or(256 << 20),
            failed: usize::try_from(history.keep_failed_runs).unwrap_or(usize::MAX),
        }
    }
}

/// What is to go, as paths of runs, the oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Excess {
    /// Runs, whole. The newest one is never among them.
    pub runs: Vec<String>,
    /// Runs that stay, and whose report.html goes.
    pub pages: Vec<String>,
}

/// What is to go. A page can be made anew of its run at any time, so for want of room all pages go before any run does.
pub fn excess(runs: &[IndexEntry], limits: &Limits, now: Timestamp) -> Excess {
    let mut sorted: Vec<&IndexEntry> = runs.iter().collect();
    sorted.sort_by(|a, b| b.start_time.cmp(&a.start_time).then_with(|| b.id.cmp(&a.id)));
    let spared_pass = sorted.iter().position(|run| run.outcome == Outcome::Pass);
    let not_well = sorted.iter().enumerate().filter(|(_, run)| run.outcome != Outcome::Pass);
    let spared: Vec<usize> =
        not_well.map(|(at, _)| at).take(limits.failed).chain(spared_pass).chain([0]).collect();

    let old = |run: &IndexEntry| now.as_second() - run.start_time.as_second() > limits.age;
    let mut gone = vec![false; sorted.len()];
    let mut for_age = 0;
    for (at, run) in sorted.iter().enumerate().rev().filter(|(at, _)| !spared.contains(at)) {
        let too_old = old(run) && for_age < OLD_AT_ONCE;
        for_age += usize::from(too_old);
        gone[at] = at >= limits.runs || too_old;
    }
    let mut bytes: u64 = sorted.iter().zip(&gone).filter(|(_, gone)| !**gone).map(|(run, _)| run.bytes).sum();
    let mut pages = vec![false; sorted.len()];
    for (at, run) in sorted.iter().enumerate().rev().filter(|(_, run)| run.report_bytes > 0) {
        if bytes <= limits.bytes {
            break;
        }
        if !gone[at] {
            pages[at] = true;
            bytes = bytes.saturating_sub(run.report_bytes);
        }
    }
    for (at, run) in sorted.iter().enumerate().skip(1).rev() {
        if bytes <= limits.bytes {
            break;
        }
        if !gone[at] {
            gone[at] = true;
            // All pages went before the first run does.
            bytes = bytes.saturating_sub(run.bytes.saturating_sub(run.report_bytes));
        }
    }
    let paths = |which: &dyn Fn(usize) -> bool| {
        let which = sorted.iter().enumerate().filter(|(at, _)| which(*at));
        which.map(|(_, run)| run.path.clone()).rev().collect()
    };
    Excess { runs: paths(&|at| gone[at]), pages: paths(&|at| pages[at] && !gone[at]) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inspection::run::{Counts, Detail, Trigger};

    /// Runs five minutes apart, the newest last; `outcomes` from the oldest on.
    fn runs(outcomes: &[Outcome]) -> Vec<IndexEntry> {
        let start = |at: usize| Timestamp::from_second(i64::try_from(at).unwrap() * 300).unwrap();
        let entry = |(at, outcome): (usize, &Outcome)| IndexEntry {
            id: format!("{at:04}"),
            path: format!("runs/{at:04}"),
            trigger: Trigger::Schedule,
            scheduled_time: None,
            start_time: start(at),
            duration_millis: 1,
            outcome: *outcome,
            summary: Counts::default(),
            detail: Detail::Full,
            bytes: 100,
            report_bytes: 0,
            sha256: String::new(),
        };
        outcomes.iter().enumerate().map(entry).collect()
    }

    const WIDE: Limits = Limits { runs: 1000, age: 1_000_000, bytes: 1 << 30, failed: 0 };

    fn now() -> Timestamp {
        Timestamp::from_second(3000).unwrap()
    }

    #[test]
    fn the_oldest_go_first_and_the_newest_stays() {
        use Outcome::Pass;
        let all = runs(&[Pass; 5]);
        let gone = |limits: Limits| excess(&all, &limits, now()).runs;
        assert_eq!(gone(Limits { runs: 3, ..WIDE }), ["runs/0000", "runs/0001"]);
        assert_eq!(gone(Limits { age: 2100, ..WIDE }), ["runs/0000", "runs/0001", "runs/0002"]);
        assert_eq!(gone(Limits { bytes: 1, ..WIDE }).len(), 4);
        assert_eq!(excess(&all, &WIDE, now()), Excess::default());
    }

    #[test]
    fn for_want_of_room_the_oldest_pages_go_before_any_run() {
        let mut all = runs(&[Outcome::Pass; 5]);
        for run in &mut all[1..] {
            (run.bytes, run.report_bytes) = (1100, 1000);
        }
        let gone = |bytes: u64| excess(&all, &Limits { bytes, ..WIDE }, now());
        let of = |runs: &[&str], pages: &[&str]| {
            let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
            Excess { runs: owned(runs), pages: owned(pages) }
        };
        assert_eq!(gone(4500), of(&[], &[]));
        assert_eq!(gone(4499), of(&[], &["runs/0001"]));
        assert_eq!(gone(1500), of(&[], &["runs/0001", "runs/0002", "runs/0003"]));
        assert_eq!(gone(500), of(&[], &["runs/0001", "runs/0002", "runs/0003", "runs/0004"]));
        assert_eq!(gone(499), of(&["runs/0000"], &["runs/0001", "runs/0002", "runs/0003", "runs/0004"]));
        // Of a run that goes anyhow, the page is no business of its own.
        let few = excess(&all, &Limits { runs: 2, bytes: 1500, ..WIDE }, now());
        assert_eq!(few, of(&["runs/0000", "runs/0001", "runs/0002"], &["runs/0003"]));
    }

    #[test]
    fn failed_runs_and_the_newest_pass_outlive_count_and_age_but_not_bytes() {
        use Outcome::{Error, Fail, Pass};
        let all = runs(&[Pass, Pass, Fail, Error, Fail]);
        let few = Limits { runs: 1, failed: 2, ..WIDE };
        assert_eq!(excess(&all, &few, now()).runs, ["runs/0000", "runs/0002"]);
        assert_eq!(excess(&all, &Limits { bytes: 100, ..few }, now()).runs.len(), 4);
    }

    #[test]
    fn a_clock_that_jumped_ahead_takes_no_more_than_a_few() {
        let all = runs(&[Outcome::Pass; 500]);
        let future = Timestamp::from_second(1 << 36).unwrap();
        assert_eq!(excess(&all, &WIDE, future).runs.len(), OLD_AT_ONCE);
    }
}
