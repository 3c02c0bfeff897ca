//! Every RPC of CSI 1.13 as a value, so that a table can hold any of them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};

use kuration::csi::proto::controller_client::ControllerClient;
use kuration::csi::proto::group_controller_client::GroupControllerClient;
use kuration::csi::proto::identity_client::IdentityClient;
use kuration::csi::proto::node_client::NodeClient;
use kuration::csi::proto::snapshot_metadata_client::SnapshotMetadataClient;
use kuration::csi::proto::{self, Volume};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::common::{Driver, MIB, Mode, capability, create, node_publish, stage};

/// The services of one driver.
#[derive(Clone)]
pub struct Asker {
    identity: IdentityClient<Channel>,
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    group: GroupControllerClient<Channel>,
    metadata: SnapshotMetadataClient<Channel>,
}

macro_rules! rpcs {
    ($($client:ident: $($request:ident $method:ident $rpc:literal),+;)+) => {
        /// A request of any RPC.
        #[allow(clippy::enum_variant_names, reason = "they have the names of their messages")]
        #[derive(Clone, Debug)]
        pub enum Ask {
            $($($request(Box<proto::$request>),)+)+
        }

        /// Every RPC there is, asked with an empty request.
        pub fn every_rpc() -> Vec<Ask> {
            vec![$($(proto::$request::default().into(),)+)+]
        }

        impl Ask {
            /// The RPC's name.
            pub fn rpc(&self) -> &'static str {
                match self {
                    $($(Self::$request(_) => $rpc,)+)+
                }
            }
        }

        $($(impl From<proto::$request> for Ask {
            fn from(request: proto::$request) -> Self {
                Self::$request(Box::new(request))
            }
        })+)+

        impl Asker {
            /// The answer, in the words of its `Debug`, in which maps are sorted.
            pub async fn ask(&self, ask: impl Into<Ask>) -> Result<String, Status> {
                match ask.into() {
                    $($(Ask::$request(request) => {
                        let mut client = self.$client.clone();
                        client.$method(*request).await.map(|answer| format!("{:?}", answer.into_inner()))
                    })+)+
                }
            }
        }
    };
}

rpcs! {
    identity:
        GetPluginInfoRequest get_plugin_info "GetPluginInfo",
        GetPluginCapabilitiesRequest get_plugin_capabilities "GetPluginCapabilities",
        ProbeRequest probe "Probe";
    controller:
        CreateVolumeRequest create_volume "CreateVolume",
        DeleteVolumeRequest delete_volume "DeleteVolume",
        ControllerPublishVolumeRequest controller_publish_volume "ControllerPublishVolume",
        ControllerUnpublishVolumeRequest controller_unpublish_volume "ControllerUnpublishVolume",
        ValidateVolumeCapabilitiesRequest validate_volume_capabilities "ValidateVolumeCapabilities",
        ListVolumesRequest list_volumes "ListVolumes",
        ControllerListVolumeHealthRequest controller_list_volume_health "ControllerListVolumeHealth",
        ControllerGetVolumeHealthRequest controller_get_volume_health "ControllerGetVolumeHealth",
        GetCapacityRequest get_capacity "GetCapacity",
        ControllerGetCapabilitiesRequest controller_get_capabilities "ControllerGetCapabilities",
        CreateSnapshotRequest create_snapshot "CreateSnapshot",
        DeleteSnapshotRequest delete_snapshot "DeleteSnapshot",
        ListSnapshotsRequest list_snapshots "ListSnapshots",
        GetSnapshotRequest get_snapshot "GetSnapshot",
        ControllerExpandVolumeRequest controller_expand_volume "ControllerExpandVolume",
        ControllerGetVolumeRequest controller_get_volume "ControllerGetVolume",
        ControllerModifyVolumeRequest controller_modify_volume "ControllerModifyVolume";
    group:
        GroupControllerGetCapabilitiesRequest group_controller_get_capabilities "GroupControllerGetCapabilities",
        CreateVolumeGroupSnapshotRequest create_volume_group_snapshot "CreateVolumeGroupSnapshot",
        DeleteVolumeGroupSnapshotRequest delete_volume_group_snapshot "DeleteVolumeGroupSnapshot",
        GetVolumeGroupSnapshotRequest get_volume_group_snapshot "GetVolumeGroupSnapshot";
    metadata:
        GetMetadataAllocatedRequest get_metadata_allocated "GetMetadataAllocated",
        GetMetadataDeltaRequest get_metadata_delta "GetMetadataDelta";
    node:
        NodeStageVolumeRequest node_stage_volume "NodeStageVolume",
        NodeUnstageVolumeRequest node_unstage_volume "NodeUnstageVolume",
        NodePublishVolumeRequest node_publish_volume "NodePublishVolume",
        NodeUnpublishVolumeRequest node_unpublish_volume "NodeUnpublishVolume",
        NodeGetVolumeStatsRequest node_get_volume_stats "NodeGetVolumeStats",
        NodeGetVolumeHealthRequest node_get_volume_health "NodeGetVolumeHealth",
        NodeGetStorageHealthRequest node_get_storage_health "NodeGetStorageHealth",
        NodeExpandVolumeRequest node_expand_volume "NodeExpandVolume",
        NodeGetCapabilitiesRequest node_get_capabilities "NodeGetCapabilities",
        NodeGetInfoRequest node_get_info "NodeGetInfo";
}

