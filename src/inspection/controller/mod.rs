//! `kuration inspector`: makes of each task what the decisions in [`super::intent`] say, and says what became of it.
//!
//! One of several replicas works, the one that holds the Lease; the others wait. Without the definition of InspectionTask all
//! of them wait, not ready, and say so. What is read is watched, what is written is applied server-side under one name, and
//! what is already so is not written again.

mod backfill;
mod events;
mod notices;
mod pace;
mod reconcile;
mod reports;
mod seen;
mod spoken;
mod tally;
mod watched;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::core::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::controller::{Action, Config, ReconcileRequest};
use kube::runtime::events::Reporter;
use kube::runtime::{reflector, watcher};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use self::notices::{Addresses, Notices};
use self::pace::Pace;
pub use self::seen::Key;
use self::spoken::Spoken;
pub use self::tally::Tally;
use self::watched::Sight;
use super::intent::{Defaults, RunPods};
use super::task::InspectionTask;
use crate::kubernetes::Lease;

/// The name of the Lease and of who reports events.
const NAME: &str = "kuration-inspector";

/// How often it is looked whether the definition is there.
const LOOK: Duration = Duration::from_secs(5);

/// So many tasks are worked on at once.
const CONCURRENCY: u16 = 8;

/// What a controller needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What tasks get that say nothing.
    pub defaults: Defaults,
    /// What the pods of every run have.
    pub pods: RunPods,
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
    pods: RunPods,
    teller: events::Teller,
    /// What was applied and when, by digest: what is at rest costs no requests.
    applied: Mutex<HashMap<String, Instant>>,
    /// What was seen of the cluster.
    sight: Sight,
    /// What was last said of each task.
    spoken: Spoken,
    pace: Pace,
    notices: Notices,
    tally: Tally,
}

impl Context {
    /// Whether what has this digest was applied a short while ago.
    fn settled(&self, digest: &str) -> bool {
        const FRESH: Duration = Duration::from_secs(600);
        let mut applied = self.applied.lock();
        applied.retain(|_, at| at.elapsed() < FRESH);
        applied.contains_key(digest)
    }

    fn settle(&self, digest: String) {
        self.applied.lock().insert(digest, Instant::now());
    }

    /// A task went.
    fn forget(&self, key: &Key) {
        self.spoken.forget(key);
        self.pace.well(key);
        self.notices.forget(key);
        self.tally.forget(key);
    }
}

