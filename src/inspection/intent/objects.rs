//! What should be there for a task.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::schedule::Schedule;
use super::super::task::{
    AccessMode, ClaimRetention, ConcurrencyPolicy, DEFAULT_ACCOUNT, InspectionTask, Target,
};
use super::aside::{aside, confined};
use super::{RUN_REQUEST, RunPods, TASK_LABEL};

/// What the controller was installed with.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The image of a run's pods: this program's.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// The class of claims for tasks that name none.
    pub class: Option<String>,
    /// The size of such a claim.
    pub size: String,
    /// The ClusterRole that the default account is bound to in each namespace.
    pub role: String,
}

/// The claim that the tasks of a namespace share unless they say otherwise.
pub const SHARED_CLAIM: &str = "kuration-inspection-results";

/// Where a task's results go.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// To a claim that is there, or is made by somebody else.
    Named(String),
    /// To a claim that the controller makes.
    Made(String, Value),
    /// Nowhere: there is no class to make one of.
    None,
}

impl Claim {
    /// Its name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Claim::Named(name) | Claim::Made(name, _) => Some(name),
            Claim::None => None,
        }
    }
}

/// What should be there for a task, each as it is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The account and its binding, where the task names none of its own.
    pub account: Option<(Value, Value)>,
    /// The task as its runs read it, in an immutable ConfigMap: a run never sees half of an edit.
    pub rules: Value,
    /// The name of that ConfigMap.
    pub rules_name: String,
    /// The claim.
    pub claim: Claim,
    /// The CronJob.
    pub cron_job: Value,
    /// A run that a person asked for and that has not been started: its Job.
    pub run_now: Option<Value>,
}

/// Why a task's schedule is not in force: a reason in one word, the field, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// In one CamelCase word.
    pub reason: &'static str,
    /// In a sentence that begins with the field's path.
    pub message: String,
}

/// A task's schedule and zone, or why it has none.
pub fn schedule(task: &InspectionTask, now: Timestamp) -> Result<(Schedule, TimeZone), NotReady> {
    let spec = &task.spec;
    let not = |reason, message| Err(NotReady { reason, message });
    if let Err(error) = Target::parse(&spec.target) {
        return not("InvalidTarget", format!("spec.target: {error}"));
    }
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(error) => return not("InvalidSchedule", format!("spec.schedule: {error}")),
    };
    let Ok(zone) = TimeZone::get(&spec.time_zone) else {
        return not("UnknownTimeZone", format!("spec.timeZone: there is no zone {:?}", spec.time_zone));
    };
    if schedule.next(now, &zone).is_none() {
        return not("NeverDue", format!("spec.schedule: {:?} is not due within five years", spec.schedule));
    }
    Ok((schedule, zone))
}

/// What should be there for `task`.
pub fn desired(
    task: &InspectionTask,
    defaults: &Defaults,
    pods: &RunPods,
    class: Option<&StorageClass>,
    now: Timestamp,
) -> Result<Desired, NotReady> {
    let (schedule, zone) = schedule(task, now)?;
    let claim = claim(task, defaults, class);
    let (rules_name, rules) = rules(task);
    let template = job_template(task, defaults, pods, claim.name(), &rules_name);
    let spec = &task.spec;
    let policy = match spec.concurrency_policy {
        ConcurrencyPolicy::Forbid => "Forbid",
        ConcurrencyPolicy::Replace => "Replace",
    };
    let deadline = spec
        .starting_deadline_seconds
        .unwrap_or_else(|| schedule.period(now, &zone).map_or(300, |period| (period / 2).clamp(10, 300)));
    let cron_job = object(
        "batch/v1",
        "CronJob",
        &name(task),
        task,
        json!({ "spec": {
            "schedule": spec.schedule,
            "timeZone": spec.time_zone,
            "suspend": spec.suspend,
            "concurrencyPolicy": policy,
            "startingDeadlineSeconds": deadline,
            // So many runs can end while no controller looks, and none of their messages is lost.
            "successfulJobsHistoryLimit": 5,
            "failedJobsHistoryLimit": 5,
            "jobTemplate": template,
        }}),
    );
    let account = spec.service_account_name.is_none().then(|| account(task, defaults));
    let run_now = run_now(task, &template);
    Ok(Desired { account, rules, rules_name, claim, cron_job, run_now })
}

