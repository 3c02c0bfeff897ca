//! What is committed about inspection is what the program says: the definition in the chart, the schema of a run, when
//! schedules are due, and the tasks that people are given.
//!
//! `UPDATE_GOLDEN=1 cargo test --test inspection` writes the first two anew.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kuration::inspection::schedule::Schedule;
use kuration::inspection::task::crd;

mod inspection {
    mod expressions;
    mod functions;
    mod structure;
    mod written;
}

const CHART: &str = "charts/kuration-server-crd";

fn committed(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART).join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{name} is not what kuration crd prints: UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn the_chart_holds_the_definition_that_the_program_prints() {
    let text = crd::yaml().unwrap();
    committed("templates/inspectiontask-crd.yaml", &text);
    assert!(!text.contains("{{"), "Helm would read a template in it");
    assert!(!text.contains("nullable"), "null is never a value");
}

#[test]
fn the_schema_of_a_run_is_the_one_that_the_program_writes() {
    committed("files/inspection-run.schema.json", &crd::run_schema());
}

/// Those of tests/schedule/main.go.
const ZONES: [&str; 6] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Santiago",
    "Africa/Cairo",
];
const WEEKS: [&str; 9] = [
    "2025-03-07T12:00:00Z",
    "2025-03-28T12:00:00Z",
    "2025-04-03T12:00:00Z",
    "2025-04-23T12:00:00Z",
    "2025-09-05T12:00:00Z",
    "2025-10-03T12:00:00Z",
    "2025-10-24T12:00:00Z",
    "2025-10-30T00:00:00Z",
    "2025-12-30T23:59:30Z",
];
const WEEK: i64 = 6 * 86400;
const MOST: usize = 16;
const STEP: i64 = 9 * 3600 + 17 * 60 + 13;

/// What the Go program says of a schedule, from ours.
fn digest(text: &str, zones: &[TimeZone]) -> String {
    let Ok(schedule) = Schedule::parse(text) else { return "refused".into() };
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |word: &str| {
        for byte in word.bytes().chain([b'\n']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for zone in zones {
        for week in WEEKS {
            let mut at: Timestamp = week.parse().unwrap();
            let end = at.as_second() + WEEK;
            for _ in 0..MOST {
                let Some(due) = schedule.next(at, zone) else {
                    add("never");
                    break;
                };
                add(&due.as_second().to_string());
                if due.as_second() > end {
                    break;
                }
                at = Timestamp::from_second(due.as_second() + STEP).unwrap();
            }
        }
    }
    format!("{hash:016x}")
}

#[test]
fn schedules_mean_what_they_mean_to_kubernetes() {
    let golden = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schedule/golden.txt"));
    let golden = golden.unwrap();
    let zones: Vec<TimeZone> = ZONES.iter().map(|zone| TimeZone::get(zone).unwrap()).collect();
    let lines: Vec<(String, &str)> = golden
        .lines()
        .map(|line| {
            let (quoted, digest) = line.split_once('\t').unwrap();
            (serde_json::from_str(quoted).unwrap(), digest)
        })
        .collect();
    assert_eq!(lines.len(), 10_000);
    let wrong: Vec<&str> = std::thread::scope(|scope| {
        let parts: Vec<_> = lines
            .chunks(2_500)
            .map(|part| {
                let zones = &zones;
                scope.spawn(move || {
                    let differs = |(text, said): &&(String, &str)| digest(text, zones) != *said;
                    part.iter().filter(differs).map(|(text, _)| text.as_str()).collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    let some = &wrong[..wrong.len().min(20)];
    assert!(wrong.is_empty(), "{} of 10,000 differ from robfig/cron, such as {some:#?}", wrong.len());
}
