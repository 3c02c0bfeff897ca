//! `kuration inspector` beside an API server of this process' memory: what it asks, what it makes of a task, and what it says.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod many;
mod reports;
mod server;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Controller {
    process: Child,
    admin: SocketAddr,
    _configuration: tempfile::NamedTempFile,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Controller {
    fn start(server: &Server) -> Self {
        let file = server.kubeconfig();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_kuration"))
            .args(["inspector", "--image=i", "--results-class=fast", "--admin", &free.to_string()])
            .env("KUBECONFIG", file.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Controller { process, admin: free, _configuration: file }
    }

    async fn ask(&self, path: &str) -> String {
        let Ok(mut stream) = tokio::net::TcpStream::connect(self.admin).await else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// Waits until `is` gives something.
async fn until<T>(what: &str, mut is: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = is().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "in a minute: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until nothing is asked for as long as a reconciliation could wait its turn.
async fn rest(server: &Server) -> Vec<String> {
    let mut asked = Vec::new();
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(3) {
        let more = server.asked();
        if !more.is_empty() {
            quiet = Instant::now();
            asked.extend(more);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    asked
}

fn task(url_secret: &str) -> Value {
    json!({
        "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
        "metadata": { "name": "check", "namespace": "shop", "generation": 1 },
        "spec": {
            "schedule": "17 3 1 1 *", "timeZone": "UTC", "target": "mysql",
            "notifications": [{
                "name": "duty", "urlSecretRef": { "name": url_secret, "key": "url" }, "format": "Webhook", "when": ["Failed"],
            }],
        },
    })
}

fn labels() -> Value {
    json!({
        "app.kubernetes.io/managed-by": "kuration-inspector", "kuration.io/task": "check",
        "batch.kubernetes.io/job-name": "check-29804405",
    })
}

fn job(over: bool) -> Value {
    let conditions =
        json!([{ "type": "Complete", "status": "True", "lastTransitionTime": "2026-09-01T12:05:09Z" }]);
    let status = match over {
        false => json!({ "active": 1, "startTime": "2026-09-01T12:05:00Z" }),
        true => json!({
            "startTime": "2026-09-01T12:05:00Z", "completionTime": "2026-09-01T12:05:09Z", "conditions": conditions,
        }),
    };
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": "check-29804405", "namespace": "shop", "labels": labels() },
        "spec": { "template": {} }, "status": status,
    })
}

fn pod() -> Value {
    let said = json!({
        "id": "20260901T120500Z-29804405", "generation": 1, "trigger": "Schedule", "startTime": "2026-09-01T12:05:01Z",
        "completionTime": "2026-09-01T12:05:02Z", "outcome": "fail", "summary": { "fail": 1 },
        "persisted": { "ok": true }, "rules": [{ "n": "port", "r": "fail", "s": "high", "ms": 1, "m": "refused" }],
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "check-29804405-x", "namespace": "shop", "labels": labels() },
        "spec": { "containers": [] },
        "status": { "phase": "Succeeded", "containerStatuses": [{
            "name": "inspect", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 0, "message": said.to_string() } },
        }]},
    })
}

fn outcome(server: &Server) -> Option<String> {
    let task = server.get("inspectiontasks", "shop", "check")?;
    task["status"]["lastRun"]["outcome"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_task_at_rest_costs_no_request_whatever_is_written_that_changes_nothing() {
    let server = Server::start().await;
    server.put("storageclasses", json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "fast" }, "provisioner": "p",
    }));
    server.put("inspectiontasks", task("duty"));
    let controller = Controller::start(&server);
    until("a status", async || {
        server.get("inspectiontasks", "shop", "check")?["status"]["observedGeneration"].as_i64()
    })
    .await;
    let asked = rest(&server).await;
    let count = |what: &str| asked.iter().filter(|asked| asked.as_str() == what).count();
    let named = "/apis/batch/v1/namespaces/shop/cronjobs/check";
    assert_eq!(count(&format!("PATCH {named}")), 1, "{asked:#?}");
    assert_eq!(count("POST /api/v1/namespaces/shop/persistentvolumeclaims"), 1, "{asked:#?}");
    // One says what is so; its own word brings no other.
    assert!(
        count("PATCH /apis/kuration.io/v1/namespaces/shop/inspectiontasks/check/status") <= 2,
        "{asked:#?}"
    );
    assert!(controller.ask("/readyz").await.starts_with("HTTP/1.1 200"));

    // Everything is written anew, and only its version changes.
    for (kind, name) in [("inspectiontasks", "check"), ("cronjobs", "check")] {
        server.put(kind, server.get(kind, "shop", name).unwrap());
    }
    assert_eq!(rest(&server).await, Vec::<String>::new());

    // What somebody changes by hand is put back.
    let mut edited = server.get("cronjobs", "shop", "check").unwrap();
    edited["spec"]["schedule"] = "* * * * *".into();
    server.put("cronjobs", edited);
    assert_eq!(rest(&server).await, [format!("PATCH {named}")]);
    assert_eq!(server.get("cronjobs", "shop", "check").unwrap()["spec"]["schedule"], "17 3 1 1 *");

    // Somebody else's is left alone, and the task says so.
    server.remove("cronjobs", "shop", "check");
    let foreign = json!({ "metadata": { "name": "check", "namespace": "shop" }, "spec": {} });
    server.put("cronjobs", foreign.clone());
    let reason = until("a conflict", async || {
        rest(&server).await;
        let task = server.get("inspectiontasks", "shop", "check")?;
        let ready = task["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|condition| condition["type"] == "Ready")?
            .clone();
        (ready["status"] == "False").then(|| ready["reason"].clone())
    });
    assert_eq!(reason.await, "NameConflict");
    assert_eq!(server.get("cronjobs", "shop", "check").unwrap()["spec"], foreign["spec"]);
}

#[tokio::test]
async fn a_run_that_ends_is_counted_once_told_and_served_to_prometheus_until_its_task_goes() {
    let server = Server::start().await;
    let heard = Arc::new(Mutex::new(Vec::<Value>::new()));
    let hook = {
        let heard = Arc::clone(&heard);
        let hear = move |body: String| async move {
            heard.lock().unwrap().push(serde_json::from_str(&body).unwrap());
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let routes = axum::Router::new().fallback(hear);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    };
    server.put("inspectiontasks", task("duty"));
    let controller = Controller::start(&server);
    until("a status", async || {
        server.get("inspectiontasks", "shop", "check")?["status"]["observedGeneration"].as_i64()
    })
    .await;

    server.put("jobs", job(false));
    rest(&server).await;
    server.put("pods", pod());
    server.put("jobs", job(true));
    until("the verdict", async || outcome(&server).filter(|outcome| outcome == "fail")).await;
    // There is no Secret yet.
    let said = until("a condition", async || {
        let task = server.get("inspectiontasks", "shop", "check")?;
        let all = task["status"]["conditions"].as_array()?.clone();
        all.into_iter().find(|condition| condition["type"] == "Notified" && condition["status"] == "False")
    });
    assert_eq!(said.await["message"], "duty: there is no Secret shop/duty");
    let encoded = base64(hook.as_bytes());
    server.put("secrets", json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "duty", "namespace": "shop" }, "data": { "url": encoded },
    }));
    until("a message", async || (!heard.lock().unwrap().is_empty()).then_some(())).await;
    rest(&server).await;
    let heard = heard.lock().unwrap().clone();
    let told: Vec<&str> = heard.iter().filter_map(|said| said["message"].as_str()).collect();
    assert_eq!(told, ["shop/check fails: port"]);
    let task = server.get("inspectiontasks", "shop", "check").unwrap();
    assert_eq!(task["status"]["notifications"][0]["failing"], true);
    assert_eq!(task["status"]["recentRuns"].as_array().unwrap().len(), 1);
    assert_eq!(task["status"]["consecutiveFailures"], 1);

    let text = controller.ask("/metrics").await;
    for line in [
        "kuration_inspection_runs_total{namespace=\"shop\",task=\"check\",outcome=\"fail\"} 1",
        "kuration_inspection_rule_failing{namespace=\"shop\",task=\"check\",rule=\"port\",severity=\"high\"} 1.0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    server.remove("inspectiontasks", "shop", "check");
    until("no numbers of it", async || (!controller.ask("/metrics").await.contains("shop")).then_some(()))
        .await;
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let word =
            part.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - part.len()));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at > part.len() { '=' } else { digit.into() });
        }
    }
    text
}
