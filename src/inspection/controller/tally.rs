//! The numbers of tasks: what Prometheus is told, by the names that the alert rules and the dashboard ask for.
//!
//! | name | labels beside `namespace` and `task` | what |
//! |---|---|---|
//! | `kuration_inspection_info` | `target`, `schedule` | always 1 |
//! | `kuration_inspection_schedule_interval_seconds` | | the longest time between two runs; absent while none are started |
//! | `kuration_inspection_healthy` | | 1 or 0; absent while nobody knows |
//! | `kuration_inspection_last_run_outcome` | `outcome` | 1 for the last run's verdict, 0 for the others |
//! | `kuration_inspection_last_run_timestamp_seconds` | | when the last run ended |
//! | `kuration_inspection_last_success_timestamp_seconds` | | when the last one ended that passed or warned |
//! | `kuration_inspection_run_duration_seconds` | | how long runs took |
//! | `kuration_inspection_runs_total` | `outcome` | runs that ended |
//! | `kuration_inspection_missed_runs_total` | `reason` | runs that were due and never started |
//! | `kuration_inspection_rule_failing` | `rule`, `severity` | 1 where the rule failed in the last run |
//! | `kuration_inspection_rule_inconclusive` | `rule` | 1 where it could not be told |
//! | `kuration_inspection_rule_duration_seconds` | `rule` | how long the rule took |
//! | `kuration_inspection_results_persist_failures_total` | `reason` | runs that could not be written to their volume |
//! | `kuration_inspection_results_volume_used_bytes` | | room that the task's results take |
//!
//! They have no error's text and no run's id in them, and go with their task. Counters count since this process began, but for
//! missed runs, which the status remembers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::super::intent::{Ended, MissReason, objects};
use super::super::run::{Outcome, TerminationRule};
use super::super::task::{InspectionTask, InspectionTaskStatus, Severity};
use super::seen::Key;
use crate::telemetry::{Families, FamilyKind, Labels, Number, Page};

/// Upper bounds of a run's duration, in seconds.
const BUCKETS: [f64; 9] = [0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0, 300.0, f64::INFINITY];

/// Reasons for which a run is not written that are told from the start: of a counter that was not there before, Prometheus
/// does not see the first step.
const REASONS: [&str; 4] = ["EIO", "ENOSPC", "Timeout", "VolumeUnavailable"];

/// A task has at most so many of them.
const MOST_REASONS: usize = 12;

/// How many runs ahead are looked at for the longest time between two.
const AHEAD: usize = 8;

/// The numbers of all tasks. A clone is another handle on the same ones.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<HashMap<Key, Standing>>>);

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tally")
    }
}

/// One task.
struct Standing {
    target: String,
    schedule: String,
    interval: Option<f64>,
    healthy: Option<bool>,
    last: Option<(Outcome, f64)>,
    success: Option<f64>,
    missed: [u64; MissReason::ALL.len()],
    runs: [u64; 4],
    taken: f64,
    buckets: [(f64, u64); BUCKETS.len()],
    lost: Vec<(Cow<'static, str>, u64)>,
    bytes: Option<u64>,
    rules: Vec<RuleStanding>,
}

struct RuleStanding {
    name: Box<str>,
    severity: Severity,
    result: Outcome,
    seconds: Option<f64>,
}

/// The verdicts that a run can have.
const VERDICTS: [Outcome; 4] = [Outcome::Pass, Outcome::Warn, Outcome::Fail, Outcome::Error];

impl Default for Standing {
    fn default() -> Self {
        Standing {
            target: String::new(),
            schedule: String::new(),
            interval: None,
            healthy: None,
            last: None,
            success: None,
            missed: [0; MissReason::ALL.len()],
            runs: [0; 4],
            taken: 0.0,
            buckets: BUCKETS.map(|bound| (bound, 0)),
            lost: REASONS.map(|reason| (reason.into(), 0)).into(),
            bytes: None,
            rules: Vec::new(),
        }
    }
}

impl Tally {
    /// `status` is what is said of `task` now, and `ended` are the runs that are new in it.
    pub fn count(
        &self,
        task: &InspectionTask,
        status: &InspectionTaskStatus,
        ended: &[Ended],
        now: Timestamp,
    ) {
        let mut all = self.0.lock();
        let standing = all.entry(Key::from(task)).or_insert_with(|| Standing {
            // What the run before this process began said.
            rules: status.failing_rules.iter().map(remembered).collect(),
            ..Standing::default()
        });
        standing.target.clone_from(&task.spec.target);
        standing.schedule.clone_from(&task.spec.schedule);
        standing.interval = interval(task, now);
        standing.healthy = status.healthy();
        standing.last = status.last_run.as_ref().map(|run| (run.outcome, seconds(run.completion_time)));
        standing.success = status.last_success_time.map(seconds);
        let missed = |reason: MissReason| status.missed_by_reason.get(reason.word()).copied();
        standing.missed = MissReason::ALL.map(|reason| missed(reason).unwrap_or(0));
        ended.iter().for_each(|run| standing.run(run));
    }

