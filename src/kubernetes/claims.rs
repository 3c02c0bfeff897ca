//! Whose the volumes are: the claims to which PersistentVolumes of the driver are bound.
//!
//! A claim that moves to another namespace keeps its PersistentVolume, and CSI tells nobody. So the volumes are watched, and each
//! binding that was not told before is told, but for one: the claim that a volume was made for is in its record from the start, by
//! what the provisioner said (`--extra-create-metadata`).
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

/// How long what happens is left to gather, so that many volumes at once cost one waking and not one for each event. The API server
/// holds back about as many for who reads slowly as come in that time, and the connection as many again.
const GATHER: Duration = Duration::from_millis(200);

/// As many are told of at once.
const AT_ONCE: usize = 1_000;

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
    uid: Option<String>,
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
    let events = watcher(volumes, watcher::Config::default()).default_backoff();
    let mut events = pin!(events.ready_chunks(AT_ONCE));
    let (mut known, mut said) = (Known::default(), Said::default());
    while let Some(events) = events.next().await {
        let mut pause = GATHER;
        for event in events {
            match event {
                Ok(event) => {
                    if matches!(event, watcher::Event::Apply(_)) {
                        said.well("watching PersistentVolumes");
                    }
                    if let Some(news) = known.learn(event, &driver)
                        && told.send(news).await.is_err()
                    {
                        return;
                    }
                }
                Err(error) => {
                    watch_trouble(
                        &mut said,
                        "PersistentVolumes can't be watched, so records may name an old claim",
                        error,
                    );
                    pause = AGAIN;
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Who has which volume, as far as it was told.
#[derive(Default)]
struct Known {
    claims: HashMap<String, Claim>,
    /// While volumes are listed anew: those that are still there.
    listed: HashSet<String>,
}

impl Known {
    /// What an event says that was not known.
    fn learn(&mut self, event: watcher::Event<Watched>, driver: &str) -> Option<Bound> {
        let volume = match event {
            watcher::Event::Apply(volume) => volume,
            watcher::Event::InitApply(volume) => {
                self.listed.extend(handle(&volume, driver).map(str::to_owned));
                volume
            }
            watcher::Event::Delete(volume) => {
                handle(&volume, driver).and_then(|id| self.claims.remove(id));
                return None;
            }
            watcher::Event::Init => {
                self.listed.clear();
                return None;
            }
            // Of what was deleted while the watch was broken, nobody tells.
            watcher::Event::InitDone => {
                let there = std::mem::take(&mut self.listed);
                self.claims.retain(|id, _| there.contains(id));
                return None;
            }
        };
        let bound = bound(&volume, driver)?;
        if self.claims.get(&bound.volume_id) == Some(&bound.claim) {
            return None;
        }
        self.claims.insert(bound.volume_id.clone(), bound.claim.clone());
        Some(bound)
    }
}

fn handle<'a>(volume: &'a Watched, driver: &str) -> Option<&'a str> {
    let source = volume.spec.csi.as_ref()?;
    (source.driver == driver).then_some(source.volume_handle.as_str())
}

/// Who has `volume`, if it is the driver's and bound, and not to the claim that it was made for. One that is released has a claim
/// still, which is gone.
fn bound(volume: &Watched, driver: &str) -> Option<Bound> {
    let volume_id = handle(volume, driver)?.to_owned();
    let phase = volume.status.phase.as_deref();
    let claim = volume.spec.claim_ref.as_ref().filter(|_| phase == Some("Bound"))?;
    let name = volume.metadata.name.clone()?;
    if is_made_for(&name, claim) {
        return None;
    }
    let claim = Claim { namespace: claim.namespace.clone()?, name: claim.name.clone()?, volume: name };
    Some(Bound { volume_id, claim })
}

/// Whether the PersistentVolume `name` was made for `claim`: the provisioner calls it by the claim's UID, which no other claim ever
/// has. Under another prefix of names (`--volume-name-prefix`) all claims count as later ones, which costs a look at the record.
fn is_made_for(name: &str, claim: &Reference) -> bool {
    claim.uid.as_deref().is_some_and(|uid| name.strip_prefix("pvc-") == Some(uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const UID: &str = "ab206b1a-7bef-42b5-9000-6ffe3366e812";

    /// A PersistentVolume of a driver, and the claim that it speaks of.
    fn volume(name: &str, driver: &str, phase: &str, uid: &str) -> Watched {
        let claim = json!({"namespace": "team", "name": "data", "uid": uid});
        let source = json!({"driver": driver, "volumeHandle": "pool1~x"});
        let spec = json!({"csi": source, "claimRef": claim});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": phase}}))
            .unwrap()
    }

    #[test]
    fn only_a_bound_volume_of_the_driver_has_a_claim() {
        let volume = |driver: &str, phase: &str| volume("pvc-1", driver, phase, UID);
        let claim = Claim { namespace: "team".into(), name: "data".into(), volume: "pvc-1".into() };
        let one = Bound { volume_id: "pool1~x".into(), claim };
        assert_eq!(bound(&volume("a.b", "Bound"), "a.b"), Some(one));
        assert_eq!(bound(&volume("a.b", "Released"), "a.b"), None);
        assert_eq!(bound(&volume("c.d", "Bound"), "a.b"), None);
        let other: Watched =
            serde_json::from_value(json!({"metadata": {"name": "pvc-1"}, "spec": {"nfs": {}}})).unwrap();
        assert_eq!(bound(&other, "a.b"), None);
    }

    #[test]
    fn the_claim_that_a_volume_was_made_for_is_no_news_and_each_later_one_is() {
        let is_told = |name: &str, uid: &str| bound(&volume(name, "a.b", "Bound", uid), "a.b").is_some();
        let made_for = format!("pvc-{UID}");
        assert!(!is_told(&made_for, UID));
        // Of the same name in the same namespace, and made later.
        assert!(is_told(&made_for, "bb206b1a-7bef-42b5-9000-6ffe3366e812"));
        assert!(is_told(&format!("team-{UID}"), UID));
        assert!(is_told("by-hand", UID));
    }
}
