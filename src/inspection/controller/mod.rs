//! `kuration inspector`: makes of each task what the decisions in [`super::intent`] say, and says what became of it.
//!
//! One of several replicas works, the one that holds the Lease; the others wait. Without the definition of InspectionTask all
//! of them wait, not ready, and say so. What is read is watched, what is written is applied server-side under one name, and
//! what is already so is not written again.

mod backfill;
mod events;
mod reconcile;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::watch;

use super::intent::{Defaults, TASK_LABEL};
use super::task::InspectionTask;
use crate::kubernetes::Lease;

/// A task as it is watched. One that this program can't read, as it was written for a later definition, hides no other.
type Guarded = DeserializeGuard<InspectionTask>;

/// The name of the Lease and of who reports events.
const NAME: &str = "kuration-inspector";

/// How often it is looked whether the definition is there.
const LOOK: Duration = Duration::from_secs(5);

/// How long a task whose reconciliation failed waits.
const RETRY: Duration = Duration::from_secs(10);

/// So many tasks are worked on at once.
const CONCURRENCY: u16 = 8;

/// Jobs that are looked at, by a label that all of ours have.
const OURS: &str = "app.kubernetes.io/managed-by=kuration-inspector";

/// What a controller needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What tasks get that say nothing.
    pub defaults: Defaults,
    /// The namespace of the Lease.
    pub namespace: String,
    /// Who this replica is.
    pub identity: String,
}

/// Why a controller came to its end.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The cluster can't be asked.
    #[error("no way to the cluster: {0}")]
    Connect(String),
    /// The Lease.
    #[error("the lease can't be held: {0}")]
    Lease(String),
    /// Another replica has it now; two must never work at once.
    #[error("the lease went to another replica")]
    Lost,
}

/// What reconciliations share.
struct Context {
    client: Client,
    defaults: Defaults,
    recorder: Recorder,
    /// What was applied and when, by digest: what is at rest costs no requests.
    applied: Mutex<HashMap<String, Instant>>,
}

impl Context {
    /// Whether what has this digest was applied a short while ago.
    fn settled(&self, digest: &str) -> bool {
        const FRESH: Duration = Duration::from_secs(600);
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.retain(|_, at| at.elapsed() < FRESH);
        applied.contains_key(digest)
    }

    fn settle(&self, digest: String) {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, Instant::now());
    }
}

/// Works until `stop` turns true. What is told by `ready` says why nothing can be done yet.
pub async fn run(
    settings: Settings,
    ready: watch::Sender<Result<(), String>>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ControllerError> {
    let client = Client::try_default().await.map_err(|error| ControllerError::Connect(error.to_string()))?;
    let mut stopped = stop.clone();
    tokio::select! {
        () = definition(&client, &ready) => {}
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    }
    drop(ready.send_replace(Ok(())));
    let (sender, mut leads) = watch::channel(false);
    let lease = Lease::new(client.clone(), &settings.namespace, NAME, settings.identity.clone());
    let holding = tokio::spawn(lease.keep(sender));
    tracing::info!(lease = NAME, namespace = settings.namespace, "waiting for the lease");
    tokio::select! {
        led = leads.wait_for(|leads| *leads) => {
            led.map_err(|_| ControllerError::Lost)?;
        }
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    }
    tracing::info!("leading: tasks are looked after");
    let work = work(client, settings, stop.clone());
    let ended = tokio::select! {
        () = work => Ok(()),
        _ = leads.wait_for(|leads| !*leads) => Err(ControllerError::Lost),
        _ = stop.wait_for(|stopped| *stopped) => Ok(()),
    };
    holding.abort();
    ended
}

/// Returns when the cluster knows InspectionTask.
async fn definition(client: &Client, ready: &watch::Sender<Result<(), String>>) {
    let mut told = String::new();
    loop {
        let why = match client.list_api_group_resources("kuration.io/v1").await {
            Ok(list) if list.resources.iter().any(|resource| resource.kind == "InspectionTask") => return,
            Ok(_) | Err(kube::Error::Api(_)) => {
                "the cluster has no InspectionTask: helm install kuration-crd ./charts/kuration-server-crd"
                    .to_owned()
            }
            Err(error) => format!("the API server can't be asked: {error}"),
        };
        if told != why {
            tracing::warn!(%why, "waiting");
            told.clone_from(&why);
        }
        drop(ready.send_replace(Err(why)));
        tokio::time::sleep(LOOK).await;
    }
}

/// Reconciles tasks.
async fn work(client: Client, settings: Settings, mut stop: watch::Receiver<bool>) {
    let reporter = Reporter { controller: NAME.into(), instance: Some(settings.identity) };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        defaults: settings.defaults,
        applied: Mutex::default(),
        client: client.clone(),
    });
    let ours = watcher::Config::default().labels(OURS);
    let of_job = |job: Job| {
        let namespace = job.namespace()?;
        let task = job.labels().get(TASK_LABEL)?;
        Some(ObjectRef::<Guarded>::new(task).within(&namespace))
    };
    Controller::new(Api::<Guarded>::all(client.clone()), watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(Duration::from_millis(200)))
        .owns(Api::<CronJob>::all(client.clone()), ours.clone())
        .watches(Api::<Job>::all(client), ours, of_job)
        .graceful_shutdown_on(async move {
            drop(stop.wait_for(|stopped| *stopped).await);
        })
        .run(one, failed, context)
        .for_each(|done| async move {
            if let Err(error) = done {
                tracing::debug!(%error, "a reconciliation did not end well");
            }
        })
        .await;
}

async fn one(task: Arc<Guarded>, context: Arc<Context>) -> Result<Action, reconcile::ReconcileError> {
    match &task.0 {
        Ok(task) => reconcile::reconcile(task, &context).await,
        Err(unreadable) => {
            let (name, namespace) = (task.name_any(), task.namespace().unwrap_or_default());
            let error = &unreadable.error;
            tracing::warn!(name, namespace, %error, "a task can't be read: is the definition newer than this program?");
            reconcile::unreadable(task.meta(), error, &context).await?;
            Ok(Action::await_change())
        }
    }
}

fn failed(task: Arc<Guarded>, error: &reconcile::ReconcileError, _: Arc<Context>) -> Action {
    let (name, namespace) = (task.name_any(), task.namespace().unwrap_or_default());
    tracing::warn!(name, namespace, %error, "a task can't be looked after now");
    Action::requeue(RETRY)
}
