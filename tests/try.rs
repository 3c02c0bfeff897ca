//! `kuration try`, the whole of it, as root and as somebody else.

// The lint spares test functions, but not what they share.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

/// What a volume goes through without a limit that is enforced, in this order.
const PLAIN: [&str; 16] = [
    "start",
    "create",
    "publish",
    "stage",
    "node-publish",
    "write",
    "stats",
    "expand",
    "second-consumer",
    "node-unpublish",
    "unstage",
    "unpublish",
    "delete",
    "nothing-left",
    "stop",
    "clean",
];

/// A directory for temporary files, and a copy of the program that anybody may run.
struct Stand {
    directory: tempfile::TempDir,
    program: PathBuf,
}

impl Stand {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        open(directory.path(), 0o777);
        let program = directory.path().join("kuration");
        // By another process: one of ours that begins meanwhile would have the file open for writing, and nobody can run that.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_kuration")).arg(&program).status().unwrap();
        assert!(copied.success());
        open(&program, 0o755);
        Self { directory, program }
    }

    /// `kuration try --json`; by root for user 1000 if `uid` says so.
    fn command(&self, uid: Option<u32>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["try", "--json"]).env("TMPDIR", self.directory.path()).stdin(Stdio::null());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    fn check_empty(&self) {
        let left: Vec<_> =
            std::fs::read_dir(self.directory.path()).unwrap().flatten().map(|e| e.path()).collect();
        assert_eq!(left, std::slice::from_ref(&self.program), "left behind");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("kuration-try-"), "{mounts}");
    }
}

/// The document, after it was checked that all went well.
fn works(output: &Output) -> Value {
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    for step in told["steps"].as_array().unwrap() {
        assert_eq!(step["ok"], true, "{step:#}");
        assert!(step["millis"].as_f64().unwrap() >= 0.0 && step["detail"].is_string(), "{step}");
    }
    assert_eq!(told["verdict"]["works"], true, "{told:#}");
    assert!(output.status.success(), "{output:?}");
    told
}

fn names(told: &Value) -> Vec<&str> {
    told["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect()
}

fn detail<'a>(told: &'a Value, name: &str) -> &'a str {
    let step = told["steps"].as_array().unwrap().iter().find(|step| step["name"] == name);
    step.unwrap_or_else(|| panic!("no step {name}"))["detail"].as_str().unwrap()
}

#[test]
fn root_sees_a_real_limit() {
    if !geteuid().is_root() {
        eprintln!("not root: what a user sees is tested by the other tests");
        return;
    }
    let stand = Stand::new();
    let told = works(&stand.command(None).output().unwrap());
    let makes = |program: &&str| ["/sbin", "/usr/sbin"].iter().any(|d| Path::new(d).join(program).exists());
    if ["mkfs.btrfs", "mkfs.xfs"].iter().any(makes) {
        let mut steps = PLAIN.to_vec();
        steps.insert(7, "fill");
        steps.insert(9, "fill-again");
        assert_eq!(names(&told), steps, "{told:#}");
        assert!(detail(&told, "fill").starts_with("refused after"), "{told:#}");
    } else {
        assert_eq!(names(&told), PLAIN);
    }
    assert!(detail(&told, "write").contains("as user 1000"));
    stand.check_empty();
}

#[test]
fn somebody_else_sees_the_same_life_without_a_limit() {
    let stand = Stand::new();
    let uid = geteuid().is_root().then_some(1000);
    let told = works(&stand.command(uid).output().unwrap());
    assert_eq!(names(&told), PLAIN, "{told:#}");
    assert!(told["backend"].as_str().unwrap().contains("limits are not enforced"), "{told:#}");
    assert!(told["standing"].as_str().unwrap().contains("user and mount namespace"), "{told:#}");
    stand.check_empty();
}

#[test]
fn a_person_gets_a_line_per_step_and_a_verdict() {
    let stand = Stand::new();
    let mut command = Command::new(&stand.program);
    let output = command.arg("try").env("TMPDIR", stand.directory.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in
        ["create a volume", "a second pod reads and writes", "Kuration works", "nothing is left behind"]
    {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains("FAILED"), "{text}");
    stand.check_empty();
}

#[test]
fn interrupted_it_leaves_nothing() {
    let stand = Stand::new();
    let mut command = Command::new(&stand.program);
    command.arg("try").env("TMPDIR", stand.directory.path()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.contains("publish it to a pod")).expect("the step is told");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.collect();
    // On a fast machine the signal may come when all is done.
    let interrupted = rest.iter().any(|line| line.contains("Interrupted; all was undone"));
    assert_eq!(child.wait().unwrap().success(), !interrupted, "{rest:#?}");
    stand.check_empty();
}

#[test]
fn a_server_is_not_tried_without_root() {
    let stand = Stand::new();
    let uid = geteuid().is_root().then_some(1000);
    let output = stand.command(uid).args(["--server", "nfs.invalid", "--share", "/data"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs root"), "{output:?}");
    stand.check_empty();
}

#[test]
fn a_server_that_is_not_there_is_a_failed_step_with_the_drivers_words() {
    if !geteuid().is_root() {
        return;
    }
    let stand = Stand::new();
    let output = stand.command(None).args(["--server", "nfs.invalid", "--share", "/data"]).output().unwrap();
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert!(!output.status.success());
    assert_eq!(told["verdict"]["works"], false, "{told:#}");
    let failed = told["steps"].as_array().unwrap().iter().find(|step| step["ok"] == false).unwrap();
    // A kernel without NFS is found out before the server is asked for.
    let words = failed["detail"].as_str().unwrap();
    assert!(words.contains("nfs.invalid") || words.contains("no NFS client"), "{told:#}");
    stand.check_empty();
}
