//! Where results go when their volume does not take them, and what becomes of it.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::ground::{self, Ground, condition, kubectl, typed};
use super::running::{CLAIM, SELDOM};

/// A class of the pool under another name. It begins with z: the controller takes the first of the driver for tasks that say none.
async fn class(ground: &Ground, name: &str) {
    let classes = Api::<StorageClass>::all(ground.client.clone());
    let mut class = json!(ground.pool_class().await);
    class["metadata"] = json!({ "name": name });
    classes.create(&Default::default(), &typed(class)).await.unwrap();
}

fn claim(name: &str, class: &str, size: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": class, "resources": { "requests": { "storage": size } },
    } })
}

async fn kept_aside(ground: &Ground, task: &str) -> usize {
    let map = ground.api::<ConfigMap>().get_opt(&format!("{task}-backfill")).await.unwrap();
    map.and_then(|map| map.data).map_or(0, |data| data.len())
}

#[test]
fn a_run_whose_volume_does_not_come_goes_on_without_and_is_written_down_later() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        let late = format!("z-{}-late", ground.name);
        ground.make::<PersistentVolumeClaim>(claim("results", &late, "64Mi")).await;
        let results = json!({ "claimName": "results" });
        ground.task("check", json!({ "schedule": SELDOM, "target": "web", "results": results })).await;
        let begun = std::time::Instant::now();
        let task = ground.run_now("check", "without").await;
        let taken = begun.elapsed();
        assert_eq!(condition(&task, "Healthy"), ("True".into(), "Passed".into()), "{task}");
        assert_eq!(
            condition(&task, "ResultsPersisted"),
            ("False".into(), "VolumeUnavailable".into()),
            "{task}"
        );
        assert!(taken.as_secs() < 90, "{taken:?}");
        ground.until_so("the run is kept aside", async || kept_aside(ground, "check").await == 1).await;
        let first = task["status"]["lastRun"]["id"].clone();
        let told = ground.told("check").await;
        assert!(told.iter().any(|(reason, _)| reason == "ResultsUnavailable"), "{told:?}");
        // The volume comes.
        class(ground, &late).await;
        let task = ground.run_now("check", "with").await;
        assert_eq!(condition(&task, "ResultsPersisted"), ("True".into(), "Written".into()), "{task}");
        ground.until_so("nothing is kept aside", async || kept_aside(ground, "check").await == 0).await;
        ground.reader("reader", "results").await;
        let directory = ground.directory("check").await;
        let index = ground.read("reader", &format!("{directory}/index.json")).await;
        let runs = index["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2, "{index}");
        assert_eq!(
            (&runs[1]["id"], &runs[1]["detail"], &runs[1]["trigger"]),
            (&first, &json!("SummaryOnly"), &json!("Backfill"))
        );
        assert_eq!(runs[1]["outcome"], "pass");
        drop(Api::<StorageClass>::all(ground.client.clone()).delete(&late, &DeleteParams::default()).await);
    });
}

#[test]
fn a_run_on_a_full_volume_is_kept_aside_and_written_down_when_there_is_room() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        let own = format!("z-{}-small", ground.name);
        class(ground, &own).await;
        ground.make::<PersistentVolumeClaim>(claim("results", &own, "16Mi")).await;
        let results = json!({ "claimName": "results" });
        ground.task("check", json!({ "schedule": SELDOM, "target": "web", "results": results })).await;
        ground.run_now("check", "with room").await;
        ground.reader("reader", "results").await;
        ground.sh("reader", "dd if=/dev/urandom of=/data/fill bs=64k 2>/dev/null; sync; dd if=/dev/urandom of=/data/fill2 bs=1 count=65536 2>/dev/null; sync; true").await;
        let task = ground.run_now("check", "full").await;
        assert_eq!(condition(&task, "Healthy"), ("True".into(), "Passed".into()), "{task}");
        let (status, reason) = condition(&task, "ResultsPersisted");
        assert!(status == "False" && ["ENOSPC", "EDQUOT"].contains(&reason.as_str()), "{reason}: {task}");
        ground.until_so("the run is kept aside", async || kept_aside(ground, "check").await == 1).await;
        ground.sh("reader", "rm -f /data/fill /data/fill2; sync").await;
        let task = ground.run_now("check", "with room again").await;
        assert_eq!(condition(&task, "ResultsPersisted"), ("True".into(), "Written".into()), "{task}");
        ground.until_so("nothing is kept aside", async || kept_aside(ground, "check").await == 0).await;
        let directory = ground.directory("check").await;
        let index = ground.read("reader", &format!("{directory}/index.json")).await;
        let details: Vec<&Value> =
            index["runs"].as_array().unwrap().iter().map(|run| &run["detail"]).collect();
        assert_eq!(details, ["Full", "SummaryOnly", "Full"], "{index}");
        drop(Api::<StorageClass>::all(ground.client.clone()).delete(&own, &DeleteParams::default()).await);
    });
}

