//! Runs on every node, whose parts become one run.

use super::*;

#[test]
fn the_parts_of_a_run_on_every_node_are_one_run_that_names_the_missing() {
    let mut task = Task::passing();
    let mut once = task.text["spec"]["rules"][0].clone();
    (once["name"], once["scope"]) = (json!("once"), json!("Once"));
    task.text["spec"]["rules"].as_array_mut().unwrap().push(once);
    let part = |node: &str, index: &str| task.part(node, index);
    let outcome = |run: &Value, name: &str| {
        let of_rule = run["rules"].as_array().unwrap().iter().filter(|rule| rule["name"] == name);
        let of = |rule: &Value| {
            let words = [&rule["node"], &rule["result"], &rule["reason"]]
                .map(|word| word.as_str().unwrap_or("-").to_owned());
            words.join(" ")
        };
        of_rule.map(of).collect::<Vec<_>>()
    };
    // The pod that evaluates what is evaluated once is not the first to end.
    run(part("b", "1").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!(seen["shards"], json!({"expected": 3, "present": 1, "missing": ["a", "c"]}));
    assert_eq!(
        outcome(&seen, "page"),
        ["b pass Passed", "a error NodeNotInspected", "c error NodeNotInspected"]
    );
    assert_eq!(outcome(&seen, "once"), ["- error NodeNotInspected"]);
    run(part("a", "0").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!(outcome(&seen, "once"), ["a pass Passed"]);
    assert_eq!(
        (&seen["outcome"], &seen["summary"]["error"], &seen["shards"]["missing"]),
        (&json!("error"), &json!(1), &json!(["c"]))
    );
    // A third pod that found its own node closed.
    run(part("a", "2").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!(
        (outcome(&seen, "once"), &seen["shards"]["present"]),
        (vec!["a pass Passed".to_owned()], &json!(2))
    );
    let word = task.place.path().join("a");
    fs::remove_file(&word).unwrap();
    run(part("a", "0").output().unwrap());
    run(part("c", "2").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!((&seen["outcome"], &seen["summary"]["pass"]), (&json!("pass"), &json!(4)), "{seen}");
    assert_eq!(task.index()["runs"][0]["summary"]["pass"], 4);
    // Its page is that of all parts.
    let [place] = task.places().try_into().unwrap();
    let page = fs::read_to_string(place.join("report.html")).unwrap();
    assert!(!page.contains("NodeNotInspected"), "{page}");
    assert_eq!(task.index()["runs"][0]["reportBytes"], page.len());
    // What each pod says last is what it found itself.
    let said = |node: &str| -> Value {
        serde_json::from_slice(&fs::read(task.place.path().join(node)).unwrap()).unwrap()
    };
    assert_eq!((&said("a")["summary"]["pass"], &said("b")["summary"]["pass"]), (&json!(2), &json!(1)));
    assert_eq!((&said("b")["summary"]["skip"], &said("c")["shards"]), (&json!(0), &json!(3)));
    let sums = fs::read_to_string(
        task.directory()
            .join(said("c")["path"].as_str().unwrap().split_once("0badcafe/").unwrap().1)
            .join("SHA256SUMS"),
    );
    assert!(sums.unwrap().contains(said("c")["sha256"].as_str().unwrap()));
}

#[test]
fn parts_that_end_at_once_lose_nothing() {
    let nodes: Vec<String> = (0..12).map(|at| format!("n{at}")).collect();
    // One by the schedule, whose id all parts know; one by hand, whose id is the first one's.
    for job in ["check-29804405", "by-hand"] {
        let task = Task::passing();
        let root = task.root();
        let start = |(at, node): (usize, &String)| {
            let (index, last) = (at.to_string(), task.place.path().join(node));
            let (root, last, all) = (root.to_str().unwrap(), last.to_str().unwrap(), nodes.join(","));
            let mut command = task.command(&[
                "--results",
                root,
                "--job",
                job,
                "--pod",
                node,
                "--termination-log",
                last,
                "--node",
                node,
                "--shard",
                &index,
                "--shards",
                "12",
                "--nodes",
                &all,
            ]);
            // Not all of them begin in one second.
            std::thread::sleep(Duration::from_millis(150));
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        let parts: Vec<_> = nodes.iter().enumerate().map(start).collect();
        for mut part in parts {
            assert!(part.wait().unwrap().success());
        }
        let [seen] = task.seen().try_into().unwrap();
        assert_eq!(
            (&seen["shards"]["present"], &seen["summary"]["pass"]),
            (&json!(12), &json!(12)),
            "{seen}"
        );
        for node in &nodes {
            let last: Value =
                serde_json::from_slice(&fs::read(task.place.path().join(node)).unwrap()).unwrap();
            assert_eq!(last["id"], seen["id"], "{node}");
        }
    }
}
