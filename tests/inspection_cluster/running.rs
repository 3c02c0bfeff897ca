//! Tasks run: on schedule, when they are asked to, on every node; and what is said of it.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::ground::{self, Ground, condition, kubectl, typed};

/// A schedule that is not due while a case runs.
pub const SELDOM: &str = "0 0 1 1 *";

/// The claim that tasks share which say nothing of results.
pub const CLAIM: &str = "kuration-inspection-results";

#[test]
fn the_smallest_task_runs_and_its_result_is_on_a_volume_of_the_driver() {
    ground::run(async |ground: &Ground| {
        ground.web("mysql-service").await;
        ground.task("check-database", json!({ "schedule": "*/5 * * * *", "target": "mysql-service" })).await;
        let task = ground.run_now("check-database", "1").await;
        let last = &task["status"]["lastRun"];
        assert_eq!(
            (&last["outcome"], &last["persisted"], &last["findings"]),
            (&json!("pass"), &json!(true), &json!(0))
        );
        let conditions = ["Ready", "Healthy", "ResultsPersisted"].map(|name| condition(&task, name));
        let said = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(conditions, [said("True", "Scheduled"), said("True", "Passed"), said("True", "Written")]);
        assert_eq!(task["status"]["observedGeneration"], task["metadata"]["generation"]);
        assert!(task["status"]["nextScheduleTime"].is_string(), "{task}");
        assert!(json!(task["status"]).to_string().len() < 8 << 10);
        // What came by itself.
        ground.api::<ServiceAccount>().get("kuration-inspector").await.unwrap();
        ground.api::<RoleBinding>().get("kuration-inspector").await.unwrap();
        let claim = ground.api::<PersistentVolumeClaim>().get(CLAIM).await.unwrap();
        let volume = claim.spec.and_then(|spec| spec.volume_name).expect("a bound claim");
        let volume = Api::<PersistentVolume>::all(ground.client.clone()).get(&volume).await.unwrap();
        let driver = volume.spec.and_then(|spec| spec.csi).map(|csi| csi.driver).unwrap_or_default();
        assert!(driver.ends_with(".csi.kuration.io"), "{driver}");
        // What a person sees.
        let shown = kubectl(&["get", "insp", "-n", &ground.name]).unwrap();
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let head = ["NAME", "SCHEDULE", "TARGET", "LAST-RUN", "VERDICT", "FINDINGS", "NEXT", "AGE"];
        assert_eq!(lines[0], head);
        assert!(lines[1].contains(&"pass") && lines[1].contains(&"mysql-service"), "{shown}");
        // What is on the volume.
        ground.reader("reader", CLAIM).await;
        let directory = ground.directory("check-database").await;
        let path = last["path"].as_str().unwrap();
        assert_eq!(
            format!("/data/{path}").strip_prefix(&directory).map(|path| path.starts_with("/runs/20")),
            Some(true)
        );
        let sums = ground
            .sh("reader", &format!("cd /data/{path} && sha256sum -c SHA256SUMS && sha256sum run.json"))
            .await;
        assert!(sums.contains(last["sha256"].as_str().unwrap()), "{sums}");
        let run = ground.read("reader", &format!("/data/{path}/run.json")).await;
        assert_eq!((&run["outcome"], &run["trigger"]), (&json!("pass"), &json!("Manual")));
        assert_eq!(run["rules"][0]["observed"]["readyEndpoints"], json!(1));
        let index = ground.read("reader", &format!("{directory}/index.json")).await;
        assert_eq!(index["runs"].as_array().unwrap().len(), 1);
        let report = ground.sh("reader", &format!("cat {directory}/report.html")).await;
        assert!(report.contains("check-database") && report.contains(run["id"].as_str().unwrap()));
        let page = ground.sh("reader", &format!("cat /data/{path}/report.html")).await;
        assert!(page == report, "the newest run's page is the task's");
        assert_eq!(index["runs"][0]["reportBytes"], json!(page.len()));
        let told = ground.told("check-database").await;
        assert!(told.iter().any(|(reason, _)| reason == "ScheduleAccepted"), "{told:?}");
        assert!(told.iter().any(|(reason, _)| reason == "RunPassed"), "{told:?}");
    });
}

