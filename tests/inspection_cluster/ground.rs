//! The charts installed, and a namespace for each case with what it makes and waits for there.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{AttachParams, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::RwLock;

/// How long anything may take that is under way.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The image of the cases' own pods.
const BUSYBOX: &str = "docker.io/library/busybox:1";

/// Held by every case, and by one alone where it breaks what the others stand on.
static FLOOR: RwLock<()> = RwLock::const_new(());

/// What was seen while the charts were installed, in the order of the README turned round: the controller before the definition.
#[derive(Debug, Clone, Default)]
pub struct Installed {
    /// Whether the controller was ready when there was no definition.
    pub ready_without: bool,
    /// How often it had been started anew.
    pub restarts_without: i64,
    /// Its log until then.
    pub log_without: String,
    /// How long it took to be ready once the definition was there.
    pub ready_after: Duration,
}

/// A case's namespace.
pub struct Ground {
    pub client: Client,
    pub name: String,
    pub installed: Installed,
}

/// Runs a case beside others.
pub fn run(case: impl AsyncFnOnce(&Ground)) {
    on_the_floor(async {
        let _floor = FLOOR.read().await;
        on_ground(case).await;
    });
}

/// Runs a case alone.
pub fn run_alone(case: impl AsyncFnOnce(&Ground)) {
    on_the_floor(async {
        let _floor = FLOOR.write().await;
        on_ground(case).await;
    });
}

fn on_the_floor(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}

async fn on_ground(case: impl AsyncFnOnce(&Ground)) {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    let installed = INSTALLED.get_or_init(install).clone();
    let client = Client::try_default().await.expect("KUBECONFIG must name a cluster");
    let case_name = std::thread::current().name().unwrap_or("case").to_owned();
    let namespace: Namespace = typed(json!({
        "metadata": { "generateName": "case-", "annotations": { "kuration.io/case": case_name } },
    }));
    let namespaces = Api::<Namespace>::all(client.clone());
    let name = namespaces.create(&Default::default(), &namespace).await.expect("a namespace").name_any();
    let ground = Ground { client, name, installed };
    let outcome = AssertUnwindSafe(case(&ground)).catch_unwind().await;
    if outcome.is_err() {
        ground.tell().await;
    }
    drop(namespaces.delete(&ground.name, &DeleteParams::default()).await);
    if let Err(cause) = outcome {
        std::panic::resume_unwind(cause);
    }
}

// --- the charts ----------------------------------------------------------------------------------------------------------

/// The path of something in this repository.
pub fn in_repository(path: &str) -> PathBuf {
    let home = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    PathBuf::from(home).join(path)
}

/// What a program prints; its words where it fails.
pub fn output(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() {
        return Ok(said(&done.stdout));
    }
    Err(format!("{command:?} ended with {}: {} {}", done.status, said(&done.stdout), said(&done.stderr)))
}

/// What kubectl prints.
pub fn kubectl(arguments: &[&str]) -> Result<String, String> {
    output(Command::new("kubectl").args(arguments))
}

/// Helm.
pub fn helm(arguments: &[&str]) -> Result<String, String> {
    output(Command::new("helm").args(arguments))
}

/// The chart of this name, for Helm.
pub fn chart(name: &str) -> String {
    in_repository("charts").join(name).display().to_string()
}

/// The definition's file.
pub fn definition() -> String {
    in_repository("charts/kuration-server-crd/templates/inspectiontask-crd.yaml").display().to_string()
}

