//! The parts of a run on every node, made into one run.
//!
//! Each pod leaves its part as `shards/NODE.json` in the run's directory; whoever holds the lock then makes `run.json` of all
//! parts that are there. So nobody waits for a node that never answers, and what is missing is said: a rule that should have
//! been evaluated on a node and was not is an error. Until the last part is there, that is all those that are still to come.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{disk, index};
use crate::fault_point;
use crate::inspection::run::{
    Counts, Fingerprint, OTHER_SHARD, Outcome, RUN_SCHEMA, RuleResult, Run, Shards,
};

/// The reason of a rule of a node from which nothing was heard.
const NOT_INSPECTED: &str = "NodeNotInspected";

/// The nodes that a run is meant for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// How many there are.
    pub expected: u32,
    /// Their names, where they are known.
    pub nodes: Vec<String>,
    /// The rules that are evaluated by one pod alone.
    pub once: Vec<String>,
}

/// The run under the id that all of its parts have.
///
/// A run by hand has the time at which it began in its id, and each pod begins at another. So the first one leaves its id in a
/// link that points nowhere: making one is atomic and fails where there is one, on NFS too.
pub fn named(directory: &Path, run: &Run) -> io::Result<Run> {
    let mut run = run.clone();
    if run.scheduled_time.is_some() {
        return Ok(run);
    }
    let Some((_, of_job)) = run.id.split_once('-') else { return Ok(run) };
    let link = directory.join("runs").join(format!(".id-{of_job}"));
    match std::os::unix::fs::symlink(&run.id, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let first = fs::read_link(&link)?.to_string_lossy().into_owned();
            // Anybody who can write to the volume may have put it there.
            if index::is_id(&first) && first.split_once('-').is_some_and(|(_, other)| other == of_job) {
                run.id = first;
            }
        }
        // A file system without links: then each part is a run of its own.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {}
        other => other?,
    }
    Ok(run)
}

/// Writes the part of a run that one node has found, and returns it. Needs no lock: nobody else writes it.
pub fn leave(directory: &Path, run: &Run, pod: &str) -> io::Result<Run> {
    let place = directory.join(run.path()).join("shards");
    disk::make(&place)?;
    let path = place.join(file(run));
    let before = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Run>(&text).ok());
    let part = beside(run, before.as_ref());
    disk::replace(&path, &disk::json(&part)?, pod)?;
    fault_point!("results.shard");
    Ok(part)
}

/// A part after an earlier pod of the same run on the same node: what is evaluated once may be that one's.
fn beside(run: &Run, before: Option<&Run>) -> Run {
    let mut part = run.clone();
    for rule in part.rules.iter_mut().filter(|rule| rule.reason == OTHER_SHARD) {
        let of_run = before.filter(|before| before.id == run.id);
        if let Some(held) = of_run.and_then(|before| before.rules.iter().find(|held| held.name == rule.name))
        {
            rule.clone_from(held);
        }
    }
    part
}

fn file(run: &Run) -> String {
    // The name of a node is one of DNS; without one, the pod's own is as good.
    let name = if run.inspector.node.is_empty() { &run.inspector.pod } else { &run.inspector.node };
    format!("{}.json", name.trim_start_matches('.').replace('/', "_"))
}

/// Whether a part stands in the run already, as another pod has seen to it.
pub fn stands(directory: &Path, own: &Run) -> bool {
    let place = directory.join(own.path());
    let sums = fs::read_to_string(place.join("SHA256SUMS")).unwrap_or_default();
    let digest = disk::json(own).map(|text| disk::sha256(&text)).unwrap_or_default();
    sums.lines().any(|line| line == format!("{digest}  shards/{}", file(own)))
}