fn name(task: &InspectionTask) -> String {
    task.metadata.name.clone().unwrap_or_default()
}

fn namespace(task: &InspectionTask) -> String {
    task.metadata.namespace.clone().unwrap_or_default()
}

/// The reference by which an object goes when its task goes.
pub fn owner(task: &InspectionTask) -> Value {
    json!([{
        "apiVersion": super::super::task::API_VERSION,
        "kind": "InspectionTask",
        "name": name(task),
        "uid": task.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

pub(super) fn labels(task: &InspectionTask) -> Value {
    json!({
        "app.kubernetes.io/name": "kuration-inspection",
        "app.kubernetes.io/managed-by": "kuration-inspector",
        TASK_LABEL: name(task),
    })
}

/// An object of the task's namespace that goes with the task.
fn object(api: &str, kind: &str, called: &str, task: &InspectionTask, mut with: Value) -> Value {
    with["apiVersion"] = api.into();
    with["kind"] = kind.into();
    with["metadata"] = json!({
        "name": called,
        "namespace": namespace(task),
        "labels": labels(task),
        "ownerReferences": owner(task),
    });
    with
}

/// The account of tasks that name none, and its binding. Both belong to the namespace and outlive each task in it.
fn account(task: &InspectionTask, defaults: &Defaults) -> (Value, Value) {
    let metadata = json!({
        "name": DEFAULT_ACCOUNT,
        "namespace": namespace(task),
        "labels": { "app.kubernetes.io/managed-by": "kuration-inspector" },
    });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": defaults.role },
        "subjects": [{ "kind": "ServiceAccount", "name": DEFAULT_ACCOUNT, "namespace": namespace(task) }],
    });
    (account, binding)
}

/// The task as its runs read it. The name holds a digest of all of it.
fn rules(task: &InspectionTask) -> (String, Value) {
    let text = json!({
        "apiVersion": super::super::task::API_VERSION,
        "kind": "InspectionTask",
        "metadata": {
            "namespace": namespace(task),
            "name": name(task),
            "uid": task.metadata.uid,
            "generation": task.metadata.generation,
        },
        "spec": task.spec,
    })
    .to_string();
    let called = format!("{}-{}", name(task), short(&text));
    let map =
        object("v1", "ConfigMap", &called, task, json!({ "immutable": true, "data": { "task.json": text } }));
    (called, map)
}

/// Eight hexadecimal digits of a text's digest.
pub fn short(text: &str) -> String {
    Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The class of claims for tasks that name none: the one that was configured; else one of the driver; else the default of the
/// cluster.
pub fn choose_class<'a>(classes: &'a [StorageClass], configured: Option<&str>) -> Option<&'a StorageClass> {
    let name = |class: &StorageClass| class.metadata.name.clone().unwrap_or_default();
    if let Some(configured) = configured {
        return classes.iter().find(|class| name(class) == configured);
    }
    let default = |class: &StorageClass| {
        let marks = class.metadata.annotations.as_ref();
        marks
            .and_then(|marks| marks.get("storageclass.kubernetes.io/is-default-class"))
            .is_some_and(|mark| mark == "true")
    };
    let ours = |class: &StorageClass| class.provisioner.ends_with("csi.kuration.io");
    let mut sorted: Vec<&StorageClass> =
        classes.iter().filter(|class| ours(class) || default(class)).collect();
    sorted.sort_by_key(|class| (!ours(class), !default(class), name(class)));
    sorted.first().copied()
}

fn claim(task: &InspectionTask, defaults: &Defaults, class: Option<&StorageClass>) -> Claim {
    let results = task.spec.results.as_ref();
    if let Some(named) = results.and_then(|results| results.claim_name.clone()) {
        return Claim::Named(named);
    }
    let made = |called: String, class: Option<String>, modes: Value, size: String, with_task: bool| {
        let mut metadata = json!({ "name": called, "namespace": namespace(task), "labels": {
            "app.kubernetes.io/managed-by": "kuration-inspector",
        }});
        if with_task {
            metadata["ownerReferences"] = owner(task);
        }
        let mut spec = json!({ "accessModes": modes, "resources": { "requests": { "storage": size } } });
        if let Some(class) = class {
            spec["storageClassName"] = class.into();
        }
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec,
        });
        Claim::Made(called, claim)
    };
    let class_name = class.and_then(|class| class.metadata.name.clone());
    if let Some(template) = results.and_then(|results| results.volume_claim_template.as_ref()) {
        let size = template.resources.as_ref().and_then(|resources| resources.requests.storage.as_ref());
        let size = size.map_or_else(|| defaults.size.clone(), |size| size.quantity());
        let with_task = results.is_some_and(|results| results.claim_retention == ClaimRetention::Delete);
        let class = template.storage_class_name.clone().or(class_name);
        return made(format!("{}-results", name(task)), class, json!(template.access_modes), size, with_task);
    }
    match class {
        None => Claim::None,
        Some(class) => {
            let modes = json!([AccessMode::of(class)]);
            made(SHARED_CLAIM.to_owned(), class_name, modes, defaults.size.clone(), false)
        }
    }
}

