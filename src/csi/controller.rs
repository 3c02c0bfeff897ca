//! The Controller service: handlers that read, hand on and answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::ask;
use super::pending::{Limits, alone};
use super::proto::{self, controller_server, controller_service_capability};
use crate::backend::{FindError, Handle, Place, Position, Volumes};
use crate::inflight::InFlight;
use crate::plan;
use crate::telemetry::name_volume;
use crate::volume::{
    AllowedServers, Export, Key, Kind, MountOptions, Publication, REDACTED_CONTEXT, SecretOptions, Volume,
    VolumeId,
};

/// Most volumes on one page of a list: what a server one millisecond away tells in two seconds, so that no list uses up the
/// sidecar's patience.
const PAGE: usize = 250;

/// The Controller service.
pub struct Controller {
    /// The volumes.
    pub volumes: Volumes,
    /// Whose volumes they are.
    pub installation: String,
    /// The servers that a request may name. Ids already given out are deleted wherever they are.
    pub servers: AllowedServers,
    /// How long things may take.
    pub limits: Limits,
    /// The nodes there are, where that is known; a volume is published to no other.
    pub known_nodes: Option<BTreeSet<String>>,
    /// How many volumes a node may have.
    pub max_volumes: Option<u64>,
    /// Where the volumes can be used, where that is limited.
    pub topology: BTreeMap<String, String>,
    /// What is being worked on; shared with nobody, since nodes work on other things.
    pub inflight: InFlight,
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The volume that a request speaks of. An id that was never given out stands for none.
fn known(id: &str, secrets: &HashMap<String, String>) -> Result<Option<Handle>, Status> {
    name_volume(id);
    let secret = ask::secret(secrets)?;
    Ok(id.parse().ok().map(|id| Handle { id, secret }))
}

fn no_volume(id: &str) -> Status {
    Status::not_found(format!("there is no volume {:?} here", id.chars().take(128).collect::<String>()))
}

fn no_node(node: &str) -> Status {
    Status::not_found(format!("there is no node {node:?}"))
}

impl Controller {
    fn knows(&self, node: &str) -> bool {
        self.known_nodes.as_ref().is_none_or(|known| known.contains(node))
    }

