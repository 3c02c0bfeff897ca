//! Assertions held against what was seen.

use serde_json::{Map, Value as Json, json};

use super::cel::{self, Expression, Scope};
use super::place::Place;
use super::sight::{Blind, Finding, Seen, Sight, Verdict};
use crate::inspection::run::{MOST_SUBJECTS, Outcome, Subject};
use crate::inspection::task::{Assertion, Kind, Rule};

/// How a rule came out of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// How.
    pub outcome: Outcome,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// The objects that are meant.
    pub subjects: Vec<Subject>,
    /// Whether there are more of them than are kept.
    pub truncated: bool,
}

impl Judged {
    fn new(outcome: Outcome, reason: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { outcome, reason: reason.to_owned(), message, subjects: Vec::new(), truncated: false }
    }

    fn of(outcome: Outcome, finding: Finding) -> Self {
        let truncated = finding.subjects.len() > MOST_SUBJECTS;
        let subjects = finding.subjects.into_iter().take(MOST_SUBJECTS).collect();
        Self { outcome, reason: finding.reason, message: finding.message, subjects, truncated }
    }

    /// What could not be looked at.
    pub fn blind(blind: &Blind) -> Self {
        Self::new(Outcome::Error, blind.reason, blind.message.clone())
    }

    /// Whether trying again could help: a rule that is written wrong stays so.
    pub fn may_change(&self) -> bool {
        const SETTLED: [&str; 7] = [
            "BadRule",
            "BadExpression",
            "Forbidden",
            "Unauthorized",
            "NothingAsserted",
            "UnknownKind",
            "WaitForFirstConsumer",
        ];
        matches!(self.outcome, Outcome::Fail | Outcome::Error) && !SETTLED.contains(&self.reason.as_str())
    }
}

/// What can be said against a rule before it is looked at: an expression that does not compile, nothing asserted.
pub fn refused(rule: &Rule) -> Option<Blind> {
    let written = rule.assert.iter().chain(&rule.warn).flatten();
    let bad = written.filter_map(|assertion| Expression::compile(&assertion.expr).err()).next();
    bad.map(|error| Blind::new("BadExpression", error.to_string()))
}

/// Judges what `rule` saw. `previous` is what it observed in the run before.
pub fn judge(rule: &Rule, seen: Seen, place: &Place, previous: Option<&Map<String, Json>>) -> Judged {
    let sight = match seen {
        Ok(sight) => sight,
        Err(blind) => return Judged::blind(&blind),
    };
    let mut scope = Scope::new(place.now);
    scope.set("result", cel::ours(&sight.result));
    let convert = if sight.foreign { cel::theirs } else { cel::ours };
    let items: Vec<_> = sight.items.iter().map(convert).collect();
    scope.set("items", kube_cel::cel::Value::List(items.clone().into()));
    scope.set("target", cel::theirs(&json!({
        "kind": place.target.kind(), "name": place.target.name().unwrap_or_default(), "namespace": place.namespace,
    })));
    scope.set("previous", cel::theirs(&previous.map_or_else(|| json!({}), |map| Json::Object(map.clone()))));

    let held = |assertions: &Option<Vec<Assertion>>| -> Result<Option<Finding>, Blind> {
        for assertion in assertions.iter().flatten() {
            if let Some(finding) = broken(assertion, &scope, &items, &sight)? {
                return Ok(Some(finding));
            }
        }
        Ok(None)
    };
    let own = sight.verdict.clone();
    let failed = match &rule.assert {
        Some(_) => match (held(&rule.assert), &own) {
            // Nothing was answered then, and what an expression does not find it may take for well.
            (_, Verdict::Fail(finding)) if logs_in(rule) => Some(finding.clone()),
            // The target is bad in a way that leaves the assertion without what it speaks of.
            (Err(blind), Verdict::Fail(finding)) if blind.reason == "EvaluationFailed" => {
                Some(finding.clone())
            }
            (Err(blind), _) => return Judged::blind(&blind),
            (Ok(finding), _) => finding,
        },
        None => match &own {
            Verdict::Fail(finding) => Some(finding.clone()),
            _ => None,
        },
    };
    if let Some(finding) = failed {
        return Judged::of(Outcome::Fail, finding);
    }
    match held(&rule.warn) {
        Err(blind) => return Judged::blind(&blind),
        Ok(Some(finding)) => return Judged::of(Outcome::Warn, finding),
        Ok(None) => {}
    }
    match own {
        Verdict::Warn(finding) if rule.assert.is_none() => Judged::of(Outcome::Warn, finding),
        Verdict::Unasserted if rule.assert.is_none() && rule.warn.is_none() => Judged::blind(&Blind::new(
            "NothingAsserted",
            "this rule asserts nothing: a rule of this kind needs `assert` or `warn`",
        )),
        _ => Judged::new(Outcome::Pass, "Passed", ""),
    }
}

/// Whether a rule asks more of a database than a handshake.
fn logs_in(rule: &Rule) -> bool {
    let credentials = match rule.kind() {
        Some(Kind::Mysql(rule)) => &rule.credentials_secret_ref,
        Some(Kind::Postgresql(rule)) => &rule.credentials_secret_ref,
        Some(Kind::Redis(rule)) => &rule.credentials_secret_ref,
        _ => return false,
    };
    credentials.is_some()
}

