//! Connections as probes make them: names resolved, TLS with a verdict on the chain instead of a refusal, reads bounded.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::sight::{Blind, Finding, Verdict};

/// Most bytes that a probe keeps of an answer.
pub const MOST: usize = 64 << 10;

/// One address gets no longer than this while another one is left to try.
const ONE_ADDRESS: Duration = Duration::from_secs(3);

/// A connection that did not come about.
#[derive(Debug)]
pub enum Unconnected {
    /// The other side's fault: it refused, or there is no way to it.
    Refused(Finding),
    /// Ours: the name can't be resolved.
    Blind(Blind),
}

impl Unconnected {
    fn refused(reason: &str, message: String) -> Self {
        Self::Refused(Finding { reason: reason.to_owned(), message, subjects: Vec::new() })
    }
}

/// The addresses of `host`. An address literal is its own; a name goes to the system's resolver.
pub async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Blind> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((bare, port)).await;
    let found: Vec<SocketAddr> = found
        .map_err(|error| Blind::new("Unresolvable", format!("{host} can't be resolved: {error}")))?
        .collect();
    if found.is_empty() {
        return Err(Blind::new("Unresolvable", format!("{host} has no address")));
    }
    Ok(found)
}

/// A connection to the first address of `host` that takes one.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, Unconnected> {
    let addresses = resolve(host, port).await.map_err(Unconnected::Blind)?;
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (at, address) in addresses.iter().enumerate() {
        let dial = TcpStream::connect(address);
        // The last address may use all that is left of the rule's time.
        let dialled = match at + 1 == addresses.len() {
            true => dial.await,
            false => tokio::time::timeout(ONE_ADDRESS, dial)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        match dialled {
            Ok(stream) => {
                // A probe that waits for Nagle measures Nagle. It works without.
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(match reason(&last) {
        // Whether our own way out or theirs in is closed, nobody can tell from here.
        Some("ConnectTimeout") | None => Unconnected::Blind(Blind::new(
            "ConnectFailed",
            format!("no connection to {host}:{port} could be tried to its end: {last}"),
        )),
        Some(reason) => Unconnected::refused(reason, format!("{host}:{port}: {last}")),
    })
}

/// What an error of a connection says about the other side; `None` where it says nothing about it.
pub fn reason(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => "ConnectionRefused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "ConnectionReset",
        io::ErrorKind::ConnectionAborted => "ConnectionReset",
        io::ErrorKind::UnexpectedEof => "ConnectionClosed",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "Unreachable",
        io::ErrorKind::TimedOut => "ConnectTimeout",
        io::ErrorKind::InvalidData | io::ErrorKind::Other => "BadAnswer",
        _ => return None,
    })
}

/// A verdict on an error in mid-conversation.
pub fn broken(host: &str, port: u16, error: &io::Error) -> Verdict {
    Verdict::fail(reason(error).unwrap_or("ConversationFailed"), format!("{host}:{port}: {error}"))
}

/// Reads until the other side ends, `most` bytes have come, or `enough` says so; what came.
pub async fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
    enough: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let mut held = Vec::new();
    let mut buffer = [0; 4096];
    while held.len() < most && !enough(&held) {
        let room = buffer.len().min(most - held.len());
        match stream.read(&mut buffer[..room]).await? {
            0 => break,
            n => held.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(held)
}

/// What a TLS handshake showed of the other side.
#[derive(Debug, Clone, Default)]
pub struct Presented {
    /// The chain, the server's own certificate first.
    pub chain: Vec<Vec<u8>>,
    /// Why it is not trusted, if it isn't.
    pub untrusted: Option<String>,
    /// The protocol's version.
    pub version: String,
}

/// TLS over `stream`. It is made whatever the certificate is worth; `Presented` says whether the chain holds for `name`
/// under the authorities of `extra` (PEM), or without them under the public roots and the cluster's own CA.
///
/// # Errors
/// The handshake itself: not TLS, no common version, the other side's alert.
pub async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    name: &str,
    extra: Option<&[u8]>,
) -> io::Result<(TlsStream<S>, Presented)> {
    tls_for(stream, name, extra, &[]).await
}

/// The same, for a protocol above it (ALPN).
pub async fn tls_for<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    name: &str,
    extra: Option<&[u8]>,
    protocols: &[&[u8]],
) -> io::Result<(TlsStream<S>, Presented)> {
    let judge = Arc::new(Judge::new(extra)?);
    let provider = Arc::clone(&judge.provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&judge) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let bare = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_owned();
    let server = ServerName::try_from(bare).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    let presented = Presented {
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        untrusted: judge.untrusted.lock().clone(),
        version: connection.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default(),
    };
    Ok((stream, presented))
}

/// Judges a chain, and lets the handshake go on either way.
#[derive(Debug)]
struct Judge {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
    untrusted: Mutex<Option<String>>,
}

/// Where a pod finds the CA of the API server.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

impl Judge {
    fn new(extra: Option<&[u8]>) -> io::Result<Self> {
        // A task that names its authorities means those and no others.
        let (mut roots, pem) = match extra {
            Some(own) => (RootCertStore::empty(), own.to_vec()),
            None => {
                let public = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                (public, std::fs::read(CLUSTER_CA).unwrap_or_default())
            }
        };
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { provider, verifier, untrusted: Mutex::default() })
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Err(error) = self.verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            *self.untrusted.lock() = Some(error.to_string());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
