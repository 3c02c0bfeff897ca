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
    /// The StorageClass of claims for results, for tasks that name none [default: one of the driver, else the cluster's].
    #[arg(long, env = "KURATION_RESULTS_CLASS", value_name = "NAME")]
    pub results_class: Option<String>,
    /// The size of such a claim.
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
    /// What it tells of itself.
    #[command(flatten)]
    pub log: LogFlags,
}
