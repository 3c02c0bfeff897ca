//! Who may use a volume at once: the access modes of CSI 1.13.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `VolumeCapability.AccessMode.Mode`, without `UNKNOWN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// One node, read and write.
    SingleNodeWriter,
    /// One node, reading.
    SingleNodeReaderOnly,
    /// Many nodes, reading.
    MultiNodeReaderOnly,
    /// Many nodes, of which one writes.
    MultiNodeSingleWriter,
    /// Many nodes, all writing.
    MultiNodeMultiWriter,
    /// One node, one target on it (Kubernetes' ReadWriteOncePod).
    SingleNodeSingleWriter,
    /// One node, many targets on it.
    SingleNodeMultiWriter,
}

impl Mode {
    /// Whether more than one node may have it at once.
    pub fn many_nodes(self) -> bool {
        matches!(self, Self::MultiNodeReaderOnly | Self::MultiNodeSingleWriter | Self::MultiNodeMultiWriter)
    }

    /// Whether nobody writes.
    pub fn reader_only(self) -> bool {
        matches!(self, Self::SingleNodeReaderOnly | Self::MultiNodeReaderOnly)
    }

    /// Whether a node may have it at more than one target path (CSI specification, NodePublishVolume, the tables of a
    /// second publish by a plugin that has SINGLE_NODE_MULTI_WRITER: there SINGLE_NODE_WRITER means one target).
    pub fn many_targets(self) -> bool {
        self.many_nodes() || matches!(self, Self::SingleNodeMultiWriter)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleNodeWriter => "SINGLE_NODE_WRITER",
            Self::SingleNodeReaderOnly => "SINGLE_NODE_READER_ONLY",
            Self::MultiNodeReaderOnly => "MULTI_NODE_READER_ONLY",
            Self::MultiNodeSingleWriter => "MULTI_NODE_SINGLE_WRITER",
            Self::MultiNodeMultiWriter => "MULTI_NODE_MULTI_WRITER",
            Self::SingleNodeSingleWriter => "SINGLE_NODE_SINGLE_WRITER",
            Self::SingleNodeMultiWriter => "SINGLE_NODE_MULTI_WRITER",
        })
    }
}

/// How one consumer uses a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The mode of its capability.
    pub mode: Mode,
    /// Whether the consumer asked for reading alone.
    pub readonly: bool,
}

impl Access {
    /// Whether this consumer must not write.
    pub fn reads_only(self) -> bool {
        self.readonly || self.mode.reader_only()
    }
}

/// A `VolumeCapability` of access type mount.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Capability {
    /// Who may use it at once.
    pub mode: Mode,
    /// Mount options as they were given, in their order.
    pub mount_flags: Vec<String>,
}

/// Why a capability is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No capability at all.
    #[error("volume_capability is missing")]
    Missing,
    /// A raw block device is asked for.
    #[error(
        "block volumes can't be had: Kuration's volumes are NFS directories; ask for volumeMode Filesystem"
    )]
    Block,
    /// Neither mount nor block.
    #[error("the volume capability names no access type: set mount")]
    NoType,
    /// A mode that is not known.
    #[error("access mode {0} is not one that CSI 1.13 defines")]
    Mode(i32),
    /// A file system that NFS is not.
    #[error("fs_type {0:?} can't be had: a volume is NFS; leave fsType empty")]
    FsType(String),
    /// `volume_mount_group` without the capability.
    #[error(
        "volume_mount_group {0:?} can't be applied: NFS has no group of a mount; use fsGroup, or the class's gid"
    )]
    MountGroup(String),
    /// A capability list without an entry.
    #[error("volume_capabilities is empty")]
    NoneAtAll,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_target_where_one_writer_is_meant() {
        assert!(!Mode::SingleNodeSingleWriter.many_targets());
        assert!(Mode::SingleNodeMultiWriter.many_targets());
        assert!(Mode::MultiNodeReaderOnly.many_targets());
    }

    #[test]
    fn a_reader_mode_reads_even_if_nobody_says_readonly() {
        assert!(Access { mode: Mode::MultiNodeReaderOnly, readonly: false }.reads_only());
        assert!(Access { mode: Mode::SingleNodeWriter, readonly: true }.reads_only());
    }
}
