//! A server behind a pipe: what is told of each request, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::controller_server::{Controller, ControllerServer};
use crate::csi::proto::identity_client::IdentityClient;
use crate::csi::proto::identity_server::{Identity, IdentityServer};
use crate::csi::proto::*;
use crate::settings::LogFormat;
use crate::telemetry::logs::tests::capture;
use crate::telemetry::{Deadline, name_volume};

/// Answers Probe, refuses what has no name, and takes as long as it is let for a volume named "slow".
#[derive(Clone, Default)]
struct Driver {
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

#[tonic::async_trait]
impl Controller for Driver {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let deadline = request.extensions().get::<Deadline>().copied();
        match request.get_ref().name.as_str() {
            "" => Err(Status::invalid_argument("the name is missing: ü")),
            "panic" => panic!("on purpose"),
            "slow" => {
                self.begun.notify_one();
                self.go_on.notified().await;
                Ok(Response::new(CreateVolumeResponse::default()))
            }
            "patient" => {
                tokio::time::sleep_until(deadline.ok_or(Status::internal("no deadline"))?.0).await;
                Err(Status::deadline_exceeded("the server did not answer"))
            }
            name => {
                name_volume(name);
                Ok(Response::new(CreateVolumeResponse::default()))
            }
        }
    }
}

/// A server on a socket of its own, and a client of it.
struct Served {
    channel: Channel,
    driver: Driver,
    metrics: Metrics,
    stop: tokio::sync::oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    directory: tempfile::TempDir,
}

impl Served {
    async fn new(grace: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let driver = Driver::default();
        let routes = Routes::new(IdentityServer::new(driver.clone()))
            .add_service(ControllerServer::new(driver.clone()));
        let metrics = Metrics::new();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let ended = tokio::spawn(serve(routes, listen(&path).unwrap(), metrics.clone(), stopped, grace));
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
        Self { channel: endpoint.connect().await.unwrap(), driver, metrics, stop, ended, directory }
    }

    async fn create(&self, name: &str) -> Result<(), Status> {
        self.ask(Request::new(CreateVolumeRequest { name: name.to_owned(), ..Default::default() })).await
    }

    async fn ask(&self, request: Request<CreateVolumeRequest>) -> Result<(), Status> {
        ControllerClient::new(self.channel.clone()).create_volume(request).await.map(drop)
    }

    async fn probe(&self) {
        IdentityClient::new(self.channel.clone()).probe(ProbeRequest {}).await.unwrap();
    }

    /// Waits until a line of the metrics is there: the server's side of an end may come after the client's.
    async fn wait_for(&self, line: &str) {
        for _ in 0..500 {
            if self.metrics.text().unwrap().contains(line) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {line} in\n{}", self.metrics.text().unwrap());
    }
}

fn asked(name: &str, patience: Duration) -> Request<CreateVolumeRequest> {
    let mut request = Request::new(CreateVolumeRequest { name: name.to_owned(), ..Default::default() });
    request.set_timeout(patience);
    request
}

/// The lines that tell of a request's end.
fn ends(log: &str) -> Vec<serde_json::Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["message"] == "answered").collect()
}

#[tokio::test]
async fn one_line_tells_method_volume_code_and_duration() {
    let (log, _guard) = capture(2, LogFormat::Json);
    let served = Served::new(Duration::ZERO).await;
    served.create("pvc-1").await.unwrap();
    assert_eq!(served.create("").await.unwrap_err().code(), Code::InvalidArgument);
    served.probe().await;
    served.wait_for("kuration_rpc_total{method=\"Probe\",code=\"OK\"} 1").await;
    served.wait_for("kuration_rpc_total{method=\"CreateVolume\",code=\"OK\"} 1").await;
    served.wait_for("kuration_rpc_total{method=\"CreateVolume\",code=\"INVALID_ARGUMENT\"} 1").await;

    let ends = ends(&log.text());
    assert_eq!(ends.len(), 2, "Probe is quiet: {ends:?}");
    let span = |at: usize, field: &str| ends[at]["span"][field].clone();
    assert_eq!((span(0, "rpc.method"), span(0, "volume.id")), ("CreateVolume".into(), "pvc-1".into()));
    assert_eq!((span(0, "rpc.code"), &ends[0]["level"]), ("OK".into(), &"INFO".into()));
    assert!(span(0, "rpc.duration_ms").as_f64().unwrap() > 0.0);
    assert_eq!(
        (span(1, "rpc.code"), &ends[1]["reason"]),
        ("INVALID_ARGUMENT".into(), &"the name is missing: ü".into())
    );
    assert_eq!(served.metrics.under_way(), 0);
}

