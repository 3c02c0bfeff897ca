//! What is told as events: each change once, never a state.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use super::super::intent::Ended;
use super::super::run::Outcome;
use super::super::task::{InspectionTask, InspectionTaskStatus};

/// Who tells.
pub struct Teller {
    /// To whom.
    pub client: Client,
    /// In whose name.
    pub reporter: Reporter,
}

impl Teller {
    /// A recorder keeps what it wrote for minutes, to count what is said again, in a table that never gets smaller: 8 MB
    /// with a thousand tasks. What is told here is told once, so each event has its own.
    fn recorder(&self) -> Recorder {
        Recorder::new(self.client.clone(), self.reporter.clone())
    }
}

/// Tells what changed between two states of a task. An event that can't be written is no reason to stop.
pub async fn tell(teller: &Teller, task: &InspectionTask, new: &InspectionTaskStatus, ended: &[Ended]) {
    let old = task.status.clone().unwrap_or_default();
    let reference = task.object_ref(&());
    let reason = |status: &InspectionTaskStatus, name: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == name);
        found.map(|condition| (condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    };
    for name in ["Ready", "ResultsPersisted", "Reported"] {
        let (before, Some((status, word, message))) = (reason(&old, name), reason(new, name)) else {
            continue;
        };
        if before.is_some_and(|(old_status, old_word, _)| old_status == status && old_word == word) {
            continue;
        }
        match (name, status.as_str(), word.as_str()) {
            ("Ready", "True", "Scheduled") => {
                send(teller, &reference, false, "ScheduleAccepted", message).await
            }
            ("Ready", "False", _) => send(teller, &reference, true, &word, message).await,
            ("ResultsPersisted", "False", _) => {
                send(teller, &reference, true, "ResultsUnavailable", message).await;
            }
            ("Reported", "False", _) => send(teller, &reference, true, "ReportNotWritten", message).await,
            _ => {}
        }
    }
    if new.missed_runs > old.missed_runs {
        let more = new.missed_runs - old.missed_runs;
        let before = |reason: &str| old.missed_by_reason.get(reason).copied().unwrap_or_default();
        let fresh = new.missed_by_reason.iter().filter(|(reason, count)| **count > before(reason));
        let why: Vec<&str> = fresh.map(|(reason, _)| reason.as_str()).collect();
        let all = new.missed_runs;
        let note = format!("{more} runs that were due never started: {} ({all} in all)", why.join(", "));
        send(teller, &reference, true, "RunMissed", note).await;
    }
    for run in ended {
        let (bad, word) = match run.run.outcome {
            Outcome::Pass | Outcome::Warn => (false, "RunPassed"),
            Outcome::Fail => (true, "RunFailed"),
            Outcome::Error | Outcome::Skip => (true, "RunInconclusive"),
        };
        let before = old.last_run.as_ref().map(|run| run.outcome);
        // A verdict that is the same as the last one is in the status; a change of it is news.
        if before != Some(run.run.outcome) {
            let note = format!("run {}: {} findings", run.run.id, run.run.findings);
            send(teller, &reference, bad, word, note).await;
        }
        let backfilled = run.said.iter().flat_map(|said| &said.backfilled).count();
        if backfilled > 0 {
            let note = format!("{backfilled} runs that found no volume were written down");
            send(teller, &reference, false, "ResultsBackfilled", note).await;
        }
    }
}

async fn send(teller: &Teller, on: &ObjectReference, bad: bool, reason: &str, note: String) {
    let event = Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(note.chars().take(900).collect()),
        action: "Inspect".to_owned(),
        secondary: None,
    };
    if let Err(error) = teller.recorder().publish(&event, on).await {
        tracing::debug!(%error, "an event can't be written");
    }
}
