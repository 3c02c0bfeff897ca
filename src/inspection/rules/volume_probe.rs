//! Volumes tried out: a file written and read back, or a volume made and deleted.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use super::cluster::refused;
use super::place::Place;
use super::sight::{Blind, Seen, Sight, Verdict};
use crate::inspection::results;
use crate::inspection::task::AccessMode;
use crate::inspection::task::cluster::{ProbeMode, VolumeProbe};

/// How often it is asked how far a volume is: a request a second is nothing to an API server.
const STEP: Duration = Duration::from_secs(1);

/// What a canary is marked with, so that one which was left behind is found and removed by the next.
const MARK: &str = "kuration.io/canary";

/// How often it is tried to delete a canary's claim, a [`STEP`] apart.
const DELETIONS: u32 = 3;

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
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let found = Api::<StorageClass>::all(client).get(class).await.map_err(|error| refused(&error))?;
    if found.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") {
        return Err(Blind::new(
            "WaitForFirstConsumer",
            format!(
                "the class {class} binds a claim with the first pod that uses it, and a canary has none: use a class that \
                 binds at once (volumeBindingMode: Immediate), or mode Write with a claim of this class as claimName"
            ),
        ));
    }
    sweep(&claims, place).await?;
    let size = rule.size.as_ref().map_or_else(|| "1Mi".to_owned(), |size| size.quantity());
    let claim = json!({
        "metadata": {"generateName": "kuration-canary-", "labels": {MARK: "true"}},
        "spec": {
            "storageClassName": class, "accessModes": [AccessMode::of(&found)], "resources": {"requests": {"storage": size}},
        },
    });
    let begun = Instant::now();
    let (name, canary) = Canary::made(&claims, claim, place).await?;
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
    let freed = Instant::now();
    canary.delete().await?;
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

/// A claim that is deleted when this is dropped: when the rule has ended, or its deadline or the run's has ended it.
struct Canary {
    free: oneshot::Sender<()>,
    gone: oneshot::Receiver<Result<(), Blind>>,
}

impl Canary {
    /// Makes the claim; its name.
    ///
    /// It is made and deleted by a task of the run's own, which no deadline of a rule ends, not even while the API server is
    /// still asked to make it; the run waits for that task before it ends ([`Place::settled`]).
    async fn made(
        claims: &Api<PersistentVolumeClaim>,
        claim: Json,
        place: &Place,
    ) -> Result<(String, Self), Blind> {
        let claim =
            serde_json::from_value(claim).map_err(|error| Blind::new("Internal", error.to_string()))?;
        let (made, named) = oneshot::channel();
        let (free, freed) = oneshot::channel();
        let (deleted, gone) = oneshot::channel();
        let claims = claims.clone();
        // Who no longer listens has ended: then there is nobody to tell, and the claim goes all the same.
        place.outlive(async move {
            let answer = claims.create(&PostParams::default(), &claim).await;
            let name = answer.map(|claim| claim.metadata.name.unwrap_or_default());
            made.send(name.as_ref().map(Clone::clone).map_err(refused)).ok();
            if let Ok(name) = name {
                freed.await.ok();
                deleted.send(delete(&claims, &name).await).ok();
            }
        });
        let ended = |_| Blind::new("Internal", "nobody makes the canary's claim");
        let name = named.await.map_err(ended)??;
        Ok((name, Self { free, gone }))
    }

    /// Deletes the claim.
    async fn delete(self) -> Result<(), Blind> {
        drop(self.free);
        self.gone.await.map_err(|_| Blind::new("Internal", "nobody deletes the canary's claim"))?
    }
}