fn install() -> Installed {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let must = |done: Result<String, String>| done.unwrap_or_else(|error| panic!("{error}"));
    // The driver: where another suite has installed it, as that left it.
    if helm(&["--namespace", "kuration-system", "status", "kuration"]).is_err() {
        let node = std::env::var("KURATION_POOL_NODE").unwrap_or_else(|_| "first".to_owned());
        let directory = std::env::var("KURATION_POOL_DIRECTORY");
        let directory = directory.unwrap_or_else(|_| "/var/lib/kuration-pool".to_owned());
        let shares = in_repository("tests/kubernetes-suite.d/share-values.yaml").display().to_string();
        let pool = format!("pool.enabled=true,pool.nodeName={node},pool.directory={directory}");
        let class = "storageClasses[0].name=kuration-pool,storageClasses[0].driver=pool";
        must(helm(&[
            "--namespace",
            "kuration-system",
            "install",
            "kuration",
            &chart("kuration-csi"),
            "--create-namespace",
            "--values",
            &shares,
            "--set",
            &pool,
            "--set",
            class,
            "--wait",
            "--timeout",
            "3m",
        ]));
    }
    // The controller first, to see what it does without the definition.
    for gone in ["kuration-controller", "kuration-crd"] {
        drop(helm(&["uninstall", gone, "--wait"]));
    }
    must(kubectl(&["delete", "crd", "inspectiontasks.kuration.io", "--ignore-not-found"]));
    must(helm(&["install", "kuration-controller", &chart("kuration-server-controller")]));
    let controller = "--selector=app.kubernetes.io/name=kuration-inspector-controller";
    let wait = |what: &str| kubectl(&["wait", "pod", controller, what, "--timeout=120s"]);
    let begun = Instant::now();
    while wait("--for=jsonpath={.status.phase}=Running").is_err() {
        assert!(
            begun.elapsed() < PATIENCE,
            "the controller does not start: {:?}",
            kubectl(&["get", "pods", "-o", "yaml"])
        );
        std::thread::sleep(Duration::from_millis(300));
    }
    // Long enough for its second look and several probes.
    std::thread::sleep(Duration::from_secs(12));
    let of = |path: &str| {
        must(kubectl(&["get", "pod", controller, "-o", &format!("jsonpath={{.items[0]{path}}}")]))
    };
    let mut seen = Installed {
        ready_without: of(".status.containerStatuses[0].ready") == "true",
        restarts_without: of(".status.containerStatuses[0].restartCount").parse().unwrap_or(-1),
        log_without: must(kubectl(&["logs", controller, "--tail=100"])),
        ready_after: Duration::ZERO,
    };
    // As somebody does who reads only the file; Helm takes it over.
    must(kubectl(&["apply", "--filename", &definition()]));
    let begun = Instant::now();
    must(wait("--for=condition=Ready"));
    seen.ready_after = begun.elapsed();
    must(helm(&["install", "kuration-crd", &chart("kuration-server-crd")]));
    seen
}

// --- objects -------------------------------------------------------------------------------------------------------------

/// A document as the object that it is.
pub fn typed<K: DeserializeOwned>(document: Value) -> K {
    let shown = document.to_string();
    serde_json::from_value(document).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// InspectionTask, as the API server knows it.
pub fn kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("kuration.io", "v1", "InspectionTask"))
}

