//! Since when something is so: a walk back through the past that reads as little of it as it can.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::inspection::run::{Counts, Daily, IndexEntry, Outcome, Run};

/// Since when something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The first run that saw it.
    pub start: Timestamp,
    /// How many runs saw it since.
    pub runs: u64,
    /// It may be older: the past that is kept, or that may be read, ends here.
    pub at_least: bool,
}

/// Whether a result goes with `state`, says nothing of it, or ends it. Who could not look has not seen that it is repaired.
enum Step {
    Goes,
    Silent,
    Ends,
}

fn step(state: Outcome, then: Outcome) -> Step {
    match then {
        then if then == state => Step::Goes,
        Outcome::Error | Outcome::Skip if state == Outcome::Fail || state == Outcome::Warn => Step::Silent,
        _ => Step::Ends,
    }
}

impl Since {
    fn begin(run: &Run) -> Self {
        Since { start: run.start_time, runs: 1, at_least: true }
    }

    /// Since when `run` has the outcome that it has; `index` begins with it and goes back.
    pub fn of_outcome(index: &[IndexEntry], daily: &[Daily], thinned: &BTreeSet<Date>, run: &Run) -> Self {
        let mut since = Self::begin(run);
        for entry in index.iter().filter(|entry| entry.id != run.id && entry.start_time <= run.start_time) {
            let date = utc(entry.start_time);
            let gone = daily.iter().find(|day| day.date == date && thinned.contains(&date));
            if gone.is_some_and(|day| !same(run.outcome, day.outcomes)) {
                break;
            }
            match step(run.outcome, entry.outcome) {
                Step::Goes => {
                    since.start = entry.start_time;
                    since.runs += 1;
                }
                Step::Silent => {}
                Step::Ends => {
                    since.at_least = false;
                    break;
                }
            }
        }
        since
    }
}

/// The days of which runs are gone, of all that `index` and `daily` tell. Those that failed are kept longer than those that
/// passed, so what is left of such a day may look like a failure that never ended.
pub fn thinned(index: &[IndexEntry], daily: &[Daily]) -> BTreeSet<Date> {
    let mut here: BTreeMap<Date, u32> = BTreeMap::new();
    for entry in index {
        *here.entry(utc(entry.start_time)).or_default() += 1;
    }
    let gone = daily.iter().filter(|day| here.get(&day.date).is_some_and(|count| *count < day.runs));
    gone.map(|day| day.date).collect()
}

/// What of one rule is not decided yet.
struct Open {
    state: Outcome,
    since: Since,
}

/// Since when each rule of `run` that did not pass has not, and the runs that were read on the way, the newest first.
///
/// `index` are the runs before it, the newest first. `recent` of them are read in any case, and at most `budget`. A day whose
/// roll-up tells that nothing changed in it is not read.
pub fn walk(
    run: &Run,
    index: &[IndexEntry],
    daily: &[Daily],
    thinned: &BTreeSet<Date>,
    (recent, budget): (usize, usize),
    mut read: impl FnMut(&IndexEntry) -> Option<Run>,
) -> (BTreeMap<String, Since>, Vec<Run>) {
    let mut open: BTreeMap<&str, Open> = BTreeMap::new();
    for rule in &run.rules {
        if matches!(rule.result, Outcome::Fail | Outcome::Warn | Outcome::Error) {
            let begun = || Open { state: rule.result, since: Since::begin(run) };
            let held = open.entry(&rule.name).or_insert_with(begun);
            held.state = held.state.worse(rule.result);
        }
    }
    let days: BTreeMap<Date, &Daily> = daily.iter().map(|day| (day.date, day)).collect();
    let (mut done, mut runs): (BTreeMap<String, Since>, Vec<Run>) = Default::default();
    let (mut at, mut reads) = (0, 0);
    while let Some(entry) = index.get(at) {
        if reads >= budget || (open.is_empty() && runs.len() >= recent) {
            break;
        }
        let date = utc(entry.start_time);
        if let Some(day) = days.get(&date).filter(|_| thinned.contains(&date)) {
            // Nobody knows any more which run of that day ended it.
            open.retain(|name, held| {
                let goes = day.rules.get(*name).is_none_or(|day| same(held.state, day.counts));
                if !goes {
                    done.insert((*name).to_owned(), held.since);
                }
                goes
            });
        }
        let whole = at > 0 && utc(index[at - 1].start_time) != date;
        let day = days.get(&date).filter(|_| whole && runs.len() >= recent);
        let ahead = index[at..].iter().take_while(|entry| utc(entry.start_time) == date);
        if let Some(day) = day
            && open
                .iter()
                .all(|(name, held)| day.rules.get(*name).is_none_or(|day| same(held.state, day.counts)))
        {
            let (count, first) =
                ahead.fold((0, entry.start_time), |(count, _), entry| (count + 1, entry.start_time));
            for (name, held) in &mut open {
                let seen = day.rules.get(*name).map_or(0, |day| day.counts.of(held.state));
                if seen > 0 {
                    held.since.start = first;
                    held.since.runs += u64::from(seen);
                }
            }
            at += count;
            continue;
        }
        at += 1;
        reads += 1;
        let Some(past) = read(entry) else { continue };
        open.retain(|name, held| {
            let found = past.rules.iter().filter(|rule| rule.name == *name).map(|rule| rule.result);
            // A rule that was not there yet can't have failed.
            let then = found.reduce(Outcome::worse).unwrap_or(Outcome::Pass);
            match step(held.state, then) {
                Step::Goes => {
                    held.since.start = past.start_time;
                    held.since.runs += 1;
                }
                Step::Silent => {}
                Step::Ends => {
                    held.since.at_least = false;
                    done.insert((*name).to_owned(), held.since);
                    return false;
                }
            }
            true
        });
        if runs.len() < recent {
            runs.push(past);
        }
    }
    done.extend(open.into_iter().map(|(name, held)| (name.to_owned(), held.since)));
    (done, runs)
}

fn utc(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// Whether a rule's day has nothing in it that ends `state`.
fn same(state: Outcome, day: Counts) -> bool {
    Outcome::ALL.into_iter().all(|then| day.of(then) == 0 || !matches!(step(state, then), Step::Ends))
}
