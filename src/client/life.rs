//! One volume's way through a driver, from the claim to the end.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tonic::{Response, Status};

use super::kubelet::{Kubelet, uuid};
use super::{Call, Client, ClientError};
use crate::csi::proto::{self, CapacityRange, VolumeCapability, volume_capability, volume_usage};
use crate::volume::Mode;

/// What a claim and its class ask for. It holds secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct Order {
    /// The size in bytes.
    pub size: u64,
    /// Who may use the volume at once.
    pub mode: Mode,
    /// The class's mount options.
    pub mount_flags: Vec<String>,
    /// The class's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The secret that the class names, here the same one for every step.
    pub secrets: BTreeMap<String, String>,
}

/// What a driver says of a volume's size and use, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How much it holds.
    pub total: u64,
    /// How much is used.
    pub used: u64,
    /// How much is left.
    pub available: u64,
}

/// A volume on its way. Each step remembers that it was tried before it is, so [`Life::down`] undoes what may have
/// happened and not only what is known to have.
///
/// A step that the driver does not announce is a success that calls nobody, as it is for the sidecars and the kubelet.
pub struct Life {
    pub(super) client: Client,
    pub(super) kubelet: Kubelet,
    order: Order,
    name: String,
    pub(super) volume: Option<proto::Volume>,
    publish_context: BTreeMap<String, String>,
    pub(super) created: bool,
    pub(super) published: bool,
    pub(super) staged: bool,
    pub(super) targets: Vec<PathBuf>,
    calls: Vec<Call>,
}

