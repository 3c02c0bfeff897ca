//! The cluster, what the environment says of it, and the chart installed on it.
//!
//! | variable | default | |
//! |---|---|---|
//! | `KUBECONFIG` | as kubectl's | a cluster, and the right to do everything there |
//! | `KURATION_CHART` | charts/kuration-csi | the chart to install |
//! | `KURATION_VALUES` | none | a file of values that come last: a registry, say |
//! | `KURATION_POOL_NODE` | the first node by name that is not below | where the pool is |
//! | `KURATION_POOL_DIRECTORY` | /var/lib/kuration-pool | its directory there, on xfs with prjquota or btrfs |
//! | `KURATION_NFS_NODES` | nfs | nodes with an NFS client, by commas |
//! | `KURATION_NFS_SHARE` | 198.51.100.2:/xfs | an export that root may write |
//! | `KURATION_AUDIT_LOG` | none | the API server's audit log, where this process can read it |
//! | `KURATION_CLUSTER_TOOLS` | none | the folder of the programs `cluster` and `nfs-node`, for cases that break machines |

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::driver::{self, Driver};
use super::objects;

/// Where the chart is installed, and as what.
pub const RELEASE: &str = "kuration";
pub const NAMESPACE: &str = "kuration-system";

/// How many controllers of shares the suite installs.
pub const CONTROLLERS: usize = 2;

/// A node with an NFS client that a case adds, and takes away again.
pub const LATER_NODE: &str = "nfs3";

/// What is known of the cluster.
#[derive(Debug, Clone)]
pub struct Site {
    pub pool_node: String,
    pub nfs_nodes: Vec<String>,
    /// The export's server and path.
    pub nfs_server: String,
    pub nfs_share: String,
}

/// A variable's value; empty is as good as none.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The path of something in this repository.
pub fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(variable("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").to_owned()))
        .join(path)
}

/// The chart under test.
pub fn chart() -> PathBuf {
    variable("KURATION_CHART").map_or_else(|| in_repository("charts/kuration-csi"), PathBuf::from)
}

/// A program's standard output; its words where it fails.
pub fn output(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() {
        return Ok(said(&done.stdout));
    }
    Err(format!("{command:?} ended with {}: {} {}", done.status, said(&done.stdout), said(&done.stderr)))
}

/// Helm, for a release's namespace.
pub fn helm(namespace: &str, arguments: &[&str]) -> Result<String, String> {
    output(Command::new("helm").args(["--namespace", namespace]).args(arguments))
}

/// Values as a file that is gone with the handle.
pub fn values(values: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a file");
    std::fs::write(file.path(), values.to_string()).expect("a file written");
    file
}

/// The programs that keep the test cluster's machines.
pub fn tool(name: &str) -> Command {
    let folder = variable("KURATION_CLUSTER_TOOLS").expect(
        "this case breaks machines and needs KURATION_CLUSTER_TOOLS, the folder of this repository's tests/cluster, and a \
         cluster made by it; leave such cases out by --skip machines",
    );
    Command::new(PathBuf::from(folder).join(name))
}

impl Site {
    /// The cluster, with the chart installed. Once per process; a second call returns what the first found.
    pub async fn ready(client: &Client) -> Self {
        static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
        let site = Self::found(client).await;
        // Blocks this test's thread, and those of all others that come meanwhile: nothing can go on before.
        if let Err(error) = INSTALLED.get_or_init(|| site.install()) {
            // Past the harness, which keeps what a case prints for the end: there is no case without the chart.
            drop(writeln!(std::io::stderr(), "the chart could not be installed: {error}"));
            std::process::exit(1);
        }
        driver::make_classes(client, &site).await;
        site
    }

    /// The cluster as it is.
    async fn found(client: &Client) -> Self {
        let nfs_nodes = variable("KURATION_NFS_NODES").unwrap_or_else(|| "nfs".to_owned());
        let nfs_nodes: Vec<String> = nfs_nodes.split(',').map(str::to_owned).collect();
        let export = variable("KURATION_NFS_SHARE").unwrap_or_else(|| "198.51.100.2:/xfs".to_owned());
        let (nfs_server, nfs_share) = export.rsplit_once(':').expect("KURATION_NFS_SHARE is server:/path");
        let nodes = Api::<Node>::all(client.clone()).list(&Default::default()).await.expect(
            "the cluster can't be reached: KUBECONFIG must name one, on which its user may do everything",
        );
        let mut others: Vec<String> = nodes.items.into_iter().filter_map(|node| node.metadata.name).collect();
        others.retain(|node| !nfs_nodes.contains(node));
        others.sort();
        let pool_node =
            variable("KURATION_POOL_NODE").or(others.into_iter().next()).expect("a node for the pool");
        Self { pool_node, nfs_nodes, nfs_server: nfs_server.to_owned(), nfs_share: nfs_share.to_owned() }
    }

    /// The pool's directory on its node.
    pub fn pool_directory(&self) -> String {
        variable("KURATION_POOL_DIRECTORY").unwrap_or_else(|| "/var/lib/kuration-pool".to_owned())
    }

    /// The values that the suite installs.
    pub fn values(&self) -> Value {
        let may_have_nfs = [self.nfs_nodes.as_slice(), &[LATER_NODE.to_owned()]].concat();
        json!({
            "nfs": {
                "enabled": true,
                // Only there can an export be mounted.
                "controller": { "replicas": CONTROLLERS, "affinity": objects::among(&self.nfs_nodes) },
                "node": { "affinity": objects::among(&may_have_nfs) },
                "inline": { "enabled": false },
            },
            "pool": {
                "enabled": true,
                "nodeName": self.pool_node,
                "directory": self.pool_directory(),
                "inline": { "enabled": true },
            },
        })
    }

    fn install(&self) -> Result<(), String> {
        let ours = values(&self.values());
        let ours = ours.path().to_str().expect("a path of letters");
        let chart = chart();
        let chart = chart.to_str().expect("a path of letters");
        let mut arguments =
            vec!["upgrade", "--install", RELEASE, chart, "--create-namespace", "--values", ours];
        let theirs = variable("KURATION_VALUES");
        arguments.extend(theirs.iter().flat_map(|file| ["--values", file.as_str()]));
        arguments.extend(["--wait", "--timeout", "3m"]);
        helm(NAMESPACE, &arguments).map(|_| ())
    }

    /// Where the pods of a driver's volumes can run.
    pub fn node(&self, driver: Driver) -> &str {
        if driver.is_pool() { &self.pool_node } else { &self.nfs_nodes[0] }
    }
}
