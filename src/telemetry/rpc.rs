//! One span, one line and one measurement for each request, whatever its handler does.
//!
//! A request ends in one of four ways, and each is told: with an error (the code stands in the headers), with an answer
//! (the code stands in the trailers, behind the message), by the client going away or its deadline passing (the server
//! drops what it was doing, and so the `Call`), or by a panic.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument, Level, Span, field};

use super::Metrics;

const TARGET: &str = "kuration::rpc";

/// All methods of CSI, so that no client can make up labels. A test compares them with the specification.
#[rustfmt::skip]
const METHODS: &[&str] = &[
    "GetPluginInfo", "GetPluginCapabilities", "Probe",
    "CreateVolume", "DeleteVolume", "ControllerPublishVolume", "ControllerUnpublishVolume", "ValidateVolumeCapabilities",
    "ListVolumes", "ControllerListVolumeHealth", "ControllerGetVolumeHealth", "GetCapacity", "ControllerGetCapabilities",
    "CreateSnapshot", "DeleteSnapshot", "ListSnapshots", "GetSnapshot", "ControllerExpandVolume", "ControllerGetVolume",
    "ControllerModifyVolume",
    "GroupControllerGetCapabilities", "CreateVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot", "GetVolumeGroupSnapshot",
    "GetMetadataAllocated", "GetMetadataDelta",
    "NodeStageVolume", "NodeUnstageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeGetVolumeStats",
    "NodeGetVolumeHealth", "NodeGetStorageHealth", "NodeExpandVolume", "NodeGetCapabilities", "NodeGetInfo",
];

/// What a sidecar asks all day long: a line for each would drown the others.
const QUIET: &[&str] = &[
    "Probe",
    "GetPluginCapabilities",
    "ControllerGetCapabilities",
    "GroupControllerGetCapabilities",
    "NodeGetCapabilities",
];

/// Writes the volume's id into the current request's span, from where each line about it has it.
pub fn name_volume(id: &str) {
    Span::current().record("volume.id", id);
}

/// When a request's handler should have answered, as the client's own patience allows; in the request's extensions.
///
/// It lies a tenth of that patience (half a second at most) before the client's deadline. At the deadline itself both the
/// client and the server drop the request, so an answer that says what went wrong must be earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(pub Instant);

impl Deadline {
    fn of(headers: &HeaderMap, now: Instant) -> Option<Self> {
        let patience = grpc_timeout(headers.get("grpc-timeout")?.to_str().ok()?)?;
        let margin = (patience / 10).min(Duration::from_millis(500));
        Some(Self(now.checked_add(patience - margin)?))
    }
}

/// `grpc-timeout`: up to eight digits and a unit (the gRPC protocol over HTTP/2).
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Lays [`Rpc`] around a server's services.
#[derive(Clone)]
pub struct RpcLayer(Metrics);

impl RpcLayer {
    /// Measures into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = Rpc<S>;
    fn layer(&self, inner: S) -> Rpc<S> {
        Rpc { inner, metrics: self.0.clone() }
    }
}

/// A service whose requests are told.
#[derive(Clone)]
pub struct Rpc<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, In, Out> Service<Request<In>> for Rpc<S>
where
    S: Service<Request<In>, Response = Response<Out>, Future: Send + 'static>,
    Out: Body,
{
    type Response = Response<Told<Out>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let call = Call::begin(self.metrics.clone(), request.uri().path());
        let span = call.span.clone();
        span.in_scope(|| tell_request(&request));
        if let Some(deadline) = Deadline::of(request.headers(), call.start) {
            request.extensions_mut().insert(deadline);
        }
        let answer = span.in_scope(|| self.inner.call(request));
        let told = async move { answer.await.map(|response| call.answered(response)) };
        Box::pin(told.instrument(span))
    }
}

/// Who asks, from `--v=6`; and with which headers, from 7.
fn tell_request<B>(request: &Request<B>) {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    let (pid, uid) = (peer.and_then(|peer| peer.pid()), peer.map(|peer| peer.uid()));
    let path = request.uri().path();
    tracing::trace!(target: "kuration::rpc::requests", path, peer.pid = pid, peer.uid = uid, "asked");
    if tracing::enabled!(target: "kuration::rpc::headers", Level::TRACE) {
        let secret = ["authorization", "proxy-authorization", "cookie"];
        let shown: Vec<_> =
            request.headers().iter().filter(|(name, _)| !secret.contains(&name.as_str())).collect();
        tracing::trace!(target: "kuration::rpc::headers", headers = ?shown);
    }
}