impl Life {
    /// A volume that does not exist yet, under a name as external-provisioner gives it.
    pub fn new(client: Client, kubelet: Kubelet, order: Order) -> Self {
        Self {
            client,
            kubelet,
            order,
            name: format!("pvc-{}", uuid()),
            volume: None,
            publish_context: BTreeMap::new(),
            created: false,
            published: false,
            staged: false,
            targets: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// The volume's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The volume's id, once the driver has given it one.
    pub fn id(&self) -> Option<&str> {
        self.volume.as_ref().map(|volume| volume.volume_id.as_str())
    }

    /// The driver.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the volume was created, as far as is known, and not deleted.
    pub fn is_created(&self) -> bool {
        self.created
    }

    /// Whether it was published to the node, or was tried to be.
    pub fn is_published(&self) -> bool {
        self.published
    }

    /// Whether it was staged, or was tried to be.
    pub fn is_staged(&self) -> bool {
        self.staged
    }

    /// Where the volume is published now.
    pub fn targets(&self) -> &[PathBuf] {
        &self.targets
    }

    /// The calls made since this was last asked.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// CreateVolume. The answer is the size that the driver gave it, 0 if it does not say.
    pub async fn create(&mut self) -> Result<u64, ClientError> {
        const METHOD: &str = "CreateVolume";
        let mut parameters = self.order.parameters.clone();
        // What external-provisioner adds with --extra-create-metadata.
        for (key, value) in [("pvc/name", "claim"), ("pvc/namespace", "default"), ("pv/name", &self.name)] {
            parameters.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
        }
        let here = self.client.plugin().topology.clone().map(|topology| proto::TopologyRequirement {
            requisite: vec![topology.clone()],
            preferred: vec![topology],
        });
        let request = self.client.request(proto::CreateVolumeRequest {
            name: self.name.clone(),
            capacity_range: range(self.order.size),
            volume_capabilities: vec![self.capability()],
            parameters: parameters.into_iter().collect(),
            secrets: self.secrets(),
            accessibility_requirements: here,
            ..Default::default()
        });
        self.created = true;
        let mut controller = self.client.controller();
        let answer = self.call(METHOD, controller.create_volume(request)).await;
        let answer = answer.inspect_err(|error| self.created = error.may_have_happened())?;
        let fault = |fault: &str| ClientError::Answer { method: METHOD, fault: fault.to_owned() };
        let mut volume = answer.volume.ok_or_else(|| fault("the answer holds no volume"))?;
        if volume.volume_id.is_empty() {
            return Err(fault("the volume has no id"));
        }
        // external-provisioner writes this into the PV's attributes, so every later step sees it.
        let provisioner = format!("{}-{}", uuid(), self.client.plugin().name);
        volume.volume_context.insert("storage.kubernetes.io/csiProvisionerIdentity".to_owned(), provisioner);
        let size = u64::try_from(volume.capacity_bytes).map_err(|_| fault("the size is negative"))?;
        self.volume = Some(volume);
        Ok(size)
    }

    /// ControllerPublishVolume, to the driver's own node.
    pub async fn publish(&mut self) -> Result<(), ClientError> {
        if !self.client.plugin().attach {
            return Ok(());
        }
        let volume = self.volume("ControllerPublishVolume")?;
        let request = self.client.request(proto::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id,
            node_id: self.client.plugin().node_id.clone(),
            volume_capability: Some(self.capability()),
            readonly: false,
            secrets: self.secrets(),
            volume_context: volume.volume_context,
        });
        self.published = true;
        let mut controller = self.client.controller();
        let answer =
            self.call("ControllerPublishVolume", controller.controller_publish_volume(request)).await?;
        self.publish_context = answer.publish_context.into_iter().collect();
        Ok(())
    }

    /// NodeStageVolume, in a directory that the kubelet makes.
    pub async fn stage(&mut self) -> Result<(), ClientError> {
        if !self.client.plugin().stage {
            return Ok(());
        }
        let volume = self.volume("NodeStageVolume")?;
        let staging = self.kubelet.staging(&volume.volume_id);
        self.staged = true;
        self.kubelet.make(&staging)?;
        let request = self.client.request(proto::NodeStageVolumeRequest {
            volume_id: volume.volume_id,
            publish_context: self.publish_context.clone().into_iter().collect(),
            staging_target_path: wire(&staging),
            volume_capability: Some(self.capability()),
            secrets: self.secrets(),
            volume_context: volume.volume_context,
        });
        let mut node = self.client.node();
        self.call("NodeStageVolume", node.node_stage_volume(request)).await.map(drop)
    }

    /// NodePublishVolume, for one more pod. The kubelet makes the directory above the target, the driver the target.
    pub async fn node_publish(&mut self) -> Result<PathBuf, ClientError> {
        let volume = self.volume("NodePublishVolume")?;
        let target = self.kubelet.target(&uuid(), &self.name);
        self.targets.push(target.clone());
        self.kubelet.make(target.parent().unwrap_or(&target))?;
        let request = self.client.request(proto::NodePublishVolumeRequest {
            staging_target_path: self.staging(&volume.volume_id),
            volume_id: volume.volume_id,
            publish_context: self.publish_context.clone().into_iter().collect(),
            target_path: wire(&target),
            volume_capability: Some(self.capability()),
            readonly: false,
            secrets: self.secrets(),
            volume_context: volume.volume_context,
        });
        let mut node = self.client.node();
        self.call("NodePublishVolume", node.node_publish_volume(request)).await?;
        Ok(target)
    }

    /// NodeGetVolumeStats, at a target. `None` where the driver does not measure.
    pub async fn stats(&mut self, target: &Path) -> Result<Option<Usage>, ClientError> {
        const METHOD: &str = "NodeGetVolumeStats";
        if !self.client.plugin().stats {
            return Ok(None);
        }
        let volume_id = self.volume(METHOD)?.volume_id;
        let request = proto::NodeGetVolumeStatsRequest {
            volume_id,
            volume_path: wire(target),
            // The kubelet leaves it out.
            staging_target_path: String::new(),
        };
        let request = self.client.request(request);
        let mut node = self.client.node();
        let answer = self.call(METHOD, node.node_get_volume_stats(request)).await?;
        let bytes = answer.usage.into_iter().find(|usage| usage.unit() == volume_usage::Unit::Bytes);
        let bytes =
            bytes.ok_or(ClientError::Answer { method: METHOD, fault: "no usage in bytes".to_owned() })?;
        let number = |n: i64| u64::try_from(n).unwrap_or(0);
        let (total, used, available) = (number(bytes.total), number(bytes.used), number(bytes.available));
        Ok(Some(Usage { total, used, available }))
    }

    /// ControllerExpandVolume, then NodeExpandVolume at `target` where the controller wants it, as external-resizer and
    /// the kubelet share the work. The answer is the new size.
    pub async fn expand(&mut self, size: u64, target: &Path) -> Result<u64, ClientError> {
        let plugin = self.client.plugin();
        let (controller_expands, node_expands) = (plugin.expand, plugin.node_expand);
        let volume_id = self.volume("ControllerExpandVolume")?.volume_id;
        let (mut given, mut on_node) = (size, true);
        if controller_expands {
            let request = self.client.request(proto::ControllerExpandVolumeRequest {
                volume_id: volume_id.clone(),
                capacity_range: range(size),
                secrets: self.secrets(),
                volume_capability: Some(self.capability()),
            });
            let mut controller = self.client.controller();
            let answer =
                self.call("ControllerExpandVolume", controller.controller_expand_volume(request)).await?;
            given = u64::try_from(answer.capacity_bytes).unwrap_or(0);
            on_node = answer.node_expansion_required;
        }
        if node_expands && on_node {
            let request = self.client.request(proto::NodeExpandVolumeRequest {
                staging_target_path: self.staging(&volume_id),
                volume_id,
                volume_path: wire(target),
                capacity_range: range(given),
                volume_capability: Some(self.capability()),
                secrets: self.secrets(),
            });
            let mut node = self.client.node();
            self.call("NodeExpandVolume", node.node_expand_volume(request)).await?;
        }
        Ok(given)
    }

    /// One call, timed and noted down.
    pub(super) async fn call<A>(
        &mut self,
        method: &'static str,
        answer: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, ClientError> {
        let start = Instant::now();
        let answer = self.client.call(method, answer).await;
        let error = answer.as_ref().err().cloned();
        self.calls.push(Call { method, took: start.elapsed(), error });
        answer
    }

    pub(super) fn volume(&self, method: &'static str) -> Result<proto::Volume, ClientError> {
        let fault = || "called before the volume was created".to_owned();
        self.volume.clone().ok_or_else(|| ClientError::Answer { method, fault: fault() })
    }

    fn staging(&self, volume_id: &str) -> String {
        if self.client.plugin().stage { wire(&self.kubelet.staging(volume_id)) } else { String::new() }
    }

    pub(super) fn secrets(&self) -> std::collections::HashMap<String, String> {
        self.order.secrets.clone().into_iter().collect()
    }

    fn capability(&self) -> VolumeCapability {
        use volume_capability::access_mode::Mode as Wire;
        let mode = match self.order.mode {
            Mode::SingleNodeWriter => Wire::SingleNodeWriter,
            Mode::SingleNodeReaderOnly => Wire::SingleNodeReaderOnly,
            Mode::MultiNodeReaderOnly => Wire::MultiNodeReaderOnly,
            Mode::MultiNodeSingleWriter => Wire::MultiNodeSingleWriter,
            Mode::MultiNodeMultiWriter => Wire::MultiNodeMultiWriter,
            Mode::SingleNodeSingleWriter => Wire::SingleNodeSingleWriter,
            Mode::SingleNodeMultiWriter => Wire::SingleNodeMultiWriter,
        };
        VolumeCapability {
            access_mode: Some(volume_capability::AccessMode { mode: mode.into() }),
            access_type: Some(volume_capability::AccessType::Mount(volume_capability::MountVolume {
                mount_flags: self.order.mount_flags.clone(),
                ..Default::default()
            })),
        }
    }
}

fn range(size: u64) -> Option<CapacityRange> {
    Some(CapacityRange { required_bytes: i64::try_from(size).unwrap_or(i64::MAX), limit_bytes: 0 })
}

pub(super) fn wire(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
