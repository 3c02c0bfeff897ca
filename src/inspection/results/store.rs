//! A run is written, and what is kept is put in order. All of it happens in a child process.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::retention::{Limits, excess};
use super::shards::{Fleet, gather, leave, named, stands};
use super::{daily, disk, index, pages};
use crate::fault_point;
use crate::inspection::run::{Daily, Index, LATEST_SCHEMA, Latest, Run, TaskName};

/// What is to be written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saving {
    /// The volume.
    pub root: PathBuf,
    /// The run.
    pub run: Run,
    /// Runs that found no volume.
    pub backfill: Vec<Run>,
    /// Files beside run.json.
    pub artifacts: Vec<Attachment>,
    /// Files of the task, replaced by each run: task.json.
    pub files: Vec<Attachment>,
    /// Whether each run's report.html is made of what stands there then.
    pub html: bool,
    /// How much is kept.
    pub limits: Limits,
    /// The nodes, where the run is one node's part of a run on every node.
    pub fleet: Option<Fleet>,
    /// Who writes: a name that no other writer has.
    pub pod: String,
    /// Now.
    pub now: Timestamp,
    /// How old an unfinished run must be to be swept, in seconds.
    pub stale: u64,
}

/// A file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name, without any directory.
    pub name: String,
    /// What is in it.
    pub contents: String,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The run's directory, from the volume's root.
    pub path: String,
    /// The digest of its run.json.
    pub sha256: String,
    /// The bytes of all runs that are kept.
    pub bytes: u64,
    /// The ids of the runs that were backfilled.
    pub backfilled: Vec<String>,
    /// Runs that were removed.
    pub removed: usize,
    /// Directories that hold no whole run.
    pub damaged: Vec<String>,
    /// Whether another held the lock: then the next run puts the index in order.
    pub index_left: bool,
    /// How many nodes' parts are in the run, where it has parts.
    pub shards: Option<u32>,
    /// Why a report.html is missing, where one was wanted.
    pub unreported: Option<String>,
}

/// Why it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The name of the error, such as ENOSPC.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        let number = error.raw_os_error().map(nix::errno::Errno::from_raw);
        let reason = number.map_or_else(|| "WriteFailed".to_owned(), |errno| format!("{errno:?}"));
        Self { reason, message: format!("the results volume can't be written: {error}") }
    }
}

/// What earlier runs left.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Loaded {
    /// The newest, first.
    pub runs: Vec<Run>,
}

/// The last `most` runs that can be read, newest first.
pub fn load(root: &Path, task: &TaskName, most: usize) -> Result<Loaded, Problem> {
    let directory = root.join(task.directory());
    let mut paths = index::directories(&directory)?;
    // Days are in order, and so are the ids of a day: both begin with the time.
    paths.sort_by(|a, b| b.cmp(a));
    let runs = paths.iter().filter_map(|path| index::run(&directory.join(path)).ok()).map(|(run, _)| run);
    Ok(Loaded { runs: runs.take(most).collect() })
}

