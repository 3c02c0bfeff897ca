//! How a Job ended: what its pods said last, and what is missing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::super::run::{Counts, Outcome, RunId, Termination, TerminationRule};
use super::super::task::{InspectionTask, LastRun, Severity};
use super::DEGRADED_LABEL;
use super::fleet::NODES;
use super::verdict::{Found, MOST_RECENT};

/// A run that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// As the status has it.
    pub run: LastRun,
    /// What its pod said last, if it said anything.
    pub said: Option<Termination>,
    /// Whether it ran without its volume.
    pub degraded: bool,
}

/// The Jobs that ended since the task's status was written, oldest first.
pub fn ended(task: &InspectionTask, found: &Found) -> Vec<Ended> {
    let status = task.status.clone().unwrap_or_default();
    // Two Jobs of one moment, as when one was run again without its volume, are one run.
    let known = |new: &LastRun| {
        let same = |job: &str, id: &str| job == new.job || id == new.id;
        status.recent_runs.iter().any(|run| same(&run.job, &run.id))
            || status.last_run.as_ref().is_some_and(|run| same(&run.job, &run.id))
    };
    // What ended before the oldest run that is remembered was counted long ago.
    let horizon = match status.recent_runs.as_slice() {
        runs if runs.len() == MOST_RECENT => runs.last().map(|run| run.completion_time),
        _ => None,
    };
    let name = task.metadata.name.clone().unwrap_or_default();
    let mut fresh: Vec<Ended> = found
        .jobs
        .iter()
        .filter_map(|job| end(&name, job, &found.pods))
        .filter(|run| !known(&run.run))
        .filter(|run| horizon.is_none_or(|horizon| run.run.completion_time > horizon))
        .collect();
    // Of two of one moment the one that is on the volume counts, else the first to end.
    fresh.sort_by_key(|run| (!run.run.persisted, run.run.completion_time));
    let mut ids = BTreeSet::new();
    fresh.retain(|run| ids.insert(run.run.id.clone()));
    fresh.sort_by_key(|run| run.run.completion_time);
    fresh
}

/// How a Job ended; None while it runs.
fn end(task: &str, job: &Job, pods: &[Pod]) -> Option<Ended> {
    let name = job.metadata.name.as_ref()?;
    let status = job.status.as_ref()?;
    let over = status.conditions.iter().flatten().find(|condition| {
        ["Complete", "Failed"].contains(&condition.type_.as_str()) && condition.status == "True"
    })?;
    let at = status.completion_time.as_ref().or(over.last_transition_time.as_ref())?.0;
    let started = status.start_time.as_ref().map(|time| time.0);
    // A pod that finds its own node closed goes to one that is done already: of two on one node the one that looked at more
    // counts, else the later one.
    let mut said: BTreeMap<&str, Termination> = BTreeMap::new();
    for (node, word) in pods.iter().filter(|pod| of_job(pod, name)).filter_map(last_word) {
        match said.get(node) {
            Some(other)
                if (other.summary.total(), other.completion_time)
                    > (word.summary.total(), word.completion_time) => {}
            _ => drop(said.insert(node, word)),
        }
    }
    let wanted = job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(1).max(1);
    let missing = usize::try_from(wanted).unwrap_or(1).saturating_sub(said.len());
    let mut silent = silent(job, &said);
    // A node that came after the run was planned is there in place of another.
    silent.truncate(missing);
    let labels = job.metadata.labels.as_ref();
    let degraded = labels.is_some_and(|labels| labels.contains_key(DEGRADED_LABEL));
    let id = RunId::of(name, task, started.unwrap_or(at));
    let mut said = together(said, wanted > 1);
    let mut run = LastRun {
        id: id.id,
        job: name.clone(),
        trigger: id.trigger,
        start_time: started,
        completion_time: at,
        outcome: Outcome::Error,
        reason: None,
        summary: Counts::default(),
        findings: 0,
        path: None,
        sha256: None,
        persisted: false,
    };
    if let Some(said) = said.as_mut().filter(|_| missing > 0) {
        let names =
            if silent.is_empty() { format!("{missing} of {wanted} nodes") } else { silent.join(", ") };
        said.summary.count(Outcome::Error);
        said.rules.insert(0, not_inspected(names));
    }
    if let Some(said) = &said {
        run.id.clone_from(&said.id);
        run.outcome = said.outcome;
        run.summary = said.summary;
        run.path.clone_from(&said.path);
        run.sha256.clone_from(&said.sha256);
        run.persisted = said.persisted.ok;
    }
    if said.is_none() || missing > 0 {
        let of_pods = pods.iter().filter(|pod| of_job(pod, name)).find_map(trouble);
        let of_job = over.reason.clone().filter(|_| over.type_ == "Failed");
        run.reason = match &said {
            Some(_) => Some(NOT_INSPECTED.to_owned()),
            None => of_pods.or(of_job).or_else(|| Some("NothingSaid".to_owned())),
        };
        run.outcome = run.outcome.worse(Outcome::Error);
    }
    run.findings = run.summary.findings().max(u32::from(!run.outcome.well()));
    Some(Ended { run, said, degraded })
}