#[test]
fn what_is_broken_fails_and_what_is_mended_passes_again() {
    ground::run(async |ground: &Ground| {
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        let task = ground.run_now("check", "before there is a Service").await;
        assert_eq!(condition(&task, "Healthy"), ("False".into(), "Failed".into()));
        assert_eq!(task["status"]["failingRules"][0]["reason"], "NotFound", "{task}");
        ground.web("web").await;
        let task = ground.run_now("check", "with one").await;
        assert_eq!(condition(&task, "Healthy"), ("True".into(), "Passed".into()));
        assert_eq!(task["status"]["consecutiveFailures"], 0);
        ground.api::<Pod>().delete("web", &DeleteParams::default()).await.unwrap();
        ground
            .until_so("it has no endpoint", async || {
                ground.api::<Pod>().get_opt("web").await.unwrap().is_none()
            })
            .await;
        let task = ground.run_now("check", "without a pod").await;
        assert_eq!(task["status"]["failingRules"][0]["reason"], "NoReadyEndpoints", "{task}");
        let told = ground.told("check").await;
        assert!(told.iter().any(|(reason, _)| reason == "RunFailed"), "{told:?}");
    });
}

#[test]
fn a_task_runs_when_it_is_due_and_says_when_it_is_due_next() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        ground.task("check", json!({ "schedule": "* * * * *", "target": "web" })).await;
        let task = ground.until("check", "has run", |task| task["status"]["lastRun"].is_object()).await;
        let last = &task["status"]["lastRun"];
        assert_eq!((&last["trigger"], &last["outcome"]), (&json!("Schedule"), &json!("pass")), "{task}");
        let job = ground.api::<Job>().get(last["job"].as_str().unwrap()).await.unwrap();
        let due = &job.annotations()["batch.kubernetes.io/cronjob-scheduled-timestamp"];
        let due: jiff::Timestamp = due.parse().unwrap();
        // The same moment, by the id that needs no look at the API.
        assert!(
            last["id"].as_str().unwrap().starts_with(&due.strftime("%Y%m%dT%H%M%SZ-").to_string()),
            "{due} {last}"
        );
        let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert_eq!(time(&task["status"]["lastScheduleTime"]), due);
        let next = time(&task["status"]["nextScheduleTime"]);
        assert!(next > due && next.as_second() % 60 == 0, "{next}");
        ground
            .until("check", "has run again", |task| {
                task["status"]["recentRuns"].as_array().is_some_and(|runs| runs.len() > 1)
            })
            .await;
        assert_eq!(ground.seen("check").await["status"]["missedRuns"], 0);
    });
}

#[test]
fn a_task_that_is_suspended_starts_no_run_but_the_one_that_is_asked_for() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        ground.task("check", json!({ "schedule": "* * * * *", "target": "web", "suspend": true })).await;
        let task = ground.until("check", "is ready", |task| condition(task, "Ready").0 == "True").await;
        assert_eq!(condition(&task, "Ready").1, "Suspended");
        assert!(task["status"]["nextScheduleTime"].is_null(), "{task}");
        assert_eq!(ground.cron_job("check").await.spec.unwrap().suspend, Some(true));
        let task = ground.run_now("check", "now").await;
        assert_eq!(task["status"]["lastRun"]["trigger"], "Manual");
        tokio::time::sleep(std::time::Duration::from_secs(65)).await;
        assert_eq!(ground.jobs("check").await.len(), 1);
        ground.change("check", json!({ "spec": { "suspend": false } })).await;
        ground.until("check", "is scheduled", |task| condition(task, "Ready").1 == "Scheduled").await;
        ground.until("check", "runs", |task| task["status"]["lastRun"]["trigger"] == "Schedule").await;
        assert_eq!(ground.seen("check").await["status"]["missedRuns"], 0);
    });
}

#[test]
fn a_run_is_asked_for_once_by_each_value_and_by_a_job_made_from_the_cronjob() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        let task = ground.run_now("check", "one").await;
        assert_eq!(task["status"]["lastRunRequest"], "one");
        ground.ask("check", "one").await;
        ground.change("check", json!({ "metadata": { "labels": { "touched": "yes" } } })).await;
        ground.run_now("check", "two").await;
        assert_eq!(ground.jobs("check").await.len(), 2);
        let made = kubectl(&["create", "job", "by-hand", "--from=cronjob/check", "-n", &ground.name]);
        made.unwrap();
        let task =
            ground.until("check", "has run", |task| task["status"]["lastRun"]["job"] == "by-hand").await;
        let last = &task["status"]["lastRun"];
        assert_eq!(
            (&last["trigger"], &last["outcome"], &last["persisted"]),
            (&json!("Manual"), &json!("pass"), &json!(true))
        );
        let runs = task["status"]["recentRuns"].as_array().unwrap();
        assert_eq!(runs.len(), 3, "{task}");
    });
}

