//! Reading the results volume from outside of the cluster: a pod mounts it, reads, says what it read, and is deleted.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, LogParams, PostParams};
use serde_json::json;

use super::{KubectlError, Place};
use crate::args::ReportFormat;
use crate::inspection::run::TaskName;
use crate::inspection::task::InspectionTask;

/// How long the pod may take: its image is on the nodes already.
const LIMIT: Duration = Duration::from_secs(120);

/// Such a pod ends by itself even where nobody deletes it.
const DEADLINE: i64 = 180;

/// The report of a run of `task`: of the newest, or of the one with the id `run`.
pub async fn report(
    place: &Place,
    task: &InspectionTask,
    run: Option<&str>,
    format: ReportFormat,
) -> Result<String, KubectlError> {
    let name = task.metadata.name.clone().unwrap_or_default();
    let missing = |what: &str| KubectlError::Missing(format!("{name}: {what}"));
    let claim = task.status.as_ref().and_then(|status| status.claim_name.clone());
    let claim =
        claim.ok_or_else(|| missing("it keeps no results on a volume (status.claimName is empty)"))?;
    let cronjobs: Api<CronJob> = Api::namespaced(place.client.clone(), &place.namespace);
    let cronjob = cronjobs.get(&name).await?;
    let spec = cronjob.spec.and_then(|spec| spec.job_template.spec).and_then(|job| job.template.spec);
    let image = spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone());
    let image = image.ok_or_else(|| missing("its CronJob names no image"))?;
    let directory = TaskName {
        namespace: place.namespace.clone(),
        name: name.clone(),
        uid: task.metadata.uid.clone().unwrap_or_default(),
        generation: 0,
    }
    .directory();
    let word = match format {
        ReportFormat::Html => "html",
        ReportFormat::Json => "json",
        ReportFormat::Junit => "junit",
        ReportFormat::Openreports => "openreports",
    };
    let mut args =
        vec!["report".to_owned(), format!("--once=/results/{directory}"), format!("--format={word}")];
    args.extend(run.map(|run| format!("--run={run}")));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": format!("{name}-report-"), "labels": {"app.kubernetes.io/managed-by": "kubectl-kuration"}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "imagePullSecrets": spec.as_ref().and_then(|spec| spec.image_pull_secrets.clone()).unwrap_or_default(),
            "nodeSelector": spec.as_ref().and_then(|spec| spec.node_selector.clone()).unwrap_or_default(),
            "securityContext": spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default(),
            "containers": [{
                "name": "report", "image": image, "args": args,
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "results", "mountPath": "/results", "readOnly": true}],
            }],
            "volumes": [{"name": "results", "persistentVolumeClaim": {"claimName": claim, "readOnly": true}}],
        },
    });
    let pod: Pod = serde_json::from_value(pod).map_err(|error| KubectlError::Form(error.to_string()))?;
    let pods: Api<Pod> = Api::namespaced(place.client.clone(), &place.namespace);
    let made = pods.create(&PostParams::default(), &pod).await?;
    let pod = made.metadata.name.unwrap_or_default();
    let read = tokio::select! {
        read = said(&pods, &pod) => read,
        // The pod is not left behind for those who have no patience.
        _ = tokio::signal::ctrl_c() => Err(KubectlError::Missing("interrupted".into())),
    };
    let deleted =
        pods.delete(&pod, &DeleteParams { grace_period_seconds: Some(0), ..Default::default() }).await;
    let text = read?;
    deleted?;
    Ok(text)
}

/// What the pod says, when it has ended.
async fn said(pods: &Api<Pod>, name: &str) -> Result<String, KubectlError> {
    let begun = Instant::now();
    loop {
        let status = pods.get(name).await?.status.unwrap_or_default();
        match status.phase.as_deref() {
            Some("Succeeded") => return Ok(pods.logs(name, &LogParams::default()).await?),
            Some("Failed") => {
                let log = pods.logs(name, &LogParams::default()).await.unwrap_or_default();
                let why = status.message.unwrap_or_default();
                return Err(KubectlError::Missing(format!("pod {name} failed: {why}{}", log.trim())));
            }
            _ if begun.elapsed() > LIMIT => {
                let waiting =
                    status.container_statuses.unwrap_or_default().into_iter().find_map(|container| {
                        let waiting = container.state?.waiting?;
                        Some(format!("{}: {}", waiting.reason?, waiting.message.unwrap_or_default()))
                    });
                let why = waiting.unwrap_or_else(|| "is the results volume there? see its events".to_owned());
                return Err(KubectlError::Missing(format!(
                    "pod {name} has not run after {} s: {why}",
                    LIMIT.as_secs()
                )));
            }
            _ => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}
