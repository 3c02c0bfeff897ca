//! Flags as meant: checked together, defaulted and parsed. Past this file nobody looks at a flag again.
//!
//! Each struct of flags is taken apart in full, so a flag that means nothing does not compile.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::args::{
    AllArgs, BackendFlags, ControllerArgs, ControllerFlags, LogFlags, NodeArgs, NodeFlags, SharedFlags,
};
use crate::volume::{AllowedServers, Export, MountOptions, has_control};
use node::node_settings;

pub use crate::args::{LogFormat, PoolFilesystem};
pub use node::{InlineSettings, NodeSettings, RegistrationSettings};

/// The driver's name where volumes are directories on NFS exports.
pub const SHARE_DRIVER: &str = "nfs.csi.kuration.io";
/// The driver's name where volumes live in a pool. Another one, since whether volumes are attached belongs to a driver's
/// name in Kubernetes and can't be changed later.
pub const POOL_DRIVER: &str = "pool.csi.kuration.io";

/// What a driver process is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Whether it serves the controller's part.
    pub controller: bool,
    /// The node whose part it serves, if it does.
    pub node: Option<NodeSettings>,
    /// The socket to serve on.
    pub endpoint: PathBuf,
    /// The driver's name.
    pub driver_name: String,
    /// Whose volumes these are.
    pub installation: String,
    /// Where the driver keeps its own mounts and what it has seen; absolute.
    pub state_dir: PathBuf,
    /// Where volumes live.
    pub backend: BackendSettings,
    /// The servers that requests may name.
    pub servers: AllowedServers,
    /// What every mount begins with.
    pub mount_options: MountOptions,
    /// How long one operation may take.
    pub operation_timeout: Duration,
    /// How long a deleted volume stays in the trash.
    pub trash_lifetime: Duration,
    /// How often the trash is looked through.
    pub reap_interval: Duration,
    /// The nodes that volumes may be published to; `None`: any.
    pub known_nodes: Option<BTreeSet<String>>,
    /// What to ask the cluster's API server for; `None`: it is not used.
    pub kubernetes: Option<KubernetesSettings>,
    /// Where to serve health and metrics.
    pub admin: Option<SocketAddr>,
    /// How long requests may take to finish after SIGTERM.
    pub grace: Duration,
    /// What to log.
    pub log: LogSettings,
}

/// What a controller asks the cluster's API server for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// Whether the start-up taint is taken off nodes.
    pub startup_taint: bool,
    /// Namespace and name of the Lease without which no trash is emptied.
    pub lease: Option<(String, String)>,
}

/// Where volumes live.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendSettings {
    /// On NFS exports that exist already.
    Share {
        /// Those known in advance, with the options they are mounted with.
        exports: Vec<(Export, MountOptions)>,
    },
    /// In a file system of our own.
    Pool {
        /// Where it is; absolute.
        directory: PathBuf,
        /// How large an image to make in it; `None`: the directory itself is the pool.
        image: Option<u64>,
        /// The file system of the image.
        filesystem: PoolFilesystem,
        /// How much of it may be promised, as a multiple of its size.
        overcommit: f64,
    },
}

/// What to log, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Verbosity, with Kubernetes' meanings.
    pub v: u8,
    /// Counts instead of `v`.
    pub filter: Option<String>,
    /// The form of a line.
    pub format: LogFormat,
}

/// Why flags are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A flag that must be there.
    #[error("--{0} is missing: {1}")]
    Missing(&'static str, &'static str),
    /// A value that can't be meant.
    #[error("--{flag} {value:?}: {why}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A flag that speaks of a thing that isn't there.
    #[error("--{0} needs --{1}")]
    Needs(&'static str, &'static str),
    /// Two flags of which one must go.
    #[error("--{0} and --{1} can't both be given: a driver has volumes on shares or in a pool")]
    Both(&'static str, &'static str),
}

/// The refusal of `value`, as it is or, if long, as it begins.
fn refuse(flag: &'static str, value: &str, why: impl ToString) -> SettingsError {
    SettingsError::Value { flag, value: value.chars().take(128).collect(), why: why.to_string() }
}

impl Settings {
    /// Those of `kuration controller`.
    pub fn controller(args: ControllerArgs) -> Result<Self, SettingsError> {
        let ControllerArgs { shared, controller } = args;
        Self::new(shared, Some(controller), None)
    }

    /// Those of `kuration node`.
    pub fn node(args: NodeArgs) -> Result<Self, SettingsError> {
        let NodeArgs { shared, node } = args;
        Self::new(shared, None, Some(node))
    }

    /// Those of `kuration all`.
    pub fn all(args: AllArgs) -> Result<Self, SettingsError> {
        let AllArgs { shared, controller, node } = args;
        Self::new(shared, Some(controller), Some(node))
    }

