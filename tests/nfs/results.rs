//! Two hosts write runs of one inspection to one share, while its server goes away and comes back.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kuration::inspection::results::{Limits, Saving, save};
use kuration::inspection::run::Run;
use serde_json::{Value, json};

use crate::host::{HERE, OtherHost};
use crate::server::{Share, Stopped};
use crate::site::{Order, Site, until};

const TASK: &str = "shop/check-0badcafe";
/// The minute of a moment in 2026.
const MINUTE: u32 = 29_804_405;
/// How often the server goes away, and how many runs each host makes at least.
const OUTAGES: usize = 12;
const RUNS: usize = 40;

/// A run of one host's: what it says of itself, and its pod's last word.
fn inspect(task: &Path, volume: &Path, host: &str, number: u32) -> (Value, Value) {
    let place = tempfile::tempdir().unwrap();
    let last = place.path().join("last");
    // Both hosts have Jobs of the same minutes: every second run finds its directory taken by the other's.
    let (job, pod) = (format!("check-{}", MINUTE + number), format!("check-{number}-{host}"));
    let program = std::env::var_os("KURATION").unwrap_or_else(|| env!("CARGO_BIN_EXE_kuration").into());
    let mut command = Command::new(program);
    command
        .env_remove("KUBECONFIG")
        .args(["inspect", "--job", &job, "--pod", &pod, "--node", host, "--task"]);
    command.arg(task).arg("--results").arg(volume).arg("--termination-log").arg(&last);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let read = |text: &[u8]| serde_json::from_slice(text).unwrap();
    (read(&done.stdout), read(&fs::read(&last).unwrap()))
}

/// Every run that can be seen beneath a directory, by its path there; each is whole and what its sums say.
fn seen(directory: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.join("runs")];
    while let Some(place) = waiting.pop() {
        for entry in fs::read_dir(&place).unwrap().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if !path.join("run.json").exists() {
                waiting.push(path);
                continue;
            }
            let mut sums = Command::new("sha256sum");
            sums.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&path);
            assert!(sums.status().unwrap().success(), "{}", path.display());
            let run = serde_json::from_slice(&fs::read(path.join("run.json")).unwrap()).unwrap();
            found.insert(path.strip_prefix(directory).unwrap().display().to_string(), run);
        }
    }
    found
}

