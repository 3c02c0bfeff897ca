//! `kubectl kuration run`: asks for a run, and waits for it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::show::{coloured, print, results, table};
use super::{KubectlError, Place};
use crate::args::Output;

/// What asks the controller for a run.
const REQUEST: &str = "kuration.io/run-requested-at";

/// How often the task is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Asks for a run of `name`. With `wait`, follows it that long; then the answer is whether it passed or warned.
pub async fn start(place: &Place, name: &str, wait: Option<Duration>) -> Result<bool, KubectlError> {
    let before = place.task(name).await?;
    let old = before.status.and_then(|status| status.last_run).map(|run| run.id);
    let request = Timestamp::now().to_string();
    let patch = json!({"metadata": {"annotations": {REQUEST: request}}});
    place.tasks().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let Some(limit) = wait else {
        print(&format!("{name}: a run is asked for; kubectl kuration results {name} shows what it finds\n"));
        return Ok(true);
    };
    let begun = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    loop {
        tokio::time::sleep(LOOK).await;
        let task = place.task(name).await?;
        let status = task.status.clone().unwrap_or_default();
        let answered = status.last_run_request.as_deref() == Some(request.as_str());
        let ended = status.last_run.as_ref().filter(|run| answered && Some(&run.id) != old.as_ref());
        if let Some(run) = ended {
            if terminal {
                eprint!("\r\u{1b}[K");
            }
            let row = vec![coloured(Some(run.outcome), place.colours), run.id.as_str().into()];
            print(&table(&["VERDICT", "RUN"], vec![row]));
            if !run.outcome.well() {
                print(&format!("\n{}", results(&task, Output::Table, place.colours)?));
            }
            return Ok(run.outcome.well());
        }
        let passed = begun.elapsed();
        if passed > limit {
            let state = if answered { "has started and not ended" } else { "was not started" };
            let advice = "kubectl kuration doctor looks for the cause";
            return Err(KubectlError::Missing(format!(
                "after {} s the run {state}: {advice}",
                passed.as_secs()
            )));
        }
        if terminal {
            let state = if answered { "running" } else { "waiting for the controller" };
            let mut out = std::io::stderr();
            // Nobody is harmed by progress that can't be shown.
            drop(write!(out, "\r\u{1b}[K{state}, {} s", passed.as_secs()).and_then(|()| out.flush()));
        }
    }
}
