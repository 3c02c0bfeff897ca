//! Many tasks that run and run: what the controller keeps in the cluster does not grow with their runs.

use std::collections::BTreeMap;

use super::*;

const TASKS: usize = 200;
const RUNS: u32 = 4;
/// The minute of the example's run.
const FIRST: u32 = 29_804_405;

/// What lies in the cluster, by kind. Jobs and their pods are left out: the CronJob controller removes those that are old.
fn kept(server: &Server) -> BTreeMap<String, usize> {
    let mut kept = server.count();
    kept.retain(|kind, _| !["jobs", "pods"].contains(&kind.as_str()));
    kept
}

/// One object of a run: the example's, of another task and minute.
fn of(mut object: Value, task: &str, minute: u32) -> Value {
    let past = minute - FIRST + 5;
    let text = object.to_string().replace("check-29804405", &format!("{task}-{minute}"));
    let text = text.replace("T12:05:", &format!("T12:{past:02}:"));
    let text = text.replace("T120500Z-29804405", &format!("T12{past:02}00Z-{minute}"));
    object = serde_json::from_str(&text).unwrap();
    object["metadata"]["labels"]["kuration.io/task"] = task.into();
    object
}

#[tokio::test]
async fn what_lies_in_the_cluster_does_not_grow_with_runs() {
    let server = Server::start().await;
    let names: Vec<String> = (0..TASKS).map(|number| format!("task{number}")).collect();
    for name in &names {
        let mut task = task("duty");
        task["metadata"]["name"] = name.as_str().into();
        task["spec"].as_object_mut().unwrap().remove("notifications");
        server.put("inspectiontasks", task);
    }
    let _controller = Controller::start(&server);
    let mut after = Vec::new();
    for minute in FIRST..FIRST + RUNS {
        for name in &names {
            server.put("pods", of(pod(), name, minute));
            server.put("jobs", of(job(true), name, minute));
        }
        until("every run is in its task's status", async || {
            let seen = |name: &String| {
                let task = server.get("inspectiontasks", "shop", name)?;
                Some(task["status"]["lastRun"]["job"] == format!("{name}-{minute}"))
            };
            names.iter().all(|name| seen(name) == Some(true)).then_some(())
        })
        .await;
        rest(&server).await;
        // As the CronJob controller does, by the limits of its history.
        for name in &names {
            server.remove("jobs", "shop", &format!("{name}-{}", minute - 1));
            server.remove("pods", "shop", &format!("{name}-{}-x", minute - 1));
        }
        rest(&server).await;
        after.push(kept(&server));
    }
    println!("{:?}", after.last());
    let cron_jobs = after[0].get("cronjobs").copied();
    assert_eq!(cron_jobs, Some(TASKS), "{after:?}");
    assert!(after.windows(2).all(|two| two[0] == two[1]), "{after:#?}");
}
