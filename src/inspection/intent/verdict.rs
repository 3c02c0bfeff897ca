//! What is said of a task: its status, from what it was before, its Jobs, and what their pods said last.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::super::run::{Outcome, RunId, Trigger};
use super::super::task::{FailingRule, InspectionTask, InspectionTaskStatus, RecentRun};
use super::ended::{Ended, ended};
use super::objects::{NotReady, schedule};
use super::{MissReason, RUN_REQUEST};

/// So many rules that did not pass are said.
const MOST_FAILING: usize = 20;

/// So many runs are remembered.
pub(super) const MOST_RECENT: usize = 10;

/// A run counts as missed so many seconds after its last chance to start: Job objects take a moment to be seen.
const MARGIN: i64 = 10;

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The CronJob.
    pub cron_job: Option<CronJob>,
    /// The task's Jobs.
    pub jobs: Vec<Job>,
    /// Their pods.
    pub pods: Vec<Pod>,
    /// The claim that results go to, unless there is none.
    pub claim: Option<String>,
    /// The class or claim that is missing, in a sentence.
    pub no_claim: Option<String>,
}

/// The status of `task` at `now`, and the runs that are new in it. `not_ready` says why its schedule is not in force.
pub fn status(
    task: &InspectionTask,
    found: &Found,
    not_ready: Option<&NotReady>,
    now: Timestamp,
) -> (InspectionTaskStatus, Vec<Ended>) {
    let old = task.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let fresh = ended(task, found);
    new.observed_generation = task.metadata.generation;
    new.claim_name.clone_from(&found.claim);
    let set =
        |new: &mut InspectionTaskStatus, name: &str, value: Option<bool>, reason: &str, message: String| {
            condition(&mut new.conditions, task.metadata.generation, now, name, value, reason, message);
        };

    match not_ready {
        Some(why) => set(&mut new, "Ready", Some(false), why.reason, why.message.clone()),
        None if task.spec.suspend => {
            set(
                &mut new,
                "Ready",
                Some(true),
                "Suspended",
                "no runs are started: spec.suspend is true".into(),
            );
        }
        None => set(&mut new, "Ready", Some(true), "Scheduled", "the CronJob is in place".into()),
    }
    due(task, &old, &mut new, found, not_ready.is_none(), now);
    on_schedule(&mut new, task.metadata.generation, now);

    for run in &fresh {
        count(&mut new, run);
        let (value, reason, message) = health(task, &new, run);
        if let Some((reason, message)) = reason.zip(message) {
            set(&mut new, "Healthy", value, reason, message);
        }
        let (value, reason, message) = persistence(run);
        set(&mut new, "ResultsPersisted", Some(value), &reason, message);
    }
    if let Some(why) = &found.no_claim {
        set(&mut new, "ResultsPersisted", Some(false), "NoVolume", why.clone());
    }
    // A claim that has come since has kept nothing yet.
    if found.no_claim.is_none() && fresh.is_empty() {
        new.conditions.retain(|condition| condition.reason != "NoVolume");
    }
    for name in ["Healthy", "ResultsPersisted"] {
        if !new.conditions.iter().any(|condition| condition.type_ == name) {
            set(&mut new, name, None, "NoRunYet", "no run has ended yet".into());
        }
    }
    let asked = task.metadata.annotations.as_ref().and_then(|marks| marks.get(RUN_REQUEST));
    if not_ready.is_none() && asked.is_some() {
        new.last_run_request = asked.cloned();
    }
    (new, fresh)
}

