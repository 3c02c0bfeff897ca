//! Requests, read once into types that can't be wrong.

use std::collections::HashMap;
use std::path::PathBuf;

use tonic::Status;

use super::proto;
use crate::volume::{
    Access, AccessError, Capability, Capacity, Directory, Export, Fingerprint, Key, Kind, Mode, MountOptions,
    Parameters, SecretOptions, VolumeId, Wanted, check_name, has_control,
};

/// Longest path accepted, in bytes: PATH_MAX with its NUL. The specification demands at least 128.
const MAX_PATH: usize = 4095;

/// Longest node id, in bytes (CSI specification, NodeGetInfoResponse.node_id).
const MAX_NODE_ID: usize = 256;

/// Longest volume id read. Ours have at most 128 bytes; a static volume's handle may be anything Kubernetes lets through.
const MAX_VOLUME_ID: usize = 1024;

/// Longest map, and longest list of mount flags, in bytes (CSI specification, "Size Limits").
const MAX_MAP: usize = 4096;

fn invalid(words: impl Into<String>) -> Status {
    Status::invalid_argument(words)
}

/// A volume id that is there and is text.
pub fn volume_id(id: &str) -> Result<&str, Status> {
    if id.is_empty() {
        return Err(invalid("volume_id is missing"));
    }
    if id.len() > MAX_VOLUME_ID || has_control(id) {
        return Err(invalid(format!(
            "volume_id has over {MAX_VOLUME_ID} bytes or holds a control character"
        )));
    }
    Ok(id)
}

/// A node id that is there.
pub fn node_id(id: &str) -> Result<&str, Status> {
    if id.is_empty() {
        return Err(invalid("node_id is missing"));
    }
    if id.len() > MAX_NODE_ID || has_control(id) {
        return Err(invalid(format!("node_id has over {MAX_NODE_ID} bytes or holds a control character")));
    }
    Ok(id)
}

/// A path of the CO's, absolute.
pub fn path(field: &str, path: &str) -> Result<PathBuf, Status> {
    if path.is_empty() {
        return Err(invalid(format!("{field} is missing")));
    }
    if path.len() > MAX_PATH || path.contains('\0') || path.contains('\n') {
        return Err(invalid(format!("{field} is longer than {MAX_PATH} bytes, or holds a NUL or a newline")));
    }
    let path = PathBuf::from(path);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs || path.parent().is_none() {
        return Err(invalid(format!("{field} must be an absolute path below /, without \"..\"")));
    }
    // Without a slash at its end, as the mount table has it.
    Ok(path.components().collect())
}

/// One capability.
pub fn capability(given: Option<&proto::VolumeCapability>) -> Result<Capability, Status> {
    use proto::volume_capability::{AccessType, access_mode};
    let given = given.ok_or(AccessError::Missing)?;
    let mount = match &given.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => return Err(AccessError::Block.into()),
        None => return Err(AccessError::NoType.into()),
    };
    if !matches!(mount.fs_type.as_str(), "" | "nfs" | "nfs4") {
        return Err(AccessError::FsType(mount.fs_type.chars().take(64).collect()).into());
    }
    if !mount.volume_mount_group.is_empty() {
        return Err(AccessError::MountGroup(mount.volume_mount_group.chars().take(64).collect()).into());
    }
    let number = given.access_mode.as_ref().map_or(0, |mode| mode.mode);
    let mode = match access_mode::Mode::try_from(number) {
        Ok(access_mode::Mode::SingleNodeWriter) => Mode::SingleNodeWriter,
        Ok(access_mode::Mode::SingleNodeReaderOnly) => Mode::SingleNodeReaderOnly,
        Ok(access_mode::Mode::MultiNodeReaderOnly) => Mode::MultiNodeReaderOnly,
        Ok(access_mode::Mode::MultiNodeSingleWriter) => Mode::MultiNodeSingleWriter,
        Ok(access_mode::Mode::MultiNodeMultiWriter) => Mode::MultiNodeMultiWriter,
        Ok(access_mode::Mode::SingleNodeSingleWriter) => Mode::SingleNodeSingleWriter,
        Ok(access_mode::Mode::SingleNodeMultiWriter) => Mode::SingleNodeMultiWriter,
        Ok(access_mode::Mode::Unknown) | Err(_) => return Err(AccessError::Mode(number).into()),
    };
    let bytes: usize = mount.mount_flags.iter().map(String::len).sum();
    if bytes > MAX_MAP {
        return Err(invalid(format!(
            "mount_flags have {bytes} bytes together; at most {MAX_MAP} are allowed"
        )));
    }
    // Read for its own sake: a misspelt option is refused at the first RPC that carries it.
    MountOptions::parse(&mount.mount_flags)?;
    Ok(Capability { mode, mount_flags: mount.mount_flags.clone() })
}

/// A list of capabilities that has at least one.
pub fn capabilities(given: &[proto::VolumeCapability]) -> Result<Vec<Capability>, Status> {
    if given.is_empty() {
        return Err(AccessError::NoneAtAll.into());
    }
    given.iter().map(|one| capability(Some(one))).collect()
}

/// The size range of a request.
pub fn range(range: Option<&proto::CapacityRange>) -> Result<(i64, i64), Status> {
    let (required, limit) = range.map_or((0, 0), |range| (range.required_bytes, range.limit_bytes));
    Capacity::parse(required, limit)?;
    Ok((required, limit))
}

/// The mount options in the secret `mountOptions` of a request, if it has one.
pub fn secret(secrets: &HashMap<String, String>) -> Result<SecretOptions, Status> {
    let value =
        secrets.iter().find(|(key, _)| key.eq_ignore_ascii_case("mountOptions")).map(|(_, value)| value);
    // The message names no option out of a secret.
    let refused = |_| invalid("the secret's mountOptions hold an option that is unknown, or malformed");
    MountOptions::parse(value).map(SecretOptions::new).map_err(refused)
}

