//! Flags as typed: what a person may write on the command line, and nothing about what it means.
//!
//! Each flag can be set by the environment too, as `KURATION_` and its name in capitals: a chart sets what is common to
//! its containers once. What is written here is checked one flag at a time; what flags mean together is for
//! [`crate::settings`].

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

mod inspect;
mod inspector;
mod kubectl;
mod report;
mod value;

pub use inspect::{InspectArgs, InspectOutput};
pub use inspector::InspectorArgs;
pub use kubectl::{ClusterFlags, CreateArgs, KubectlArgs, KubectlCommand, KubectlCreateArgs, Output};
pub use report::{ReportArgs, ReportAuth, ReportFormat, ReportLanguage};
pub use value::Pair;
use value::{duration, size};

/// What `--version` prints: the release, the specification it speaks, and how it was built. It names no commit, so the
/// same sources give the same binary wherever they were unpacked.
const VERSION: &str = {
    #[cfg(debug_assertions)]
    const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (CSI 1.13.0, Linux, debug build)");
    #[cfg(not(debug_assertions))]
    const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), " (CSI 1.13.0, Linux, release build)");
    BUILD
};

/// NFS volumes for Kubernetes: a CSI driver and an NFS provisioner in one program.
///
/// `kuration try` shows the whole life of a volume on this machine and needs nothing but this program.
#[derive(Debug, Parser)]
#[command(name = "kuration", version = VERSION, max_term_width = 110)]
pub struct Args {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// What this process is to do, by its arguments and by the name it was started under: kubectl finds a plugin by its file's
/// name, so a link is enough to install it.
pub fn command() -> Command {
    let name = std::env::args_os().next().map(PathBuf::from);
    match name.as_deref().and_then(|name| name.file_name()?.to_str()) {
        Some("kubectl-kuration") => Command::Kubectl(KubectlArgs::parse()),
        Some("kubectl-create-inspectiontask") => Command::Kubectl(KubectlCreateArgs::parse().into()),
        _ => Args::parse().command,
    }
}

/// What the program can run as.
#[derive(Debug, Subcommand)]
// One value of it exists, for a moment, at the start.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    /// Serve the controller's part of CSI: volumes are created, published, expanded and deleted.
    ///
    /// Runs beside the provisioner, attacher and resizer sidecars. Two may work at once: nothing rests on the memory of
    /// one process.
    Controller(ControllerArgs),
    /// Serve the node's part of CSI: volumes are mounted where pods can see them.
    ///
    /// Runs once on each node, and registers itself with the kubelet there (--kubelet-registration) or has the registrar
    /// sidecar do it.
    Node(NodeArgs),
    /// Serve both parts on one socket, in one process on one machine.
    All(AllArgs),
    /// Take a volume through its whole life and show each step.
    ///
    /// Without flags this happens in a pool in a temporary place, which is removed afterwards. With --server and --share
    /// it happens on your own NFS server, and needs root.
    Try(TryArgs),
    /// Measure a CSI driver: any that serves a socket.
    Bench(BenchArgs),
    /// Look after InspectionTasks: a CronJob for each, and what became of its runs.
    Inspector(InspectorArgs),
    /// Print the definition of InspectionTask, for kubectl apply.
    Crd(CrdArgs),
    /// Carry out an inspection: evaluate the rules of an InspectionTask once, and say what was found.
    ///
    /// In a cluster the controller starts it as a Job. By hand, `kuration inspect -f task.yaml` prints a table and needs
    /// no cluster for rules that look at hosts.
    Inspect(InspectArgs),
    /// Serve a page over the results of inspections, or write one report.
    Report(ReportArgs),
    /// What `kubectl kuration` does, where this program is not installed as that plugin.
    Kubectl(KubectlArgs),
    /// Run the command of an exec rule, in the command's own container. The controller starts these by itself.
    #[command(hide = true)]
    Exec(ExecArgs),
    /// Do the driver's work that may hang, where it can be killed. The driver starts these by itself.
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// Flags of `kuration crd`.
#[derive(Debug, clap::Args)]
pub struct CrdArgs {
    /// Print the JSON Schema of a run's record (run.json) instead.
    #[arg(long, env = "KURATION_RUN_SCHEMA")]
    pub run_schema: bool,
}

/// Flags of `kuration controller`.
#[derive(Debug, clap::Args)]
pub struct ControllerArgs {
    /// Those of every driver process.
    #[command(flatten)]
    pub shared: SharedFlags,
    /// Those of a controller.
    #[command(flatten)]
    pub controller: ControllerFlags,
}

/// Flags of `kuration node`.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// Those of every driver process.
    #[command(flatten)]
    pub shared: SharedFlags,
    /// Those of a node.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// Flags of `kuration all`.
#[derive(Debug, clap::Args)]
pub struct AllArgs {
    /// Those of every driver process.
    #[command(flatten)]
    pub shared: SharedFlags,
    /// Those of a controller.
    #[command(flatten)]
    pub controller: ControllerFlags,
    /// Those of a node.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// Flags of every process that serves CSI.
#[derive(Debug, clap::Args)]
pub struct SharedFlags {
    /// Where to serve CSI: unix:///an/absolute/path.sock (CSI_ENDPOINT is read as well).
    #[arg(long, env = "KURATION_ENDPOINT", value_name = "URI")]
    pub endpoint: Option<String>,
    /// The variable that the CSI specification names for the endpoint. clap reads one variable per flag, hence this one.
    #[arg(long, env = "CSI_ENDPOINT", hide = true)]
    pub csi_endpoint: Option<String>,
    /// The driver's name [default: nfs.csi.kuration.io, with --pool pool.csi.kuration.io].
    #[arg(long, env = "KURATION_DRIVER_NAME", value_name = "NAME")]
    pub driver_name: Option<String>,
    /// Whose volumes these are.
    ///
    /// Several clusters may use one export: each sees and deletes the volumes of its own installation alone.
    #[arg(long, env = "KURATION_INSTALLATION", value_name = "NAME", default_value = "default")]
    pub installation: String,
    /// Where the driver keeps its own mounts and what it has seen.
    #[arg(long, env = "KURATION_STATE_DIR", value_name = "DIR", default_value = "/var/lib/kuration")]
    pub state_dir: PathBuf,
    /// Serve /livez, /readyz and /metrics over HTTP at this address.
    #[arg(long, env = "KURATION_ADMIN", value_name = "ADDRESS:PORT")]
    pub admin: Option<SocketAddr>,
    /// How long requests under way may take to finish after SIGTERM.
    #[arg(long, env = "KURATION_GRACE", value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub grace: Duration,
    /// How long one operation on a server may take, where its request allows that long.
    #[arg(long, env = "KURATION_OPERATION_TIMEOUT", value_name = "TIME", default_value = "30s",
          value_parser = duration)]
    pub operation_timeout: Duration,
    /// Which volumes the driver has.
    #[command(flatten)]
    pub backend: BackendFlags,
    /// What it tells of itself.
    #[command(flatten)]
    pub log: LogFlags,
}

