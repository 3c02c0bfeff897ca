//! Writers that are killed between two effects.

use std::collections::BTreeSet;

use super::*;

/// Those on the way of every run, and none.
const POINTS: [&str; 12] = [
    "results.half",
    "results.staged",
    "results.committed",
    "results.locked",
    "results.reconciled",
    "results.removing",
    "results.paged",
    "results.reported",
    "results.unpaged",
    "results.indexed",
    "results.done",
    "none",
];

/// Those on the way of a part of a run.
const OF_PARTS: [&str; 6] = [
    "results.shard",
    "results.locked",
    "results.gathering",
    "results.gathered",
    "results.reconciled",
    "results.done",
];

#[test]
fn every_fault_point_of_results_has_a_case() {
    let ours = fault_points::all().into_iter().filter(|point| point.starts_with("results."));
    let cases: BTreeSet<String> = POINTS.iter().chain(&OF_PARTS).map(|&point| point.to_owned()).collect();
    assert_eq!(ours.chain(["none".to_owned()]).collect::<BTreeSet<_>>(), cases);
}

#[test]
fn a_writer_killed_at_any_point_leaves_whole_runs_and_the_next_one_puts_all_in_order() {
    for action in ["kill", "kill-child"] {
        for point in POINTS {
            let mut task = Task::passing();
            // Room for two runs, and for the page of one of them.
            task.text["spec"]["results"]["history"] = json!({"maxRuns": 2, "maxBytes": "40k"});
            for at in 0..2 {
                task.keep(MINUTE + at * 5);
            }
            let last = task.place.path().join("word");
            let status = task
                .kept(MINUTE + 10, &last)
                .env("KURATION_FAULT", format!("{point}={action}"))
                .output()
                .unwrap()
                .status;
            // With its child alone killed, the run itself goes on to its end.
            assert_eq!(status.success(), point == "none" || action == "kill-child", "{point} {action}");
            let whole = task.seen().len();
            assert!((2..=3).contains(&whole), "{whole} runs after {point}");
            let_the_lock_expire(&task);
            let (_, last) = task.keep(MINUTE + 15);
            assert_eq!(last["persisted"]["ok"], true, "after {point}: {last}");
            assert_eq!(task.seen().len(), 2, "after {point}");
            let index = task.index();
            assert_eq!(index["runs"].as_array().unwrap().len(), 2, "after {point}: {index}");
            for run in index["runs"].as_array().unwrap() {
                let page = task.directory().join(run["path"].as_str().unwrap()).join("report.html");
                let bytes = fs::metadata(page).ok().map(|page| page.len());
                assert_eq!(run["reportBytes"].as_u64(), bytes, "after {point}: {index}");
            }
            assert!(index["runs"][0]["reportBytes"].is_u64(), "after {point}: {index}");
            assert!(!task.directory().join(".lock").exists());
            let left = fs::read_dir(task.directory().join("runs")).unwrap().flatten();
            let gone = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".gone-")).count();
            assert_eq!(gone, 0, "after {point}");
        }
    }
}

#[test]
fn the_page_of_a_run_whose_writer_died_is_made_by_the_next_one() {
    for point in ["results.committed", "results.reconciled", "results.paged"] {
        let task = Task::passing();
        let last = task.place.path().join("word");
        let mut dies = task.kept(MINUTE, &last);
        dies.env("KURATION_FAULT", format!("{point}=kill")).output().unwrap();
        let_the_lock_expire(&task);
        task.keep(MINUTE + 5);
        let index = task.index();
        for run in index["runs"].as_array().unwrap() {
            let page = task.directory().join(run["path"].as_str().unwrap()).join("report.html");
            let page = fs::read_to_string(page).unwrap();
            assert!(page.contains(run["id"].as_str().unwrap()), "after {point}");
            assert_eq!(run["reportBytes"], page.len(), "after {point}: {index}");
        }
        assert_eq!(index["runs"].as_array().unwrap().len(), 2, "after {point}");
    }
}

/// The lock of the dead expires; here it is made old.
fn let_the_lock_expire(task: &Task) {
    let lock = task.directory().join(".lock");
    if lock.exists() {
        fs::remove_file(lock.join("owner.json")).ok();
        assert!(Command::new("touch").args(["-d", "1 hour ago"]).arg(&lock).status().unwrap().success());
    }
}

#[test]
fn a_part_killed_at_any_point_leaves_a_whole_run_and_the_next_part_completes_it() {
    for action in ["kill", "kill-child"] {
        for point in OF_PARTS {
            let task = Task::passing();
            run(task.part("a", "0").output().unwrap());
            let mut dies = task.part("b", "1");
            let status = dies.env("KURATION_FAULT", format!("{point}={action}")).output().unwrap().status;
            assert_eq!(status.success(), action == "kill-child", "{point} {action}");
            // Before and after run.json is replaced, the sums name the one that is to go as well.
            let [place] = task.places().try_into().unwrap();
            let sum = Command::new("sha256sum").arg("run.json").current_dir(&place).output().unwrap().stdout;
            let sums = fs::read_to_string(place.join("SHA256SUMS")).unwrap();
            assert!(sums.contains(String::from_utf8(sum).unwrap().trim_end()), "{point} {action}: {sums}");
            let_the_lock_expire(&task);
            run(task.part("c", "2").output().unwrap());
            run(task.part("b", "1").output().unwrap());
            let [seen] = task.seen().try_into().unwrap();
            let (present, passed) = (&seen["shards"]["present"], &seen["summary"]["pass"]);
            assert_eq!((present, passed), (&json!(3), &json!(3)), "{point} {action}: {seen}");
            assert_eq!(task.index()["runs"][0]["summary"]["pass"], 3, "{point} {action}");
            assert!(!task.directory().join(".lock").exists(), "{point} {action}");
        }
    }
}
