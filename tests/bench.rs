//! `kuration bench` against the real driver over a pool in a directory.

// The lint spares test functions, but not what they share.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const KURATION: &str = env!("CARGO_BIN_EXE_kuration");

/// `kuration all`, ended when it is dropped.
struct Driver(Child);

impl Driver {
    fn start(place: &Path) -> Self {
        let socket = place.join("csi.sock");
        let child = Command::new(KURATION)
            .args(["all", "--node-id", "n1", "--log", "warn", "--endpoint"])
            .arg(format!("unix://{}", socket.display()))
            .arg("--pool")
            .arg(place.join("pool"))
            .arg("--state-dir")
            .arg(place.join("state"))
            .spawn()
            .unwrap();
        let driver = Self(child);
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < Duration::from_secs(30), "the driver does not serve");
            std::thread::sleep(Duration::from_millis(10));
        }
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn bench(place: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(KURATION);
    command.args(["bench", "--endpoint"]).arg(format!("unix://{}", place.join("csi.sock").display()));
    command.args(more).stdin(Stdio::null()).output().unwrap()
}

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("pool")).unwrap();
    place
}

#[test]
fn every_life_cycle_is_measured_and_nothing_stays() {
    let place = place();
    let driver = Driver::start(place.path());
    let output = bench(place.path(), &["--count", "12", "--concurrency", "3", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(report["succeeded"], 12, "{report:#}");
    assert_eq!(report["failed"], 0);
    assert_eq!(report["errors"].as_array().unwrap().len(), 0);
    for method in
        ["CreateVolume", "NodePublishVolume", "NodeGetVolumeStats", "NodeUnpublishVolume", "DeleteVolume"]
    {
        let rpc = report["rpcs"].as_array().unwrap().iter().find(|rpc| rpc["name"] == method);
        let rpc = rpc.unwrap_or_else(|| panic!("{method} is missing: {report:#}"));
        assert_eq!(rpc["count"], 12, "{method}");
        let at = |name: &str| rpc[name].as_f64().unwrap();
        assert!(
            0.0 < at("p50") && at("p50") <= at("p95") && at("p95") <= at("p99") && at("p99") <= at("max"),
            "{rpc}"
        );
    }
    assert_eq!(report["life_cycle"]["count"], 12);
    assert!(report["floor"]["p50"].as_f64().unwrap() > 0.0);
    assert!(report["per_second"].as_f64().unwrap() > 0.0);

    let process = &report["process"];
    assert_eq!(process["pid"], driver.0.id(), "the process behind the socket is the driver");
    for moment in ["before", "after"] {
        for number in ["rss_kib", "anon_kib", "threads", "descriptors", "machine_forks"] {
            assert!(process[moment][number].as_u64().unwrap() > 0, "{moment} {number}: {process:#}");
        }
    }
    assert_eq!(report["mounts"]["after"], 0);
    let plain = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
    let left: Vec<_> =
        std::fs::read_dir(place.path().join("pool")).unwrap().flatten().filter(plain).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_person_gets_a_table() {
    let place = place();
    let _driver = Driver::start(place.path());
    let output = bench(place.path(), &["--count", "2"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["p50", "p99", "CreateVolume", "whole life cycle", "life cycles/s", "resident memory", "2 succeeded"]
    {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn what_the_driver_refuses_is_said_in_its_own_words() {
    let place = place();
    let _driver = Driver::start(place.path());
    let output = bench(place.path(), &["--count", "2", "--parameter", "nonsense=1"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("CreateVolume answered INVALID_ARGUMENT") && said.contains("nonsense"), "{said}");
}

#[test]
fn no_driver_is_a_sentence_and_not_a_table() {
    let output = bench(Path::new("/nowhere"), &["--count", "1"]);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/csi.sock"));
}
