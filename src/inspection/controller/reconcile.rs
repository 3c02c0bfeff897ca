//! One task, once: look, decide, act, say.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::intent::objects::short;
use super::super::intent::{
    Claim, FIELD_MANAGER, Found, NotReady, TASK_LABEL, choose_class, covers, degrade, desired, fleet, status,
};
use super::super::task::{API_VERSION, InspectionTask, InspectionTaskStatus};
use super::{Context, backfill, events};

/// Why a task can't be looked after now.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused or did not answer.
    #[error("{what}: {error}")]
    Api {
        /// What was tried.
        what: &'static str,
        /// What came back.
        error: kube::Error,
    },
}

fn api(what: &'static str) -> impl Fn(kube::Error) -> ReconcileError {
    move |error| ReconcileError::Api { what, error }
}

/// While a run is under way it is looked at this often, as a pod that waits changes nothing.
const UNDER_WAY: Duration = Duration::from_secs(15);

/// At rest a task is looked at this often, or a little after its next run was due.
const AT_REST: Duration = Duration::from_secs(600);

/// Brings one task into order.
pub async fn reconcile(task: &InspectionTask, context: &Context) -> Result<Action, ReconcileError> {
    if task.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let (name, namespace) = (task.name_any(), task.namespace().unwrap_or_default());
    let client = || context.client.clone();
    let cron_jobs: Api<CronJob> = Api::namespaced(client(), &namespace);
    let jobs: Api<Job> = Api::namespaced(client(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client(), &namespace);
    let now = Timestamp::now();

    let of_task = ListParams::default().labels(&format!("{TASK_LABEL}={name}"));
    let mut found = Found {
        cron_job: cron_jobs.get_opt(&name).await.map_err(api("reading the CronJob"))?,
        jobs: jobs.list(&of_task).await.map_err(api("listing Jobs"))?.items,
        pods: pods.list(&of_task).await.map_err(api("listing pods"))?.items,
        claim: None,
        no_claim: None,
    };
    let not_ready = match wanted(task, context, &found, now).await? {
        Ok(wanted) => {
            found.claim = wanted.claim.name().map(str::to_owned);
            if found.claim.is_none() {
                found.no_claim = Some(no_class(context));
            }
            apply(task, context, wanted, &mut found, &cron_jobs, &maps, &jobs).await?
        }
        Err(why) => Some(why),
    };
    if degrade::may_degrade(task) {
        degraded(task, &found, &jobs, now).await?;
    }
    let (new, ended) = status(task, &found, not_ready.as_ref(), now);
    backfill::keep(&maps, task, &ended).await.map_err(api("keeping what could not be written"))?;
    if task.status.as_ref() != Some(&new) {
        write(task.meta(), &new, context).await?;
        events::tell(&context.recorder, task, &new, &ended).await;
    }
    let active =
        found.jobs.iter().any(|job| job.status.as_ref().is_some_and(|status| status.active > Some(0)));
    let until_due = new.next_schedule_time.map_or(AT_REST.as_secs(), |due| {
        // The CronJob controller looks at its schedules when they are due; misses are known when the deadline is over.
        u64::try_from(due.as_second() - now.as_second()).unwrap_or(0) + 20
    });
    let rest = AT_REST.min(Duration::from_secs(until_due));
    Ok(Action::requeue(if active { UNDER_WAY } else { rest }))
}

fn no_class(context: &Context) -> String {
    match &context.defaults.class {
        Some(class) => format!("there is no StorageClass {class:?}, which the controller was installed with"),
        None => "there is no StorageClass of the driver and no default one: results stay in the status alone"
            .into(),
    }
}

/// What should be there for the task, or why nothing should.
async fn wanted(
    task: &InspectionTask,
    context: &Context,
    found: &Found,
    now: Timestamp,
) -> Result<Result<super::super::intent::Desired, NotReady>, ReconcileError> {
    let ours = |cron: &CronJob| {
        cron.owner_references().iter().any(|owner| Some(&owner.uid) == task.metadata.uid.as_ref())
    };
    if found.cron_job.as_ref().is_some_and(|cron| !ours(cron)) {
        return Ok(Err(NotReady {
            reason: "NameConflict",
            message: format!(
                "metadata.name: a CronJob {} is there that is not this task's; rename one of them",
                task.name_any()
            ),
        }));
    }
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let classes = classes.list(&ListParams::default()).await.map_err(api("listing StorageClasses"))?.items;
    let class = choose_class(&classes, context.defaults.class.as_deref());
    let nodes = match task.spec.every_node() {
        true => Some(nodes(task, context).await?),
        false => None,
    };
    let mut desired = match desired(task, &context.defaults, class, now) {
        Ok(desired) => desired,
        Err(why) => return Ok(Err(why)),
    };
    if let Some(nodes) = nodes {
        let planned = desired.cron_job.pointer_mut("/spec/jobTemplate/spec");
        let now = desired.run_now.as_mut().and_then(|job| job.get_mut("spec"));
        planned.into_iter().chain(now).for_each(|job| fleet::spread(job, &nodes));
    }
    Ok(Ok(desired))
}

/// The nodes that a run on every node means.
async fn nodes(task: &InspectionTask, context: &Context) -> Result<Vec<String>, ReconcileError> {
    let selector = task.spec.fan_out.as_ref().and_then(|fan_out| fan_out.node_selector.clone());
    let selector: Vec<String> =
        selector.unwrap_or_default().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let nodes: Api<Node> = Api::all(context.client.clone());
    let list = ListParams::default().labels(&selector.join(","));
    let nodes = nodes.list(&list).await.map_err(api("listing nodes"))?.items;
    Ok(fleet::meant(&task.spec, &nodes))
}

/// Applies what is wanted and not yet there.
async fn apply(
    task: &InspectionTask,
    context: &Context,
    wanted: super::super::intent::Desired,
    found: &mut Found,
    cron_jobs: &Api<CronJob>,
    maps: &Api<ConfigMap>,
    jobs: &Api<Job>,
) -> Result<Option<NotReady>, ReconcileError> {
    let namespace = task.namespace().unwrap_or_default();
    if let Some((account, binding)) = &wanted.account {
        settle::<ServiceAccount>(context, &namespace, account).await?;
        settle::<RoleBinding>(context, &namespace, binding).await?;
    }
    if let Claim::Made(name, claim) = &wanted.claim {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
        if claims.get_metadata_opt(name).await.map_err(api("reading the claim"))?.is_none() {
            create(&claims, claim, "making the claim").await?;
        }
    }
    let new_rules = settle::<ConfigMap>(context, &namespace, &wanted.rules).await?;
    let there = found.cron_job.as_ref().map(|cron| json!(cron));
    if !there.is_some_and(|there| {
        // The kind is not said in what is read.
        let part = |of: &Value| json!({ "metadata": of["metadata"], "spec": of["spec"] });
        covers(&part(&there), &part(&wanted.cron_job))
    }) {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = cron_jobs.patch(&task.name_any(), &params, &Patch::Apply(&wanted.cron_job)).await;
        match applied {
            Ok(cron) => found.cron_job = Some(cron),
            Err(kube::Error::Api(refused)) if refused.code == 422 || refused.code == 403 => {
                return Ok(Some(NotReady { reason: "CronJobRefused", message: refused.message.clone() }));
            }
            Err(error) => return Err(api("applying the CronJob")(error)),
        }
    }
    if let Some(job) = &wanted.run_now {
        create(jobs, job, "starting the run that was asked for").await?;
    }
    if new_rules {
        sweep(task, &wanted.rules_name, found, maps).await?;
    }
    Ok(None)
}

/// Makes an object; that it is there already is well.
async fn create<K>(api_of: &Api<K>, object: &Value, what: &'static str) -> Result<(), ReconcileError>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let typed: K = serde_json::from_value(object.clone())
        .map_err(|error| ReconcileError::Api { what, error: kube::Error::SerdeError(error) })?;
    match api_of
        .create(&PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() }, &typed)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refused)) if refused.code == 409 => Ok(()),
        Err(error) => Err(api(what)(error)),
    }
}

