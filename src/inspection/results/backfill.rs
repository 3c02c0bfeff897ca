//! Runs that found no volume: what their pods said last, made into runs to be kept.

use std::collections::BTreeMap;

use crate::inspection::run::{
    Detail, Fingerprint, Inspector, RUN_SCHEMA, RuleResult, Run, TaskName, Termination, Trigger,
};

/// The run that a termination message speaks of, with what it still knows.
pub fn backfilled(said: Termination, task: &TaskName, target: &str) -> Run {
    let rules = said.rules.into_iter().map(|rule| RuleResult {
        fingerprint: Fingerprint::of(&rule.name, rule.result, None, None),
        name: rule.name,
        kind: String::new(),
        severity: rule.severity,
        category: None,
        result: rule.result,
        reason: rule.reason.unwrap_or_default(),
        message: rule.message.unwrap_or_default(),
        remedy: None,
        start_time: said.start_time,
        duration_millis: rule.millis,
        attempts: 1,
        flaky: false,
        observed: BTreeMap::new(),
        subjects: Vec::new(),
        truncated: said.truncated,
        node: None,
    });
    Run {
        schema: RUN_SCHEMA.to_owned(),
        id: said.id,
        task: TaskName { generation: said.generation, ..task.clone() },
        trigger: Trigger::Backfill,
        scheduled_time: said.scheduled_time,
        start_time: said.start_time,
        completion_time: said.completion_time,
        inspector: Inspector::default(),
        target: target.to_owned(),
        outcome: said.outcome,
        summary: said.summary,
        detail: Detail::SummaryOnly,
        rules: rules.collect(),
        shards: None,
    }
}
