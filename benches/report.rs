//! How fast reports and rules are: `cargo bench --bench report`. 8,640 runs are thirty days of one each five minutes.

// clippy lets tests unwrap, but not what benches call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/report/fixture.rs"]
mod fixture;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kuration::inspection::report::serve::{Wanted, overview};
use kuration::inspection::report::{Language, Shelf, html};
use kuration::inspection::rules::{Place, Sight, Verdict, judge};
use kuration::inspection::run::Outcome;
use kuration::inspection::task::{Rule, Target};
use serde_json::{Value, json};

/// The middle of `count` times, in milliseconds.
fn middle(count: usize, mut work: impl FnMut()) -> f64 {
    let mut taken: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    taken.sort();
    taken[count / 2].as_secs_f64() * 1_000.0
}

/// A list of pods as an API server sends it.
fn pods(count: usize) -> String {
    let pod = |at: usize| {
        json!({
            "metadata": {
                "name": format!("web-{at}"), "namespace": "shop", "uid": format!("5f0c2a7e-1111-4222-8333-{at:012}"),
                "labels": { "app": "web", "tier": "front", "pod-template-hash": "5d4f8c7b9" },
                "ownerReferences": [{ "kind": "ReplicaSet", "name": "web-5d4f8c7b9", "uid": "x", "apiVersion": "apps/v1" }],
            },
            "spec": {
                "nodeName": format!("node-{}", at % 100), "serviceAccountName": "default", "restartPolicy": "Always",
                "containers": [{
                    "name": "web", "image": "registry.example/shop/web:1.4.2",
                    "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
                    "ports": [{ "containerPort": 8080 }], "env": [{ "name": "A", "value": "b" }],
                }],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "startTime": "2026-11-21T06:05:00Z",
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T06:05:00Z" }],
                "containerStatuses": [{ "name": "web", "ready": true, "restartCount": 0, "image": "x", "imageID": "y" }],
            },
        })
    };
    json!({ "items": (0..count).map(pod).collect::<Vec<_>>() }).to_string()
}

/// A rule over those: read, converted, and evaluated.
fn rule(text: &str, expression: &str) -> f64 {
    let rule: Rule = serde_json::from_value(json!({
        "name": "all", "resource": { "apiVersion": "v1", "kind": "Pod" }, "assert": [{ "expr": expression }],
    }))
    .unwrap();
    let place = Place::new("shop", Target::parse("pod/*").unwrap(), Timestamp::now());
    middle(5, || {
        let mut list: Value = serde_json::from_str(text).unwrap();
        let Value::Array(items) = list["items"].take() else { panic!("no items") };
        let sight = Sight { items, foreign: true, ..Sight::of_items(Vec::new(), Verdict::Unasserted) };
        assert_eq!(judge(&rule, Ok(sight), &place, None).outcome, Outcome::Pass);
    })
}

fn main() {
    let text = pods(10_000);
    println!("10,000 objects ({} MB of JSON) through one CEL rule:", text.len() / 1_000_000);
    for expression in [
        "object.status.phase == 'Running' && object.status.containerStatuses.all(c, c.ready && c.restartCount < 5)",
        "items.all(p, p.status.phase == 'Running' && p.status.containerStatuses.all(c, c.ready && c.restartCount < 5))",
    ] {
        println!("  {expression}: {:.0} ms", rule(&text, expression));
    }
    let volume = tempfile::tempdir().unwrap();
    let runs = fixture::database(5);
    let home = fixture::store(volume.path(), &runs);
    let mut bytes = 0;
    let report = middle(15, || {
        let shelf = Shelf::open(&home).unwrap();
        bytes = html(&shelf.history(None).unwrap(), Language::English).len();
    });
    println!("report over {} runs, from the volume: {report:.1} ms ({bytes} bytes)", runs.len());

    let volume = tempfile::tempdir().unwrap();
    let last = runs.last().unwrap();
    for at in 0..1_000 {
        let mut run = last.clone();
        run.task = fixture::task(&format!("check-{at}"));
        fixture::store(volume.path(), &[run]);
    }
    let index = middle(15, || {
        let shelf = Shelf::open(volume.path()).unwrap();
        let names = shelf.tasks();
        let wanted = Wanted::Overview { search: String::new() };
        let answer = overview(&shelf, names, &wanted, Language::English).unwrap();
        bytes = answer.body.len();
    });
    println!("index of 1,000 tasks, from the volume: {index:.1} ms ({bytes} bytes)");
}
