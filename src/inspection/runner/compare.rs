//! Two runs of a task: which findings are new, which are still there, which are gone.

use std::collections::BTreeSet;

use crate::inspection::run::{Detail, Fingerprint, Outcome, Run};

/// How the findings of two runs differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Not there before.
    pub new: BTreeSet<Fingerprint>,
    /// There before and now.
    pub still: BTreeSet<Fingerprint>,
    /// There before, and looked at and not found now.
    pub gone: BTreeSet<Fingerprint>,
}

/// Compares `run` with the one before it.
///
/// A finding of a rule that could not look this time is neither there nor gone: nobody knows. A run of which only a summary
/// is left names no subjects, so nothing can be said to be new or gone against it.
pub fn compare(before: &Run, run: &Run) -> Changes {
    if before.detail == Detail::SummaryOnly || run.detail == Detail::SummaryOnly {
        return Changes::default();
    }
    let findings = |run: &Run| -> BTreeSet<Fingerprint> { run.rules.iter().flat_map(of_rule).collect() };
    let (then, now) = (findings(before), findings(run));
    let looked = |name: &str, node: Option<&str>| {
        let mut same = run.rules.iter().filter(|rule| rule.name == name && rule.node.as_deref() == node);
        same.any(|rule| !matches!(rule.result, Outcome::Error | Outcome::Skip))
    };
    let looked_at_again: BTreeSet<Fingerprint> = before
        .rules
        .iter()
        // A rule that is gone from the task has taken its findings with it.
        .filter(|rule| {
            looked(&rule.name, rule.node.as_deref()) || !run.rules.iter().any(|now| now.name == rule.name)
        })
        .flat_map(of_rule)
        .collect();
    Changes {
        new: now.difference(&then).cloned().collect(),
        still: now.intersection(&then).cloned().collect(),
        gone: looked_at_again.difference(&now).cloned().collect(),
    }
}

fn of_rule(rule: &crate::inspection::run::RuleResult) -> Vec<Fingerprint> {
    let own = rule.fingerprint.iter();
    own.chain(rule.subjects.iter().filter_map(|subject| subject.fingerprint.as_ref())).cloned().collect()
}
