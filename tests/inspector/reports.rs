//! Tasks that ask for an OpenReports Report, and those that don't.

use super::*;

/// A task that tells nobody, and asks for a Report or does not.
fn asking(asks: bool, generation: u32) -> Value {
    let mut task = task("duty");
    task["metadata"]["generation"] = generation.into();
    let spec = task["spec"].as_object_mut().unwrap();
    spec.remove("notifications");
    spec.insert("results".to_owned(), json!({ "openReports": asks }));
    task
}

/// A run that failed at `minute`, with its pod's last word.
fn ended(server: &Server, minute: u32) {
    let stamp = |text: Value| -> Value {
        let text = text.to_string().replace("29804405", &minute.to_string());
        let text = text.replace("12:05:0", &format!("12:{:02}:0", 5 + minute - 29_804_405));
        serde_json::from_str(&text).unwrap()
    };
    server.put("pods", stamp(pod()));
    server.put("jobs", stamp(job(true)));
}

async fn counted(server: &Server, runs: usize) {
    until("the run is counted", async || {
        let task = server.get("inspectiontasks", "shop", "check")?;
        (task["status"]["recentRuns"].as_array()?.len() == runs).then_some(())
    })
    .await;
}

fn condition(server: &Server, name: &str) -> Option<(Value, Value)> {
    let task = server.get("inspectiontasks", "shop", "check")?;
    let all = task["status"]["conditions"].as_array()?.clone();
    let found = all.into_iter().find(|condition| condition["type"] == name)?;
    Some((found["status"].clone(), found["reason"].clone()))
}

fn said(status: &str, reason: &str) -> Option<(Value, Value)> {
    Some((status.into(), reason.into()))
}

/// What was asked of Reports until nothing is asked any more.
async fn asked(server: &Server) -> Vec<String> {
    let mut asked = rest(server).await;
    asked.retain(|asked| asked.contains("openreports"));
    asked
}

const REPORT: &str = "/apis/openreports.io/v1alpha1/namespaces/shop/reports/check";

#[tokio::test]
async fn a_cluster_without_the_kind_is_asked_once_and_the_task_says_so_and_goes_on() {
    let server = Server::start().await;
    server.put("inspectiontasks", asking(true, 1));
    let _controller = Controller::start(&server);
    until("a status", async || condition(&server, "Reported")).await;
    assert_eq!(condition(&server, "Reported"), said("Unknown", "NoRunYet"));
    ended(&server, 29_804_405);
    counted(&server, 1).await;
    assert_eq!(asked(&server).await, [format!("GET {REPORT}"), format!("PATCH {REPORT}")]);
    assert_eq!(condition(&server, "Reported"), said("False", "NotServed"));
    assert_eq!(condition(&server, "Ready"), said("True", "Scheduled"));
    assert_eq!(condition(&server, "Healthy"), said("False", "Failed"));
    ended(&server, 29_804_406);
    counted(&server, 2).await;
    assert_eq!(asked(&server).await, Vec::<String>::new());
    assert_eq!(condition(&server, "Reported"), said("False", "NotServed"));
}

#[tokio::test]
async fn a_report_is_written_once_for_a_run_and_deleted_when_none_is_asked_for() {
    let server = Server::start().await;
    server.define("reports");
    server.put("inspectiontasks", asking(false, 1));
    let _controller = Controller::start(&server);
    until("a status", async || condition(&server, "Ready")).await;
    ended(&server, 29_804_405);
    counted(&server, 1).await;
    assert_eq!((asked(&server).await, condition(&server, "Reported")), (Vec::new(), None));

    // Of the run that ended before, what the status has of it.
    server.put("inspectiontasks", asking(true, 2));
    let report = until("a Report", async || server.get("reports", "shop", "check")).await;
    assert_eq!(asked(&server).await, [format!("GET {REPORT}"), format!("PATCH {REPORT}")]);
    assert_eq!(report["metadata"]["ownerReferences"][0]["kind"], "InspectionTask");
    assert_eq!(report["metadata"]["annotations"]["kuration.io/run"], "20260901T120500Z-29804405");
    assert_eq!(
        (&report["results"][0]["rule"], &report["results"][0]["message"]),
        (&json!("port"), &json!("refused"))
    );
    assert_eq!(condition(&server, "Reported"), said("True", "Written"));

    // Looked at again, with no new run.
    let mut edited = asking(true, 3);
    edited["spec"]["schedule"] = "17 4 1 1 *".into();
    server.put("inspectiontasks", edited);
    assert_eq!(asked(&server).await, Vec::<String>::new());
    ended(&server, 29_804_406);
    counted(&server, 2).await;
    assert_eq!(asked(&server).await, [format!("GET {REPORT}"), format!("PATCH {REPORT}")]);
    let report = server.get("reports", "shop", "check").unwrap();
    assert_eq!(report["metadata"]["annotations"]["kuration.io/run"], "20260901T120500Z-29804406");

    server.put("inspectiontasks", asking(false, 4));
    until("no Report", async || server.get("reports", "shop", "check").is_none().then_some(())).await;
    assert_eq!(asked(&server).await, [format!("GET {REPORT}"), format!("DELETE {REPORT}")]);
    assert_eq!(condition(&server, "Reported"), None);
    ended(&server, 29_804_407);
    counted(&server, 3).await;
    assert_eq!(asked(&server).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_report_of_somebody_else_is_neither_taken_over_nor_deleted() {
    let server = Server::start().await;
    server.define("reports");
    let foreign = server.put("reports", json!({
        "apiVersion": "openreports.io/v1alpha1", "kind": "Report",
        "metadata": { "name": "check", "namespace": "shop", "labels": { "app.kubernetes.io/managed-by": "kuration" } },
        "source": "other", "results": [],
    }));
    server.put("inspectiontasks", asking(true, 1));
    let _controller = Controller::start(&server);
    until("a status", async || condition(&server, "Reported")).await;
    ended(&server, 29_804_405);
    until("a conflict", async || {
        (condition(&server, "Reported") == said("False", "NameConflict")).then_some(())
    })
    .await;
    assert_eq!(server.get("reports", "shop", "check").as_ref(), Some(&foreign));
    server.put("inspectiontasks", asking(false, 2));
    until("nothing said of it", async || condition(&server, "Reported").is_none().then_some(())).await;
    assert_eq!(server.get("reports", "shop", "check"), Some(foreign));
}
