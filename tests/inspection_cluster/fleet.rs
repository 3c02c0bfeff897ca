//! Runs on every node, with real nodes that write to one share, and go away and come back.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::ground::{self, Ground, condition};
use super::machines::{CLIENT, SERVER, closed, gone, ready, results, share, without};
use super::running::SELDOM;

/// Changes a node.
async fn change(ground: &Ground, node: &str, change: Value) {
    let nodes = Api::<Node>::all(ground.client.clone());
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(&change)).await.unwrap();
}

/// Waits until the CronJob plans so many pods.
async fn planned(ground: &Ground, count: i32) {
    ground
        .until_so(&format!("{count} pods are planned"), async || {
            let cron = ground.cron_job("check").await.spec.unwrap();
            cron.job_template.spec.unwrap().completions == Some(count)
        })
        .await;
}

/// The nodes on which the last run's pods have been, sorted: a node as often as there was a pod.
async fn been(ground: &Ground, task: &Value) -> Vec<String> {
    let job = task["status"]["lastRun"]["job"].as_str().expect("a Job");
    let of = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let pods = ground.api::<Pod>().list(&of).await.unwrap();
    let mut nodes: Vec<String> =
        pods.into_iter().filter_map(|pod| pod.spec.and_then(|spec| spec.node_name)).collect();
    nodes.sort();
    nodes
}

/// The last run passed on both nodes, each of which it was on once.
async fn whole(ground: &Ground, task: &Value) {
    assert_eq!(condition(task, "Healthy"), ("True".into(), "Passed".into()), "{task}");
    assert_eq!(condition(task, "ResultsPersisted"), ("True".into(), "Written".into()), "{task}");
    assert_eq!(been(ground, task).await, [SERVER, CLIENT], "{task}");
}

/// The last run names one node, which was not looked at.
fn missed(task: &Value) {
    let last = &task["status"]["lastRun"];
    let said = (&last["outcome"], &last["reason"], &last["persisted"]);
    assert_eq!(said, (&json!("error"), &json!("NodeNotInspected"), &json!(true)), "{task}");
    let named = task["status"]["failingRules"][0]["message"].as_str().unwrap();
    assert!(named.split(|c: char| !c.is_alphanumeric()).any(|word| word == CLIENT), "{named}");
    assert!(!named.split(|c: char| !c.is_alphanumeric()).any(|word| word == SERVER), "{named}");
}

#[test]
fn each_real_node_writes_its_part_to_one_share_and_one_that_goes_away_is_named_until_it_is_back() {
    ground::run_alone(async |ground: &Ground| {
        let class = share(ground, false).await;
        let mark = |mark: Value| json!({ "metadata": { "labels": { "inspected": mark } } });
        change(ground, SERVER, mark(json!(ground.name))).await;
        let rules = json!([
            { "name": "on-each", "tcp": { "host": "10.96.0.1", "port": 443 } },
            { "name": "once", "scope": "Once", "tcp": { "host": "10.96.0.1", "port": 443 } },
        ]);
        let spec = json!({
            "schedule": SELDOM, "target": "node/*", "rules": rules, "activeDeadlineSeconds": 45, "results": results(&class),
            "fanOut": { "mode": "Nodes", "nodeSelector": { "inspected": ground.name } },
        });
        ground.task("check", spec).await;
        planned(ground, 1).await;
        // A node that comes is planned for without a word.
        change(ground, CLIENT, mark(json!(ground.name))).await;
        planned(ground, 2).await;
        let task = ground.run_now("check", "both").await;
        whole(ground, &task).await;

        let nodes = Api::<Node>::all(ground.client.clone());
        let is = async |what: &str, so: fn(&Node) -> bool| {
            ground.until_so(what, async || so(&nodes.get(CLIENT).await.expect("a node"))).await;
        };
        change(ground, CLIENT, json!({ "spec": { "unschedulable": true } })).await;
        is("the node is closed", closed).await;
        let task = ground.run_now("check", "one is closed").await;
        missed(&task);
        // The second pod waits for its node until the first has ended, finds that one only, and leaves it be.
        let mut there = been(ground, &task).await;
        there.dedup();
        assert_eq!(there, [SERVER], "{task}");
        change(ground, CLIENT, json!({ "spec": { "unschedulable": null } })).await;
        is("the node is open again", ready).await;
        let task = ground.run_now("check", "it is open again").await;
        whole(ground, &task).await;

        let task = without(ground, CLIENT, async {
            is("the node is known to be away", closed).await;
            ground.run_now("check", "one is away").await
        })
        .await;
        missed(&task);
        let task = ground.run_now("check", "it is back").await;
        whole(ground, &task).await;

        // On the share stands what was told: each part once, and what is missing by its name.
        let claim = task["status"]["claimName"].as_str().expect("a claim").to_owned();
        ground.reader_on(SERVER, "reader", &claim).await;
        let directory = ground.directory("check").await;
        let index = ground.read("reader", &format!("{directory}/index.json")).await;
        let mut shards = Vec::new();
        for run in index["runs"].as_array().unwrap() {
            let path = format!("{directory}/{}", run["path"].as_str().unwrap());
            ground.sh("reader", &format!("cd {path} && sha256sum -c SHA256SUMS")).await;
            let run = ground.read("reader", &format!("{path}/run.json")).await;
            let parts = ground.sh("reader", &format!("ls {path}/shards")).await;
            let of = |name: &str, result: &str| {
                let rules = run["rules"].as_array().unwrap().iter();
                rules.filter(|rule| rule["name"] == name && rule["result"] == result).count()
            };
            shards.push((
                parts.replace('\n', " "),
                of("on-each", "pass"),
                of("on-each", "error"),
                of("once", "pass") <= 1,
            ));
        }
        let both = || (format!("{SERVER}.json {CLIENT}.json"), 2, 0, true);
        let one = || (format!("{SERVER}.json"), 1, 1, true);
        assert_eq!(shards, [both(), one(), both(), one(), both()], "{index}");

        // One that is no longer meant is not waited for.
        change(ground, CLIENT, mark(Value::Null)).await;
        planned(ground, 1).await;
        change(ground, SERVER, mark(Value::Null)).await;
        gone(ground, &class).await;
    });
}
