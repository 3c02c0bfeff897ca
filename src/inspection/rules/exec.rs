//! A command in an image of its own. The runner starts nothing: the command is a container beside it, which has none of its
//! rights, and leaves what it said in a directory that both see.
//!
//! The contract: `DIR/RULE/stdout` holds what the command printed (at most 64 KiB of it are read), and `DIR/RULE/exit` its
//! exit code in decimal, which appears whole (by rename) when the command has ended.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::database::millis;
use super::place::Place;
use super::sight::{Blind, Finding, Seen, Sight, Verdict};
use super::wire::{self, MOST};
use crate::inspection::task::cluster::Exec;

/// How often it is looked at whether the command has ended.
const STEP: Duration = Duration::from_millis(100);

/// Waits for the command's end, until the rule's deadline.
pub async fn look(rule: &Exec, name: &str, place: &Place) -> Seen {
    let begun = Instant::now();
    let Some(directory) = &place.exec else {
        let why = format!("{} runs as a container of the pod, which is there in a cluster alone", rule.image);
        return Err(Blind::new("NotHere", why));
    };
    let directory = directory.join(name);
    let exit = loop {
        match tokio::fs::read_to_string(directory.join("exit")).await {
            Ok(text) => break text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => tokio::time::sleep(STEP).await,
            Err(error) => {
                return Err(Blind::new("NoAnswer", format!("the command's end can't be read: {error}")));
            }
        }
    };
    let code: i32 = exit
        .trim()
        .parse()
        .map_err(|_| Blind::new("NoAnswer", format!("the command's exit code is {:?}", exit.trim())))?;
    let stdout = said(&directory.join("stdout")).await.unwrap_or_default();
    judged(code, &stdout, begun)
}

async fn said(path: &Path) -> std::io::Result<String> {
    let mut file = tokio::fs::File::open(path).await?;
    let held = wire::read_some(&mut file, MOST, |_| false).await?;
    Ok(String::from_utf8_lossy(&held).into_owned())
}

/// Exit 0, 1, 2, 3 are pass, warn, fail, error, as node-problem-detector and Nagios have it; the first line says why.
fn judged(code: i32, stdout: &str, begun: Instant) -> Seen {
    let line = stdout.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let message: String = match line {
        "" => format!("the command ended with {code}"),
        line => line.chars().take(300).collect(),
    };
    let finding =
        || Finding { reason: "CommandFound".to_owned(), message: message.clone(), subjects: Vec::new() };
    let verdict = match code {
        0 => Verdict::Pass,
        1 => Verdict::Warn(finding()),
        2 => Verdict::Fail(finding()),
        3 => return Err(Blind::new("CommandCouldNotTell", message)),
        other => {
            return Err(Blind::new("CommandFailed", format!("the command ended with {other}: {message}")));
        }
    };
    let mut result = json!({"exitCode": code, "stdout": stdout, "durationMillis": millis(begun)});
    if let Ok(json) = serde_json::from_str::<Json>(stdout) {
        result["json"] = json;
    }
    Ok(Sight::of(result, verdict))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_exit_says_how_it_came_out() {
        let of = |code| judged(code, "{\"n\": 1}", Instant::now());
        assert_eq!(of(0).unwrap().verdict, Verdict::Pass);
        assert_eq!(of(0).unwrap().result["json"]["n"], 1);
        assert!(matches!(of(1).unwrap().verdict, Verdict::Warn(_)));
        assert!(matches!(of(2).unwrap().verdict, Verdict::Fail(_)));
        assert_eq!(of(3).unwrap_err().reason, "CommandCouldNotTell");
        assert_eq!(of(137).unwrap_err().reason, "CommandFailed");
    }
}
