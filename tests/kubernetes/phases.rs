//! A volume's phases, and what becomes of it when its claim goes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::space::{PATIENCE, Space};
use super::{node, objects, site};

crate::for_every_driver!(
    a_retained_volume_is_released_and_can_be_bound_again_with_its_data,
    a_selector_binds_the_static_volume_with_its_label,
    recycling_ends_failed_and_says_so,
    a_claim_moves_to_another_namespace_with_its_data;
    pool: ;
    share: a_static_volume_without_a_record_is_used_and_left_alone
);

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

async fn in_phase(space: &Space, volume: &str, wanted: &str) -> PersistentVolume {
    let what = format!("is {wanted}");
    space.until(space.all(), volume, &what, |volume| phase(volume) == wanted).await
}

/// Sets what becomes of a volume when its claim goes.
async fn reclaim(space: &Space, volume: &str, policy: &str) {
    let policy = json!({ "spec": { "persistentVolumeReclaimPolicy": policy } });
    space.change(space.all::<PersistentVolume>(), volume, policy).await;
}

/// Gives a released volume to a claim to come, and to no other: a volume without any claim is free to every waiting claim of
/// its class, and another's data with it.
async fn keep_for(space: &Space, volume: &str, namespace: &str, claim: &str) {
    let next = json!({ "namespace": namespace, "name": claim, "uid": null, "resourceVersion": null });
    space.change(space.all::<PersistentVolume>(), volume, json!({ "spec": { "claimRef": next } })).await;
    in_phase(space, volume, "Available").await;
}

/// A claim that names its volume.
fn naming(volume: &str) -> Value {
    json!({ "spec": { "volumeName": volume } })
}

/// Deletes a volume that was retained, data and all: Kubernetes leaves that to its owner.
async fn set_to_delete_and_wait(space: &Space, volume: &str) {
    let uid = space.all::<PersistentVolume>().get(volume).await.unwrap().uid().unwrap();
    reclaim(space, volume, "Delete").await;
    space.gone(space.all::<PersistentVolume>(), volume, &uid).await;
}

async fn a_retained_volume_is_released_and_can_be_bound_again_with_its_data(space: &Space) {
    let class = space.class("kept", json!({ "reclaimPolicy": "Retain" })).await;
    space.claim_of("data", &class).await;
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    space.sh("pod", "echo kept > /data/note && sync").await;
    let volume = space.bound("data").await.name_any();
    in_phase(space, &volume, "Bound").await;
    space.end("pod").await;
    space.delete(space.api::<PersistentVolumeClaim>(), "data").await;
    in_phase(space, &volume, "Released").await;
    // Its owner gives it free.
    space.change(space.all::<PersistentVolume>(), &volume, json!({ "spec": { "claimRef": null } })).await;
    in_phase(space, &volume, "Available").await;
    let mut again = naming(&volume);
    objects::lay_over(&mut again, json!({ "spec": { "storageClassName": class } }));
    space.claim("again", again).await;
    in_phase(space, &volume, "Bound").await;
    space.pod("pod", "again", json!({})).await;
    space.running("pod").await;
    assert_eq!(space.sh("pod", "cat /data/note").await, "kept");
    space.end("pod").await;
    reclaim(space, &volume, "Delete").await;
}

/// A volume made by hand of the source that a provisioned one has, which is let go before.
async fn by_hand(space: &Space, name: &str, spec: Value) -> PersistentVolume {
    let class = space.class(&format!("source-{name}"), json!({ "reclaimPolicy": "Retain" })).await;
    space.claim_of("source", &class).await;
    // A pod has had it: by then the provisioner knows that it is done. A claim and its volume that go before, it makes anew.
    space.pod("source", "source", json!({})).await;
    space.running("source").await;
    space.end("source").await;
    let source = space.bound("source").await;
    space.delete(space.api::<PersistentVolumeClaim>(), "source").await;
    in_phase(space, &source.name_any(), "Released").await;
    space.delete(space.all::<PersistentVolume>(), &source.name_any()).await;
    let made = source.spec.unwrap();
    let mut volume = json!({
        "metadata": { "name": format!("{}-{name}", space.name) },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": { "storage": "64Mi" },
            "csi": made.csi,
            "nodeAffinity": made.node_affinity,
            "storageClassName": "",
        },
    });
    objects::lay_over(&mut volume, spec);
    space.all().create(&Default::default(), &objects::typed(volume)).await.expect("a volume")
}