/// Flags that say where volumes live.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Volumes")]
pub struct BackendFlags {
    /// An export that is known in advance (may be repeated).
    ///
    /// The options after it are those it is mounted with. Exports named by a StorageClass need not stand here; an id of a
    /// volume whose export is too long to stand in it is found through this list.
    #[arg(long, env = "KURATION_SHARE", value_name = "SERVER:/PATH[,OPTION…]", value_delimiter = ';')]
    pub share: Vec<String>,
    /// A server that classes and static volumes may name: a host, *.domain, an address or a network (may be repeated).
    ///
    /// Where none is given, they may name any. Names are compared with names, in any case, and addresses with addresses: a
    /// name does not allow the address it stands for, nor an address its names. Volumes that exist already can still be
    /// deleted.
    #[arg(long, env = "KURATION_ALLOW_SERVER", value_name = "PATTERN", value_delimiter = ',')]
    pub allow_server: Vec<String>,
    /// Mount options that every mount begins with; those of the export and of the class come after and win.
    #[arg(long, env = "KURATION_MOUNT_OPTIONS", value_name = "LIST")]
    pub mount_options: Option<String>,
    /// Keep the volumes in this directory, as a pool of this driver's own, instead of on NFS exports.
    #[arg(long, env = "KURATION_POOL", value_name = "DIR")]
    pub pool: Option<PathBuf>,
    /// Make a file system of this size in a file in the pool's directory, and keep the volumes there.
    ///
    /// For a directory whose own file system has neither quotas nor snapshots. Made once; found again at each start.
    #[arg(long, env = "KURATION_POOL_IMAGE", value_name = "SIZE", value_parser = size)]
    pub pool_image: Option<u64>,
    /// The file system to make in the pool's image [default: auto].
    #[arg(long, env = "KURATION_POOL_FILESYSTEM", value_name = "KIND")]
    pub pool_filesystem: Option<PoolFilesystem>,
    /// How much of a pool may be promised: 1.5 lets volumes add up to one and a half times its size [default: 1.0].
    #[arg(long, env = "KURATION_OVERCOMMIT", value_name = "RATIO")]
    pub overcommit: Option<f64>,
}

