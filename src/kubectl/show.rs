//! How things are printed: as a table, as JSON, as YAML. Colours are for terminals alone.

use std::io::Write;

use serde::Serialize;
use serde_json::json;

use super::KubectlError;
use crate::args::Output;
use crate::inspection::report::changes::{Change, Changes};
use crate::inspection::run::Outcome;
use crate::inspection::task::{InspectionTask, InspectionTaskStatus};

/// Prints to standard output. Whoever reads it may stop reading: that is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// As JSON or YAML; nothing for a table.
pub fn document(value: &impl Serialize, output: Output) -> Result<Option<String>, KubectlError> {
    let form = |error: &dyn std::fmt::Display| KubectlError::Form(error.to_string());
    match output {
        Output::Table | Output::Wide => Ok(None),
        Output::Json => {
            let text = serde_json::to_string_pretty(value).map_err(|error| form(&error))?;
            Ok(Some(text + "\n"))
        }
        Output::Yaml => serde_saphyr::to_string(value).map(Some).map_err(|error| form(&error)),
    }
}

/// What a terminal can't be trusted with is left out: names and messages come from what was inspected.
fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A word in the colour of how it came out.
pub fn coloured(outcome: Option<Outcome>, colours: bool) -> Cell {
    let (word, code) = match outcome {
        Some(Outcome::Pass) => ("pass", "32"),
        Some(Outcome::Warn) => ("warn", "33"),
        Some(Outcome::Fail) => ("fail", "31;1"),
        Some(Outcome::Error) => ("error", "35"),
        Some(Outcome::Skip) => ("skip", "2"),
        None => ("-", "2"),
    };
    Cell { text: word.to_owned(), code: colours.then_some(code) }
}

/// One field of a table.
pub struct Cell {
    text: String,
    code: Option<&'static str>,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell { text: if text.is_empty() { "-".to_owned() } else { tame(text) }, code: None }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl Cell {
    /// In this colour, where colours are.
    pub fn in_colour(text: &str, code: &'static str, colours: bool) -> Self {
        Cell { text: tame(text), code: colours.then_some(code) }
    }
}

/// Columns as wide as they must be, the last one as it is.
pub fn table(head: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let mut widths: Vec<usize> = head.iter().map(|name| name.len()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let head = head.iter().map(|name| Cell::from(*name)).collect();
    let mut text = String::new();
    for row in std::iter::once(head).chain(rows) {
        let last = row.len().saturating_sub(1);
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if at == last { 0 } else { width - cell.text.chars().count() + 3 };
            match cell.code {
                Some(code) => text += &format!("\u{1b}[{code}m{}\u{1b}[0m{:gap$}", cell.text, ""),
                None => text += &format!("{}{:gap$}", cell.text, ""),
            }
        }
        text.push('\n');
    }
    text
}

fn status(task: &InspectionTask) -> InspectionTaskStatus {
    task.status.clone().unwrap_or_default()
}

fn condition(status: &InspectionTaskStatus, kind: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind);
    found.map(|condition| format!("{} ({})", condition.status, condition.reason)).unwrap_or_default()
}

fn moment(at: Option<jiff::Timestamp>) -> String {
    at.map(|at| at.strftime("%Y-%m-%d %H:%MZ").to_string()).unwrap_or_default()
}

/// Tasks.
pub fn list(
    tasks: &[InspectionTask],
    namespaces: bool,
    output: Output,
    colours: bool,
) -> Result<String, KubectlError> {
    let all = json!({"apiVersion": "v1", "kind": "List", "items": tasks});
    if let Some(text) = document(&all, output)? {
        return Ok(text);
    }
    if tasks.is_empty() {
        return Ok("No tasks. This makes one: kubectl create inspectiontask NAME --schedule '*/5 * * * *' --target SERVICE\n".into());
    }
    let mut head = vec!["NAME", "SCHEDULE", "TARGET", "VERDICT", "FINDINGS", "LAST RUN", "NEXT"];
    if namespaces {
        head.insert(0, "NAMESPACE");
    }
    if output == Output::Wide {
        head.extend(["HEALTHY", "READY", "PERSISTED", "MISSED", "CLAIM"]);
    }
    let row = |task: &InspectionTask| {
        let (status, spec) = (status(task), &task.spec);
        let last = status.last_run.as_ref();
        let next = if spec.suspend { "suspended".to_owned() } else { moment(status.next_schedule_time) };
        let mut row: Vec<Cell> = vec![
            task.metadata.name.as_deref().unwrap_or_default().into(),
            spec.schedule.as_str().into(),
            spec.target.as_str().into(),
            coloured(last.map(|run| run.outcome), colours),
            last.map(|run| run.findings.to_string()).unwrap_or_default().into(),
            moment(last.map(|run| run.completion_time)).into(),
            next.into(),
        ];
        if namespaces {
            row.insert(0, task.metadata.namespace.as_deref().unwrap_or_default().into());
        }
        if output == Output::Wide {
            let kinds = ["Healthy", "Ready", "ResultsPersisted"];
            row.extend(kinds.map(|kind| condition(&status, kind).into()));
            row.push(status.missed_runs.to_string().into());
            row.push(status.claim_name.as_deref().unwrap_or_default().into());
        }
        row
    };
    Ok(table(&head, tasks.iter().map(row).collect()))
}

