//! One task, once: look, decide, act, say.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::intent::objects::short;
use super::super::intent::{
    Claim, Desired, FIELD_MANAGER, Found, NotReady, choose_class, covers, degrade, desired, fleet, notified,
    status,
};
use super::super::task::{API_VERSION, InspectionTask, InspectionTaskStatus};
use super::seen::Key;
use super::watched::OF_JOB;
use super::{Context, backfill, events, reports};

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

/// A task that something stands in the way of is looked at this often: what does (a CronJob of somebody else, say) is not all
/// watched.
const BLOCKED: Duration = Duration::from_secs(30);

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

    let key = Key::from(task);
    let mut found = Found {
        cron_job: context.sight.cron_jobs.get(&key, &name),
        jobs: context.sight.jobs.all(&key),
        pods: context.sight.pods.all(&key),
        ..Found::default()
    };
    late_words(task, &mut found, &pods).await?;
    let not_ready = match wanted(task, context, &found, now) {
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
    let (mut new, ended) = status(task, &found, not_ready.as_ref(), now);
    let missed_before = task.status.as_ref().map_or(0, |old| old.missed_runs);
    let (trouble, soon) = context.notices.tell(task, &mut new, missed_before, now);
    notified(&mut new, task.metadata.generation, task.spec.notifications.is_none(), trouble, now);
    reports::keep(task, &mut new, &ended, context, now).await;
    backfill::keep(&maps, task, &ended).await.map_err(api("keeping what could not be written"))?;
    if task.status.as_ref() != Some(&new) {
        write(task.meta(), &new, context).await?;
        context.spoken.say(&key, task.metadata.uid.as_deref().unwrap_or_default(), &new);
        events::tell(&context.teller, task, &new, &ended).await;
    }
    context.notices.written(&key);
    context.tally.count(task, &new, &ended, now);
    // What a pod said last has been counted; it need not be held any longer.
    let over = |pod: &Pod| new.recent_runs.iter().any(|run| Some(&run.job) == pod.labels().get(OF_JOB));
    for pod in found.pods.iter().filter(|pod| over(pod)) {
        context.sight.pods.forget(&key, &pod.name_any());
    }
    let active =
        found.jobs.iter().any(|job| job.status.as_ref().is_some_and(|status| status.active > Some(0)));
    let until_due = new.next_schedule_time.map_or(AT_REST.as_secs(), |due| {
        // The CronJob controller looks at its schedules when they are due; misses are known when the deadline is over.
        u64::try_from(due.as_second() - now.as_second()).unwrap_or(0) + 20
    });
    let rest = AT_REST.min(Duration::from_secs(until_due)).min(soon.unwrap_or(AT_REST));
    let rest = if not_ready.is_some() { rest.min(BLOCKED) } else { rest };
    Ok(Action::requeue(if active { UNDER_WAY } else { rest }))
}

fn no_class(context: &Context) -> String {
    match &context.defaults.class {
        Some(class) => format!("there is no StorageClass {class:?}, which the controller was installed with"),
        None => "there is no StorageClass of the driver and no default one: results stay in the status alone"
            .into(),
    }
}

fn owned(task: &InspectionTask, cron: &CronJob) -> bool {
    cron.owner_references().iter().any(|owner| Some(&owner.uid) == task.metadata.uid.as_ref())
}

fn conflict(foreign: &CronJob) -> NotReady {
    let name = foreign.name_any();
    NotReady {
        reason: "NameConflict",
        message: format!(
            "metadata.name: a CronJob {name} is there that is not this task's; rename one of them"
        ),
    }
}

/// What should be there for the task, or why nothing should.
fn wanted(
    task: &InspectionTask,
    context: &Context,
    found: &Found,
    now: Timestamp,
) -> Result<Desired, NotReady> {
    if let Some(foreign) = found.cron_job.as_ref().filter(|cron| !owned(task, cron)) {
        return Err(conflict(foreign));
    }
    let classes = context.sight.classes.all(&Key::default());
    let class = choose_class(&classes, context.defaults.class.as_deref());
    let mut desired = desired(task, &context.defaults, &context.pods, class, now)?;
    if task.spec.every_node() {
        let nodes = nodes(task, context);
        let planned = desired.cron_job.pointer_mut("/spec/jobTemplate/spec");
        let now = desired.run_now.as_mut().and_then(|job| job.get_mut("spec"));
        planned.into_iter().chain(now).for_each(|job| fleet::spread(job, &nodes));
    }
    Ok(desired)
}

