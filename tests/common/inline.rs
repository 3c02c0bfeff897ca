//! A Pod with an inline volume, as the kubelet asks for it.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::expect_used, reason = "a test that cannot set up its Pod has failed")]

use std::path::{Path, PathBuf};

use kuration::csi::proto::{NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use sha2::{Digest as _, Sha256};

use crate::common::{Mode, capability, map};

/// One of its volumes.
pub struct Pod {
    /// The volume's id.
    pub id: String,
    /// Where the Pod has it.
    pub target: PathBuf,
    name: String,
}

impl Pod {
    /// A Pod whose directory the kubelet has made below `root`.
    pub fn new(root: &Path, name: &str) -> Self {
        let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        let volume = root.join("pods").join(name).join("volumes/kubernetes.io~csi/scratch");
        std::fs::create_dir_all(&volume).expect("the kubelet's directory");
        Self { id: format!("csi-{hash}"), target: volume.join("mount"), name: name.to_owned() }
    }

    /// NodePublishVolume with these volumeAttributes, and what the kubelet adds.
    pub fn publish(&self, attributes: &[(&str, &str)]) -> NodePublishVolumeRequest {
        let mut volume_context = map(attributes);
        volume_context.extend(map(&[
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", &self.name),
            ("csi.storage.k8s.io/pod.namespace", "default"),
            ("csi.storage.k8s.io/pod.uid", &self.name),
            ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ]));
        NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            target_path: self.target.to_string_lossy().into_owned(),
            volume_capability: Some(capability(Mode::SingleNodeWriter)),
            volume_context,
            ..Default::default()
        }
    }

    /// NodeUnpublishVolume.
    pub fn unpublish(&self) -> NodeUnpublishVolumeRequest {
        let target_path = self.target.to_string_lossy().into_owned();
        NodeUnpublishVolumeRequest { volume_id: self.id.clone(), target_path }
    }

    /// NodeGetVolumeStats.
    pub fn stats(&self) -> NodeGetVolumeStatsRequest {
        let volume_path = self.target.to_string_lossy().into_owned();
        NodeGetVolumeStatsRequest { volume_id: self.id.clone(), volume_path, ..Default::default() }
    }

    /// The kubelet forgets it.
    pub fn forget(&self) {
        let volume = self.target.parent().expect("the kubelet's directory");
        std::fs::remove_dir_all(volume).expect("an empty directory");
    }
}