/// Makes the run of all parts that are there; it, and the digest of its run.json. Under the lock.
///
/// At each moment run.json is one that SHA256SUMS names.
pub fn gather(directory: &Path, own: &Run, fleet: &Fleet, pod: &str) -> io::Result<(Run, String)> {
    let place = directory.join(own.path());
    let (sums, run) = (place.join("SHA256SUMS"), place.join("run.json"));
    let (mut parts, mut lines) = (BTreeMap::new(), String::new());
    for entry in fs::read_dir(place.join("shards"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let text = fs::read(place.join("shards").join(&name))?;
        let part = serde_json::from_slice::<Run>(&text).ok();
        // What is no part of this run was put there by somebody else.
        if let Some(part) = part.filter(|part| part.schema == RUN_SCHEMA && part.id == own.id) {
            parts.insert(name, (part, disk::sha256(&text)));
        }
    }
    for (name, (_, digest)) in &parts {
        lines.push_str(&format!("{digest}  shards/{name}\n"));
    }
    let whole = merged(parts.into_values().map(|(part, _)| part).collect(), own, fleet);
    let text = disk::json(&whole)?;
    let digest = disk::sha256(&text);
    let line = format!("{digest}  run.json\n");
    if let Ok((_, before)) = index::run(&place) {
        disk::replace(&sums, format!("{line}{before}  run.json\n").as_bytes(), pod)?;
    } else {
        disk::replace(&sums, line.as_bytes(), pod)?;
    }
    fault_point!("results.gathering");
    disk::replace(&run, &text, pod)?;
    fault_point!("results.gathered");
    disk::replace(&sums, format!("{line}{lines}").as_bytes(), pod)?;
    Ok((whole, digest))
}

/// One run of the parts of several nodes. `own` is one of them.
fn merged(parts: Vec<Run>, own: &Run, fleet: &Fleet) -> Run {
    let mut run = own.clone();
    run.inspector.node.clear();
    run.inspector.pod.clear();
    let times = |of: fn(&Run) -> Timestamp| parts.iter().map(of).collect::<Vec<_>>();
    run.start_time = times(|part| part.start_time).into_iter().min().unwrap_or(own.start_time);
    run.completion_time = times(|part| part.completion_time).into_iter().max().unwrap_or(own.completion_time);

    let present = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let expected = fleet.expected.max(present);
    let here = |node: &String| parts.iter().any(|part| part.inspector.node == *node);
    let mut missing: Vec<String> = fleet.nodes.iter().filter(|node| !here(node)).cloned().collect();
    // A node that came after the run was planned is here in place of another.
    missing.truncate(usize::try_from(expected - present).unwrap_or(usize::MAX));
    let nameless = (expected - present).saturating_sub(u32::try_from(missing.len()).unwrap_or(0));

    let mut rules = Vec::new();
    // All parts have the same rules in the same order: they are of one generation.
    for rule in &own.rules {
        let of_rule = |part: &Run| part.rules.iter().find(|other| other.name == rule.name).cloned();
        let mut found: Vec<RuleResult> = parts.iter().filter_map(of_rule).collect();
        if fleet.once.contains(&rule.name) {
            found.retain(|result| result.reason != OTHER_SHARD);
            if found.is_empty() {
                found.push(unheard(rule, None, "the pod that evaluates this rule said nothing".into()));
            }
        } else {
            let silent = missing.iter().map(|node| {
                unheard(
                    rule,
                    Some(node),
                    format!("nothing was heard from {node}: no pod of this run ended there"),
                )
            });
            found.extend(silent);
            if nameless > 0 {
                let why = format!("nothing was heard from {nameless} of {expected} nodes");
                found.push(unheard(rule, None, why));
            }
        }
        rules.extend(found);
    }
    run.outcome = Outcome::of(rules.iter().map(|rule| rule.result));
    run.summary = rules.iter().map(|rule| rule.result).collect::<Counts>();
    run.rules = rules;
    run.shards = Some(Shards { expected, present, missing });
    run
}

fn unheard(rule: &RuleResult, node: Option<&str>, message: String) -> RuleResult {
    RuleResult {
        result: Outcome::Error,
        reason: NOT_INSPECTED.to_owned(),
        message,
        remedy: None,
        duration_millis: 0,
        attempts: 0,
        flaky: false,
        observed: BTreeMap::new(),
        subjects: Vec::new(),
        truncated: false,
        node: node.map(str::to_owned),
        fingerprint: Fingerprint::of(&rule.name, Outcome::Error, node, None),
        ..rule.clone()
    }
}