/// The nodes that a run on every node means.
fn nodes(task: &InspectionTask, context: &Context) -> Vec<String> {
    let selector = task.spec.fan_out.as_ref().and_then(|fan_out| fan_out.node_selector.clone());
    let selector = selector.unwrap_or_default();
    let mut nodes = context.sight.nodes.all(&Key::default());
    nodes.retain(|node| selector.iter().all(|(label, value)| node.labels().get(label) == Some(value)));
    fleet::meant(&task.spec, &nodes)
}

/// Asks for the last words of runs that are over and of which none have been seen: the two watches may be a moment apart.
async fn late_words(task: &InspectionTask, found: &mut Found, pods: &Api<Pod>) -> Result<(), ReconcileError> {
    for ended in super::super::intent::ended(task, found) {
        // One of many nodes counts as well as one that ran alone.
        if ended.run.reason.is_none() {
            continue;
        }
        let of_job = ListParams::default().labels(&format!("{OF_JOB}={}", ended.run.job));
        let late = pods.list(&of_job).await.map_err(api("listing pods"))?.items;
        found.pods.retain(|pod| pod.labels().get(OF_JOB) != Some(&ended.run.job));
        found.pods.extend(late);
    }
    Ok(())
}

/// Applies what is wanted and not yet there.
async fn apply(
    task: &InspectionTask,
    context: &Context,
    wanted: Desired,
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
        match context.sight.claims.get(&Key::new(&namespace, ""), name) {
            None => create(&claims, claim, "making the claim").await?,
            // The task says by now that it goes, or that it stays.
            Some(there)
                if there.owner_references().is_empty() != claim["metadata"]["ownerReferences"].is_null() =>
            {
                let owners =
                    json!({ "metadata": { "ownerReferences": claim["metadata"]["ownerReferences"] } });
                let done = claims.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&owners)).await;
                done.map_err(api("keeping the claim or letting it go"))?;
            }
            Some(_) => {}
        }
    }
    let key = Key::from(task);
    let new_rules = !context.sight.maps.has(&key, &wanted.rules_name);
    if new_rules {
        put::<ConfigMap>(context, &namespace, &wanted.rules).await?;
    }
    let there = found.cron_job.as_ref().map(|cron| json!(cron));
    if !there.is_some_and(|there| {
        // The kind is not said in what is read.
        let part = |of: &Value| json!({ "metadata": of["metadata"], "spec": of["spec"] });
        covers(&part(&there), &part(&wanted.cron_job))
    }) {
        // One of that name that is not ours has none of our labels, and was not seen.
        if found.cron_job.is_none() {
            let there = cron_jobs.get_opt(&task.name_any()).await.map_err(api("reading the CronJob"))?;
            if let Some(foreign) = there.filter(|there| !owned(task, there)) {
                return Ok(Some(conflict(&foreign)));
            }
        }
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
        sweep(task, context, &wanted.rules_name, found, maps).await?;
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

/// Applies an object unless it was applied a short while ago: the account of a namespace is each of its tasks' business.
async fn settle<K>(context: &Context, namespace: &str, object: &Value) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let digest = short(&object.to_string());
    if !context.settled(&digest) {
        put::<K>(context, namespace, object).await?;
        context.settle(digest);
    }
    Ok(())
}

/// Applies an object.
async fn put<K>(context: &Context, namespace: &str, object: &Value) -> Result<(), ReconcileError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let objects: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    objects
        .patch(name, &params, &Patch::Apply(object))
        .await
        .map_err(api("applying account, binding or rules"))?;
    Ok(())
}

/// Removes rules that no run reads any more.
async fn sweep(
    task: &InspectionTask,
    context: &Context,
    current: &str,
    found: &Found,
    maps: &Api<ConfigMap>,
) -> Result<(), ReconcileError> {
    let name = task.name_any();
    let used: BTreeSet<String> = found
        .jobs
        .iter()
        .filter(|job| job.status.as_ref().is_none_or(|status| status.conditions.is_none()))
        .filter_map(|job| job.spec.as_ref()?.template.spec.as_ref()?.volumes.as_ref())
        .flatten()
        .filter_map(|volume| volume.config_map.as_ref().map(|map| map.name.clone()))
        .collect();
    let kept = super::super::intent::objects::backfill_name(&name);
    for called in context.sight.maps.names(&Key::from(task)) {
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
        let waits = found
            .pods
            .iter()
            .any(|pod| pod.labels().get(OF_JOB) == Some(&name) && degrade::waits_for_volume(pod, now));
        if !waits {
            continue;
        }
        // What was seen of it is too little to make another of.
        let Some(whole) = jobs.get_opt(&name).await.map_err(api("reading a run that waits"))? else {
            continue;
        };
        if let Some(other) = degrade::without_volume(task, &whole) {
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