/// Deletes a claim; one that is gone already is none that is left.
async fn delete(claims: &Api<PersistentVolumeClaim>, name: &str) -> Result<(), Blind> {
    let mut tries = 1;
    loop {
        match claims.delete(name, &DeleteParams::default()).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) if tries == DELETIONS => {
                tracing::warn!(claim = name, %error, "the canary's claim can't be deleted: a canary after an hour will");
                return Err(refused(&error));
            }
            Err(_) => tokio::time::sleep(STEP).await,
        }
        tries += 1;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::inspection::task::Target;

    /// An API server of claims that are never bound, unless it is told so.
    #[derive(Clone, Default)]
    struct ApiServer {
        claims: Arc<Mutex<BTreeMap<String, Json>>>,
        mode: Option<&'static str>,
        provisioner: &'static str,
        binds: bool,
        /// How long a claim takes to be made.
        slow: Duration,
        /// How many deletions fail first.
        fails: Arc<Mutex<u32>>,
    }

    impl ApiServer {
        fn answer(&self, method: &str, path: &str, body: &[u8]) -> (u16, Json) {
            let mut claims = self.claims.lock().unwrap();
            let last = path.rsplit('/').next().unwrap().to_owned();
            let status = |code: u16| {
                (
                    code,
                    json!({"kind": "Status", "status": "Failure", "reason": if code == 404 { "NotFound" } else { "InternalError" }, "code": code}),
                )
            };
            match (method, path.contains("/persistentvolumeclaims/")) {
                _ if path.contains("/storageclasses/") => (
                    200,
                    json!({"metadata": {"name": last}, "provisioner": self.provisioner, "volumeBindingMode": self.mode}),
                ),
                _ if path.contains("/persistentvolumes/") => status(404),
                ("POST", _) => {
                    let mut claim: Json = serde_json::from_slice(body).unwrap();
                    claim["metadata"]["name"] = "kuration-canary-x1".into();
                    if self.binds {
                        claim["status"] = json!({"phase": "Bound"});
                        claim["spec"]["volumeName"] = "pv".into();
                    }
                    claims.insert("kuration-canary-x1".to_owned(), claim.clone());
                    (201, claim)
                }
                ("DELETE", true) => {
                    let mut fails = self.fails.lock().unwrap();
                    if *fails > 0 {
                        *fails -= 1;
                        return status(500);
                    }
                    claims.remove(&last).map_or_else(|| status(404), |claim| (200, claim))
                }
                ("GET", true) => claims.get(&last).map_or_else(|| status(404), |claim| (200, claim.clone())),
                _ => (200, json!({"metadata": {}, "items": claims.values().collect::<Vec<_>>()})),
            }
        }

        fn place(&self) -> Place {
            let place = Place::new("shop", Target::parse("mysql").unwrap(), jiff::Timestamp::now());
            let here = self.clone();
            let serve = move |request: http::Request<kube::client::Body>| {
                let here = here.clone();
                async move {
                    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let (code, answer) = here.answer(&method, &path, &body);
                    if method == "POST" {
                        tokio::time::sleep(here.slow).await;
                    }
                    let body = kube::client::Body::from(serde_json::to_vec(&answer).unwrap());
                    let answer = http::Response::builder().status(code).body(body).unwrap();
                    Ok::<_, std::convert::Infallible>(answer)
                }
            };
            place.with_client(kube::Client::new(tower::service_fn(serve), "default"))
        }

        fn left(&self) -> usize {
            self.claims.lock().unwrap().len()
        }
    }

    fn canary() -> VolumeProbe {
        serde_json::from_value(json!({"mode": "Provision", "storageClassName": "fast"})).unwrap()
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_claim_that_is_not_bound_in_time_is_gone_before_the_run_ends() {
        let server = ApiServer { fails: Arc::new(Mutex::new(1)), ..ApiServer::default() };
        let place = server.place();
        let canary = canary();
        let looked = tokio::time::timeout(Duration::from_millis(300), look(&canary, &place)).await;
        assert!(looked.is_err());
        assert_eq!(server.left(), 1);
        assert!(place.settled(SOON).await);
        assert_eq!(server.left(), 0);
    }

    #[tokio::test]
    async fn a_claim_that_was_still_being_made_at_the_deadline_is_deleted_too() {
        let server = ApiServer { slow: Duration::from_millis(500), ..ApiServer::default() };
        let place = server.place();
        let canary = canary();
        assert!(tokio::time::timeout(Duration::from_millis(200), look(&canary, &place)).await.is_err());
        assert!(!place.settled(Duration::from_millis(10)).await, "it is being made");
        let server = ApiServer { claims: Arc::default(), ..server };
        let place = server.place();
        assert!(tokio::time::timeout(Duration::from_millis(200), look(&canary, &place)).await.is_err());
        assert!(place.settled(SOON).await);
        assert_eq!(server.left(), 0);
    }

    #[tokio::test]
    async fn a_claim_asks_for_what_its_class_can_give_and_goes_when_it_was_bound() {
        for (provisioner, mode) in
            [("nfs.csi.kuration.io", "ReadWriteMany"), ("local.csi.example", "ReadWriteOnce")]
        {
            let server = ApiServer { provisioner, ..ApiServer::default() };
            let place = server.place();
            let canary = canary();
            assert!(tokio::time::timeout(Duration::from_millis(200), look(&canary, &place)).await.is_err());
            let claim = server.claims.lock().unwrap()["kuration-canary-x1"].clone();
            assert_eq!(claim["spec"]["accessModes"], json!([mode]), "{provisioner}");
        }
        let server = ApiServer { binds: true, ..ApiServer::default() };
        let sight = look(&canary(), &server.place()).await.unwrap();
        assert_eq!((sight.verdict, server.left()), (Verdict::Pass, 0));
    }

    #[tokio::test]
    async fn a_class_that_waits_for_a_pod_is_an_error_at_once_and_makes_no_claim() {
        let server = ApiServer { mode: Some("WaitForFirstConsumer"), ..ApiServer::default() };
        let blind = look(&canary(), &server.place()).await.unwrap_err();
        assert_eq!((blind.reason, server.left()), ("WaitForFirstConsumer", 0));
        assert!(blind.message.contains("mode Write"), "{}", blind.message);
    }
}
