//! What is said of a task.

use serde_json::json;

use super::*;
use crate::inspection::run::Termination;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn task(spec: serde_json::Value, status: serde_json::Value) -> InspectionTask {
    serde_json::from_value(json!({
        "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
        "metadata": { "name": "check", "namespace": "shop", "uid": "u", "generation": 1 },
        "spec": spec, "status": status,
    }))
    .unwrap()
}

fn job(name: &str, end: &str, condition: &str, reason: &str) -> Job {
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "template": {} },
        "status": {
            "startTime": end, "completionTime": end,
            "conditions": [{
                "type": condition, "status": "True", "reason": reason, "lastTransitionTime": end,
            }],
        },
    }))
    .unwrap()
}

fn pod(job: &str, outcome: &str) -> Pod {
    let message = json!({
        "id": job, "generation": 1, "trigger": "Schedule", "startTime": "2026-09-01T12:05:01Z",
        "completionTime": "2026-09-01T12:05:02Z", "outcome": outcome, "summary": { outcome: 1 },
        "persisted": { "ok": true },
        "rules": [{ "n": "a", "r": outcome, "s": "high", "ms": 1, "m": "words" }],
    });
    serde_json::from_value(json!({
        "metadata": { "name": job, "labels": { "batch.kubernetes.io/job-name": job } },
        "status": { "containerStatuses": [{
            "name": "inspect", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 0, "message": message.to_string() } },
        }]},
    }))
    .unwrap()
}

fn every_minute() -> serde_json::Value {
    json!({ "schedule": "* * * * *", "target": "a" })
}

fn of<'a>(status: &'a InspectionTaskStatus, name: &str) -> (&'a str, &'a str) {
    let found = status.conditions.iter().find(|condition| condition.type_ == name).unwrap();
    (&found.status, &found.reason)
}