#[test]
fn a_claim_of_a_tasks_own_goes_or_stays_with_it_as_the_task_says() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        // What it says last counts.
        for (name, retention) in [("goes", "Retain"), ("stays", "Delete")] {
            let results = json!({ "volumeClaimTemplate": { "resources": { "requests": { "storage": "32Mi" } } }, "claimRetention": retention });
            ground.task(name, json!({ "schedule": SELDOM, "target": "web", "results": results })).await;
            let task = ground.run_now(name, "now").await;
            assert_eq!(task["status"]["claimName"], format!("{name}-results"));
            assert_eq!(task["status"]["lastRun"]["persisted"], true, "{task}");
        }
        for (name, retention) in [("goes", "Delete"), ("stays", "Retain")] {
            ground.change(name, json!({ "spec": { "results": { "claimRetention": retention } } })).await;
            let owned = retention == "Delete";
            ground
                .until_so("the claim follows", async || {
                    let claim =
                        ground.api::<PersistentVolumeClaim>().get(&format!("{name}-results")).await.unwrap();
                    claim.metadata.owner_references.is_some_and(|owners| !owners.is_empty()) == owned
                })
                .await;
        }
        for name in ["goes", "stays"] {
            ground.tasks().delete(name, &DeleteParams::default()).await.unwrap();
        }
        let claims = ground.api::<PersistentVolumeClaim>();
        ground
            .until_so("one claim is gone", async || claims.get_opt("goes-results").await.unwrap().is_none())
            .await;
        for name in ["goes", "stays"] {
            ground.until_so("Jobs are gone", async || ground.jobs(name).await.is_empty()).await;
            let cron = ground.api::<k8s_openapi::api::batch::v1::CronJob>().get_opt(name).await.unwrap();
            assert!(cron.is_none(), "{cron:?}");
        }
        let kept = claims.get("stays-results").await.unwrap();
        assert!(kept.metadata.deletion_timestamp.is_none());
        assert_eq!(kept.status.and_then(|status| status.phase).as_deref(), Some("Bound"));
    });
}

#[test]
fn a_secret_stands_nowhere_but_in_the_request_that_needs_it() {
    ground::run(async |ground: &Ground| {
        const CANARY: &str = "canary-3fa9c1";
        ground.web("web").await;
        // A page that says what it was sent.
        let script = "mkdir -p /tmp/www/cgi-bin && printf '#!/bin/sh\\necho\\necho $HTTP_X_TOKEN | md5sum\\n' > /tmp/www/cgi-bin/a \
                      && chmod +x /tmp/www/cgi-bin/a";
        ground.sh("web", script).await;
        let digest = ground.sh("web", &format!("echo {CANARY} | md5sum | cut -c 1-32")).await;
        ground
            .make::<k8s_openapi::api::core::v1::Secret>(
                json!({ "metadata": { "name": "token" }, "stringData": { "value": CANARY } }),
            )
            .await;
        let pod = ground.api::<k8s_openapi::api::core::v1::Pod>().get("web").await.unwrap();
        let url = format!("http://{}:8080/cgi-bin/a", pod.status.and_then(|status| status.pod_ip).unwrap());
        let rules = json!([{
            "name": "page",
            "http": { "url": url, "headersFrom": [{ "name": "X-Token", "secretKeyRef": { "name": "token", "key": "value" } }] },
            "assert": [{ "expr": format!("result.body.contains('{digest}')"), "message": "the token did not come" }],
        }]);
        ground.task("check", json!({ "schedule": SELDOM, "target": "web", "rules": rules })).await;
        let task = ground.run_now("check", "now").await;
        assert_eq!(task["status"]["lastRun"]["outcome"], "pass", "the secret was used: {task}");
        assert!(!task.to_string().contains(CANARY), "{task}");
        for what in ["events", "pods", "jobs", "cronjobs", "configmaps"] {
            let shown = kubectl(&["get", what, "-n", &ground.name, "-o", "json"]).unwrap();
            assert!(!shown.contains(CANARY), "{what}");
        }
        let job = format!("job/{}", task["status"]["lastRun"]["job"].as_str().unwrap());
        assert!(!kubectl(&["logs", "-n", &ground.name, &job]).unwrap().contains(CANARY));
        ground.reader("reader", CLAIM).await;
        assert_eq!(ground.sh("reader", &format!("grep -rl {CANARY} /data | wc -l")).await, "0");
    });
}

#[test]
fn a_task_that_insists_on_its_volume_has_no_run_without_it() {
    ground::run(async |ground: &Ground| {
        ground.web("web").await;
        let never = format!("z-{}-never", ground.name);
        ground.make::<PersistentVolumeClaim>(claim("results", &never, "64Mi")).await;
        let results = json!({ "claimName": "results", "onUnavailable": "Fail" });
        let spec =
            json!({ "schedule": SELDOM, "target": "web", "results": results, "activeDeadlineSeconds": 60 });
        ground.task("check", spec).await;
        let task = ground.run_now("check", "now").await;
        assert_eq!(task["status"]["lastRun"]["outcome"], "error", "{task}");
        assert_eq!(condition(&task, "Healthy"), ("Unknown".into(), "Inconclusive".into()));
        assert_eq!(condition(&task, "ResultsPersisted").0, "False");
        assert_eq!(ground.jobs("check").await.len(), 1);
    });
}