fn of_job(pod: &Pod, job: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get("batch.kubernetes.io/job-name")).is_some_and(|name| name == job)
}

/// What is said of nodes from which nothing was heard.
const NOT_INSPECTED: &str = "NodeNotInspected";

fn not_inspected(names: String) -> TerminationRule {
    TerminationRule {
        name: "nodes".to_owned(),
        result: Outcome::Error,
        severity: Severity::High,
        millis: 0,
        reason: Some(NOT_INSPECTED.to_owned()),
        message: Some(format!("nothing was heard from {names}")),
    }
}

/// The nodes that a Job was planned for and from which nothing was heard, where it names them.
fn silent(job: &Job, said: &BTreeMap<&str, Termination>) -> Vec<String> {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let mut env = pod.iter().flat_map(|pod| &pod.containers).flat_map(|one| one.env.iter().flatten());
    let planned = env.find(|env| env.name == NODES).and_then(|env| env.value.as_deref()).unwrap_or_default();
    planned
        .split(',')
        .filter(|name| !name.is_empty() && !said.contains_key(name))
        .map(str::to_owned)
        .collect()
}

/// What a pod's inspector said last, and on which node; a pod that names none stands for itself.
fn last_word(pod: &Pod) -> Option<(&str, Termination)> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let inspect = containers.iter().find(|container| container.name == "inspect")?;
    let message = inspect.state.as_ref()?.terminated.as_ref()?.message.as_ref()?;
    let node =
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).or(pod.metadata.name.as_deref())?;
    Some((node, serde_json::from_str(message).ok()?))
}

/// Why a pod could say nothing, in one word.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.iter().flatten().find_map(|container| {
        let state = container.state.as_ref()?;
        let ended = state.terminated.as_ref().and_then(|ended| ended.reason.clone());
        let waits = state.waiting.as_ref().and_then(|waits| waits.reason.clone());
        ended.or(waits).filter(|reason| reason != "Completed" && reason != "Error")
    });
    container.or_else(|| status.reason.clone())
}

/// What the pods of one run said, as one. Of several pods each names its node.
fn together(said: BTreeMap<&str, Termination>, several: bool) -> Option<Termination> {
    let named = said.into_iter().map(|(node, mut said)| {
        let findings = said.rules.iter_mut().filter(|rule| several && rule.result != Outcome::Pass);
        for message in findings.filter_map(|rule| rule.message.as_mut()) {
            *message = format!("{node}: {message}");
        }
        said
    });
    named.reduce(|mut all, one| {
        all.outcome = all.outcome.worse(one.outcome);
        for outcome in Outcome::ALL {
            for _ in 0..one.summary.of(outcome) {
                all.summary.count(outcome);
            }
        }
        if all.persisted.ok {
            all.persisted = one.persisted;
        }
        // The one that was written last has the most parts in it.
        if one.shards > all.shards {
            (all.shards, all.path, all.sha256) = (one.shards, one.path, one.sha256);
        }
        all.start_time = all.start_time.min(one.start_time);
        all.rules.extend(one.rules);
        all.completion_time = all.completion_time.max(one.completion_time);
        all.truncated |= one.truncated;
        all
    })
}
