//! What is watched, and what of it decisions read.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerStatus, Node, NodeSpec, PersistentVolumeClaim, Pod, PodCondition, PodSpec,
    PodStatus, PodTemplateSpec, Volume,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::intent::fleet::NODES;
use super::super::intent::{DEGRADED_LABEL, RUN_REQUEST, TASK_LABEL};
use super::super::task::InspectionTask;
use super::seen::{Key, Seen, Watched};

/// Objects that are looked at, by a label that all of ours have.
const OURS: &str = "app.kubernetes.io/managed-by=kuration-inspector";

/// So many objects are asked for at once when there are many: a page of them is what memory must hold twice.
const PAGE: u32 = 100;

/// The label by which a pod says its Job.
pub const OF_JOB: &str = "batch.kubernetes.io/job-name";

/// A task as it is watched: one that this program can't read, as it was written for a later definition, hides no other.
#[derive(Debug, Clone, Resource, Serialize, Deserialize)]
#[resource(inherit = InspectionTask)]
pub struct Task {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What its author says.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub spec: Value,
    /// What was said of it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

impl Task {
    /// As this program knows tasks, or why it does not know this one.
    pub fn read(&self) -> Result<InspectionTask, String> {
        let whole = serde_json::json!({
            "apiVersion": InspectionTask::api_version(&()), "kind": InspectionTask::kind(&()),
            "metadata": self.metadata, "spec": self.spec,
        });
        serde_json::from_value(whole).map_err(|error| error.to_string())
    }
}

impl Watched for Task {
    const WHAT: &'static str = "InspectionTasks";

    fn belongs(&self) -> Option<Key> {
        Some(Key { namespace: self.namespace()?, task: self.name_any() })
    }

    /// Without its status: the one who says it knows it.
    fn bare(mut self) -> Self {
        let mut metadata = names(&self.metadata);
        metadata.uid = self.metadata.uid.take();
        metadata.generation = self.metadata.generation;
        metadata.deletion_timestamp = self.metadata.deletion_timestamp.take();
        metadata.finalizers = self.metadata.finalizers.take();
        metadata.annotations = only(self.metadata.annotations.take(), &[RUN_REQUEST]);
        Task { metadata, spec: self.spec, status: Value::Null }
    }
}

fn names(of: &ObjectMeta) -> ObjectMeta {
    ObjectMeta { name: of.name.clone(), namespace: of.namespace.clone(), ..Default::default() }
}

type Labels = std::collections::BTreeMap<String, String>;

fn only(labels: Option<Labels>, which: &[&str]) -> Option<Labels> {
    let kept: Labels = labels?.into_iter().filter(|(name, _)| which.contains(&name.as_str())).collect();
    (!kept.is_empty()).then_some(kept)
}

fn of_task(object: &impl ResourceExt) -> Option<Key> {
    Some(Key::new(&object.namespace()?, object.labels().get(TASK_LABEL)?))
}

impl Watched for CronJob {
    const WHAT: &'static str = "CronJobs";

    fn belongs(&self) -> Option<Key> {
        of_task(self)
    }

    /// All that was applied, and when it last was due.
    fn bare(mut self) -> Self {
        self.metadata.managed_fields = None;
        self.metadata.resource_version = None;
        self.metadata.generation = None;
        self.metadata.annotations = None;
        if let Some(status) = &mut self.status {
            status.active = None;
            status.last_successful_time = None;
        }
        self
    }
}

impl Watched for Job {
    const WHAT: &'static str = "Jobs";

    fn belongs(&self) -> Option<Key> {
        of_task(self)
    }