/// Applies an object unless it was applied a short while ago; whether it was applied now.
async fn settle<K>(context: &Context, namespace: &str, object: &Value) -> Result<bool, ReconcileError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let digest = short(&object.to_string());
    if context.settled(&digest) {
        return Ok(false);
    }
    let objects: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    objects
        .patch(name, &params, &Patch::Apply(object))
        .await
        .map_err(api("applying account, binding or rules"))?;
    context.settle(digest);
    Ok(true)
}

/// Removes rules that no run reads any more.
async fn sweep(
    task: &InspectionTask,
    current: &str,
    found: &Found,
    maps: &Api<ConfigMap>,
) -> Result<(), ReconcileError> {
    let name = task.name_any();
    let of_task = ListParams::default().labels(&format!("{TASK_LABEL}={name}"));
    let used: BTreeSet<String> = found
        .jobs
        .iter()
        .filter(|job| job.status.as_ref().is_none_or(|status| status.conditions.is_none()))
        .filter_map(|job| job.spec.as_ref()?.template.spec.as_ref()?.volumes.as_ref())
        .flatten()
        .filter_map(|volume| volume.config_map.as_ref().map(|map| map.name.clone()))
        .collect();
    let kept = super::super::intent::objects::backfill_name(&name);
    for map in maps.list_metadata(&of_task).await.map_err(api("listing rules"))? {
        let called = map.name_any();
        if called != current && called != kept && !used.contains(&called) {
            match maps.delete(&called, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(refused)) if refused.code == 404 => {}
                Err(error) => return Err(api("removing old rules")(error)),
            }
        }
    }
    Ok(())
}