async fn a_selector_binds_the_static_volume_with_its_label(space: &Space) {
    let label = json!({ "case": space.name });
    let marked = json!({ "metadata": { "labels": label } });
    let volume = by_hand(space, "marked", marked).await.name_any();
    in_phase(space, &volume, "Available").await;
    let wanted = json!({ "spec": { "storageClassName": "", "selector": { "matchLabels": label } } });
    space.claim("data", wanted).await;
    assert_eq!(space.bound("data").await.name_any(), volume);
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    space.sh("pod", "echo x > /data/note").await;
    space.end("pod").await;
    space.delete(space.api::<PersistentVolumeClaim>(), "data").await;
    // A volume made by hand is retained unless it says otherwise.
    in_phase(space, &volume, "Released").await;
    provisioned(space, &volume).await;
    set_to_delete_and_wait(space, &volume).await;
}

/// Makes a volume the provisioner's: it deletes only what it believes to have made.
async fn provisioned(space: &Space, volume: &str) {
    let mark =
        json!({ "metadata": { "annotations": { "pv.kubernetes.io/provisioned-by": space.driver.name() } } });
    space.change(space.all::<PersistentVolume>(), volume, mark).await;
}

async fn recycling_ends_failed_and_says_so(space: &Space) {
    space.claim("data", json!({})).await;
    let volume = space.bound("data").await.name_any();
    // Kubernetes recycles volumes of its own NFS and hostPath plugins alone, and looks when the claim is gone.
    reclaim(space, &volume, "Recycle").await;
    space.delete(space.api::<PersistentVolumeClaim>(), "data").await;
    in_phase(space, &volume, "Failed").await;
    space.event("PersistentVolume", &volume, &["No recycler plugin found"]).await;
    // The way out: it is given to another claim, and goes with that.
    keep_for(space, &volume, &space.name, "again").await;
    reclaim(space, &volume, "Delete").await;
    space.claim("again", naming(&volume)).await;
    in_phase(space, &volume, "Bound").await;
}

async fn a_static_volume_without_a_record_is_used_and_left_alone(space: &Space) {
    let volume = space.export("data", json!({})).await;
    space.pod("pod", "data", json!({})).await;
    space.running("pod").await;
    let mark = format!("/data/{}-mark", space.name);
    space.sh("pod", &format!("mkdir {mark} && echo kept > {mark}/note && sync")).await;
    space.end("pod").await;
    space.delete(space.api::<PersistentVolumeClaim>(), "data").await;
    // Somebody's own data: a delete must not touch it, whatever the policy says.
    let uid = space.all::<PersistentVolume>().get_opt(&volume).await.unwrap().and_then(|volume| volume.uid());
    if let Some(uid) = uid {
        space.gone(space.all::<PersistentVolume>(), &volume, &uid).await;
    }
    let again = space.export("again", json!({ "persistentVolumeReclaimPolicy": "Retain" })).await;
    space.pod("look", "again", json!({})).await;
    space.running("look").await;
    assert_eq!(space.sh("look", &format!("cat {mark}/note && rm -r {mark}")).await, "kept");
    space.end("look").await;
    space.delete(space.api::<PersistentVolumeClaim>(), "again").await;
    drop(space.all::<PersistentVolume>().delete(&again, &DeleteParams::default()).await);
}

/// deploy/examples/move-claim, run in `place`; where it is to be interrupted, by the kubectl that lies there.
async fn move_claim(place: &Path, words: [&str; 3], interrupted: bool) -> Result<String, String> {
    let mut command = Command::new(site::in_repository("deploy/examples/move-claim"));
    command.args(words).current_dir(place);
    if interrupted {
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", place.display())).env("PATH_AS_IT_WAS", path);
    }
    tokio::task::spawn_blocking(move || site::output(&mut command)).await.expect("no panic")
}

