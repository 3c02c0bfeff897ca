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
            shards,
            nodes,
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
        // Kubernetes gives each pod of an Indexed Job its number.
        let indexed = || std::env::var("JOB_COMPLETION_INDEX").ok().and_then(|index| index.parse().ok());
        let settings = runner::Settings {
            task,
            results,
            output,
            namespace,
            job,
            pod,
            node,
            shard: shard.or_else(indexed),
            shards,
            nodes,
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
