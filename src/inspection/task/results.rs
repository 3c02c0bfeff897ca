//! Where results are kept and for how long, and who is told.

use std::collections::BTreeMap;

use k8s_openapi::api::storage::v1::StorageClass;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::probe::SecretKey;

/// A size as Kubernetes writes it: a number of bytes, or one with a suffix such as Ki, Mi, Gi, k, M, G.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Bytes, with a suffix.
    Text(String),
}

impl Size {
    /// How many bytes it is; None when it is no size or more than 2^63-1.
    pub fn bytes(&self) -> Option<u64> {
        let text = match self {
            Size::Bytes(bytes) => return Some(*bytes),
            Size::Text(text) => text,
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let factor = match suffix {
            "" => 1,
            "k" => 1000,
            "M" => 1000_u64.pow(2),
            "G" => 1000_u64.pow(3),
            "T" => 1000_u64.pow(4),
            "P" => 1000_u64.pow(5),
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            "Pi" => 1 << 50,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok())
    }

    /// As Kubernetes takes it.
    pub fn quantity(&self) -> String {
        match self {
            Size::Bytes(bytes) => bytes.to_string(),
            Size::Text(text) => text.clone(),
        }
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "minimum": 0,
            "maxLength": 20,
            "pattern": "^[0-9]{1,15}(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
        })
    }
}

/// Where results are kept and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!(has(self.claimName) && has(self.volumeClaimTemplate))")
    .message("claimName and volumeClaimTemplate are mutually exclusive"))]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// A claim of this namespace, which tasks may share: each has a directory of its own in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// A claim that is made for this task alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("volumeClaimTemplate is immutable; create a new task"))]
    pub volume_claim_template: Option<ClaimTemplate>,
    /// What happens when the volume can't be had.
    #[serde(default)]
    pub on_unavailable: OnUnavailable,
    /// What happens to a claim that was made for this task alone when the task is deleted.
    #[serde(default)]
    pub claim_retention: ClaimRetention,
    /// How long writing may take before it is given up, in seconds.
    #[serde(default = "thirty")]
    #[schemars(range(min = 1, max = 600))]
    pub persist_timeout_seconds: u32,
    /// How much is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Whether each run has a report.html.
    #[serde(default = "yes")]
    pub html: bool,
    /// Whether an OpenReports Report of the last run is kept in the cluster, under the task's name, where the cluster has that kind.
    #[serde(default)]
    pub open_reports: bool,
}

impl Default for Results {
    /// What the API server fills in where a task says `results: {}`.
    fn default() -> Self {
        Results {
            claim_name: None,
            volume_claim_template: None,
            on_unavailable: OnUnavailable::default(),
            claim_retention: ClaimRetention::default(),
            persist_timeout_seconds: thirty(),
            history: None,
            html: yes(),
            open_reports: false,
        }
    }
}

fn thirty() -> u32 {
    30
}

fn yes() -> bool {
    true
}

/// A claim to make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimTemplate {
    /// Its class. Without it: the one that the controller was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Its access modes.
    #[serde(default = "many")]
    #[schemars(length(min = 1, max = 4))]
    pub access_modes: Vec<AccessMode>,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ClaimResources>,
}

fn many() -> Vec<AccessMode> {
    vec![AccessMode::ReadWriteMany]
}

/// How a volume may be mounted, as far as it can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum AccessMode {
    ReadWriteOnce,
    ReadWriteOncePod,
    ReadWriteMany,
}

/// Classes whose volumes many nodes can write to at once, by a word in their provisioner's name.
const SHARED: [&str; 8] =
    ["nfs", "cephfs", "efs", "azurefile", "file.csi", "filestore", "glusterfs", "longhorn"];

impl AccessMode {
    /// The widest that a claim of `class` can be bound with, as far as its provisioner's name says.
    pub fn of(class: &StorageClass) -> Self {
        let provisioner = class.provisioner.as_str();
        let shared =
            provisioner == "pool.csi.kuration.io" || SHARED.iter().any(|word| provisioner.contains(word));
        if shared { AccessMode::ReadWriteMany } else { AccessMode::ReadWriteOnce }
    }
}

/// What a claim asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimResources {
    /// What it asks for.
    #[serde(default)]
    pub requests: ClaimRequests,
}

/// What a claim asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimRequests {
    /// Its size. Without it: 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Size>,
}

/// What happens when the results volume can't be had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnUnavailable {
    /// The inspection runs without it, and what it found is written when the volume is back.
    #[default]
    Degrade,
    /// The run is an error.
    Fail,
}

/// What happens to the claim when its task is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimRetention {
    /// It stays.
    #[default]
    Retain,
    /// It is deleted too.
    Delete,
}

/// How much is kept. The newest pass and the last failed runs outlive the first two limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// How many runs.
    #[serde(default = "runs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_runs: u32,
    /// How old they may be, in seconds.
    #[serde(default = "thirty_days")]
    #[schemars(range(min = 60, max = 315_360_000))]
    pub max_age_seconds: i64,
    /// How much room they may take.
    #[serde(default = "quarter_gib")]
    pub max_bytes: Size,
    /// How many of those that did not pass are kept anyhow.
    #[serde(default = "fifty")]
    #[schemars(range(max = 10_000))]
    pub keep_failed_runs: u32,
}

impl Default for History {
    fn default() -> Self {
        History {
            max_runs: runs(),
            max_age_seconds: thirty_days(),
            max_bytes: quarter_gib(),
            keep_failed_runs: fifty(),
        }
    }
}

fn runs() -> u32 {
    500
}

fn thirty_days() -> i64 {
    30 * 86400
}

fn quarter_gib() -> Size {
    Size::Text("256Mi".to_owned())
}

fn fifty() -> u32 {
    50
}

/// Who is told what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Where the address is, which often is a secret in itself.
    pub url_secret_ref: SecretKey,
    /// In which form.
    pub format: Format,
    /// Of what. Without it: Failed and Recovered. (Not `on`, which YAML 1.1 reads as true.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub when: Vec<Moment>,
    /// After how many seconds it is told again that it still fails; 0 is never.
    #[serde(default)]
    #[schemars(range(max = 604_800))]
    pub reminder_seconds: u32,
    /// When nobody is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub silences: Vec<Window>,
    /// Labels to send along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The form of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// Alertmanager's API v2.
    Alertmanager,
    /// CloudEvents 1.0 over HTTP.
    CloudEvents,
    /// Plain JSON.
    Webhook,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Moment {
    /// Healthy turned False.
    Failed,
    /// Healthy turned True again.
    Recovered,
    /// A run could not tell.
    Inconclusive,
    /// A run that was due did not start.
    Missed,
}

/// A time that comes again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When it begins, as a schedule in the task's time zone.
    #[schemars(length(min = 1, max = 100))]
    pub schedule: String,
    /// How long it lasts, in seconds.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_say_nothing_are_those_of_no_results() {
        assert_eq!(serde_json::from_str::<Results>("{}").unwrap(), Results::default());
    }

    #[test]
    fn sizes_are_read_as_kubernetes_means_them() {
        let bytes = |text: &str| Size::Text(text.to_owned()).bytes();
        assert_eq!(bytes("256Mi"), Some(256 << 20));
        assert_eq!(bytes("5G"), Some(5_000_000_000));
        assert_eq!(Size::Bytes(7).bytes(), Some(7));
        for bad in ["", "Mi", "1.5Gi", "-1", "99999999999Pi", "1 Gi"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
