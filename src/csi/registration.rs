//! Registration with the kubelet: its plugin watcher finds a socket in its directory, asks who is there, and says whether
//! it takes the driver (plugin registration API, version 1, proto/pluginregistration.proto).
//!
//! The kubelet comes whenever it finds the socket: when it appears, and again each time that it starts itself. So the
//! socket is served as long as the driver runs, and removed at its end, by which the kubelet knows that the driver is gone.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::serve::{ListenError, Listener, listen};
use crate::telemetry::logs::ALWAYS;

/// The messages and the service, generated from proto/pluginregistration.proto by build.rs.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod proto {
    tonic::include_proto!("pluginregistration");
}

use proto::registration_server::{Registration, RegistrationServer};

/// What the kubelet calls a driver of CSI (`CSIPlugin` in its pluginregistration/v1/constants.go).
const TYPE: &str = "CSIPlugin";

/// The version of the kubelet's side of CSI, of which there is only 1.x. As node-driver-registrar says it: the kubelet
/// refuses a second driver of one name unless its version is higher.
const VERSION: &str = "1.0.0";

/// How often to look whether the socket's file is still there. Whoever empties the directory takes the driver from the
/// kubelet.
const LOOK: Duration = Duration::from_secs(5);

/// How long an answer may take to reach the kubelet.
const DRAIN: Duration = Duration::from_secs(1);

/// How far a registration has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The kubelet has not come yet.
    Waiting,
    /// The kubelet has taken the driver.
    Accepted,
    /// It has not, and said why.
    Refused(String),
}

/// Why a driver can't be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// There is no such directory.
    #[error(
        "--kubelet-registration {0}: {1}; it must be the kubelet's directory of plugins, on the host \
         /var/lib/kubelet/plugins_registry unless the kubelet has another --root-dir: mount that into this container"
    )]
    Directory(PathBuf, io::Error),
    /// Its socket can't be served.
    #[error("registering with the kubelet: {0}")]
    Listen(#[from] ListenError),
    /// The kubelet does not take it.
    #[error("the kubelet refused to register this driver: {0}")]
    Refused(String),
    /// The server broke off.
    #[error("registering with the kubelet: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Where the driver `driver_name` is registered, in the kubelet's `directory`. Its watcher ignores names that begin with a
/// dot, and no others.
///
/// The `@` is needed: the kubelet's gRPC library sends the socket's path as the request's `:authority`, each slash as `%2F`
/// (grpc-go, clientconn.go, encodeAuthority), and HTTP/2 in Rust refuses an authority with a `%` in its host
/// (http::uri::Authority) with PROTOCOL_ERROR. What stands before an `@` is a user's name, where it may be.
pub fn socket(directory: &Path, driver_name: &str) -> PathBuf {
    directory.join(format!("kuration@{driver_name}-reg.sock"))
}

/// A driver that waits for the kubelet.
#[derive(Debug)]
pub struct Registrar {
    socket: PathBuf,
    listener: Listener,
    answers: Answers,
}

#[derive(Debug, Clone)]
struct Answers {
    driver_name: String,
    endpoint: PathBuf,
    standing: watch::Sender<Standing>,
}

impl Registrar {
    /// Shows the kubelet the driver `driver_name`, which serves CSI at `endpoint` (as the kubelet sees that). It comes at
    /// once, so CSI must be served by now.
    ///
    /// `directory` is the kubelet's and is never made here: one made by us would be watched by nobody.
    pub fn open(directory: &Path, driver_name: String, endpoint: PathBuf) -> Result<Self, RegistrationError> {
        let refused = |error| RegistrationError::Directory(directory.to_owned(), error);
        if !directory.metadata().map_err(refused)?.is_dir() {
            return Err(refused(io::ErrorKind::NotADirectory.into()));
        }
        let socket = socket(directory, &driver_name);
        let listener = listen(&socket)?;
        let standing = watch::Sender::new(Standing::Waiting);
        Ok(Self { socket, listener, answers: Answers { driver_name, endpoint, standing } })
    }

    /// How far it has come.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.answers.standing.subscribe()
    }

    /// Answers the kubelet until `stop` comes to an end, or the kubelet refuses. Where somebody removes the socket, it is
    /// put there again.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), RegistrationError> {
        let Self { socket, mut listener, answers } = self;
        let refused = refusal(answers.standing.subscribe());
        tokio::pin!(stop, refused);
        loop {
            let ours = listener.file();
            let (say, mut said) = oneshot::channel();
            let over = async {
                let end = tokio::select! {
                    () = &mut stop => End::Stopped,
                    words = &mut refused => End::Refused(words),
                    () = lost(&socket, ours) => End::Lost,
                };
                drop(say.send(end));
            };
            let routes = Routes::new(RegistrationServer::new(answers.clone()));
            let server = Server::builder().add_routes(routes).serve_with_incoming_shutdown(listener, over);
            tokio::pin!(server);
            let end = tokio::select! {
                ended = &mut server => ended.map(|()| said.try_recv().unwrap_or(End::Stopped)),
                end = &mut said => {
                    // The answer that is under way; a client that keeps its connection keeps nobody up.
                    let drained = tokio::time::timeout(DRAIN, server).await.unwrap_or(Ok(()));
                    drained.map(|()| end.unwrap_or(End::Stopped))
                }
            }?;
            match end {
                End::Stopped => return Ok(()),
                End::Refused(words) => return Err(RegistrationError::Refused(words)),
                End::Lost => {
                    tracing::warn!(socket = %socket.display(), "somebody removed it: registering anew");
                    answers.standing.send_replace(Standing::Waiting);
                    listener = listen(&socket)?;
                }
            }
        }
    }
}

enum End {
    Stopped,
    Refused(String),
    Lost,
}

/// Comes to an end with the kubelet's words when it refuses.
async fn refusal(mut standing: watch::Receiver<Standing>) -> String {
    loop {
        if let Standing::Refused(words) = &*standing.borrow_and_update() {
            return words.clone();
        }
        if standing.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Comes to an end when the file at `socket` is no longer the one that was `ours`.
async fn lost(socket: &Path, ours: (u64, u64)) {
    while super::serve::identity(socket).is_ok_and(|now| now == ours) {
        tokio::time::sleep(LOOK).await;
    }
}

#[tonic::async_trait]
impl Registration for Answers {
    async fn get_info(&self, _: Request<proto::InfoRequest>) -> Result<Response<proto::PluginInfo>, Status> {
        tracing::debug!("the kubelet asks who this is");
        Ok(Response::new(proto::PluginInfo {
            r#type: TYPE.to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.to_string_lossy().into_owned(),
            supported_versions: vec![VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<proto::RegistrationStatus>,
    ) -> Result<Response<proto::RegistrationStatusResponse>, Status> {
        let proto::RegistrationStatus { plugin_registered, error } = request.into_inner();
        self.standing.send_replace(if plugin_registered {
            tracing::info!(target: ALWAYS, driver = self.driver_name, "registered with the kubelet");
            Standing::Accepted
        } else {
            let words = if error.is_empty() { "it gave no reason".to_owned() } else { error };
            Standing::Refused(words)
        });
        Ok(Response::new(proto::RegistrationStatusResponse {}))
    }
}
