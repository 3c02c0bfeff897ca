//! The alert rules and the dashboard: every query in them parses, and asks only for metrics that there are.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::Path;

use promql_parser::parser::{Expr, parse};
use serde_json::Value;

/// The metrics that the controller serves, as docs and alerts name them.
const METRICS: [&str; 14] = [
    "kuration_inspection_healthy",
    "kuration_inspection_info",
    "kuration_inspection_last_run_outcome",
    "kuration_inspection_last_run_timestamp_seconds",
    "kuration_inspection_last_success_timestamp_seconds",
    "kuration_inspection_missed_runs_total",
    "kuration_inspection_results_persist_failures_total",
    "kuration_inspection_results_volume_used_bytes",
    "kuration_inspection_rule_duration_seconds",
    "kuration_inspection_rule_failing",
    "kuration_inspection_rule_inconclusive",
    "kuration_inspection_run_duration_seconds_bucket",
    "kuration_inspection_runs_total",
    "kuration_inspection_schedule_interval_seconds",
];

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
        assert!(METRICS.contains(&metric.as_str()), "{query}: there is no metric {metric}");
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
