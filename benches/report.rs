//! How fast reports and rules are, and what a run of its own takes: `cargo bench --bench report`. 8,640 runs are thirty days of one
//! each five minutes. Wall time and, beside it, time of the processor, which other work on the machine does not lengthen.

// clippy lets tests unwrap, but not what benches call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/report/fixture.rs"]
mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kuration::inspection::report::serve::{Wanted, overview};
use kuration::inspection::report::{Language, Shelf, html};
use kuration::inspection::rules::{Place, Sight, Verdict, judge};
use kuration::inspection::run::Outcome;
use kuration::inspection::task::{Rule, Target};
use serde_json::{Value, json};

/// What something took, in milliseconds.
struct Taken {
    /// The middle of all times.
    wall: f64,
    /// On average.
    processor: f64,
}

/// Milliseconds of the processor that this thread has had (proc(5), `schedstat`: in nanoseconds).
fn own_processor() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// What `work` takes, after it was done once.
fn taken(count: usize, mut work: impl FnMut()) -> Taken {
    work();
    let before = own_processor();
    let walls: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    Taken { wall: middle(walls), processor: (own_processor() - before) / count as f64 }
}

fn middle(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1_000.0
}

/// A line of the table.
fn line(what: &str, goal: &str, taken: &Taken) {
    println!("| {what} | {goal} | {:.0} ms | {:.0} ms |", taken.wall, taken.processor);
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
fn rule(text: &str, expression: &str) -> Taken {
    let rule: Rule = serde_json::from_value(json!({
        "name": "all", "resource": { "apiVersion": "v1", "kind": "Pod" }, "assert": [{ "expr": expression }],
    }))
    .unwrap();
    let place = Place::new("shop", Target::parse("pod/*").unwrap(), Timestamp::now());
    taken(5, || {
        let mut list: Value = serde_json::from_str(text).unwrap();
        let Value::Array(items) = list["items"].take() else { panic!("no items") };
        let sight = Sight { items, foreign: true, ..Sight::of_items(Vec::new(), Verdict::Unasserted) };
        assert_eq!(judge(&rule, Ok(sight), &place, None).outcome, Outcome::Pass);
    })
}

fn rules() {
    let text = pods(10_000);
    let about = [
        (
            "for each object",
            "object.status.phase == 'Running' && object.status.containerStatuses.all(c, c.ready && c.restartCount < 5)",
        ),
        (
            "over the list",
            "items.all(p, p.status.phase == 'Running' && p.status.containerStatuses.all(c, c.ready && c.restartCount < 5))",
        ),
    ];
    for (how, expression) in about {
        let what =
            format!("10,000 objects ({} MB of JSON) through one CEL rule, {how}", text.len() / 1_000_000);
        line(&what, "2 s", &rule(&text, expression));
    }
}

fn reports(home: &Path, runs: usize) {
    let mut bytes = 0;
    let report = taken(15, || {
        let shelf = Shelf::open(home).unwrap();
        bytes = html(&shelf.history(None).unwrap(), Language::English).len();
    });
    line(&format!("report over {runs} runs, from the volume ({} kB)", bytes / 1_000), "200 ms", &report);
}

fn index(of: &[kuration::inspection::run::Run]) {
    let volume = tempfile::tempdir().unwrap();
    let last = of.last().unwrap();
    for at in 0..1_000 {
        let mut run = last.clone();
        run.task = fixture::task(&format!("check-{at}"));
        fixture::store(volume.path(), &[run]);
    }
    let mut bytes = 0;
    let index = taken(15, || {
        let shelf = Shelf::open(volume.path()).unwrap();
        let names = shelf.tasks();
        let wanted = Wanted::Overview { search: String::new() };
        let answer = overview(&shelf, names, &wanted, Language::English).unwrap();
        bytes = answer.body.len();
    });
    line(
        &format!("the page's index of 1,000 tasks, from the volume ({} kB)", bytes / 1_000),
        "100 ms",
        &index,
    );
}

/// `kuration inspect` with one rule that costs nothing, as a pod runs it.
struct Runner {
    place: tempfile::TempDir,
    minute: u64,
}

impl Runner {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        // It speaks first: for a server that says nothing, a rule waits 300 ms.
        std::thread::spawn(move || {
            server.incoming().flatten().for_each(|mut caller| drop(caller.write_all(b"220 here\r\n")));
        });
        let of = fixture::task("check-database");
        let rule = json!({ "name": "open", "tcp": { "host": "127.0.0.1", "port": port } });
        let task = json!({
            "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": { "name": of.name, "namespace": of.namespace, "uid": of.uid, "generation": of.generation },
            "spec": {
                "schedule": "*/5 * * * *", "target": "mysql-service", "rules": [rule],
                "results": { "history": { "maxRuns": 100_000, "maxAgeSeconds": 315_360_000 } },
            },
        });
        fs::write(place.path().join("task.json"), task.to_string()).unwrap();
        Runner { place, minute: 29_000_000 }
    }

    fn start(&mut self, volume: Option<&Path>) -> Child {
        self.minute += 5;
        let mut command = Command::new(program());
        command
            .args(["inspect", "--output=json", "--v=0", "--task"])
            .arg(self.place.path().join("task.json"));
        command.arg("--termination-log").arg(self.place.path().join("last"));
        command.arg(format!("--job=check-database-{}", self.minute));
        command.arg(format!("--pod=check-database-{}-x7k2p", self.minute));
        if let Some(volume) = volume {
            command.arg("--results").arg(volume);
        }
        command
            .env_remove("KUBECONFIG")
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().unwrap()
    }

    /// How long one run takes, and what its processes were seen to take, the last and the most.
    fn run(&mut self, volume: Option<&Path>) -> (Duration, f64, f64) {
        let begun = Instant::now();
        let mut child = self.start(volume);
        let (mut most, mut ticks) = (0.0_f64, BTreeMap::new());
        let done = loop {
            if let Some(done) = child.try_wait().unwrap() {
                break done;
            }
            let family = family(child.id());
            most = most.max(resident(&family));
            ticks.extend(family.iter().filter_map(|pid| Some((*pid, processor(*pid)?))));
            // What happens in the meantime is not seen.
            std::thread::sleep(Duration::from_micros(500));
        };
        let taken = begun.elapsed();
        assert!(done.success());
        let said = fs::read(self.place.path().join("last")).unwrap();
        let said: Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(said["outcome"], "pass", "{said}");
        assert_eq!(said["persisted"]["ok"], volume.is_some(), "{said}");
        (taken, ticks.values().sum(), most)
    }

    fn measure(&mut self, what: &str, volume: Option<&Path>) {
        self.run(volume);
        let all: Vec<_> = (0..15).map(|_| self.run(volume)).collect();
        let wall = middle(all.iter().map(|(wall, ..)| *wall).collect());
        let processor = all.iter().map(|(_, processor, _)| processor).sum::<f64>() / all.len() as f64;
        let most = all.iter().map(|(.., most)| *most).fold(0.0, f64::max);
        let what = format!("a run with a rule that costs nothing, {what}");
        line(&what, "300 ms", &Taken { wall, processor });
        println!("| its processes, resident together, at most | 20 MB | {most:.1} MB | |");
    }
}

