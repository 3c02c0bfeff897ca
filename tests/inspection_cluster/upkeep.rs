//! What the controller keeps in order, and how it fares itself.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::CronJob;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::ground::{self, Ground, chart, condition, definition, helm, kubectl};
use super::running::SELDOM;

#[test]
fn without_the_definition_the_controller_waits_and_says_so() {
    ground::run(async |ground: &Ground| {
        let seen = &ground.installed;
        assert!(!seen.ready_without);
        assert_eq!(seen.restarts_without, 0);
        let said =
            "the cluster has no InspectionTask: helm install kuration-crd ./charts/kuration-server-crd";
        assert_eq!(seen.log_without.matches(said).count(), 1, "once: {}", seen.log_without);
        assert!(seen.ready_after < Duration::from_secs(20), "{:?}", seen.ready_after);
    });
}

#[test]
fn a_cronjob_that_is_changed_or_deleted_by_hand_is_put_back() {
    ground::run(async |ground: &Ground| {
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        let first = ground.cron_job("check").await.uid();
        let crons = ground.api::<CronJob>();
        let other = json!({ "spec": { "schedule": "1 1 1 1 1", "suspend": true } });
        crons.patch("check", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap();
        ground
            .until_so("it is put back", async || {
                let spec = crons.get("check").await.unwrap().spec.unwrap();
                spec.schedule == SELDOM && spec.suspend == Some(false)
            })
            .await;
        crons.delete("check", &DeleteParams::default()).await.unwrap();
        ground
            .until_so("it is made anew", async || {
                crons.get_opt("check").await.unwrap().is_some_and(|cron| cron.uid() != first)
            })
            .await;
    });
}

#[test]
fn a_cronjob_of_somebody_else_is_never_taken_over() {
    ground::run(async |ground: &Ground| {
        let theirs = ground
            .make::<CronJob>(json!({ "metadata": { "name": "check" }, "spec": {
            "schedule": SELDOM, "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "a", "image": "a" }],
            } } } },
        } }))
            .await;
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        let task = ground.until("check", "is not ready", |task| condition(task, "Ready").0 == "False").await;
        assert_eq!(condition(&task, "Ready").1, "NameConflict");
        let still = ground.api::<CronJob>().get("check").await.unwrap();
        assert_eq!((still.uid(), still.resource_version()), (theirs.uid(), theirs.resource_version()));
        ground.api::<CronJob>().delete("check", &DeleteParams::default()).await.unwrap();
        ground.until("check", "is ready", |task| condition(task, "Ready").0 == "True").await;
    });
}

#[test]
fn runs_go_on_without_the_controller_and_none_is_lost() {
    ground::run_alone(async |ground: &Ground| {
        ground.web("web").await;
        ground.task("check", json!({ "schedule": "* * * * *", "target": "web" })).await;
        ground.until("check", "has run", |task| task["status"]["lastRun"].is_object()).await;
        let controllers = Api::<Deployment>::namespaced(ground.client.clone(), "default");
        let replicas = |count: u8| json!({ "spec": { "replicas": count } });
        let name = "kuration-inspector-controller";
        let scale = async |count| {
            controllers.patch(name, &PatchParams::default(), &Patch::Merge(&replicas(count))).await.unwrap();
        };
        // As by kill -9: nothing is given back, the Lease neither.
        scale(0).await;
        drop(kubectl(&[
            "delete",
            "pod",
            "--selector=app.kubernetes.io/name=kuration-inspector-controller",
            "--grace-period=0",
            "--force",
        ]));
        let before = ground.jobs("check").await.len();
        ground
            .until_so("two runs more", async || {
                let jobs = ground.jobs("check").await;
                let done = jobs
                    .iter()
                    .filter(|job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some()));
                done.count() >= before + 2
            })
            .await;
        scale(1).await;
        let jobs: Vec<String> = ground.jobs("check").await.iter().map(|job| job.name_any()).collect();
        let task = ground
            .until("check", "knows all of them", |task| {
                let known = task["status"]["recentRuns"].as_array().cloned().unwrap_or_default();
                jobs.iter().all(|job| known.iter().any(|run| run["job"] == **job))
            })
            .await;
        assert_eq!(task["status"]["missedRuns"], 0, "{task}");
        let runs = task["status"]["recentRuns"].as_array().unwrap();
        assert!(runs.iter().all(|run| run["outcome"] == "pass" && run["persisted"] == true), "{task}");
    });
}

