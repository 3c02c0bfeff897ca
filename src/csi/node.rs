//! The Node service: staging by a mount of its own, publishing by a bind of it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::ask::{self, Source};
use super::files::{Files, Manner};
use super::fullness::Fullness;
use super::inline::{InlineVolumes, PublishInline};
use super::pending::{Limits, alone};
use super::proto::{self, node_server, node_service_capability};
use super::staged::{Notes, Staged};
use crate::backend::{FindError, Local, Volumes};
use crate::fault_point;
use crate::inflight::InFlight;
use crate::mount::{Mounter, ResolveError, table};
use crate::plan::{self, NodePublish, NodeStage, Origin};
use crate::telemetry::{Metrics, name_volume};
use crate::volume::{
    Access, AllowedServers, Capability, ExportName, Inline, Kind, MountOptions, SecretOptions, Usage,
    VolumeId,
};

/// The Node service.
#[derive(Clone)]
pub struct Node {
    /// This node's id.
    pub id: String,
    /// How many volumes it may have.
    pub max_volumes: Option<u64>,
    /// Where it stands.
    pub topology: BTreeMap<String, String>,
    /// The volumes; a pool's are on this machine.
    pub volumes: Volumes,
    /// The servers that a volume's context may name.
    pub servers: AllowedServers,
    /// Options that every mount begins with.
    pub defaults: MountOptions,
    /// Its mounts.
    pub mounter: Mounter,
    /// What was staged, and how.
    pub staged: Notes,
    /// How long things may take.
    pub limits: Limits,
    /// What is being worked on.
    pub inflight: InFlight,
    /// Where Pods' inline volumes live, if they may have any.
    pub inlines: Option<InlineVolumes>,
    /// What is counted.
    pub metrics: Metrics,
    /// How full its volumes are.
    pub fullness: Fullness,
}

fn own(error: &std::io::Error) -> Status {
    Status::internal(format!("the driver's own state on this node: {error}"))
}

pub(super) fn table() -> Result<Vec<table::Entry>, Status> {
    table::read().map_err(|error| own(&error))
}

impl Node {
    pub(super) async fn resolve(&self, field: &str, path: &Path) -> Result<PathBuf, Status> {
        self.mounter.resolve(path).await.map_err(|error| {
            let words = format!("{field} {}: {error}", path.display());
            match error {
                ResolveError::Path(_) => Status::invalid_argument(words),
                ResolveError::Lost(_) => Status::unavailable(words),
            }
        })
    }

    /// A volume of the pool, which is on this machine.
    async fn local(&self, volume_id: &str) -> Result<Local, Status> {
        let not_found = || Status::not_found(format!("there is no volume {volume_id:?} in this pool"));
        let id = match volume_id.parse() {
            Ok(id) => id,
            Err(_) => self.inline_id(volume_id).await.map_err(|error| match error {
                FindError::NotFound => not_found(),
                FindError::Trouble(trouble) => trouble.into(),
            })?,
        };
        self.local_of(&id).await
    }

