//! Claims, drivers, and how full volumes are.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSINode, VolumeAttachment};
use serde_json::{Value as Json, json};

use super::cluster::{Which, named, typed};
use super::http::{Ask, exchange};
use super::network;
use super::place::Place;
use super::sight::{Blind, Seen, Sight, Verdict};
use crate::inspection::task::cluster::{
    CsiDriver, Namespaces, NamespacesWord, PersistentVolumeClaims, UsageSource, VolumeUsage,
};

/// An attachment that is neither done nor undone after this long is stuck, in seconds.
const STUCK: i64 = 300;

/// Volumes fuller than this fail by default, in percent.
const FULL: f64 = 85.0;

const ALL: Namespaces = Namespaces::Word(NamespacesWord::All);

fn age(since: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>, now: Timestamp) -> i64 {
    since.map_or(0, |since| (now.as_second() - since.0.as_second()).max(0))
}

fn of_class(claim: &PersistentVolumeClaim, classes: &[String]) -> bool {
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
    classes.is_empty() || classes.iter().any(|wanted| wanted == class)
}

/// Claims: which are bound, and why the others are not.
pub async fn claims(rule: &PersistentVolumeClaims, place: &Place) -> Seen {
    let which = Which { namespaces: Some(&rule.namespaces), ..Which::default() };
    let mut found: Vec<PersistentVolumeClaim> = typed(place, "v1", "PersistentVolumeClaim", &which).await?;
    found.retain(|claim| of_class(claim, &rule.storage_class_names));
    let phase = |claim: &PersistentVolumeClaim| claim.status.as_ref().and_then(|status| status.phase.clone());
    let mut causes: HashMap<String, String> = HashMap::new();
    if found.iter().any(|claim| phase(claim).as_deref() != Some("Bound")) {
        let about = Which {
            namespaces: Some(&rule.namespaces),
            fields: Some("involvedObject.kind=PersistentVolumeClaim"),
            ..Which::default()
        };
        // Causes are worth telling, and the verdict stands without them.
        if let Ok(mut events) = typed::<Event>(place, "v1", "Event", &about).await {
            events.sort_by_key(|event| event.last_timestamp.as_ref().map(|at| at.0));
            for event in events {
                let uid = event.involved_object.uid.unwrap_or_default();
                let message: String = event.message.unwrap_or_default().chars().take(300).collect();
                causes.insert(uid, format!("{}: {message}", event.reason.unwrap_or_default()));
            }
        }
    }
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    for claim in &found {
        let phase = phase(claim).unwrap_or_default();
        let pending =
            if phase == "Pending" { age(claim.metadata.creation_timestamp.as_ref(), place.now) } else { 0 };
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let cause = if phase == "Bound" { None } else { causes.get(&uid) };
        let cause = cause.cloned().unwrap_or_default();
        // A claim that waits for its first pod waits rightly.
        let waits = cause.starts_with("WaitForFirstConsumer:");
        let (namespace, name) =
            (claim.metadata.namespace.as_deref(), claim.metadata.name.as_deref().unwrap_or_default());
        let wrong = match phase.as_str() {
            "Lost" => Some("its volume is lost".to_owned()),
            "Pending" if pending > i64::from(rule.pending_grace_seconds) && !waits => {
                Some(format!("pending for {pending} s. {cause}"))
            }
            _ => None,
        };
        bad.extend(wrong.map(|why| named("v1", "PersistentVolumeClaim", namespace, name, why)));
        let spec = claim.spec.clone().unwrap_or_default();
        items.push(json!({
            "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name, "phase": phase,
            "pendingSeconds": pending, "volumeName": spec.volume_name.unwrap_or_default(),
            "storageClassName": spec.storage_class_name.unwrap_or_default(), "lastEvent": cause,
            "waitsForConsumer": waits,
        }));
    }
    let verdict = Verdict::unless_any("ClaimsNotBound", "not bound", bad);
    Ok(Sight::of_items(items, verdict))
}

