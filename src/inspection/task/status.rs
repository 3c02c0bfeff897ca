//! What the controller says of a task. It stays below 8 KiB, whatever a run found: the rest is on the results volume.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::run::{Counts, Outcome, Trigger};
use super::Severity;

/// How a task stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectionTaskStatus {
    /// The generation of the task that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the schedule is in force. Healthy: what is inspected is well. ResultsPersisted: the last run is on its volume.
    /// OnSchedule: runs start when they are due. Notified: who is to be told has been. Reported: the last run's Report is in the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// When the next run starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Timestamp>,
    /// When the last scheduled run was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Timestamp>,
    /// When a run last passed or warned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Timestamp>,
    /// How many runs in a row failed.
    #[serde(default)]
    pub consecutive_failures: u32,
    /// How many runs in a row passed or warned.
    #[serde(default)]
    pub consecutive_successes: u32,
    /// How many runs that were due never started.
    #[serde(default)]
    pub missed_runs: u64,
    /// How many of them for which reason: Overlap, NotReady or NotStarted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub missed_by_reason: BTreeMap<String, u64>,
    /// How many of those in a row that were due last.
    #[serde(default)]
    pub consecutive_missed: u32,
    /// Up to when runs that were due have been accounted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_until: Option<Timestamp>,
    /// The claim that results are kept in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_name: Option<String>,
    /// The request to run now that was last answered: the value of the annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_request: Option<String>,
    /// The last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// The last runs that ended, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub recent_runs: Vec<RecentRun>,
    /// Rules of the last run that did not pass, worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub failing_rules: Vec<FailingRule>,
    /// The run of which the OpenReports Report tells that is in the cluster: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_report: Option<String>,
    /// What each receiver of notifications was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub notifications: Vec<Told>,
}

impl InspectionTaskStatus {
    /// Whether what is inspected is well; None while nobody knows.
    pub fn healthy(&self) -> Option<bool> {
        let healthy = self.conditions.iter().find(|condition| condition.type_ == "Healthy")?;
        match healthy.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        }
    }
}

/// What a receiver of notifications was told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Told {
    /// The receiver's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// That the task fails, and not yet that it recovered.
    pub failing: bool,
    /// That a run could not tell, and none could since.
    pub inconclusive: bool,
    /// Of so many missed runs.
    pub missed: u64,
    /// When it was last told that the task fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
}

/// The last run that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Its id.
    pub id: String,
    /// Its Job.
    pub job: String,
    /// What set it going.
    pub trigger: Trigger,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it ended.
    pub completion_time: Timestamp,
    /// Its verdict.
    pub outcome: Outcome,
    /// Why, where the pod itself could not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many rules came out how.
    pub summary: Counts,
    /// How many rules did not pass: warn, fail or error.
    pub findings: u32,
    /// Its directory on the results volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The SHA-256 of its run.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether it is on the results volume.
    pub persisted: bool,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentRun {
    /// Its id.
    pub id: String,
    /// Its Job.
    pub job: String,
    /// When it ended.
    pub completion_time: Timestamp,
    /// Its verdict.
    pub outcome: Outcome,
    /// How many rules did not pass.
    pub findings: u32,
    /// Whether it is on the results volume.
    pub persisted: bool,
}

/// A rule that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailingRule {
    /// Its name.
    pub name: String,
    /// How bad that is.
    pub severity: Severity,
    /// How it came out.
    pub result: Outcome,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
