//! A results volume with a history in it: always the same one.

#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use kuration::inspection::run::{
    Counts, DAILY_SCHEMA, Daily, Detail, Fingerprint, INDEX_SCHEMA, Index, IndexEntry, Inspector,
    LATEST_SCHEMA, Latest, Outcome, RUN_SCHEMA, RuleDay, RuleResult, Run, Scalar, Subject, TaskName, Trigger,
};
use kuration::inspection::task::Severity;
use sha2::{Digest, Sha256};

/// When the last run of a history began.
pub fn end() -> Timestamp {
    "2026-11-21T06:05:00Z".parse().unwrap()
}

pub fn task(name: &str) -> TaskName {
    TaskName {
        namespace: "shop".into(),
        name: name.into(),
        uid: "5f0c2a7e-1111-4222-8333-944455556666".into(),
        generation: 4,
    }
}

pub fn rule(name: &str, kind: &str, severity: Severity, start: Timestamp) -> RuleResult {
    RuleResult {
        name: name.into(),
        kind: kind.into(),
        severity,
        category: None,
        result: Outcome::Pass,
        reason: "Passed".into(),
        message: "passed".into(),
        remedy: None,
        start_time: start,
        duration_millis: 40,
        attempts: 1,
        flaky: false,
        observed: BTreeMap::new(),
        subjects: Vec::new(),
        truncated: false,
        node: None,
        fingerprint: None,
    }
}

pub fn subject(kind: &str, name: &str, message: &str) -> Subject {
    Subject {
        api_version: "v1".into(),
        kind: kind.into(),
        namespace: Some("shop".into()),
        name: name.into(),
        message: Some(message.into()),
        fingerprint: None,
    }
}

/// A run of `rules`: its verdict, counts and fingerprints follow from them.
pub fn run(task: TaskName, start: Timestamp, mut rules: Vec<RuleResult>) -> Run {
    for rule in &mut rules {
        rule.fingerprint = Fingerprint::of(&rule.name, rule.result, None, None);
        for subject in &mut rule.subjects {
            subject.fingerprint = Fingerprint::of(&rule.name, rule.result, None, Some(subject));
        }
    }
    let took =
        rules.iter().map(|rule| rule.start_time + SignedDuration::from_millis(rule.duration_millis as i64));
    let minutes = start.as_second() / 60;
    Run {
        schema: RUN_SCHEMA.into(),
        id: format!("{}-{minutes}", start.strftime("%Y%m%dT%H%M%SZ")),
        trigger: Trigger::Schedule,
        scheduled_time: Some(start),
        start_time: start,
        completion_time: took.max().unwrap_or(start) + SignedDuration::from_millis(9),
        inspector: Inspector {
            version: "0.1.0".into(),
            node: "worker-2".into(),
            pod: format!("{}-{minutes}-x7k2p", task.name),
        },
        target: "mysql-service".into(),
        outcome: Outcome::of(rules.iter().map(|rule| rule.result)),
        summary: rules.iter().map(|rule| rule.result).collect(),
        detail: Detail::Full,
        rules,
        shards: None,
        task,
    }
}

/// Numbers that look like chance and are always the same.
struct Chance(u64);

impl Chance {
    /// From 0 to 999.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % 1_000
    }
}

fn fail(rule: &mut RuleResult, reason: &str, message: &str) {
    rule.result = Outcome::Fail;
    rule.reason = reason.into();
    rule.message = message.into();
}

