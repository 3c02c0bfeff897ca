//! A claim grows: what Kubernetes says on the way, in its order, and when.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::space::{PATIENCE, Space};

crate::for_every_driver!(
    a_mounted_claim_grows_step_by_step,
    a_claim_that_no_pod_uses_grows_at_its_next_mount,
    a_claim_does_not_shrink;
    pool: ;
    share: ;
    share3: a_mounted_claim_grows_step_by_step, a_claim_that_no_pod_uses_grows_at_its_next_mount
);

/// What is seen of a growing claim: each once, in the order seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Resizing,
    VolumeGrew,
    FileSystemResizePending,
    ClaimGrew,
}

/// Notes the steps of a claim and its volume on the way to `size`.
///
/// Two watches have no common order, but each event names the claim's or the volume's version, and etcd counts both
/// together.
struct Steps(Seen, [JoinHandle<()>; 2]);

/// Steps with the version of the object that shows them.
type Seen = Arc<Mutex<Vec<(u64, Step)>>>;

impl Steps {
    /// Returns when both are watched: nothing that comes after is missed.
    async fn watch(space: &Space, claim: &str, volume: &str, size: &'static str) -> Self {
        let seen = Seen::default();
        let claims = watch(space.api::<PersistentVolumeClaim>(), claim, Arc::clone(&seen), move |claim| {
            let status = claim.status.as_ref();
            let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
            let mut steps: Vec<Step> = conditions
                .filter_map(|condition| match condition.type_.as_str() {
                    "Resizing" => Some(Step::Resizing),
                    "FileSystemResizePending" => Some(Step::FileSystemResizePending),
                    _ => None,
                })
                .collect();
            let capacity = status.and_then(|status| status.capacity.as_ref());
            if capacity.is_some_and(|capacity| capacity["storage"].0 == size) {
                steps.push(Step::ClaimGrew);
            }
            steps
        });
        let volumes = watch(space.all::<PersistentVolume>(), volume, Arc::clone(&seen), move |volume| {
            let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
            let grew = capacity.is_some_and(|capacity| capacity["storage"].0 == size);
            if grew { vec![Step::VolumeGrew] } else { vec![] }
        });
        let (claims, volumes) = tokio::join!(claims, volumes);
        Self(seen, [claims, volumes])
    }

    /// Each step where it was first seen, once the last one was.
    async fn seen(self) -> Vec<Step> {
        let deadline = Instant::now() + PATIENCE;
        let done = || self.0.lock().unwrap().iter().any(|(_, step)| *step == Step::ClaimGrew);
        while !done() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.1.iter().for_each(JoinHandle::abort);
        let mut all = self.0.lock().unwrap().clone();
        all.sort_by_key(|(version, _)| *version);
        let mut steps = Vec::new();
        for (_, step) in all {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        steps
    }
}

/// Notes the steps that each version of an object shows. Returns when the first was seen.
async fn watch<K>(
    api: Api<K>,
    name: &str,
    seen: Seen,
    steps: impl Fn(&K) -> Vec<Step> + Send + 'static,
) -> JoinHandle<()>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut objects = watcher(api, only).default_backoff().touched_objects().boxed();
    let (begun, begins) = oneshot::channel();
    let watching = tokio::spawn(async move {
        let mut begun = Some(begun);
        while let Some(object) = objects.next().await {
            // A watch that breaks begins anew by itself.
            let Ok(object) = object else { continue };
            let version =
                object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default();
            seen.lock().unwrap().extend(steps(&object).into_iter().map(|step| (version, step)));
            if let Some(begun) = begun.take() {
                begun.send(()).ok();
            }
        }
    });
    let begun = tokio::time::timeout(PATIENCE, begins).await;
    begun.unwrap_or_else(|_| panic!("{name} can't be watched")).expect("a watch that goes on");
    watching
}

fn capacity(claim: &PersistentVolumeClaim) -> &str {
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    capacity.map_or("", |capacity| capacity["storage"].0.as_str())
}

async fn a_mounted_claim_grows_step_by_step(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    let volume = space.bound("data").await.name_any();
    space.sh("pod", "echo kept > /data/note").await;
    let steps = Steps::watch(space, "data", &volume, "128Mi").await;
    space.resize("data", "128Mi").await;
    space
        .until(space.api::<PersistentVolumeClaim>(), "data", "has 128Mi", |claim| capacity(claim) == "128Mi")
        .await;
    space.event("PersistentVolumeClaim", "data", &["External resizer is resizing volume"]).await;
    space.event("PersistentVolumeClaim", "data", &["Require file system resize of volume on node"]).await;
    // The kubelet's call of NodeExpandVolume.
    space.event("Pod", "pod", &["NodeExpandVolume succeeded"]).await;
    let wanted = [Step::Resizing, Step::VolumeGrew, Step::FileSystemResizePending, Step::ClaimGrew];
    assert_eq!(steps.seen().await, wanted);
    assert_eq!(space.sh("pod", "cat /data/note").await, "kept");
    if space.driver.is_pool() {
        // More than the old size fits now.
        space.sh("pod", "dd if=/dev/zero of=/data/large bs=1M count=90 conv=fsync").await;
        let refused = space.try_sh("pod", "dd if=/dev/zero of=/data/more bs=1M count=90 conv=fsync").await;
        let refused = refused.expect_err("the new size is a limit too");
        assert!(refused.contains("quota") || refused.contains("No space"), "{refused}");
    }
}

async fn a_claim_that_no_pod_uses_grows_at_its_next_mount(space: &Space) {
    space.claim_in_pod("data", "pod").await;
    let volume = space.bound("data").await.name_any();
    space.end("pod").await;
    space.resize("data", "128Mi").await;
    space
        .until(space.all::<PersistentVolume>(), &volume, "has 128Mi", |volume: &PersistentVolume| {
            volume.spec.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0 == "128Mi"
        })
        .await;
    let pending = space.until(space.api::<PersistentVolumeClaim>(), "data", "waits for a node", |claim| {
        let conditions = claim.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|one| one.type_ == "FileSystemResizePending")
    });
    assert_eq!(capacity(&pending.await), "64Mi", "the claim has grown before a node has seen it");
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    space
        .until(space.api::<PersistentVolumeClaim>(), "data", "has 128Mi", |claim| capacity(claim) == "128Mi")
        .await;
}

async fn a_claim_does_not_shrink(space: &Space) {
    space.claim("data", json!({})).await;
    space.bound("data").await;
    let smaller = json!({ "spec": { "resources": { "requests": { "storage": "32Mi" } } } });
    let patch = kube::api::Patch::Merge(&smaller);
    let refused = space.api::<PersistentVolumeClaim>().patch("data", &Default::default(), &patch).await;
    let refused = refused.expect_err("Kubernetes refuses that itself").to_string();
    assert!(refused.contains("can not be less"), "{refused}");
}
