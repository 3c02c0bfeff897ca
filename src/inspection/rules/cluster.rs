//! The API server, as rules ask it: in pages, without what nobody asserts anything about, and with reasons for what it
//! refuses.

use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::discovery::{ApiResource, Scope};
use kube::core::{GroupVersion, GroupVersionKind};
use kube::{Client, Discovery};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::place::Place;
use super::sight::Blind;
use crate::inspection::run::Subject;
use crate::inspection::task::cluster::{Namespaces, NamespacesWord};

/// Objects a page: the API server keeps no more in its memory at once for us, nor do we for it.
const PAGE: u32 = 500;

/// Most objects that one rule looks at. More are not left out in silence: the rule is an error then.
pub const MOST: usize = 50_000;

/// Why the API server did not answer as asked.
pub fn refused(error: &kube::Error) -> Blind {
    match error {
        kube::Error::Api(status) => {
            let reason = match status.code {
                401 => "Unauthorized",
                403 => "Forbidden",
                404 => "NotFound",
                _ => "ApiRefused",
            };
            Blind::new(reason, status.message.clone())
        }
        other => {
            let mut message = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                let text = inner.to_string();
                if !message.contains(&text) {
                    message = format!("{message}: {text}");
                }
                source = inner.source();
            }
            Blind::new("ApiUnavailable", message)
        }
    }
}

/// A key of a Secret.
pub async fn secret(client: &Client, namespace: &str, name: &str, key: &str) -> Result<Vec<u8>, Blind> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(|error| refused(&error))?;
    let found =
        found.ok_or_else(|| Blind::new("NoSecret", format!("there is no Secret {namespace}/{name}")))?;
    let value = found.data.unwrap_or_default().remove(key);
    let missing = || Blind::new("NoSecret", format!("the Secret {namespace}/{name} has no key {key}"));
    value.map(|value| value.0).ok_or_else(missing)
}

/// The address by which a node is reached within the cluster.
pub async fn node_address(client: &Client, name: &str) -> Result<String, Blind> {
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get(name).await.map_err(|error| refused(&error))?;
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let internal = addresses.iter().find(|address| address.type_ == "InternalIP").or(addresses.first());
    internal
        .map(|address| address.address.clone())
        .ok_or_else(|| Blind::new("Unresolvable", format!("the node {name} has no address")))
}

/// Which objects of a kind are meant.
#[derive(Debug, Clone, Default)]
pub struct Which<'a> {
    /// In which namespaces.
    pub namespaces: Option<&'a Namespaces>,
    /// With which labels.
    pub labels: Option<&'a LabelSelector>,
    /// With which fields.
    pub fields: Option<&'a str>,
    /// With which name.
    pub name: Option<&'a str>,
}

/// A selector as the API takes it in a query.
pub fn query(selector: &LabelSelector) -> Result<String, Blind> {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| Ok(format!("{key}={value}")));
    let expressions = selector.match_expressions.iter().flatten().map(|one| {
        let values = one.values.clone().unwrap_or_default().join(",");
        match one.operator.as_str() {
            "In" => Ok(format!("{} in ({values})", one.key)),
            "NotIn" => Ok(format!("{} notin ({values})", one.key)),
            "Exists" => Ok(one.key.clone()),
            "DoesNotExist" => Ok(format!("!{}", one.key)),
            other => Err(Blind::new("BadRule", format!("{other:?} is no operator of a label selector"))),
        }
    });
    let parts: Result<Vec<String>, Blind> = equal.chain(expressions).collect();
    Ok(parts?.join(","))
}

/// The namespaces that are meant; `None` is all of them.
fn chosen(place: &Place, namespaces: Option<&Namespaces>) -> Result<Option<Vec<String>>, Blind> {
    match namespaces {
        None | Some(Namespaces::Absent | Namespaces::Word(NamespacesWord::Own)) => {
            Ok(Some(vec![place.namespace.clone()]))
        }
        Some(Namespaces::Word(NamespacesWord::All)) => Ok(None),
        Some(Namespaces::Named(names)) => Ok(Some(names.clone())),
        Some(Namespaces::Unreadable(what)) => Err(Blind::new(
            "BadRule",
            format!("namespaces is {what}: it may be Own, All, or a list of names"),
        )),
    }
}