#[test]
fn a_rule_that_lacks_a_right_is_an_error_and_names_the_right() {
    ground::run(async |ground: &Ground| {
        let rules = json!([
            { "name": "everywhere", "severity": "high", "workload": { "kinds": ["Deployment"], "namespaces": "All" } },
            { "name": "here", "workload": { "kinds": ["Deployment"] } },
        ]);
        ground.task("check", json!({ "schedule": SELDOM, "target": "web", "rules": rules })).await;
        let task = ground.run_now("check", "now").await;
        assert_eq!(condition(&task, "Healthy"), ("Unknown".into(), "Inconclusive".into()));
        let failing = &task["status"]["failingRules"];
        assert_eq!(failing.as_array().map(Vec::len), Some(1), "{failing}");
        assert_eq!(
            (&failing[0]["name"], &failing[0]["result"], &failing[0]["reason"]),
            (&json!("everywhere"), &json!("error"), &json!("Forbidden"))
        );
        let message = failing[0]["message"].as_str().unwrap();
        for word in ["list", "deployments"] {
            assert!(message.contains(word), "{message}");
        }
        assert_eq!(task["status"]["lastRun"]["summary"]["pass"], 1, "{task}");
    });
}

#[test]
fn every_node_is_looked_at_once_and_one_that_is_gone_is_named() {
    ground::run_alone(async |ground: &Ground| {
        let nodes = Api::<Node>::all(ground.client.clone());
        let here: Vec<String> =
            nodes.list(&Default::default()).await.unwrap().into_iter().map(|node| node.name_any()).collect();
        // Volumes of a pool are on one node alone: so only that one is meant, and one that nobody will ever hear of.
        let first = std::env::var("KURATION_POOL_NODE").unwrap_or_else(|_| here[0].clone());
        let label = json!({ "metadata": { "labels": { "inspected": ground.name } } });
        nodes.patch(&first, &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
        let ghost = format!("ghost-{}", ground.name);
        let node: Node = typed(
            json!({ "metadata": { "name": ghost, "labels": { "inspected": ground.name, "kubernetes.io/hostname": ghost } } }),
        );
        nodes.create(&Default::default(), &node).await.unwrap();
        let rules = json!([
            { "name": "on-each", "tcp": { "host": "10.96.0.1", "port": 443 } },
            { "name": "once", "scope": "Once", "tcp": { "host": "10.96.0.1", "port": 443 } },
        ]);
        ground
            .task(
                "check",
                json!({
                    "schedule": SELDOM, "target": "node/*", "rules": rules, "activeDeadlineSeconds": 40,
                    "fanOut": { "mode": "Nodes", "nodeSelector": { "inspected": ground.name } },
                }),
            )
            .await;
        let task = ground.run_now("check", "with a ghost").await;
        let last = &task["status"]["lastRun"];
        assert_eq!(
            (&last["outcome"], &last["reason"]),
            (&json!("error"), &json!("NodeNotInspected")),
            "{task}"
        );
        assert_eq!(last["persisted"], true, "{task}");
        let failing = task["status"]["failingRules"][0]["message"].as_str().unwrap();
        assert!(failing.contains(&ghost) && !failing.contains(&first), "{failing}");
        nodes.delete(&ghost, &DeleteParams::default()).await.unwrap();
        ground
            .until_so("one pod is planned", async || {
                let cron = ground.cron_job("check").await.spec.unwrap();
                cron.job_template.spec.unwrap().completions == Some(1)
            })
            .await;
        let task = ground.run_now("check", "without").await;
        assert_eq!(condition(&task, "Healthy"), ("True".into(), "Passed".into()), "{task}");
        ground.reader("reader", CLAIM).await;
        let directory = ground.directory("check").await;
        let index = ground.read("reader", &format!("{directory}/index.json")).await;
        let paths: Vec<String> = index["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["path"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(paths.len(), 2, "{index}");
        for path in &paths {
            ground
                .sh(
                    "reader",
                    &format!(
                        "cd {directory}/{path} && sha256sum -c SHA256SUMS && test -f shards/{first}.json"
                    ),
                )
                .await;
        }
        let with = ground.read("reader", &format!("{directory}/{}/run.json", paths[1])).await;
        assert_eq!(with["shards"], json!({ "expected": 2, "present": 1, "missing": [ghost] }));
        let of =
            |name: &str| with["rules"].as_array().unwrap().iter().filter(|rule| rule["name"] == name).count();
        assert_eq!((of("on-each"), of("once")), (2, 1), "{with}");
        let without = ground.read("reader", &format!("{directory}/{}/run.json", paths[0])).await;
        assert_eq!(
            (&without["outcome"], &without["summary"]["pass"]),
            (&json!("pass"), &json!(2)),
            "{without}"
        );
    });
}

#[test]
fn a_runner_that_is_killed_is_an_error_and_the_history_stays_whole() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        ground.run_now("check", "first").await;
        // A server that takes its time, so that there is a pod to end.
        ground.sh("web", "nc -ll -p 9000 -e sleep 600 >/dev/null 2>&1 &").await;
        let address =
            ground.api::<Pod>().get("web").await.unwrap().status.and_then(|status| status.pod_ip).unwrap();
        let hang =
            json!([{ "name": "slow", "timeoutSeconds": 60, "redis": { "host": address, "port": 9000 } }]);
        ground.change("check", json!({ "spec": { "rules": hang } })).await;
        ground
            .until("check", "is seen", |task| {
                task["status"]["observedGeneration"] == task["metadata"]["generation"]
            })
            .await;
        ground.ask("check", "second").await;
        let mut running = String::new();
        ground
            .until_so("a pod runs", async || {
                let pods = ground.api::<Pod>().list(&Default::default()).await.unwrap();
                let of_job = |pod: &&Pod| pod.labels().contains_key("kuration.io/task");
                let runs = |pod: &&Pod| {
                    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
                };
                running = pods.iter().filter(of_job).find(runs).map(|pod| pod.name_any()).unwrap_or_default();
                !running.is_empty()
            })
            .await;
        ground.api::<Pod>().delete(&running, &DeleteParams::default().grace_period(0)).await.unwrap();
        let task = ground
            .until("check", "has ended", |task| {
                task["status"]["recentRuns"].as_array().is_some_and(|runs| runs.len() == 2)
            })
            .await;
        assert_eq!(task["status"]["lastRun"]["outcome"], "error", "{task}");
        assert!(task["status"]["lastRun"]["reason"].is_string(), "{task}");
        ground.change("check", json!({ "spec": { "rules": null } })).await;
        let task = ground.run_now("check", "third").await;
        assert_eq!(task["status"]["lastRun"]["outcome"], "pass", "{task}");
        ground.reader("reader", CLAIM).await;
        let directory = ground.directory("check").await;
        let index = ground.read("reader", &format!("{directory}/index.json")).await;
        assert_eq!(index["runs"].as_array().map(Vec::len), Some(2), "{index}");
        ground
            .sh(
                "reader",
                &format!(
                    "for d in {directory}/runs/*/*/*/*; do cd $d && sha256sum -c SHA256SUMS || exit 1; done"
                ),
            )
            .await;
    });
}