/// Writes a run, and what is due beside it. A full volume is emptied of old runs once, and then tried again.
pub fn save(saving: &Saving) -> Result<Kept, Problem> {
    match attempt(saving) {
        Err(error) if is_full(&error) => {
            make_room(saving)?;
            Ok(attempt(saving)?)
        }
        other => Ok(other?),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn attempt(saving: &Saving) -> io::Result<Kept> {
    let task = saving.run.task.directory();
    let directory = saving.root.join(&task);
    let runs = directory.join("runs");
    disk::make(&runs)?;
    sweep(&runs, Duration::from_secs(saving.stale))?;

    let mut backfilled = Vec::new();
    let mut fresh: Vec<&Run> = Vec::new();
    for run in &saving.backfill {
        // The same message may be handed over more than once.
        if !directory.join(run.path()).exists() {
            commit(&directory, saving, run, &[])?;
            fresh.push(run);
        }
        backfilled.push(run.id.clone());
    }
    let mut run = saving.run.clone();
    let (path, sha256) = match &saving.fleet {
        None => commit(&directory, saving, &saving.run, &saving.artifacts)?,
        // Its part; the run is made of it under the lock.
        Some(_) => {
            run = leave(&directory, &named(&directory, &run)?, &saving.pod)?;
            (run.path(), String::new())
        }
    };
    fault_point!("results.committed");

    let mut kept = Kept {
        path: format!("{task}/{path}"),
        sha256,
        bytes: 0,
        backfilled,
        removed: 0,
        damaged: Vec::new(),
        index_left: true,
        shards: None,
        unreported: None,
    };
    // Whoever held it before may have taken this part in.
    let already = || saving.fleet.is_some() && stands(&directory, &run);
    if let Some(held) = Lock::take(&directory, &saving.pod, saving.now)?.filter(|_| !already()) {
        fault_point!("results.locked");
        if let Some(fleet) = &saving.fleet {
            (run, kept.sha256) = gather(&directory, &run, fleet, &saving.pod)?;
            kept.shards = run.shards.as_ref().map(|shards| shards.present);
        } else {
            fresh.push(&saving.run);
        }
        let changed = saving.fleet.as_ref().map(|_| path.as_str());
        let found = index::reconcile(&directory, &saving.run.task, changed)?;
        kept.damaged = found.damaged;
        kept.index_left = false;
        let index = found.index;
        fault_point!("results.reconciled");
        roll_up(&directory, &index, &fresh, saving)?;
        let gone = excess(&index.runs, &saving.limits, saving.now).runs;
        let mut index = remove(&directory, index, &gone, saving)?;
        kept.removed = gone.len();
        for file in &saving.files {
            disk::replace(&directory.join(plain(&file.name)?), file.contents.as_bytes(), &saving.pod)?;
        }
        if saving.html {
            // The run is written by then: a page that can be made anew at any time is no reason to call it lost.
            let made = pages::make(&directory, &mut index, &path, &found.fresh, &saving.pod);
            kept.unreported = made.err();
        }
        let gone = excess(&index.runs, &saving.limits, saving.now).pages;
        pages::remove(&directory, &mut index, &gone)?;
        kept.bytes = index.runs.iter().map(|run| run.bytes).sum();
        index::replace(&directory, &index, &saving.pod)?;
        fault_point!("results.indexed");
        drop(held);
    }
    if !kept.sha256.is_empty() {
        let latest = Latest {
            schema: LATEST_SCHEMA.to_owned(),
            id: run.id,
            path,
            outcome: run.outcome,
            completion_time: run.completion_time,
            sha256: kept.sha256.clone(),
        };
        disk::replace(&directory.join("latest.json"), &disk::json(&latest)?, &saving.pod)?;
    }
    fault_point!("results.done");
    Ok(kept)
}

/// A name that stays where it is put.
fn plain(name: &str) -> io::Result<&str> {
    let bad = name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']);
    if bad {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name of a file")))
    } else {
        Ok(name)
    }
}

/// Makes a run's directory aside and renames it into place; its path beneath the task's, and its digest.
fn commit(
    directory: &Path,
    saving: &Saving,
    run: &Run,
    artifacts: &[Attachment],
) -> io::Result<(String, String)> {
    let staging = directory.join("runs").join(format!(".tmp-{}", saving.pod));
    disk::remove(&staging)?;
    fs::create_dir(&staging)?;
    let text = disk::json(run)?;
    let sha256 = disk::sha256(&text);
    let mut sums = format!("{sha256}  run.json\n");
    disk::write(&staging.join("run.json"), &text)?;
    fault_point!("results.half");
    if !artifacts.is_empty() {
        let place = staging.join("artifacts");
        fs::create_dir(&place)?;
        for artifact in artifacts {
            let name = plain(&artifact.name)?;
            disk::write(&place.join(name), artifact.contents.as_bytes())?;
            sums.push_str(&format!("{}  artifacts/{name}\n", disk::sha256(artifact.contents.as_bytes())));
        }
        disk::sync(&place)?;
    }
    disk::write(&staging.join("SHA256SUMS"), sums.as_bytes())?;
    disk::sync(&staging)?;
    fault_point!("results.staged");

    let wanted = run.path();
    for attempt in 0..100 {
        let path = if attempt == 0 { wanted.clone() } else { format!("{wanted}-r{attempt}") };
        let target = directory.join(&path);
        // A writer that died after its rename wrote this very run.
        if index::run(&target).is_ok_and(|(_, held)| held == sha256) {
            disk::remove(&staging)?;
            return Ok((path, sha256));
        }
        if let Some(day) = target.parent() {
            disk::make(day)?;
            match disk::rename(&staging, &target) {
                // Somebody's run is there, as a directory that is not empty can't be replaced.
                Err(error) if is_taken(&error) => {}
                other => {
                    other?;
                    disk::sync(day)?;
                    return Ok((path, sha256));
                }
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{wanted} was tried a hundred times already")))
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
    )
}

/// Removes what writers left that died long ago.
fn sweep(runs: &Path, stale: Duration) -> io::Result<()> {
    for entry in fs::read_dir(runs)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ![".tmp-", ".gone-", ".id-"].iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // Another writer may have finished in between.
        let Ok(found) = entry.metadata() else { continue };
        let age = found.modified().ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
        if name.starts_with(".id-") && age > stale {
            fs::remove_file(entry.path())?;
        } else if age > stale || name.starts_with(".gone-") {
            disk::remove(&entry.path())?;
        }
    }
    Ok(())
}

fn daily_path(directory: &Path, date: Date) -> PathBuf {
    directory.join("daily").join(format!("{date}.json"))
}

fn entry_day(path: &str) -> Option<Date> {
    let mut parts = path.split('/').skip(1);
    format!("{}-{}-{}", parts.next()?, parts.next()?, parts.next()?).parse().ok()
}

/// Sums up each day anew whose runs are all there, and adds the fresh ones to days that have lost some. A day that is over is
/// summed up for good with the first run of the next one.
fn roll_up(directory: &Path, index: &Index, fresh: &[&Run], saving: &Saving) -> io::Result<()> {
    disk::make(&directory.join("daily"))?;
    let today = saving.now.to_zoned(TimeZone::UTC).date();
    let days: BTreeSet<Date> = index.runs.iter().filter_map(|run| entry_day(&run.path)).collect();
    let yesterday = days.iter().rev().find(|day| **day < today).copied();
    let turned = !daily_path(directory, today).exists();
    for run in fresh {
        let path = daily_path(directory, daily::day(run));
        if let Some(mut held) = held(&path) {
            daily::add(&mut held, run);
            disk::replace(&path, &disk::json(&held)?, &saving.pod)?;
        }
    }
    // A run that is made of parts is another one with each of them.
    let parts = saving.fleet.as_ref().map(|_| daily::day(&saving.run));
    for day in days {
        let anew = turned && Some(day) == yesterday || Some(day) == parts;
        close(directory, index, day, anew, saving)?;
    }
    Ok(())
}

fn held(path: &Path) -> Option<Daily> {
    fs::read(path).ok().and_then(|text| serde_json::from_slice::<Daily>(&text).ok())
}

/// Sums up a day from its runs, unless that was done, or it had more of them than there are now. `anew` asks for it even where
/// no run is missing in the sum, for its durations.
fn close(directory: &Path, index: &Index, day: Date, anew: bool, saving: &Saving) -> io::Result<()> {
    let path = daily_path(directory, day);
    let of_day: Vec<_> = index.runs.iter().filter(|run| entry_day(&run.path) == Some(day)).collect();
    if let Some(held) = held(&path)
        && (held.runs as usize > of_day.len() || held.runs as usize == of_day.len() && !anew)
    {
        return Ok(());
    }
    let read = of_day.iter().filter_map(|entry| index::run(&directory.join(&entry.path)).ok());
    let runs: Vec<Run> = read.map(|(run, _)| run).collect();
    disk::replace(&path, &disk::json(&daily::sum(day, &runs))?, &saving.pod)
}

/// Removes runs: out of sight first, in one step each.
fn remove(directory: &Path, mut index: Index, gone: &[String], saving: &Saving) -> io::Result<Index> {
    for day in gone.iter().filter_map(|path| entry_day(path)).collect::<BTreeSet<Date>>() {
        close(directory, &index, day, false, saving)?;
    }
    for (at, path) in gone.iter().enumerate() {
        let aside = directory.join("runs").join(format!(".gone-{}-{at}", saving.pod));
        fs::rename(directory.join(path), &aside)?;
        fault_point!("results.removing");
        disk::remove(&aside)?;
        // The day's, the month's and the year's directory, as far as they are empty now: others stay, by their own nature.
        let above = Path::new(path).ancestors().skip(1).take(3);
        above.take_while(|above| fs::remove_dir(directory.join(above)).is_ok()).for_each(drop);
    }
    index.runs.retain(|run| !gone.contains(&run.path));
    Ok(index)
}

/// Frees a quarter of what the runs take: pages first, of both the oldest first.
fn make_room(saving: &Saving) -> Result<(), Problem> {
    let directory = saving.root.join(saving.run.task.directory());
    disk::remove(&directory.join("runs").join(format!(".tmp-{}", saving.pod)))?;
    let Some(held) = Lock::take(&directory, &saving.pod, saving.now)? else { return Ok(()) };
    let mut index = index::reconcile(&directory, &saving.run.task, None)?.index;
    let all: u64 = index.runs.iter().map(|run| run.bytes).sum();
    let limits = Limits { bytes: all / 4 * 3, ..saving.limits };
    let gone = excess(&index.runs, &limits, saving.now);
    for path in &gone.runs {
        // Without a roll-up: there is no room for one.
        disk::remove(&directory.join(path))?;
    }
    if !gone.pages.is_empty() {
        // Nobody looks again whether a page that the index knows is there.
        pages::remove(&directory, &mut index, &gone.pages)?;
        index.runs.retain(|run| !gone.runs.contains(&run.path));
        index::replace(&directory, &index, &saving.pod)?;
    }
    drop(held);
    Ok(())
}
