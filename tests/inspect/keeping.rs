//! Results volumes that are broken, full of others' files, or half written.

use super::*;

#[test]
fn runs_are_kept_with_their_digests_and_the_index_names_them() {
    let task = Task::passing();
    let (first, last) = task.keep(MINUTE);
    assert_eq!(first["id"], "20260901T120500Z-29804405");
    assert_eq!(last["persisted"], json!({"ok": true}));
    assert_eq!(last["path"], "shop/check-0badcafe/runs/2026/09/01/20260901T120500Z-29804405");
    task.keep(MINUTE + 5);
    let index = task.index();
    let ids: Vec<&str> =
        index["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["20260901T121000Z-29804410", "20260901T120500Z-29804405"]);
    assert_eq!(task.seen().len(), 2);
    // The same Job tried again is another run beside the first.
    task.keep(MINUTE);
    assert_eq!(task.seen().len(), 3);
    assert!(task.directory().join("runs/2026/09/01/20260901T120500Z-29804405-r1").is_dir());
}

#[test]
fn a_task_that_says_nothing_of_results_has_them_kept_all_the_same() {
    let mut task = Task::passing();
    task.text["spec"].as_object_mut().unwrap().remove("results");
    assert_eq!(task.keep(MINUTE).1["persisted"], json!({"ok": true}));
}

#[test]
fn an_index_that_is_lost_or_corrupt_is_made_again_byte_for_byte() {
    let task = Task::passing();
    task.keep(MINUTE);
    task.keep(MINUTE + 5);
    let good = task.index();
    let path = task.directory().join("index.json");
    for broken in [None, Some("{\"schema\": "), Some("[]"), Some("")] {
        match broken {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        task.keep(MINUTE + 10);
        let made = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // What the next run makes from nothing begins with the same entries.
        let runs = serde_json::from_slice::<Value>(&made).unwrap()["runs"].as_array().unwrap().clone();
        assert_eq!(runs[runs.len() - 2..], good["runs"].as_array().unwrap()[..]);
        fs::write(&path, &made).unwrap();
    }
}

#[test]
fn what_is_not_ours_and_what_is_half_written_is_left_alone_and_not_believed() {
    let task = Task::passing();
    task.keep(MINUTE);
    let day = task.directory().join("runs/2026/09/01");
    fs::write(day.join("notes.txt"), "a person's").unwrap();
    fs::create_dir(day.join("20260901T120000Z-29804400")).unwrap();
    fs::write(day.join("20260901T120000Z-29804400/run.json"), "{\"half").unwrap();
    fs::create_dir_all(task.directory().join("runs/photos/summer")).unwrap();
    task.keep(MINUTE + 5);
    assert_eq!(task.index()["runs"].as_array().unwrap().len(), 2);
    assert!(day.join("notes.txt").exists() && day.join("20260901T120000Z-29804400/run.json").exists());
    assert!(task.directory().join("runs/photos/summer").is_dir());
}

#[test]
fn history_stays_within_its_limits_and_a_day_leaves_its_sum() {
    let mut task = Task::passing();
    task.text["spec"]["results"]["history"] = json!({"maxRuns": 3});
    for at in 0..6 {
        task.keep(MINUTE + at * 5);
    }
    assert_eq!(task.seen().len(), 3);
    assert_eq!(task.index()["runs"].as_array().unwrap().len(), 3);
    let daily: Value =
        serde_json::from_slice(&fs::read(task.directory().join("daily/2026-09-01.json")).unwrap()).unwrap();
    assert_eq!((&daily["runs"], &daily["outcomes"]["pass"]), (&json!(6), &json!(6)), "{daily}");
    assert_eq!(daily["rules"]["page"]["counts"]["pass"], 6);
}

#[test]
fn the_report_stands_beside_the_runs_unless_it_is_not_wanted() {
    let mut task = Task::passing();
    let report = task.directory().join("report.html");
    let first = task.keep(MINUTE).0["id"].clone();
    let page = fs::read_to_string(&report).unwrap();
    assert!(page.contains(first.as_str().unwrap()) && page.contains("shop"), "{page}");
    let second = task.keep(MINUTE + 5).0["id"].clone();
    assert!(fs::read_to_string(&report).unwrap().contains(second.as_str().unwrap()));
    // One that can't be written costs no run.
    fs::remove_file(&report).unwrap();
    fs::create_dir_all(report.join("in the way")).unwrap();
    assert_eq!(task.keep(MINUTE + 10).1["persisted"]["ok"], true);
    fs::remove_dir_all(&report).unwrap();
    task.text["spec"]["results"]["html"] = json!(false);
    let bare = task.keep(MINUTE + 15).1["path"].as_str().unwrap().to_owned();
    assert!(!report.exists() && !task.root().join(bare).join("report.html").exists());
}

#[test]
fn every_run_has_its_page_as_of_then_and_its_bytes_count() {
    let task = Task::passing();
    let ids: Vec<String> =
        (0..3).map(|at| task.keep(MINUTE + at * 5).0["id"].as_str().unwrap().to_owned()).collect();
    let index = task.index();
    for (entry, (at, id)) in index["runs"].as_array().unwrap().iter().rev().zip(ids.iter().enumerate()) {
        let place = task.directory().join(entry["path"].as_str().unwrap());
        let page = fs::read_to_string(place.join("report.html")).unwrap();
        // What came later is not in it.
        assert!(page.contains(id) && !ids[at + 1..].iter().any(|later| page.contains(later)), "{id}");
        assert_eq!(entry["reportBytes"], page.len());
        assert_eq!(entry["bytes"], size(&place));
        // It can be made again, so it has no digest.
        assert!(!fs::read_to_string(place.join("SHA256SUMS")).unwrap().contains("report"));
        let shown = Command::new(env!("CARGO_BIN_EXE_kuration"))
            .args(["report", "--run", id, "--once"])
            .arg(task.directory())
            .output()
            .unwrap();
        assert!(shown.status.success() && String::from_utf8(shown.stdout).unwrap().contains(id));
    }
    let newest = task.directory().join(index["runs"][0]["path"].as_str().unwrap()).join("report.html");
    assert_eq!(fs::read(newest).unwrap(), fs::read(task.directory().join("report.html")).unwrap());
    is_made_again_to_the_byte(&task);
}

/// The bytes of the files in a directory.
fn size(place: &Path) -> u64 {
    fs::read_dir(place).unwrap().flatten().map(|entry| entry.metadata().unwrap().len()).sum()
}

/// An index that is made from nothing is the one that was there.
fn is_made_again_to_the_byte(task: &Task) {
    let path = task.directory().join("index.json");
    let before = task.index();
    fs::remove_file(&path).unwrap();
    let last = task.keep(MINUTE + 60).0;
    let mut after = task.index();
    assert_eq!(after["runs"].as_array_mut().unwrap().remove(0)["id"], last["id"]);
    assert_eq!(after.to_string(), before.to_string());
}

#[test]
fn pages_go_before_runs_where_room_is_short_and_the_limit_holds() {
    let mut task = Task::passing();
    let page = {
        task.keep(MINUTE);
        task.index()["runs"][0]["reportBytes"].as_u64().unwrap()
    };
    // Room for all runs, and for two of their pages.
    let limit = page * 5 / 2;
    task.text["spec"]["results"]["history"] = json!({"maxBytes": limit});
    for at in 1..6 {
        task.keep(MINUTE + at * 5);
        let index = task.index();
        let runs = index["runs"].as_array().unwrap();
        let sum = |of: &str| runs.iter().filter_map(|run| run[of].as_u64()).sum::<u64>();
        assert_eq!(runs.len(), at as usize + 1);
        assert!(sum("bytes") <= limit, "{index}");
        assert_eq!(sum("bytes"), task.places().iter().map(|place| size(place)).sum::<u64>());
        let pages: Vec<bool> = runs.iter().map(|run| run["reportBytes"].is_u64()).collect();
        assert!(pages[0] && pages.is_sorted_by(|a, b| a >= b), "the newest keep theirs: {pages:?}");
    }
    assert!(!task.places().iter().all(|place| place.join("report.html").exists()));
}

#[test]
fn a_volume_that_can_not_be_written_costs_no_result() {
    let task = Task::passing();
    let root = task.root();
    fs::write(root.join("shop"), "a file where a directory should be").unwrap();
    let (run, last) = task.keep(MINUTE);
    assert_eq!(run["outcome"], "pass");
    assert_eq!((&last["persisted"]["ok"], &last["outcome"]), (&json!(false), &json!("pass")));
    assert!(["EEXIST", "ENOTDIR"].contains(&last["persisted"]["reason"].as_str().unwrap()), "{last}");
    // It is written down by the next run that finds its volume.
    let handed = task.place.path().join("handed");
    fs::create_dir(&handed).unwrap();
    fs::write(handed.join("run"), last.to_string()).unwrap();
    fs::remove_file(root.join("shop")).unwrap();
    let word = task.place.path().join("word");
    let output =
        task.kept(MINUTE + 5, &word).args(["--backfill", handed.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success());
    let word: Value = serde_json::from_slice(&fs::read(word).unwrap()).unwrap();
    assert_eq!(word["backfilled"], json!(["20260901T120500Z-29804405"]));
    let index = task.index();
    let old = &index["runs"][1];
    assert_eq!((&old["detail"], &old["trigger"]), (&json!("SummaryOnly"), &json!("Backfill")), "{index}");
    let page = task.directory().join(old["path"].as_str().unwrap()).join("report.html");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("20260901T120500Z-29804405") && !page.contains("20260901T121000Z"), "{page}");
}

#[test]
fn a_volume_that_is_full_is_emptied_of_the_oldest_once() {
    let task = Task::passing();
    let root = task.root();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=96k", "tmpfs"]).arg(&root).status().unwrap();
    assert!(mount.success(), "this test mounts a file system of 96 KiB, and needs root for it");
    let kept = (0..12).map(|at| task.keep(MINUTE + at * 5).1).collect::<Vec<Value>>();
    let runs = task.seen().len();
    // Pages went first, and the index knows which are left.
    let index = task.index();
    for run in index["runs"].as_array().unwrap() {
        let place = task.directory().join(run["path"].as_str().unwrap());
        let page = fs::metadata(place.join("report.html")).ok().map(|page| page.len());
        assert_eq!(
            (run["reportBytes"].as_u64(), run["bytes"].as_u64()),
            (page, Some(size(&place))),
            "{index}"
        );
    }
    Command::new("umount").arg("-l").arg(&root).status().unwrap();
    let written = kept.iter().filter(|last| last["persisted"]["ok"] == true).count();
    assert!(written == 12 && runs < 12, "{written} written, {runs} left: {:?}", kept.last());
}

#[test]
fn a_volume_that_hangs_costs_its_deadline_and_no_result() {
    let mut task = Task::passing();
    task.text["spec"]["results"]["persistTimeoutSeconds"] = json!(2);
    // A FIFO in the place of a file that is read: opening it waits for a writer that never comes.
    let directory = task.directory();
    fs::create_dir_all(&directory).unwrap();
    let fifo = directory.join("index.json");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let begun = Instant::now();
    let (run, last) = task.keep(MINUTE);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((&run["outcome"], &last["persisted"]["reason"]), (&json!("pass"), &json!("Timeout")));
}