/// Refuses options that mean nothing for a volume of this kind.
pub fn fitting(kind: Kind, options: &MountOptions) -> Result<(), Status> {
    match kind {
        Kind::Share => Ok(()),
        // The kubelet adds it by itself, where the CSIDriver says that it may.
        Kind::Pool if options.is_labelled() => Err(invalid(
            "a volume of a pool is a bind mount, which can't have an SELinux label of its own (context=): leave it out of the \
             mount options, and let the CSIDriver say seLinuxMount: false",
        )),
        Kind::Pool if options.reach().is_empty() => Ok(()),
        Kind::Pool => Err(invalid(format!(
            "the mount options \"{}\" are NFS's, and this pool is reached by a bind mount: leave them out",
            options.reach()
        ))),
    }
}

/// CreateVolume, read.
pub struct Create {
    /// What to make.
    pub wanted: Wanted,
    /// Its export, where it has one.
    pub export: Option<Export>,
    /// How to reach it.
    pub options: MountOptions,
    /// What a secret adds to that.
    pub secret: SecretOptions,
}

impl Create {
    /// Reads a request to make a volume of `kind` for `installation` at `now` (seconds since 1970).
    pub fn parse(
        request: &proto::CreateVolumeRequest,
        kind: Kind,
        installation: &str,
        now: u64,
    ) -> Result<Self, Status> {
        check_name(&request.name)?;
        if request.volume_content_source.is_some() {
            return Err(invalid(
                "volume_content_source can't be had: this driver makes no snapshots or clones yet",
            ));
        }
        if !request.mutable_parameters.is_empty() {
            return Err(invalid(
                "mutable_parameters can't be had: this driver has no VolumeAttributesClass yet",
            ));
        }
        let mut capabilities = capabilities(&request.volume_capabilities)?;
        let bytes: usize = request.parameters.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_MAP {
            return Err(invalid(format!(
                "parameters have {bytes} bytes together; at most {MAX_MAP} are allowed"
            )));
        }
        let parameters = Parameters::parse(kind, &request.parameters)?;
        let (required, limit) = range(request.capacity_range.as_ref())?;
        let options = MountOptions::parse(&capabilities[0].mount_flags)?;
        fitting(kind, &options)?;
        let secret = secret(&request.secrets)?;
        capabilities.sort();
        capabilities.dedup();
        let key = Key::of(installation, &request.name);
        let wanted = Wanted {
            name: request.name.clone(),
            key,
            directory: parameters.directory(&request.name, &key),
            chosen: parameters.directory.is_some(),
            required,
            limit,
            owner: parameters.owner,
            on_delete: parameters.on_delete,
            mount_options: options.reach(),
            fingerprint: Fingerprint { parameters: parameters.asked, capabilities },
            now,
            claim: parameters.claim,
            scratch: None,
        };
        Ok(Self { wanted, export: parameters.export, options, secret })
    }
}

/// What a node needs to know of a share's volume, from its context. A static volume has no other source.
pub struct Source {
    /// The export.
    pub export: Export,
    /// The path to mount on its server.
    pub path: String,
    /// Options that stand in the context.
    pub options: MountOptions,
}

impl Source {
    /// Reads `server`, `share`, `subDir` and `mountOptions`, keys in any case.
    pub fn parse(context: &HashMap<String, String>) -> Result<Self, Status> {
        let value = |key: &str| {
            let found = context.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
            found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
        };
        let missing =
            |key: &str| invalid(format!("volume_context lacks {key:?}, so the volume's server is not known"));
        let server = value("server").ok_or_else(|| missing("server"))?;
        let share = value("share").ok_or_else(|| missing("share"))?;
        let export = Export::new(server, share)?;
        let path = match value("subDir") {
            Some(directory) => {
                let directory = Directory::parse(directory)
                    .map_err(|error| invalid(format!("volume_context's subDir {directory:?}: {error}")))?;
                export.path_of(directory.as_str())
            }
            None => export.path().to_owned(),
        };
        let options = MountOptions::parse(value("mountOptions"))?;
        Ok(Self { export, path, options })
    }
}

/// Whether a key of a context is Kubernetes' own: the provisioner puts one into each PersistentVolume, and the kubelet adds
/// whose Pod it is (`podInfoOnMount`).
pub fn is_kubernetes(key: &str) -> bool {
    key.starts_with("csi.storage.k8s.io/") || key.starts_with("storage.kubernetes.io/")
}

/// Whether an id has a form that is given out by this driver alone.
pub fn is_ours(volume_id: &str) -> bool {
    matches!(volume_id.parse(), Ok(VolumeId::Share { .. } | VolumeId::Pool { .. }))
}

/// Where the volume of a request is, if that is a static one: one that nobody made here, so that the request itself says it.
///
/// An id in our own form was given out once. Where it has no record its volume is gone, whatever the request says of it.
pub fn static_source(
    kind: Kind,
    volume_id: &str,
    context: &HashMap<String, String>,
) -> Result<Option<Source>, Status> {
    let says = context.keys().any(|key| ["server", "share"].iter().any(|k| k.eq_ignore_ascii_case(key)));
    if kind == Kind::Pool || is_ours(volume_id) || !says {
        return Ok(None);
    }
    Source::parse(context).map(Some)
}

/// How one consumer uses a volume.
pub fn access(capability: &Capability, readonly: bool) -> Access {
    Access { mode: capability.mode, readonly }
}