/// Works until `stop` turns true, and counts in `tally`. What is told by `ready` says why nothing can be done yet.
pub async fn run(
    settings: Settings,
    tally: Tally,
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
    let sight = Sight::default();
    tokio::spawn(seeing(sight.clone(), ready));
    let work = work(client, settings, sight, tally, stop.clone());
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

/// Says what has not been seen yet, for as long as there is such a thing: nothing is done before.
async fn seeing(sight: Sight, ready: watch::Sender<Result<(), String>>) {
    loop {
        let missing = sight.missing();
        if missing.is_empty() {
            drop(ready.send_replace(Ok(())));
            return;
        }
        let why = format!("not seen yet: {} (a right that is missing is in the log)", missing.join(", "));
        drop(ready.send_replace(Err(why)));
        tokio::time::sleep(LOOK / 5).await;
    }
}

/// Reconciles tasks, each when there is news of it or its time has come.
async fn work(
    client: Client,
    settings: Settings,
    sight: Sight,
    tally: Tally,
    mut stop: watch::Receiver<bool>,
) {
    let reporter = Reporter { controller: NAME.into(), instance: Some(settings.identity) };
    let (told, ended) = mpsc::unbounded_channel();
    let context = Arc::new(Context {
        teller: events::Teller { client: client.clone(), reporter },
        defaults: settings.defaults,
        pods: settings.pods,
        applied: Mutex::default(),
        sight,
        spoken: Spoken::default(),
        pace: Pace::default(),
        notices: Notices::new(addresses(client.clone()), told),
        tally,
        client: client.clone(),
    });
    // The queue asks here what there is to do; what is known of it is in `sight`.
    let (there, mut names) = reflector::store::<PartialObjectMeta<InspectionTask>>();
    names.apply_watcher_event(&watcher::Event::Init);
    names.apply_watcher_event(&watcher::Event::InitDone);
    let met = Arc::clone(&context);
    let told = futures::stream::unfold(ended, |mut ended| async { Some((ended.recv().await?, ended)) });
    let news = context.sight.follow(&client, move |task| met.spoken.meet(task));
    let known = Arc::clone(&context);
    let queue = futures::stream::select(news, told)
        .map(move |key| {
            let (namespace, name) = (Some(key.namespace.clone()), Some(key.task.clone()));
            let name = ObjectMeta { namespace, name, ..Default::default() }.into_response_partial();
            if known.sight.tasks.has(&key, &key.task) {
                names.apply_watcher_event(&watcher::Event::Apply(name));
            } else {
                names.apply_watcher_event(&watcher::Event::Delete(name));
                known.forget(&key);
            }
            Ok::<_, Infallible>(ReconcileRequest::from(key.reference()))
        })
        .take_until(async move { drop(stop.wait_for(|stopped| *stopped).await) });
    let config = Config::default().concurrency(CONCURRENCY).debounce(Duration::from_millis(200));
    let one = |task, context| one(task, context).boxed();
    kube::runtime::applier(one, failed, context, there, queue, config)
        .for_each(|done| async move {
            if let Err(error) = done {
                tracing::debug!(%error, "a reconciliation did not end well");
            }
        })
        .await;
}

/// Addresses of receivers are in Secrets. The controller may read those alone whose names its installer listed.
fn addresses(client: Client) -> Addresses {
    Arc::new(move |namespace, of| {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        Box::pin(async move {
            let (name, key) = (&of.name, &of.key);
            let secret = secrets.get(name).await.map_err(|error| match error {
                kube::Error::Api(refused) if refused.code == 403 => format!(
                    "the controller may not read Secret {namespace}/{name}: name it in notifications.secretNames of its chart"
                ),
                kube::Error::Api(refused) if refused.code == 404 => {
                    format!("there is no Secret {namespace}/{name}")
                }
                other => format!("Secret {namespace}/{name}: {other}"),
            })?;
            let held = secret.data.unwrap_or_default().remove(key);
            let held = held.ok_or_else(|| format!("Secret {namespace}/{name} has no key {key}"))?;
            String::from_utf8(held.0).map_err(|_| format!("{key} of Secret {namespace}/{name} is no text"))
        })
    })
}

type Named = Arc<PartialObjectMeta<InspectionTask>>;

async fn one(task: Named, context: Arc<Context>) -> Result<Action, reconcile::ReconcileError> {
    let key = Key { namespace: task.namespace().unwrap_or_default(), task: task.name_any() };
    context.sight.whole().await;
    context.pace.turn().await;
    let Some(seen) = context.sight.tasks.get(&key, &key.task) else { return Ok(Action::await_change()) };
    let action = match seen.read() {
        Ok(mut task) => {
            task.status = context.spoken.last(&key);
            reconcile::reconcile(&task, &context).await?
        }
        Err(error) => {
            let (name, namespace) = (&key.task, &key.namespace);
            tracing::warn!(
                name,
                namespace,
                error,
                "a task can't be read: is the definition newer than this program?"
            );
            reconcile::unreadable(&seen.metadata, &error, &context).await?;
            Action::await_change()
        }
    };
    context.pace.well(&key);
    Ok(action)
}

fn failed(task: Named, error: &reconcile::ReconcileError, context: Arc<Context>) -> Action {
    let key = Key { namespace: task.namespace().unwrap_or_default(), task: task.name_any() };
    let wait = context.pace.again(&key);
    let (name, namespace) = (key.task, key.namespace);
    tracing::warn!(name, namespace, %error, seconds = wait.as_secs(), "a task can't be looked after now");
    Action::requeue(wait)
}
