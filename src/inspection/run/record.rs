//! A run as it is kept: `run.json`.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::task::Severity;
use super::{Counts, Outcome};

/// What `schema` says in a `run.json`.
pub const RUN_SCHEMA: &str = "kuration.io/inspection-run/v1";

/// So many values of what a rule saw are kept.
pub const MOST_OBSERVED: usize = 32;

/// So many subjects of a rule are kept.
pub const MOST_SUBJECTS: usize = 50;

/// The reason of a rule that another pod of a run on every node evaluates. It stands in no run that is whole.
pub const OTHER_SHARD: &str = "OtherShard";

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// [`RUN_SCHEMA`]: a reader refuses what it doesn't know instead of guessing.
    pub schema: String,
    /// Its id, which also is the name of its directory.
    pub id: String,
    /// Its task.
    pub task: TaskName,
    /// What set it going.
    pub trigger: Trigger,
    /// When it was due; none when it was asked for by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Timestamp>,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    pub completion_time: Timestamp,
    /// Who did it.
    pub inspector: Inspector,
    /// What was looked at, as the task says it.
    pub target: String,
    /// The verdict: the worst of the rules', and error where nothing was looked at.
    pub outcome: Outcome,
    /// How many rules came out how.
    pub summary: Counts,
    /// Whether all is here that was found.
    pub detail: Detail,
    /// Every rule of the task, in its order; with shards, every rule of every shard. There are never fewer.
    pub rules: Vec<RuleResult>,
    /// The nodes, for a run on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<Shards>,
}

/// Which task a run is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a task deleted and made again is another one.
    pub uid: String,
    /// The generation whose rules were evaluated.
    pub generation: i64,
}

impl TaskName {
    /// Its directory beneath the results volume: `NAMESPACE/NAME-UID8`.
    pub fn directory(&self) -> String {
        let uid: String = self.uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        format!("{}/{}-{uid}", self.namespace, self.name)
    }
}

/// What set a run going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// The schedule.
    Schedule,
    /// A person.
    Manual,
    /// The schedule; what it found was written down later, when the volume was back.
    Backfill,
}

/// Who carried a run out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inspector {
    /// The program's version.
    pub version: String,
    /// The node.
    pub node: String,
    /// The pod.
    pub pod: String,
}

/// How much of a run is here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Detail {
    /// All of it.
    #[default]
    Full,
    /// What its pod's last message said: its files could not be written.
    SummaryOnly,
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleResult {
    /// The rule's name.
    pub name: String,
    /// Its kind, as it is written in a task: `http`.
    pub kind: String,
    /// How bad it is when it does not pass.
    pub severity: Severity,
    /// A word to sort it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How it came out.
    pub result: Outcome,
    /// Why, in one CamelCase word: AssertionFailed, Timeout, Forbidden, Unresolvable.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// When it was begun.
    pub start_time: Timestamp,
    /// How long it took, all attempts and the waits between them together.
    pub duration_millis: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether it passed only when it was tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flaky: bool,
    /// What it saw, as single values: at most [`MOST_OBSERVED`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub observed: BTreeMap<String, Scalar>,
    /// The objects that it speaks of: at most [`MOST_SUBJECTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
    /// Whether more was seen than is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The node that it was evaluated on, in a run on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// By what a finding is the same one in the next run; none where the rule passed or was skipped, or each of its subjects
    /// has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Scalar {
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// An object that a finding is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, where its kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// By what this finding is the same one in the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

/// The nodes of a run on every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shards {
    /// How many there should be.
    pub expected: u32,
    /// How many there are.
    pub present: u32,
    /// The nodes of which nothing was heard.
    pub missing: Vec<String>,
}

