//! One finding: what it is, where, since when, and what to do.

use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::changes::subject;
use super::chart::{class, sign};
use super::remedy;
use super::sheet::{SUBJECTS, runs};
use super::since::Since;
use super::story::Finding;
use super::words::{Text, minute, said, told};
use crate::inspection::run::Scalar;
use crate::inspection::task::Severity;

/// A severity as a class and as a word.
pub fn severity(severity: Severity) -> (&'static str, Text) {
    match severity {
        Severity::Critical => ("critical", said("Critical", "严重")),
        Severity::High => ("high", said("High", "高")),
        Severity::Medium => ("medium", said("Medium", "中")),
        Severity::Low => ("low", said("Low", "低")),
        Severity::Info => ("info", said("Info", "提示")),
    }
}

/// A finding, whole.
pub fn found(finding: &Finding<'_>, zone: &TimeZone) -> Markup {
    let rule = finding.rule;
    let (rank, word) = severity(rule.severity);
    html! {
        article class={ "finding " (class(rule.result)) } {
            header {
                (sign(rule.result))
                h3 { (finding.name) }
                span class={ "rank " (rank) } { (word) }
                span class="kind mono" { (rule.kind) @if !rule.reason.is_empty() { " · " (rule.reason) } }
                span class="since" { (since(&finding.since, zone)) }
            }
            p class="what" { (rule.message) }
            dl class="remedy" {
                (places(finding))
                dt { (said("What to do", "处理建议")) }
                dd { (remedy::of(rule)) }
                @if !rule.observed.is_empty() {
                    dt { (said("Seen", "观测值")) }
                    dd class="values" {
                        @for (name, value) in &rule.observed {
                            span { (name) " " code { (plain(value)) } }
                        }
                    }
                }
            }
        }
    }
}

fn since(since: &Since, zone: &TimeZone) -> Text {
    if since.runs <= 1 && !since.at_least {
        return said("new in this run", "本次新出现");
    }
    let (at, (runs, runs_zh)) = (minute(since.start, zone), runs(since.runs));
    match since.at_least {
        true => told(format!("at least since {at} · {runs}"), format!("至少自 {at} 起 · {runs_zh}")),
        false => told(format!("since {at} · {runs}"), format!("自 {at} 起 · {runs_zh}")),
    }
}

/// Where something was found, and what is said of it there.
type Line = (String, Option<String>);

/// Where it was found: the subjects, and with a run on every node the nodes.
fn places(finding: &Finding<'_>) -> Markup {
    let mut lines: Vec<Line> = Vec::new();
    for rule in &finding.results {
        let at = rule.node.as_ref().map(|node| format!(" @ {node}")).unwrap_or_default();
        let named = rule.subjects.iter().map(|found| (subject(found) + &at, found.message.clone()));
        lines.extend(named);
        if let (Some(node), true) = (&rule.node, rule.subjects.is_empty()) {
            lines.push((node.clone(), Some(rule.message.clone())));
        }
    }
    let (first, rest) = lines.split_at(lines.len().min(SUBJECTS));
    html! {
        @if !lines.is_empty() {
            dt { (said("Where", "对象")) }
            dd {
                (list(first))
                @if !rest.is_empty() {
                    details {
                        summary { (told(format!("{} more", rest.len()), format!("另外 {} 项", rest.len()))) }
                        (list(rest))
                    }
                }
                @if finding.results.iter().any(|rule| rule.truncated) {
                    p class="quiet" { (said("There is more than a run keeps.", "数量超出单次运行的保留上限。")) }
                }
            }
        }
    }
}

fn list(lines: &[Line]) -> Markup {
    html! {
        ul class="subjects" {
            @for (name, message) in lines {
                li { b { (name) } span { @if let Some(message) = message { (message) } } }
            }
        }
    }
}

/// A value as it is written.
pub fn plain(value: &Scalar) -> String {
    match value {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Number(value) => value.to_string(),
        Scalar::Text(value) => value.clone(),
    }
}
