//! The record of a volume: the proof that it is ours, and what makes a retry answer the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Access, Capability, Capacity, Directory, Key, MountOptions, OnDelete, Owner};

/// The layout of a record; a reader refuses a higher one instead of guessing.
pub const RECORD_VERSION: u32 = 1;

/// The claim that has a volume, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The PersistentVolume between the two.
    pub volume: String,
}

/// What a CreateVolume request asked for, as far as a repetition must ask the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// StorageClass parameters, keys in lower case.
    pub parameters: BTreeMap<String, String>,
    /// The capabilities, sorted.
    pub capabilities: Vec<Capability>,
}

/// A volume as it is kept beneath `.kuration/` of its export or pool, one JSON file each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`] of the writer.
    pub version: u32,
    /// The volume's name, as the request gave it.
    pub name: String,
    /// Its key.
    pub key: Key,
    /// The installation that made it. Another installation's controller never lists, publishes or deletes it.
    pub installation: String,
    /// Drawn at each creation: tells this volume from an earlier one of the same name, in the trash for instance.
    pub generation: String,
    /// Its directory, beneath the export or pool.
    pub directory: Directory,
    /// Whether Kuration made that directory. One that was there before is never deleted.
    pub owns_directory: bool,
    /// Its size in bytes, exactly as asked.
    pub capacity: u64,
    /// What a delete does to the data.
    pub on_delete: OnDelete,
    /// Owner and mode that the directory was given.
    pub owner: Owner,
    /// Mount options with which its export is reached.
    pub mount_options: MountOptions,
    /// The request that made it.
    pub fingerprint: Fingerprint,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The quota's number on the pool's file system (xfs project id), where it has one to be recorded: a btrfs subvolume is
    /// its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_id: Option<u64>,
    /// Whose it is, where that was told: at its creation, or since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// The Pod that has it, of a volume that lives no longer than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
}

/// The one use of an inline volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    /// The node that made it for its Pod, and removes it.
    pub node: String,
    /// Where the Pod has it there: the kubelet's directory, which is there until the kubelet knows that the volume is gone.
    pub target: String,
}

/// A volume to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The name in the request.
    pub name: String,
    /// Its key.
    pub key: Key,
    /// The directory to make.
    pub directory: Directory,
    /// Whether the class chose the directory (`subDir`), so that others may have chosen it too.
    pub chosen: bool,
    /// At least so many bytes.
    pub required: i64,
    /// At most so many bytes.
    pub limit: i64,
    /// Owner and mode of the directory.
    pub owner: Owner,
    /// What a delete does.
    pub on_delete: OnDelete,
    /// Mount options of the export.
    pub mount_options: MountOptions,
    /// What a repetition must ask again.
    pub fingerprint: Fingerprint,
    /// The clock, in seconds since 1970.
    pub now: u64,
    /// Whose it will be, where the request says it.
    pub claim: Option<Claim>,
    /// The Pod's use, of a volume that lives no longer than that.
    pub scratch: Option<Scratch>,
}

impl Wanted {
    /// The size range. Both bounds were checked when the request was read; a range that is not one asks for nothing.
    pub fn capacity(&self) -> Capacity {
        Capacity::parse(self.required, self.limit).unwrap_or_default()
    }
}

/// One node's use of a volume, between ControllerPublishVolume and ControllerUnpublishVolume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The node's id.
    pub node: String,
    /// How it may use the volume.
    pub access: Access,
}

/// A volume as found: its record and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The record.
    pub record: Record,
    /// The nodes it is published to, sorted by node.
    pub published: Vec<Publication>,
}