/// By what a finding is the same one in the next run: the rule, whether it was found or could not be looked at, and its
/// subject. What changes from run to run, a number or a message, is not in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl Fingerprint {
    /// That of a finding of `rule`; `None` when `result` is no finding.
    pub fn of(rule: &str, result: Outcome, node: Option<&str>, subject: Option<&Subject>) -> Option<Self> {
        let class = match result {
            Outcome::Warn | Outcome::Fail => "found",
            Outcome::Error => "error",
            Outcome::Pass | Outcome::Skip => return None,
        };
        // An object is the same one after its API got a new version.
        let group = |subject: &Subject| match subject.api_version.split_once('/') {
            Some((group, _)) => group.to_owned(),
            None => String::new(),
        };
        let parts = [
            rule.to_owned(),
            class.to_owned(),
            node.unwrap_or_default().to_owned(),
            subject.map(group).unwrap_or_default(),
            subject.map(|subject| subject.kind.clone()).unwrap_or_default(),
            subject.and_then(|subject| subject.namespace.clone()).unwrap_or_default(),
            subject.map(|subject| subject.name.clone()).unwrap_or_default(),
        ];
        let digest = Sha256::digest(parts.join("\n"));
        Some(Fingerprint(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a run: `20260901T120500Z-29804405`, its time in UTC and what tells it from others.
///
/// A scheduled run has the time at which it was due, and the suffix that the CronJob gave its Job: the same moment in minutes
/// since 1970. So the id needs no look at the API, and a Job that is made twice for one moment gives one id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunId {
    /// What set the run going.
    pub trigger: Trigger,
    /// When it was due.
    pub scheduled_time: Option<Timestamp>,
    /// The id.
    pub id: String,
}

impl RunId {
    /// From the name of the run's Job, the task's name, and when the run began.
    ///
    /// A Job `TASK-NUMBER` is a scheduled one; with `-dN` behind it, the same one without its volume. Every other name was
    /// given by hand.
    pub fn of(job: &str, task: &str, start: Timestamp) -> Self {
        let suffix = job.strip_prefix(task).and_then(|rest| rest.strip_prefix('-'));
        let scheduled = suffix.and_then(|suffix| {
            let number = suffix.strip_suffix("-d").unwrap_or(suffix);
            let digits = (8..=10).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
            let minutes = number.parse::<i64>().ok().filter(|_| digits)?;
            Some((number, Timestamp::from_second(minutes.checked_mul(60)?).ok()?))
        });
        match scheduled {
            Some((number, due)) => {
                let id = format!("{}-{number}", compact(due));
                RunId { trigger: Trigger::Schedule, scheduled_time: Some(due), id }
            }
            None => {
                let digest = Sha256::digest(job);
                let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
                let id = format!("{}-m{short}", compact(start));
                RunId { trigger: Trigger::Manual, scheduled_time: None, id }
            }
        }
    }
}

/// `20260901T120500Z`.
fn compact(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

impl Run {
    /// Its directory beneath the task's: `runs/2026/09/01/ID`, by the day that its id begins with.
    pub fn path(&self) -> String {
        let part = |from, to| self.id.get(from..to).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        match (part(0, 4), part(4, 6), part(6, 8)) {
            (Some(year), Some(month), Some(day)) => format!("runs/{year}/{month}/{day}/{}", self.id),
            _ => {
                let at = self.scheduled_time.unwrap_or(self.start_time);
                format!("runs/{}/{}", at.strftime("%Y/%m/%d"), self.id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_scheduled_run_has_the_id_of_the_moment_it_was_due() {
        let late = at("2026-09-01T12:05:44Z");
        let run = RunId::of("check-database-29804405", "check-database", late);
        assert_eq!(run.scheduled_time, Some(at("2026-09-01T12:05:00Z")));
        assert_eq!((run.trigger, run.id.as_str()), (Trigger::Schedule, "20260901T120500Z-29804405"));
        let again = RunId::of("check-database-29804405-d", "check-database", at("2026-09-01T12:06:40Z"));
        assert_eq!(again.id, run.id);
    }

    #[test]
    fn a_run_by_hand_has_the_time_it_began() {
        let start = at("2026-09-01T12:05:44Z");
        let one = RunId::of("check-database-now", "check-database", start);
        let other = RunId::of("my-own-29804405", "check-database", start);
        assert_eq!((one.trigger, one.scheduled_time), (Trigger::Manual, None));
        assert!(one.id.starts_with("20260901T120544Z-m") && one.id != other.id, "{} {}", one.id, other.id);
    }

    #[test]
    fn a_finding_keeps_its_fingerprint_while_its_words_change() {
        let subject = |message: &str, version: &str| Subject {
            api_version: version.into(),
            kind: "Deployment".into(),
            namespace: Some("shop".into()),
            name: "web".into(),
            message: Some(message.into()),
            fingerprint: None,
        };
        let of = |outcome, subject: &Subject| Fingerprint::of("rollouts", outcome, None, Some(subject));
        let first = of(Outcome::Fail, &subject("2 of 3 ready", "apps/v1"));
        assert_eq!(first, of(Outcome::Warn, &subject("1 of 3 ready", "apps/v2")));
        assert_ne!(first, of(Outcome::Error, &subject("2 of 3 ready", "apps/v1")));
        assert_ne!(first, Fingerprint::of("other", Outcome::Fail, None, None));
        assert_eq!(of(Outcome::Pass, &subject("", "apps/v1")), None);
    }
}