/// A CSI driver: on which nodes it is, whether its pods there are ready, and which attachments are stuck.
pub async fn driver(rule: &CsiDriver, place: &Place) -> Seen {
    let everywhere = Which { namespaces: Some(&ALL), ..Which::default() };
    let nodes: Vec<Node> = typed(place, "v1", "Node", &everywhere).await?;
    let registered: Vec<CSINode> = typed(place, "storage.k8s.io/v1", "CSINode", &everywhere).await?;
    let sets: Vec<DaemonSet> = typed(place, "apps/v1", "DaemonSet", &everywhere).await?;
    let attachments: Vec<VolumeAttachment> =
        typed(place, "storage.k8s.io/v1", "VolumeAttachment", &everywhere).await?;
    let leases: Vec<Lease> = typed(place, "coordination.k8s.io/v1", "Lease", &everywhere).await?;

    // Its plugin registers by a socket beneath a directory of its name: so is known which set is its own.
    let socket = format!("/plugins/{}/", rule.name);
    let is_its_own = |set: &&DaemonSet| {
        serde_json::to_string(&set.spec)
            .is_ok_and(|text| text.contains(&socket) || text.contains(&format!("/plugins/{}\"", rule.name)))
    };
    let own = sets.iter().find(is_its_own);
    let pods: Vec<Pod> = match own {
        Some(set) => {
            let namespace = Namespaces::Named(set.metadata.namespace.clone().into_iter().collect());
            typed(place, "v1", "Pod", &Which { namespaces: Some(&namespace), ..Which::default() }).await?
        }
        None => Vec::new(),
    };
    let pod_ready = |node: &str| {
        let uid = own.and_then(|set| set.metadata.uid.as_deref());
        let of_set = |pod: &&Pod| {
            let mut owners = pod.metadata.owner_references.iter().flatten();
            owners.any(|owner| Some(owner.uid.as_str()) == uid)
                && pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
        };
        pods.iter().find(of_set).is_some_and(|pod| {
            let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|one| one.type_ == "Ready" && one.status == "True")
        })
    };
    let (mut seen, mut bad) = (Vec::new(), Vec::new());
    let schedulable = |node: &&Node| !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    for node in nodes.iter().filter(schedulable) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let here = registered.iter().find(|other| other.metadata.name.as_deref() == Some(name));
        let is_registered =
            here.is_some_and(|here| here.spec.drivers.iter().any(|driver| driver.name == rule.name));
        let mut item = json!({"name": name, "kind": "Node", "registered": is_registered});
        // Where no set of its own is found, nothing is said about pods.
        let ready = own.map(|_| pod_ready(name));
        if let Some(ready) = ready {
            item["podReady"] = ready.into();
        }
        let why = match (is_registered, ready) {
            (false, _) => Some("the driver is not registered"),
            (true, Some(false)) => Some("the driver's pod is not ready"),
            _ => None,
        };
        bad.extend(why.map(|why| named("v1", "Node", None, name, why.to_owned())));
        seen.push(item);
    }
    let stuck: Vec<Json> = attachments
        .iter()
        .filter(|one| one.spec.attacher == rule.name && is_stuck(one, place.now))
        .map(|one| {
            let name = one.metadata.name.clone().unwrap_or_default();
            let status = one.status.as_ref();
            let error = status.and_then(|s| s.detach_error.as_ref().or(s.attach_error.as_ref()));
            let message = error.and_then(|error| error.message.clone()).unwrap_or_default();
            let why = format!("stuck on {}: {message}", one.spec.node_name);
            bad.push(named("storage.k8s.io/v1", "VolumeAttachment", None, &name, why));
            json!({"name": name, "nodeName": one.spec.node_name, "message": message})
        })
        .collect();
    let mut result = json!({"nodes": seen, "stuckAttachments": stuck});
    // Sidecars that elect a leader hold leases of the driver's name: one that nobody renews has no controller.
    let renewed = newest_renewal(&leases, &rule.name, place.now);
    if let Some(ago) = renewed {
        result["controllerReady"] = (ago < 60).into();
        if ago >= 60 {
            let why = format!("no controller has renewed its lease for {ago} s");
            bad.push(named("storage.k8s.io/v1", "CSIDriver", None, &rule.name, why));
        }
    }
    if nodes.is_empty() {
        return Err(Blind::new("NoNodes", "the cluster has no nodes"));
    }
    let verdict = Verdict::unless_any("DriverNotWell", &format!("{} is not well", rule.name), bad);
    Ok(Sight { result, items: seen, foreign: false, verdict })
}