/// What an assertion finds; `None` where it holds. One that speaks of `object` is asked for each item.
fn broken(
    assertion: &Assertion,
    scope: &Scope,
    items: &[kube_cel::cel::Value],
    sight: &Sight,
) -> Result<Option<Finding>, Blind> {
    let expression = Expression::compile(&assertion.expr)
        .map_err(|error| Blind::new("BadExpression", error.to_string()))?;
    let failed = |why: String| Blind::new("EvaluationFailed", why);
    let said = || match (&assertion.message, &sight.verdict) {
        (Some(message), _) => message.clone(),
        // What the kind itself finds wrong says more than an expression.
        (None, Verdict::Fail(finding)) => finding.message.clone(),
        (None, _) => format!("{} does not hold", assertion.expr),
    };
    if !expression.is_for_each() {
        let holds = expression.holds(scope).map_err(failed)?;
        let subjects = match (&sight.verdict, sight.items.len()) {
            // Who is meant: what the kind itself finds wrong, or the one thing that was looked at.
            (Verdict::Fail(finding) | Verdict::Warn(finding), _) => finding.subjects.clone(),
            (_, 1) => object(&sight.items[0]).into_iter().collect(),
            _ => Vec::new(),
        };
        return Ok((!holds).then(|| Finding {
            reason: "AssertionFailed".to_owned(),
            message: said(),
            subjects,
        }));
    }
    let mut subjects = Vec::new();
    for (value, json) in items.iter().zip(&sight.items) {
        if !expression.holds_for(scope, value).map_err(failed)? {
            subjects.push(object(json).unwrap_or_default());
        }
    }
    Ok((!subjects.is_empty()).then(|| Finding {
        reason: "AssertionFailed".to_owned(),
        message: said(),
        subjects,
    }))
}

/// The subject that an item is: an object of the API, or an item of ours that bears its names.
fn object(item: &Json) -> Option<Subject> {
    if item["metadata"]["name"].is_string() {
        return Some(super::cluster::subject(item, ""));
    }
    let name = item["name"].as_str()?;
    let kind = item["kind"].as_str().unwrap_or_default();
    Some(super::cluster::named("", kind, item["namespace"].as_str(), name, String::new()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inspection::task::Target;

    fn place() -> Place {
        let now = "2026-09-01T00:00:00Z".parse().unwrap();
        Place::new("shop", Target::parse("mysql-service").unwrap(), now)
    }

    fn rule(text: Json) -> Rule {
        let mut whole = json!({"name": "r", "tcp": {"port": 9}});
        whole.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn judged(text: Json, seen: Seen) -> (Outcome, String, usize) {
        let judged = judge(&rule(text), seen, &place(), None);
        (judged.outcome, judged.reason, judged.subjects.len())
    }

    #[test]
    fn what_could_not_be_looked_at_is_neither_well_nor_bad() {
        let seen = || Err(Blind::new("Forbidden", "pods is forbidden"));
        for text in [json!({}), json!({"assert": [{"expr": "true"}]}), json!({"assert": [{"expr": "false"}]})]
        {
            assert_eq!(judged(text, seen()), (Outcome::Error, "Forbidden".to_owned(), 0));
        }
    }

    #[test]
    fn an_assertion_takes_the_place_of_the_default_and_a_warning_stands_beside_it() {
        let bad = || Ok(Sight::of(json!({"n": 1}), Verdict::fail("Bad", "bad")));
        assert_eq!(judged(json!({}), bad()).0, Outcome::Fail);
        assert_eq!(judged(json!({"assert": [{"expr": "result.n == 1"}]}), bad()).0, Outcome::Pass);
        assert_eq!(judged(json!({"warn": [{"expr": "result.n == 1"}]}), bad()).0, Outcome::Fail);
        let good = || Ok(Sight::of(json!({"n": 1}), Verdict::Pass));
        assert_eq!(judged(json!({"warn": [{"expr": "result.n == 2"}]}), good()).0, Outcome::Warn);
    }

    #[test]
    fn an_assertion_without_what_it_speaks_of_says_what_is_wrong_with_the_target() {
        let down = Ok(Sight::of(json!({}), Verdict::fail("ConnectionRefused", "refused")));
        let text = || json!({"assert": [{"expr": "result.rows[0].n > 0"}]});
        assert_eq!(judged(text(), down), (Outcome::Fail, "ConnectionRefused".to_owned(), 0));
        let up = Ok(Sight::of(json!({}), Verdict::Pass));
        assert_eq!(judged(text(), up).1, "EvaluationFailed");
    }

    #[test]
    fn a_rule_that_asserts_nothing_is_an_error() {
        let seen = || Ok(Sight { items: vec![json!({})], ..Sight::default() });
        assert_eq!(judged(json!({}), seen()).1, "NothingAsserted");
        assert_eq!(judged(json!({"assert": [{"expr": "items.size() == 1"}]}), seen()).0, Outcome::Pass);
    }

    #[test]
    fn an_expression_over_object_names_the_items_for_which_it_is_false() {
        let pod = |name: &str, n: i64| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "n": n});
        let items = vec![pod("a", 1), pod("b", 9), pod("c", 8)];
        let seen = Ok(Sight { items, foreign: true, ..Sight::default() });
        let text = json!({"assert": [{"expr": "object.n < 5", "message": "too many"}]});
        let found = judge(&rule(text), seen, &place(), None);
        let names: Vec<&str> = found.subjects.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!(
            (found.outcome, found.message.as_str(), names),
            (Outcome::Fail, "too many", vec!["b", "c"])
        );
    }

    #[test]
    fn what_was_seen_before_can_be_asked_for() {
        let mut before = Map::new();
        before.insert("n".to_owned(), json!(1));
        let seen = Ok(Sight::of(json!({"n": 2}), Verdict::Pass));
        let text = json!({"assert": [{"expr": "!has(previous.n) || result.n == previous.n"}]});
        assert_eq!(judge(&rule(text), seen, &place(), Some(&before)).outcome, Outcome::Fail);
    }
}
