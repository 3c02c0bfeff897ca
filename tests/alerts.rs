//! The alert rules and the dashboard: every query in them parses, and asks only for metrics that there are.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use kuration::inspection::controller::{Key, Tally};
use kuration::inspection::intent::{Found, status};
use kuration::inspection::task::InspectionTask;
use kuration::telemetry::Metrics;
use promql_parser::parser::{Expr, parse};
use serde_json::{Value, json};

/// The names of all that the controller serves of one task that ran, read from a scrape.
fn served() -> &'static BTreeSet<String> {
    static SERVED: OnceLock<BTreeSet<String>> = OnceLock::new();
    SERVED.get_or_init(|| {
        let now = "2026-09-01T12:05:10Z".parse().unwrap();
        let task: InspectionTask = serde_json::from_value(json!({
            "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": { "name": "check", "namespace": "shop", "uid": "u", "generation": 1 },
            "spec": { "schedule": "*/5 * * * *", "target": "mysql" },
        }))
        .unwrap();
        let said = json!({
            "id": "run", "generation": 1, "trigger": "Schedule", "startTime": "2026-09-01T12:05:01Z",
            "completionTime": "2026-09-01T12:05:02Z", "outcome": "warn", "summary": { "pass": 1, "warn": 1 },
            "persisted": { "ok": false, "reason": "EDQUOT" }, "resultsBytes": 4096,
            "rules": [{ "n": "port", "r": "warn", "s": "high", "ms": 1500 }, { "n": "name", "r": "pass", "s": "low", "ms": 2 }],
        });
        let job = json!({
            "metadata": { "name": "check-29804405" }, "spec": { "template": {} },
            "status": {
                "startTime": "2026-09-01T12:05:00Z", "completionTime": "2026-09-01T12:05:03Z",
                "conditions": [{ "type": "Complete", "status": "True", "lastTransitionTime": "2026-09-01T12:05:03Z" }],
            },
        });
        let pod = json!({
            "metadata": { "name": "check-29804405-x", "labels": { "batch.kubernetes.io/job-name": "check-29804405" } },
            "status": { "containerStatuses": [{
                "name": "inspect", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": 0, "message": said.to_string() } },
            }]},
        });
        let found = Found {
            jobs: vec![serde_json::from_value(job).unwrap()],
            pods: vec![serde_json::from_value(pod).unwrap()],
            ..Found::default()
        };
        let (status, ended) = status(&task, &found, None, now);
        let (metrics, tally) = (Metrics::new(), Tally::default());
        metrics.families(tally.clone());
        tally.count(&task, &status, &ended, now);
        let text = metrics.text().unwrap();
        for line in [
            "kuration_inspection_healthy{namespace=\"shop\",task=\"check\"} 1.0",
            "kuration_inspection_schedule_interval_seconds{namespace=\"shop\",task=\"check\"} 300.0",
            "kuration_inspection_last_run_outcome{namespace=\"shop\",task=\"check\",outcome=\"warn\"} 1.0",
            "kuration_inspection_last_run_timestamp_seconds{namespace=\"shop\",task=\"check\"} 1788264303.0",
            "kuration_inspection_runs_total{namespace=\"shop\",task=\"check\",outcome=\"warn\"} 1",
            "kuration_inspection_missed_runs_total{namespace=\"shop\",task=\"check\",reason=\"Overlap\"} 0",
            "kuration_inspection_results_persist_failures_total{namespace=\"shop\",task=\"check\",reason=\"EDQUOT\"} 1",
            "kuration_inspection_rule_failing{namespace=\"shop\",task=\"check\",rule=\"port\",severity=\"high\"} 0.0",
            "kuration_inspection_rule_duration_seconds{namespace=\"shop\",task=\"check\",rule=\"port\"} 1.5",
            "kuration_inspection_run_duration_seconds_bucket{le=\"1.0\",namespace=\"shop\",task=\"check\"} 1",
            "kuration_inspection_info{namespace=\"shop\",task=\"check\",target=\"mysql\",schedule=\"*/5 * * * *\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        tally.forget(&Key::new("shop", "check"));
        assert!(!metrics.text().unwrap().contains("shop"), "what went is served");
        let names = text.lines().filter(|line| !line.starts_with('#'));
        names.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
    })
}

fn file(name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/kuration-server-controller/files").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The metrics that a query asks for.
fn asked(query: &str) -> BTreeSet<String> {
    let parsed = parse(query).unwrap_or_else(|error| panic!("{query}\n{error}"));
    assert!(!matches!(parsed, Expr::StringLiteral(_)), "{query} asks for nothing");
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("kuration_")).map(str::to_owned).collect()
}

fn known(query: &str) {
    let metrics = asked(query);
    assert!(!metrics.is_empty(), "{query} asks for no metric of ours");
    for metric in metrics {
        assert!(served().contains(&metric), "{query}: there is no metric {metric}");
    }
}

#[test]
fn every_alert_is_a_query_that_parses_and_says_what_to_do() {
    let rules: Value = serde_saphyr::from_str(&file("alerts.yaml")).unwrap();
    let mut names = BTreeSet::new();
    for rule in
        rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        known(rule["expr"].as_str().unwrap());
        names.insert(rule["alert"].as_str().unwrap().to_owned());
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 20), "{rule}");
        }
        assert!(rule["labels"]["severity"].is_string(), "{rule}");
    }
    let wanted = ["Failing", "Inconclusive", "ResultsNotPersisted", "RunsMissed", "Stale"];
    let wanted = wanted.map(|name| format!("KurationInspection{name}"));
    assert_eq!(names.into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn every_panel_of_the_dashboard_asks_what_can_be_answered() {
    let board: Value = serde_json::from_str(&file("dashboard.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id of {panel}");
        for target in panel["targets"].as_array().unwrap() {
            // What Grafana fills in.
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            known(&query);
        }
    }
}

#[test]
#[should_panic(expected = "kuration_inspection_healthy ==")]
fn a_query_that_is_cut_off_is_found() {
    known("kuration_inspection_healthy ==");
}