/// The index as it is after one run more, `known` beforehand or made from nothing.
fn index_after(directory: &Path, run: &Run, known: bool) -> Vec<u8> {
    let copy = tempfile::tempdir().unwrap();
    let here = copy.path().join(TASK);
    fs::create_dir_all(&here).unwrap();
    let whole = format!("{}/.", directory.display());
    let copied = Command::new("cp").args(["-a", &whole]).arg(&here).status().unwrap();
    assert!(copied.success());
    if !known {
        fs::remove_file(here.join("index.json")).unwrap();
    }
    save(&Saving {
        root: copy.path().to_owned(),
        run: run.clone(),
        backfill: vec![],
        artifacts: vec![],
        files: vec![],
        html: false,
        limits: Limits { runs: 10_000, age: i64::MAX / 2, bytes: 1 << 40, failed: 0 },
        fleet: None,
        pod: "last".into(),
        now: run.start_time,
        stale: 3600,
    })
    .unwrap();
    fs::read(here.join("index.json")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hosts_write_runs_of_one_task_while_the_server_restarts_and_none_is_lost_or_half() {
    let share = Share::on("xfs");
    let other = OtherHost::new(&[]).await;
    let (one, two) = (Site::at("node-1", &[]).await, other.site());
    let order = Order::new("results", &[("server", HERE), ("share", &share.share)]);
    let (volume, first) = one.up(&order).await;
    two.attach(&volume, &order).await.unwrap();
    two.stage(&volume, &order).await.unwrap();
    let second = two.publish(&volume, &order, "pod").await.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let place = tempfile::tempdir().unwrap();
    let task = place.path().join("task.json");
    let text = json!({
        "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
        "metadata": { "name": "check", "namespace": "shop", "uid": "0badcafe-1111", "generation": 1 },
        "spec": { "schedule": "* * * * *", "target": "node/a", "rules": [{ "name": "port", "tcp": { "host": "127.0.0.1", "port": port } }],
            "results": { "persistTimeoutSeconds": 60, "history": { "maxRuns": 10000 } } },
    });
    fs::write(&task, text.to_string()).unwrap();

    let (over, made) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let writer = |host: &'static str, volume: &PathBuf, made: &AtomicUsize| {
        let mut told = Vec::new();
        while !over.load(Ordering::Relaxed) || told.len() < RUNS {
            let number = u32::try_from(told.len()).unwrap();
            told.push(inspect(&task, volume, host, number));
            made.store(told.len(), Ordering::Relaxed);
        }
        told
    };
    let (one_told, two_told) = std::thread::scope(|scope| {
        let one = scope.spawn(|| writer("node-1", &first, &made[0]));
        let two = scope.spawn(|| writer("node-2", &second, &made[1]));
        for _ in 0..OUTAGES {
            // Each time in the middle of something: both are writing, and nobody waits for them.
            let before: Vec<usize> = made.iter().map(|made| made.load(Ordering::Relaxed)).collect();
            let stopped = Stopped::begin();
            std::thread::sleep(Duration::from_millis(300));
            drop(stopped);
            until("both go on", || {
                made.iter().zip(&before).all(|(made, before)| made.load(Ordering::Relaxed) > *before)
            });
        }
        over.store(true, Ordering::Relaxed);
        (one.join().unwrap(), two.join().unwrap())
    });
    // A last one in peace puts the index in order.
    let quiet = inspect(&task, &first, "node-1", 100_000);
    assert_eq!(quiet.1["persisted"]["ok"], true, "{}", quiet.1);

    let directory = share.path.join(first_directory(&share)).join(TASK);
    let there = seen(&directory);
    let told: Vec<&(Value, Value)> = one_told.iter().chain(&two_told).chain([&quiet]).collect();
    let kept: Vec<_> = told.iter().filter(|(_, last)| last["persisted"]["ok"] == true).collect();
    println!("{} runs, {} said to be kept, {} there", told.len(), kept.len(), there.len());
    assert!(kept.len() > RUNS, "{} of {} were kept", kept.len(), told.len());
    assert!(there.len() >= kept.len() && there.len() <= told.len());
    for (run, last) in kept {
        let path = last["path"].as_str().unwrap().strip_prefix(TASK).unwrap().trim_start_matches('/');
        let found = there.get(path).unwrap_or_else(|| panic!("{path} was said to be kept: {last}"));
        assert_eq!(found, run, "{path}");
    }
    // Both have met: some runs stand beside one of the same name.
    assert!(there.keys().any(|path| path.ends_with("-r1")), "{:?}", there.keys());
    // The index is what stands there, byte for byte, whether it was kept up or is made from nothing.
    let index: Value = serde_json::from_slice(&fs::read(directory.join("index.json")).unwrap()).unwrap();
    let indexed =
        index["runs"].as_array().unwrap().iter().map(|run| run["path"].as_str().unwrap().to_owned());
    let mut indexed: Vec<String> = indexed.collect();
    indexed.sort();
    assert_eq!(indexed, there.keys().cloned().collect::<Vec<_>>());
    let mut next: Run = serde_json::from_value(quiet.0).unwrap();
    next.id = "20261231T000000Z-30000000".into();
    assert_eq!(index_after(&directory, &next, true), index_after(&directory, &next, false));
    assert!(!directory.join(".lock").exists());

    two.unpublish(&volume, "pod").await.unwrap();
    two.unstage(&volume).await.unwrap();
    two.detach(&volume).await.unwrap();
    one.down(&volume).await;
}

/// The volume's, on the server.
fn first_directory(share: &Share) -> String {
    share.directories().into_iter().next().expect("a volume")
}
