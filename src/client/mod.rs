//! The other end of the socket: a CSI client that takes a volume through its life as Kubernetes would.
//!
//! It sends what the sidecars (external-provisioner with `--extra-create-metadata`, external-attacher,
//! external-resizer) and the kubelet send, and as they do it leaves out what the driver does not announce. So it drives
//! any CSI driver, and `kuration bench` can measure another one by the same rule.

mod error;
mod interrupt;
mod kubelet;
mod life;
mod percentile;
mod undo;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::identity_client::IdentityClient;
use crate::csi::proto::node_client::NodeClient;
use crate::csi::proto::{self, controller_service_capability, node_service_capability, plugin_capability};

pub use crate::telemetry::rpc::code_name;
pub use error::ClientError;
pub use interrupt::interrupted;
pub use kubelet::{Kubelet, Mounted, mounts_beneath, uuid};
pub use life::{Life, Order, Usage};
pub use percentile::percentile;

/// How long one call may take, unless a caller sets another: what the kubelet gives its calls.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A connection to a driver that has introduced itself.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    socket: PathBuf,
    deadline: Duration,
    plugin: std::sync::Arc<Plugin>,
}

/// What a driver says of itself.
#[derive(Debug, Clone, Default)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name of the node it runs on, where it has the node service.
    pub node_id: String,
    /// Whether it has the controller service.
    pub controller: bool,
    /// Whether a volume is published to a node before the node uses it.
    pub attach: bool,
    /// Whether the controller grows volumes.
    pub expand: bool,
    /// Whether one volume can be asked for.
    pub get_volume: bool,
    /// Whether volumes are listed.
    pub list_volumes: bool,
    /// Whether a node stages a volume before it publishes it.
    pub stage: bool,
    /// Whether a node measures volumes.
    pub stats: bool,
    /// Whether a node has a part in growing a volume.
    pub node_expand: bool,
    /// Where its volumes can be reached from, if that matters to it.
    topology: Option<proto::Topology>,
}

/// One call as it was made.
#[derive(Debug, Clone)]
pub struct Call {
    /// The RPC.
    pub method: &'static str,
    /// From the request to the answer.
    pub took: Duration,
    /// How it ended: `None` where it succeeded.
    pub error: Option<ClientError>,
}

impl Client {
    /// Connects to `unix:///path/to/csi.sock`, waits up to `wait` for a driver that is ready, and asks what it can do.
    pub async fn connect(endpoint: &str, wait: Duration) -> Result<Self, ClientError> {
        let bad = || ClientError::Endpoint(endpoint.to_owned());
        let path =
            endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
        let socket = PathBuf::from(path);
        if !socket.is_absolute() {
            return Err(bad());
        }
        let channel = Endpoint::from_shared(format!("unix://{path}")).map_err(|_| bad())?.connect_lazy();
        let mut client = Self { channel, socket, deadline: DEADLINE, plugin: std::sync::Arc::default() };
        client.ready(wait).await?;
        client.plugin = std::sync::Arc::new(client.introduce().await?);
        Ok(client)
    }

    /// The same, with another deadline for each call.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What the driver says of itself.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process that listens on the socket, as the kernel knows it (SO_PEERCRED). `None` where it lives in another
    /// process namespace.
    pub async fn server_process(&self) -> Option<u32> {
        let stream = UnixStream::connect(&self.socket).await.ok()?;
        let pid = stream.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok().filter(|pid| *pid != 0)
    }

    /// Probe: the smallest question there is, so its time is the floor under every other.
    pub async fn probe(&self) -> Result<bool, ClientError> {
        let answer = self.call("Probe", self.identity().probe(self.request(proto::ProbeRequest {}))).await?;
        // Absent means ready (CSI specification, ProbeResponse).
        Ok(answer.ready.is_none_or(|ready| ready))
    }

    /// Whether the driver still knows the volume; `None` where it has no RPC to tell.
    pub async fn knows(&self, volume_id: &str) -> Result<Option<bool>, ClientError> {
        if self.plugin.get_volume {
            let request = proto::ControllerGetVolumeRequest { volume_id: volume_id.to_owned() };
            let mut controller = self.controller();
            let asked = self
                .call("ControllerGetVolume", controller.controller_get_volume(self.request(request)))
                .await;
            return match asked {
                Ok(_) => Ok(Some(true)),
                Err(ClientError::Refused { code: Code::NotFound, .. }) => Ok(Some(false)),
                Err(error) => Err(error),
            };
        }
        if !self.plugin.list_volumes {
            return Ok(None);
        }
        let mut starting_token = String::new();
        loop {
            let request = proto::ListVolumesRequest { max_entries: 0, starting_token };
            let mut controller = self.controller();
            let page = self.call("ListVolumes", controller.list_volumes(self.request(request))).await?;
            let ids = page.entries.iter().filter_map(|entry| entry.volume.as_ref());
            if ids.map(|volume| &volume.volume_id).any(|id| id == volume_id) {
                return Ok(Some(true));
            }
            if page.next_token.is_empty() {
                return Ok(Some(false));
            }
            starting_token = page.next_token;
        }
    }

