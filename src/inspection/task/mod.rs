//! The words of a task: what a user writes, and what the controller answers in its status.
//!
//! Everything that the API server can refuse is refused there, by the schema and by the CEL rules beside the fields. Every
//! list and string has an upper bound, as the API server refuses a CEL rule whose cost it can't bound. Durations are whole
//! seconds, sizes are quantities, and `null` is never a value: what is left out is absent.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod cluster;
pub mod crd;
pub mod probe;
mod results;
mod rule;
mod status;
mod target;
#[cfg(test)]
mod tests;

pub use results::{
    AccessMode, ClaimRequests, ClaimResources, ClaimRetention, ClaimTemplate, Format, History, Moment,
    Notification, OnUnavailable, Results, Size, Window,
};
pub use rule::{Assertion, Kind, Rule, Scope, Severity};
pub use status::{FailingRule, InspectionTaskStatus, LastRun, RecentRun, Told};
pub use target::{Target, TargetError};

/// The API group and version of a task.
pub const API_VERSION: &str = "kuration.io/v1";

/// The longest name a task may have: it names the CronJob, and Kubernetes leaves 11 characters of 63 to its Jobs.
pub const LONGEST_NAME: usize = 52;

/// The account that runs have when their task names none.
pub const DEFAULT_ACCOUNT: &str = "kuration-inspector";

/// What to look at, when, and where the results are kept.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kuration.io",
    version = "v1",
    kind = "InspectionTask",
    namespaced,
    status = "InspectionTaskStatus",
    derive = "PartialEq",
    shortname = "insp",
    category = "kuration",
    doc = "InspectionTask looks at something on a schedule and keeps what it found.",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.target"),
    printcolumn(name = "Last-Run", type_ = "date", json_path = ".status.lastRun.completionTime"),
    printcolumn(
        name = "Verdict",
        type_ = "string",
        json_path = ".status.lastRun.outcome",
        description = "pass, warn, fail, or error when the inspection could not tell"
    ),
    printcolumn(
        name = "Findings",
        type_ = "integer",
        json_path = ".status.lastRun.findings",
        description = "Rules of the last run that did not pass"
    ),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].status"#,
        priority = 1
    ),
    printcolumn(
        name = "Persisted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ResultsPersisted")].reason"#,
        priority = 1
    ),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Missed", type_ = "integer", json_path = ".status.missedRuns", priority = 1),
    printcolumn(name = "Claim", type_ = "string", json_path = ".status.claimName", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 52")
        .message("metadata.name must have at most 52 characters: it names the CronJob")
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(
    validation = Rule::new("!has(self.fanOut) || self.fanOut.mode != 'Nodes' || !has(self.results) || !has(self.results.volumeClaimTemplate) || self.results.volumeClaimTemplate.accessModes.exists(m, m == 'ReadWriteMany')")
        .message("fanOut.mode Nodes needs a results volume with ReadWriteMany: every node's pod writes to it"),
    validation = Rule::new("!has(self.rules) || self.rules.all(r, !has(r.dependsOn) || r.dependsOn.all(d, self.rules.exists(o, o.name == d)))")
        .message("dependsOn must name rules of this task")
)]
#[serde(rename_all = "camelCase")]
pub struct InspectionTaskSpec {
    /// When to run: five fields (minute, hour, day of month, month, day of week), or @yearly, @monthly, @weekly, @daily or
    /// @hourly. It means exactly what it means to a CronJob.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(
        validation = Rule::new("!self.contains('TZ=')")
            .message("put the time zone in spec.timeZone, not in the schedule"),
        validation = Rule::new("self.startsWith('@') ? self in ['@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', '@hourly'] : self.split(' ').filter(f, f != '').size() == 5")
            .message("schedule must have exactly five fields or be one of @yearly @annually @monthly @weekly @daily @midnight @hourly"),
        validation = Rule::new("self.startsWith('@') || self.matches('^ *[0-9,*?/-]+ +[0-9,*?/-]+ +[0-9,*?/-]+ +[0-9A-Za-z,*?/-]+ +[0-9A-Za-z,*?/-]+ *$')")
            .message("schedule fields hold numbers, * ? , - and /; names only for months (jan) and days of the week (mon)"),
        validation = Rule::new("!self.matches('^ *[^ ]+ +[^ ]+ +(0*3[01],?)+ +(0*2|[fF][eE][bB]) +[*?]') && !self.matches('^ *[^ ]+ +[^ ]+ +(0*31,?)+ +((0*(2|4|6|9|11)|[fF][eE][bB]|[aA][pP][rR]|[jJ][uU][nN]|[sS][eE][pP]|[nN][oO][vV]),?)+ +[*?]')")
            .message("no year has the date that schedule asks for")
    )]
    pub schedule: String,
    /// The IANA time zone in which the schedule is meant, such as Asia/Shanghai.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"))]
    #[x_kube(validation = Rule::new("self.lowerAscii() != 'local'")
        .message("timeZone must name a zone: Local is a different one on each machine"))]
    pub time_zone: String,
    /// Whether to start no further runs. A run that is under way goes on, and one asked for by hand still starts.
    #[serde(default)]
    pub suspend: bool,
    /// How late a run may still start, in seconds. Without it: half of the time between two runs, at most 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub starting_deadline_seconds: Option<i64>,
    /// Each run starts so many seconds late at most, a different share of it for each task: many tasks of one schedule do
    /// not start at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub jitter_seconds: i64,
    /// What happens to a run that is due while the one before is still under way.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// How long one run may take in all, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 10, max = 86400))]
    pub active_deadline_seconds: i64,
    /// What is looked at: a Service of this namespace by its name, or kind/name, or kind/* for all of them.
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$') || self.matches('^[a-z][a-z0-9.-]*/([*]|[a-z0-9A-Z]([a-zA-Z0-9._:-]*[a-zA-Z0-9])?)$')")
            .message("target must be a Service's name, kind/name or kind/*")
    )]
    pub target: String,
    /// What is checked. Without rules the target decides: a Service must exist, have ready endpoints and answer on each of
    /// its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rules: Option<Vec<rule::Rule>>,
    /// The ServiceAccount whose rights a run has. Without it: kuration-inspector, made in each namespace that has a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Whether a run looks from one pod or from every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<FanOut>,
    /// How many runs in a row it takes to change the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
    /// Where results are kept and for how long. Without it: in a claim of the class that the controller was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
    /// Who is told what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub notifications: Option<Vec<Notification>>,
    /// What the pods of a run are given beyond what they need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn five_minutes() -> i64 {
    300
}

