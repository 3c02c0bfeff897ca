//! The health check that gRPC servers share (grpc.health.v1.Health/Check), in the few bytes that it is: one field each way.

use std::time::Instant;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use super::database::millis;
use super::place::Place;
use super::sight::{Seen, Sight, Verdict};
use super::wire::{self, Unconnected};
use crate::inspection::task::probe::{Grpc, TlsMode};

/// Asks how a service is.
pub async fn look(rule: &Grpc, place: &Place) -> Seen {
    let begun = Instant::now();
    let host = place.host(rule.host.as_deref()).await?;
    let nothing =
        |verdict| Ok(Sight::of(json!({"serving": false, "status": "", "durationMillis": 0}), verdict));
    let stream = match wire::connect(&host, rule.port).await {
        Ok(stream) => stream,
        Err(Unconnected::Blind(blind)) => return Err(blind),
        Err(Unconnected::Refused(finding)) => return nothing(Verdict::Fail(finding)),
    };
    let service = rule.service.as_deref().unwrap_or_default();
    let asked = match rule.tls.as_ref().filter(|tls| tls.mode != TlsMode::Disabled) {
        None => ask(stream, "http", &host, rule.port, service).await,
        Some(tls) => {
            let authorities = place.authorities(tls.ca_secret_ref.as_ref()).await?;
            let name = tls.server_name.as_deref().unwrap_or(&host);
            match wire::tls_for(stream, name, authorities.as_deref(), &[b"h2"]).await {
                Err(error) => return nothing(Verdict::fail("TlsFailed", error.to_string())),
                Ok((_, shown)) if shown.untrusted.is_some() && tls.mode != TlsMode::Preferred => {
                    return nothing(Verdict::fail(
                        "CertificateUntrusted",
                        shown.untrusted.unwrap_or_default(),
                    ));
                }
                Ok((stream, _)) => ask(stream, "https", &host, rule.port, service).await,
            }
        }
    };
    let (status, verdict) = match asked {
        Ok(status) => status,
        Err(why) => {
            return nothing(Verdict::fail("ConversationFailed", format!("{host}:{}: {why}", rule.port)));
        }
    };
    let result = json!({"serving": status == "SERVING", "status": status, "durationMillis": millis(begun)});
    Ok(Sight::of(result, verdict))
}

async fn ask<S>(
    stream: S,
    scheme: &str,
    host: &str,
    port: u16,
    service: &str,
) -> Result<(String, Verdict), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = async {
        // HealthCheckRequest: field 1, a string.
        let mut message = Vec::new();
        if !service.is_empty() {
            message.push(0x0a);
            message.extend(varint(service.len()));
            message.extend(service.as_bytes());
        }
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).map_err(|error| error.to_string())?.to_be_bytes());
        frame.extend(message);
        let bare = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let request = Request::post(format!("{scheme}://{bare}:{port}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kuration-inspector")
            .body(Full::new(Bytes::from(frame)))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let whole = Limited::new(body, 4096).collect().await.map_err(|error| error.to_string())?;
        let said = whole
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .or(head.headers.get("grpc-status"));
        let code = said.and_then(|code| code.to_str().ok()).unwrap_or_default().to_owned();
        Ok::<_, String>((head.status.as_u16(), code, whole.to_bytes()))
    };
    let answer = answer.await;
    driver.abort();
    let (http, code, body) = answer?;
    Ok(match (http, code.as_str()) {
        (200, "0") => {
            // HealthCheckResponse: field 1, an enumeration; left out it is UNKNOWN.
            let status = match body.get(5..) {
                Some([0x08, 1, ..]) => "SERVING",
                Some([0x08, 2, ..]) => "NOT_SERVING",
                Some([0x08, 3, ..]) => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            let verdict = match status {
                "SERVING" => Verdict::Pass,
                other => Verdict::fail("NotServing", format!("the server says {other}")),
            };
            (status.to_owned(), verdict)
        }
        (200, "5") => (
            "SERVICE_UNKNOWN".to_owned(),
            Verdict::fail("NotServing", format!("the server knows no service {service:?}")),
        ),
        (200, "12") => {
            ("UNIMPLEMENTED".to_owned(), Verdict::fail("NoHealthService", "the server has no health service"))
        }
        (200, code) => (String::new(), Verdict::fail("HealthRefused", format!("gRPC status {code}"))),
        (http, _) => {
            (String::new(), Verdict::fail("BadAnswer", format!("this is no gRPC server: HTTP {http}")))
        }
    })
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
