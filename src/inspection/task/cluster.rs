//! Kinds of rules that look at the cluster: its objects, its nodes, its volumes; and the one that runs a command.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Size;

/// Whose objects are looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Namespaces {
    /// The task's own, or all.
    Word(NamespacesWord),
    /// Those named.
    Named(Vec<String>),
    /// What can't be read. The API server can't refuse it, as a schema knows no field that is a word or a list; so it is
    /// kept, and the rule that holds it is an error.
    Unreadable(Value),
    /// What is left out.
    #[default]
    #[serde(skip)]
    Absent,
}

/// Whose objects are looked at, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespacesWord {
    /// The task's own namespace.
    Own,
    /// All namespaces.
    All,
}

impl Namespaces {
    /// Whether nothing is said: the task's own namespace is meant.
    pub fn absent(&self) -> bool {
        matches!(self, Namespaces::Absent)
    }
}

impl JsonSchema for Namespaces {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Namespaces".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// What a task without rules does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetCheck {}

/// Objects of the API, of one kind. Secrets are seen without their data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Group and version, such as apps/v1.
    #[schemars(length(min = 1, max = 253))]
    pub api_version: String,
    /// The kind, such as Deployment.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// One object's name. Without it: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Own, All, or a list of names. Without it: Own.
    #[serde(default, skip_serializing_if = "Namespaces::absent")]
    pub namespaces: Namespaces,
    /// Which objects, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Which objects, by their fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub field_selector: Option<String>,
    /// Which objects, by a CEL expression over `object`.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub filter: Option<String>,
}

/// Workloads: all of their pods must be ready and of the newest revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The kinds. Without it: all three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub kinds: Vec<WorkloadKind>,
    /// One workload's name. Without it: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Which, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Own, All, or a list of names. Without it: Own.
    #[serde(default, skip_serializing_if = "Namespaces::absent")]
    pub namespaces: Namespaces,
    /// How long one may be on its way, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(max = 86400))]
    pub not_ready_grace_seconds: u32,
}

/// Kinds of workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

/// Pods: none may have failed, be pending for long, or wait in a back-off.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// Which, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Own, All, or a list of names. Without it: Own.
    #[serde(default, skip_serializing_if = "Namespaces::absent")]
    pub namespaces: Namespaces,
    /// How long one may be pending, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(max = 86400))]
    pub pending_grace_seconds: u32,
}

/// Events: there must be none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Events {
    /// Their reasons. Without it: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    pub reasons: Vec<String>,
    /// Their types. Without it: Warning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub types: Vec<EventType>,
    /// How far back, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 1, max = 86400))]
    pub since_seconds: u32,
    /// Own, All, or a list of names. Without it: Own.
    #[serde(default, skip_serializing_if = "Namespaces::absent")]
    pub namespaces: Namespaces,
}

/// Types of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum EventType {
    Normal,
    Warning,
}

/// A node: it must be ready and under no pressure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name. Without it: the target, or the node that the pod is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
}

/// Certificates in Secrets of the type kubernetes.io/tls: each must be valid for 14 days more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSecrets {
    /// Which, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Own, All, or a list of names. Without it: Own.
    #[serde(default, skip_serializing_if = "Namespaces::absent")]
    pub namespaces: Namespaces,
}

/// Claims: each must be bound, and none may have lost its volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistentVolumeClaims {
    /// Own, All, or a list of names. Without it: Own.
    #[serde(default, skip_serializing_if = "Namespaces::absent")]
    pub namespaces: Namespaces,
    /// Of which classes. Without it: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 253)))]
    pub storage_class_names: Vec<String>,
    /// How long one may be pending, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(max = 86400))]
    pub pending_grace_seconds: u32,
}

/// How full volumes are: less than 85 % of space and of inodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.source != 'Prometheus' || has(self.endpoint)")
    .message("source Prometheus needs endpoint"))]
#[serde(rename_all = "camelCase")]
pub struct VolumeUsage {
    /// Who knows it.
    #[serde(default)]
    pub source: UsageSource,
    /// Prometheus' address, for that source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), pattern("^https?://"))]
    pub endpoint: Option<String>,
    /// Own, All, or a list of names. Without it: Own.
    #[serde(default, skip_serializing_if = "Namespaces::absent")]
    pub namespaces: Namespaces,
    /// Of which classes. Without it: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 253)))]
    pub storage_class_names: Vec<String>,
}

/// Who knows how full a volume is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UsageSource {
    /// The driver, by its metrics.
    #[default]
    Driver,
    /// The pod, which has the results volume mounted.
    Mount,
    /// Prometheus, by the kubelets' metrics.
    Prometheus,
}

/// A volume that is written to and read back, or made and deleted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("self.mode == 'Provision' ? has(self.storageClassName) && !has(self.claimName) : !has(self.storageClassName)")
    .message("mode Provision needs storageClassName and no claimName; mode Write takes no storageClassName"))]
#[serde(rename_all = "camelCase")]
pub struct VolumeProbe {
    /// What is done.
    #[serde(default)]
    pub mode: ProbeMode,
    /// The claim to write to. Without it: the task's results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// The class to make a volume of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// How much is written, or how large a volume is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}

/// What a volume probe does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProbeMode {
    /// Writes, syncs, renames, reads back and removes a file.
    #[default]
    Write,
    /// Makes a claim, waits until it is bound, deletes it, and waits until its volume is gone.
    Provision,
}

/// A CSI driver: it must be on every node that pods can run on, its controller ready, and no attachment stuck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CsiDriver {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// A command: exit 0 passes, 1 warns, 2 fails, anything else is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    /// The image that it is in.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// The command and its arguments.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Secrets whose keys become environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub env_from: Vec<SecretName>,
}

/// A Secret in the task's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn five_minutes() -> u32 {
    300
}
