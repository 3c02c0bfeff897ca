//! Flags of `kuration report`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;

use super::LogFlags;

/// Flags of `kuration report`.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// The results volume to serve: the directory it is mounted at.
    #[arg(long, env = "KURATION_RESULTS", value_name = "DIR", default_value = "/results")]
    pub results: PathBuf,
    /// Write one report and end: of the task whose directory this is, NAMESPACE/TASK-UID on a results volume.
    #[arg(long, env = "KURATION_ONCE", value_name = "DIR")]
    pub once: Option<PathBuf>,
    /// Of which run [default: the newest].
    #[arg(long, env = "KURATION_RUN", value_name = "ID", requires = "once")]
    pub run: Option<String>,
    /// In which form.
    #[arg(long, env = "KURATION_FORMAT", value_name = "FORMAT", requires = "once", default_value = "html")]
    pub format: ReportFormat,
    /// Where to write it [default: standard output].
    #[arg(long, short = 'o', env = "KURATION_OUTPUT", value_name = "FILE", requires = "once")]
    pub output: Option<PathBuf>,
    /// The language that a report opens in; both are in it.
    #[arg(long, env = "KURATION_LANGUAGE", value_name = "LANGUAGE", default_value = "en")]
    pub language: ReportLanguage,
    /// Where to serve pages. [::] stands for every address, of IPv4 too, also on a kernel without IPv6.
    #[arg(long, env = "KURATION_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Who decides who may see what.
    #[arg(long, env = "KURATION_AUTH", value_name = "HOW", default_value = "kubernetes")]
    pub auth: ReportAuth,
    /// What it tells of itself.
    #[command(flatten)]
    pub log: LogFlags,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A page for people.
    Html,
    /// The run as it is kept.
    Json,
    /// For CI systems.
    Junit,
    /// A Report of openreports.io, for policy dashboards.
    Openreports,
}

/// A language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportLanguage {
    /// English.
    En,
    /// Chinese.
    Zh,
}

/// Who decides who may see what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportAuth {
    /// Whoever may get inspectiontasks in a namespace, as TokenReview and SubjectAccessReview say of a bearer token.
    Kubernetes,
    /// Nobody: who reaches the address sees everything.
    None,
}
