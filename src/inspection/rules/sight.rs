//! What a rule saw, or why it could not look. The two are never mixed: a target that refuses is bad, a probe that was not
//! let out of its own pod knows nothing.

use serde_json::Value as Json;

use crate::inspection::run::Subject;

/// What a rule saw.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// CEL's `result`.
    pub result: Json,
    /// CEL's `items`.
    pub items: Vec<Json>,
    /// Whether items are objects of the API, whose times stay strings.
    pub foreign: bool,
    /// What the kind itself says about it.
    pub verdict: Verdict,
}

/// What a kind says by itself, before any assertion of the task.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Verdict {
    /// It says nothing: such a rule must assert something.
    #[default]
    Unasserted,
    /// All is well.
    Pass,
    /// Something is off, and it can wait.
    Warn(Finding),
    /// Something is wrong.
    Fail(Finding),
}

/// What is wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Finding {
    /// In one CamelCase word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// With which objects, where there are any.
    pub subjects: Vec<Subject>,
}

impl Sight {
    /// A result without items.
    pub fn of(result: Json, verdict: Verdict) -> Self {
        Self { result, verdict, ..Self::default() }
    }

    /// Items, of which some may be wrong.
    pub fn of_items(items: Vec<Json>, verdict: Verdict) -> Self {
        let result = serde_json::json!({ "count": items.len() });
        Self { result, items, verdict, foreign: false }
    }
}

impl Verdict {
    /// A failure.
    pub fn fail(reason: &str, message: impl Into<String>) -> Self {
        Self::Fail(Finding { reason: reason.to_owned(), message: message.into(), subjects: Vec::new() })
    }

    /// A failure of objects, if there are any: `what` they are, the first of them, and how many more there are.
    pub fn unless_any(reason: &str, what: &str, subjects: Vec<Subject>) -> Self {
        let Some(first) = subjects.first() else { return Self::Pass };
        let place = first.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let why = first.message.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let more = match subjects.len() {
            1 => String::new(),
            all => format!(" (and {} more)", all - 1),
        };
        let message = format!("{what}: {place}{}{why}{more}", first.name);
        Self::Fail(Finding { reason: reason.to_owned(), message, subjects })
    }
}

/// Why a rule could not look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Blind {
    /// In one CamelCase word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

impl Blind {
    /// For this reason.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a probe comes back with.
pub type Seen = Result<Sight, Blind>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_objects_names_the_first_and_counts_the_rest() {
        let one = |namespace: Option<&str>, name: &str, why: &str| Subject {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            message: Some(why.to_owned()),
            ..Subject::default()
        };
        let said = |subjects| match Verdict::unless_any("NotBound", "not bound", subjects) {
            Verdict::Fail(finding) => finding.message,
            other => format!("{other:?}"),
        };
        assert_eq!(said(vec![]), "Pass");
        assert_eq!(said(vec![one(None, "pv-1", "lost")]), "not bound: pv-1: lost");
        let several = vec![one(Some("shop"), "data", "no class"), one(None, "b", ""), one(None, "c", "")];
        assert_eq!(said(several), "not bound: shop/data: no class (and 2 more)");
    }
}
