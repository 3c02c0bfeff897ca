//! Flags of the kubectl plugins: `kubectl kuration` and `kubectl create inspectiontask`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use super::duration;

/// Scheduled inspections of a cluster: what runs, what it found, and why.
#[derive(Debug, Parser)]
#[command(name = "kubectl kuration", bin_name = "kubectl kuration", version, max_term_width = 110)]
pub struct KubectlArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KubectlCommand,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// `kubectl create inspectiontask`.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl create inspectiontask",
    bin_name = "kubectl create inspectiontask",
    version,
    max_term_width = 110
)]
pub struct KubectlCreateArgs {
    /// The task.
    #[command(flatten)]
    pub create: CreateArgs,
    /// Which cluster and namespace.
    #[command(flatten)]
    pub cluster: ClusterFlags,
}

/// Flags that kubectl has too.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterFlags {
    /// The namespace [default: that of the context].
    #[arg(long, short, global = true, env = "KURATION_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig.
    #[arg(long, global = true, env = "KURATION_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig [default: $KUBECONFIG, then ~/.kube/config].
    #[arg(long, global = true, env = "KURATION_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// How something is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What the plugin can do.
#[derive(Debug, Subcommand)]
pub enum KubectlCommand {
    /// List tasks and their verdicts.
    List {
        /// In all namespaces.
        #[arg(long, short = 'A')]
        all_namespaces: bool,
        /// How to print them.
        #[arg(long, short, default_value = "table")]
        output: Output,
    },
    /// Start a run now.
    Run {
        /// The task.
        name: String,
        /// Wait until it has ended; a verdict other than pass or warn is exit code 1.
        #[arg(long)]
        wait: bool,
        /// How long to wait.
        #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
        timeout: Duration,
    },
    /// Show what the last runs of a task found.
    Results {
        /// The task.
        name: String,
        /// How to print it.
        #[arg(long, short, default_value = "table")]
        output: Output,
    },
    /// Fetch a run's report from the results volume, by a pod that reads it and is deleted again.
    Report {
        /// The task.
        name: String,
        /// Of which run [default: the newest].
        #[arg(long, value_name = "ID")]
        run: Option<String>,
        /// In which form.
        #[arg(long, default_value = "html")]
        format: super::ReportFormat,
        /// Where to write it [default: standard output].
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Compare two runs of a task.
    Diff {
        /// The task.
        name: String,
        /// The id of the earlier run.
        before: String,
        /// The id of the later run.
        after: String,
        /// How to print it.
        #[arg(long, short, default_value = "table")]
        output: Output,
    },
    /// Print the log of a task's last run.
    Logs {
        /// The task.
        name: String,
        /// Of this Job instead.
        #[arg(long, value_name = "NAME")]
        job: Option<String>,
    },
    /// Look for what keeps inspections from working.
    Doctor {
        /// How to print it.
        #[arg(long, short, default_value = "table")]
        output: Output,
    },
    /// Create a task.
    Create(CreateArgs),
}

/// A task to create.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Its name.
    pub name: String,
    /// When to run: five fields as a CronJob has them, or @hourly, @daily, @weekly.
    #[arg(long, value_name = "CRON")]
    pub schedule: String,
    /// What to look at: a Service's name, or kind/name.
    #[arg(long, value_name = "TARGET")]
    pub target: String,
    /// The zone in which the schedule is meant.
    #[arg(long, value_name = "ZONE")]
    pub time_zone: Option<String>,
    /// The account that its runs have.
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<String>,
    /// Create it suspended.
    #[arg(long)]
    pub suspend: bool,
    /// Print it and create nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[arg(long, short, default_value = "table")]
    pub output: Output,
}

impl From<KubectlCreateArgs> for KubectlArgs {
    fn from(args: KubectlCreateArgs) -> Self {
        KubectlArgs { command: KubectlCommand::Create(args.create), cluster: args.cluster }
    }
}