#[test]
fn the_definition_outlives_its_release_and_is_upgraded_from_either_way() {
    ground::run_alone(async |ground: &Ground| {
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        let cron = ground.cron_job("check").await.uid();
        let uid = ground.seen("check").await["metadata"]["uid"].clone();
        let crd = chart("kuration-server-crd");
        let controller = chart("kuration-server-controller");
        // The definition came by kubectl apply, and Helm has taken it over: both can go on with it.
        for step in [
            helm(&["upgrade", "kuration-crd", &crd]),
            kubectl(&["apply", "--filename", &definition()]),
            helm(&["upgrade", "kuration-crd", &crd]),
            helm(&["upgrade", "kuration-controller", &controller, "--wait", "--timeout", "2m"]),
            helm(&["rollback", "kuration-crd", "1"]),
            helm(&["uninstall", "kuration-crd"]),
            helm(&["install", "kuration-crd", &crd]),
        ] {
            step.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(ground.seen("check").await["metadata"]["uid"], uid);
        }
        assert_eq!(ground.cron_job("check").await.uid(), cron);
    });
}

#[test]
fn runs_are_admitted_where_pods_must_be_restricted() {
    ground::run(async |ground: &Ground| {
        let label = "pod-security.kubernetes.io/enforce=restricted";
        kubectl(&["label", "namespace", &ground.name, label]).unwrap();
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        let task = ground.run_now("check", "now").await;
        // There is no such Service, and that was seen from a pod.
        assert_eq!(task["status"]["lastRun"]["outcome"], "fail", "{task}");
        assert_eq!(task["status"]["lastRun"]["persisted"], true, "{task}");
    });
}

#[test]
fn the_controller_may_do_what_it_needs_and_no_more() {
    ground::run(async |ground: &Ground| {
        let may = |account: &str, question: &[&str]| {
            let who = format!("--as=system:serviceaccount:{account}");
            let asked = [&["auth", "can-i", "-n", &ground.name, &who], question].concat();
            // It ends with 1 where the answer is no.
            ground::output(std::process::Command::new("kubectl").args(asked)).is_ok()
        };
        let controller = "default:kuration-inspector-controller";
        let yes: [&[&str]; 4] = [
            &["create", "cronjobs.batch"],
            &["patch", "inspectiontasks.kuration.io", "--subresource=status"],
            &["create", "persistentvolumeclaims"],
            &["bind", "clusterroles.rbac.authorization.k8s.io/kuration-inspector-view"],
        ];
        let no: [&[&str]; 10] = [
            &["get", "secrets"],
            &["list", "secrets"],
            &["create", "pods"],
            &["create", "pods", "--subresource=exec"],
            &["create", "clusterroles.rbac.authorization.k8s.io"],
            &["create", "roles.rbac.authorization.k8s.io"],
            &["bind", "clusterroles.rbac.authorization.k8s.io/cluster-admin"],
            &["escalate", "clusterroles.rbac.authorization.k8s.io"],
            &["delete", "persistentvolumeclaims"],
            &["update", "inspectiontasks.kuration.io"],
        ];
        for (questions, answer) in [(&yes[..], true), (&no[..], false)] {
            for question in questions {
                assert_eq!(may(controller, question), answer, "{question:?}");
            }
        }
        // Nor may a run more than look.
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        ground.cron_job("check").await;
        let runner = format!("{}:kuration-inspector", ground.name);
        assert!(may(&runner, &["list", "pods"]));
        for question in [["get", "secrets"], ["create", "pods"], ["list", "nodes"], ["delete", "pods"]] {
            assert!(!may(&runner, &question), "{question:?}");
        }
    });
}

#[test]
fn of_two_controllers_one_works_and_the_other_takes_its_place() {
    ground::run_alone(async |ground: &Ground| {
        ground.web("web").await;
        ground.task("check", json!({ "schedule": SELDOM, "target": "web" })).await;
        ground.run_now("check", "by the one").await;
        let name = "kuration-inspector-controller";
        kubectl(&["scale", "deployment", name, "--replicas=2"]).unwrap();
        kubectl(&["rollout", "status", "deployment", name, "--timeout=120s"]).unwrap();
        let holder = || {
            kubectl(&["get", "lease", "kuration-inspector", "-o", "jsonpath={.spec.holderIdentity}"]).unwrap()
        };
        let first = holder();
        kubectl(&["delete", "pod", &first, "--grace-period=0", "--force"]).unwrap();
        ground.until_so("another leads", async || holder() != first).await;
        let task = ground.run_now("check", "by the other").await;
        assert_eq!(task["status"]["recentRuns"].as_array().map(Vec::len), Some(2), "{task}");
        kubectl(&["scale", "deployment", name, "--replicas=1"]).unwrap();
        kubectl(&["rollout", "status", "deployment", name, "--timeout=120s"]).unwrap();
    });
}