    /// When it began, how it stands, and which rules its pods read.
    fn bare(mut self) -> Self {
        let mut metadata = names(&self.metadata);
        metadata.labels = only(self.metadata.labels.take(), &[TASK_LABEL, DEGRADED_LABEL]);
        let status = self.status.take().map(|status| JobStatus {
            active: status.active,
            start_time: status.start_time,
            completion_time: status.completion_time,
            conditions: status.conditions.map(|all| {
                let bare = |mut condition: k8s_openapi::api::batch::v1::JobCondition| {
                    condition.message = None;
                    condition.last_probe_time = None;
                    condition
                };
                all.into_iter().map(bare).collect()
            }),
            ..Default::default()
        });
        let over = status.as_ref().is_some_and(|status| status.conditions.is_some());
        let spec = self.spec.take().map(|spec| JobSpec {
            completions: spec.completions.filter(|completions| *completions != 1),
            template: PodTemplateSpec {
                metadata: None,
                spec: spec
                    .template
                    .spec
                    .map(|pod| planned(pod, over))
                    .filter(|pod| *pod != PodSpec::default()),
            },
            ..Default::default()
        });
        Job { metadata, spec, status }
    }
}

/// What of a Job's pods is read: the nodes that they are planned for, and which rules they read while it is not over.
fn planned(pod: PodSpec, over: bool) -> PodSpec {
    let volumes = volumes(pod.volumes.unwrap_or_default(), |volume| volume.config_map.is_some() && !over);
    let env = |container: Container| {
        let env =
            container.env.unwrap_or_default().into_iter().filter(|env| env.name == NODES).collect::<Vec<_>>();
        (!env.is_empty()).then(|| Container { name: container.name, env: Some(env), ..Default::default() })
    };
    PodSpec {
        containers: pod.containers.into_iter().filter_map(env).collect(),
        volumes,
        ..Default::default()
    }
}

/// Some of the volumes, by name.
fn volumes(all: Vec<Volume>, which: impl Fn(&Volume) -> bool) -> Option<Vec<Volume>> {
    let bare =
        |volume: Volume| Volume { name: volume.name, config_map: volume.config_map, ..Default::default() };
    let some: Vec<Volume> = all.into_iter().filter(which).map(bare).collect();
    (!some.is_empty()).then_some(some)
}

impl Watched for Pod {
    const WHAT: &'static str = "pods";

    fn belongs(&self) -> Option<Key> {
        of_task(self)
    }

    /// While it waits, for what; in the end, what it said.
    fn bare(mut self) -> Self {
        let mut metadata = names(&self.metadata);
        metadata.labels = only(self.metadata.labels.take(), &[TASK_LABEL, OF_JOB]);
        metadata.creation_timestamp = self.metadata.creation_timestamp.take();
        let status = self.status.take().unwrap_or_default();
        let waits = status.phase.as_deref() == Some("Pending");
        let spec = self.spec.take().map(|pod| PodSpec {
            node_name: pod.node_name,
            volumes: volumes(pod.volumes.unwrap_or_default(), |_| waits),
            ..Default::default()
        });
        let condition = |condition: PodCondition| PodCondition {
            type_: condition.type_,
            status: condition.status,
            message: condition.message,
            ..Default::default()
        };
        let container = |container: ContainerStatus| ContainerStatus {
            name: container.name,
            state: container.state,
            ..Default::default()
        };
        let status = PodStatus {
            conditions: status
                .conditions
                .filter(|_| waits)
                .map(|all| all.into_iter().map(condition).collect()),
            container_statuses: status.container_statuses.map(|all| all.into_iter().map(container).collect()),
            phase: status.phase,
            reason: status.reason,
            ..Default::default()
        };
        Pod { metadata, spec, status: Some(status) }
    }
}

impl Watched for PartialObjectMeta<ConfigMap> {
    const WHAT: &'static str = "ConfigMaps";

    fn belongs(&self) -> Option<Key> {
        of_task(self)
    }

    fn bare(mut self) -> Self {
        self.metadata = names(&self.metadata);
        self
    }
}

impl Watched for PartialObjectMeta<PersistentVolumeClaim> {
    const WHAT: &'static str = "PersistentVolumeClaims";

    /// Tasks of a namespace share one.
    fn belongs(&self) -> Option<Key> {
        Some(Key::new(&self.namespace()?, ""))
    }

    /// With whom it goes.
    fn bare(mut self) -> Self {
        let mut metadata = names(&self.metadata);
        metadata.owner_references = self.metadata.owner_references.take();
        self.metadata = metadata;
        self
    }
}

impl Watched for Node {
    const WHAT: &'static str = "nodes";

    fn belongs(&self) -> Option<Key> {
        Some(Key::default())
    }

    /// By which a task may mean it.
    fn bare(mut self) -> Self {
        let mut metadata = names(&self.metadata);
        metadata.labels = self.metadata.labels.take();
        let spec = self.spec.take().map(|spec| NodeSpec {
            taints: spec.taints,
            unschedulable: spec.unschedulable,
            ..Default::default()
        });
        Node { metadata, spec, status: None }
    }
}

impl Watched for StorageClass {
    const WHAT: &'static str = "StorageClasses";

