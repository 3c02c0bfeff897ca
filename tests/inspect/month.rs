//! A month of a task that runs every five minutes: what is kept stays within its limits, whatever came before.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use kuration::inspection::results::{Limits, Saving, save};
use kuration::inspection::run::Run;

use super::*;

const RUNS: i64 = 30 * DAY;
/// Runs a day.
const DAY: i64 = 288;
const LIMITS: Limits = Limits { runs: 100, age: 86400, bytes: 128 << 10, failed: 20 };

/// The run that is due in this slot, as long and with as many findings as its number says.
fn due(first: &Run, slot: i64) -> Run {
    let moment = first.scheduled_time.unwrap() + SignedDuration::from_mins(5 * slot);
    let mut run = first.clone();
    let minute = moment.as_second() / 60;
    run.id = format!("{}-{minute}", moment.strftime("%Y%m%dT%H%M%SZ"));
    run.scheduled_time = Some(moment);
    (run.start_time, run.completion_time) = (moment, moment);
    // One in 40 fails, with much to say.
    let (word, outcome) = if slot % 40 == 7 { ("x".repeat(2000), "fail") } else { ("fine".into(), "pass") };
    run.rules[0].message = word;
    run.outcome = serde_json::from_value(json!(outcome)).unwrap();
    run
}

/// All files beneath a directory, by their paths, and their bytes.
fn files(directory: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(place) = waiting.pop() {
        for entry in fs::read_dir(&place).unwrap().flatten() {
            match entry.metadata().unwrap() {
                data if data.is_dir() => waiting.push(entry.path()),
                data => found
                    .push((entry.path().strip_prefix(directory).unwrap().display().to_string(), data.len())),
            }
        }
    }
    found
}

#[test]
fn thirty_days_of_runs_leave_no_more_than_the_limits_say_and_a_sum_of_each_day() {
    let task = Task::passing();
    let first: Run = serde_json::from_value(task.keep(MINUTE).0).unwrap();
    // In memory: the disk is not what is tested.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = place.path().join("shop/check-0badcafe");
    let mut longest = Duration::ZERO;
    for slot in 0..RUNS {
        let run = due(&first, slot);
        let now: Timestamp = run.completion_time;
        let saving = Saving {
            root: place.path().to_owned(),
            run,
            backfill: vec![],
            artifacts: vec![],
            files: vec![],
            html: false,
            limits: LIMITS,
            fleet: None,
            pod: format!("pod-{slot}"),
            now,
            stale: 3600,
        };
        let begun = Instant::now();
        let kept = save(&saving).unwrap();
        longest = longest.max(begun.elapsed());
        assert!(kept.bytes <= LIMITS.bytes, "{kept:?}");
        // Nothing piles up to be removed at once: what comes and what goes keep step.
        assert!(kept.removed <= 60, "{kept:?}");
        if slot % DAY != DAY - 1 {
            continue;
        }
        let index: Value = serde_json::from_slice(&fs::read(directory.join("index.json")).unwrap()).unwrap();
        let runs = index["runs"].as_array().unwrap();
        let failed = runs.iter().filter(|run| run["outcome"] == "fail").count();
        assert!(
            runs.len() <= LIMITS.runs + LIMITS.failed + 1,
            "{} runs, {failed} of them failed",
            runs.len()
        );
        assert!(runs.len() > 50, "{} runs: history is for something", runs.len());
        // The files are those that the index names, the sums of the days, and four of the task's own: nothing else.
        let all = files(&directory);
        let of_runs: BTreeSet<&str> = runs.iter().map(|run| run["path"].as_str().unwrap()).collect();
        let (in_runs, others): (Vec<_>, Vec<_>) = all.iter().partition(|(path, _)| path.starts_with("runs/"));
        let places: BTreeSet<&str> =
            in_runs.iter().map(|(path, _)| path.rsplit_once('/').unwrap().0).collect();
        assert_eq!(places, of_runs);
        let bytes: u64 = in_runs.iter().map(|(_, bytes)| bytes).sum();
        assert!(bytes <= LIMITS.bytes, "{bytes} bytes in {} runs", runs.len());
        let days = (slot + 1) / DAY;
        let mut others: Vec<&str> = others.iter().map(|(path, _)| path.as_str()).collect();
        others.retain(|path| !["index.json", "latest.json"].contains(path));
        assert!(others.iter().all(|path| path.starts_with("daily/")), "{others:?}");
        assert!((days..=days + 1).contains(&i64::try_from(others.len()).unwrap()), "{others:?}");
        let whole: u64 = others
            .iter()
            .map(|path| serde_json::from_slice::<Value>(&fs::read(directory.join(path)).unwrap()).unwrap())
            .map(|day| day["runs"].as_u64().unwrap())
            .sum();
        assert_eq!(whole, u64::try_from(slot + 1).unwrap(), "each run is in the sum of its day");
    }
    println!("{RUNS} runs, the longest of them written and put in order in {longest:?}");
}