/// A process and its children.
fn family(of: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = |line: String| line.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    [of].into_iter().chain(children.flat_map(pids)).collect()
}

/// What processes have in memory together, in MB: pages of the program's file, which they share, once.
fn resident(family: &[u32]) -> f64 {
    let of = |pid: &u32, field: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // One that has just been made is still a part of this one.
        let own = !status.starts_with("Name:\treport");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).filter(|_| own)?;
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()
    };
    let own: f64 = family.iter().filter_map(|pid| of(pid, "RssAnon:")).sum();
    let shared = family.iter().filter_map(|pid| of(pid, "RssFile:")).fold(0.0, f64::max);
    (own + shared) * 1.024 / 1_000.0
}

/// Milliseconds of the processor that the threads of a process have had.
fn processor(pid: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let had = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    let had: Vec<f64> = had.filter_map(|text| text.split(' ').next()?.parse().ok()).collect();
    (!had.is_empty()).then(|| had.iter().sum::<f64>() / 1e6)
}

/// What is measured: PROGRAM, such as the one of an image, or else what cargo has built.
fn program() -> std::ffi::OsString {
    std::env::var_os("PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_kuration").into())
}

fn main() {
    println!("| | goal | time, or memory | of the processor |\n|---|---:|---:|---:|");
    rules();
    let volume = tempfile::tempdir().unwrap();
    let runs = fixture::database(5);
    let home = fixture::store(volume.path(), &runs);
    reports(&home, runs.len());
    index(&runs);
    let mut runner = Runner::new();
    runner.measure("without a volume", None);
    let empty = tempfile::tempdir().unwrap();
    runner.measure("on an empty volume", Some(empty.path()));
    runner.measure(&format!("on one with {} runs of it", runs.len()), Some(volume.path()));
}