#[test]
fn a_run_that_could_not_tell_is_neither_a_pass_nor_a_fail() {
    let task = task(every_minute(), json!(null));
    let end = "2026-09-01T12:05:30Z";
    let found =
        Found { jobs: vec![job("check-29804405", end, "Failed", "DeadlineExceeded")], ..Default::default() };
    let (status, ended) = status(&task, &found, None, at(end));
    assert_eq!(ended.len(), 1);
    assert_eq!(of(&status, "Healthy"), ("Unknown", "Inconclusive"));
    assert_eq!(status.last_run.unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!((status.consecutive_failures, status.consecutive_successes), (0, 0));
}

#[test]
fn a_run_is_counted_once_however_often_it_is_looked_at() {
    let mut task = task(every_minute(), json!(null));
    let end = "2026-09-01T12:05:30Z";
    let found = Found {
        jobs: vec![job("check-29804405", end, "Complete", "")],
        pods: vec![pod("check-29804405", "fail")],
        ..Default::default()
    };
    for _ in 0..3 {
        task.status = Some(status(&task, &found, None, at(end)).0);
    }
    let status = task.status.unwrap();
    assert_eq!((status.consecutive_failures, status.recent_runs.len()), (1, 1));
    assert_eq!(of(&status, "Healthy"), ("False", "Failed"));
    assert_eq!(status.failing_rules[0].name, "a");
}

#[test]
fn runs_that_were_due_and_never_started_are_counted() {
    let mut task = task(every_minute(), json!(null));
    let found = Found {
        jobs: vec![job("check-29804406", "2026-09-01T12:06:05Z", "Complete", "")],
        ..Default::default()
    };
    // Seen for the first time: what was due before is not judged.
    task.status = Some(status(&task, &found, None, at("2026-09-01T12:04:30Z")).0);
    assert_eq!(task.status.as_ref().unwrap().missed_runs, 0);
    // 12:05 never started, 12:06 did, 12:07 and 12:08 did not; 12:09 may still start.
    task.status = Some(status(&task, &found, None, at("2026-09-01T12:13:20Z")).0);
    assert_eq!(task.status.as_ref().unwrap().missed_runs, 3);
    task.status = Some(status(&task, &found, None, at("2026-09-01T12:13:20Z")).0);
    assert_eq!(task.status.as_ref().unwrap().missed_runs, 3);
}

#[test]
fn two_jobs_of_one_moment_are_one_run() {
    let mut task = task(every_minute(), json!(null));
    let (first, end) = ("2026-09-01T12:05:30Z", "2026-09-01T12:06:00Z");
    // Both have the id of their moment.
    let mut said = pod("20260901T120500Z-29804405", "pass");
    said.metadata.labels = Some([("batch.kubernetes.io/job-name".into(), "check-29804405-d".into())].into());
    let mut found = Found {
        jobs: vec![
            job("check-29804405", first, "Failed", "DeadlineExceeded"),
            job("check-29804405-d", end, "Complete", ""),
        ],
        pods: vec![said],
        ..Default::default()
    };
    let (status_now, ended) = status(&task, &found, None, at(end));
    let jobs: Vec<&str> = ended.iter().map(|run| run.run.job.as_str()).collect();
    assert_eq!((jobs, status_now.consecutive_successes), (vec!["check-29804405-d"], 1));
    // The other one is told later.
    task.status = Some(status_now);
    found.jobs.truncate(1);
    assert!(status(&task, &found, None, at(end)).1.is_empty());
}

#[test]
fn why_runs_are_missed_is_said_and_three_in_a_row_are_a_condition() {
    let mut task = task(every_minute(), json!(null));
    let mut long = job("check-29804404", "2026-09-01T12:04:00Z", "Complete", "");
    long.status.as_mut().unwrap().conditions = None;
    let mut found = Found { jobs: vec![long], ..Default::default() };
    task.status = Some(status(&task, &found, None, at("2026-09-01T12:04:30Z")).0);
    let new = status(&task, &found, None, at("2026-09-01T12:11:20Z")).0;
    assert_eq!(new.missed_by_reason, [("Overlap".to_owned(), 2)].into());
    assert_eq!(of(&new, "OnSchedule"), ("True", "RunsStart"));
    task.status = Some(new);
    found.jobs.clear();
    let why = NotReady { reason: "CronJobRefused", message: "no".into() };
    task.status = Some(status(&task, &found, Some(&why), at("2026-09-01T12:12:20Z")).0);
    let new = status(&task, &found, None, at("2026-09-01T12:13:20Z")).0;
    let counts = ["Overlap", "NotReady", "NotStarted"].map(|reason| new.missed_by_reason[reason]);
    assert_eq!((counts, new.missed_runs), ([2, 1, 1], 4));
    assert_eq!(of(&new, "OnSchedule"), ("False", "RunsMissed"));
    task.status = Some(new);
    found.jobs = vec![job("check-29804409", "2026-09-01T12:09:01Z", "Complete", "")];
    let new = status(&task, &found, None, at("2026-09-01T12:14:20Z")).0;
    assert_eq!(of(&new, "OnSchedule"), ("True", "RunsStart"));
}

#[test]
fn health_turns_only_when_its_threshold_is_reached() {
    let mut spec = every_minute();
    spec["thresholds"] = json!({ "failureThreshold": 2 });
    let mut task = task(spec, json!(null));
    let mut found = Found::default();
    for (minute, wanted) in [(5, ("Unknown", "NoRunYet")), (6, ("False", "Failed"))] {
        let name = format!("check-2980440{minute}");
        let end = format!("2026-09-01T12:0{minute}:30Z");
        found.jobs.push(job(&name, &end, "Complete", ""));
        found.pods.push(pod(&name, "fail"));
        task.status = Some(status(&task, &found, None, at(&end)).0);
        assert_eq!(of(task.status.as_ref().unwrap(), "Healthy"), wanted);
    }
}

#[test]
fn a_node_that_was_looked_at_twice_stands_for_no_other() {
    let task = task(every_minute(), json!(null));
    let (name, end) = ("check-29804405", "2026-09-01T12:05:30Z");
    let mut job = job(name, end, "Complete", "");
    let spec = job.spec.as_mut().unwrap();
    spec.completions = Some(2);
    spec.template = serde_json::from_value(json!({ "spec": { "containers": [{
        "name": "inspect", "env": [{ "name": "KURATION_NODES", "value": "a,b" }],
    }]}}))
    .unwrap();
    let on = |pod_name: &str| {
        let mut pod = pod(name, "pass");
        pod.metadata.name = Some(pod_name.to_owned());
        pod.spec = serde_json::from_value(json!({ "nodeName": "a", "containers": [] })).unwrap();
        pod
    };
    let found = Found { jobs: vec![job], pods: vec![on("one"), on("two")], ..Default::default() };
    let (status, _) = status(&task, &found, None, at(end));
    let run = status.last_run.unwrap();
    assert_eq!((run.outcome, run.reason.as_deref()), (Outcome::Error, Some("NodeNotInspected")));
    assert_eq!((run.summary.pass, run.summary.error), (1, 1));
    assert_eq!(status.failing_rules[0].message.as_deref(), Some("nothing was heard from b"));
}

/// A pod's last word with this many rules, whose names are as long as they may be and whose messages have so many letters.
fn word(rules: usize, letters: usize) -> Termination {
    let long = |of: &str| of.chars().cycle().take(63).collect::<String>();
    let rule = |number: usize| {
        let name = format!("{}{number:02}", &long("rule")[..61]);
        let result = ["fail", "error", "warn"][number % 3];
        json!({ "n": name, "r": result, "s": "critical", "ms": 30_000, "why": "NodeNotInspected", "m": "\u{7ed3}".repeat(letters) })
    };
    let word = json!({
        "id": "20260901T120500Z-29804405", "generation": 1, "trigger": "Schedule", "outcome": "fail", "summary": { "fail": rules },
        "startTime": "2026-09-01T12:05:01Z", "completionTime": "2026-09-01T12:05:02Z", "path": long("path").repeat(4),
        "sha256": long("0"), "persisted": { "ok": false, "reason": "WriteFailed", "message": "\u{7ed3}".repeat(letters) },
        "rules": (0..rules).map(rule).collect::<Vec<_>>(),
    });
    // As the runner cuts it to what a pod may say.
    serde_json::from_str(&serde_json::from_value::<Termination>(word).unwrap().fitted()).unwrap()
}

#[test]
fn a_status_stays_below_8_kib_whatever_runs_find_and_however_many_there_are() {
    let words = [word(64, 1200), word(20, 25), word(10, 80), word(1, 1200), word(0, 0), word(30, 3)];
    let spec = json!({ "schedule": "*/5 * * * *", "target": format!("service/{}", "t".repeat(63)) });
    let mut task = task(spec, json!(null));
    let check = "c".repeat(52);
    task.metadata.name = Some(check.clone());
    let first = at("2026-09-01T12:05:00Z");
    let mut sizes = Vec::new();
    for (slot, word) in (0..8640_i64).zip(words.iter().cycle()) {
        let moment = first + jiff::SignedDuration::from_mins(5 * slot);
        let end = moment + jiff::SignedDuration::from_secs(9);
        let minute = moment.as_second() / 60;
        let name = format!("{check}-{minute}");
        let mut word = word.clone();
        word.id = format!("{}-{minute}", moment.strftime("%Y%m%dT%H%M%SZ"));
        (word.start_time, word.completion_time) = (moment, end);
        let text = serde_json::to_string(&word).unwrap();
        assert!(text.len() <= 4096, "{}", text.len());
        let mut pod = pod(&name, "fail");
        let said = pod.status.as_mut().and_then(|status| status.container_statuses.as_mut()).unwrap();
        said[0].state.as_mut().and_then(|state| state.terminated.as_mut()).unwrap().message = Some(text);
        let jobs = vec![job(&name, &end.to_string(), "Complete", "")];
        let (status, ended) =
            status(&task, &Found { jobs, pods: vec![pod], ..Default::default() }, None, end);
        assert_eq!(ended.len(), 1, "{name}");
        let size = json!(status).to_string().len();
        assert!(size < 8 << 10, "{size} bytes after run {slot}: {status:?}");
        sizes.push(size);
        task.status = Some(status);
    }
    // As long after a month as after two hours, give or take a digit.
    let of = |sizes: &[usize]| sizes.iter().max().copied().unwrap();
    let (early, late) = (of(&sizes[12..24]), of(&sizes[8628..]));
    assert!(early.abs_diff(late) < 32, "{early} bytes at first, {late} at last");
    assert_eq!(task.status.unwrap().recent_runs.len(), MOST_RECENT);
}
