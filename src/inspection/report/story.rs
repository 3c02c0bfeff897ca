//! The decisions of a report: what is broken and since when, what changed, how the last thirty days went.
//!
//! Pure: from records to what is to be shown. The clock is never asked; a report ends where its last run ends, so the same
//! records make the same report for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::changes::{Changes, changes};
use super::since::Since;
use crate::inspection::run::{Counts, Daily, IndexEntry, Outcome, RuleResult, Run};
use crate::inspection::task::Severity;

/// How far back a report looks.
pub const DAYS: usize = 30;

/// With fewer days than these, a line is drawn run by run.
const FEW_DAYS: usize = 5;

/// What a report is made from: what one task's directory holds, as far as it is of use.
#[derive(Debug)]
pub struct History {
    /// The run that the report is of.
    pub run: Run,
    /// Runs before it, the newest first: the previous one, and some more for the lines.
    pub recent: Vec<Run>,
    /// All runs that are kept up to this one, which is the first: the newest first.
    pub index: Vec<IndexEntry>,
    /// The days, the oldest first.
    pub daily: Vec<Daily>,
    /// Since when each rule that did not pass has not, by its name.
    pub since: BTreeMap<String, Since>,
    /// The days, by UTC, of which runs are gone.
    pub thinned: BTreeSet<Date>,
    /// The zone in which the task's days begin.
    pub zone: TimeZone,
}

/// A day of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Which.
    pub date: Date,
    /// What its runs came to.
    pub counts: Counts,
}

/// One of a task's rules: with a run on every node, what all of them say.
#[derive(Debug)]
pub struct Row<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// How bad it is.
    pub severity: Severity,
    /// The worst of its results.
    pub worst: Outcome,
    /// Its results: one, or one of each node.
    pub results: Vec<&'a RuleResult>,
    /// How it went over time.
    pub trend: Trend,
}

/// What a rule found, or why it could not look.
#[derive(Debug)]
pub struct Finding<'a> {
    /// The rule's name.
    pub name: &'a str,
    /// The results that say so: of one node, or of several. Never none.
    pub results: Vec<&'a RuleResult>,
    /// The one that is shown first.
    pub rule: &'a RuleResult,
    /// Since when.
    pub since: Since,
}

/// How a rule went over time.
#[derive(Debug, Default)]
pub struct Trend {
    /// Its days.
    pub days: Vec<Day>,
    /// All of them together.
    pub counts: Counts,
    /// How long it took; stretches of time without a run are left out.
    pub points: Vec<Point>,
    /// How many stretches there are.
    pub stretches: usize,
}

/// How long a rule took, in one stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Which stretch, from 0.
    pub at: usize,
    /// Half of them took at most this, in milliseconds.
    pub median: u64,
    /// 95 of 100 took at most this, in milliseconds.
    pub p95: u64,
}

/// A whole report, before it is drawn.
#[derive(Debug)]
pub struct Story<'a> {
    /// The run.
    pub run: &'a Run,
    /// The one before.
    pub previous: Option<&'a Run>,
    /// The next one, where there is one: a report may be of a past run.
    pub rows: Vec<Row<'a>>,
    /// What is broken or may soon be, the worst first.
    pub findings: Vec<Finding<'a>>,
    /// What could not be looked at.
    pub unseen: Vec<Finding<'a>>,
    /// What changed; nothing is known of it without a run before.
    pub changes: Option<Changes>,
    /// Since when the run's outcome is what it is.
    pub since: Since,
    /// The days of the calendar, the oldest first: always thirty.
    pub days: Vec<Day>,
    /// All runs of these days together.
    pub counts: Counts,
    /// The zone of all times in it.
    pub zone: &'a TimeZone,
}

impl<'a> Story<'a> {
    /// Reads `history`.
    pub fn of(history: &'a History) -> Self {
        let run = &history.run;
        let previous = history.recent.first();
        let mut rows: Vec<Row<'a>> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for rule in &run.rules {
            let at = *places.entry(rule.name.as_str()).or_insert(rows.len());
            match rows.get_mut(at) {
                Some(row) => {
                    row.worst = row.worst.worse(rule.result);
                    row.results.push(rule);
                }
                None => rows.push(Row {
                    name: &rule.name,
                    kind: &rule.kind,
                    severity: rule.severity,
                    worst: rule.result,
                    results: vec![rule],
                    trend: trend(history, &rule.name),
                }),
            }
        }
        // Failures before warnings, then by severity; of equals the task's own order is kept.
        let mut findings: Vec<Finding<'a>> =
            rows.iter().filter_map(|row| finding(row, history, &[Outcome::Fail, Outcome::Warn])).collect();
        findings.sort_by_key(|found| (found.rule.result != Outcome::Fail, Reverse(found.rule.severity)));
        let mut unseen: Vec<Finding<'a>> =
            rows.iter().filter_map(|row| finding(row, history, &[Outcome::Error])).collect();
        unseen.sort_by_key(|found| Reverse(found.rule.severity));

