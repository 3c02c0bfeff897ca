//! What is different between two runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::inspection::run::{Detail, Fingerprint, Outcome, RuleResult, Run, Subject};

/// Something that a run found, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The rule.
    pub rule: String,
    /// The node it was seen from, in a run on every node.
    pub node: Option<String>,
    /// The subject, where the rule names any: `Pod shop/mysql-0`.
    pub subject: Option<String>,
}

/// What changed since the run before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Broken now, not before.
    pub new: Vec<Change>,
    /// Broken then, looked at again, broken no more.
    pub gone: Vec<Change>,
    /// Broken then, and not looked at now: nobody knows.
    pub unknown: Vec<Change>,
    /// Broken then and now.
    pub still: Vec<Change>,
    /// Rules that could not look now and could before.
    pub lost: Vec<String>,
    /// Rules that can look again.
    pub regained: Vec<String>,
    /// Rules that were added.
    pub added: Vec<String>,
    /// Rules that were removed.
    pub removed: Vec<String>,
}

impl Changes {
    /// Nothing at all changed.
    pub fn is_empty(&self) -> bool {
        let changes = [&self.new, &self.gone, &self.unknown];
        let rules = [&self.lost, &self.regained, &self.added, &self.removed];
        changes.iter().all(|list| list.is_empty()) && rules.iter().all(|list| list.is_empty())
    }
}

/// A subject as a person names it.
pub fn subject(subject: &Subject) -> String {
    match subject.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => format!("{} {namespace}/{}", subject.kind, subject.name),
        None => format!("{} {}", subject.kind, subject.name),
    }
}

/// Which rule, on which node.
type Place<'a> = (&'a str, Option<&'a str>);

fn places(run: &Run) -> BTreeMap<Place<'_>, &RuleResult> {
    run.rules.iter().map(|rule| ((rule.name.as_str(), rule.node.as_deref()), rule)).collect()
}

/// What a rule holds against whom; nothing unless it found something.
fn held(rule: &RuleResult, coarse: bool) -> BTreeMap<Fingerprint, Change> {
    let mut held = BTreeMap::new();
    if !matches!(rule.result, Outcome::Fail | Outcome::Warn) {
        return held;
    }
    let mut add = |known: Option<&Fingerprint>, of: Option<&Subject>| {
        let made = || Fingerprint::of(&rule.name, rule.result, rule.node.as_deref(), of);
        if let Some(fingerprint) = known.cloned().or_else(made) {
            let change =
                Change { rule: rule.name.clone(), node: rule.node.clone(), subject: of.map(subject) };
            held.insert(fingerprint, change);
        }
    };
    if coarse || rule.subjects.is_empty() {
        add(rule.fingerprint.as_ref().filter(|_| !coarse), None);
    } else {
        rule.subjects.iter().for_each(|found| add(found.fingerprint.as_ref(), Some(found)));
    }
    held
}

/// What is different in `now` from `before`.
///
/// Where one of them is only a summary, rules are compared and not their subjects, and one that is missing was not removed.
pub fn changes(before: &Run, now: &Run) -> Changes {
    let coarse = [before, now].iter().any(|run| run.detail == Detail::SummaryOnly);
    let (past, present) = (places(before), places(now));
    let mut changes = Changes::default();
    let mut sets: [BTreeSet<String>; 4] = Default::default();
    for (place, rule) in &present {
        let name = || place.0.to_owned();
        let today = held(rule, coarse);
        let Some(old) = past.get(place) else {
            if !past.keys().any(|(other, _)| *other == place.0) && !coarse {
                sets[2].insert(name());
            }
            changes.new.extend(today.into_values());
            continue;
        };
        let then = held(old, coarse);
        let blind = |rule: &RuleResult| matches!(rule.result, Outcome::Error | Outcome::Skip);
        for (fingerprint, change) in &today {
            let into = if then.contains_key(fingerprint) { &mut changes.still } else { &mut changes.new };
            into.push(change.clone());
        }
        let rest = then.into_iter().filter(|(fingerprint, _)| !today.contains_key(fingerprint));
        let into = if blind(rule) { &mut changes.unknown } else { &mut changes.gone };
        into.extend(rest.map(|(_, change)| change));
        match (old.result == Outcome::Error, rule.result == Outcome::Error) {
            (false, true) => drop(sets[0].insert(name())),
            (true, false) => drop(sets[1].insert(name())),
            _ => {}
        }
    }
    for (place, old) in past.iter().filter(|(place, _)| !present.contains_key(*place)) {
        let removed = !present.keys().any(|(other, _)| *other == place.0) && !coarse;
        if removed {
            sets[3].insert(place.0.to_owned());
        } else {
            // A node that is gone, or a rule that the summary had no room for.
            changes.unknown.extend(held(old, coarse).into_values());
        }
    }
    for list in [&mut changes.new, &mut changes.gone, &mut changes.unknown, &mut changes.still] {
        list.sort();
    }
    let [lost, regained, added, removed] = sets.map(|set| set.into_iter().collect());
    Changes { lost, regained, added, removed, ..changes }
}