fn is_stuck(one: &VolumeAttachment, now: Timestamp) -> bool {
    let attached = one.status.as_ref().is_some_and(|status| status.attached);
    match &one.metadata.deletion_timestamp {
        Some(since) => age(Some(since), now) > STUCK,
        None => !attached && age(one.metadata.creation_timestamp.as_ref(), now) > STUCK,
    }
}

/// How long ago a leader of the driver's sidecars renewed its lease, in seconds; `None` where there is no such lease.
fn newest_renewal(leases: &[Lease], driver: &str, now: Timestamp) -> Option<i64> {
    let dashed: String = driver.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let its_own = |lease: &&Lease| lease.metadata.name.as_deref().is_some_and(|name| name.contains(&dashed));
    let renewed =
        |lease: &Lease| lease.spec.as_ref()?.renew_time.as_ref().map(|at| now.as_second() - at.0.as_second());
    leases.iter().filter(its_own).filter_map(renewed).min()
}

/// What is known of one volume.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    used: Option<f64>,
    capacity: Option<f64>,
    inodes_used: Option<f64>,
    inodes: Option<f64>,
}

/// How full volumes are.
pub async fn usage(rule: &VolumeUsage, name: &str, place: &Place) -> Seen {
    let mut volumes: HashMap<(String, String), Usage> = HashMap::new();
    match rule.source {
        UsageSource::Mount => {
            let root = place.results.clone();
            let root =
                root.ok_or_else(|| Blind::new("NoVolume", "this run has no results volume to look at"))?;
            let room = crate::inspection::results::room(root).await;
            let room = room.map_err(|problem| Blind::new("VolumeUnavailable", problem.message))?;
            let usage = Usage {
                used: Some(room.used as f64),
                capacity: Some(room.capacity as f64),
                inodes_used: Some(room.inodes_used as f64),
                inodes: Some(room.inodes as f64),
            };
            volumes.insert((place.namespace.clone(), "results".to_owned()), usage);
        }
        UsageSource::Prometheus => {
            let endpoint = rule.endpoint.as_deref();
            let endpoint =
                endpoint.ok_or_else(|| Blind::new("BadRule", "the source Prometheus needs `endpoint`"))?;
            for (metric, field) in KUBELET {
                let asked = network::query(endpoint, metric, None, None, place).await?;
                for sample in asked.unwrap_or_default() {
                    add(&mut volumes, &sample, field);
                }
            }
        }
        UsageSource::Driver => {
            let by_id = scrape(place).await?;
            let everywhere = Which::default();
            let known: Vec<PersistentVolume> = typed(place, "v1", "PersistentVolume", &everywhere).await?;
            for spec in known.into_iter().filter_map(|volume| volume.spec) {
                let (Some(csi), Some(claim)) = (spec.csi, spec.claim_ref) else { continue };
                let Some(usage) = by_id.get(&csi.volume_handle) else { continue };
                let (namespace, name) = (claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default());
                volumes.insert((namespace, name), *usage);
            }
        }
    }
    if rule.source != UsageSource::Mount {
        let which = Which { namespaces: Some(&rule.namespaces), ..Which::default() };
        let claims: Vec<PersistentVolumeClaim> = typed(place, "v1", "PersistentVolumeClaim", &which).await?;
        let mine: Vec<(String, String)> = claims
            .iter()
            .filter(|claim| of_class(claim, &rule.storage_class_names))
            .map(|claim| (&claim.metadata.namespace, &claim.metadata.name))
            .map(|(namespace, name)| {
                (namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default())
            })
            .collect();
        volumes.retain(|volume, _| mine.contains(volume));
    }
    if volumes.is_empty() {
        return Err(Blind::new("NoSamples", "nobody measures how full these volumes are"));
    }
    Ok(fullness(volumes, name, place))
}