/// What happens to a run that is due while the one before is under way. Two at once are not possible: they would write to
/// one directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// The new one is left out, and counted as missed.
    #[default]
    Forbid,
    /// The old one is ended.
    Replace,
}

/// From where a run looks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FanOut {
    /// From one pod, or from a pod on each node.
    #[serde(default)]
    pub mode: FanOutMode,
    /// The nodes that are meant, by their labels. Without it: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Whether nodes with taints are meant too.
    #[serde(default)]
    pub tolerate_all_taints: bool,
}

/// From where a run looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FanOutMode {
    /// From one pod, on any node.
    #[default]
    None,
    /// From one pod on each node.
    Nodes,
}

/// How many runs in a row it takes to change the condition Healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Thresholds {
    /// Failed runs in a row until it is False.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,
    /// Passed runs in a row until it is True again.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
}

fn once() -> u32 {
    1
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { failure_threshold: once(), success_threshold: once() }
    }
}

/// What the pods of a run are given beyond what they need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels that are added to theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The nodes they may run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// The taints they tolerate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// What they may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Their priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets for the registries that images come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
}

impl InspectionTaskSpec {
    /// The account that a run has.
    pub fn account(&self) -> &str {
        self.service_account_name.as_deref().unwrap_or(DEFAULT_ACCOUNT)
    }

    /// The thresholds that count.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds.unwrap_or_default()
    }

    /// Whether a run looks from every node.
    pub fn every_node(&self) -> bool {
        self.fan_out.as_ref().is_some_and(|fan_out| fan_out.mode == FanOutMode::Nodes)
    }
}
