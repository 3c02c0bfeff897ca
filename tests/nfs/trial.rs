//! `kuration try --server`: what it says of a real server.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::server::{ADDRESS, Share, Silence};

/// `kuration try` on a server's export, with a word of the mount options if any.
fn tried(server: &str, share: &str, options: &[&str]) -> (Output, Value) {
    let program = std::env::var_os("KURATION").unwrap_or_else(|| env!("CARGO_BIN_EXE_kuration").into());
    let output = Command::new(program)
        .args(["try", "--json", "--server", server, "--share", share])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output, told)
}

/// Each finding: whether it is as one would wish, and what was found.
fn findings(told: &Value) -> Vec<(&str, bool, &str)> {
    let findings = told["findings"].as_array().unwrap_or_else(|| panic!("{told:#}"));
    let text = |finding: &Value, key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
    for finding in findings {
        assert!(text(finding, "found") && text(finding, "means"), "{finding:#}");
        assert_eq!(finding["good"] == false, text(finding, "remedy"), "{finding:#}");
    }
    findings
        .iter()
        .map(|one| {
            (one["name"].as_str().unwrap(), one["good"].as_bool().unwrap(), one["found"].as_str().unwrap())
        })
        .collect()
}

fn of<'a>(all: &[(&'a str, bool, &'a str)], name: &str) -> (bool, &'a str) {
    let found = all.iter().find(|(known, ..)| *known == name).unwrap_or_else(|| panic!("{name}: {all:?}"));
    (found.1, found.2)
}

#[test]
fn a_server_with_reflinks_is_seen_to_clone_and_copy_by_itself() {
    let share = Share::on("xfs");
    let (output, told) = tried(ADDRESS, &share.share, &[]);
    assert!(output.status.success(), "{told:#}");
    let all = findings(&told);
    for name in ["clone", "copy", "locks", "users"] {
        assert!(of(&all, name).0, "{name}: {told:#}");
    }
    // Nobody set a quota on the directory, so the whole export is seen.
    assert!(!of(&all, "quota").0, "{told:#}");
    assert!(of(&all, "latency").1.contains("of 50: create "), "{told:#}");
    assert_eq!(share.directories(), Vec::<String>::new());
}

#[test]
fn a_server_that_cant_clone_and_a_version_that_cant_are_told_with_the_remedy() {
    let share = Share::on("tmpfs");
    let (output, told) = tried(ADDRESS, &share.share, &[]);
    assert!(output.status.success(), "{told:#}");
    let all = findings(&told);
    assert!(!of(&all, "clone").0 && of(&all, "copy").0, "{told:#}");
    let old = Share::on("xfs");
    let (output, told) = tried(ADDRESS, &old.share, &["--mount-options", "vers=4.0"]);
    assert!(output.status.success(), "{told:#}");
    let all = findings(&told);
    assert_eq!(of(&all, "clone"), (false, "not over NFS 4.0"), "{told:#}");
    assert_eq!(of(&all, "copy"), (false, "not over NFS 4.0"), "{told:#}");
    assert!(of(&all, "locks").0, "{told:#}");
    let (output, told) = tried(ADDRESS, &old.share, &["--mount-options", "vers=3,nolock"]);
    assert!(output.status.success(), "{told:#}");
    let locks = of(&findings(&told), "locks").1.to_owned();
    assert!(locks.contains("this host alone"), "{told:#}");
}

#[test]
fn where_root_is_squashed_all_is_said_that_can_be() {
    let share = Share::on("squash");
    std::os::unix::fs::chown(&share.path, Some(65534), Some(65534)).unwrap();
    let (output, told) = tried(ADDRESS, &share.share, &[]);
    assert!(output.status.success(), "{told:#}");
    let steps = told["steps"].as_array().unwrap();
    let squash = steps.iter().find(|step| step["name"] == "squash").unwrap();
    assert!(squash["detail"].as_str().unwrap().contains("root becomes user 65534"), "{told:#}");
    assert!(of(&findings(&told), "users").0, "{told:#}");
}

#[test]
fn a_server_that_hangs_ends_the_trial_and_is_named() {
    let share = Share::on("tmpfs");
    let _silence = Silence::begin();
    let began = Instant::now();
    let (output, told) = tried(ADDRESS, &share.share, &[]);
    assert!(!output.status.success() && told["verdict"]["works"] == false, "{told:#}");
    assert!(told["verdict"]["summary"].as_str().unwrap().contains(ADDRESS), "{told:#}");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
}