/// A kind as the server has it, and whether its objects stand in namespaces.
pub struct Known {
    /// Its names.
    pub resource: ApiResource,
    /// Whether its objects stand in namespaces.
    pub namespaced: bool,
}

impl Known {
    /// Asks the server for `kind` of `api_version`.
    pub async fn of(client: &Client, api_version: &str, kind: &str) -> Result<Self, Blind> {
        let version: GroupVersion = api_version
            .parse()
            .map_err(|_| Blind::new("BadRule", format!("{api_version:?} is no group and version")))?;
        let kind = GroupVersionKind::gvk(&version.group, &version.version, kind);
        let found = kube::discovery::pinned_kind(client, &kind).await;
        let (resource, capabilities) = found.map_err(|error| match &error {
            kube::Error::Api(status) if status.code != 404 => refused(&error),
            kube::Error::Discovery(_) | kube::Error::Api(_) => {
                Blind::new("UnknownKind", format!("the cluster has no kind {} in {api_version}", kind.kind))
            }
            other => refused(other),
        })?;
        Ok(Self { resource, namespaced: capabilities.scope == Scope::Namespaced })
    }

    /// Asks the server which kind is called `word`: by its kind, plural, or short name, perhaps with its group.
    pub async fn called(client: &Client, word: &str) -> Result<Self, Blind> {
        let short = SHORT.iter().find(|(short, ..)| *short == word);
        if let Some((_, api_version, kind)) = short {
            return Self::of(client, api_version, kind).await;
        }
        let (name, group) = word.split_once('.').map_or((word, None), |(name, group)| (name, Some(group)));
        let all = Discovery::new(client.clone()).run_aggregated().await.map_err(|error| refused(&error))?;
        for found in all.groups().filter(|found| group.is_none_or(|group| found.name() == group)) {
            for (resource, capabilities) in found.recommended_resources() {
                if resource.kind.eq_ignore_ascii_case(name) || resource.plural == name {
                    let namespaced = capabilities.scope == Scope::Namespaced;
                    return Ok(Self { resource, namespaced });
                }
            }
        }
        Err(Blind::new("UnknownKind", format!("the cluster has no kind called {word}")))
    }

    fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// One object, if there is one.
    pub async fn get(&self, client: &Client, namespace: &str, name: &str) -> Result<Option<Json>, Blind> {
        let found = self.api(client, Some(namespace)).get_opt(name).await.map_err(|error| refused(&error))?;
        found.map(|object| self.plain(object)).transpose()
    }

