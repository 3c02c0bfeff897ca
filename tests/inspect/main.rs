//! `kuration inspect` as a person and a pod run it: against servers on loopback that answer, refuse, hang, flood and lie,
//! and with results volumes that are broken, full of others' files, or half written.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "fault-points")]
#[path = "../common/fault_points.rs"]
mod fault_points;
mod keeping;
#[cfg(feature = "fault-points")]
mod killed;
mod month;
mod parts;
mod probes;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A server on loopback that treats each connection by `serve`; its port.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Reads the head of an HTTP request.
fn head(stream: &mut TcpStream) -> String {
    let mut held = Vec::new();
    let mut byte = [0];
    while !held.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        held.push(byte[0]);
    }
    String::from_utf8_lossy(&held).into_owned()
}

fn http(answer: &'static str) -> u16 {
    server(move |mut stream| {
        head(&mut stream);
        stream.write_all(answer.as_bytes()).ok();
    })
}

struct Task {
    place: TempDir,
    text: Value,
}

impl Task {
    fn new(rules: Value) -> Self {
        let text = json!({
            "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": {"name": "check", "namespace": "shop", "uid": "0badcafe-1111", "generation": 3},
            "spec": {"schedule": "* * * * *", "target": "mysql-service", "rules": rules,
                     "activeDeadlineSeconds": 60, "results": {"persistTimeoutSeconds": 10}},
        });
        Self { place: tempfile::tempdir().unwrap(), text }
    }

    fn passing() -> Self {
        let port = http("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Self::new(json!([{"name": "page", "http": {"url": format!("http://127.0.0.1:{port}/")}}]))
    }

    fn root(&self) -> PathBuf {
        let root = self.place.path().join("volume");
        fs::create_dir_all(&root).unwrap();
        root
    }

    fn directory(&self) -> PathBuf {
        self.root().join("shop/check-0badcafe")
    }

    fn command(&self, args: &[&str]) -> Command {
        let file = self.place.path().join("task.json");
        let text = self.text.to_string();
        // Another run may be reading it.
        if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            fs::write(&file, text).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_kuration"));
        command.args(["inspect", "--task"]).arg(file).args(args);
        command.env_remove("KUBECONFIG").env("HOME", "/nonexistent");
        command
    }

    /// A run without a volume.
    fn look(&self) -> Value {
        run(self.command(&[]).output().unwrap())
    }

    /// A run of the Job of a minute, with a volume; the run and the pod's last word.
    fn keep(&self, minute: u32) -> (Value, Value) {
        let last = self.place.path().join("last");
        let output = self.kept(minute, &last).output().unwrap();
        (run(output), serde_json::from_slice(&fs::read(last).unwrap()).unwrap())
    }

    fn kept(&self, minute: u32, last: &Path) -> Command {
        let root = self.root();
        let job = format!("check-{minute}");
        let pod = format!("{job}-pod-{}", last.file_name().unwrap().to_string_lossy());
        let args = ["--results", root.to_str().unwrap(), "--job", &job, "--pod", &pod, "--termination-log"];
        let mut command = self.command(&args);
        command.arg(last);
        command
    }

    /// The part of a run that one of the nodes a, b and c does.
    fn part(&self, node: &str, index: &str) -> Command {
        let mut command = self.kept(MINUTE, &self.place.path().join(node));
        command.args(["--node", node, "--shard", index, "--shards", "3", "--nodes", "a,b,c"]);
        command
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.directory().join("index.json")).unwrap()).unwrap()
    }

    /// The folder of every run that can be seen.
    fn places(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.directory().join("runs")];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with('.') {
                    continue;
                }
                if path.join("SHA256SUMS").exists() {
                    found.push(path);
                } else if path.is_dir() {
                    waiting.push(path);
                }
            }
        }
        found
    }

    /// Every run that can be seen, each file checked against its digest.
    fn seen(&self) -> Vec<Value> {
        let read = |path: PathBuf| {
            let mut sums = Command::new("sha256sum");
            sums.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&path);
            assert!(sums.status().unwrap().success(), "{}", path.display());
            serde_json::from_slice(&fs::read(path.join("run.json")).unwrap()).unwrap()
        };
        self.places().into_iter().map(read).collect()
    }
}

/// The minute of a moment in 2026.
const MINUTE: u32 = 29_804_405;

fn run(output: Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// How one rule came out: result and reason.
fn of(rule: Value) -> (String, String) {
    let mut whole = json!({"name": "r", "timeoutSeconds": 3});
    whole.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    let run = Task::new(json!([whole])).look();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&run["rules"][0]["result"]), text(&run["rules"][0]["reason"]))
}

fn came(result: &str, reason: &str) -> (String, String) {
    (result.to_owned(), reason.to_owned())
}