/// The file system of a pool's image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PoolFilesystem {
    /// Whichever this machine can make and mount, xfs first: its limits show in df.
    #[default]
    Auto,
    /// Subvolumes with quota groups.
    Btrfs,
    /// Directories with project quotas.
    Xfs,
}

/// Flags about logs.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct LogFlags {
    /// How much to log: 0 little, 2 one line per request, 4 for debugging, 6 requests, 7 headers, 8 contents.
    ///
    /// Secrets are left out at every level.
    #[arg(long, short, env = "KURATION_V", value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(0..=10))]
    pub v: u8,
    /// What to log, part by part (warn,kuration::mount=trace); counts instead of --v.
    #[arg(long, env = "KURATION_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// The form of a line.
    #[arg(long, env = "KURATION_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Flags of a controller.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Controller")]
pub struct ControllerFlags {
    /// A node that volumes may be published to (may be repeated).
    ///
    /// Where any is given, all others are unknown. `kuration all` knows its own node and those given here.
    #[arg(long, env = "KURATION_KNOWN_NODE", value_name = "ID", value_delimiter = ',')]
    pub known_node: Vec<String>,
    /// How long a deleted volume can still be brought back.
    #[arg(long, env = "KURATION_TRASH_LIFETIME", value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub trash_lifetime: Duration,
    /// How often to look for deleted volumes whose time is over.
    #[arg(long, env = "KURATION_REAP_INTERVAL", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub reap_interval: Duration,
    /// Use the cluster's API server: by the account of this pod, or by the file that KUBECONFIG names.
    ///
    /// Volumes are served all the same while it does not answer.
    #[arg(long, env = "KURATION_KUBERNETES")]
    pub kubernetes: bool,
    /// Take the taint DRIVER/agent-not-ready off a node once the driver is registered there (needs --kubernetes).
    #[arg(long, env = "KURATION_STARTUP_TAINT")]
    pub startup_taint: bool,
    /// Empty the trash, and watch whose volumes are, only while this process holds this Lease (needs --kubernetes).
    ///
    /// It is made if need be. Without it each process does, which does no harm.
    #[arg(long, env = "KURATION_LEASE", value_name = "NAMESPACE/NAME")]
    pub lease: Option<String>,
}

/// Flags of a node.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Node")]
pub struct NodeFlags {
    /// The name by which the controller knows this node; in Kubernetes the node's name.
    #[arg(long, env = "KURATION_NODE_ID", value_name = "ID")]
    pub node_id: String,
    /// How many volumes may be on this node at once; 0 means that there is no limit.
    #[arg(long, env = "KURATION_MAX_VOLUMES_PER_NODE", value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub max_volumes_per_node: u64,
    /// A part of where this node stands, such as topology.kubernetes.io/zone=a (may be repeated).
    #[arg(long, env = "KURATION_TOPOLOGY", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub topology: Vec<Pair>,
    /// Register with the kubelet, without a registrar sidecar: DIR is the kubelet's plugins_registry as this process sees
    /// it.
    #[arg(long, env = "KURATION_KUBELET_REGISTRATION", value_name = "DIR")]
    pub kubelet_registration: Option<PathBuf>,
    /// The endpoint's socket as the kubelet sees it [default: the endpoint's own path].
    #[arg(long, env = "KURATION_KUBELET_ENDPOINT", value_name = "PATH")]
    pub kubelet_endpoint: Option<PathBuf>,
    /// Allow inline ephemeral volumes, on this export.
    ///
    /// A Pod says only how large its volume is; made with the Pod, it is removed with it. All nodes should have the same.
    #[arg(long, env = "KURATION_INLINE_SHARE", value_name = "SERVER:/PATH[,OPTION…]")]
    pub inline_share: Option<String>,
    /// Allow inline ephemeral volumes, in the pool.
    #[arg(long, env = "KURATION_INLINE_POOL")]
    pub inline_pool: bool,
    /// The largest inline volume that a Pod may ask for, and the size of one that asks for none [default: 1GiB].
    #[arg(long, env = "KURATION_INLINE_LIMIT", value_name = "SIZE", value_parser = size)]
    pub inline_limit: Option<u64>,
}