    /// The task went.
    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

fn remembered(rule: &super::super::task::FailingRule) -> RuleStanding {
    RuleStanding {
        name: rule.name.as_str().into(),
        severity: rule.severity,
        result: rule.result,
        seconds: None,
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1_000.0
}

/// The longest time between two of the next runs.
fn interval(task: &InspectionTask, now: Timestamp) -> Option<f64> {
    let (schedule, zone) = objects::schedule(task, now).ok().filter(|_| !task.spec.suspend)?;
    let due = std::iter::successors(schedule.next(now, &zone), |last| schedule.next(*last, &zone));
    let due: Vec<i64> = due.take(AHEAD).map(|due| due.as_second()).collect();
    let longest = due.windows(2).filter_map(|pair| pair.get(1)?.checked_sub(*pair.first()?)).max()?;
    Some(longest as f64)
}

impl Standing {
    fn run(&mut self, ended: &Ended) {
        let at = VERDICTS.iter().position(|verdict| *verdict == ended.run.outcome);
        if let Some(runs) = at.and_then(|at| self.runs.get_mut(at)) {
            *runs += 1;
        }
        let begun = ended.said.as_ref().map(|said| said.start_time).or(ended.run.start_time);
        let end = ended.said.as_ref().map_or(ended.run.completion_time, |said| said.completion_time);
        if let Some(begun) = begun {
            let taken = (seconds(end) - seconds(begun)).max(0.0);
            self.taken += taken;
            if let Some((_, count)) = self.buckets.iter_mut().find(|(bound, _)| taken <= *bound) {
                *count += 1;
            }
        }
        if !ended.run.persisted {
            let why = match &ended.said {
                _ if ended.degraded => "VolumeUnavailable",
                Some(said) => said.persisted.reason.as_deref().unwrap_or("NothingSaid"),
                None => "NothingSaid",
            };
            let word = why.len() <= 32 && why.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let there = |why: &str| self.lost.iter().position(|(known, _)| known == why);
            let why =
                if word && (there(why).is_some() || self.lost.len() < MOST_REASONS) { why } else { "Other" };
            match there(why).and_then(|at| self.lost.get_mut(at)) {
                Some((_, count)) => *count += 1,
                None => self.lost.push((why.to_owned().into(), 1)),
            }
        }
        let Some(said) = &ended.said else {
            self.rules.clear();
            return;
        };
        self.bytes = said.results_bytes.or(self.bytes);
        self.rules = Vec::new();
        said.rules.iter().for_each(|rule| self.rule(rule));
    }

    /// On many nodes the worst of them counts.
    fn rule(&mut self, rule: &TerminationRule) {
        let taken = rule.millis as f64 / 1_000.0;
        match self.rules.iter_mut().find(|known| *known.name == *rule.name) {
            Some(known) => {
                known.result = known.result.worse(rule.result);
                known.seconds = Some(known.seconds.map_or(taken, |before| before.max(taken)));
            }
            None => self.rules.push(RuleStanding {
                name: rule.name.as_str().into(),
                severity: rule.severity,
                result: rule.result,
                seconds: Some(taken),
            }),
        }
    }
}

/// The labels that all have.
fn of(key: &Key) -> Labels<'_> {
    vec![("namespace", &key.namespace), ("task", &key.task)]
}

/// The names of severities, as labels have them.
fn severity(of: Severity) -> &'static str {
    match of {
        Severity::Info => "info",
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    }
}

impl Families for Tally {
    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        let all = self.0.lock();
        let mut gauge = |name: &str, help: &str, read: &dyn Fn(&Standing) -> Option<f64>| {
            let numbers =
                all.iter().filter_map(|(key, of_task)| Some((of(key), Number::Gauge(read(of_task)?))));
            page.family(&format!("kuration_inspection_{name}"), help, FamilyKind::Gauge, numbers)
        };
        gauge("schedule_interval_seconds", "The longest time between two runs", &|task| task.interval)?;
        gauge("healthy", "Whether what is inspected is well", &|task| {
            task.healthy.map(|well| f64::from(u8::from(well)))
        })?;
        gauge("last_run_timestamp_seconds", "When the last run ended", &|task| task.last.map(|(_, at)| at))?;
        gauge("last_success_timestamp_seconds", "When a run last passed or warned", &|task| task.success)?;
        gauge("results_volume_used_bytes", "Room that results take", &|task| {
            task.bytes.map(|bytes| bytes as f64)
        })?;