/// A database that has a bad month: `minutes` between two runs, over thirty days.
pub fn database(minutes: i64) -> Vec<Run> {
    let mut chance = Chance(88_172_645_463_325_252);
    let count = 30 * 24 * 60 / minutes;
    let mut runs = Vec::new();
    for at in 0..count {
        let back = count - 1 - at;
        let start = end() - SignedDuration::from_mins(back * minutes);
        let day = 30 - back * minutes / 1440;
        if day == 9 && chance.next() < 200 {
            continue;
        }
        let mut rules = vec![
            rule("endpoints", "resource", Severity::Critical, start),
            rule("protocol", "mysql", Severity::Critical, start),
            rule("connections", "mysql", Severity::Critical, start),
            rule("replica-lag", "mysql", Severity::High, start),
            rule("certificate", "tls", Severity::Medium, start),
            rule("backup-job", "resource", Severity::High, start),
            rule("slow-queries", "promql", Severity::Low, start),
        ];
        for (place, rule) in rules.iter_mut().enumerate() {
            let usual = [41, 18, 120, 95, 57, 33, 64][place];
            let slow = if chance.next() > 940 { 150 } else { 0 };
            let grown = if place == 2 { day as u64 * 4 } else { 0 };
            rule.duration_millis = usual + chance.next() % (usual / 3) + slow + grown;
            let offset = [3, 46, 70, 70, 71, 5, 5][place];
            rule.start_time = start + SignedDuration::from_millis(offset);
        }
        if back * minutes <= 60 || (day == 18 && back % 24 < 5) {
            fail(&mut rules[2], "AssertionFailed", "over 90 % of max_connections in use");
            rules[2].observed.insert("threadsConnected".into(), Scalar::Integer(143));
            rules[2].observed.insert("maxConnections".into(), Scalar::Integer(151));
            rules[2].attempts = 2;
            rules[2].remedy = Some(
                "Find who holds the connections (SHOW PROCESSLIST) and restart the leaking client; raise max_connections only after that."
                    .into(),
            );
            rules[6].result = Outcome::Skip;
            rules[6].reason = "DependencyFailed".into();
            rules[6].message = "connections did not pass".into();
        }
        if back * minutes <= 17 * 60 || chance.next() < 2 {
            fail(
                &mut rules[3],
                "AssertionFailed",
                "The replica is 94 s behind its source; 30 s are allowed.",
            );
            rules[3].subjects.push(subject("Pod", "mysql-1", "94 s behind"));
            if back == 0 {
                rules[3].subjects.push(subject("Pod", "mysql-2", "61 s behind"));
            }
            if back == 1 {
                rules[3].subjects.push(subject("Pod", "mysql-3", "35 s behind"));
            }
        }
        if day >= 23 {
            rules[4].result = Outcome::Warn;
            rules[4].reason = "Expiring".into();
            rules[4].message = format!("The certificate expires in {} days, on 2026-12-20.", 59 - day);
        }
        if back * minutes <= 150 || day == 9 {
            rules[5].result = Outcome::Error;
            rules[5].reason = "Forbidden".into();
            rules[5].message = "The account shop/kuration-inspector may not list jobs.batch in shop.".into();
        }
        runs.push(run(task("check-database"), start, rules));
    }
    runs
}

fn percentile(taken: &[u64], percent: usize) -> u64 {
    taken[(taken.len() * percent).div_ceil(100).max(1) - 1]
}

/// The roll-ups of `runs`.
pub fn daily(runs: &[Run]) -> Vec<Daily> {
    let mut days: BTreeMap<String, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        days.entry(run.start_time.strftime("%Y-%m-%d").to_string()).or_default().push(run);
    }
    let day = |(date, runs): (String, Vec<&Run>)| {
        let mut rules: BTreeMap<String, (Counts, Vec<u64>)> = BTreeMap::new();
        for rule in runs.iter().flat_map(|run| &run.rules) {
            let (counts, taken) = rules.entry(rule.name.clone()).or_default();
            counts.count(rule.result);
            taken.push(rule.duration_millis);
        }
        let rules = rules.into_iter().map(|(name, (counts, mut taken))| {
            taken.sort_unstable();
            (name, RuleDay { counts, p50: percentile(&taken, 50), p95: percentile(&taken, 95) })
        });
        Daily {
            schema: DAILY_SCHEMA.into(),
            date: date.parse().unwrap(),
            runs: runs.len() as u32,
            outcomes: runs.iter().map(|run| run.outcome).collect(),
            rules: rules.collect(),
        }
    };
    days.into_iter().map(day).collect()
}

fn json(path: &Path, document: &impl serde::Serialize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_vec(document).unwrap()).unwrap();
}

/// Writes `runs`, the oldest first, as a task's directory beneath `volume`; which it is.
pub fn store(volume: &Path, runs: &[Run]) -> PathBuf {
    let last = runs.last().unwrap();
    let home = volume.join(last.task.directory());
    let entries = runs.iter().rev().map(|run| IndexEntry::of(run, 6_000, "0".repeat(64)));
    let index = Index { schema: INDEX_SCHEMA.into(), task: last.task.clone(), runs: entries.collect() };
    json(&home.join("index.json"), &index);
    let latest = Latest {
        schema: LATEST_SCHEMA.into(),
        id: last.id.clone(),
        path: last.path(),
        outcome: last.outcome,
        completion_time: last.completion_time,
        sha256: "0".repeat(64),
    };
    json(&home.join("latest.json"), &latest);
    let spec = serde_json::json!({"spec": {"schedule": "*/5 * * * *", "timeZone": "Asia/Shanghai", "target": "mysql-service"}});
    json(&home.join("task.json"), &spec);
    for day in daily(runs) {
        json(&home.join(format!("daily/{}.json", day.date)), &day);
    }
    for run in runs {
        let place = home.join(run.path());
        json(&place.join("run.json"), run);
        let digest = Sha256::digest(fs::read(place.join("run.json")).unwrap());
        fs::write(place.join("SHA256SUMS"), format!("{digest:x}  run.json\n")).unwrap();
    }
    home
}
