//! Flags of `kuration inspector`.

use std::net::SocketAddr;

use super::LogFlags;

/// Flags of `kuration inspector`.
#[derive(Debug, clap::Args)]
pub struct InspectorArgs {
    /// The image of the pods that inspect: this program's.
    #[arg(long, env = "KURATION_IMAGE", value_name = "IMAGE")]
    pub image: String,
    /// When that image is pulled.
    #[arg(long, env = "KURATION_IMAGE_PULL_POLICY", value_name = "POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// A Secret to pull images of those pods with, in each task's own namespace, beside those of the task (may be repeated).
    #[arg(long, env = "KURATION_IMAGE_PULL_SECRET", value_name = "NAME", value_delimiter = ',')]
    pub image_pull_secret: Vec<String>,
    /// The StorageClass of claims for results, for tasks that name none [default: one of the driver, else the cluster's].
    #[arg(long, env = "KURATION_RESULTS_CLASS", value_name = "NAME")]
    pub results_class: Option<String>,
    /// The size of such a claim: a whole number of bytes, or of k, M, G, T, P, Ki, Mi, Gi, Ti or Pi.
    #[arg(long, env = "KURATION_RESULTS_SIZE", value_name = "SIZE", default_value = "1Gi")]
    pub results_size: String,
    /// The ClusterRole that the account of tasks that name none is bound to, in each namespace.
    #[arg(long, env = "KURATION_ROLE", value_name = "NAME", default_value = "kuration-inspector-view")]
    pub role: String,
    /// The namespace of the lease by which one of several replicas works.
    #[arg(long, env = "KURATION_NAMESPACE", value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Who this replica is: its pod.
    #[arg(long, env = "KURATION_POD", value_name = "NAME", default_value = "inspector")]
    pub pod: String,
    /// Serve /livez, /readyz and /metrics over HTTP at this address.
    #[arg(long, env = "KURATION_ADMIN", value_name = "ADDRESS:PORT")]
    pub admin: Option<SocketAddr>,
    /// What it tells of itself; runs log as much.
    #[command(flatten)]
    pub log: LogFlags,
}