        let info = all.iter().map(|(key, task)| {
            let more = [("target", task.target.as_str()), ("schedule", task.schedule.as_str())];
            ([of(key), more.to_vec()].concat(), Number::Info)
        });
        page.family("kuration_inspection", "What is inspected, and when", FamilyKind::Info, info)?;

        let outcomes = all.iter().flat_map(|(key, task)| {
            task.last.into_iter().flat_map(move |(last, _)| {
                VERDICTS.map(|verdict| {
                    let is = Number::Gauge(f64::from(u8::from(verdict == last)));
                    ([of(key), vec![("outcome", verdict.word())]].concat(), is)
                })
            })
        });
        let name = "kuration_inspection_last_run_outcome";
        page.family(name, "The verdict of the last run", FamilyKind::Gauge, outcomes)?;

        let runs = all.iter().flat_map(|(key, task)| {
            VERDICTS.iter().zip(task.runs).map(move |(verdict, count)| {
                ([of(key), vec![("outcome", verdict.word())]].concat(), Number::Counter(count))
            })
        });
        page.family("kuration_inspection_runs", "Runs that ended", FamilyKind::Counter, runs)?;

        let because =
            |key, reason, count| ([of(key), vec![("reason", reason)]].concat(), Number::Counter(count));
        let missed = all.iter().flat_map(|(key, task)| {
            MissReason::ALL.iter().zip(task.missed).map(move |(why, count)| because(key, why.word(), count))
        });
        let name = "kuration_inspection_missed_runs";
        page.family(name, "Runs that never started", FamilyKind::Counter, missed)?;
        let lost = all
            .iter()
            .flat_map(|(key, task)| task.lost.iter().map(move |(why, count)| because(key, why, *count)));
        let name = "kuration_inspection_results_persist_failures";
        page.family(name, "Runs that were not written", FamilyKind::Counter, lost)?;

        let taken = all.iter().map(|(key, task)| {
            let count = task.buckets.iter().map(|(_, count)| count).sum();
            (of(key), Number::Histogram(task.taken, count, &task.buckets))
        });
        let name = "kuration_inspection_run_duration_seconds";
        page.family(name, "How long runs took", FamilyKind::Histogram, taken)?;

        let rules =
            || all.iter().flat_map(|(key, task)| task.rules.iter().map(move |rule| (key, &*rule.name, rule)));
        let failing = rules().map(|(key, name, rule)| {
            let more = [("rule", name), ("severity", severity(rule.severity))];
            let is = Number::Gauge(f64::from(u8::from(rule.result == Outcome::Fail)));
            ([of(key), more.to_vec()].concat(), is)
        });
        let name = "kuration_inspection_rule_failing";
        page.family(name, "Whether the rule failed in the last run", FamilyKind::Gauge, failing)?;
        let blind = rules().map(|(key, name, rule)| {
            let is = Number::Gauge(f64::from(u8::from(rule.result == Outcome::Error)));
            ([of(key), vec![("rule", name)]].concat(), is)
        });
        let name = "kuration_inspection_rule_inconclusive";
        page.family(name, "Whether the rule could not be told in the last run", FamilyKind::Gauge, blind)?;
        let took = rules().filter_map(|(key, name, rule)| {
            Some(([of(key), vec![("rule", name)]].concat(), Number::Gauge(rule.seconds?)))
        });
        let name = "kuration_inspection_rule_duration_seconds";
        page.family(name, "How long the rule took in the last run", FamilyKind::Gauge, took)
    }
}
