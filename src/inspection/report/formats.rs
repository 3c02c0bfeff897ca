//! A run in the forms that other programs read.
//!
//! JUnit's XML is what CI systems show. An OpenReports `Report` is what a cluster's policy dashboards show (Policy Reporter,
//! Rancher, Headlamp): its five results and five severities are ours. SARIF is left out: it says where in a file a program is
//! wrong, and readers of it refuse a result without a file; a finding about a cluster has none. The run's own JSON is
//! `run.json`.

use std::fmt::{self, Display, Write};

use serde_json::{Value, json};

use super::finding::plain;
use super::remedy;
use super::sheet::millis;
use crate::inspection::run::{Outcome, RuleResult, Run, Subject};
use crate::inspection::task::Severity;

/// What XML 1.0 may hold, with what it gives a meaning to replaced. Signs that it can't hold at all, which a server's
/// answer may contain, become the sign for what can't be shown.
struct Xml<'a>(&'a str);

impl Display for Xml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&apos;")?,
                '\n' => f.write_str("&#10;")?,
                '\t' => f.write_str("&#9;")?,
                '\r' => f.write_str("&#13;")?,
                '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1_000, millis % 1_000)
}

/// The run as JUnit's XML: a suite of the task's name, a test for each rule.
///
/// A warning is a test that passed, with the warning in its output: JUnit has no word between pass and fail, and a pipeline
/// must not break on it. What could not look is an `error`, which JUnit keeps apart from a `failure` as we do.
pub fn junit(run: &Run) -> String {
    let counts = &run.summary;
    let suite = format!("{}/{}", run.task.namespace, run.task.name);
    let of = format!(
        r#"tests="{}" failures="{}" errors="{}" skipped="{}" time="{}""#,
        run.rules.len(),
        counts.fail,
        counts.error,
        counts.skip,
        seconds(millis(run))
    );
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    text += &format!("<testsuites name=\"kuration\" {of}>\n");
    let at = run.start_time.strftime("%Y-%m-%dT%H:%M:%SZ");
    text += &format!("  <testsuite name=\"{}\" timestamp=\"{at}\" {of}>\n", Xml(&suite));
    let properties = [("run", run.id.as_str()), ("target", &run.target), ("outcome", run.outcome.word())];
    text += "    <properties>\n";
    for (name, value) in properties {
        text += &format!("      <property name=\"{name}\" value=\"{}\"/>\n", Xml(value));
    }
    text += "    </properties>\n";
    for rule in &run.rules {
        text += &case(rule, &suite);
    }
    text + "  </testsuite>\n</testsuites>\n"
}

fn case(rule: &RuleResult, suite: &str) -> String {
    let node = rule.node.as_ref().map(|node| format!(" @ {node}")).unwrap_or_default();
    let name = format!("{}{node}", rule.name);
    let head = format!(
        r#"    <testcase name="{}" classname="{}.{}" time="{}""#,
        Xml(&name),
        Xml(suite),
        Xml(&rule.kind),
        seconds(rule.duration_millis)
    );
    let said = |tag: &str| {
        format!(
            "{head}>\n      <{tag} message=\"{}\" type=\"{}\">{}</{tag}>\n    </testcase>\n",
            Xml(&rule.message),
            Xml(&rule.reason),
            Xml(&details(rule))
        )
    };
    match rule.result {
        Outcome::Pass => format!("{head}/>\n"),
        Outcome::Warn => format!(
            "{head}>\n      <system-out>warning: {}</system-out>\n    </testcase>\n",
            Xml(&details(rule))
        ),
        Outcome::Fail => said("failure"),
        Outcome::Error => said("error"),
        Outcome::Skip => {
            format!("{head}>\n      <skipped message=\"{}\"/>\n    </testcase>\n", Xml(&rule.message))
        }
    }
}

/// All that is known of a finding, in lines.
fn details(rule: &RuleResult) -> String {
    let mut lines = vec![format!("{} ({})", rule.message, word(rule.severity))];
    lines.extend(rule.subjects.iter().map(|found| {
        let message = found.message.as_deref().unwrap_or_default();
        format!("{}: {message}", super::changes::subject(found))
    }));
    lines.extend(rule.observed.iter().map(|(name, value)| format!("{name} = {}", plain(value))));
    lines.push(remedy::text(rule));
    lines.join("\n")
}

/// So many results are in a Report: it is an object of the API, and etcd refuses large ones.
const RESULTS: usize = 200;

/// The run as a `Report` of `openreports.io/v1alpha1`, named and placed as its task is: what did not pass, the worst first.
pub fn open_report(run: &Run) -> Value {
    let mut rules: Vec<&RuleResult> =
        run.rules.iter().filter(|rule| !matches!(rule.result, Outcome::Pass | Outcome::Skip)).collect();
    rules.sort_by_key(|rule| {
        let order = [Outcome::Fail, Outcome::Error, Outcome::Warn];
        (order.iter().position(|kind| *kind == rule.result), std::cmp::Reverse(rule.severity))
    });
    let results: Vec<Value> = rules.iter().take(RESULTS).map(|rule| result(rule, run)).collect();
    let counts = &run.summary;
    json!({
        "apiVersion": "openreports.io/v1alpha1",
        "kind": "Report",
        "metadata": {
            "name": run.task.name,
            "namespace": run.task.namespace,
            "labels": {"app.kubernetes.io/managed-by": "kuration"},
            "annotations": {"kuration.io/run": run.id},
        },
        "source": "kuration",
        "summary": {
            "pass": counts.pass, "fail": counts.fail, "warn": counts.warn, "error": counts.error, "skip": counts.skip,
        },
        "results": results,
    })
}

fn result(rule: &RuleResult, run: &Run) -> Value {
    let subjects: Vec<Value> = rule.subjects.iter().map(reference).collect();
    let mut properties = json!({"reason": rule.reason, "run": run.id, "remedy": remedy::text(rule)});
    if let (Some(node), Some(held)) = (&rule.node, properties.as_object_mut()) {
        held.insert("node".to_owned(), json!(node));
    }
    json!({
        "source": "kuration",
        "policy": run.task.name,
        "rule": rule.name,
        "category": rule.category.as_deref().unwrap_or(&rule.kind),
        "severity": word(rule.severity),
        "timestamp": {"seconds": run.start_time.as_second(), "nanos": 0},
        "result": rule.result.word(),
        "scored": true,
        "resources": subjects,
        "message": rule.message,
        "properties": properties,
    })
}

fn reference(subject: &Subject) -> Value {
    let mut reference =
        json!({"apiVersion": subject.api_version, "kind": subject.kind, "name": subject.name});
    if let (Some(namespace), Some(held)) = (&subject.namespace, reference.as_object_mut()) {
        held.insert("namespace".to_owned(), json!(namespace));
    }
    reference
}

fn word(severity: Severity) -> &'static str {
    super::finding::severity(severity).0
}