    pub(super) async fn local_of(&self, id: &VolumeId) -> Result<Local, Status> {
        match self.volumes.backend().local(id).await {
            Ok(Some(local)) => Ok(local),
            Ok(None) | Err(FindError::NotFound) => {
                Err(Status::not_found(format!("there is no volume \"{id}\" in this pool")))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_pool(&self) -> bool {
        self.volumes.backend().kind() == Kind::Pool
    }

    async fn stage(self, ask: Stage, deadline: Instant) -> Result<(), Status> {
        let staging = self.resolve("staging_target_path", &ask.staging).await?;
        let mut attributes = self.defaults.and(&ask.options).attributes();
        attributes.read_only |= ask.access.reads_only();
        let files = match self.is_pool() {
            true => Files::Here(Box::new(self.local(&ask.volume_id).await?)),
            false => {
                let source = Source::parse(&ask.context)?;
                self.servers.check(&source.export)?;
                Files::There(source)
            }
        };
        let known = self.staged.of(&ask.volume_id).filter(|known| known.staging == staging);
        let table = table()?;
        match plan::node_stage(&files.origin(), &staging, attributes.read_only, &table) {
            NodeStage::Done => {
                if let Some(known) = known.filter(|known| known.mode != ask.access.mode) {
                    return Err(Status::already_exists(format!(
                        "the volume is staged there for {}, not for {}",
                        known.mode, ask.access.mode
                    )));
                }
                self.check_label(&files, (&staging, &table), &ask.options, &ask.secret)?;
            }
            NodeStage::Conflict(what) => {
                return Err(Status::already_exists(format!("{}: {what}", staging.display())));
            }
            NodeStage::Mount => {
                let manner = Manner { options: ask.options, secret: ask.secret, attributes };
                self.show(files, &staging, &manner, deadline).await?;
            }
        }
        fault_point!("stage.mounted");
        let staged = Staged { volume_id: ask.volume_id, staging, mode: ask.access.mode };
        self.staged.put(&staged).map_err(|error| own(&error))
    }

    async fn publish(self, ask: Publish, deadline: Instant) -> Result<(), Status> {
        let staging = self.resolve("staging_target_path", &ask.staging).await?;
        let target = self.resolve("target_path", &ask.target).await?;
        if let Some(known) = self.staged.of(&ask.volume_id).filter(|known| known.staging == staging)
            && known.mode != ask.access.mode
        {
            return Err(Status::failed_precondition(format!(
                "the volume is staged for {}, not for {}",
                known.mode, ask.access.mode
            )));
        }
        // A pool knows where its volumes are; of a share's, the request says it.
        let origin = if self.is_pool() { Some(self.local(&ask.volume_id).await?.origin) } else { ask.origin };
        let table = table()?;
        if let (Some(origin), Some(entry)) = (origin, table::at(&table, &staging))
            && !origin.is_shown_by(entry)
        {
            let (staging, source) = (staging.display(), &entry.source);
            return Err(Status::failed_precondition(format!(
                "the volume is not staged at {staging}, but {source} is"
            )));
        }
        if let (Some(label), Some(entry)) = (&ask.label, table::at(&table, &staging))
            && let Some(what) = plan::other_label(entry, Some(label))
        {
            return Err(Status::failed_precondition(format!("{}: {what}", staging.display())));
        }
        match plan::node_publish(&staging, &target, ask.access, &table) {
            NodePublish::Done => Ok(()),
            NodePublish::NotStaged => {
                Err(Status::failed_precondition(format!("the volume is not staged at {}", staging.display())))
            }
            NodePublish::Differs(what) => {
                Err(Status::already_exists(format!("{}: {what}", target.display())))
            }
            NodePublish::OtherTarget(other) => Err(Status::failed_precondition(format!(
                "the volume is published at {other} on this node, and access mode {} allows no second target",
                ask.access.mode
            ))),
            NodePublish::Bind => {
                let done = self.mounter.bind(&staging, &target, ask.access.reads_only(), deadline).await;
                let done = done.map_err(Status::from);
                self.count(&done);
                fault_point!("node_publish.bound");
                done
            }
        }
    }

    /// The mount at `path`, if it shows the volume `volume_id`.
    async fn mount_of(&self, volume_id: &str, path: &Path) -> Result<(PathBuf, table::Entry), Status> {
        let nothing = || Status::not_found(format!("volume {volume_id:?} is not at {}", path.display()));
        let path = self.resolve("volume_path", path).await?;
        let table = table()?;
        let entry = table::at(&table, &path).ok_or_else(nothing)?;
        if self.is_pool() {
            let shown = self.local(volume_id).await?.origin.is_shown_by(entry);
            return if shown { Ok((path.clone(), entry.clone())) } else { Err(nothing()) };
        }
        let shown = match self.staged.of(volume_id).and_then(|known| table::at(&table, &known.staging)) {
            Some(staged) => entry.same_as(staged),
            // The note is lost; then the id says where the mount must come from.
            None => match volume_id.parse::<VolumeId>() {
                Ok(
                    VolumeId::Share { export: ExportName::Named(export, _), .. }
                    | VolumeId::Peer { export, .. },
                ) => {
                    let below = entry.source.strip_prefix(&export.to_string());
                    entry.is_nfs() && below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
                }
                Ok(VolumeId::Share { export: ExportName::Hashed(_), .. }) => entry.is_nfs(),
                // A static volume's handle says nothing.
                Err(_) => entry.is_nfs(),
                Ok(VolumeId::Pool { .. }) => false,
            },
        };
        if shown { Ok((path.clone(), entry.clone())) } else { Err(nothing()) }
    }

    async fn usage(&self, volume_id: &str, path: &Path) -> Result<Usage, Status> {
        if self.is_pool() {
            let local = self.local(volume_id).await?;
            return Ok(self.volumes.backend().usage(local).await?);
        }
        Ok(self.mounter.measure(path).await?)
    }
}

/// NodeStageVolume, read.
struct Stage {
    volume_id: String,
    staging: PathBuf,
    access: Access,
    context: HashMap<String, String>,
    options: MountOptions,
    secret: SecretOptions,
}

/// NodePublishVolume, read.
struct Publish {
    volume_id: String,
    staging: PathBuf,
    target: PathBuf,
    access: Access,
    /// The SELinux label that the request speaks of.
    label: Option<String>,
    /// What must be staged, where the request says it.
    origin: Option<Origin>,
}

/// Whether ControllerPublishVolume said that this node may only read.
fn read_only(publish_context: &HashMap<String, String>) -> bool {
    publish_context.get("readonly").is_some_and(|value| value == "true")
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<proto::NodeStageVolumeRequest>,
    ) -> Result<Response<proto::NodeStageVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?.to_owned();
        name_volume(&volume_id);
        let staging = ask::path("staging_target_path", &request.staging_target_path)?;
        let capability: Capability = ask::capability(request.volume_capability.as_ref())?;
        let options = MountOptions::parse(&capability.mount_flags)?;
        ask::fitting(self.volumes.backend().kind(), &options)?;
        let ask = Stage {
            staging,
            access: ask::access(&capability, read_only(&request.publish_context)),
            options,
            secret: ask::secret(&request.secrets)?,
            context: request.volume_context,
            volume_id: volume_id.clone(),
        };
        alone(&self.inflight, volume_id, deadline, self.clone().stage(ask, deadline)).await?;
        Ok(Response::new(proto::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<proto::NodeUnstageVolumeRequest>,
    ) -> Result<Response<proto::NodeUnstageVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?.to_owned();
        name_volume(&volume_id);
        let staging = ask::path("staging_target_path", &request.staging_target_path)?;
        let (node, id) = (self.clone(), volume_id.clone());
        let work = async move {
            let staging = node.resolve("staging_target_path", &staging).await?;
            // The directory is the CO's own.
            node.mounter.unmount(&staging, false).await?;
            fault_point!("unstage.unmounted");
            node.fullness.left(&id);
            node.staged.remove(&id).map_err(|error| own(&error))
        };
        alone(&self.inflight, volume_id, deadline, work).await?;
        Ok(Response::new(proto::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<proto::NodePublishVolumeRequest>,
    ) -> Result<Response<proto::NodePublishVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?.to_owned();
        name_volume(&volume_id);
        if Inline::is_asked(&request.volume_context) {
            let ask = PublishInline::parse(self, &request)?;
            alone(&self.inflight, volume_id, deadline, self.clone().publish_inline(ask, deadline)).await?;
            return Ok(Response::new(proto::NodePublishVolumeResponse {}));
        }
        let target = ask::path("target_path", &request.target_path)?;
        let capability = ask::capability(request.volume_capability.as_ref())?;
        if request.staging_target_path.is_empty() {
            return Err(Status::failed_precondition(
                "staging_target_path is missing: a volume is staged first",
            ));
        }
        let staging = ask::path("staging_target_path", &request.staging_target_path)?;
        let readonly = request.readonly || read_only(&request.publish_context);
        let access = ask::access(&capability, readonly);
        let source = Source::parse(&request.volume_context).ok().filter(|_| !self.is_pool());
        let origin = source.map(|source| Origin::Nfs(source.export.source(&source.path)));
        let label = MountOptions::parse(&capability.mount_flags)?.label().map(str::to_owned);
        let ask = Publish { volume_id: volume_id.clone(), staging, target, access, label, origin };
        alone(&self.inflight, volume_id, deadline, self.clone().publish(ask, deadline)).await?;
        Ok(Response::new(proto::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<proto::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<proto::NodeUnpublishVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?.to_owned();
        name_volume(&volume_id);
        let target = ask::path("target_path", &request.target_path)?;
        let (node, id) = (self.clone(), volume_id.clone());
        let work = async move {
            let target = node.resolve("target_path", &target).await?;
            node.mounter.unmount(&target, true).await?;
            fault_point!("node_unpublish.unmounted");
            // An inline volume is staged nowhere.
            if Inline::is_id(&id) {
                node.fullness.left(&id);
            }
            node.forget_inline(&id, deadline).await;
            Ok(())
        };
        alone(&self.inflight, volume_id, deadline, work).await?;
        Ok(Response::new(proto::NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<proto::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<proto::NodeGetVolumeStatsResponse>, Status> {
        use proto::volume_usage::Unit;
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?;
        name_volume(volume_id);
        if request.volume_path.is_empty() {
            return Err(Status::invalid_argument("volume_path is missing"));
        }
        let nowhere = |why: Status| {
            Status::not_found(format!(
                "volume {volume_id:?} is not at a path that can't be: {}",
                why.message()
            ))
        };
        let path = ask::path("volume_path", &request.volume_path).map_err(nowhere)?;
        let (path, _) = self.mount_of(volume_id, &path).await?;
        let usage = self.usage(volume_id, &path).await?;
        self.fullness.is(volume_id, usage);
        let shown = |unit: Unit, total: u64, used: u64, available: u64| {
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            proto::VolumeUsage {
                unit: unit.into(),
                total: number(total),
                used: number(used),
                available: number(available),
            }
        };
        let mut all = vec![shown(Unit::Bytes, usage.total, usage.used, usage.available)];
        // Some file systems (btrfs) don't count inodes; nothing is said then.
        if usage.inodes > 0 {
            all.push(shown(Unit::Inodes, usage.inodes, usage.inodes_used, usage.inodes_free));
        }
        Ok(Response::new(proto::NodeGetVolumeStatsResponse { usage: all }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<proto::NodeExpandVolumeRequest>,
    ) -> Result<Response<proto::NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?;
        name_volume(volume_id);
        if request.volume_path.is_empty() {
            return Err(Status::invalid_argument("volume_path is missing"));
        }
        let (required, limit) = ask::range(request.capacity_range.as_ref())?;
        if request.volume_capability.is_some() {
            ask::capability(request.volume_capability.as_ref())?;
        }
        let nowhere = |why: Status| {
            Status::not_found(format!(
                "volume {volume_id:?} is not at a path that can't be: {}",
                why.message()
            ))
        };
        let path = ask::path("volume_path", &request.volume_path).map_err(nowhere)?;
        // Between stage and publish the CO names the target that it will publish at; the staged mount will do.
        let mounted = match self.mount_of(volume_id, &path).await {
            Err(_) if !request.staging_target_path.is_empty() => {
                let staging = ask::path("staging_target_path", &request.staging_target_path)?;
                self.mount_of(volume_id, &staging).await?
            }
            other => other?,
        };
        let wanted = crate::volume::Capacity::parse(required, limit)?.wanted().unwrap_or(0);
        let seen = if self.is_pool() {
            let local = self.local(volume_id).await?;
            let recorded = local.volume.record.capacity;
            let enforced = self.volumes.backend().enforcement().is_ok();
            let usage = self.volumes.backend().usage(local).await?;
            if enforced { usage.total } else { recorded }
        } else if ask::is_ours(volume_id) {
            // The size of a share's volume is a number in its record, which the controller has moved; that the mount is
            // there and answers is what this node can confirm.
            self.mounter.measure(&mounted.0).await?;
            wanted
        } else {
            // A static volume is as large as its export.
            self.mounter.measure(&mounted.0).await?.total
        };
        if seen < wanted {
            let remedy = match ask::is_ours(volume_id) {
                true => "expand the volume at the controller first",
                false => "a static volume's size is its server's, and not changed here",
            };
            return Err(Status::failed_precondition(format!(
                "this node sees {seen} bytes, and {wanted} are asked for: {remedy}"
            )));
        }
        let capacity_bytes =
            i64::try_from(wanted.max(if wanted == 0 { seen } else { 0 })).unwrap_or(i64::MAX);
        Ok(Response::new(proto::NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<proto::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<proto::NodeGetCapabilitiesResponse>, Status> {
        use node_service_capability::{Rpc, Type, rpc};
        let all = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::SingleNodeMultiWriter,
        ];
        let capabilities = all
            .into_iter()
            .map(|kind| proto::NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })) })
            .collect();
        Ok(Response::new(proto::NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<proto::NodeGetInfoRequest>,
    ) -> Result<Response<proto::NodeGetInfoResponse>, Status> {
        let segments: HashMap<String, String> = self.topology.clone().into_iter().collect();
        Ok(Response::new(proto::NodeGetInfoResponse {
            node_id: self.id.clone(),
            max_volumes_per_node: self.max_volumes.and_then(|most| i64::try_from(most).ok()).unwrap_or(0),
            accessible_topology: (!segments.is_empty()).then_some(proto::Topology { segments }),
        }))
    }
}