/// The kubelets' metrics (kubernetes/pkg/kubelet/metrics/collectors/volume_stats.go).
const KUBELET: [(&str, usize); 4] = [
    ("kubelet_volume_stats_used_bytes", 0),
    ("kubelet_volume_stats_capacity_bytes", 1),
    ("kubelet_volume_stats_inodes_used", 2),
    ("kubelet_volume_stats_inodes", 3),
];

/// The driver's.
const DRIVER: [(&str, usize); 4] = [
    ("kuration_volume_used_bytes", 0),
    ("kuration_volume_capacity_bytes", 1),
    ("kuration_volume_inodes_used", 2),
    ("kuration_volume_inodes", 3),
];

/// A pod of the driver that does not answer for so long, as on a machine that hangs, is not waited for.
const SCRAPE: std::time::Duration = std::time::Duration::from_secs(3);

impl Usage {
    fn set(&mut self, field: usize, value: Option<f64>) {
        match field {
            0 => self.used = value,
            1 => self.capacity = value,
            2 => self.inodes_used = value,
            _ => self.inodes = value,
        }
    }
}

fn add(volumes: &mut HashMap<(String, String), Usage>, sample: &Json, field: usize) {
    let label = |name: &str| sample["labels"][name].as_str().unwrap_or_default().to_owned();
    let volume = volumes.entry((label("namespace"), label("persistentvolumeclaim"))).or_default();
    volume.set(field, sample["value"].as_f64());
}

/// What the driver's pods say of their volumes, by the ids of these.
async fn scrape(place: &Place) -> Result<HashMap<String, Usage>, Blind> {
    let mut volumes: HashMap<String, Usage> = HashMap::new();
    let labels = serde_json::from_value(json!({"matchLabels": {"app.kubernetes.io/name": "kuration-csi"}}));
    let labels = labels.map_err(|error| Blind::new("Internal", error.to_string()))?;
    let which = Which { namespaces: Some(&ALL), labels: Some(&labels), ..Which::default() };
    let pods: Vec<Pod> = typed(place, "v1", "Pod", &which).await?;
    let uris = pods.iter().filter_map(|pod| {
        let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let port = containers.find_map(|container| {
            let mut ports = container.ports.iter().flatten();
            ports.find(|port| port.name.as_deref() == Some("admin"))
        })?;
        let address = pod.status.as_ref()?.pod_ip.as_deref()?;
        let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        format!("http://{address}:{}/metrics", port.container_port).parse().ok()
    });
    let answers = uris.map(|uri| {
        let mut ask = Ask::get(uri);
        ask.most = 4 << 20;
        tokio::time::timeout(SCRAPE, exchange(ask))
    });
    // A pod that can't be asked leaves its volumes unknown; others know theirs.
    for answer in futures::future::join_all(answers).await.into_iter().flatten().flatten() {
        for line in String::from_utf8_lossy(&answer.body).lines() {
            if let Some((id, field, value)) = sample(line) {
                volumes.entry(id.to_owned()).or_default().set(field, Some(value));
            }
        }
    }
    Ok(volumes)
}

/// The volume, field and value of a line of the text format, if it is one of the driver's about a volume. An id has neither
/// quotes nor backslashes.
fn sample(line: &str) -> Option<(&str, usize, f64)> {
    let (name, rest) = line.split_once("{volume_id=\"")?;
    let (_, field) = DRIVER.iter().find(|(metric, _)| *metric == name)?;
    let (id, value) = rest.split_once("\"}")?;
    Some((id, *field, value.split_whitespace().next()?.parse().ok()?))
}

