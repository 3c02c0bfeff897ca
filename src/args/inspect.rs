//! Flags of `kuration inspect`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::LogFlags;

/// Flags of `kuration inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The InspectionTask, as YAML or JSON.
    #[arg(
        long,
        short = 'f',
        env = "KURATION_TASK",
        value_name = "FILE",
        default_value = "/etc/kuration/task.json"
    )]
    pub task: PathBuf,
    /// The volume to keep the results on: in NAMESPACE/TASK-UID8 beneath it.
    #[arg(long, env = "KURATION_RESULTS", value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// What to print [default: table on a terminal, else json].
    #[arg(long, short, env = "KURATION_OUTPUT", value_name = "FORM")]
    pub output: Option<InspectOutput>,
    /// End with 1 where the verdict is fail or error. Without it a run that found something out has succeeded.
    #[arg(long, env = "KURATION_ONCE")]
    pub once: bool,
    /// The namespace to look in, where it is not the task's.
    #[arg(long, short, env = "KURATION_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// How many rules look at once.
    #[arg(long, env = "KURATION_CONCURRENCY", value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
    /// The name of the Job, from which the run has its id.
    #[arg(long, env = "KURATION_JOB", value_name = "NAME", help_heading = "In a pod")]
    pub job: Option<String>,
    /// The name of the pod.
    #[arg(long, env = "KURATION_POD", value_name = "NAME", help_heading = "In a pod")]
    pub pod: Option<String>,
    /// The node that the pod is on.
    #[arg(long, env = "KURATION_NODE", value_name = "NAME", help_heading = "In a pod")]
    pub node: Option<String>,
    /// Which of the pods of a run on every node this is.
    #[arg(long, env = "KURATION_SHARD", value_name = "INDEX", help_heading = "In a pod")]
    pub shard: Option<u32>,
    /// How many pods a run on every node has.
    #[arg(long, env = "KURATION_SHARDS", value_name = "N", help_heading = "In a pod")]
    pub shards: Option<u32>,
    /// The nodes that they are meant for, by commas: so that those can be named from which nothing was heard.
    #[arg(
        long,
        env = "KURATION_NODES",
        value_name = "NAMES",
        value_delimiter = ',',
        help_heading = "In a pod"
    )]
    pub nodes: Vec<String>,
    /// A directory of termination messages of runs that found no volume, to be written down now.
    #[arg(long, env = "KURATION_BACKFILL", value_name = "DIR", help_heading = "In a pod")]
    pub backfill: Option<PathBuf>,
    /// Where the containers of exec rules leave what they said.
    #[arg(long, env = "KURATION_EXEC", value_name = "DIR", help_heading = "In a pod")]
    pub exec: Option<PathBuf>,
    /// Where the claims of volume probes are mounted, a directory for each.
    #[arg(long, env = "KURATION_CLAIMS", value_name = "DIR", help_heading = "In a pod")]
    pub claims: Option<PathBuf>,
    /// Where Secrets are mounted: a directory for each, a file for each key. Those that are not there are asked for.
    #[arg(
        long,
        env = "KURATION_SECRETS",
        value_name = "DIR",
        default_value = "/etc/kuration/secrets",
        help_heading = "In a pod"
    )]
    pub secrets: PathBuf,
    /// Where the pod says its last word, of at most 4096 bytes.
    #[arg(long, env = "KURATION_TERMINATION_LOG", value_name = "FILE", help_heading = "In a pod")]
    pub termination_log: Option<PathBuf>,
    /// What it tells of itself.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What `kuration inspect` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InspectOutput {
    /// A line for each rule.
    Table,
    /// The whole run, in one line.
    Json,
}
