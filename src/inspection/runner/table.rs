//! A run as a person reads it in a terminal.

use crate::inspection::run::{Outcome, Run};

/// One line a rule, and the verdict below them. Colours only where they are wanted.
pub fn table(run: &Run, colours: bool) -> String {
    let painted = |outcome: Outcome| {
        let word = format!("{:5}", outcome.word());
        let code = match outcome {
            Outcome::Pass => "32",
            Outcome::Warn => "33",
            Outcome::Fail => "31",
            Outcome::Error => "35",
            Outcome::Skip => "90",
        };
        if colours { format!("\x1b[{code}m{word}\x1b[0m") } else { word }
    };
    let widest = |of: fn(&crate::inspection::run::RuleResult) -> usize, least: usize| {
        run.rules.iter().map(of).max().unwrap_or(0).max(least)
    };
    let name = widest(|rule| rule.name.len(), 4);
    let kind = widest(|rule| rule.kind.len(), 4);
    let reason = widest(|rule| rule.reason.len(), 6);
    let mut text = format!(
        "{:5}  {:name$}  {:kind$}  {:8}  {:>7}  {:reason$}  MESSAGE\n",
        "RESULT", "RULE", "KIND", "SEVERITY", "MILLIS", "REASON"
    )
    .replacen("RESULT", "STATE", 1);
    for rule in &run.rules {
        let severity = format!("{:?}", rule.severity).to_lowercase();
        let flaky =
            if rule.flaky { format!(" (passed at attempt {})", rule.attempts) } else { String::new() };
        let line = format!(
            "{}  {:name$}  {:kind$}  {severity:8}  {:>7}  {:reason$}  {}{flaky}",
            painted(rule.result),
            rule.name,
            rule.kind,
            rule.duration_millis,
            rule.reason,
            plain(&rule.message)
        );
        text.push_str(line.trim_end());
        text.push('\n');
        for subject in &rule.subjects {
            let namespace = subject.namespace.as_ref().map(|name| format!("{name}/")).unwrap_or_default();
            let message =
                subject.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
            text.push_str(&format!(
                "         {} {namespace}{}{}\n",
                subject.kind,
                subject.name,
                plain(&message)
            ));
        }
    }
    let counts = run.summary;
    text.push_str(&format!(
        "\n{}: {} pass, {} warn, {} fail, {} error, {} skip\n",
        painted(run.outcome).trim_end(),
        counts.pass,
        counts.warn,
        counts.fail,
        counts.error,
        counts.skip
    ));
    text
}

/// What a server said must not steer the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
