//! The Report of a task's last run, which policy dashboards read (`openreports.io/v1alpha1`): what should be there, and what is
//! said of it.
//!
//! The controller sees no `run.json`. It tells what the run's pods said last, and where that is not at hand any more, what the
//! status still has of it.

use jiff::Timestamp;
use serde_json::Value;

use super::super::report::open_report;
use super::super::run::{Outcome, Persisted, TaskName, Termination, TerminationRule};
use super::super::task::{InspectionTask, InspectionTaskStatus, LastRun, Severity};
use super::Ended;
use super::objects::{labels, owner};
use super::verdict::condition;

/// The condition.
const REPORTED: &str = "Reported";

/// So many characters of an API server's words are said: a status stays small.
const MOST_SAID: usize = 300;

/// What should become of a task's Report.
#[derive(Debug, PartialEq)]
pub enum Wanted {
    /// Nothing: none is asked for, and none was.
    Nothing,
    /// None is asked for any more.
    Gone,
    /// No run has ended yet.
    Later,
    /// It tells of the last run already.
    Kept,
    /// This one.
    Written(Box<Value>),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// It is gone, or was never ours.
    Gone,
    /// There is nothing to tell yet.
    Later,
    /// It tells of the last run.
    Written,
    /// The cluster has no such kind.
    NotServed,
    /// Somebody else's has its name.
    Foreign,
    /// It could not be written or deleted: why.
    Trouble(String),
}

/// What should become of the Report of `task`, of which `status` is about to be said; `ended` are the runs that are new in it.
pub fn wanted(task: &InspectionTask, status: &InspectionTaskStatus, ended: &[Ended]) -> Wanted {
    let asked = task.spec.results.as_ref().is_some_and(|results| results.open_reports);
    let before = status.conditions.iter().any(|condition| condition.type_ == REPORTED);
    match &status.last_run {
        _ if !asked => {
            if before {
                Wanted::Gone
            } else {
                Wanted::Nothing
            }
        }
        None => Wanted::Later,
        Some(last) if status.open_report.as_ref() == Some(&last.id) => Wanted::Kept,
        Some(last) => Wanted::Written(Box::new(report(task, status, last, ended))),
    }
}

/// The Report of the run `last`.
fn report(task: &InspectionTask, status: &InspectionTaskStatus, last: &LastRun, ended: &[Ended]) -> Value {
    let meta = &task.metadata;
    let name = TaskName {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
    };
    let of_run = ended.iter().rev().find(|ended| ended.run.id == last.id);
    let said = of_run.and_then(|ended| ended.said.clone()).unwrap_or_else(|| remembered(status, last));
    let mut run = said.recalled(&name, &task.spec.target);
    for result in &mut run.rules {
        let rules = task.spec.rules.as_deref().unwrap_or_default();
        let rule = rules.iter().find(|rule| rule.name == result.name);
        let kind = rule.and_then(|rule| rule.kind()).map(|kind| kind.name());
        result.kind = kind.unwrap_or(if rules.is_empty() { "target" } else { "inspection" }).to_owned();
        result.category = rule.and_then(|rule| rule.category.clone());
        result.remedy = rule.and_then(|rule| rule.remedy.clone());
    }
    let mut report = open_report(&run);
    report["metadata"]["labels"] = labels(task);
    report["metadata"]["ownerReferences"] = owner(task);
    report
}

/// What a run's pods said, as far as the status has it.
fn remembered(status: &InspectionTaskStatus, last: &LastRun) -> Termination {
    let rule = |rule: &super::super::task::FailingRule| TerminationRule {
        name: rule.name.clone(),
        result: rule.result,
        severity: rule.severity,
        millis: 0,
        reason: rule.reason.clone(),
        message: rule.message.clone(),
    };
    let mut rules: Vec<TerminationRule> = status.failing_rules.iter().map(rule).collect();
    let mut summary = last.summary;
    // A run of which nothing was heard did not pass.
    if rules.is_empty() && !last.outcome.well() {
        let reason = last.reason.clone().unwrap_or_default();
        if summary.findings() == 0 {
            summary.count(Outcome::Error);
        }
        rules.push(TerminationRule {
            name: "run".to_owned(),
            result: Outcome::Error,
            severity: Severity::High,
            millis: 0,
            message: Some(format!("the run could not tell: {reason}")),
            reason: Some(reason),
        });
    }
    Termination {
        id: last.id.clone(),
        generation: status.observed_generation.unwrap_or_default(),
        trigger: last.trigger,
        scheduled_time: None,
        start_time: last.start_time.unwrap_or(last.completion_time),
        completion_time: last.completion_time,
        outcome: last.outcome,
        summary,
        path: None,
        sha256: None,
        persisted: Persisted { ok: last.persisted, reason: None, message: None },
        shards: None,
        results_bytes: None,
        backfilled: Vec::new(),
        rules,
        truncated: true,
    }
}

