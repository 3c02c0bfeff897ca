//! How a trial is told: a line per step as it happens, or one JSON document at the end.

use std::future::Future;
use std::io::{self, Write};
use std::time::Instant;

use serde::Serialize;

use super::abilities::Finding;

/// One step of the trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its name, for machines.
    pub name: &'static str,
    /// Whether all was as it should be.
    pub ok: bool,
    /// How long it took, in milliseconds.
    pub millis: f64,
    /// What was seen, or what went wrong in the driver's own words.
    pub detail: String,
}

/// What the trial is about, said before the first step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Surroundings {
    /// Where volumes are kept.
    pub backend: String,
    /// As whom.
    pub standing: String,
}

/// Whether the driver would work here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether it would.
    pub works: bool,
    /// The same in a sentence.
    pub summary: String,
}

/// The document that `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    kuration: &'static str,
    #[serde(flatten)]
    surroundings: &'a Surroundings,
    steps: &'a [Step],
    /// What the server can do, where one was tried.
    #[serde(skip_serializing_if = "<[Finding]>::is_empty")]
    findings: &'a [Finding],
    verdict: &'a Verdict,
    /// The end of the driver's log, where something failed.
    log: &'a [String],
}

/// A step that failed, and how; the trial goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) step: &'static str,
    pub(super) why: String,
}

/// Tells the steps, and keeps them.
pub(super) struct Teller {
    json: bool,
    surroundings: Surroundings,
    steps: Vec<Step>,
    findings: Vec<Finding>,
    failed: Option<Failed>,
}

/// The steps' names, and what a person reads instead.
const TITLES: [(&str, &str); 21] = [
    ("start", "start the driver"),
    ("versions", "ask which NFS versions there are"),
    ("create", "create a volume"),
    ("publish", "publish it to this node"),
    ("stage", "stage it on this node"),
    ("node-publish", "publish it to a pod"),
    ("write", "the pod writes a file"),
    ("squash", "see who root is there"),
    ("abilities", "see what the server can do"),
    ("stats", "ask for its size and use"),
    ("fill", "write more than its size"),
    ("expand", "expand it"),
    ("fill-again", "write that much again"),
    ("second-consumer", "a second pod reads and writes"),
    ("node-unpublish", "unpublish it from the pods"),
    ("unstage", "unstage it"),
    ("unpublish", "unpublish it from this node"),
    ("delete", "delete it"),
    ("nothing-left", "look for what is left behind"),
    ("stop", "stop the driver"),
    ("clean", "remove the temporary directory"),
];

impl Teller {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            surroundings: Surroundings::default(),
            steps: Vec::new(),
            findings: Vec::new(),
            failed: None,
        }
    }

    pub(super) fn failed(&self) -> Option<&Failed> {
        self.failed.as_ref()
    }

    /// Says where and as whom.
    pub(super) fn open(&mut self, surroundings: Surroundings) {
        self.surroundings = surroundings;
        let Surroundings { backend, standing } = &self.surroundings;
        self.line(&format!(
            "kuration {}: a volume's life, step by step, as Kubernetes would drive it\n\n  \
             volumes  {backend}\n  as       {standing}",
            env!("CARGO_PKG_VERSION"),
        ));
        self.line("");
    }

    /// Puts right what was said before the first step. A person was told in the step that found out.
    pub(super) fn correct(&mut self, surroundings: Surroundings) {
        self.surroundings = surroundings;
    }

    /// Keeps what was found out about the server, for machines.
    pub(super) fn found(&mut self, findings: Vec<Finding>) {
        self.findings = findings;
    }

    /// Takes a step and tells how it went. Of several failures the first one counts.
    pub(super) async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(T, String), String>>,
    ) -> Result<T, Failed> {
        let start = Instant::now();
        let outcome = work.await;
        let millis = start.elapsed().as_micros() as f64 / 1000.0;
        let (ok, detail, outcome) = match outcome {
            Ok((value, detail)) => (true, detail, Ok(value)),
            Err(why) => (false, why.clone(), Err(Failed { step: name, why })),
        };
        if let Err(failed) = &outcome {
            self.failed.get_or_insert_with(|| failed.clone());
        }
        let mark = if ok { "ok" } else { "FAILED" };
        let mut lines = detail.lines();
        self.line(&format!("  {mark:6} {:32} {millis:>9.1} ms  {}", title(name), lines.next().unwrap_or("")));
        for more in lines {
            self.line(&format!("{:55}{more}", ""));
        }
        self.steps.push(Step { name, ok, millis, detail });
        outcome
    }

    /// Says how it ended, with the end of the driver's log where it did not end well.
    pub(super) fn close(&self, verdict: &Verdict, log: &[String]) -> io::Result<()> {
        if self.json {
            let Self { surroundings, steps, findings, .. } = self;
            let kuration = env!("CARGO_PKG_VERSION");
            let document = Document { kuration, surroundings, steps, findings, verdict, log };
            let text = serde_json::to_string_pretty(&document)?;
            return writeln!(io::stdout().lock(), "{text}");
        }
        if !log.is_empty() {
            self.line("\nThe driver's log ends with:");
            for line in log {
                self.line(&format!("  {line}"));
            }
        }
        self.line(&format!("\n{}", verdict.summary));
        Ok(())
    }

    /// A line for a person. One that nobody reads (a pipe that was closed) must not end the trial before it has tidied up.
    fn line(&self, text: &str) {
        if !self.json {
            drop(writeln!(io::stdout().lock(), "{}", text.trim_end()));
        }
    }
}

fn title(name: &'static str) -> &'static str {
    TITLES.iter().find(|(known, _)| *known == name).map_or(name, |(_, title)| title)
}

/// A size as a person reads it.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_the_one_that_counts() {
        let mut teller = Teller::new(true);
        assert_eq!(teller.step("create", async { Ok((7, "made".to_owned())) }).await, Ok(7));
        for (step, why) in [("stage", "no"), ("delete", "neither")] {
            teller.step::<()>(step, async { Err(why.to_owned()) }).await.unwrap_err();
        }
        assert_eq!(teller.failed(), Some(&Failed { step: "stage", why: "no".to_owned() }));
        assert_eq!(teller.steps.iter().map(|step| step.ok).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn titles_fit_their_column() {
        assert!(TITLES.iter().all(|(_, title)| title.len() <= 32));
    }
}