    fn belongs(&self) -> Option<Key> {
        Some(Key::default())
    }

    fn bare(mut self) -> Self {
        self.metadata.managed_fields = None;
        self.metadata.resource_version = None;
        self
    }
}

/// All that is watched.
#[derive(Default, Clone)]
pub struct Sight {
    /// Tasks, without their status.
    pub tasks: Arc<Seen<Task>>,
    /// CronJobs, by task.
    pub cron_jobs: Arc<Seen<CronJob>>,
    /// Jobs, by task.
    pub jobs: Arc<Seen<Job>>,
    /// Pods whose last word has not been counted yet, by task.
    pub pods: Arc<Seen<Pod>>,
    /// ConfigMaps, by task.
    pub maps: Arc<Seen<PartialObjectMeta<ConfigMap>>>,
    /// Claims that the controller made, by namespace.
    pub claims: Arc<Seen<PartialObjectMeta<PersistentVolumeClaim>>>,
    /// Nodes.
    pub nodes: Arc<Seen<Node>>,
    /// StorageClasses.
    pub classes: Arc<Seen<StorageClass>>,
}

impl Sight {
    /// Returns when all that there is has been seen once.
    pub async fn whole(&self) {
        self.tasks.whole().await;
        self.cron_jobs.whole().await;
        self.jobs.whole().await;
        self.pods.whole().await;
        self.maps.whole().await;
        self.claims.whole().await;
        self.nodes.whole().await;
        self.classes.whole().await;
    }

    /// What has not been seen yet.
    pub fn missing(&self) -> Vec<&'static str> {
        fn of<K: Watched>(seen: &Seen<K>) -> Option<&'static str> {
            (!seen.is_whole()).then_some(K::WHAT)
        }
        let all = [
            of(&self.tasks),
            of(&self.cron_jobs),
            of(&self.jobs),
            of(&self.pods),
            of(&self.maps),
            of(&self.claims),
            of(&self.nodes),
            of(&self.classes),
        ];
        all.into_iter().flatten().collect()
    }

    /// Watches, for as long as it is polled; the tasks for which there is news. `met` is told each task as it comes.
    pub fn follow(&self, client: &Client, met: impl Fn(&Task) + Send + 'static) -> BoxStream<'static, Key> {
        let all = || watcher::Config::default().page_size(PAGE);
        let ours = || all().labels(OURS);
        let client = || client.clone();
        let tasks = watcher(Api::<Task>::all(client()), all()).inspect(move |event| {
            if let Ok(watcher::Event::Apply(task) | watcher::Event::InitApply(task)) = event {
                met(task);
            }
        });
        let cron_jobs = watcher(Api::<CronJob>::all(client()), ours());
        let jobs = watcher(Api::<Job>::all(client()), ours());
        let pods = watcher(Api::<Pod>::all(client()), ours());
        let maps = watcher(Api::<PartialObjectMeta<ConfigMap>>::all(client()), ours());
        let claims = watcher(Api::<PartialObjectMeta<PersistentVolumeClaim>>::all(client()), ours());
        let nodes = watcher(Api::<Node>::all(client()), all());
        let classes = watcher(Api::<StorageClass>::all(client()), all());
        let tasks_there = Arc::clone(&self.tasks);
        // A claim is made again when its namespace's next run asks for it; classes and nodes are every task's.
        let everyone =
            stream::select(Arc::clone(&self.nodes).follow(nodes), Arc::clone(&self.classes).follow(classes))
                .flat_map(move |_| stream::iter(tasks_there.keys()));
        let nobody = Arc::clone(&self.claims).follow(claims).flat_map(|_| stream::empty());
        stream::select_all([
            Arc::clone(&self.tasks).follow(tasks).boxed(),
            Arc::clone(&self.cron_jobs).follow(cron_jobs).boxed(),
            Arc::clone(&self.jobs).follow(jobs).boxed(),
            Arc::clone(&self.pods).follow(pods).boxed(),
            Arc::clone(&self.maps).follow(maps).boxed(),
            everyone.boxed(),
            nobody.boxed(),
        ])
        .boxed()
    }
}