    /// Asks until the driver says that it is ready, as livenessprobe and the sidecars do at their start.
    async fn ready(&self, wait: Duration) -> Result<(), ClientError> {
        let start = Instant::now();
        loop {
            let reason = match self.probe().await {
                Ok(true) => return Ok(()),
                Ok(false) => "it says that it is not ready yet".to_owned(),
                Err(error @ ClientError::Refused { code: Code::FailedPrecondition, .. }) => {
                    return Err(error);
                }
                Err(ClientError::Refused { message, .. }) => message,
                Err(error) => error.to_string(),
            };
            if start.elapsed() >= wait {
                return Err(ClientError::Silent { socket: self.socket.clone(), waited: wait, reason });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn introduce(&self) -> Result<Plugin, ClientError> {
        let mut identity = self.identity();
        let info = self
            .call("GetPluginInfo", identity.get_plugin_info(self.request(proto::GetPluginInfoRequest {})))
            .await?;
        let mut plugin = Plugin { name: info.name, version: info.vendor_version, ..Plugin::default() };

        let request = self.request(proto::GetPluginCapabilitiesRequest {});
        let answer = self.call("GetPluginCapabilities", identity.get_plugin_capabilities(request)).await?;
        let mut reached_from_some_nodes_only = false;
        for capability in answer.capabilities {
            use plugin_capability::service::Type;
            if let Some(plugin_capability::Type::Service(service)) = capability.r#type {
                match service.r#type() {
                    Type::ControllerService => plugin.controller = true,
                    Type::VolumeAccessibilityConstraints => reached_from_some_nodes_only = true,
                    _ => {}
                }
            }
        }
        if plugin.controller {
            let request = self.request(proto::ControllerGetCapabilitiesRequest {});
            let mut controller = self.controller();
            let answer = self
                .call("ControllerGetCapabilities", controller.controller_get_capabilities(request))
                .await?;
            for capability in answer.capabilities {
                use controller_service_capability::rpc::Type;
                if let Some(controller_service_capability::Type::Rpc(rpc)) = capability.r#type {
                    match rpc.r#type() {
                        Type::PublishUnpublishVolume => plugin.attach = true,
                        Type::ExpandVolume => plugin.expand = true,
                        Type::GetVolume => plugin.get_volume = true,
                        Type::ListVolumes => plugin.list_volumes = true,
                        _ => {}
                    }
                }
            }
        }
        self.introduce_node(&mut plugin, reached_from_some_nodes_only).await?;
        Ok(plugin)
    }

    /// The node's half; a controller alone on its socket has none, and says UNIMPLEMENTED.
    async fn introduce_node(&self, plugin: &mut Plugin, topology: bool) -> Result<(), ClientError> {
        let mut node = self.node();
        let request = self.request(proto::NodeGetCapabilitiesRequest {});
        let answer = match self.call("NodeGetCapabilities", node.node_get_capabilities(request)).await {
            Ok(answer) => answer,
            Err(ClientError::Refused { code: Code::Unimplemented, .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for capability in answer.capabilities {
            use node_service_capability::rpc::Type;
            if let Some(node_service_capability::Type::Rpc(rpc)) = capability.r#type {
                match rpc.r#type() {
                    Type::StageUnstageVolume => plugin.stage = true,
                    Type::GetVolumeStats => plugin.stats = true,
                    Type::ExpandVolume => plugin.node_expand = true,
                    _ => {}
                }
            }
        }
        let request = self.request(proto::NodeGetInfoRequest {});
        let info = self.call("NodeGetInfo", node.node_get_info(request)).await?;
        plugin.node_id = info.node_id;
        plugin.topology = info.accessible_topology.filter(|_| topology);
        Ok(())
    }

    fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// A request that tells the driver how long its answer is waited for (the header `grpc-timeout`).
    fn request<Q>(&self, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    async fn call<A>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<Response<A>, Status>>,
    ) -> Result<A, ClientError> {
        let late = || ClientError::Refused {
            method,
            code: Code::DeadlineExceeded,
            message: format!("no answer within {:?}", self.deadline),
        };
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            // The channel keeps the deadline too, and calls its passing a cancellation.
            Ok(Err(status)) if status.code() == Code::Cancelled && status.message() == "Timeout expired" => {
                Err(late())
            }
            Ok(Err(status)) => {
                Err(ClientError::Refused { method, code: status.code(), message: error::words(&status) })
            }
            Err(_) => Err(late()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("socket", &self.socket).field("plugin", &self.plugin).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_is_an_absolute_socket() {
        for bad in ["tcp://127.0.0.1:1", "csi.sock", "unix://csi.sock", ""] {
            let error = Client::connect(bad, Duration::ZERO).await.unwrap_err();
            assert_eq!(error, ClientError::Endpoint(bad.to_owned()));
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_systems_words() {
        let error = Client::connect("unix:///nowhere/csi.sock", Duration::ZERO).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nowhere/csi.sock") && text.contains("No such file"), "{text}");
    }
}
