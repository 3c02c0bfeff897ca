//! Whose the volumes are: the claims to which PersistentVolumes of the driver are bound.
//!
//! A claim that moves to another namespace keeps its PersistentVolume, and CSI tells nobody. So the volumes are watched, and each
//! binding that was not told before is told.
//!
//! Rights: persistentvolumes list, watch.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::{Deserialize, Deserializer};
use tokio::sync::mpsc;

use super::{Said, watch_trouble};
use crate::volume::Claim;

/// How long to wait after trouble.
const AGAIN: Duration = Duration::from_secs(5);

/// A volume, and the claim that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The volume's id.
    pub volume_id: String,
    /// Whose it is.
    pub claim: Claim,
}

/// What is read of a PersistentVolume. Each is told of some eight times in its life, and most of what is told is who wrote which
/// field, which is skipped and not made into objects.
#[derive(Debug, Clone, Resource, Deserialize)]
#[resource(inherit = PersistentVolume)]
struct Watched {
    #[serde(deserialize_with = "name_and_version")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    csi: Option<Source>,
    claim_ref: Option<Reference>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    driver: String,
    volume_handle: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Reference {
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Status {
    phase: Option<String>,
}

/// The name, and the version that a watch goes on from.
fn name_and_version<'de, D: Deserializer<'de>>(metadata: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read {
        name: Option<String>,
        resource_version: Option<String>,
    }
    let Read { name, resource_version } = Read::deserialize(metadata)?;
    Ok(ObjectMeta { name, resource_version, ..ObjectMeta::default() })
}

/// Tells who has the volumes of `driver`, at first of all, then of each that changes hands, until nobody listens.
pub async fn bindings(client: Client, driver: String, told: mpsc::Sender<Bound>) {
    let volumes: Api<Watched> = Api::all(client);
    let mut events = pin!(watcher(volumes, watcher::Config::default()).default_backoff());
    let (mut known, mut said) = (HashMap::new(), Said::default());
    // While volumes are listed anew: those that are still there.
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        let volume = match event {
            Ok(watcher::Event::Apply(volume)) => {
                said.well("watching PersistentVolumes");
                volume
            }
            Ok(watcher::Event::InitApply(volume)) => {
                listed.extend(handle(&volume, &driver).map(str::to_owned));
                volume
            }
            Ok(watcher::Event::Delete(volume)) => {
                handle(&volume, &driver).and_then(|id| known.remove(id));
                continue;
            }
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            // Of what was deleted while the watch was broken, nobody tells.
            Ok(watcher::Event::InitDone) => {
                let there = std::mem::take(&mut listed);
                known.retain(|id, _| there.contains(id));
                continue;
            }
            Err(error) => {
                watch_trouble(
                    &mut said,
                    "PersistentVolumes can't be watched, so records may name an old claim",
                    error,
                );
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Some(bound) = bound(&volume, &driver) else { continue };
        if known.get(&bound.volume_id) != Some(&bound.claim) {
            known.insert(bound.volume_id.clone(), bound.claim.clone());
            if told.send(bound).await.is_err() {
                return;
            }
        }
    }
}

fn handle<'a>(volume: &'a Watched, driver: &str) -> Option<&'a str> {
    let source = volume.spec.csi.as_ref()?;
    (source.driver == driver).then_some(source.volume_handle.as_str())
}

/// Who has `volume`, if it is the driver's and bound. One that is released has a claim still, which is gone.
fn bound(volume: &Watched, driver: &str) -> Option<Bound> {
    let volume_id = handle(volume, driver)?.to_owned();
    let phase = volume.status.phase.as_deref();
    let claim = volume.spec.claim_ref.as_ref().filter(|_| phase == Some("Bound"))?;
    let claim = Claim {
        namespace: claim.namespace.clone()?,
        name: claim.name.clone()?,
        volume: volume.metadata.name.clone()?,
    };
    Some(Bound { volume_id, claim })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_bound_volume_of_the_driver_has_a_claim() {
        let volume = |driver: &str, phase: &str| -> Watched {
            let claim = json!({"namespace": "team", "name": "data"});
            let source = json!({"driver": driver, "volumeHandle": "pool1~x"});
            serde_json::from_value(json!({
                "metadata": {"name": "pvc-1"}, "spec": {"csi": source, "claimRef": claim}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let claim = Claim { namespace: "team".into(), name: "data".into(), volume: "pvc-1".into() };
        let one = Bound { volume_id: "pool1~x".into(), claim };
        assert_eq!(bound(&volume("a.b", "Bound"), "a.b"), Some(one));
        assert_eq!(bound(&volume("a.b", "Released"), "a.b"), None);
        assert_eq!(bound(&volume("c.d", "Bound"), "a.b"), None);
        let other: Watched =
            serde_json::from_value(json!({"metadata": {"name": "pvc-1"}, "spec": {"nfs": {}}})).unwrap();
        assert_eq!(bound(&other, "a.b"), None);
    }
}
