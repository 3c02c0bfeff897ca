//! The Identity service: who this is, and whether it can work.

use std::collections::HashMap;

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::proto::{self, identity_server, plugin_capability};

/// Whether the driver can work: not yet, yes, or no and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Still starting.
    Starting,
    /// At work.
    Ready,
    /// Something that it needs is missing.
    Unfit(String),
}

/// The Identity service.
pub struct Identity {
    driver_name: String,
    topology: bool,
    readiness: watch::Receiver<Readiness>,
}

impl Identity {
    /// An identity by this name, which tells what `readiness` says.
    pub fn new(driver_name: String, topology: bool, readiness: watch::Receiver<Readiness>) -> Self {
        Self { driver_name, topology, readiness }
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<proto::GetPluginInfoRequest>,
    ) -> Result<Response<proto::GetPluginInfoResponse>, Status> {
        Ok(Response::new(proto::GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<proto::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<proto::GetPluginCapabilitiesResponse>, Status> {
        use plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
        let service = |kind: service::Type| Type::Service(Service { r#type: kind.into() });
        let mut types = vec![
            service(service::Type::ControllerService),
            Type::VolumeExpansion(VolumeExpansion { r#type: volume_expansion::Type::Online.into() }),
        ];
        if self.topology {
            types.push(service(service::Type::VolumeAccessibilityConstraints));
        }
        let capabilities =
            types.into_iter().map(|kind| proto::PluginCapability { r#type: Some(kind) }).collect();
        Ok(Response::new(proto::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<proto::ProbeRequest>) -> Result<Response<proto::ProbeResponse>, Status> {
        match &*self.readiness.borrow() {
            Readiness::Ready => Ok(Response::new(proto::ProbeResponse { ready: Some(true) })),
            Readiness::Starting => Ok(Response::new(proto::ProbeResponse { ready: Some(false) })),
            Readiness::Unfit(why) => Err(Status::failed_precondition(why.clone())),
        }
    }
}