/// What the last runs of a task found.
pub fn results(task: &InspectionTask, output: Output, colours: bool) -> Result<String, KubectlError> {
    let status = status(task);
    if let Some(text) = document(&status, output)? {
        return Ok(text);
    }
    let Some(last) = &status.last_run else {
        return Ok(format!(
            "No run has ended yet. The next one starts {}.\n",
            moment(status.next_schedule_time)
        ));
    };
    let rules = status.failing_rules.iter().map(|rule| {
        vec![
            coloured(Some(rule.result), colours),
            format!("{:?}", rule.severity).to_lowercase().into(),
            rule.name.as_str().into(),
            rule.reason.as_deref().unwrap_or_default().into(),
            rule.message.as_deref().unwrap_or_default().into(),
        ]
    });
    let rules: Vec<Vec<Cell>> = rules.collect();
    let mut text = if rules.is_empty() {
        "Every rule of the last run passed.\n".to_owned()
    } else {
        table(&["RESULT", "SEVERITY", "RULE", "REASON", "MESSAGE"], rules)
    };
    text.push('\n');
    let mut runs: Vec<Vec<Cell>> = Vec::new();
    for run in &status.recent_runs {
        let mut row: Vec<Cell> = vec![
            run.id.as_str().into(),
            coloured(Some(run.outcome), colours),
            run.findings.to_string().into(),
            moment(Some(run.completion_time)).into(),
        ];
        if output == Output::Wide {
            row.push(run.job.as_str().into());
            row.push(if run.persisted { "yes" } else { "no" }.into());
        }
        runs.push(row);
    }
    let mut head = vec!["RUN", "VERDICT", "FINDINGS", "ENDED"];
    if output == Output::Wide {
        head.extend(["JOB", "PERSISTED"]);
    }
    text += &table(&head, runs);
    if let Some(reason) = last.reason.as_deref().filter(|_| last.outcome == Outcome::Error) {
        text += &format!("\nThe last run could not tell: {}\n", tame(reason));
    }
    Ok(text)
}

/// The difference of two runs.
pub fn changes(changes: &Changes, output: Output, colours: bool) -> Result<String, KubectlError> {
    let named = |list: &[Change]| {
        let each = list
            .iter()
            .map(|change| json!({"rule": change.rule, "subject": change.subject, "node": change.node}));
        each.collect::<Vec<_>>()
    };
    let value = json!({
        "new": named(&changes.new), "gone": named(&changes.gone), "unknown": named(&changes.unknown),
        "still": named(&changes.still), "lost": changes.lost, "regained": changes.regained,
        "added": changes.added, "removed": changes.removed,
    });
    if let Some(text) = document(&value, output)? {
        return Ok(text);
    }
    let lists = [
        ("+ new", "31", &changes.new),
        ("- gone", "32", &changes.gone),
        ("? unknown", "35", &changes.unknown),
        ("= still", "2", &changes.still),
    ];
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for (word, code, list) in lists {
        rows.extend(list.iter().map(|change| {
            let mut on = change.subject.clone().unwrap_or_default();
            if let Some(node) = &change.node {
                on += &format!(" @ {node}");
            }
            vec![Cell::in_colour(word, code, colours), change.rule.as_str().into(), on.trim().into()]
        }));
    }
    let rules = [
        ("? can't look", &changes.lost),
        ("✓ looks again", &changes.regained),
        ("+ rule added", &changes.added),
        ("- rule removed", &changes.removed),
    ];
    for (word, list) in rules {
        rows.extend(list.iter().map(|rule| vec![word.into(), rule.as_str().into(), "".into()]));
    }
    if rows.is_empty() {
        return Ok("Nothing is different.\n".into());
    }
    Ok(table(&["CHANGE", "RULE", "SUBJECT"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_terminal_gets_colours_and_nothing_gets_what_moves_its_cursor() {
        let row = || vec![coloured(Some(Outcome::Fail), false), "a\u{1b}[2J\nb".into()];
        let plain = table(&["VERDICT", "NAME"], vec![row()]);
        assert_eq!(plain, "VERDICT   NAME\nfail      a [2J b\n");
        let bright = table(&["VERDICT", "NAME"], vec![vec![coloured(Some(Outcome::Fail), true), "x".into()]]);
        assert_eq!(bright, "VERDICT   NAME\n\u{1b}[31;1mfail\u{1b}[0m      x\n");
    }
}
