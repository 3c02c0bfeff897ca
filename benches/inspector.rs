//! What the inspection controller takes of memory and processor at rest: `KUBECONFIG=… cargo bench --bench inspector`, against an
//! API server that holds nothing dear (`tests/measure-inspector` brings one up); without KUBECONFIG against one in memory, without
//! TLS and without other controllers.
//!
//! It installs the definition, writes TASKS tasks (1000) of five rules each, starts the controller, gives each task HISTORY (5)
//! runs that ended, with what their pods said, waits until all of it is in the statuses, and then looks on for REST (120) seconds, with
//! a scrape each 30 as Prometheus would. Everything is deleted at the end.

// clippy lets tests unwrap, but not what benches call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

// Tests write into it, the bench only reads.
#[path = "../tests/inspector/server.rs"]
#[allow(dead_code)]
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAMESPACES: usize = 10;
const ADMIN: &str = "127.0.0.1:18080";

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name)
        .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn tasks(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kuration.io", "v1", "InspectionTask"));
    Api::namespaced_with(client.clone(), namespace, &kind)
}

fn namespace(at: usize) -> String {
    format!("measure-{}", at % NAMESPACES)
}

/// A task as users write them, due once a year.
fn task(at: usize) -> DynamicObject {
    let assert = |expr: &str| json!([{ "expr": expr, "message": "as a sentence that says what is wrong" }]);
    serde_json::from_value(json!({
        "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
        "metadata": { "name": format!("check-{at}"), "namespace": namespace(at) },
        "spec": {
            "schedule": "17 3 1 1 *", "timeZone": "Asia/Shanghai", "target": format!("mysql-{at}"),
            "rules": [
                { "name": "endpoints", "severity": "critical",
                  "resource": { "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                                "labelSelector": { "matchLabels": { "kubernetes.io/service-name": "mysql" } } },
                  "assert": assert("items.exists(s, has(s.endpoints) && s.endpoints.exists(e, e.conditions.ready))") },
                { "name": "protocol", "severity": "critical", "dependsOn": ["endpoints"], "mysql": { "port": 3306 } },
                { "name": "query", "severity": "critical", "retries": 1,
                  "mysql": { "port": 3306, "credentialsSecretRef": { "name": "mysql-inspector" }, "query": "SELECT 1" },
                  "assert": assert("size(result.rows) == 1") },
                { "name": "certificate", "tls": { "port": 3306, "startTls": "mysql" } },
                { "name": "rollouts", "severity": "high", "workload": { "kinds": ["Deployment"] } },
            ],
        },
    }))
    .unwrap()
}

/// A run that ended: its Job, which no other controller touches, and its pod, which no scheduler sees.
async fn run(client: &Client, at: usize, run: usize) {
    let (name, namespace) = (format!("check-{at}"), namespace(at));
    let minute = 29_000_000 + run * 5;
    let job = format!("{name}-{minute}");
    let labels = json!({
        "app.kubernetes.io/name": "kuration-inspection", "app.kubernetes.io/managed-by": "kuration-inspector",
        "kuration.io/task": name, "batch.kubernetes.io/job-name": job,
    });
    let pod = json!({
        "restartPolicy": "Never", "schedulerName": "nobody",
        "containers": [{ "name": "inspect", "image": "none", "args": ["inspect"],
                         "env": [{ "name": "KURATION_TASK", "value": "/etc/kuration/task.json" }] }],
    });
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let whole = json!({
        "metadata": { "name": job, "labels": labels },
        "spec": { "managedBy": "kuration.io/measure", "backoffLimit": 0, "template": { "metadata": { "labels": labels }, "spec": pod } },
    });
    jobs.create(&PostParams::default(), &serde_json::from_value(whole).unwrap()).await.unwrap();
    let whole = json!({ "metadata": { "name": job, "labels": labels }, "spec": pod });
    pods.create(&PostParams::default(), &serde_json::from_value(whole).unwrap()).await.unwrap();
    let (start, end) = ("2026-01-01T00:00:01Z", format!("2026-01-01T00:{:02}:09Z", run % 60));
    let rules: Vec<Value> = ["endpoints", "protocol", "query", "certificate", "rollouts"]
        .map(|rule| json!({ "n": rule, "r": "pass", "s": "critical", "ms": 12 }))
        .into();
    let said = json!({
        "id": format!("20260101T000000Z-{minute}"), "generation": 1, "trigger": "Schedule", "startTime": start,
        "completionTime": end, "outcome": "pass", "summary": { "pass": 5 }, "persisted": { "ok": true },
        "path": format!("{namespace}/{name}-12345678/runs/2026/01/01/20260101T000000Z-{minute}"),
        "sha256": "0".repeat(64), "resultsBytes": 123_456, "rules": rules,
    });
    let status = json!({ "status": {
        "phase": "Succeeded",
        "containerStatuses": [{
            "name": "inspect", "image": "none", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 0, "startedAt": start, "finishedAt": end, "message": said.to_string() } },
        }],
    }});
    pods.patch_status(&job, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let condition = |name: &str| json!({ "type": name, "status": "True", "reason": "CompletionsReached", "lastTransitionTime": end });
    let status = json!({ "status": {
        "startTime": start, "completionTime": end, "succeeded": 1, "uncountedTerminatedPods": {},
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    }});
    jobs.patch_status(&job, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

/// Waits until `count` of all tasks are as `is` says.
async fn until(client: &Client, count: usize, what: &str, is: impl Fn(&Value) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let mut so = 0;
        for at in 0..NAMESPACES {
            let list = tasks(client, &namespace(at)).list(&ListParams::default()).await.unwrap();
            so += list.items.iter().filter(|task| is(&task.data["status"])).count();
        }
        if so >= count {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(900), "{so} of {count} tasks {what}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A field of /proc/PID/status in MB.
fn megabytes(controller: &Child, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", controller.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() / 1_000.0 * 1.024
}

/// Processor seconds so far.
fn processor(controller: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", controller.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    // USER_HZ is 100 wherever Linux runs.
    ticks / 100.0
}

/// One scrape; how many bytes it has.
async fn scrape() -> usize {
    let mut stream = tokio::net::TcpStream::connect(ADMIN).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.len()
}

/// What is measured: PROGRAM, such as the one of an image, or else what cargo has built.
fn program() -> std::ffi::OsString {
    std::env::var_os("PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_kuration").into())
}

/// The API server that both sides ask.
struct Cluster {
    client: Client,
    /// It, where it is in this process' memory, and the file that says where.
    memory: Option<(Server, tempfile::NamedTempFile)>,
    counted: BTreeMap<String, f64>,
}

impl Cluster {
    async fn open() -> Self {
        if std::env::var_os("KUBECONFIG").is_some() {
            let client = Client::try_default().await.expect("an API server at KUBECONFIG");
            return Cluster { client, memory: None, counted: BTreeMap::new() };
        }
        let server = Server::start().await;
        let client = Client::try_from(kube::Config::new(server.url.parse().unwrap())).unwrap();
        let file = server.kubeconfig();
        Cluster { client, memory: Some((server, file)), counted: BTreeMap::new() }
    }

    /// With the definition and the namespaces, where there is a need for them.
    async fn prepare(&self) {
        if self.memory.is_some() {
            return;
        }
        let file = "charts/kuration-server-crd/templates/inspectiontask-crd.yaml";
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let definitions: Api<DynamicObject> =
            Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        let force = PatchParams::apply("kuration-measure").force();
        definitions.patch("inspectiontasks.kuration.io", &force, &Patch::Apply(&crd)).await.unwrap();
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for at in 0..NAMESPACES {
            let metadata = ObjectMeta { name: Some(namespace(at)), ..Default::default() };
            let new = Namespace { metadata, ..Default::default() };
            namespaces.create(&PostParams::default(), &new).await.expect("a namespace that is not there yet");
        }
        while tasks(&self.client, "default").list(&ListParams::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn clear(&self) {
        if self.memory.is_none() {
            let namespaces: Api<Namespace> = Api::all(self.client.clone());
            for at in 0..NAMESPACES {
                namespaces.delete(&namespace(at), &DeleteParams::default()).await.unwrap();
            }
        }
    }

    fn controller(&self) -> Ended {
        let mut command = Command::new(program());
        command.args(["inspector", "--image=none", "--admin", ADMIN, "--pod=measured", "--v=0"]);
        if let Some((_, file)) = &self.memory {
            command.env("KUBECONFIG", file.path());
        }
        Ended(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// How often the API server was asked since this was asked last, by verb and kind, watches aside: all that ask, the cluster's
    /// own controllers too.
    async fn requests(&mut self) -> BTreeMap<String, f64> {
        if let Some((server, _)) = &self.memory {
            let mut counts = BTreeMap::new();
            for asked in server.asked() {
                let (method, path) = asked.split_once(' ').unwrap();
                let kind = KINDS.iter().find(|kind| path.split('/').any(|part| part == **kind));
                *counts.entry(format!("{method} {}", kind.unwrap_or(&path))).or_default() += 1.0;
            }
            return counts;
        }
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let text = self.client.request_text(request).await.unwrap();
        let label = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            Some(rest.split('"').next()?.to_owned())
        };
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let (Some(verb), Some(kind)) = (label(line, "verb"), label(line, "resource")) else { continue };
            if KINDS.contains(&kind.as_str()) && verb != "WATCH" {
                let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                *counts.entry(format!("{verb} {kind}")).or_default() += count;
            }
        }
        let before = std::mem::replace(&mut self.counted, counts.clone());
        counts.retain(|what, count| {
            *count -= before.get(what).copied().unwrap_or_default();
            *count > 0.0
        });
        counts
    }
}

/// What the controller works with.
const KINDS: [&str; 8] = [
    "inspectiontasks",
    "cronjobs",
    "jobs",
    "pods",
    "configmaps",
    "persistentvolumeclaims",
    "rolebindings",
    "serviceaccounts",
];

async fn measure(cluster: &mut Cluster, controller: &Child, count: usize, history: usize) {
    let client = cluster.client.clone();
    let fresh = until(&client, count, "are ready", |status| {
        let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
        status["conditions"].as_array().is_some_and(|all| all.iter().any(ready))
    });
    println!("{count} tasks have their CronJob and their status after {:.0} s", fresh.await.as_secs_f64());
    let mut made = 0;
    for at in 0..NAMESPACES {
        let cron_jobs: Api<CronJob> = Api::namespaced(client.clone(), &namespace(at));
        made += cron_jobs.list(&ListParams::default()).await.unwrap().items.len();
    }
    assert_eq!(made, count, "CronJobs");
    println!("resident memory then: {:.1} MB", megabytes(controller, "VmRSS:"));
    for at in 0..history {
        stream::iter(0..count).for_each_concurrent(16, |task| run(&client, task, at)).await;
        let counted = until(&client, count, "have counted their run", |status| {
            status["recentRuns"].as_array().map_or(0, Vec::len) > at
        });
        println!(
            "run {} of each task is counted {:.0} s after the last one ended",
            at + 1,
            counted.await.as_secs_f64()
        );
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    let seconds = number("REST", 120);
    cluster.requests().await;
    let (before, begun) = (processor(controller), Instant::now());
    let mut bytes = 0;
    while begun.elapsed() < Duration::from_secs(seconds as u64) {
        bytes = scrape().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let api = if cluster.memory.is_some() { "an API server in memory" } else { "a real API server" };
    println!(
        "at rest for {minutes:.1} minutes, {history} runs of each task, {bytes} bytes a scrape, a minute:"
    );
    for (what, count) in cluster.requests().await {
        println!("  {what}: {:.1}", count / minutes);
    }
    println!("\n| the controller with {count} tasks, at {api} | goal | |\n|---|---:|---:|");
    println!("| resident at rest | 40 MB | {:.1} MB |", megabytes(controller, "VmRSS:"));
    println!("| resident at most, until then | | {:.1} MB |", megabytes(controller, "VmHWM:"));
    println!("| processor at rest, a minute | 1 s | {:.2} s |", (processor(controller) - before) / minutes);
}

/// A process that ends with what is measured.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::main]
async fn main() {
    let (count, history) = (number("TASKS", 1_000), number("HISTORY", 5));
    let mut cluster = Cluster::open().await;
    cluster.prepare().await;
    for at in 0..NAMESPACES {
        let here = tasks(&cluster.client, &namespace(at));
        let own = (0..count).filter(|task| task % NAMESPACES == at);
        stream::iter(own)
            .for_each_concurrent(16, |task_at| {
                let here = here.clone();
                async move {
                    here.create(&PostParams::default(), &task(task_at)).await.unwrap();
                }
            })
            .await;
    }
    let controller = cluster.controller();
    measure(&mut cluster, &controller.0, count, history).await;
    drop(controller);
    cluster.clear().await;
}