        let days = calendar(history);
        let counts = days.iter().fold(Counts::default(), |all, day| sum(all, day.counts));
        Self {
            run,
            previous,
            rows,
            findings,
            unseen,
            changes: previous.map(|previous| changes(previous, run)),
            since: Since::of_outcome(&history.index, &history.daily, &history.thinned, run),
            days,
            counts,
            zone: &history.zone,
        }
    }

    /// The rules that were left out.
    pub fn skipped(&self) -> impl Iterator<Item = &'a RuleResult> {
        self.run.rules.iter().filter(|rule| rule.result == Outcome::Skip)
    }
}

/// What `row` found of the kinds `of`, the worst first.
fn finding<'a>(row: &Row<'a>, history: &History, of: &[Outcome]) -> Option<Finding<'a>> {
    let mut results: Vec<&'a RuleResult> =
        row.results.iter().copied().filter(|rule| of.contains(&rule.result)).collect();
    results.sort_by_key(|rule| of.iter().position(|kind| *kind == rule.result));
    let rule = *results.first()?;
    let now = Since { start: history.run.start_time, runs: 1, at_least: history.recent.is_empty() };
    let since = history.since.get(row.name).copied().unwrap_or(now);
    Some(Finding { name: row.name, results, rule, since })
}

/// The share of runs that looked and found nothing broken: `(good, looked)`. What could not look is no evidence of either.
pub fn uptime(counts: &Counts) -> (u64, u64) {
    let good = u64::from(counts.pass) + u64::from(counts.warn);
    (good, good + u64::from(counts.fail))
}

/// Both together.
pub fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        pass: a.pass.saturating_add(b.pass),
        warn: a.warn.saturating_add(b.warn),
        fail: a.fail.saturating_add(b.fail),
        error: a.error.saturating_add(b.error),
        skip: a.skip.saturating_add(b.skip),
    }
}

/// Thirty days that end with `last`, all empty.
fn empty_days(last: Date) -> Vec<Day> {
    let first = (1..DAYS).fold(last, |date, _| date.yesterday().unwrap_or(date));
    let dates = std::iter::successors(Some(first), |date| date.tomorrow().ok()).take(DAYS);
    dates.map(|date| Day { date, counts: Counts::default() }).collect()
}

/// Where `date` stands among `days`, which follow on one another.
fn place(days: &[Day], date: Date) -> Option<usize> {
    let first = days.first()?.date;
    let apart = (date - first).get_days();
    usize::try_from(apart).ok().filter(|at| *at < days.len())
}

/// The task's days in its own zone, from its runs; of days whose runs are gone, what was kept of them.
fn calendar(history: &History) -> Vec<Day> {
    let date = |at: Timestamp| at.to_zoned(history.zone.clone()).date();
    let mut days = empty_days(date(history.run.start_time));
    for entry in &history.index {
        // The newest come first: the rest is older than the calendar.
        match place(&days, date(entry.start_time)) {
            Some(at) => days[at].counts.count(entry.outcome),
            None => break,
        }
    }
    for daily in &history.daily {
        let Some(at) = place(&days, daily.date) else { continue };
        // Runs that passed go first when there are too many: a day that is known to have had more is told as it was.
        if daily.outcomes.total() > days[at].counts.total() {
            days[at].counts = daily.outcomes;
        }
    }
    days
}

/// A rule's days, by UTC as they are kept; those of which nothing is kept yet are counted from the runs at hand.
fn trend(history: &History, rule: &str) -> Trend {
    let utc = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let mut days = empty_days(utc(history.run.start_time));
    let mut points = Vec::new();
    let mut kept = vec![false; days.len()];
    for daily in &history.daily {
        let Some(at) = place(&days, daily.date) else { continue };
        kept[at] = true;
        let Some(day) = daily.rules.get(rule) else { continue };
        days[at].counts = day.counts;
        // A day on which nothing was looked at has no length.
        if uptime(&day.counts).1 > 0 {
            points.push(Point { at, median: day.p50, p95: day.p95 });
        }
    }
    let runs: Vec<&Run> = history.recent.iter().rev().chain([&history.run]).collect();
    let mut lengths: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for run in &runs {
        let Some(at) = place(&days, utc(run.start_time)).filter(|at| !kept[*at]) else { continue };
        for result in run.rules.iter().filter(|result| result.name == rule) {
            days[at].counts.count(result.result);
            if looked(result) {
                lengths.entry(at).or_default().push(result.duration_millis);
            }
        }
    }
    for (at, mut taken) in lengths {
        taken.sort_unstable();
        points.push(Point { at, median: percentile(&taken, 50), p95: percentile(&taken, 95) });
    }
    points.sort_by_key(|point| point.at);
    let counts = days.iter().fold(Counts::default(), |all, day| sum(all, day.counts));
    if points.len() >= FEW_DAYS {
        return Trend { days, counts, points, stretches: DAYS };
    }
    let results = runs.iter().enumerate().flat_map(|(at, run)| {
        let slowest = run.rules.iter().filter(|result| result.name == rule && looked(result));
        let slowest = slowest.map(|result| result.duration_millis).max();
        slowest.map(|millis| Point { at, median: millis, p95: millis })
    });
    Trend { days, counts, points: results.collect(), stretches: runs.len() }
}

/// How long it took to give up says nothing of the target.
fn looked(rule: &RuleResult) -> bool {
    matches!(rule.result, Outcome::Pass | Outcome::Warn | Outcome::Fail)
}

/// The value that `percent` of the sorted values do not exceed (nearest rank); 0 of none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}
