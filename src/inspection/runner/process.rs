//! A run as a process: from its task to what is left of it.
//!
//! What was found is said three times, each way independent of the others: on the volume, in the pod's termination message,
//! and as a line of its log. The first may fail; the run does not.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tokio::time::Instant;

use super::compare::compare;
use super::evaluate::{Limits, evaluate};
use super::jitter;
use super::load::{LoadError, Loaded, load};
use super::table::table;
use crate::inspection::results::{self, Attachment, Fleet, Keeper, Kept, Problem, Saving};
use crate::inspection::rules::{Past, Place};
use crate::inspection::run::{
    Counts, Detail, Inspector, OTHER_SHARD, Outcome, Persisted, RUN_SCHEMA, RuleResult, Run, RunId, Scalar,
    Termination,
};
use crate::inspection::task::Scope;

/// Runs before this one that rules may ask about: a day of one every five minutes is enough for a trend.
const PAST: usize = 48;

/// Reading them may take no longer: the run goes on without.
const PAST_LIMIT: Duration = Duration::from_secs(5);

/// What the end of a run needs beside writing: saying what was found.
const FAREWELL: Duration = Duration::from_secs(5);

/// Taking away what rules made may take no longer, of what the end of a run needs: a canary tries it three times in two seconds.
const SETTLING: Duration = Duration::from_secs(4);

/// What a run is given.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The task's file.
    pub task: PathBuf,
    /// The results volume.
    pub results: Option<PathBuf>,
    /// What is printed.
    pub output: Output,
    /// The namespace, where the task's file has none.
    pub namespace: Option<String>,
    /// The run's Job.
    pub job: Option<String>,
    /// The run's pod.
    pub pod: Option<String>,
    /// The node that it is on.
    pub node: Option<String>,
    /// Which pod of the run this is.
    pub shard: Option<u32>,
    /// How many pods the run has.
    pub shards: Option<u32>,
    /// The nodes that they are meant for, where they are known.
    pub nodes: Vec<String>,
    /// Rules that look at once.
    pub concurrency: usize,
    /// A directory of what earlier pods said last and could not write.
    pub backfill: Option<PathBuf>,
    /// Where containers of exec rules leave what they said.
    pub exec: Option<PathBuf>,
    /// Where claims of volume probes are mounted.
    pub claims: Option<PathBuf>,
    /// Where Secrets are mounted.
    pub secrets: PathBuf,
    /// Where a pod says its last word.
    pub termination_log: Option<PathBuf>,
}

/// What is printed on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A table, for people.
    Table,
    /// The run, in one line.
    Json,
}