    /// Whether a request speaks of a static volume. One whose handle has the form of csi-driver-nfs may have been adopted;
    /// then its record counts.
    async fn is_static(
        &self,
        volume_id: &str,
        context: &HashMap<String, String>,
        handle: Option<&Handle>,
        deadline: Instant,
    ) -> Result<bool, Status> {
        if let Some(export) = handle.and_then(|handle| self.export_of(&handle.id)) {
            self.servers.check(&export)?;
        }
        let Some(source) = ask::static_source(self.volumes.backend().kind(), volume_id, context)? else {
            return Ok(false);
        };
        self.servers.check(&source.export)?;
        let Some(handle) = handle else { return Ok(true) };
        match self.volumes.find(handle, deadline).await {
            Ok(_) => Ok(false),
            Err(FindError::NotFound) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The volume as CSI shows it.
    fn shown(&self, id: &VolumeId, place: Option<&Export>, volume: &Volume) -> proto::Volume {
        let mut context = HashMap::new();
        let mut say = |key: &str, value: &str| drop(context.insert(key.to_owned(), value.to_owned()));
        if let Some(export) = place {
            say("server", export.server());
            say("share", export.path());
            say("subDir", volume.record.directory.as_str());
        }
        if self.volumes.backend().enforcement().is_err() {
            say("sizeEnforced", "false");
        }
        let accessible_topology = if self.topology.is_empty() {
            Vec::new()
        } else {
            vec![proto::Topology { segments: self.topology.clone().into_iter().collect() }]
        };
        proto::Volume {
            capacity_bytes: i64::try_from(volume.record.capacity).unwrap_or(i64::MAX),
            volume_id: id.to_string(),
            volume_context: context,
            content_source: None,
            accessible_topology,
        }
    }

    fn export_of(&self, id: &VolumeId) -> Option<Export> {
        match self.volumes.backend().locate(&Handle { id: id.clone(), secret: SecretOptions::default() }) {
            Ok(Some(Place::Share { export, .. })) => Some(export),
            _ => None,
        }
    }

    fn place(
        &self,
        export: Option<&Export>,
        options: &MountOptions,
        secret: &SecretOptions,
    ) -> Result<Place, Status> {
        export.map_or(Ok(()), |export| self.servers.check(export))?;
        let place = self.volumes.backend().place(export, options, secret);
        place.ok_or_else(|| Status::invalid_argument("the parameters name no server and share"))
    }

    /// Refuses a wish for another place than the one there is.
    fn check_topology(&self, wish: Option<&proto::TopologyRequirement>) -> Result<(), Status> {
        let Some(wish) = wish.filter(|wish| !wish.requisite.is_empty() && !self.topology.is_empty()) else {
            return Ok(());
        };
        // What is preferred binds nobody: there is one place to choose from. The provisioner answers this code by asking the
        // scheduler for another node, where the class waits for the first consumer.
        if wish.requisite.iter().any(|topology| plan::lies_within(&self.topology, &topology.segments)) {
            return Ok(());
        }
        let here: Vec<String> = self.topology.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Err(Status::resource_exhausted(format!(
            "this pool's volumes can be used only where {}, and none was asked for there: run the pod there, or mend the class' \
             allowedTopologies",
            here.join(", ")
        )))
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<proto::CreateVolumeRequest>,
    ) -> Result<Response<proto::CreateVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let kind = self.volumes.backend().kind();
        let ask::Create { mut wanted, export, options, secret } =
            ask::Create::parse(&request, kind, &self.installation, now())?;
        self.check_topology(request.accessibility_requirements.as_ref())?;
        let place = self.place(export.as_ref(), &options, &secret)?;
        wanted.mount_options = match &place {
            Place::Share { options, .. } => options.clone(),
            // Nothing is mounted to reach a pool, so nothing of it, and of a secret least of all, stands in the record.
            Place::Pool => MountOptions::default(),
        };
        let volumes = self.volumes.clone();
        let key = wanted.key;
        let work = async move { Ok(volumes.create(&place, wanted, deadline).await?) };
        let (id, volume) = alone(&self.inflight, key.to_string(), deadline, work).await?;
        name_volume(&id.to_string());
        let volume = self.shown(&id, export.as_ref(), &volume);
        Ok(Response::new(proto::CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<proto::DeleteVolumeRequest>,
    ) -> Result<Response<proto::DeleteVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        if let Some(handle) = known(ask::volume_id(&request.volume_id)?, &request.secrets)? {
            let (volumes, key) = (self.volumes.clone(), handle.id.key());
            let work = async move { Ok(volumes.delete(&handle, deadline).await?) };
            alone(&self.inflight, key.to_string(), deadline, work).await?;
        }
        Ok(Response::new(proto::DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<proto::ControllerPublishVolumeRequest>,
    ) -> Result<Response<proto::ControllerPublishVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?;
        let node = ask::node_id(&request.node_id)?.to_owned();
        let capability = ask::capability(request.volume_capability.as_ref())?;
        let readonly = [("readonly".to_owned(), "true".to_owned())].into_iter().filter(|_| request.readonly);
        let done = proto::ControllerPublishVolumeResponse { publish_context: readonly.collect() };
        let handle = known(volume_id, &request.secrets)?;
        if self.is_static(volume_id, &request.volume_context, handle.as_ref(), deadline).await? {
            // Nothing of it is ours to write a note beside. Kubernetes keeps such a volume's modes by itself.
            return if self.knows(&node) { Ok(Response::new(done)) } else { Err(no_node(&node)) };
        }
        let handle = handle.ok_or_else(|| no_volume(volume_id))?;
        if !self.knows(&node) {
            // The volume first, as the specification lists them.
            self.volumes.find(&handle, deadline).await?;
            return Err(no_node(&node));
        }
        let access = ask::access(&capability, request.readonly);
        let publication = Publication { node, access };
        let (volumes, limit, key) = (self.volumes.clone(), self.max_volumes, handle.id.key());
        let work = async move { Ok(volumes.publish(&handle, publication, limit, deadline).await?) };
        alone(&self.inflight, key.to_string(), deadline, work).await?;
        Ok(Response::new(done))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<proto::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<proto::ControllerUnpublishVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        // Without a node: from all of them (CSI specification).
        let node = Some(request.node_id).filter(|node| !node.is_empty());
        if let Some(handle) = known(ask::volume_id(&request.volume_id)?, &request.secrets)? {
            let (volumes, key) = (self.volumes.clone(), handle.id.key());
            let work = async move { Ok(volumes.unpublish(&handle, node, deadline).await?) };
            alone(&self.inflight, key.to_string(), deadline, work).await?;
        }
        Ok(Response::new(proto::ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<proto::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<proto::ValidateVolumeCapabilitiesResponse>, Status> {
        use proto::validate_volume_capabilities_response::Confirmed;
        let deadline = self.limits.deadline(&request);
        let mut request = request.into_inner();
        // What is confirmed is said again, and a token shall not be.
        request.volume_context.remove(REDACTED_CONTEXT);
        let volume_id = ask::volume_id(&request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities is empty"));
        }
        let handle = known(volume_id, &request.secrets)?;
        if self.is_static(volume_id, &request.volume_context, handle.as_ref(), deadline).await? {
            return Ok(Response::new(validate_static(request)));
        }
        let handle = handle.ok_or_else(|| no_volume(volume_id))?;
        let volume = self.volumes.find(&handle, deadline).await?;
        let context = self.shown(&handle.id, self.export_of(&handle.id).as_ref(), &volume).volume_context;
        let refused =
            |message: String| proto::ValidateVolumeCapabilitiesResponse { confirmed: None, message };
        let answer = if let Err(status) = ask::capabilities(&request.volume_capabilities) {
            refused(status.message().to_owned())
        } else if request
            .volume_context
            .iter()
            .any(|(key, value)| !ask::is_kubernetes(key) && context.get(key) != Some(value))
        {
            refused(format!("the volume's context is {context:?}"))
        } else if !request.mutable_parameters.is_empty() {
            refused(
                "mutable_parameters can't be had: this driver has no VolumeAttributesClass yet".to_owned(),
            )
        } else if let Err(error) =
            same_parameters(self.volumes.backend().kind(), &request.parameters, &volume)
        {
            refused(error)
        } else {
            let confirmed = Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                mutable_parameters: HashMap::new(),
            };
            proto::ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() }
        };
        Ok(Response::new(answer))
    }

    async fn list_volumes(
        &self,
        request: Request<proto::ListVolumesRequest>,
    ) -> Result<Response<proto::ListVolumesResponse>, Status> {
        use proto::list_volumes_response::{Entry, VolumeStatus};
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let most = match usize::try_from(request.max_entries) {
            Ok(0) => PAGE,
            Ok(most) => most.min(PAGE),
            Err(_) => return Err(Status::invalid_argument("max_entries is negative")),
        };
        let after = match request.starting_token.as_str() {
            "" => None,
            token => Some(
                position(token)
                    .ok_or_else(|| Status::aborted("starting_token is not one that was given out"))?,
            ),
        };
        let (listed, next) = self.volumes.list(after, most, deadline).await?;
        let entries = listed.iter().map(|(id, volume)| {
            let published_node_ids =
                volume.published.iter().map(|publication| publication.node.clone()).collect();
            let status = VolumeStatus { published_node_ids };
            Entry { volume: Some(self.shown(id, self.export_of(id).as_ref(), volume)), status: Some(status) }
        });
        let next_token = next.map_or_else(String::new, |at| format!("{}@{}", at.key, at.place));
        Ok(Response::new(proto::ListVolumesResponse { entries: entries.collect(), next_token }))
    }

    async fn get_capacity(
        &self,
        request: Request<proto::GetCapacityRequest>,
    ) -> Result<Response<proto::GetCapacityResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        if !request.volume_capabilities.is_empty() {
            ask::capabilities(&request.volume_capabilities)?;
        }
        let elsewhere = request.accessible_topology.is_some_and(|asked| {
            !self.topology.is_empty() && !plan::lies_within(&self.topology, &asked.segments)
        });
        let named = request.parameters.keys().any(|key| key.eq_ignore_ascii_case("server"));
        let place = match self.volumes.backend().kind() {
            Kind::Share if named => {
                let parameters = crate::volume::Parameters::parse(Kind::Share, &request.parameters)?;
                Some(self.place(
                    parameters.export.as_ref(),
                    &MountOptions::default(),
                    &SecretOptions::default(),
                )?)
            }
            Kind::Share | Kind::Pool => None,
        };
        let room =
            if elsewhere { Default::default() } else { self.volumes.capacity(place, deadline).await? };
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(Response::new(proto::GetCapacityResponse {
            available_capacity: bytes(room.available),
            maximum_volume_size: Some(bytes(room.largest)),
            minimum_volume_size: None,
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<proto::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<proto::ControllerGetCapabilitiesResponse>, Status> {
        use controller_service_capability::{Rpc, Type, rpc};
        let all = [
            rpc::Type::CreateDeleteVolume,
            rpc::Type::PublishUnpublishVolume,
            rpc::Type::PublishReadonly,
            rpc::Type::ListVolumes,
            rpc::Type::ListVolumesPublishedNodes,
            rpc::Type::GetVolume,
            rpc::Type::GetCapacity,
            rpc::Type::ExpandVolume,
            rpc::Type::SingleNodeMultiWriter,
        ];
        let capabilities = all
            .into_iter()
            .map(|kind| proto::ControllerServiceCapability {
                r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
            })
            .collect();
        Ok(Response::new(proto::ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<proto::ControllerExpandVolumeRequest>,
    ) -> Result<Response<proto::ControllerExpandVolumeResponse>, Status> {
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?;
        let range = ask::range(request.capacity_range.as_ref())?;
        crate::volume::Capacity::parse(range.0, range.1)?.wanted()?;
        if request.volume_capability.is_some() {
            ask::capability(request.volume_capability.as_ref())?;
        }
        let handle = known(volume_id, &request.secrets)?.ok_or_else(|| {
            let words = no_volume(volume_id);
            Status::not_found(format!(
                "{}; a static volume's size is its server's, and not changed here",
                words.message()
            ))
        })?;
        let (volumes, key) = (self.volumes.clone(), handle.id.key());
        let work = async move { Ok(volumes.expand(&handle, range, deadline).await?) };
        let bytes = alone(&self.inflight, key.to_string(), deadline, work).await?;
        Ok(Response::new(proto::ControllerExpandVolumeResponse {
            capacity_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            // The node confirms that it sees the new size.
            node_expansion_required: true,
        }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<proto::ControllerGetVolumeRequest>,
    ) -> Result<Response<proto::ControllerGetVolumeResponse>, Status> {
        use proto::controller_get_volume_response::VolumeStatus;
        let deadline = self.limits.deadline(&request);
        let request = request.into_inner();
        let volume_id = ask::volume_id(&request.volume_id)?;
        let handle = known(volume_id, &HashMap::new())?.ok_or_else(|| no_volume(volume_id))?;
        let volume = self.volumes.find(&handle, deadline).await?;
        let published_node_ids =
            volume.published.iter().map(|publication| publication.node.clone()).collect();
        Ok(Response::new(proto::ControllerGetVolumeResponse {
            volume: Some(self.shown(&handle.id, self.export_of(&handle.id).as_ref(), &volume)),
            status: Some(VolumeStatus { published_node_ids }),
        }))
    }
}

/// What a static volume can be used for: what any can.
fn validate_static(
    request: proto::ValidateVolumeCapabilitiesRequest,
) -> proto::ValidateVolumeCapabilitiesResponse {
    use proto::validate_volume_capabilities_response::Confirmed;
    if let Err(status) = ask::capabilities(&request.volume_capabilities) {
        let message = status.message().to_owned();
        return proto::ValidateVolumeCapabilitiesResponse { confirmed: None, message };
    }
    let confirmed = Confirmed {
        volume_context: request.volume_context,
        volume_capabilities: request.volume_capabilities,
        ..Default::default()
    };
    proto::ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() }
}

/// Whether the parameters that a request names are those the volume was made with.
fn same_parameters(kind: Kind, asked: &HashMap<String, String>, volume: &Volume) -> Result<(), String> {
    if asked.is_empty() {
        return Ok(());
    }
    let asked = crate::volume::Parameters::parse(kind, asked).map_err(|error| error.to_string())?.asked;
    if asked == volume.record.fingerprint.parameters {
        return Ok(());
    }
    Err(format!("the volume was made with the parameters {:?}", volume.record.fingerprint.parameters))
}

/// A list's token: the last volume's key and place.
fn position(token: &str) -> Option<Position> {
    let (key, place) = token.split_once('@')?;
    let key: Key = key.parse().ok()?;
    (place == "pool" || place.parse::<Export>().is_ok()).then(|| Position { place: place.to_owned(), key })
}
