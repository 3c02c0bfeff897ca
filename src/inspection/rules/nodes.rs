//! Nodes, and certificates that lie in Secrets.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Api, ListParams};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value as Json, json};

use super::certificate::Certificate;
use super::cluster::{Which, named, refused, typed};
use super::place::Place;
use super::sight::{Blind, Finding, Seen, Sight, Verdict};
use super::wire;
use crate::inspection::run::Subject;
use crate::inspection::task::cluster::{self, CertificateSecrets, Namespaces, NamespacesWord};

/// The port on which a kubelet shows its certificate.
const KUBELET: u16 = 10_250;

/// A node behind a firewall costs a run no more than this.
const KUBELET_LIMIT: Duration = Duration::from_secs(2);

/// One node, or all where the target is node/* and the run is on none of them.
pub async fn look(rule: &cluster::Node, place: &Place) -> Seen {
    let target = matches!(place.target.kind(), "node" | "nodes" | "no");
    let named_by_target = place.target.name().filter(|_| target);
    let one = rule.name.as_deref().or(place.node.as_deref()).or(named_by_target);
    let nodes: Vec<Node> = typed(place, "v1", "Node", &Which { name: one, ..Which::default() }).await?;
    if let (Some(name), true) = (one, nodes.is_empty()) {
        let result = json!({"ready": false});
        return Ok(Sight::of(result, Verdict::fail("NotFound", format!("there is no node {name}"))));
    }
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    for node in &nodes {
        let mut item = seen(node);
        let wrong: Vec<&str> = PRESSURES
            .iter()
            .map(|(field, _)| *field)
            .filter(|field| item[*field] == true)
            .chain((item["ready"] != true).then_some("not ready"))
            .collect();
        if !wrong.is_empty() {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            bad.push(named("v1", "Node", None, name, wrong.join(", ")));
        }
        if one.is_some() {
            add_certificate(&mut item, node, place).await;
        }
        items.push(item);
    }
    let verdict = Verdict::unless_any("NodeNotWell", "not well", bad);
    let result = match (items.as_slice(), one) {
        ([item], Some(_)) => item.clone(),
        (all, _) => json!({"count": all.len(), "ready": all.iter().all(|item| item["ready"] == true)}),
    };
    Ok(Sight { result, items, foreign: false, verdict })
}

const PRESSURES: [(&str, &str); 4] = [
    ("memoryPressure", "MemoryPressure"),
    ("diskPressure", "DiskPressure"),
    ("pidPressure", "PIDPressure"),
    ("networkUnavailable", "NetworkUnavailable"),
];

/// What a node says of itself.
fn seen(node: &Node) -> Json {
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let holds = |kind: &str| conditions.iter().any(|one| one.type_ == kind && one.status == "True");
    let about = status.node_info.unwrap_or_default();
    let allocatable = status.allocatable.unwrap_or_default();
    let allocatable: Map<String, Json> =
        allocatable.into_iter().map(|(name, amount)| (name, amount.0.into())).collect();
    let mut item = json!({
        "name": node.metadata.name, "kind": "Node", "ready": holds("Ready"),
        "unschedulable": node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
        "allocatable": allocatable, "kubeletVersion": about.kubelet_version, "kernelVersion": about.kernel_version,
        "containerRuntimeVersion": about.container_runtime_version, "osImage": about.os_image,
        "conditions": conditions.iter().map(|one| (one.type_.clone(), one.status.clone().into())).collect::<Map<_, _>>(),
    });
    for (field, kind) in PRESSURES {
        item[field] = holds(kind).into();
    }
    item
}

/// The kubelet's serving certificate, where the kubelet can be reached from here. Where it can't, the fields are absent:
/// that says nothing about the node.
async fn add_certificate(item: &mut Json, node: &Node, place: &Place) {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.clone()).unwrap_or_default();
    let Some(address) = addresses.iter().find(|address| address.type_ == "InternalIP") else { return };
    let shown = tokio::time::timeout(KUBELET_LIMIT, async {
        let stream = wire::connect(&address.address, KUBELET).await.ok()?;
        let (_, presented) = wire::tls(stream, &address.address, None).await.ok()?;
        Certificate::parse(presented.chain.first()?).ok()
    });
    if let Ok(Some(certificate)) = shown.await {
        let json = certificate.json(place.now);
        item["kubeletCertificateDaysLeft"] = json["daysLeft"].clone();
        item["notAfter"] = json["notAfter"].clone();
    }
}

/// Certificates in Secrets. Of each only the certificate is looked at, never the key.
pub async fn certificates(rule: &CertificateSecrets, place: &Place) -> Seen {
    let client = place.cluster().await?;
    let mut params = ListParams::default().fields("type=kubernetes.io/tls");
    params.label_selector = rule.selector.as_ref().map(super::cluster::query).transpose()?;
    let apis: Vec<Api<Secret>> = match &rule.namespaces {
        Namespaces::Word(NamespacesWord::All) => vec![Api::all(client)],
        Namespaces::Named(names) => names.iter().map(|name| Api::namespaced(client.clone(), name)).collect(),
        Namespaces::Absent | Namespaces::Word(NamespacesWord::Own) => {
            vec![Api::namespaced(client, &place.namespace)]
        }
        Namespaces::Unreadable(what) => {
            return Err(Blind::new(
                "BadRule",
                format!("namespaces is {what}: it may be Own, All, or a list of names"),
            ));
        }
    };
    let (mut items, mut bad): (Vec<Json>, Vec<Subject>) = (Vec::new(), Vec::new());
    for api in apis {
        for secret in api.list(&params).await.map_err(|error| refused(&error))?.items {
            let (namespace, name) = (secret.metadata.namespace, secret.metadata.name.unwrap_or_default());
            let pem = secret.data.and_then(|mut data| data.remove("tls.crt")).unwrap_or_default().0;
            let first = CertificateDer::pem_slice_iter(&pem).next();
            let certificate = match first {
                Some(Ok(der)) => Certificate::parse(&der),
                _ => Err(Blind::new("BadCertificate", "tls.crt holds no certificate")),
            };
            let (mut item, message) = match certificate {
                Ok(certificate) => {
                    let message = match certificate.verdict(place.now) {
                        Verdict::Fail(Finding { message, .. }) => message,
                        _ => String::new(),
                    };
                    (certificate.json(place.now), message)
                }
                Err(blind) => (json!({}), blind.message),
            };
            item["namespace"] = json!(namespace);
            item["name"] = json!(name);
            item["kind"] = json!("Secret");
            items.push(item);
            if !message.is_empty() {
                bad.push(named("v1", "Secret", namespace.as_deref(), &name, message));
            }
        }
    }
    let verdict = Verdict::unless_any("CertificateExpiring", "not good", bad);
    Ok(Sight::of_items(items, verdict))
}