/// The status of a condition, and its reason.
pub fn condition(task: &Value, name: &str) -> (String, String) {
    let all = task["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let one = all.into_iter().find(|one| one["type"] == name).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&one["status"]), text(&one["reason"]))
}

impl Ground {
    /// The objects of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub fn tasks(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.name, &kind())
    }

    /// Makes an object in this namespace.
    pub async fn make<K>(&self, document: Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let object: K = typed(document);
        self.api()
            .create(&Default::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("{object:?}: {error}"))
    }

    /// Makes a task.
    pub async fn task(&self, name: &str, spec: Value) {
        let task = json!({ "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": { "name": name }, "spec": spec });
        let task: DynamicObject = typed(task);
        self.tasks()
            .create(&Default::default(), &task)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Changes a task (a merge patch).
    pub async fn change(&self, name: &str, change: Value) {
        let params = PatchParams::default();
        self.tasks()
            .patch(name, &params, &Patch::Merge(&change))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Asks for a run now.
    pub async fn ask(&self, name: &str, value: &str) {
        let mark = json!({ "metadata": { "annotations": { "kuration.io/run-requested-at": value } } });
        self.change(name, mark).await;
    }

    /// A task as it stands.
    pub async fn seen(&self, name: &str) -> Value {
        let task = self.tasks().get(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        json!(task)
    }

    /// Waits until a task is as it should be.
    pub async fn until(&self, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let task = self.seen(name).await;
            if so(&task) {
                return task;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "not in {} s: {name} {what}; it is {task}",
                PATIENCE.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Asks for a run, and waits until it is in the status.
    pub async fn run_now(&self, name: &str, value: &str) -> Value {
        self.until(name, "is ready", |task| condition(task, "Ready").0 == "True").await;
        let before = self.seen(name).await["status"]["lastRun"]["job"].clone();
        self.ask(name, value).await;
        self.until(name, "has run", |task| {
            let job = &task["status"]["lastRun"]["job"];
            job.is_string() && *job != before
        })
        .await
    }

    /// Waits until something is so.
    pub async fn until_so(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let begun = Instant::now();
        while !so().await {
            assert!(begun.elapsed() < PATIENCE, "not in {} s: {what}", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The task's Jobs.
    pub async fn jobs(&self, task: &str) -> Vec<Job> {
        let of = ListParams::default().labels(&format!("kuration.io/task={task}"));
        self.api::<Job>().list(&of).await.expect("Jobs").items
    }

    /// Waits for the task's CronJob.
    pub async fn cron_job(&self, task: &str) -> CronJob {
        let mut found = None;
        self.until_so("there is a CronJob", async || {
            found = self.api::<CronJob>().get_opt(task).await.expect("a CronJob");
            found.is_some()
        })
        .await;
        found.expect("a CronJob")
    }

    /// What the controller has told of a task: reasons and sentences.
    pub async fn told(&self, task: &str) -> Vec<(String, String)> {
        let of = ListParams::default()
            .fields(&format!("involvedObject.name={task},involvedObject.kind=InspectionTask"));
        let events = self.api::<Event>().list(&of).await.expect("events");
        let all = events
            .into_iter()
            .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()));
        all.collect()
    }

    /// A web server behind a headless Service of this name; the cluster of tests has no proxy for others.
    pub async fn web(&self, name: &str) {
        let labels = json!({ "app": name });
        let serve = "mkdir /tmp/www && echo ok > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www";
        self.make::<Pod>(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "web", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", serve],
                "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
            }] },
        }))
        .await;
        self.make::<k8s_openapi::api::core::v1::Service>(json!({
            "metadata": { "name": name },
            "spec": { "clusterIP": "None", "selector": labels, "ports": [{ "name": "http", "port": 8080 }] },
        }))
        .await;
        self.pod_ready(name).await;
    }

    pub async fn pod_ready(&self, pod: &str) {
        self.until_so(&format!("the pod {pod} is ready"), async || {
            let pod = self.api::<Pod>().get_opt(pod).await.expect("a pod");
            let conditions = pod.and_then(|pod| pod.status).and_then(|status| status.conditions);
            conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
        })
        .await;
    }

    /// A class of the pool, whatever it is called here.
    pub async fn pool_class(&self) -> StorageClass {
        let classes = Api::<StorageClass>::all(self.client.clone()).list(&Default::default()).await;
        let mut classes = classes.expect("classes").items.into_iter();
        classes.find(|class| class.provisioner == "pool.csi.kuration.io").expect("a class of the pool")
    }

    /// A pod of this name that has the claim at /data.
    pub async fn reader(&self, name: &str, claim: &str) {
        self.reader_where(json!({}), name, claim).await;
    }

    /// The same on a node of this name.
    pub async fn reader_on(&self, node: &str, name: &str, claim: &str) {
        self.reader_where(json!({ "kubernetes.io/hostname": node }), name, claim).await;
    }

    async fn reader_where(&self, labels: Value, name: &str, claim: &str) {
        self.make::<Pod>(json!({
            "metadata": { "name": name },
            "spec": {
                "nodeSelector": labels,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "shell", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", "sleep 1000000"],
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }],
                "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }],
            },
        }))
        .await;
        self.pod_ready(name).await;
    }

    /// What a shell in a pod prints.
    pub async fn sh(&self, pod: &str, script: &str) -> String {
        let call = AttachParams::default().stdin(false).stdout(true).stderr(true);
        let shell = self.api::<Pod>().exec(pod, ["/bin/sh", "-c", script], &call).await;
        let mut shell = shell.unwrap_or_else(|error| panic!("{script}: {error}"));
        let status = shell.take_status().expect("the status of a call");
        let (mut stdout, mut stderr) = (shell.stdout().expect("stdout"), shell.stderr().expect("stderr"));
        let (mut printed, mut complained) = (String::new(), String::new());
        let read = async {
            tokio::join!(stdout.read_to_string(&mut printed), stderr.read_to_string(&mut complained))
        };
        let (_, status) =
            tokio::time::timeout(PATIENCE, async { (read.await, status.await) }).await.expect("an end");
        let done = status.is_some_and(|status| status.status.as_deref() == Some("Success"));
        assert!(done, "{script:?} in {pod}: {printed} {complained}");
        printed.trim_end().to_owned()
    }

    /// A file on a volume, as JSON.
    pub async fn read(&self, pod: &str, path: &str) -> Value {
        let text = self.sh(pod, &format!("cat {path}")).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// The task's directory on a volume that is mounted at /data.
    pub async fn directory(&self, task: &str) -> String {
        let uid = self.seen(task).await["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        format!("/data/{}/{task}-{}", self.name, uid.replace('-', "").chars().take(8).collect::<String>())
    }

    /// Says what the cluster knows of a case that failed.
    async fn tell(&self) {
        eprintln!("--- namespace {}", self.name);
        for what in ["insp,cronjobs,jobs,pods,pvc", "events"] {
            let told = kubectl(&["get", what, "-n", &self.name, "-o", "wide"]);
            eprintln!("{}", told.unwrap_or_else(|error| error));
        }
        for pod in self.api::<Pod>().list(&Default::default()).await.into_iter().flatten() {
            let log = kubectl(&["logs", "-n", &self.name, &pod.name_any(), "--tail=20"]).unwrap_or_default();
            eprintln!("pod {}: {}\n{log}", pod.name_any(), json!(pod.status));
        }
        let selector = "app.kubernetes.io/name=kuration-inspector-controller";
        eprintln!("{}", kubectl(&["logs", "--selector", selector, "--tail=40"]).unwrap_or_default());
    }
}
