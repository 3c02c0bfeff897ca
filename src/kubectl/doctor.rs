//! `kubectl kuration doctor`: what keeps inspections from working, each with what to do about it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams};
use serde::Serialize;

use super::show::{Cell, document, table};
use super::{KubectlError, Place};
use crate::args::Output;
use crate::inspection::task::InspectionTask;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Look {
    /// What.
    what: String,
    /// Whether it is as it should be.
    pub well: bool,
    /// What was seen, and what to do.
    says: String,
}

fn look(what: impl Into<String>, well: bool, says: impl Into<String>) -> Look {
    Look { what: what.into(), well, says: says.into() }
}

/// Looks at everything that an inspection needs, as far as the one who asks may see it.
pub async fn look_at(place: &Place) -> Vec<Look> {
    let mut found = Vec::new();
    match place.client.apiserver_version().await {
        Ok(version) => found.push(look("API server", true, version.git_version)),
        Err(error) => {
            found.push(look("API server", false, format!("{error}: see --kubeconfig and --context")));
            return found;
        }
    }
    let crds: Api<CustomResourceDefinition> = Api::all(place.client.clone());
    found.push(match crds.get_opt("inspectiontasks.kuration.io").await {
        Ok(Some(_)) => look("CRD", true, "inspectiontasks.kuration.io is served"),
        Ok(None) => {
            look("CRD", false, "it is not installed: helm install kuration-crd charts/kuration-server-crd")
        }
        Err(error) => look("CRD", true, format!("you may not look: {error}")),
    });
    let deployments: Api<Deployment> = Api::all(place.client.clone());
    let of = ListParams::default().labels("app.kubernetes.io/name=kuration-inspector-controller");
    found.push(match deployments.list(&of).await {
        Ok(list) => {
            let ready = list.items.iter().filter_map(|one| one.status.as_ref()?.ready_replicas).sum::<i32>();
            match ready {
                0 => look("controller", false, "no replica is ready: kubectl describe deployment, kubectl logs; or helm install kuration-controller charts/kuration-server-controller"),
                ready => look("controller", true, format!("{ready} ready")),
            }
        }
        Err(error) => look("controller", true, format!("you may not look: {error}")),
    });
    let (cronjobs, claims): (Api<CronJob>, Api<PersistentVolumeClaim>) = (
        Api::namespaced(place.client.clone(), &place.namespace),
        Api::namespaced(place.client.clone(), &place.namespace),
    );
    match place.tasks().list(&ListParams::default()).await {
        Ok(tasks) => {
            for task in tasks {
                found.extend(of_task(&task, &cronjobs, &claims).await);
            }
        }
        Err(error) => found.push(look("tasks", false, error.to_string())),
    }
    found
}

async fn of_task(
    task: &InspectionTask,
    cronjobs: &Api<CronJob>,
    claims: &Api<PersistentVolumeClaim>,
) -> Vec<Look> {
    let name = task.metadata.name.clone().unwrap_or_default();
    let mut found = Vec::new();
    let status = task.status.clone().unwrap_or_default();
    if status.observed_generation != task.metadata.generation {
        found.push(look(
            &name,
            false,
            "the controller has not seen its newest form: see whether it is running",
        ));
    }
    for condition in status.conditions.iter().filter(|one| one.type_ != "Healthy" && one.status == "False") {
        found.push(look(
            &name,
            false,
            format!("{}: {}: {}", condition.type_, condition.reason, condition.message),
        ));
    }
    match cronjobs.get_opt(&name).await {
        Ok(None) => {
            found.push(look(&name, false, "its CronJob is missing: the controller makes it; see its log"))
        }
        Ok(Some(_)) => {}
        Err(error) => found.push(look(&name, false, format!("its CronJob can't be read: {error}"))),
    }
    if let Some(claim) = &status.claim_name {
        let bound = claims.get_opt(claim).await.ok().flatten().and_then(|claim| claim.status?.phase);
        if bound.as_deref() != Some("Bound") {
            let phase = bound.unwrap_or_else(|| "missing".into());
            found.push(look(
                &name,
                false,
                format!("its claim {claim} is {phase}: kubectl describe pvc {claim}"),
            ));
        }
    }
    // Two periods of a schedule are not known here; what is due and five minutes late is late.
    let late = |due: Timestamp| Timestamp::now().duration_since(due) > SignedDuration::from_mins(5);
    if let Some(due) = status.next_schedule_time.filter(|due| !task.spec.suspend && late(*due)) {
        found.push(look(&name, false, format!("a run was due at {due} and is not accounted for: see kube-controller-manager and the controller")));
    }
    if found.is_empty() {
        found.push(look(&name, true, if task.spec.suspend { "suspended" } else { "scheduled" }));
    }
    found
}

/// What was seen, printed.
pub fn told(found: &[Look], output: Output, colours: bool) -> Result<String, KubectlError> {
    if let Some(text) = document(&found, output)? {
        return Ok(text);
    }
    let row = |one: &Look| {
        let (word, code) = if one.well { ("ok", "32") } else { ("problem", "31;1") };
        vec![Cell::in_colour(word, code, colours), one.what.as_str().into(), one.says.as_str().into()]
    };
    Ok(table(&["STATE", "WHAT", "SEEN"], found.iter().map(row).collect()))
}
