//! What a pod says last: its termination message, of which the kubelet keeps 4096 bytes.
//!
//! It is the one way by which a run's outcome reaches the controller, and all that is left of a run whose volume could not be
//! had. So it is made to fit: first messages are shortened, then rules that passed are left out, then others.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::task::Severity;
use super::{
    Counts, Detail, Fingerprint, Inspector, Outcome, RUN_SCHEMA, RuleResult, Run, TaskName, Trigger,
};

/// The kubelet keeps so many bytes.
pub const LIMIT: usize = 4096;

/// What a pod says last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    /// The run's id.
    pub id: String,
    /// The generation of the task whose rules were evaluated.
    pub generation: i64,
    /// What set the run going.
    pub trigger: Trigger,
    /// When it was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Timestamp>,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    pub completion_time: Timestamp,
    /// Its verdict.
    pub outcome: Outcome,
    /// How many rules came out how.
    pub summary: Counts,
    /// Its directory on the results volume, from the claim's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The SHA-256 of its run.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether it was written.
    pub persisted: Persisted,
    /// How many nodes' parts were in the run when this was said, in a run on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,
    /// How much room the task's directory takes on the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_bytes: Option<u64>,
    /// Ids of runs that were written down this time, having found no volume in theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backfilled: Vec<String>,
    /// The rules, those that did not pass first.
    pub rules: Vec<TerminationRule>,
    /// Whether some rules or words are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Whether a run was written to its volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Persisted {
    /// Whether it was.
    pub ok: bool,
    /// Why not, in a CamelCase word: NoVolume, ENOSPC, EIO, Timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why not, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What became of one rule, briefly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminationRule {
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// How it came out.
    #[serde(rename = "r")]
    pub result: Outcome,
    /// How bad that is.
    #[serde(rename = "s")]
    pub severity: Severity,
    /// How long it took.
    #[serde(rename = "ms")]
    pub millis: u64,
    /// Why, in one word, where it did not pass.
    #[serde(rename = "why", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence, where it did not pass.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Termination {
    /// That of `run`; what became of its files is for the caller to fill in.
    pub fn of(run: &Run, persisted: Persisted) -> Self {
        let mut rules: Vec<TerminationRule> = run
            .rules
            .iter()
            .map(|rule| {
                let told = !matches!(rule.result, Outcome::Pass);
                TerminationRule {
                    name: rule.name.clone(),
                    result: rule.result,
                    severity: rule.severity,
                    millis: rule.duration_millis,
                    reason: told.then(|| rule.reason.clone()),
                    message: told.then(|| rule.message.clone()),
                }
            })
            .collect();
        let order = [Outcome::Fail, Outcome::Error, Outcome::Warn, Outcome::Skip, Outcome::Pass];
        let place = |outcome| order.iter().position(|other| *other == outcome);
        rules.sort_by_key(|rule| (place(rule.result), std::cmp::Reverse(rule.severity)));
        Termination {
            id: run.id.clone(),
            generation: run.task.generation,
            trigger: run.trigger,
            scheduled_time: run.scheduled_time,
            start_time: run.start_time,
            completion_time: run.completion_time,
            outcome: run.outcome,
            summary: run.summary,
            path: None,
            sha256: None,
            shards: None,
            persisted,
            results_bytes: None,
            backfilled: Vec::new(),
            rules,
            truncated: false,
        }
    }

    /// The run that it speaks of, of `task`, with what it still knows: what is written down of a run that found no volume.
    pub fn recalled(self, task: &TaskName, target: &str) -> Run {
        let rules = self.rules.into_iter().map(|rule| RuleResult {
            fingerprint: Fingerprint::of(&rule.name, rule.result, None, None),
            name: rule.name,
            kind: String::new(),
            severity: rule.severity,
            category: None,
            result: rule.result,
            reason: rule.reason.unwrap_or_default(),
            message: rule.message.unwrap_or_default(),
            remedy: None,
            start_time: self.start_time,
            duration_millis: rule.millis,
            attempts: 1,
            flaky: false,
            observed: BTreeMap::new(),
            subjects: Vec::new(),
            truncated: self.truncated,
            node: None,
        });
        Run {
            schema: RUN_SCHEMA.to_owned(),
            id: self.id,
            task: TaskName { generation: self.generation, ..task.clone() },
            trigger: Trigger::Backfill,
            scheduled_time: self.scheduled_time,
            start_time: self.start_time,
            completion_time: self.completion_time,
            inspector: Inspector::default(),
            target: target.to_owned(),
            outcome: self.outcome,
            summary: self.summary,
            detail: Detail::SummaryOnly,
            rules: rules.collect(),
            shards: None,
        }
    }

    /// As JSON of at most [`LIMIT`] bytes.
    pub fn fitted(mut self) -> String {
        for most in [usize::MAX, 200, 80, 0] {
            self.shorten(most);
            let text = self.text();
            if text.len() <= LIMIT {
                return text;
            }
        }
        // Names alone are too much: the worst of them are said.
        self.backfilled.truncate(10);
        while !self.rules.is_empty() {
            self.rules.truncate(self.rules.len() * 9 / 10);
            let text = self.text();
            if text.len() <= LIMIT {
                return text;
            }
        }
        self.text()
    }

    fn shorten(&mut self, most: usize) {
        let words = self.rules.iter_mut().map(|rule| &mut rule.message);
        for message in words.chain([&mut self.persisted.message]) {
            let Some(text) = message.as_mut().filter(|text| text.len() > most) else { continue };
            self.truncated = true;
            let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            text.truncate(end);
            if text.is_empty() {
                *message = None;
            } else {
                text.push('…');
            }
        }
    }

    fn text(&mut self) -> String {
        let told = u64::from(self.summary.total());
        self.truncated |= (self.rules.len() as u64) < told;
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rules: usize, message: &str) -> Run {
        let start: Timestamp = "2026-09-01T12:05:01Z".parse().unwrap();
        let outcome = |i: usize| Outcome::ALL[i % 5];
        let rules: Vec<RuleResult> = (0..rules)
            .map(|i| RuleResult {
                name: format!("{i:02}-{}", "x".repeat(60)),
                kind: "http".into(),
                severity: Severity::Medium,
                category: None,
                result: outcome(i),
                reason: "AssertionFailed".into(),
                message: message.into(),
                remedy: None,
                start_time: start,
                duration_millis: 12345,
                attempts: 1,
                flaky: false,
                observed: Default::default(),
                subjects: Vec::new(),
                truncated: false,
                node: None,
                fingerprint: None,
            })
            .collect();
        Run {
            schema: RUN_SCHEMA.into(),
            id: "20260901T120500Z-29804405".into(),
            task: TaskName::default(),
            trigger: Trigger::Schedule,
            scheduled_time: None,
            start_time: start,
            completion_time: start,
            inspector: Inspector::default(),
            target: "mysql-service".into(),
            outcome: Outcome::of(rules.iter().map(|rule| rule.result)),
            summary: rules.iter().map(|rule| rule.result).collect(),
            detail: Detail::Full,
            rules,
            shards: None,
        }
    }

    fn message(rules: usize, words: &str) -> Termination {
        let persisted = Persisted { ok: false, reason: Some("EIO".into()), message: Some(words.into()) };
        let text = Termination::of(&run(rules, words), persisted).fitted();
        assert!(text.len() <= LIMIT, "{} bytes", text.len());
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_short_message_is_whole() {
        let said = message(5, "no answer");
        assert!(!said.truncated);
        assert_eq!((said.rules.len(), said.rules[0].result), (5, Outcome::Fail));
        assert_eq!(said.rules[0].message.as_deref(), Some("no answer"));
    }

    #[test]
    fn whatever_a_run_found_its_message_fits_and_says_the_worst() {
        for words in ["", "不通 \u{1} \"quoted\" ".repeat(400).as_str(), "é".repeat(3000).as_str()] {
            let said = message(64, words);
            assert!(said.truncated);
            assert_eq!(said.summary.total(), 64);
            assert_eq!(said.rules.first().map(|rule| rule.result), Some(Outcome::Fail));
        }
    }
}