    /// All that are meant and that `keep` wants, page after page.
    pub async fn list(
        &self,
        client: &Client,
        place: &Place,
        which: &Which<'_>,
        mut keep: impl FnMut(&Json) -> Result<bool, Blind>,
    ) -> Result<Vec<Json>, Blind> {
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = which.labels.map(query).transpose()?.filter(|text| !text.is_empty());
        let named = which.name.map(|name| format!("metadata.name={name}"));
        let fields: Vec<String> = which.fields.map(str::to_owned).into_iter().chain(named).collect();
        params.field_selector = Some(fields.join(",")).filter(|text| !text.is_empty());
        let namespaces = match self.namespaced {
            true => chosen(place, which.namespaces)?,
            false => None,
        };
        let apis = match &namespaces {
            None => vec![self.api(client, None)],
            Some(names) => names.iter().map(|name| self.api(client, Some(name))).collect(),
        };
        let mut found = Vec::new();
        for api in apis {
            let mut params = params.clone();
            loop {
                let page = api.list(&params).await.map_err(|error| refused(&error))?;
                for object in page.items {
                    let object = self.plain(object)?;
                    if keep(&object)? {
                        found.push(object);
                    }
                }
                if found.len() > MOST {
                    return Err(Blind::new(
                        "TooMany",
                        format!("more than {MOST} objects: narrow the rule down"),
                    ));
                }
                params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
                if params.continue_token.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// An object as an expression sees it: without its managers, and a Secret without its data.
    fn plain(&self, object: DynamicObject) -> Result<Json, Blind> {
        let odd =
            |error: serde_json::Error| Blind::new("ApiRefused", format!("an object can't be read: {error}"));
        let mut json = serde_json::to_value(object).map_err(odd)?;
        json["apiVersion"] = self.resource.api_version.clone().into();
        json["kind"] = self.resource.kind.clone().into();
        if let Some(metadata) = json["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Json::as_object_mut) {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
        }
        if self.resource.kind == "Secret"
            && let Some(map) = json.as_object_mut()
        {
            map.remove("data");
            map.remove("stringData");
        }
        Ok(json)
    }
}

/// Words that people use, so that most tasks need no look at all kinds of the cluster.
const SHORT: [(&str, &str, &str); 33] = [
    ("service", "v1", "Service"),
    ("services", "v1", "Service"),
    ("svc", "v1", "Service"),
    ("pod", "v1", "Pod"),
    ("pods", "v1", "Pod"),
    ("po", "v1", "Pod"),
    ("node", "v1", "Node"),
    ("nodes", "v1", "Node"),
    ("no", "v1", "Node"),
    ("namespace", "v1", "Namespace"),
    ("namespaces", "v1", "Namespace"),
    ("ns", "v1", "Namespace"),
    ("persistentvolumeclaim", "v1", "PersistentVolumeClaim"),
    ("persistentvolumeclaims", "v1", "PersistentVolumeClaim"),
    ("pvc", "v1", "PersistentVolumeClaim"),
    ("persistentvolume", "v1", "PersistentVolume"),
    ("persistentvolumes", "v1", "PersistentVolume"),
    ("pv", "v1", "PersistentVolume"),
    ("configmap", "v1", "ConfigMap"),
    ("cm", "v1", "ConfigMap"),
    ("deployment", "apps/v1", "Deployment"),
    ("deployments", "apps/v1", "Deployment"),
    ("deploy", "apps/v1", "Deployment"),
    ("statefulset", "apps/v1", "StatefulSet"),
    ("statefulsets", "apps/v1", "StatefulSet"),
    ("sts", "apps/v1", "StatefulSet"),
    ("daemonset", "apps/v1", "DaemonSet"),
    ("daemonsets", "apps/v1", "DaemonSet"),
    ("ds", "apps/v1", "DaemonSet"),
    ("storageclass", "storage.k8s.io/v1", "StorageClass"),
    ("storageclasses", "storage.k8s.io/v1", "StorageClass"),
    ("sc", "storage.k8s.io/v1", "StorageClass"),
    ("ingress", "networking.k8s.io/v1", "Ingress"),
];

/// The items of a kind of ours, read as such.
pub async fn typed<K: DeserializeOwned>(
    place: &Place,
    api_version: &str,
    kind: &str,
    which: &Which<'_>,
) -> Result<Vec<K>, Blind> {
    let client = place.cluster().await?;
    let known = Known::of(&client, api_version, kind).await?;
    let objects = known.list(&client, place, which, |_| Ok(true)).await?;
    let odd = |error: serde_json::Error| Blind::new("ApiRefused", format!("a {kind} can't be read: {error}"));
    objects.into_iter().map(|object| serde_json::from_value(object).map_err(odd)).collect()
}

/// A subject out of an object of the API.
pub fn subject(object: &Json, message: impl Into<String>) -> Subject {
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    Subject {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
        name: text(&object["metadata"]["name"]),
        message: Some(message.into()).filter(|message: &String| !message.is_empty()),
        fingerprint: None,
    }
}

/// A subject by its names.
pub fn named(api_version: &str, kind: &str, namespace: Option<&str>, name: &str, message: String) -> Subject {
    Subject {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        message: Some(message).filter(|message| !message.is_empty()),
        fingerprint: None,
    }
}