/// Why a run could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// Its task.
    #[error("{0}")]
    Task(#[from] LoadError),
    /// What it found can't be said.
    #[error("the run can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Carries out one run; its verdict. That something is wrong with what was looked at is no error.
pub async fn run(settings: Settings) -> Result<Outcome, RunFailure> {
    let mut task = load(&settings.task)?;
    tokio::time::sleep(jitter::wait(&task.name, settings.job.as_deref(), task.spec.jitter_seconds)).await;
    let begun = Timestamp::now();
    let clock = Instant::now();
    if let Some(namespace) = &settings.namespace {
        namespace.clone_into(&mut task.name.namespace);
    }
    let persist = task.spec.results.clone().unwrap_or_default().persist_timeout_seconds;
    let persist = Duration::from_secs(persist.into());
    let budget = Duration::from_secs(task.spec.active_deadline_seconds.unsigned_abs());
    let spare = if settings.results.is_some() { persist + FAREWELL } else { FAREWELL };
    // A deadline that leaves nothing is the task's own fault; half of it still finds something out.
    let end = clock + budget.checked_sub(spare).filter(|left| *left > budget / 2).unwrap_or(budget / 2);

    let keeper = settings.results.as_ref().map(|_| Keeper::start());
    let past = match (&keeper, &settings.results) {
        (Some(Ok(keeper)), Some(root)) => {
            keeper.load(root.clone(), task.name.clone(), PAST, PAST_LIMIT.min(persist)).await
        }
        _ => Ok(results::Loaded::default()),
    };
    if let Err(problem) = &past {
        tracing::warn!(reason = problem.reason, %problem, "earlier runs can't be read");
    }
    let before = past.as_ref().map(|past| past.runs.clone()).unwrap_or_default();
    let place = Arc::new(place(&settings, &task, &before, begun));
    let limits = Limits { at_once: settings.concurrency, end, shard: settings.shard.unwrap_or(0) };
    let rules = evaluate(&task.rules, Arc::clone(&place), limits).await;

    let job = settings.job.clone().unwrap_or_else(|| format!("{}-local", task.name.name));
    let id = RunId::of(&job, &task.name.name, begun);
    let run = Run {
        schema: RUN_SCHEMA.to_owned(),
        id: id.id,
        task: task.name.clone(),
        trigger: id.trigger,
        scheduled_time: id.scheduled_time,
        start_time: begun,
        completion_time: Timestamp::now(),
        inspector: Inspector {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: settings.node.clone().unwrap_or_default(),
            pod: settings.pod.clone().unwrap_or_default(),
        },
        target: task.spec.target.clone(),
        outcome: Outcome::of(rules.iter().map(|rule| rule.result)),
        summary: rules.iter().map(|rule| rule.result).collect::<Counts>(),
        detail: Detail::Full,
        rules,
        shards: None,
    };
    if let Some(previous) = before.first() {
        let changes = compare(previous, &run);
        let (new, still, gone) = (changes.new.len(), changes.still.len(), changes.gone.len());
        tracing::info!(new, still, gone, "findings against the run before");
    }
    let saving = async {
        match (keeper, past) {
            (None, _) => None,
            (Some(Err(problem)), _) => Some(Err(problem)),
            // A volume that did not answer a moment ago is not waited for again.
            (Some(Ok(_)), Err(problem)) if problem.reason == "Timeout" => Some(Err(problem)),
            (Some(Ok(keeper)), _) => Some(save(&keeper, &settings, &task, &run, persist).await),
        }
    };
    // What rules made goes while the run is written down: neither waits for the other.
    let (saved, settled) = tokio::join!(saving, place.settled(SETTLING));
    if !settled {
        tracing::warn!(
            "what a rule made could not be taken away in time; see the claims of the task's namespace"
        );
    }
    let own = alone(run);
    tell(&settings, &own, saved)?;
    Ok(own.outcome)
}

/// What one pod of a run on every node has to say: without the rules that it left to another. It may have none.
fn alone(mut run: Run) -> Run {
    let all = run.rules.len();
    run.rules.retain(|rule| rule.reason != OTHER_SHARD);
    if run.rules.len() < all {
        run.summary = run.rules.iter().map(|rule| rule.result).collect();
        let nothing = run.rules.is_empty();
        run.outcome =
            if nothing { Outcome::Skip } else { Outcome::of(run.rules.iter().map(|rule| rule.result)) };
    }
    run
}

fn place(settings: &Settings, task: &Loaded, before: &[Run], now: Timestamp) -> Place {
    let mut place = Place::new(task.name.namespace.clone(), task.target.clone(), now);
    place.node = settings.node.clone().filter(|_| settings.shard.is_some());
    place.shards = settings.shard.is_some();
    place.results.clone_from(&settings.results);
    place.exec.clone_from(&settings.exec);
    place.claims.clone_from(&settings.claims);
    place.secrets.clone_from(&settings.secrets);
    place.past = before.iter().map(|run| past(run, place.node.as_deref())).collect();
    place
}

/// What a run observed; of a run on every node, what it observed on this one, and what it looked at once.
fn past(run: &Run, node: Option<&str>) -> Past {
    let value = |scalar: &Scalar| match scalar {
        Scalar::Bool(held) => Json::from(*held),
        Scalar::Integer(number) => Json::from(*number),
        Scalar::Number(number) => Json::from(*number),
        Scalar::Text(text) => Json::from(text.clone()),
    };
    let once = |rule: &RuleResult| run.rules.iter().filter(|other| other.name == rule.name).count() == 1;
    let here = run.rules.iter().filter(|rule| node.is_none() || rule.node.as_deref() == node || once(rule));
    let rules = here.map(|rule| {
        let observed: Map<String, Json> =
            rule.observed.iter().map(|(key, held)| (key.clone(), value(held))).collect();
        (rule.name.clone(), observed)
    });
    Past { time: run.start_time, observed: rules.collect::<HashMap<_, _>>() }
}

async fn save(
    keeper: &Keeper,
    settings: &Settings,
    task: &Loaded,
    run: &Run,
    limit: Duration,
) -> Result<Kept, Problem> {
    let Some(root) = settings.results.clone() else {
        return Err(Problem {
            reason: "NoVolume".to_owned(),
            message: "this run has no results volume".to_owned(),
        });
    };
    let wanted = task.spec.results.clone().unwrap_or_default();
    let history = wanted.history.unwrap_or_default();
    // Two pods never have one name; two processes of one machine never one id at once.
    let pod = settings.pod.clone().unwrap_or_else(|| format!("local-{}", std::process::id()));
    let saving = Saving {
        root,
        run: run.clone(),
        backfill: handed_over(settings, task),
        artifacts: Vec::new(),
        files: vec![Attachment { name: "task.json".to_owned(), contents: as_json(task) }],
        html: wanted.html,
        limits: results::Limits::of(&history),
        fleet: fleet(settings, task),
        pod,
        now: run.completion_time,
        stale: 2 * task.spec.active_deadline_seconds.unsigned_abs(),
    };
    keeper.save(saving, limit).await
}

fn fleet(settings: &Settings, task: &Loaded) -> Option<Fleet> {
    settings.shard?;
    let once = task.rules.iter().filter(|rule| rule.scope == Scope::Once);
    Some(Fleet {
        expected: settings.shards.unwrap_or(1),
        nodes: settings.nodes.clone(),
        once: once.map(|rule| rule.name.clone()).collect(),
    })
}

fn as_json(task: &Loaded) -> String {
    let spec = serde_json::to_value(&task.spec).unwrap_or_default();
    let whole = serde_json::json!({"apiVersion": crate::inspection::task::API_VERSION, "kind": "InspectionTask",
        "metadata": {"namespace": task.name.namespace, "name": task.name.name, "uid": task.name.uid,
                     "generation": task.name.generation}, "spec": spec});
    format!("{whole:#}\n")
}

/// What earlier pods said last and could not write: one file each. What can't be read is another's.
fn handed_over(settings: &Settings, task: &Loaded) -> Vec<Run> {
    let Some(directory) = &settings.backfill else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut texts: Vec<String> =
        entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect();
    texts.sort();
    let said = texts.iter().filter_map(|text| serde_json::from_str::<Termination>(text).ok());
    said.map(|said| said.recalled(&task.name, &task.spec.target)).take(100).collect()
}

/// Says what was found.
fn tell(settings: &Settings, run: &Run, saved: Option<Result<Kept, Problem>>) -> Result<(), RunFailure> {
    let none = || Persisted { ok: false, reason: Some("NoVolume".to_owned()), message: None };
    let persisted = match &saved {
        None => none(),
        Some(Ok(_)) => Persisted { ok: true, reason: None, message: None },
        Some(Err(problem)) => {
            tracing::error!(reason = problem.reason, %problem, "the run is not on its volume");
            Persisted {
                ok: false,
                reason: Some(problem.reason.clone()),
                message: Some(problem.message.clone()),
            }
        }
    };
    let mut last = Termination::of(run, persisted);
    if let Some(Ok(kept)) = saved {
        // The parts of a run by hand have the id of the first.
        if let Some(id) = kept.path.rsplit('/').next().filter(|_| settings.shard.is_some()) {
            id.clone_into(&mut last.id);
        }
        last.path = Some(kept.path);
        last.sha256 = Some(kept.sha256).filter(|digest| !digest.is_empty());
        last.shards = kept.shards;
        last.results_bytes = (!kept.index_left).then_some(kept.bytes);
        last.backfilled = kept.backfilled;
        if let Some(why) = &kept.unreported {
            tracing::warn!(why, "a report.html is missing, or that of an earlier run");
        }
        for path in &kept.damaged {
            tracing::warn!(path, "this directory holds no whole run; it is left as it is");
        }
    }
    if let Some(path) = &settings.termination_log
        && let Err(error) = std::fs::write(path, last.fitted())
    {
        tracing::error!(path = %path.display(), %error, "the pod's last word can't be written");
    }
    match settings.output {
        Output::Table => print!("{}", table(run, std::io::stdout().is_terminal())),
        Output::Json => println!("{}", serde_json::to_string(run)?),
    }
    Ok(())
}