/// Takes one run into account.
fn count(new: &mut InspectionTaskStatus, ended: &Ended) {
    let run = &ended.run;
    match run.outcome {
        Outcome::Pass | Outcome::Warn => {
            new.consecutive_successes += 1;
            new.consecutive_failures = 0;
            new.last_success_time = Some(run.completion_time);
        }
        Outcome::Fail => {
            new.consecutive_failures += 1;
            new.consecutive_successes = 0;
        }
        // What could not be told breaks no row of either.
        Outcome::Error | Outcome::Skip => {}
    }
    let rules = ended.said.iter().flat_map(|said| &said.rules);
    new.failing_rules = rules
        .filter(|rule| !matches!(rule.result, Outcome::Pass | Outcome::Skip))
        .take(MOST_FAILING)
        .map(|rule| FailingRule {
            name: rule.name.clone(),
            severity: rule.severity,
            result: rule.result,
            reason: rule.reason.clone(),
            message: rule.message.as_ref().map(|message| message.chars().take(160).collect()),
        })
        .collect();
    new.recent_runs.insert(
        0,
        RecentRun {
            id: run.id.clone(),
            job: run.job.clone(),
            completion_time: run.completion_time,
            outcome: run.outcome,
            findings: run.findings,
            persisted: run.persisted,
        },
    );
    new.recent_runs.truncate(MOST_RECENT);
    new.last_run = Some(run.clone());
}