/// Flags of `kuration try`.
#[derive(Debug, clap::Args)]
pub struct TryArgs {
    /// Try it on this NFS server.
    #[arg(long, env = "KURATION_SERVER", value_name = "HOST", requires = "share")]
    pub server: Option<String>,
    /// The path that the server exports.
    #[arg(long, env = "KURATION_SHARE", value_name = "/PATH", requires = "server")]
    pub share: Option<String>,
    /// Options to mount it with.
    #[arg(long, env = "KURATION_MOUNT_OPTIONS", value_name = "LIST", requires = "server")]
    pub mount_options: Option<String>,
    /// Print one JSON document, for machines.
    #[arg(long, env = "KURATION_JSON")]
    pub json: bool,
    /// What the driver logs meanwhile, part by part (kuration=debug) [default: nothing but warnings].
    #[arg(long, env = "KURATION_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// Flags of `kuration bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// The driver's socket: unix:///an/absolute/path.sock.
    #[arg(long, env = "KURATION_ENDPOINT", value_name = "URI")]
    pub endpoint: String,
    /// How many volumes to take through their whole life.
    #[arg(long, env = "KURATION_COUNT", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// How many of them at a time.
    #[arg(long, env = "KURATION_CONCURRENCY", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub concurrency: u32,
    /// The size of each.
    #[arg(long, env = "KURATION_SIZE", value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub size: u64,
    /// A parameter, as a StorageClass would have it (may be repeated).
    #[arg(long, env = "KURATION_PARAMETER", value_name = "KEY=VALUE", value_delimiter = ';')]
    pub parameter: Vec<Pair>,
    /// A secret to send with each request (may be repeated). Other users of this machine see a command line: prefer the
    /// environment.
    #[arg(
        long,
        env = "KURATION_SECRET",
        value_name = "KEY=VALUE",
        value_delimiter = ';',
        hide_env_values = true
    )]
    pub secret: Vec<Pair>,
    /// A mount option, as a StorageClass would have it (may be repeated).
    #[arg(long, env = "KURATION_MOUNT_FLAG", value_name = "OPTION", value_delimiter = ',')]
    pub mount_flag: Vec<String>,
    /// Measure the bare system calls too, on the export of the parameters server and share (needs root).
    #[arg(long, env = "KURATION_RAW")]
    pub raw: bool,
    /// Print one JSON object, for machines.
    #[arg(long, env = "KURATION_JSON")]
    pub json: bool,
}

/// Flags of `kuration exec`.
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// Put this program into a directory, for containers that have another image.
    #[arg(long, value_name = "DIR", exclusive = true)]
    pub install: Option<PathBuf>,
    /// Where to leave what the command printed, and its exit code.
    #[arg(long, value_name = "DIR", required_unless_present = "install")]
    pub into: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "install")]
    pub command: Vec<OsString>,
}

/// Flags of `kuration worker`.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// What to work on.
    pub role: Role,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Volumes on one export.
    Share,
    /// Mounts of a node.
    Mount,
    /// What is kept of inspections.
    Results,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_can_be_set_by_the_environment() {
        // But for what this program itself starts: nobody's environment is to change that.
        for command in Args::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            for flag in command.get_arguments().filter(|a| a.get_long().is_some_and(|l| l != "csi-endpoint"))
            {
                let wanted = format!("KURATION_{}", flag.get_id().as_str().to_uppercase());
                let found = flag.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(found, Some(wanted), "of {}", command.get_name());
            }
        }
    }
}