#[test]
fn a_schedule_that_is_changed_is_the_cronjobs_at_once() {
    ground::run(async |ground: &Ground| {
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        let uid = ground.cron_job("check").await.uid();
        ground
            .change("check", json!({ "spec": { "schedule": "30 2 * * *", "timeZone": "Asia/Shanghai" } }))
            .await;
        ground
            .until_so("the CronJob has it", async || {
                let cron = ground.api::<CronJob>().get("check").await.unwrap();
                let spec = cron.spec.as_ref().unwrap();
                cron.uid() == uid
                    && spec.schedule == "30 2 * * *"
                    && spec.time_zone.as_deref() == Some("Asia/Shanghai")
            })
            .await;
        let task = ground
            .until("check", "knows it", |task| {
                task["status"]["nextScheduleTime"].as_str().is_some_and(|next| next.contains("T18:30:00"))
            })
            .await;
        assert_eq!(condition(&task, "Ready").1, "Scheduled");
        // What the API server lets through and nobody can mean.
        ground.change("check", json!({ "spec": { "timeZone": "Asia/Nowhere" } })).await;
        let task = ground.until("check", "is not ready", |task| condition(task, "Ready").0 == "False").await;
        assert_eq!(condition(&task, "Ready").1, "UnknownTimeZone");
    });
}

