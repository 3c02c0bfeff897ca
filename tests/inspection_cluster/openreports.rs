//! Reports for policy dashboards: a cluster that has no such kind, and one that has.

use kube::Api;
use kube::api::{DeleteParams, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::ground::{self, Ground, condition, in_repository, kubectl, typed};
use super::running::SELDOM;

const DEFINITION: &str = "reports.openreports.io";

fn reports(ground: &Ground) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("openreports.io", "v1alpha1", "Report"));
    Api::namespaced_with(ground.client.clone(), &ground.name, &kind)
}

async fn report(ground: &Ground, name: &str) -> Option<Value> {
    reports(ground).get_opt(name).await.unwrap().map(|report| json!(report))
}

fn said(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_task_that_asks_for_a_report_has_one_of_its_last_run_where_the_cluster_knows_the_kind() {
    ground::run_alone(async |ground: &Ground| {
        kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found"]).unwrap();
        let results = json!({ "openReports": true });
        ground.task("check", json!({ "schedule": SELDOM, "target": "web", "results": results })).await;
        let reported = |task: &Value| condition(task, "Reported");
        let task = ground.run_now("check", "without the kind").await;
        assert_eq!(reported(&task), said("False", "NotServed"), "{task}");
        assert_eq!(condition(&task, "Healthy"), said("False", "Failed"));
        let told = ground.told("check").await;
        assert!(told.iter().any(|(reason, _)| reason == "ReportNotWritten"), "{told:?}");

        let definition = in_repository("tests/inspection_cluster/openreports.yaml").display().to_string();
        kubectl(&["apply", "--filename", &definition]).unwrap();
        kubectl(&["wait", "--for=condition=Established", "crd", DEFINITION, "--timeout=60s"]).unwrap();
        // A controller that begins anew looks at once, and not in ten minutes.
        let name = "deployment/kuration-inspector-controller";
        kubectl(&["rollout", "restart", name]).unwrap();
        kubectl(&["rollout", "status", name, "--timeout=120s"]).unwrap();
        let task = ground.until("check", "has a Report", |task| reported(task).0 == "True").await;
        let run = task["status"]["lastRun"]["id"].clone();
        let found = report(ground, "check").await.expect("a Report");
        assert_eq!(found["metadata"]["annotations"]["kuration.io/run"], run);
        assert_eq!(found["metadata"]["ownerReferences"][0]["uid"], task["metadata"]["uid"]);
        assert_eq!((&found["source"], &found["summary"]["fail"]), (&json!("kuration"), &json!(1)), "{found}");

        // Of a run that the controller saw end.
        let task = ground.run_now("check", "with the kind").await;
        let run = task["status"]["lastRun"]["id"].clone();
        assert_eq!(task["status"]["openReport"], run);
        let found = report(ground, "check").await.expect("a Report");
        assert_eq!(found["metadata"]["annotations"]["kuration.io/run"], run);
        let [result] = found["results"].as_array().unwrap().as_slice() else { panic!("one result: {found}") };
        assert_eq!(
            (&result["policy"], &result["rule"], &result["result"], &result["properties"]["reason"]),
            (&json!("check"), &json!("target"), &json!("fail"), &json!("NotFound")),
            "{found}"
        );
        let shown = kubectl(&["get", "reports.openreports.io", "check", "-n", &ground.name]).unwrap();
        let shown: Vec<&str> = shown.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(shown[..6], ["check", "0", "1", "0", "0", "0"]);

        // Turned off, it goes; somebody else's never does.
        ground.change("check", json!({ "spec": { "results": { "openReports": false } } })).await;
        ground.until_so("there is no Report", async || report(ground, "check").await.is_none()).await;
        ground.until("check", "says nothing of it", |task| reported(task).0.is_empty()).await;
        let foreign: DynamicObject = typed(json!({
            "apiVersion": "openreports.io/v1alpha1", "kind": "Report", "metadata": { "name": "check" }, "source": "other",
        }));
        reports(ground).create(&Default::default(), &foreign).await.unwrap();
        ground.change("check", json!({ "spec": { "results": { "openReports": true } } })).await;
        ground.until("check", "has a conflict", |task| reported(task) == said("False", "NameConflict")).await;
        assert_eq!(report(ground, "check").await.expect("the other's")["source"], "other");
        reports(ground).delete("check", &DeleteParams::default()).await.unwrap();

        // It goes with its task.
        ground.run_now("check", "the name is free").await;
        assert!(report(ground, "check").await.is_some());
        ground.tasks().delete("check", &DeleteParams::default()).await.unwrap();
        ground.until_so("the Report is gone", async || report(ground, "check").await.is_none()).await;
        kubectl(&["delete", "crd", DEFINITION]).unwrap();
    });
}