#[tokio::test]
async fn a_method_that_nobody_knows_makes_no_label_of_its_own() {
    let served = Served::new(Duration::ZERO).await;
    let mut client = tonic::client::Grpc::new(served.channel.clone());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/csi.v1.Nobody/Knows");
    let codec = crate::telemetry::Codec::<ProbeRequest, ProbeResponse>::default();
    let error = client.unary(Request::new(ProbeRequest {}), path, codec).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    served.wait_for("kuration_rpc_total{method=\"other\",code=\"UNIMPLEMENTED\"} 1").await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_as_cancelled() {
    let served = Served::new(Duration::ZERO).await;
    tokio::select! {
        _ = served.create("slow") => panic!("it is slow"),
        () = served.driver.begun.notified() => {}
    }
    served.wait_for("kuration_rpc_total{method=\"CreateVolume\",code=\"CANCELLED\"} 1").await;
    assert_eq!(served.metrics.under_way(), 0);
}

#[tokio::test]
async fn a_handler_that_waits_too_long_is_dropped_and_one_that_heeds_the_deadline_answers_itself() {
    let served = Served::new(Duration::ZERO).await;
    let error = served.ask(asked("slow", Duration::from_millis(200))).await.unwrap_err();
    assert!(matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded), "{error}");
    served.wait_for("kuration_rpc_total{method=\"CreateVolume\",code=\"CANCELLED\"} 1").await;

    let error = served.ask(asked("patient", Duration::from_secs(2))).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::DeadlineExceeded, "the server did not answer"));
}

#[tokio::test]
async fn a_panic_is_an_internal_error_of_one_request_alone() {
    let served = Served::new(Duration::ZERO).await;
    served.create("panic").await.unwrap_err();
    served.wait_for("kuration_rpc_total{method=\"CreateVolume\",code=\"INTERNAL\"} 1").await;
    served.create("another").await.unwrap();
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_frees_the_socket_at_once() {
    let served = Served::new(Duration::from_secs(30)).await;
    let path = served.directory.path().join("csi.sock");
    let (driver, channel) = (served.driver.clone(), served.channel.clone());
    let under_way = tokio::spawn(async move {
        let request = CreateVolumeRequest { name: "slow".to_owned(), ..Default::default() };
        ControllerClient::new(channel).create_volume(request).await
    });
    driver.begun.notified().await;
    served.stop.send(()).unwrap();
    while path.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!served.ended.is_finished());
    driver.go_on.notify_one();
    under_way.await.unwrap().unwrap();
    served.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let (log, _guard) = capture(2, LogFormat::Json);
    let served = Served::new(Duration::from_millis(50)).await;
    let (driver, stop, ended) = (served.driver.clone(), served.stop, served.ended);
    let channel = served.channel.clone();
    tokio::spawn(async move {
        let request = CreateVolumeRequest { name: "slow".to_owned(), ..Default::default() };
        ControllerClient::new(channel).create_volume(request).await
    });
    driver.begun.notified().await;
    stop.send(()).unwrap();
    ended.await.unwrap().unwrap();
    assert!(log.text().contains("\"requests\":1"), "{}", log.text());
}

#[tokio::test]
async fn no_level_shows_a_secret_or_an_authorization() {
    let (log, _guard) = capture(10, LogFormat::Json);
    let served = Served::new(Duration::ZERO).await;
    let secrets = [("password".to_owned(), "CANARY-1".to_owned())].into();
    let mut request =
        Request::new(CreateVolumeRequest { name: "pvc-1".to_owned(), secrets, ..Default::default() });
    request.metadata_mut().insert("authorization", "Bearer CANARY-2".parse().unwrap());
    request.metadata_mut().insert("x-shown", "yes".parse().unwrap());
    served.ask(request).await.unwrap();
    let text = log.text();
    assert!(!text.contains("CANARY"), "{text}");
    for shown in ["x-shown", "pvc-1", "***stripped***", "peer.pid", "/csi.v1.Controller/CreateVolume"] {
        assert!(text.contains(shown), "{shown} in\n{text}");
    }
}
