//! What the flags of `kuration inspect` mean.

use std::io::IsTerminal;

use super::LogSettings;
use crate::args::{InspectArgs, InspectOutput};
use crate::inspection::runner;

impl InspectArgs {
    /// A run's settings, and those of its log.
    pub fn meant(self) -> (runner::Settings, LogSettings) {
        let InspectArgs {
            task,
            results,
            output,
            once: _,
            namespace,
            concurrency,
            job,
            pod,
            node,
            shard,
            backfill,
            exec,
            claims,
            secrets,
            termination_log,
            log,
        } = self;
        let usual = if std::io::stdout().is_terminal() { InspectOutput::Table } else { InspectOutput::Json };
        let output = match output.unwrap_or(usual) {
            InspectOutput::Table => runner::Output::Table,
            InspectOutput::Json => runner::Output::Json,
        };
        let settings = runner::Settings {
            task,
            results,
            output,
            namespace,
            job,
            pod,
            node,
            shard,
            concurrency: concurrency.into(),
            backfill,
            exec,
            claims,
            secrets,
            termination_log,
        };
        (settings, log.into())
    }
}