    fn new(
        shared: SharedFlags,
        controller: Option<ControllerFlags>,
        node: Option<NodeFlags>,
    ) -> Result<Self, SettingsError> {
        let SharedFlags {
            endpoint,
            csi_endpoint,
            driver_name,
            installation,
            state_dir,
            admin,
            grace,
            operation_timeout,
            backend,
            log,
        } = shared;
        let endpoint = endpoint.or(csi_endpoint).ok_or(SettingsError::Missing(
            "endpoint",
            "say where to serve CSI, for example unix:///run/kuration/csi.sock",
        ))?;
        let (backend, servers, mount_options) = backend_settings(backend)?;
        let default_name = match backend {
            BackendSettings::Share { .. } => SHARE_DRIVER,
            BackendSettings::Pool { .. } => POOL_DRIVER,
        };
        if operation_timeout < Duration::from_secs(1) {
            let shown = format!("{operation_timeout:?}");
            return Err(refuse(
                "operation-timeout",
                &shown,
                "no server can be relied on to answer within less than 1s",
            ));
        }
        let is_controller = controller.is_some();
        let endpoint = socket_path(&endpoint)?;
        let driver_name = check_driver_name(driver_name.unwrap_or_else(|| default_name.to_owned()))?;
        let node = node.map(|flags| node_settings(flags, &endpoint, &driver_name, &backend)).transpose()?;
        // A node that serves alone reaps nothing; the values are never read.
        let (known_nodes, trash_lifetime, reap_interval, kubernetes) = match controller {
            Some(flags) => controller_settings(flags, node.as_ref())?,
            None => (None, Duration::ZERO, Duration::MAX, None),
        };
        Ok(Self {
            controller: is_controller,
            node,
            endpoint,
            driver_name,
            installation: check_installation(installation)?,
            state_dir: absolute("state-dir", state_dir)?,
            backend,
            servers,
            mount_options,
            operation_timeout,
            trash_lifetime,
            reap_interval,
            known_nodes,
            kubernetes,
            admin,
            grace,
            log: LogSettings::from(log),
        })
    }
}

impl From<LogFlags> for LogSettings {
    fn from(flags: LogFlags) -> Self {
        let LogFlags { v, log, log_format } = flags;
        Self { v, filter: log, format: log_format }
    }
}

fn backend_settings(
    flags: BackendFlags,
) -> Result<(BackendSettings, AllowedServers, MountOptions), SettingsError> {
    let BackendFlags { share, allow_server, mount_options, pool, pool_image, pool_filesystem, overcommit } =
        flags;
    let pattern = |text: &String| text.parse().map_err(|why| refuse("allow-server", text, why));
    let servers = AllowedServers::new(allow_server.iter().map(pattern).collect::<Result<_, _>>()?);
    let text = mount_options.unwrap_or_default();
    let mount_options = MountOptions::parse([&text]).map_err(|why| refuse("mount-options", &text, why))?;
    let Some(directory) = pool else {
        for (flag, given) in [
            ("pool-image", pool_image.is_some()),
            ("pool-filesystem", pool_filesystem.is_some()),
            ("overcommit", overcommit.is_some()),
        ] {
            if given {
                return Err(SettingsError::Needs(flag, "pool"));
            }
        }
        return Ok((BackendSettings::Share { exports: known_exports(&share)? }, servers, mount_options));
    };
    if !allow_server.is_empty() {
        return Err(SettingsError::Both("pool", "allow-server"));
    }
    if !share.is_empty() {
        return Err(SettingsError::Both("pool", "share"));
    }
    if pool_filesystem.is_some() && pool_image.is_none() {
        return Err(SettingsError::Needs("pool-filesystem", "pool-image"));
    }
    let overcommit = overcommit.unwrap_or(1.0);
    if !(overcommit.is_finite() && overcommit >= 0.1) {
        return Err(refuse("overcommit", &overcommit.to_string(), "it must be a number, 0.1 or more"));
    }
    let backend = BackendSettings::Pool {
        directory: absolute("pool", directory)?,
        image: pool_image,
        filesystem: pool_filesystem.unwrap_or_default(),
        overcommit,
    };
    Ok((backend, servers, mount_options))
}

fn known_exports(shares: &[String]) -> Result<Vec<(Export, MountOptions)>, SettingsError> {
    let mut exports: Vec<(Export, MountOptions)> = Vec::new();
    for share in shares {
        let (export, options) = known_export("share", share)?;
        if exports.iter().any(|(known, _)| *known == export) {
            return Err(refuse("share", share, "this export is given twice"));
        }
        exports.push((export, options));
    }
    Ok(exports)
}

/// `server:/path[,option…]`.
fn known_export(flag: &'static str, share: &str) -> Result<(Export, MountOptions), SettingsError> {
    let (export, options) = share.split_once(',').unwrap_or((share, ""));
    let export = export.trim().parse().map_err(|why| refuse(flag, share, why))?;
    let options = MountOptions::parse([options]).map_err(|why| refuse(flag, share, why))?;
    Ok((export, options))
}

type ControllerSettings = (Option<BTreeSet<String>>, Duration, Duration, Option<KubernetesSettings>);