/// What is full, what soon will be.
fn fullness(volumes: HashMap<(String, String), Usage>, rule: &str, place: &Place) -> Sight {
    let (mut items, mut bad, mut result) = (Vec::new(), Vec::new(), json!({}));
    let mut sorted: Vec<_> = volumes.into_iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for ((namespace, name), usage) in sorted {
        let share = |part: Option<f64>, whole: Option<f64>| match (part, whole) {
            (Some(part), Some(whole)) if whole > 0.0 => part / whole * 100.0,
            _ => 0.0,
        };
        let (used, inodes) = (share(usage.used, usage.capacity), share(usage.inodes_used, usage.inodes));
        let mut item = json!({
            "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name, "usedPercent": used,
            "inodesUsedPercent": inodes, "usedBytes": usage.used, "capacityBytes": usage.capacity,
        });
        let key = format!("used {namespace}/{name}");
        if let (Some(bytes), Some(capacity)) = (usage.used, usage.capacity) {
            let past = place.past.iter().filter_map(|past| {
                let bytes = past.observed.get(rule)?.get(&key)?.as_f64()?;
                Some((past.time.as_second() as f64, bytes))
            });
            let mut points: Vec<(f64, f64)> = past.collect();
            points.push((place.now.as_second() as f64, bytes));
            if let Some(seconds) = full_in(&points, capacity) {
                item["fullInSeconds"] = json!(seconds);
            }
            // Kept as it is for the trend of the next runs.
            result[&key] = json!(bytes);
        }
        if used >= FULL || inodes >= FULL {
            let why = format!("{used:.0} % of space and {inodes:.0} % of inodes in use");
            bad.push(named("v1", "PersistentVolumeClaim", Some(&namespace), &name, why));
        }
        items.push(item);
    }
    let verdict = Verdict::unless_any("VolumeFull", "nearly full", bad);
    Sight { result, items, foreign: false, verdict }
}

/// When a volume is full if it goes on as the line through `points` (time, bytes); `None` where it does not grow, or too
/// little is known: three points over ten minutes at least.
fn full_in(points: &[(f64, f64)], capacity: f64) -> Option<f64> {
    let (first, last) = points.iter().fold((f64::MAX, f64::MIN), |(a, b), (t, _)| (a.min(*t), b.max(*t)));
    if points.len() < 3 || last - first < 600.0 {
        return None;
    }
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (time, bytes) = (mean(|p| p.0), mean(|p| p.1));
    let rise: f64 = points.iter().map(|(t, b)| (t - time) * (b - bytes)).sum();
    let run: f64 = points.iter().map(|(t, _)| (t - time).powi(2)).sum();
    let slope = rise / run;
    let now = points.iter().max_by(|a, b| a.0.total_cmp(&b.0))?.1;
    (slope > 0.0).then(|| ((capacity - now) / slope).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_grows_evenly_is_full_when_the_line_says_so() {
        let points = [(0.0, 10.0), (600.0, 20.0), (1200.0, 30.0)];
        let seconds = full_in(&points, 90.0).unwrap_or_default();
        assert!((seconds - 3600.0).abs() < 1.0, "{seconds}");
        assert_eq!(full_in(&points[..2], 90.0), None);
        assert_eq!(full_in(&[(0.0, 30.0), (600.0, 20.0), (1200.0, 10.0)], 90.0), None);
    }

    #[test]
    fn the_drivers_metrics_are_read_as_they_are_written() {
        let line = r#"kuration_volume_used_bytes{volume_id="pool/pvc-1"} 1048576.0"#;
        assert_eq!(sample(line), Some(("pool/pvc-1", 0, 1_048_576.0)));
        assert_eq!(sample("kuration_volumes 5"), None);
    }
}
