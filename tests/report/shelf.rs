//! A volume that is damaged, thinned out, or somebody else's.

use std::fs;

use jiff::SignedDuration;
use kuration::inspection::report::{Language, Shelf, Story, html};
use kuration::inspection::run::{Outcome, Run};
use kuration::inspection::task::Severity;

use crate::fixture;

/// Runs five minutes apart, the last one at the fixture's end, with these results of one rule.
fn runs(results: &[Outcome]) -> Vec<Run> {
    let run = |(at, result): (usize, &Outcome)| {
        let back = (results.len() - 1 - at) as i64;
        let start = fixture::end() - SignedDuration::from_mins(5 * back);
        let mut rule = fixture::rule("port", "tcp", Severity::High, start);
        rule.result = *result;
        fixture::run(fixture::task("check"), start, vec![rule])
    };
    results.iter().enumerate().map(run).collect()
}

fn since(results: &[Outcome]) -> (u64, bool) {
    let volume = tempfile::tempdir().unwrap();
    let home = fixture::store(volume.path(), &runs(results));
    let history = Shelf::open(&home).unwrap().history(None).unwrap();
    let since = Story::of(&history).findings.first().unwrap().since;
    (since.runs, since.at_least)
}

#[test]
fn a_failure_is_as_old_as_its_first_run_and_a_blind_run_does_not_end_it() {
    use Outcome::{Error, Fail, Pass};
    assert_eq!(since(&[Pass, Fail]), (1, false));
    assert_eq!(since(&[Pass, Fail, Fail, Fail]), (3, false));
    assert_eq!(since(&[Pass, Fail, Error, Fail]), (2, false));
    assert_eq!(since(&[Fail, Fail]), (2, true));
}

#[test]
fn a_failure_of_days_is_dated_without_reading_every_run() {
    let mut results = vec![Outcome::Pass; 700];
    results.extend(vec![Outcome::Fail; 2_000]);
    let volume = tempfile::tempdir().unwrap();
    let home = fixture::store(volume.path(), &runs(&results));
    // Runs of a whole day in between can't be read: its roll-up is enough.
    fs::remove_dir_all(home.join("runs/2026/11/17")).unwrap();
    let history = Shelf::open(&home).unwrap().history(None).unwrap();
    let since = Story::of(&history).findings.first().unwrap().since;
    assert_eq!((since.runs, since.at_least), (2_000, false));
    assert_eq!(since.start, fixture::end() - SignedDuration::from_mins(5 * 1_999));
}

#[test]
fn failures_that_outlived_the_passes_around_them_are_not_one_long_failure() {
    let mut results = vec![Outcome::Fail];
    results.extend(vec![Outcome::Pass; 100]);
    results.push(Outcome::Fail);
    results.extend(vec![Outcome::Pass; 300]);
    results.push(Outcome::Fail);
    let volume = tempfile::tempdir().unwrap();
    let all = runs(&results);
    let home = fixture::store(volume.path(), &all);
    // Retention: passes are gone, the index knows the failures alone; the days remember.
    let index = home.join("index.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    kept["runs"].as_array_mut().unwrap().retain(|entry| entry["outcome"] == "fail");
    fs::write(&index, kept.to_string()).unwrap();
    let history = Shelf::open(&home).unwrap().history(None).unwrap();
    let since = Story::of(&history).findings.first().unwrap().since;
    assert_eq!((since.runs, since.start), (1, fixture::end()));
}

#[test]
fn a_lost_or_broken_index_changes_nothing_in_the_report() {
    let volume = tempfile::tempdir().unwrap();
    let home = fixture::store(volume.path(), &fixture::database(240));
    let report = || html(&Shelf::open(&home).unwrap().history(None).unwrap(), Language::English);
    let whole = report();
    for broken in [
        "",
        "{\"schema\":",
        "{\"schema\":\"kuration.io/inspection-index/v9\",\"task\":{\"namespace\":\"\",\"name\":\"\",\"uid\":\"\",\"generation\":0},\"runs\":[]}",
    ] {
        fs::write(home.join("index.json"), broken).unwrap();
        assert!(report() == whole, "{broken}");
    }
    fs::remove_file(home.join("index.json")).unwrap();
    assert!(report() == whole);
}

#[test]
fn foreign_and_half_written_files_hide_nothing() {
    let volume = tempfile::tempdir().unwrap();
    let home = fixture::store(volume.path(), &fixture::database(240));
    fs::remove_file(home.join("index.json")).unwrap();
    let report = || html(&Shelf::open(&home).unwrap().history(None).unwrap(), Language::English);
    let whole = report();
    fs::create_dir_all(home.join("runs/.tmp-0815")).unwrap();
    fs::write(home.join("runs/.tmp-0815/run.json"), "{").unwrap();
    fs::create_dir_all(home.join("runs/2026/11/21/half")).unwrap();
    fs::write(home.join("runs/2026/11/21/half/run.json"), "{\"schema\":\"kuration.io/insp").unwrap();
    fs::write(home.join("runs/2026/lost+found"), "x").unwrap();
    fs::write(home.join("daily/2026-11-19.json.bak"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", home.join("runs/2026/11/20/link")).unwrap();
    nix::unistd::mkfifo(&home.join("runs/2026/11/20/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(report() == whole);
}

#[test]
fn a_directory_without_a_run_is_refused_with_what_to_do() {
    let volume = tempfile::tempdir().unwrap();
    let error = Shelf::open(volume.path()).unwrap().history(None).unwrap_err().to_string();
    assert!(error.contains("NAMESPACE/TASK-UID"), "{error}");
}