#[test]
fn runs_that_never_start_are_counted_and_told() {
    ground::run_alone(async |ground: &Ground| {
        let spec = json!({ "schedule": "* * * * *", "target": "web", "startingDeadlineSeconds": 10 });
        ground.task("check", spec).await;
        ground.until("check", "has run", |task| task["status"]["lastRun"].is_object()).await;
        // Who starts them stands still: its process is in the namespaces that these tests run in.
        let signal = |word: &str| {
            ground::output(std::process::Command::new("pkill").args([word, "--exact", "kube-controller"]))
        };
        signal("--signal=STOP").unwrap();
        let begun = std::time::Instant::now();
        let counted = async {
            while ground.seen("check").await["status"]["missedRuns"].as_u64().unwrap_or(0) < 3 {
                assert!(begun.elapsed().as_secs() < 330, "{}", ground.seen("check").await);
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
        };
        let counted = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(counted)).await;
        signal("--signal=CONT").unwrap();
        assert!(counted.is_ok(), "not counted");
        let told = ground.told("check").await;
        assert!(told.iter().any(|(reason, _)| reason == "RunMissed"), "{told:?}");
        let task = ground.seen("check").await;
        let runs = |task: &Value| task["status"]["recentRuns"].as_array().map_or(0, Vec::len);
        ground.until("check", "runs again", |now| runs(now) > runs(&task)).await;
        assert_eq!(ground.seen("check").await["status"]["missedRuns"], task["status"]["missedRuns"]);
    });
}

#[test]
fn a_command_has_its_own_container_and_neither_the_account_nor_the_others_files() {
    ground::run(async |ground: &Ground| {
        ground
            .make::<Secret>(json!({ "metadata": { "name": "login" }, "stringData": { "TOKEN": "known" } }))
            .await;
        let of = |name: &str, script: &str| {
            let image = "docker.io/library/busybox:1";
            json!({ "name": name, "timeoutSeconds": 60,
                "exec": { "image": image, "command": ["sh", "-c", script], "envFrom": [{ "name": "login" }] } })
        };
        let mut says = of("says", "echo \"{\\\"token\\\": \\\"$TOKEN\\\"}\"");
        says["assert"] = json!([{ "expr": "result.json.token == 'known'", "message": "no token" }]);
        let rules = json!([
            says,
            of("warns", "echo a little; exit 1"),
            of("fails", "echo very; exit 2"),
            of("could-not-tell", "echo who knows; exit 3"),
            of(
                "reaches-nothing",
                "ls /var/run/secrets/kubernetes.io /results /etc/kuration && exit 2; exit 0"
            ),
            of(
                "writes-nowhere",
                "touch /x 2>/dev/null && exit 2; touch /run/kuration/bin/x 2>/dev/null && exit 2; exit 0"
            ),
        ]);
        ground.task("check", json!({ "schedule": SELDOM, "target": "node/first", "rules": rules })).await;
        let task = ground.run_now("check", "1").await;
        let summary = &task["status"]["lastRun"]["summary"];
        let counts = ["pass", "warn", "fail", "error"].map(|word| summary[word].as_u64().unwrap_or(99));
        assert_eq!(counts, [3, 1, 1, 1], "{task}");
        let said = task["status"]["failingRules"].to_string();
        for words in ["a little", "very", "who knows"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    });
}

#[test]
fn a_claim_that_a_probe_names_is_written_to_and_read_back() {
    ground::run(async |ground: &Ground| {
        let claim = json!({ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteMany"],
            "storageClassName": ground.pool_class().await.name_any(), "resources": { "requests": { "storage": "16Mi" } } } });
        ground.make::<PersistentVolumeClaim>(claim).await;
        let rules = json!([{ "name": "writes", "volumeProbe": { "mode": "Write", "claimName": "data" } }]);
        ground.task("check", json!({ "schedule": SELDOM, "target": "node/first", "rules": rules })).await;
        let task = ground.run_now("check", "1").await;
        assert_eq!(condition(&task, "Healthy"), ("True".into(), "Passed".into()), "{task}");
    });
}