/// A request under way. Dropped unfinished, it was cancelled.
struct Call {
    method: &'static str,
    start: Instant,
    span: Span,
    metrics: Metrics,
    finished: bool,
}

impl Call {
    fn begin(metrics: Metrics, path: &str) -> Self {
        let asked = path.rsplit('/').next().unwrap_or_default();
        let method = METHODS.iter().find(|known| **known == asked).copied().unwrap_or("other");
        metrics.begun(method);
        // A span of the highest level is there whatever the filter, so a warning at --v=0 says of what it warns.
        let span = tracing::error_span!(
            target: TARGET,
            "rpc",
            rpc.method = method,
            volume.id = field::Empty,
            rpc.code = field::Empty,
            rpc.duration_ms = field::Empty,
        );
        Self { method, start: Instant::now(), span, metrics, finished: false }
    }

    /// With an error all is over; behind an answer there is still its message, and the code after it.
    fn answered<B: Body>(mut self, response: Response<B>) -> Response<Told<B>> {
        match Status::from_header_map(response.headers()) {
            Some(status) => self.finish(status.code(), status.message()),
            None if response.body().is_end_stream() => self.finish(Code::Unknown, "the answer has no code"),
            None => {}
        }
        response.map(|inner| Told { inner, call: self })
    }

    fn finish(&mut self, code: Code, message: &str) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let (name, duration) = (code_name(code), self.start.elapsed());
        self.metrics.ended(self.method, name, duration);
        self.span.record("rpc.code", name);
        self.span.record("rpc.duration_ms", (duration.as_secs_f64() * 1e6).round() / 1e3);
        let reason = Some(message).filter(|message| !message.is_empty());
        self.span.in_scope(|| match level(self.method, code) {
            Level::ERROR => tracing::error!(target: TARGET, reason, "answered"),
            Level::WARN => tracing::warn!(target: TARGET, reason, "answered"),
            Level::INFO => tracing::info!(target: TARGET, reason, "answered"),
            _ => tracing::debug!(target: TARGET, reason, "answered"),
        });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.finish(Code::Internal, "the handler panicked");
        } else {
            self.finish(
                Code::Cancelled,
                "the client went away, or its deadline passed, before there was an answer",
            );
        }
    }
}

/// How loud the end of a request is: what is the driver's fault is an error, what is its server's a warning.
fn level(method: &str, code: Code) -> Level {
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => Level::ERROR,
        Code::Unavailable | Code::DeadlineExceeded => Level::WARN,
        Code::Ok if QUIET.contains(&method) => Level::DEBUG,
        _ => Level::INFO,
    }
}

/// A code as the gRPC documentation writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// An answer's body, watched for the code behind the message.
pub struct Told<B> {
    inner: B,
    call: Call,
}

impl<B: Body + Unpin> Body for Told<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Self { inner, call } = &mut *self;
        let frame = ready!(call.span.in_scope(|| Pin::new(inner).poll_frame(cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    call.finish(status.code(), status.message());
                }
            }
            // Nothing follows, so the client sees an answer without a code, which it takes for this one.
            Some(Err(_)) | None => call.finish(Code::Unknown, "the answer broke off"),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_methods_of_the_specification_are_known() {
        let specification = include_str!("../../proto/csi.proto");
        let methods = specification.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
        let mut named: Vec<&str> =
            methods.map(|rest| rest.split(['(', ' ']).next().unwrap_or_default()).collect();
        let mut known = METHODS.to_vec();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, named);
        assert!(QUIET.iter().all(|quiet| METHODS.contains(quiet)));
    }

    #[test]
    fn a_deadline_lies_before_the_clients_own() {
        let now = Instant::now();
        let given = |text: &'static str| {
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]);
            Deadline::of(&headers, now).map(|deadline| (deadline.0 - now).as_millis())
        };
        for (text, milliseconds) in
            [("1S", 900), ("100m", 90), ("2M", 119_500), ("5000000u", 4_500), ("1H", 3_599_500)]
        {
            assert_eq!(given(text), Some(milliseconds), "{text}");
        }
        for text in ["", "S", "1", "1x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(given(text), None, "{text}");
        }
        assert_eq!(Deadline::of(&HeaderMap::new(), now), None);
    }
}
