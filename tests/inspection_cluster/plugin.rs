//! What a person does with kubectl and its plugins.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::Value;

use super::ground::{self, Ground, condition, output};

/// kubectl, which finds the plugins in a directory.
fn kubectl(plugins: &Path, ground: &Ground, arguments: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("kubectl");
    command.args(arguments).args(["-n", &ground.name]).env("PATH", format!("{}:{path}", plugins.display()));
    // It waits for pods that this thread's runtime need not look after.
    output(&mut command)
}

#[test]
fn the_plugins_make_start_show_compare_and_doctor_tasks() {
    ground::run(async |ground: &Ground| {
        let plugins = tempfile::tempdir().unwrap();
        for name in ["kubectl-kuration", "kubectl-create-inspectiontask"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kuration"), plugins.path().join(name)).unwrap();
        }
        let ask = |arguments: &[&str]| kubectl(plugins.path(), ground, arguments);
        let must = |arguments: &[&str]| ask(arguments).unwrap_or_else(|error| panic!("{error}"));
        ground.web("web").await;
        let made = must(&["create", "inspectiontask", "check", "--schedule", "0 0 1 1 *", "--target", "web"]);
        assert_eq!(made, "inspectiontask.kuration.io/check created");
        ground.until("check", "is ready", |task| condition(task, "Ready").0 == "True").await;

        must(&["kuration", "run", "check", "--wait", "--timeout", "3m"]);
        ground.api::<Pod>().delete("web", &DeleteParams::default()).await.unwrap();
        ground
            .until_so("nothing is behind the Service", async || {
                let slices = ground.api::<EndpointSlice>().list(&Default::default()).await.unwrap();
                slices.iter().all(|slice| slice.endpoints.is_empty())
            })
            .await;
        let broken = ask(&["kuration", "run", "check", "--wait", "--timeout", "3m"]).unwrap_err();
        assert!(broken.contains("fail"), "{broken}");

        let tasks: Value = serde_json::from_str(&must(&["kuration", "list", "-o", "json"])).unwrap();
        assert!(tasks.to_string().contains("\"check\""), "{tasks}");
        let list = must(&["kuration", "list"]);
        assert!(list.contains("check") && list.contains("fail") && !list.contains('\u{1b}'), "{list}");
        let results = must(&["kuration", "results", "check"]);
        assert!(results.contains("pass") && results.contains("fail"), "{results}");

        let task = ground.seen("check").await;
        let runs = task["status"]["recentRuns"].as_array().unwrap();
        let [after, before] = [0, 1].map(|at| runs[at]["id"].as_str().unwrap());
        let report = must(&["kuration", "report", "check"]);
        assert!(report.starts_with("<!DOCTYPE html>") && report.contains(after), "{report}");
        let run: Value = serde_json::from_str(&must(&[
            "kuration", "report", "check", "--run", before, "--format", "json",
        ]))
        .unwrap();
        assert_eq!((&run["id"], &run["outcome"]), (&before.into(), &"pass".into()));
        // As diff(1): 1 where there is a difference.
        let changes = ask(&["kuration", "diff", "check", before, after]).unwrap_err();
        assert!(changes.contains("exit status: 1") && changes.contains("+ new    target"), "{changes}");
        must(&["kuration", "logs", "check"]);

        let well = must(&["kuration", "doctor"]);
        assert!(!well.is_empty());
        let nobody = ask(&["kuration", "results", "nobody"]).unwrap_err();
        assert!(nobody.contains("there is no inspectiontask nobody"), "{nobody}");
    });
}
