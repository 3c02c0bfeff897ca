//! What is kept over many runs: the index, the newest, and a line for each day.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Counts, Detail, Outcome, Run, TaskName, Trigger};

/// What `schema` says in an `index.json`.
pub const INDEX_SCHEMA: &str = "kuration.io/inspection-index/v1";

/// What `schema` says in a `latest.json`.
pub const LATEST_SCHEMA: &str = "kuration.io/inspection-latest/v1";

/// What `schema` says in a `daily/DATE.json`.
pub const DAILY_SCHEMA: &str = "kuration.io/inspection-daily/v1";

/// `index.json`: every run that is kept. It can be rebuilt from them, so losing it loses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Index {
    /// [`INDEX_SCHEMA`].
    pub schema: String,
    /// The task.
    pub task: TaskName,
    /// The runs, newest first by the time they were due or began.
    pub runs: Vec<IndexEntry>,
}

/// A run, as the index knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    /// Its id.
    pub id: String,
    /// Its directory beneath the task's.
    pub path: String,
    /// What set it going.
    pub trigger: Trigger,
    /// When it was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Timestamp>,
    /// When it began.
    pub start_time: Timestamp,
    /// How long it took.
    pub duration_millis: u64,
    /// Its verdict.
    pub outcome: Outcome,
    /// How many rules came out how.
    pub summary: Counts,
    /// How much of it there is.
    pub detail: Detail,
    /// How much room its directory takes.
    pub bytes: u64,
    /// How much of that its report.html takes; 0 where it has none.
    #[serde(default, skip_serializing_if = "none")]
    pub report_bytes: u64,
    /// The SHA-256 of its run.json.
    pub sha256: String,
}

fn none(bytes: &u64) -> bool {
    *bytes == 0
}

impl IndexEntry {
    /// That of `run`, whose directory takes `bytes` and whose run.json has the digest `sha256`.
    pub fn of(run: &Run, bytes: u64, sha256: String) -> Self {
        let millis = run.completion_time.as_millisecond() - run.start_time.as_millisecond();
        IndexEntry {
            id: run.id.clone(),
            path: run.path(),
            trigger: run.trigger,
            scheduled_time: run.scheduled_time,
            start_time: run.start_time,
            duration_millis: millis.max(0).unsigned_abs(),
            outcome: run.outcome,
            summary: run.summary,
            detail: run.detail,
            bytes,
            report_bytes: 0,
            sha256,
        }
    }
}

/// `latest.json`: the newest run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latest {
    /// [`LATEST_SCHEMA`].
    pub schema: String,
    /// Its id.
    pub id: String,
    /// Its directory beneath the task's.
    pub path: String,
    /// Its verdict.
    pub outcome: Outcome,
    /// When it ended.
    pub completion_time: Timestamp,
    /// The SHA-256 of its run.json.
    pub sha256: String,
}

/// `daily/DATE.json`: what is kept of a day after its runs are gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Daily {
    /// [`DAILY_SCHEMA`].
    pub schema: String,
    /// The day, in UTC.
    #[schemars(with = "String")]
    pub date: Date,
    /// How many runs there were.
    pub runs: u32,
    /// How they came out.
    pub outcomes: Counts,
    /// Each rule by its name.
    pub rules: BTreeMap<String, RuleDay>,
}

/// A rule's day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleDay {
    /// How it came out.
    pub counts: Counts,
    /// Half of its durations were at most this, in milliseconds.
    pub p50: u64,
    /// 95 % of its durations were at most this, in milliseconds.
    pub p95: u64,
}
