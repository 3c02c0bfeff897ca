//! `/livez`, `/readyz` and `/metrics` over HTTP, on an address of their own.
//!
//! Not the driver's Probe, which the sidecars ask over the socket: this is for kubelets' probes and for what collects
//! metrics. Nothing secret is told, and nothing can be changed.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use futures::stream;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Metrics;

/// Whether the driver is ready, and if not, why.
pub type Readiness = watch::Receiver<Result<(), String>>;

/// The address is taken; nobody is served on it yet.
#[derive(Debug)]
pub struct Admin(TcpListener);

/// Why the address can't be served.
#[derive(Debug, thiserror::Error)]
#[error("--admin {address}: health and metrics can't be served there: {error}{}", hint(.error))]
pub struct AdminError {
    address: SocketAddr,
    error: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process has this port: choose another (in the network of a host, which a node plugin needs, all \
             processes of that host share its ports)"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has this address",
        _ => "",
    }
}

/// What stands for every address where `[::]` can't be had since the kernel has no IPv6 (`ipv6.disable=1`).
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let is_off = error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error());
    let is_every = address.is_ipv6() && address.ip().is_unspecified();
    (is_off && is_every).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

/// Takes an address to listen on. `[::]` stands for every address, of IPv4 too; on a kernel without IPv6 it is `0.0.0.0`.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    let instead = bound.as_ref().err().and_then(|error| without_ipv6(address, error));
    match instead {
        Some(instead) => TcpListener::bind(instead).await,
        None => bound,
    }
}

impl Admin {
    /// Takes the address, as [`listen`] does: at the start, where a failure can still be told to the one who chose it.
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        listen(address).await.map(Self).map_err(|error| AdminError { address, error })
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers until `stop` comes to an end.
    pub async fn serve(
        self,
        metrics: Metrics,
        ready: Readiness,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz).with_state(ready))
            .route("/metrics", get(scrape).with_state(metrics));
        axum::serve(self.0, routes).with_graceful_shutdown(stop).await
    }
}

/// That this is answered is the answer: the process turns.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(ready): State<Readiness>) -> (StatusCode, String) {
    match &*ready.borrow() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

type Scraped = (StatusCode, [(HeaderName, HeaderValue); 2], Body);

async fn scrape(State(metrics): State<Metrics>) -> Scraped {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let (status, kind, pieces) = match metrics.pieces() {
        Ok(pieces) => (StatusCode::OK, OPENMETRICS, pieces),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", vec![error.to_string()]),
    };
    let length: usize = pieces.iter().map(String::len).sum();
    let headers =
        [(CONTENT_TYPE, HeaderValue::from_static(kind)), (CONTENT_LENGTH, HeaderValue::from(length))];
    (status, headers, Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_driver_and_the_reason_is_told() {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = admin.address().unwrap();
        let (ready, readiness) = watch::channel(Err("starting".to_owned()));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(admin.serve(Metrics::new(), readiness, async { drop(stopped.await) }));

        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = ask(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("starting\n"), "{answer}");
        ready.send(Ok(())).unwrap();
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        let answer = ask(address, "/metrics").await;
        assert!(answer.contains("application/openmetrics-text") && answer.ends_with("# EOF\n"), "{answer}");
        assert!(ask(address, "/else").await.starts_with("HTTP/1.1 404"));

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn every_address_of_ipv6_is_one_of_ipv4_too_whether_or_not_the_kernel_has_ipv6() {
        let admin = Admin::bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = admin.address().unwrap().port();
        let (_ready, readiness) = watch::channel(Ok(()));
        tokio::spawn(admin.serve(Metrics::new(), readiness, std::future::pending()));
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert!(ask(here, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn only_every_address_has_another_one_and_only_without_ipv6() {
        let instead = |address: &str, errno: Errno| {
            let error = io::Error::from(errno);
            without_ipv6(address.parse().unwrap(), &error).map(|address| address.to_string())
        };
        assert_eq!(instead("[::]:9", Errno::AFNOSUPPORT).as_deref(), Some("0.0.0.0:9"));
        for (address, errno) in
            [("[::]:9", Errno::ADDRINUSE), ("[::1]:9", Errno::AFNOSUPPORT), ("0.0.0.0:9", Errno::AFNOSUPPORT)]
        {
            assert_eq!(instead(address, errno), None, "{address} {errno}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_refused_by_name() {
        let first = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.address().unwrap();
        let error = Admin::bind(address).await.unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains(&address.to_string()) && said.contains("another process has this port"),
            "{said}"
        );
        let elsewhere = Admin::bind("192.0.2.1:9".parse().unwrap()).await.unwrap_err().to_string();
        assert!(elsewhere.contains("no interface of this machine"), "{elsewhere}");
    }
}
