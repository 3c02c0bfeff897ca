//! A command in an image of its own. The runner starts nothing: the command is a container beside it, which has none of its
//! rights, and leaves what it said in a directory that both see.
//!
//! The contract: `DIR/RULE/stdout` holds what the command printed (at most 64 KiB of it are read), and `DIR/RULE/exit` its
//! exit code in decimal, which appears whole (by rename) when the command has ended. [`run`] keeps it, in the command's container:
//! [`install`] has put this program there, which needs nothing of the image.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::database::millis;
use super::place::Place;
use super::sight::{Blind, Finding, Seen, Sight, Verdict};
use super::wire::{self, MOST};
use crate::inspection::task::cluster::Exec;

/// How often it is looked at whether the command has ended.
const STEP: Duration = Duration::from_millis(100);

/// Puts this program into `directory`, as `kuration`.
pub fn install(directory: &Path) -> io::Result<()> {
    fs::copy("/proc/self/exe", directory.join("kuration")).map(|_| ())
}

/// Runs a command and leaves in `into` what the runner reads. A command that can't be started could not tell: 3. One that a signal
/// ends has 128 and the signal's number, as in a shell.
///
/// # Errors
/// The directory can't be written to.
pub fn run(into: &Path, command: &[OsString]) -> io::Result<()> {
    let mut stdout = File::create(into.join("stdout"))?;
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let started = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let code = match started {
        Ok(mut child) => {
            if let Some(mut printed) = child.stdout.take() {
                io::copy(&mut (&mut printed).take(MOST as u64), &mut stdout)?;
                // What is more is not kept, but a command that is not read from would wait for ever.
                io::copy(&mut printed, &mut io::sink())?;
            }
            let status = child.wait()?;
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
        }
        Err(error) => {
            writeln!(stdout, "{} can't be started: {error}", program.display())?;
            3
        }
    };
    fs::write(into.join(".exit"), code.to_string())?;
    fs::rename(into.join(".exit"), into.join("exit"))
}

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

    #[test]
    fn what_a_command_prints_and_how_it_ends_is_left_for_the_runner() {
        let place = tempfile::tempdir().unwrap();
        let left = |command: &[&str]| {
            run(place.path(), &command.iter().map(OsString::from).collect::<Vec<_>>()).unwrap();
            let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
            (read("exit"), read("stdout"))
        };
        assert_eq!(left(&["sh", "-c", "echo two; exit 2"]), ("2".into(), "two\n".into()));
        assert_eq!(left(&["sh", "-c", "kill -9 $$"]), ("137".into(), String::new()));
        let (exit, stdout) = left(&["/no/such/command"]);
        assert!(exit == "3" && stdout.contains("can't be started"), "{exit}: {stdout}");
        let (exit, stdout) = left(&["head", "-c", "200000", "/dev/zero"]);
        assert_eq!((exit.as_str(), stdout.len()), ("0", MOST));
    }
}
