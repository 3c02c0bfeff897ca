//! A run whose results volume does not come is run without it: what is inspected matters most when storage is down.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::task::{InspectionTask, OnUnavailable};
use super::objects::owner;
use super::{DEGRADED_LABEL, TASK_LABEL};

/// A pod may wait so many seconds for its volume.
pub const PATIENCE: i64 = 45;

/// The volume of a pod that its results go to.
const RESULTS: &str = "results";

/// Whether a Job's pod has waited for its results volume long enough.
///
/// Volumes are mounted before a pod's sandbox is made, and images are pulled after: so a pod that is scheduled and has no
/// sandbox waits for a volume, and one that can't pull its image has one. A claim that is not bound keeps a pod from being
/// scheduled, and the scheduler says so.
pub fn waits_for_volume(pod: &Pod, now: Timestamp) -> bool {
    let Some(status) = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Pending")) else {
        return false;
    };
    let has_volume = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.volumes.iter().flatten().any(|volume| volume.name == RESULTS));
    let since = pod.metadata.creation_timestamp.as_ref().map(|since| since.0.as_second());
    if !has_volume || since.is_none_or(|since| now.as_second() - since < PATIENCE) {
        return false;
    }
    let condition = |name: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == name);
    let Some(scheduled) = condition("PodScheduled") else { return false };
    if scheduled.status == "True" {
        return condition("PodReadyToStartContainers").is_some_and(|ready| ready.status == "False");
    }
    let message = scheduled.message.as_deref().unwrap_or_default().to_lowercase();
    ["persistentvolumeclaim", "volume", "bind"].iter().any(|word| message.contains(word))
}

/// Whether a task's runs go on without their volume.
pub fn may_degrade(task: &InspectionTask) -> bool {
    let results = task.spec.results.as_ref();
    results.is_none_or(|results| results.on_unavailable == OnUnavailable::Degrade)
}

/// The Job that runs in place of `job`, without the volume. It belongs to the task, so that the CronJob does not look at it.
pub fn without_volume(task: &InspectionTask, job: &Job) -> Option<Value> {
    let name = job.metadata.name.as_ref()?;
    let labels = job.metadata.labels.as_ref();
    if labels.is_some_and(|labels| labels.contains_key(DEGRADED_LABEL)) {
        return None;
    }
    let spec = job.spec.as_ref()?;
    let mut pod = json!(spec.template.spec);
    let strip = |list: &mut Value| {
        if let Some(list) = list.as_array_mut() {
            list.retain(|item| item["name"] != RESULTS && item["name"] != "KURATION_RESULTS");
        }
    };
    strip(&mut pod["volumes"]);
    if let Some(containers) = pod["containers"].as_array_mut() {
        for container in containers {
            strip(&mut container["volumeMounts"]);
            strip(&mut container["env"]);
        }
    }
    let task_name = task.metadata.name.as_ref()?;
    let labels = json!({
        "app.kubernetes.io/name": "kuration-inspection",
        "app.kubernetes.io/managed-by": "kuration-inspector",
        TASK_LABEL: task_name,
        DEGRADED_LABEL: "true",
    });
    let mut with = json!({
        "activeDeadlineSeconds": spec.active_deadline_seconds,
        "backoffLimit": 0,
        "template": { "metadata": { "labels": labels }, "spec": pod },
    });
    if spec.completion_mode.as_deref() == Some("Indexed") {
        with["completionMode"] = "Indexed".into();
        with["completions"] = json!(spec.completions);
        with["parallelism"] = json!(spec.parallelism);
    }
    Some(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": format!("{name}-d"),
            "namespace": task.metadata.namespace,
            "labels": labels,
            "ownerReferences": owner(task),
        },
        "spec": with,
    }))
}