/// Runs without their volume what waits for it too long.
async fn degraded(
    task: &InspectionTask,
    found: &Found,
    jobs: &Api<Job>,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    for job in &found.jobs {
        let name = job.name_any();
        let waits = found.pods.iter().any(|pod| {
            let of = pod.labels().get("batch.kubernetes.io/job-name");
            of == Some(&name) && degrade::waits_for_volume(pod, now)
        });
        if let Some(other) = waits.then(|| degrade::without_volume(task, job)).flatten() {
            tracing::warn!(job = name, "its volume does not come: run without it");
            create(jobs, &other, "starting a run without its volume").await?;
            match jobs.delete(&name, &DeleteParams::background()).await {
                Ok(_) => {}
                Err(kube::Error::Api(refused)) if refused.code == 404 => {}
                Err(error) => return Err(api("ending a run that waits")(error)),
            }
        }
    }
    Ok(())
}

/// Writes a status, whole.
async fn write(
    meta: &ObjectMeta,
    status: &InspectionTaskStatus,
    context: &Context,
) -> Result<(), ReconcileError> {
    let (name, namespace) =
        (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
    let tasks: Api<InspectionTask> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": API_VERSION,
        "kind": "InspectionTask",
        "metadata": { "name": name },
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match tasks.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => Ok(()),
        // It went while it was looked at.
        Err(kube::Error::Api(refused)) if refused.code == 404 => Ok(()),
        Err(error) => Err(api("writing the status")(error)),
    }
}

/// Says of a task that it can't be read.
pub async fn unreadable(meta: &ObjectMeta, error: &str, context: &Context) -> Result<(), ReconcileError> {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let status: InspectionTaskStatus = serde_json::from_value(json!({
        "observedGeneration": meta.generation,
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "NotUnderstood", "lastTransitionTime": now,
            "observedGeneration": meta.generation,
            "message": format!("this version of the controller can't read the task: {error}"),
        }],
    }))
    .unwrap_or_default();
    write(meta, &status, context).await
}