type Said = (Option<bool>, Option<&'static str>, Option<String>);

/// What a run says of health. A run that could not tell leaves nobody healthy or ill.
fn health(task: &InspectionTask, new: &InspectionTaskStatus, ended: &Ended) -> Said {
    let thresholds = task.spec.thresholds();
    let run = &ended.run;
    let names = || {
        let names: Vec<&str> = new.failing_rules.iter().map(|rule| rule.name.as_str()).take(5).collect();
        let of = run.summary.total();
        match names.as_slice() {
            [] => format!("{} of {of} rules did not pass", run.findings),
            names => format!("{} of {of} rules did not pass: {}", run.findings, names.join(", ")),
        }
    };
    match run.outcome {
        Outcome::Pass if new.consecutive_successes >= thresholds.success_threshold => {
            (Some(true), Some("Passed"), Some(format!("all {} rules passed", run.summary.total())))
        }
        Outcome::Warn if new.consecutive_successes >= thresholds.success_threshold => {
            (Some(true), Some("Warned"), Some(names()))
        }
        Outcome::Fail if new.consecutive_failures >= thresholds.failure_threshold => {
            (Some(false), Some("Failed"), Some(names()))
        }
        Outcome::Error | Outcome::Skip => {
            let why = run.reason.as_ref().map_or_else(names, |why| format!("the run could not tell: {why}"));
            (None, Some("Inconclusive"), Some(why))
        }
        _ => (None, None, None),
    }
}

fn persistence(ended: &Ended) -> (bool, String, String) {
    let run = &ended.run;
    if run.persisted {
        let path = run.path.as_deref().unwrap_or(&run.id);
        return (true, "Written".into(), format!("the last run is at {path}"));
    }
    let said = ended.said.as_ref().map(|said| &said.persisted);
    let reason = said.and_then(|said| said.reason.clone());
    let message = said.and_then(|said| said.message.clone());
    if ended.degraded {
        let message = "the volume did not come in time; the run went on without it".to_owned();
        return (false, "VolumeUnavailable".into(), message);
    }
    (
        false,
        reason.unwrap_or_else(|| "NothingSaid".into()),
        message.unwrap_or_else(|| "the run said nothing of its results".into()),
    )
}

/// When it was and is due, and how many runs that were due never started.
fn due(
    task: &InspectionTask,
    old: &InspectionTaskStatus,
    new: &mut InspectionTaskStatus,
    found: &Found,
    ready: bool,
    now: Timestamp,
) {
    let last = found.cron_job.as_ref().and_then(|cron| cron.status.as_ref()?.last_schedule_time.as_ref());
    if let Some(last) = last {
        new.last_schedule_time = Some(last.0);
    }
    let Ok((schedule, zone)) = schedule(task, now) else {
        new.next_schedule_time = None;
        return;
    };
    new.next_schedule_time = (!task.spec.suspend).then(|| schedule.next(now, &zone)).flatten();
    let cron_spec = found.cron_job.as_ref().and_then(|cron| cron.spec.as_ref());
    let deadline = cron_spec.and_then(|spec| spec.starting_deadline_seconds).unwrap_or(300);
    // What was due before this schedule was in force is not judged by it.
    let edited = old.observed_generation != task.metadata.generation;
    let Some(from) = old.missed_until.filter(|_| !edited && !task.spec.suspend) else {
        new.missed_until = match (edited, old.missed_until) {
            (false, Some(known)) => Some(known),
            _ => Some(now),
        };
        return;
    };
    let Ok(until) = Timestamp::from_second(now.as_second() - deadline - MARGIN) else { return };
    let started = started(task, found, old);
    // Jobs that ended while nobody looked are forgotten when there are more than the CronJob keeps: what is older than the
    // oldest one is not judged.
    let kept = found.jobs.len() >= 5;
    let oldest = started.keys().next().copied().filter(|_| kept).unwrap_or(i64::MIN);
    let mut judged = None;
    for slot in schedule.between(from, until, &zone).take(10_000) {
        judged = Some(slot);
        if started.contains_key(&slot.as_second()) {
            new.consecutive_missed = 0;
        } else if slot.as_second() >= oldest {
            let reason = MissReason::of(slot, deadline, &found.jobs, ready);
            new.missed_runs += 1;
            *new.missed_by_reason.entry(reason.word().to_owned()).or_default() += 1;
            new.consecutive_missed = new.consecutive_missed.saturating_add(1);
        }
    }
    new.missed_until = judged.or(old.missed_until);
}

/// So many runs in a row that never started are no accident.
const MOST_MISSED: u32 = 3;

/// Says whether runs start when they are due.
fn on_schedule(new: &mut InspectionTaskStatus, generation: Option<i64>, now: Timestamp) {
    let missed = new.consecutive_missed;
    let (value, reason, message) = if missed >= MOST_MISSED {
        (false, "RunsMissed", format!("the last {missed} runs that were due never started"))
    } else {
        (true, "RunsStart", "runs start when they are due".to_owned())
    };
    condition(&mut new.conditions, generation, now, "OnSchedule", Some(value), reason, message);
}

/// The moments whose runs started, in seconds since 1970.
fn started(task: &InspectionTask, found: &Found, old: &InspectionTaskStatus) -> BTreeMap<i64, ()> {
    let name = task.metadata.name.clone().unwrap_or_default();
    let jobs = found.jobs.iter().filter_map(|job| job.metadata.name.clone());
    let known = old.recent_runs.iter().map(|run| run.job.clone());
    jobs.chain(known)
        .filter_map(|job| {
            let id = RunId::of(&job, &name, Timestamp::UNIX_EPOCH);
            let due = id.scheduled_time.filter(|_| id.trigger == Trigger::Schedule)?;
            Some((due.as_second(), ()))
        })
        .collect()
}

/// Says whether those who are to be told have been; `trouble` says who could not be reached. `none` are to be told.
pub fn notified(
    new: &mut InspectionTaskStatus,
    generation: Option<i64>,
    none: bool,
    trouble: Option<String>,
    now: Timestamp,
) {
    if none {
        return new.conditions.retain(|condition| condition.type_ != "Notified");
    }
    let (value, reason, message) = match trouble {
        Some(why) => (false, "NotDelivered", why),
        None => (true, "UpToDate", "every receiver knows how it stands".to_owned()),
    };
    condition(&mut new.conditions, generation, now, "Notified", Some(value), reason, message);
}

/// Sets a condition; its time changes with its status alone.
pub(super) fn condition(
    conditions: &mut Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
    name: &str,
    value: Option<bool>,
    reason: &str,
    message: String,
) {
    let status = match value {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let old = conditions.iter().position(|condition| condition.type_ == name);
    let since = old
        .and_then(|at| conditions.get(at))
        .filter(|old| old.status == status)
        .map_or_else(|| Time(whole(now)), |old| old.last_transition_time.clone());
    let new = Condition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: generation,
    };
    match old {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

/// Without parts of a second, as Kubernetes keeps times.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests;