/// The documented way, by the script that documents it. It is interrupted for two of three claims, and goes on where it was.
async fn a_claim_moves_to_another_namespace_with_its_data(space: &Space) {
    let elsewhere = space.beside().await;
    let claims = [("one", true), ("two", true), ("three", false)];
    let mut moved = Vec::new();
    for (claim, _) in claims {
        let pod = format!("old-{claim}");
        space.claim_in_pod(claim, &pod).await;
        space.sh(&pod, &format!("echo {claim} > /data/note && sync")).await;
        moved.push((claim, space.bound(claim).await.name_any()));
        space.end(&pod).await;
    }
    let place = tempfile::tempdir().unwrap();
    // A kubectl that gives no volume to another claim.
    let kubectl =
        "#!/bin/sh\ncase \"$*\" in *claimRef*uid*) exit 1;; esac\nPATH=$PATH_AS_IT_WAS exec kubectl \"$@\"\n";
    std::fs::write(place.path().join("kubectl"), kubectl).unwrap();
    std::fs::set_permissions(place.path().join("kubectl"), Permissions::from_mode(0o755)).unwrap();
    for ((claim, volume), (_, interrupted)) in moved.iter().zip(claims) {
        let words = [*claim, &space.name, &elsewhere.name];
        if interrupted {
            move_claim(place.path(), words, true).await.expect_err("it can't get on");
            in_phase(space, volume, "Released").await;
            let kept = std::fs::read_to_string(place.path().join(format!("{claim}.json"))).unwrap();
            let kept: Value = serde_json::from_str(&kept).unwrap();
            assert_eq!(kept["spec"]["volumeName"], json!(volume));
        }
        move_claim(place.path(), words, false).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(elsewhere.bound(claim).await.name_any(), *volume);
        let now = space.all::<PersistentVolume>().get(volume).await.unwrap().spec.unwrap();
        assert_eq!(now.persistent_volume_reclaim_policy.as_deref(), Some("Delete"), "as mortal as before");
        assert!(space.api::<PersistentVolumeClaim>().get_opt(claim).await.unwrap().is_none(), "it was moved");
    }
    for (claim, _) in &moved {
        let pod = format!("new-{claim}");
        elsewhere.pod(&pod, claim, json!({})).await;
        elsewhere.running(&pod).await;
        assert_eq!(elsewhere.sh(&pod, "cat /data/note").await, *claim);
    }
    // What is told of the volumes names the claims that have them now: the kubelet's figures, the events, and the records.
    for (claim, volume) in &moved {
        measured(&elsewhere, claim).await;
        elsewhere.resize(claim, "128Mi").await;
        let words = ["External resizer is resizing volume", volume];
        elsewhere.event("PersistentVolumeClaim", claim, &words).await;
        recorded(space, &elsewhere.name, claim, volume).await;
    }
    let volumes: Vec<&str> = moved.iter().map(|(_, volume)| volume.as_str()).collect();
    let mut found = records(space, &volumes).await;
    found.sort();
    let mut wanted: Vec<String> = Vec::new();
    for (claim, volume) in &moved {
        wanted.push(format!("{}/{claim} has {volume}", elsewhere.name));
        elsewhere.end(&format!("new-{claim}")).await;
    }
    wanted.sort();
    assert_eq!(found, wanted);
    // The claim's new owner frees the volume.
    for (claim, volume) in moved {
        let uid = space.all::<PersistentVolume>().get(&volume).await.unwrap().uid().unwrap();
        elsewhere.delete(elsewhere.api::<PersistentVolumeClaim>(), claim).await;
        space.gone(space.all::<PersistentVolume>(), &volume, &uid).await;
    }
    elsewhere.close().await;
}

/// Waits until the kubelet has measured what a claim's volume holds.
async fn measured(space: &Space, claim: &str) {
    let deadline = Instant::now() + PATIENCE;
    while node::gauge(space, "used_bytes", claim).await.is_none() {
        assert!(Instant::now() < deadline, "the kubelet knows nothing of {claim}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Who has these volumes, by the records that lie beside them.
async fn records(space: &Space, volumes: &[&str]) -> Vec<String> {
    let patterns: String = volumes.iter().map(|volume| format!(" -e '\"volume\":\"{volume}\"'")).collect();
    // Those of other cases come and go meanwhile.
    let script = format!("grep -hs {patterns} /data/.kuration/installations/default/volumes/*; true");
    let found = space.oversee(&script).await;
    let claims = found.lines().map(|record| {
        let record: Value = serde_json::from_str(record).unwrap_or_else(|error| panic!("{error}: {record}"));
        let word = |key: &str| record["claim"][key].as_str().unwrap_or_default().to_owned();
        format!("{}/{} has {}", word("namespace"), word("name"), word("volume"))
    });
    claims.collect()
}

/// Waits until a controller says that a volume's record names the claim.
async fn recorded(space: &Space, namespace: &str, claim: &str, volume: &str) {
    let pods = Api::<Pod>::namespaced(space.client.clone(), site::NAMESPACE);
    let part = if space.driver.is_pool() { "pool" } else { "nfs-controller" };
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/component={part}"));
    let which = LogParams { container: Some("kuration".to_owned()), ..Default::default() };
    let wanted = [
        "the volume's claim is recorded".to_owned(),
        format!("\"namespace\":\"{namespace}\""),
        format!("\"claim\":\"{claim}\""),
        format!("\"volume\":\"{volume}\""),
    ];
    let deadline = Instant::now() + PATIENCE;
    loop {
        for pod in pods.list(&labels).await.expect("the driver's pods") {
            // One that is being replaced has no log.
            let log = pods.logs(&pod.name_any(), &which).await.unwrap_or_default();
            if log.lines().any(|line| wanted.iter().all(|part| line.contains(part.as_str()))) {
                return;
            }
        }
        assert!(
            Instant::now() < deadline,
            "no controller has recorded that {namespace}/{claim} has {volume}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