/// Every Secret that a rule of the task names.
fn secrets(task: &InspectionTask) -> BTreeSet<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let reference = key.ends_with("SecretRef") || key == "secretKeyRef";
                    if let Some(name) = inner.get("name").and_then(Value::as_str).filter(|_| reference) {
                        found.insert(name.to_owned());
                    }
                    walk(inner, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(&json!(task.spec.rules), &mut found);
    found
}

/// The template of a run's Job.
fn job_template(
    task: &InspectionTask,
    defaults: &Defaults,
    pods: &RunPods,
    claim: Option<&str>,
    rules: &str,
) -> Value {
    let spec = &task.spec;
    let more = spec.pod_template.clone().unwrap_or_default();
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut env = vec![
        json!({ "name": "KURATION_TASK", "value": "/etc/kuration/task.json" }),
        json!({ "name": "KURATION_TERMINATION_LOG", "value": "/dev/termination-log" }),
        json!({ "name": "KURATION_BACKFILL", "value": "/etc/kuration/backfill" }),
        field("KURATION_JOB", "metadata.labels['batch.kubernetes.io/job-name']"),
        field("KURATION_POD", "metadata.name"),
        field("KURATION_NODE", "spec.nodeName"),
    ];
    env.extend(pods.env());
    let mut volumes = vec![
        json!({ "name": "task", "configMap": { "name": rules } }),
        json!({ "name": "backfill", "configMap": { "name": backfill_name(&name(task)), "optional": true } }),
        json!({ "name": "tmp", "emptyDir": { "sizeLimit": "64Mi" } }),
    ];
    let mut mounts = vec![
        json!({ "name": "task", "mountPath": "/etc/kuration/task.json", "subPath": "task.json", "readOnly": true }),
        json!({ "name": "backfill", "mountPath": "/etc/kuration/backfill", "readOnly": true }),
        json!({ "name": "tmp", "mountPath": "/tmp" }),
    ];
    if let Some(claim) = claim {
        env.push(json!({ "name": "KURATION_RESULTS", "value": "/results" }));
        volumes.push(json!({ "name": "results", "persistentVolumeClaim": { "claimName": claim } }));
        mounts.push(json!({ "name": "results", "mountPath": "/results" }));
    }
    for (at, secret) in secrets(task).into_iter().enumerate() {
        let volume = format!("secret-{at}");
        volumes.push(json!({ "name": volume, "secret": { "secretName": secret, "optional": true } }));
        mounts.push(json!({
            "name": volume, "mountPath": format!("/etc/kuration/secrets/{secret}"), "readOnly": true,
        }));
    }
    let aside = aside(spec.rules.as_deref().unwrap_or_default(), defaults);
    env.extend(aside.env);
    volumes.extend(aside.volumes);
    mounts.extend(aside.mounts);
    let mut pod_labels = more.labels.map_or_else(|| json!({}), |labels| json!(labels));
    merge(&mut pod_labels, labels(task));
    let mut pod = json!({
        "serviceAccountName": spec.account(),
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "inspect",
            "image": defaults.image,
            "imagePullPolicy": defaults.pull_policy,
            "args": ["inspect"],
            "env": env,
            "resources": more.resources.map_or_else(
                || json!({ "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } }),
                |resources| json!(resources),
            ),
            "securityContext": confined(),
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    });
    if !aside.beside.is_empty() {
        pod["automountServiceAccountToken"] = false.into();
        pod["initContainers"] = aside.before.into();
        if let Some(containers) = pod["containers"].as_array_mut() {
            containers.extend(aside.beside);
        }
    }
    let mut tolerations = more.tolerations.map_or_else(Vec::new, |tolerations| vec![json!(tolerations)]);
    let mut selector = more.node_selector.map(|selector| json!(selector));
    let mut job = json!({
        // What a run waits before it begins takes nothing from it.
        "activeDeadlineSeconds": spec.active_deadline_seconds + spec.jitter_seconds,
        "backoffLimit": 0,
        // A pod that had to go is no failed run: it is tried again.
        "podFailurePolicy": { "rules": [{
            "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }],
        }]},
    });
    if let Some(fan_out) = spec.fan_out.as_ref().filter(|_| spec.every_node()) {
        if fan_out.tolerate_all_taints {
            tolerations.push(json!([{ "operator": "Exists" }]));
        }
        selector = fan_out.node_selector.as_ref().map(|selector| json!(selector)).or(selector);
        job["completionMode"] = "Indexed".into();
        pod["affinity"] = json!({ "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": { "matchLabels": { TASK_LABEL: name(task) } },
                "matchLabelKeys": ["batch.kubernetes.io/job-name"],
            }],
        }});
    }
    let tolerations: Vec<Value> =
        tolerations.into_iter().filter_map(|list| list.as_array().cloned()).flatten().collect();
    for (key, value) in [
        ("tolerations", (!tolerations.is_empty()).then(|| json!(tolerations))),
        ("nodeSelector", selector),
        ("priorityClassName", more.priority_class_name.map(Value::from)),
        ("imagePullSecrets", pods.pull_secrets(more.image_pull_secrets)),
    ] {
        if let Some(value) = value {
            pod[key] = value;
        }
    }
    job["template"] = json!({ "metadata": { "labels": pod_labels }, "spec": pod });
    if let Some(annotations) = more.annotations {
        job["template"]["metadata"]["annotations"] = json!(annotations);
    }
    json!({ "metadata": { "labels": labels(task) }, "spec": job })
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// The ConfigMap that keeps what runs without a volume found until it can be written down.
pub fn backfill_name(task: &str) -> String {
    format!("{task}-backfill")
}

/// The Job that a person asked for, unless it was asked for before.
fn run_now(task: &InspectionTask, template: &Value) -> Option<Value> {
    let asked = task.metadata.annotations.as_ref()?.get(RUN_REQUEST).filter(|asked| !asked.is_empty())?;
    let answered = task.status.as_ref().and_then(|status| status.last_run_request.as_ref());
    if answered == Some(asked) {
        return None;
    }
    let called = format!("{}-m{}", name(task), short(asked));
    Some(object("batch/v1", "Job", &called, task, json!({ "spec": template["spec"] })))
}

/// Whether all that is wanted stands in what was found; more may stand there, as the API server fills in what is left out.
pub fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| covers(found, wanted)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| covers(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}