/// A process that is controller and node at once is one machine, so it knows that one node even where none is named: a
/// volume published to another would be reachable nowhere.
fn controller_settings(
    flags: ControllerFlags,
    node: Option<&NodeSettings>,
) -> Result<ControllerSettings, SettingsError> {
    let ControllerFlags { known_node, trash_lifetime, reap_interval, kubernetes, startup_taint, lease } =
        flags;
    for id in &known_node {
        check_node_id("known-node", id)?;
    }
    if reap_interval < Duration::from_secs(1) {
        return Err(refuse("reap-interval", &format!("{reap_interval:?}"), "it must be 1s or more"));
    }
    let known: BTreeSet<String> = known_node.into_iter().chain(node.map(|node| node.id.clone())).collect();
    for (flag, given) in [("startup-taint", startup_taint), ("lease", lease.is_some())] {
        if given && !kubernetes {
            return Err(SettingsError::Needs(flag, "kubernetes"));
        }
    }
    let lease = lease.as_deref().map(lease_name).transpose()?;
    let kubernetes = kubernetes.then_some(KubernetesSettings { startup_taint, lease });
    Ok((Some(known).filter(|known| !known.is_empty()), trash_lifetime, reap_interval, kubernetes))
}

/// Namespace and name of a Lease. What else is wrong with either, the API server says.
fn lease_name(text: &str) -> Result<(String, String), SettingsError> {
    let legal = |part: &str| is_label(part) && !part.contains('_') && !part.contains(char::is_uppercase);
    match text.split_once('/') {
        Some((namespace, name)) if legal(namespace) && legal(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(refuse("lease", text, "it must be NAMESPACE/NAME, such as kuration-system/nfs-reaper")),
    }
}

/// What `sockaddr_un` holds beside its NUL, in bytes.
const LONGEST_SOCKET: usize = 107;

/// The path of an endpoint.
fn socket_path(endpoint: &str) -> Result<PathBuf, SettingsError> {
    let refused = |why| Err(refuse("endpoint", endpoint, why));
    match endpoint.strip_prefix("unix://") {
        None => refused("it must be unix:// and an absolute path"),
        Some(path) if !path.starts_with('/') => {
            refused("the path must be absolute: unix:///run/kuration/csi.sock")
        }
        Some(path) if path.ends_with('/') || has_control(path) => refused("the path must name a file"),
        Some(path) if path.len() > LONGEST_SOCKET => {
            refused("the path of a socket is 107 bytes long at most")
        }
        Some(path) => Ok(PathBuf::from(path)),
    }
}

fn absolute(flag: &'static str, path: PathBuf) -> Result<PathBuf, SettingsError> {
    std::path::absolute(&path).map_err(|why| refuse(flag, &path.to_string_lossy(), why))
}

/// At most 63 bytes in the manner of a domain (CSI specification, `GetPluginInfoResponse.name`). That it begins and ends
/// with a letter is csi-sanity's reading, and costs nobody anything.
fn check_driver_name(name: String) -> Result<String, SettingsError> {
    let letter = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphabetic);
    let bytes = name.as_bytes();
    let legal = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    if legal && letter(bytes.first()) && letter(bytes.last()) && (2..=63).contains(&bytes.len()) {
        return Ok(name);
    }
    let why = "a driver's name is 2 to 63 letters, digits, dots and dashes, a letter first and last";
    Err(refuse("driver-name", &name, why))
}

fn check_installation(name: String) -> Result<String, SettingsError> {
    if is_label(&name) {
        return Ok(name);
    }
    Err(refuse(
        "installation",
        &name,
        "it must be 1 to 63 letters, digits, '-', '_' and '.', no sign first or last",
    ))
}

/// 256 bytes is the specification's limit and that of Kubernetes' CSINode.
fn check_node_id(flag: &'static str, id: &str) -> Result<(), SettingsError> {
    match id {
        "" => Err(refuse(flag, id, "it must not be empty")),
        _ if id.len() > 256 => Err(refuse(flag, id, "it is 256 bytes long at most")),
        _ if has_control(id) => Err(refuse(flag, id, "it must not hold control characters")),
        _ => Ok(()),
    }
}

/// The rules of `Topology.segments` in the CSI specification, which are those of Kubernetes' labels.
fn check_segment(key: &str, value: &str) -> Result<(), &'static str> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let domain = |prefix: &str| {
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let part = |part: &str| {
            part.bytes().all(|b| lower(b) || b == b'-')
                && [part.bytes().next(), part.bytes().last()].iter().all(|b| b.is_some_and(lower))
        };
        prefix.len() <= 253 && prefix.split('.').all(part)
    };
    if !prefix.is_none_or(domain) {
        return Err("the key's prefix must be a domain in lower case, such as topology.kubernetes.io");
    }
    if !is_label(name) || !is_label(value) {
        return Err("name and value are 1 to 63 letters, digits, '-', '_' and '.', no sign first or last");
    }
    Ok(())
}

/// Whether `text` is what Kubernetes lets a label's value be, and not empty.
fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= 63
        && ends.iter().all(|b| b.is_some_and(plain))
        && text.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_' | b'.'))
}

mod inspect;
mod node;
mod tools;

#[cfg(test)]
mod tests;