/// Says what became of it.
pub fn reported(task: &InspectionTask, new: &mut InspectionTaskStatus, became: Reported, now: Timestamp) {
    let name = task.metadata.name.as_deref().unwrap_or_default();
    let run = new.last_run.as_ref().map(|run| run.id.clone());
    let (value, reason, message) = match became {
        Reported::Gone => {
            new.open_report = None;
            return new.conditions.retain(|condition| condition.type_ != REPORTED);
        }
        Reported::Later => (None, "NoRunYet", "no run has ended yet".to_owned()),
        Reported::Written => {
            let message = format!("Report {name} tells of run {}", run.as_deref().unwrap_or_default());
            new.open_report = run;
            (Some(true), "Written", message)
        }
        Reported::NotServed => (
            Some(false),
            "NotServed",
            "spec.results.openReports: the cluster has no Report of openreports.io/v1alpha1".to_owned(),
        ),
        Reported::Foreign => (
            Some(false),
            "NameConflict",
            format!("metadata.name: a Report {name} is there that is not this task's; rename one of them"),
        ),
        Reported::Trouble(why) => {
            let why: String = why.chars().take(MOST_SAID).collect();
            (Some(false), "NotWritten", format!("Report {name}: {why}"))
        }
    };
    condition(&mut new.conditions, task.metadata.generation, now, REPORTED, value, reason, message);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(results: Value, rules: Value) -> InspectionTask {
        serde_json::from_value(json!({
            "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": { "name": "check", "namespace": "shop", "uid": "u", "generation": 1 },
            "spec": { "schedule": "@hourly", "target": "web", "results": results, "rules": rules },
        }))
        .unwrap()
    }

    fn asking() -> InspectionTask {
        task(
            json!({ "openReports": true }),
            json!([{ "name": "page", "category": "shop", "remedy": "start it", "http": { "url": "http://web/" } }]),
        )
    }

    fn last(outcome: &str, reason: Option<&str>) -> LastRun {
        serde_json::from_value(json!({
            "id": "20260901T120500Z-29804405", "job": "check-29804405", "trigger": "Schedule",
            "startTime": "2026-09-01T12:05:01Z", "completionTime": "2026-09-01T12:05:02Z", "outcome": outcome,
            "reason": reason, "summary": {}, "findings": 1, "persisted": true,
        }))
        .unwrap()
    }

    fn said(rules: usize) -> Termination {
        let rule = |at: usize| json!({ "n": if at == 0 { "page".into() } else { format!("r{at}") }, "r": "fail", "s": "high", "ms": 1, "why": "HttpStatus", "m": "503" });
        let mut all: Vec<Value> = (0..rules).map(rule).collect();
        all.push(json!({ "n": "well", "r": "pass", "s": "low", "ms": 1 }));
        serde_json::from_value(json!({
            "id": "20260901T120500Z-29804405", "generation": 1, "trigger": "Schedule",
            "startTime": "2026-09-01T12:05:01Z", "completionTime": "2026-09-01T12:05:02Z", "outcome": "fail",
            "summary": { "fail": rules, "pass": 1 }, "persisted": { "ok": true }, "rules": all,
        }))
        .unwrap()
    }

    fn written(task: &InspectionTask, status: &InspectionTaskStatus, ended: &[Ended]) -> Value {
        match wanted(task, status, ended) {
            Wanted::Written(report) => *report,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn the_report_tells_what_the_runs_pods_said_last_in_the_words_of_its_task() {
        let status = InspectionTaskStatus { last_run: Some(last("fail", None)), ..Default::default() };
        let ended = Ended { run: last("fail", None), said: Some(said(1)), degraded: false };
        let report = written(&asking(), &status, &[ended]);
        assert_eq!(
            (&report["apiVersion"], &report["kind"], &report["source"]),
            (&json!("openreports.io/v1alpha1"), &json!("Report"), &json!("kuration"))
        );
        assert_eq!(
            (&report["metadata"]["name"], &report["metadata"]["namespace"]),
            (&json!("check"), &json!("shop"))
        );
        assert_eq!(report["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(report["metadata"]["labels"]["app.kubernetes.io/managed-by"], "kuration-inspector");
        assert_eq!(report["summary"], json!({ "pass": 1, "fail": 1, "warn": 0, "error": 0, "skip": 0 }));
        let [result] = report["results"].as_array().unwrap().as_slice() else { unreachable!("{report}") };
        for (field, word) in [
            ("policy", "check"),
            ("rule", "page"),
            ("category", "shop"),
            ("severity", "high"),
            ("result", "fail"),
            ("message", "503"),
        ] {
            assert_eq!(result[field], word, "{report}");
        }
        assert_eq!(result["properties"]["remedy"], "start it");
    }

    #[test]
    fn a_report_has_no_more_than_two_hundred_results_and_all_of_them_counted() {
        let status = InspectionTaskStatus { last_run: Some(last("fail", None)), ..Default::default() };
        let ended = Ended { run: last("fail", None), said: Some(said(1000)), degraded: false };
        let report = written(&asking(), &status, &[ended]);
        assert_eq!(
            (report["results"].as_array().unwrap().len(), &report["summary"]["fail"]),
            (200, &json!(1000))
        );
    }

    #[test]
    fn of_a_run_that_ended_before_the_status_tells_and_of_one_that_said_nothing_that_it_did_not() {
        let failing = json!({ "name": "page", "severity": "low", "result": "fail", "reason": "HttpStatus" });
        let status = InspectionTaskStatus {
            last_run: Some(last("fail", None)),
            failing_rules: vec![serde_json::from_value(failing).unwrap()],
            ..Default::default()
        };
        let report = written(&asking(), &status, &[]);
        assert_eq!(
            (&report["results"][0]["rule"], &report["results"][0]["severity"]),
            (&json!("page"), &json!("low"))
        );
        let status =
            InspectionTaskStatus { last_run: Some(last("error", Some("OOMKilled"))), ..Default::default() };
        let report = written(&asking(), &status, &[]);
        assert_eq!(
            (&report["summary"]["error"], &report["results"][0]["result"]),
            (&json!(1), &json!("error"))
        );
        assert_eq!(report["results"][0]["message"], "the run could not tell: OOMKilled");
    }

    #[test]
    fn it_is_written_once_for_a_run_and_goes_when_it_is_not_asked_for_any_more() {
        let now = Timestamp::UNIX_EPOCH;
        let (asks, silent) = (asking(), task(json!({}), json!(null)));
        let mut status = InspectionTaskStatus::default();
        assert_eq!(wanted(&silent, &status, &[]), Wanted::Nothing);
        assert_eq!(wanted(&asks, &status, &[]), Wanted::Later);
        status.last_run = Some(last("pass", None));
        assert!(matches!(wanted(&asks, &status, &[]), Wanted::Written(_)));
        reported(&asks, &mut status, Reported::NotServed, now);
        assert!(matches!(wanted(&asks, &status, &[]), Wanted::Written(_)));
        reported(&asks, &mut status, Reported::Written, now);
        assert_eq!(wanted(&asks, &status, &[]), Wanted::Kept);
        assert_eq!(status.conditions[0].message, "Report check tells of run 20260901T120500Z-29804405");
        assert_eq!(wanted(&silent, &status, &[]), Wanted::Gone);
        reported(&silent, &mut status, Reported::Gone, now);
        assert_eq!((wanted(&silent, &status, &[]), status.conditions.len()), (Wanted::Nothing, 0));
    }
}