impl Asker {
    /// All services of `driver`, over one connection.
    pub async fn of(driver: &Driver) -> Self {
        let channel = driver.channel().await;
        Self {
            identity: IdentityClient::new(channel.clone()),
            controller: ControllerClient::new(channel.clone()),
            node: NodeClient::new(channel.clone()),
            group: GroupControllerClient::new(channel.clone()),
            metadata: SnapshotMetadataClient::new(channel),
        }
    }

    /// The answer's code.
    pub async fn code(&self, ask: impl Into<Ask>) -> Code {
        self.ask(ask).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    /// Asks what must succeed.
    #[track_caller]
    pub fn done(&self, ask: impl Into<Ask>) -> impl Future<Output = String> {
        let (ask, caller) = (ask.into(), std::panic::Location::caller());
        async move {
            let rpc = ask.rpc();
            self.ask(ask).await.unwrap_or_else(|status| panic!("{caller}: {rpc} answered {status:?}"))
        }
    }

    /// The volume that a request for one gets.
    pub async fn volume(&self, request: proto::CreateVolumeRequest) -> Result<Volume, Status> {
        let answer = self.controller.clone().create_volume(request).await?.into_inner();
        answer.volume.ok_or_else(|| Status::internal("an answer without a volume"))
    }

    /// A volume of this name that many may write to.
    pub async fn made(&self, name: &str) -> Volume {
        self.volume(create(name, 8 * MIB, &[])).await.expect("a volume")
    }

    /// A page of volumes: their ids and nodes, and where to go on.
    pub async fn page(&self, after: &str, most: i32) -> Result<(Vec<(String, Vec<String>)>, String), Status> {
        let request = proto::ListVolumesRequest { max_entries: most, starting_token: after.to_owned() };
        let page = self.controller.clone().list_volumes(request).await?.into_inner();
        let entries = page.entries.into_iter().map(|entry| {
            let nodes = entry.status.map(|status| status.published_node_ids).unwrap_or_default();
            (entry.volume.map(|volume| volume.volume_id).unwrap_or_default(), nodes)
        });
        Ok((entries.collect(), page.next_token))
    }

    /// The ids of all volumes.
    pub async fn ids(&self) -> Vec<String> {
        self.page("", 0).await.expect("a list").0.into_iter().map(|(id, _)| id).collect()
    }
}

/// ControllerPublishVolume.
pub fn publish(
    volume_id: &str,
    node: &str,
    mode: Mode,
    readonly: bool,
) -> proto::ControllerPublishVolumeRequest {
    proto::ControllerPublishVolumeRequest {
        volume_id: volume_id.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(capability(mode)),
        readonly,
        ..Default::default()
    }
}

/// ControllerUnpublishVolume.
pub fn unpublish(volume_id: &str, node: &str) -> proto::ControllerUnpublishVolumeRequest {
    proto::ControllerUnpublishVolumeRequest {
        volume_id: volume_id.to_owned(),
        node_id: node.to_owned(),
        ..Default::default()
    }
}

/// DeleteVolume.
pub fn delete(volume_id: &str) -> proto::DeleteVolumeRequest {
    proto::DeleteVolumeRequest { volume_id: volume_id.to_owned(), ..Default::default() }
}

/// ControllerGetVolume.
pub fn get(volume_id: &str) -> proto::ControllerGetVolumeRequest {
    proto::ControllerGetVolumeRequest { volume_id: volume_id.to_owned() }
}

/// ControllerExpandVolume.
pub fn expand(
    volume_id: &str,
    required_bytes: i64,
    limit_bytes: i64,
) -> proto::ControllerExpandVolumeRequest {
    proto::ControllerExpandVolumeRequest {
        volume_id: volume_id.to_owned(),
        capacity_range: Some(proto::CapacityRange { required_bytes, limit_bytes }),
        ..Default::default()
    }
}

/// NodeExpandVolume.
pub fn node_expand(volume_id: &str, path: &Path, required_bytes: i64) -> proto::NodeExpandVolumeRequest {
    proto::NodeExpandVolumeRequest {
        volume_id: volume_id.to_owned(),
        volume_path: text(path),
        capacity_range: Some(proto::CapacityRange { required_bytes, limit_bytes: 0 }),
        ..Default::default()
    }
}

/// NodeUnstageVolume.
pub fn unstage(volume_id: &str, staging: &Path) -> proto::NodeUnstageVolumeRequest {
    proto::NodeUnstageVolumeRequest { volume_id: volume_id.to_owned(), staging_target_path: text(staging) }
}

/// NodeUnpublishVolume.
pub fn node_unpublish(volume_id: &str, target: &Path) -> proto::NodeUnpublishVolumeRequest {
    proto::NodeUnpublishVolumeRequest { volume_id: volume_id.to_owned(), target_path: text(target) }
}

/// NodeGetVolumeStats.
pub fn stats(volume_id: &str, path: &Path) -> proto::NodeGetVolumeStatsRequest {
    proto::NodeGetVolumeStatsRequest {
        volume_id: volume_id.to_owned(),
        volume_path: text(path),
        ..Default::default()
    }
}

/// A path as a request has it.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A volume that is staged, and where.
pub struct Staged {
    pub volume: Volume,
    pub staging: PathBuf,
    pub mode: Mode,
    home: PathBuf,
}

impl Staged {
    /// Makes the volume `name` and stages it.
    pub async fn new(asker: &Asker, driver: &Driver, name: &str, mode: Mode) -> Self {
        let mut request = create(name, 8 * MIB, &[]);
        request.volume_capabilities = vec![capability(mode)];
        let volume = asker.volume(request).await.expect("a volume");
        let home = driver.home.path().to_owned();
        let staging = home.join(format!("{name}-globalmount"));
        std::fs::create_dir_all(&staging).expect("a staging directory");
        asker.done(stage(&volume, &staging, mode)).await;
        Self { volume, staging, mode, home }
    }

    /// A target that is not there yet.
    pub fn target(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Publishes it at `target`.
    pub fn at(&self, target: &Path, readonly: bool) -> proto::NodePublishVolumeRequest {
        let request = node_publish(&self.volume, &self.staging, target, self.mode);
        proto::NodePublishVolumeRequest { readonly, ..request }
    }
}

/// Every file and directory beneath `root`, without what `root` itself is called, sorted.
pub fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            found.push(text(path.strip_prefix(root).unwrap_or(&path)));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(path);
            }
        }
    }
    found.sort();
    found
}
