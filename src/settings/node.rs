//! What the flags of a node mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    BackendSettings, LONGEST_SOCKET, SettingsError, absolute, check_node_id, check_segment, known_export,
    refuse,
};
use crate::args::{NodeFlags, Pair};
use crate::volume::{DEFAULT_CAPACITY, Export, MountOptions};

/// The node that a process serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Its id.
    pub id: String,
    /// How many volumes may be on it; `None`: no limit.
    pub max_volumes: Option<u64>,
    /// Where it stands.
    pub topology: BTreeMap<String, String>,
    /// How it makes itself known to the kubelet, if it does that itself.
    pub registration: Option<RegistrationSettings>,
    /// Whether Pods may have inline volumes, and where.
    pub inline: Option<InlineSettings>,
}

/// Where Pods' inline volumes live, and how large they may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineSettings {
    /// The export, and how it is mounted; `None`: the pool.
    pub share: Option<(Export, MountOptions)>,
    /// The largest, in bytes.
    pub limit: u64,
}

/// How a node makes itself known to the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSettings {
    /// The kubelet's directory of plugins, as this process sees it; absolute.
    pub directory: PathBuf,
    /// The CSI socket, as the kubelet sees it; absolute.
    pub endpoint: PathBuf,
}

/// Those of a node that serves `endpoint` as `driver_name`.
pub(super) fn node_settings(
    flags: NodeFlags,
    endpoint: &Path,
    driver_name: &str,
    backend: &BackendSettings,
) -> Result<NodeSettings, SettingsError> {
    let NodeFlags {
        node_id,
        max_volumes_per_node,
        topology,
        kubelet_registration,
        kubelet_endpoint,
        inline_share,
        inline_pool,
        inline_limit,
    } = flags;
    check_node_id("node-id", &node_id)?;
    let mut segments = BTreeMap::new();
    for Pair { key, value } in topology {
        check_segment(&key, &value).map_err(|why| refuse("topology", &format!("{key}={value}"), why))?;
        // "It is NOT case sensitive": two spellings are one key (CSI specification, Topology.segments).
        if segments.keys().any(|known: &String| known.eq_ignore_ascii_case(&key)) {
            return Err(refuse("topology", &key, "this key is given twice"));
        }
        segments.insert(key, value);
    }
    let max_volumes = Some(max_volumes_per_node).filter(|&limit| limit > 0);
    let registration = match (kubelet_registration, kubelet_endpoint) {
        (Some(directory), seen) => Some(registration_settings(directory, seen, endpoint, driver_name)?),
        (None, Some(_)) => return Err(SettingsError::Needs("kubelet-endpoint", "kubelet-registration")),
        (None, None) => None,
    };
    let inline = inline_settings(inline_share, inline_pool, inline_limit, backend)?;
    Ok(NodeSettings { id: node_id, max_volumes, topology: segments, registration, inline })
}

fn inline_settings(
    share: Option<String>,
    pool: bool,
    limit: Option<u64>,
    backend: &BackendSettings,
) -> Result<Option<InlineSettings>, SettingsError> {
    let share = match (share, backend) {
        (Some(_), BackendSettings::Pool { .. }) => return Err(SettingsError::Both("pool", "inline-share")),
        (None, BackendSettings::Share { .. }) if pool => {
            return Err(SettingsError::Needs("inline-pool", "pool"));
        }
        (Some(_), _) if pool => return Err(SettingsError::Both("inline-pool", "inline-share")),
        (Some(share), _) => Some(known_export("inline-share", &share)?),
        (None, _) if pool => None,
        (None, _) if limit.is_some() => {
            return Err(SettingsError::Needs("inline-limit", "inline-share or --inline-pool"));
        }
        (None, _) => return Ok(None),
    };
    let limit = limit.unwrap_or(DEFAULT_CAPACITY);
    if i64::try_from(limit).is_err() {
        return Err(refuse("inline-limit", &limit.to_string(), "it is 8 EiB at most"));
    }
    Ok(Some(InlineSettings { share, limit }))
}

fn registration_settings(
    directory: PathBuf,
    seen: Option<PathBuf>,
    endpoint: &Path,
    driver_name: &str,
) -> Result<RegistrationSettings, SettingsError> {
    let directory = absolute("kubelet-registration", directory)?;
    let socket = crate::csi::registration::socket(&directory, driver_name);
    if socket.as_os_str().len() > LONGEST_SOCKET {
        let why = format!("the socket {} would be longer than {LONGEST_SOCKET} bytes", socket.display());
        return Err(refuse("kubelet-registration", &directory.to_string_lossy(), why));
    }
    let endpoint = match seen {
        None => endpoint.to_owned(),
        Some(path) if path.is_absolute() => path,
        Some(path) => {
            let why = "it must be an absolute path on the host, such as /var/lib/kubelet/plugins/nfs.csi.kuration.io/csi.sock";
            return Err(refuse("kubelet-endpoint", &path.to_string_lossy(), why));
        }
    };
    Ok(RegistrationSettings { directory, endpoint })
}
