//! What is refused before it is there.

use kube::ResourceExt;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

use super::ground::{self, Ground, kubectl, typed};

#[test]
fn the_api_server_takes_what_is_right_and_refuses_what_is_wrong() {
    ground::run(async |ground: &Ground| {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../inspection/tasks.json")).unwrap();
        let dry = PostParams { dry_run: true, ..Default::default() };
        let mut wrong = Vec::new();
        for case in &cases {
            let name = case["name"].as_str().unwrap();
            let called = if name.contains(' ') { "check" } else { name };
            let task: DynamicObject = typed(json!({
                "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
                "metadata": { "name": called, "namespace": ground.name }, "spec": case["spec"],
            }));
            match (case["refused"].as_str(), ground.tasks().create(&dry, &task).await) {
                (None, Ok(made)) => assert_eq!(made.name_any(), called),
                (Some(word), Err(kube::Error::Api(refused))) if refused.message.contains(word) => {}
                (_, said) => wrong.push(format!("{name}: {said:?}")),
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn nobody_makes_a_task_who_may_not_make_a_cronjob() {
    ground::run(async |ground: &Ground| {
        let of = |what: &[&str]| kubectl(&[&["-n", &ground.name], what].concat());
        of(&["create", "role", "tasks", "--verb=create,get,patch", "--resource=inspectiontasks.kuration.io"])
            .unwrap();
        of(&["create", "rolebinding", "tasks", "--role=tasks", "--user=jane"]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let task = json!({ "apiVersion": "kuration.io/v1", "kind": "InspectionTask", "metadata": { "name": "check" },
            "spec": { "schedule": "0 0 1 1 *", "target": "web" } });
        std::fs::write(file.path(), task.to_string()).unwrap();
        let path = file.path().to_str().unwrap();
        let refused = of(&["create", "--as=jane", "-f", path]).unwrap_err();
        assert!(refused.contains("you may not create CronJobs in this namespace"), "{refused}");
        of(&["create", "role", "jobs", "--verb=create", "--resource=cronjobs.batch"]).unwrap();
        of(&["create", "rolebinding", "jobs", "--role=jobs", "--user=jane"]).unwrap();
        ground.until_so("jane may", async || of(&["create", "--as=jane", "-f", path]).is_ok()).await;
    });
}
