//! One mount of one export, by fsopen(2), fsconfig(2) and fsmount(2): the kernel's own words say what is wrong.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use serde::{Deserialize, Serialize};

use super::{MountError, rpcbind};
use crate::volume::{Attributes, MountOptions, SecretOptions, Version};

/// One attempt to mount: one address, one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsMount {
    /// server:/path, as the mount table will show it.
    pub source: String,
    /// The server's address.
    pub address: IpAddr,
    /// The version of the protocol.
    pub version: Version,
    /// The user's options.
    pub options: MountOptions,
    /// Those out of a secret, which come behind.
    pub secret: SecretOptions,
    /// Whether nobody may write, by the superblock's own flag.
    pub read_only: bool,
    /// Whether the mount gets a superblock of its own. What is staged does: the kernel's `shutdown` of a dead one would
    /// leave its neighbours with EIO if they shared it.
    pub own_superblock: bool,
}

impl NfsMount {
    fn error(&self, errno: Errno, words: String) -> MountError {
        let source_ = self.source.clone();
        let address = self.address.to_string();
        // The kernel's words may quote an option.
        let quiet = words.is_empty() || !self.secret.is_empty();
        let why = if quiet { errno.to_string() } else { format!("{errno}: {words}") };
        match errno {
            Errno::CONNREFUSED => MountError::Refused { source_, address },
            // v3 asks the server's rpcbind first, and says "not supported" where nothing listens there.
            Errno::OPNOTSUPP if self.version == Version::V3 => MountError::Refused { source_, address },
            Errno::TIMEDOUT
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::ADDRNOTAVAIL => MountError::Unreachable { source_, address, why },
            Errno::ACCESS | Errno::PERM => MountError::Denied { source_, why },
            Errno::NOENT | Errno::NOTDIR | Errno::STALE => MountError::NoSuchPath { source_ },
            Errno::PROTONOSUPPORT => MountError::Version { source_, versions: vec![self.version] },
            Errno::INVAL => MountError::Options { source_, options: self.options.to_string(), why },
            Errno::NODEV => MountError::NoClient(self.version),
            _ => MountError::Other { source_, why },
        }
    }

    fn all(&self) -> MountOptions {
        self.secret.behind(&self.options)
    }

    /// Whether the user's options do without the lock daemon.
    fn locks_locally(&self) -> bool {
        let all = self.all();
        all.has("nolock", "lock")
            || all.nfs().any(|(name, value)| name == "local_lock" && value != Some("none"))
    }
}

/// Mounts, attached to nowhere yet: a directory that exists for this process alone, and ends with it.
///
/// Blocks for as long as the server doesn't answer, so it is called in a child only.
pub fn mount_detached(mount: &NfsMount) -> Result<OwnedFd, MountError> {
    if mount.version == Version::V3 && !mount.locks_locally() {
        rpcbind::statd_is_there()
            .map_err(|why| MountError::NoLockDaemon { source_: mount.source.clone(), why })?;
    }
    if mount.all().nfs().any(|(name, _)| name == "sec") {
        return attempt(mount, None).map_err(|(errno, words)| mount.error(errno, words));
    }
    // Without sec= the kernel asks the server for its flavours, and modprobe(8) for a Kerberos module three times: a
    // process each, 30 ms in a virtual machine where the mount itself takes half a millisecond. A server that wants
    // another flavour says so, and is then asked.
    attempt(mount, Some("sys"))
        .or_else(|failed| match failed {
            (Errno::ACCESS | Errno::PERM, _) => attempt(mount, None),
            other => Err(other),
        })
        .map_err(|(errno, words)| mount.error(errno, words))
}

/// One mount, or the error's number and the kernel's words.
fn attempt(mount: &NfsMount, flavour: Option<&str>) -> Result<OwnedFd, (Errno, String)> {
    let kind = if mount.version == Version::V3 { "nfs" } else { "nfs4" };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| (errno, String::new()))?;
    configure(context.as_fd(), mount, flavour)
        .and_then(|()| fsconfig_create(context.as_fd()))
        .and_then(|()| {
            let attributes = flags(mount.all().attributes());
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        })
        .map_err(|errno| (errno, words(&context)))
}

fn configure(context: BorrowedFd<'_>, mount: &NfsMount, flavour: Option<&str>) -> rustix::io::Result<()> {
    fsconfig_set_string(context, "source", &mount.source)?;
    // The kernel resolves no names: addr= is the one option that it can't do without.
    fsconfig_set_string(context, "addr", mount.address.to_string())?;
    fsconfig_set_string(context, "vers", mount.version.as_str())?;
    let options = mount.all();
    if mount.own_superblock && !options.has("sharecache", "nosharecache") {
        fsconfig_set_flag(context, "nosharecache")?;
    }
    if let Some(flavour) = flavour {
        fsconfig_set_string(context, "sec", flavour)?;
    }
    for (name, value) in options.nfs() {
        match value {
            Some(value) => fsconfig_set_string(context, name, value)?,
            None => fsconfig_set_flag(context, name)?,
        }
    }
    for name in options.superblock() {
        fsconfig_set_flag(context, name)?;
    }
    if mount.read_only {
        fsconfig_set_flag(context, "ro")?;
    }
    Ok(())
}

/// The same, as fsmount(2) and mount_setattr(2) have them.
pub(super) fn flags(attributes: Attributes) -> MountAttrFlags {
    let mut flags = MountAttrFlags::empty();
    let Attributes { read_only, no_suid, no_dev, no_exec, no_atime, no_dir_atime } = attributes;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, no_suid);
    flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, no_dev);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, no_exec);
    flags.set(MountAttrFlags::MOUNT_ATTR_NOATIME, no_atime);
    flags.set(MountAttrFlags::MOUNT_ATTR_NODIRATIME, no_dir_atime);
    flags
}

/// What the kernel has to say about a mount that failed: one message per read(2), until it has no more.
fn words(context: &OwnedFd) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]);
        // "e nfs4: Unknown parameter 'bogus'": a letter for the level comes first.
        let message = message.trim();
        all.push(message.get(2..).unwrap_or(message).to_owned());
        if length == 0 || all.len() > 16 {
            break;
        }
    }
    all.join("; ")
}
