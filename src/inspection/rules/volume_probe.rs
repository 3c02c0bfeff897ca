//! Volumes tried out: a file written and read back, or a volume made and deleted.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::cluster::refused;
use super::place::Place;
use super::sight::{Blind, Seen, Sight, Verdict};
use crate::inspection::results;
use crate::inspection::task::cluster::{ProbeMode, VolumeProbe};

/// How often it is asked how far a volume is: a request a second is nothing to an API server.
const STEP: Duration = Duration::from_secs(1);

/// What a canary is marked with, so that one which was left behind is found and removed by the next.
const MARK: &str = "kuration.io/canary";

/// A canary older than this was left behind, in seconds.
const LEFT: i64 = 3600;

/// Tries a volume out.
pub async fn look(rule: &VolumeProbe, place: &Place) -> Seen {
    match rule.mode {
        ProbeMode::Write => write(rule, place).await,
        ProbeMode::Provision => provision(rule, place).await,
    }
}

async fn write(rule: &VolumeProbe, place: &Place) -> Seen {
    // A claim that is named stands beside the results, mounted by the controller.
    let root = match &rule.claim_name {
        Some(claim) => place.claims.as_ref().map(|claims| claims.join(claim)),
        None => place.results.clone(),
    };
    let root = root.ok_or_else(|| Blind::new("NoVolume", "the volume to write to is not mounted here"))?;
    let bytes = rule.size.as_ref().and_then(|size| size.bytes()).unwrap_or(4096).min(64 << 20);
    let tried = results::try_out(root, bytes).await;
    match tried {
        Ok(tried) => {
            let verdict = match tried.read_back {
                true => Verdict::Pass,
                false => Verdict::fail("ReadBackDiffers", "what was read back is not what was written"),
            };
            Ok(Sight::of(
                json!({
                    "writeMillis": tried.write_millis, "fsyncMillis": tried.fsync_millis,
                    "renameMillis": tried.rename_millis, "readMillis": tried.read_millis, "readBack": tried.read_back,
                    "bytes": bytes,
                }),
                verdict,
            ))
        }
        // The volume was there and did not take it.
        Err(problem) => {
            let result = json!({"readBack": false, "error": problem.reason});
            Ok(Sight::of(result, Verdict::fail("WriteFailed", problem.message)))
        }
    }
}

/// Makes a claim, waits until it is bound, deletes it, and waits until its volume is gone.
async fn provision(rule: &VolumeProbe, place: &Place) -> Seen {
    let class = rule.storage_class_name.as_deref();
    let class = class.ok_or_else(|| Blind::new("BadRule", "mode Provision needs storageClassName"))?;
    let client = place.cluster().await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &place.namespace);
    let volumes: Api<PersistentVolume> = Api::all(client);
    sweep(&claims, place).await?;
    let size = rule.size.as_ref().map_or_else(|| "1Mi".to_owned(), |size| size.quantity());
    let claim = json!({
        "metadata": {"generateName": "kuration-canary-", "labels": {MARK: "true"}},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
    });
    let claim = serde_json::from_value(claim).map_err(|error| Blind::new("Internal", error.to_string()))?;
    let begun = Instant::now();
    let made = claims.create(&PostParams::default(), &claim).await.map_err(|error| refused(&error))?;
    let name = made.metadata.name.unwrap_or_default();
    // Whatever becomes of this rule, the claim goes: it is deleted when the deadline ends this function too.
    let guard = Guard { claims: claims.clone(), name: name.clone() };
    let bound = loop {
        let claim = claims.get(&name).await.map_err(|error| refused(&error))?;
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Bound") {
            break claim.spec.and_then(|spec| spec.volume_name).unwrap_or_default();
        }
        tokio::time::sleep(STEP).await;
    };
    let bound_seconds = begun.elapsed().as_secs_f64();
    let volume = volumes.get_opt(&bound).await.map_err(|error| refused(&error))?;
    let keeps =
        volume.as_ref().and_then(|volume| volume.spec.as_ref()?.persistent_volume_reclaim_policy.clone());
    drop(guard);
    let freed = Instant::now();
    if keeps.as_deref() == Some("Retain") {
        let why = format!("the class {class} retains volumes: {bound} stays behind, and holds room");
        let result = json!({"boundSeconds": bound_seconds, "reclaimed": false, "volumeName": bound});
        return Ok(Sight::of(result, Verdict::fail("NotReclaimed", why)));
    }
    while volumes.get_opt(&bound).await.map_err(|error| refused(&error))?.is_some() {
        tokio::time::sleep(STEP).await;
    }
    let result = json!({
        "boundSeconds": bound_seconds, "reclaimed": true, "reclaimedSeconds": freed.elapsed().as_secs_f64(),
        "volumeName": bound,
    });
    Ok(Sight::of(result, Verdict::Pass))
}

/// Deletes a claim when it is dropped.
struct Guard {
    claims: Api<PersistentVolumeClaim>,
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (claims, name) = (self.claims.clone(), self.name.clone());
        tokio::spawn(async move {
            if let Err(error) = claims.delete(&name, &DeleteParams::default()).await {
                tracing::warn!(claim = name, %error, "the canary's claim can't be deleted: the next canary will");
            }
        });
    }
}

/// Removes canaries of runs that ended before they could.
async fn sweep(claims: &Api<PersistentVolumeClaim>, place: &Place) -> Result<(), Blind> {
    let marked = ListParams::default().labels(&format!("{MARK}=true"));
    for claim in claims.list(&marked).await.map_err(|error| refused(&error))?.items {
        let born = claim.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |at| at.0.as_second());
        if place.now.as_second().saturating_sub(born) > LEFT {
            let name = claim.metadata.name.unwrap_or_default();
            claims.delete(&name, &DeleteParams::default()).await.map_err(|error| refused(&error))?;
        }
    }
    Ok(())
}
