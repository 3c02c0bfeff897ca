use std::sync::{Arc, Mutex};

use super::*;
use crate::backend::{Answer, Ask, Backend, FindError, Job, Local, Reaped};
use crate::volume::{Export, ExportName, Identity, Key, Kind, MountOptions, Usage};

/// Shares that note whose claims they are told, and fail the first time for what is called `late`.
#[derive(Default)]
struct Noting {
    told: Mutex<Vec<String>>,
    /// The export behind every hash, once that is known.
    hashed: Mutex<Option<Export>>,
}

impl Noting {
    fn told(&self, claim: &str) -> usize {
        self.told.lock().unwrap().iter().filter(|told| *told == claim).count()
    }
}

fn nowhere<T>() -> Result<T, Trouble> {
    Err(Trouble::Own("nobody asks for that".to_owned()))
}

#[tonic::async_trait]
impl Backend for Noting {
    fn kind(&self) -> Kind {
        Kind::Share
    }

    async fn run(&self, _: &Place, ask: Ask, _: Instant) -> Result<Answer, Trouble> {
        let Job::Claim { claim, .. } = ask.job else { return nowhere() };
        let first = self.told(&claim.name) == 0;
        let fails = claim.name == "late" && first;
        self.told.lock().unwrap().push(claim.name);
        Ok(Answer::Claim(if fails { nowhere().map_err(Into::into) } else { Ok(first) }))
    }

    fn place(&self, _: Option<&Export>, _: &MountOptions, _: &SecretOptions) -> Option<Place> {
        None
    }

    fn places(&self) -> Vec<Place> {
        Vec::new()
    }

    fn locate(&self, handle: &Handle) -> Result<Option<Place>, Trouble> {
        let export = match &handle.id {
            VolumeId::Share { export: ExportName::Named(export, _), .. } => export.clone(),
            VolumeId::Peer { export, .. } => export.clone(),
            VolumeId::Share { export: ExportName::Hashed(hash), .. } => {
                let known = self.hashed.lock().unwrap().clone();
                known.ok_or_else(|| Trouble::UnknownExport(hash.clone()))?
            }
            VolumeId::Pool { .. } => return Ok(None),
        };
        let (options, secret) = Default::default();
        Ok(Some(Place::Share { export, options, secret }))
    }

    async fn reap(&self, _: &Place, _: Option<u64>) -> Result<Reaped, Trouble> {
        nowhere()
    }

    async fn local(&self, _: &VolumeId) -> Result<Option<Local>, FindError> {
        Ok(None)
    }

    async fn usage(&self, _: Local) -> Result<Usage, Trouble> {
        nowhere()
    }

    fn enforcement(&self) -> Result<(), String> {
        Ok(())
    }
}

fn export(server: &str) -> Export {
    Export::new(server, "/a").unwrap()
}

fn named(server: &str, volume: &str) -> VolumeId {
    VolumeId::share(&export(server), &MountOptions::default(), Identity::new([1; 4]), Key::of("one", volume))
}

fn hashed(volume: &str) -> VolumeId {
    let export = ExportName::Hashed(ExportName::hash(&export("nas")));
    VolumeId::Share { export, identity: Identity::new([1; 4]), key: Key::of("one", volume) }
}

fn bound(volume_id: impl ToString, claim: &str) -> Bound {
    let claim = Claim { namespace: "team".into(), name: claim.into(), volume: "pvc-1".into() };
    Bound { volume_id: volume_id.to_string(), claim }
}

/// Claims are followed in the background, and what failed is tried again after 50 ms.
fn following(allowed: &[&str]) -> (Arc<Noting>, mpsc::Sender<Bound>) {
    let (noting, (sender, told)) = (Arc::new(Noting::default()), mpsc::channel(1));
    let servers = AllowedServers::new(allowed.iter().map(|pattern| pattern.parse().unwrap()).collect());
    let volumes = Volumes::new(Arc::clone(&noting) as Arc<dyn Backend>);
    tokio::spawn(follow(told, volumes, servers, Duration::from_millis(50)));
    (noting, sender)
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_failed_is_tried_again_also_while_something_is_always_bound() {
    let (noting, sender) = following(&[]);
    sender.send(bound(named("nas", "late"), "late")).await.unwrap();
    // Nowhere is there a pause as long as that after which what failed is tried again.
    let end = Instant::now() + Duration::from_secs(20);
    while noting.told("late") < 2 {
        assert!(Instant::now() < end, "it was not tried again");
        sender.send(bound(named("nas", "other"), "other")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until("the others were told", || noting.told("other") > 0).await;
    // Once it went well that was all.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(noting.told("late"), 2);
}

#[tokio::test]
async fn of_a_server_that_is_not_allowed_nothing_is_asked_however_the_id_names_it() {
    let (noting, sender) = following(&["allowed"]);
    *noting.hashed.lock().unwrap() = Some(export("nas"));
    // The last is another driver's volume.
    for id in
        [named("nas", "x").to_string(), hashed("x").to_string(), "allowed#a#sub#pvc-1#delete".to_owned()]
    {
        assert!(id.parse::<VolumeId>().is_ok(), "{id}");
        sender.send(bound(id, "refused")).await.unwrap();
    }
    sender.send(bound(named("allowed", "x"), "told")).await.unwrap();
    until("the allowed one was told", || noting.told("told") == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(noting.told("refused"), 0);
}

#[tokio::test]
async fn an_export_that_is_not_known_yet_is_asked_when_it_is() {
    let (noting, sender) = following(&["nas"]);
    sender.send(bound(hashed("x"), "data")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(noting.told("data"), 0);
    *noting.hashed.lock().unwrap() = Some(export("nas"));
    until("it was told", || noting.told("data") == 1).await;
}
