//! Databases: a handshake without credentials, a session with them.

use std::io;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::mysql_session::Trust;
use super::place::Place;
use super::sight::{Blind, Seen, Sight, Verdict};
use super::wire::{self, Unconnected};
use super::{mysql, mysql_session, postgres, redis};
use crate::inspection::task::probe::{Collect, Mysql, Postgresql, Redis, TlsClient, TlsMode};

/// Most rows of a query that are seen.
pub const ROWS: usize = 100;

/// Who logs in. It has no Debug: nothing prints a password.
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Milliseconds since `begun`.
pub fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A stream that may or may not be TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What a server that was not reached looks like to CEL.
fn unreached(verdict: Verdict) -> Sight {
    let result = json!({
        "handshake": {"completed": false, "error": "", "errorCode": 0}, "hostBlocked": false, "version": "",
        "pong": false,
    });
    Sight::of(result, verdict)
}

async fn dial(host: &str, port: u16) -> Result<Result<TcpStream, Sight>, Blind> {
    match wire::connect(host, port).await {
        Ok(stream) => Ok(Ok(stream)),
        Err(Unconnected::Refused(finding)) => Ok(Err(unreached(Verdict::Fail(finding)))),
        Err(Unconnected::Blind(blind)) => Err(blind),
    }
}

fn mode(tls: Option<&TlsClient>) -> TlsMode {
    tls.map_or(TlsMode::Preferred, |tls| tls.mode)
}

/// Whether a certificate must hold: always with Verify, with Required where authorities are given.
fn strict(tls: Option<&TlsClient>) -> bool {
    match mode(tls) {
        TlsMode::Verify => true,
        TlsMode::Required => tls.is_some_and(|tls| tls.ca_secret_ref.is_some()),
        TlsMode::Disabled | TlsMode::Preferred => false,
    }
}

/// TLS over `stream`; the sight of an untrusted or failing one where it must hold.
async fn secured(
    stream: TcpStream,
    host: &str,
    place: &Place,
    tls: Option<&TlsClient>,
) -> Result<Result<Box<dyn Stream>, Sight>, Blind> {
    let authorities = place.authorities(tls.and_then(|tls| tls.ca_secret_ref.as_ref())).await?;
    let name = tls.and_then(|tls| tls.server_name.as_deref()).unwrap_or(host);
    match wire::tls(stream, name, authorities.as_deref()).await {
        Ok((_, presented)) if strict(tls) && presented.untrusted.is_some() => {
            let why = presented.untrusted.unwrap_or_default();
            Ok(Err(unreached(Verdict::fail("CertificateUntrusted", why))))
        }
        Ok((stream, _)) => Ok(Ok(Box::new(stream))),
        Err(error) => Ok(Err(unreached(Verdict::fail("TlsFailed", format!("{host}: {error}"))))),
    }
}

/// A MySQL or MariaDB server.
pub async fn mysql(rule: &Mysql, place: &Place) -> Seen {
    let begun = Instant::now();
    let host = place.host(rule.host.as_deref()).await?;
    let mut stream = match dial(&host, rule.port).await? {
        Ok(stream) => stream,
        Err(sight) => return Ok(sight),
    };
    let done = match mysql::handshake(&mut stream).await {
        Ok(done) => done,
        Err(error) => return Ok(unreached(wire::broken(&host, rule.port, &error))),
    };
    let mut result = done.json();
    let verdict = done.verdict();
    if let (Some(of), Verdict::Pass) = (&rule.credentials_secret_ref, &verdict) {
        let credentials = place.credentials(of).await?;
        let tls = rule.tls.as_ref();
        let offered = result["tlsOffered"] == true;
        let wanted = match mode(tls) {
            TlsMode::Disabled => false,
            TlsMode::Preferred => offered,
            TlsMode::Required | TlsMode::Verify => true,
        };
        let authorities = place.authorities(tls.and_then(|tls| tls.ca_secret_ref.as_ref())).await?;
        let session = mysql_session::Session {
            host: &host,
            port: rule.port,
            credentials: &credentials,
            database: rule.database.as_deref(),
            tls: wanted.then(|| Trust { authorities, verified: strict(tls) }),
            query: rule.query.as_deref(),
            status: rule.collect.iter().any(|what| matches!(what, Collect::Status | Collect::Variables)),
            replica: rule.collect.contains(&Collect::Replica),
        };
        let mut sight = mysql_session::ask(&session, result).await?;
        sight.result["durationMillis"] = millis(begun).into();
        return Ok(sight);
    }
    result["durationMillis"] = millis(begun).into();
    Ok(Sight::of(result, verdict))
}

/// A PostgreSQL server.
pub async fn postgresql(rule: &Postgresql, place: &Place) -> Seen {
    let host = place.host(rule.host.as_deref()).await?;
    let mut stream = match dial(&host, rule.port).await? {
        Ok(stream) => stream,
        Err(sight) => return Ok(sight),
    };
    let tls = rule.tls.as_ref();
    let broken = |error: io::Error| unreached(wire::broken(&host, rule.port, &error));
    let offered = match mode(tls) {
        TlsMode::Disabled => false,
        _ => match postgres::start_tls(&mut stream).await {
            Ok(offered) => offered,
            Err(error) => return Ok(broken(error)),
        },
    };
    if !offered && matches!(mode(tls), TlsMode::Required | TlsMode::Verify) {
        return Ok(unreached(Verdict::fail("TlsRefused", format!("{host}:{} offers no TLS", rule.port))));
    }
    let mut stream: Box<dyn Stream> = match offered {
        true => match secured(stream, &host, place, tls).await? {
            Ok(stream) => stream,
            Err(sight) => return Ok(sight),
        },
        false => Box::new(stream),
    };
    let asked = match &rule.credentials_secret_ref {
        None => postgres::handshake(&mut stream).await,
        Some(of) => {
            let credentials = place.credentials(of).await?;
            let session = postgres::Session {
                credentials: &credentials,
                database: rule.database.as_deref().unwrap_or("postgres"),
                query: rule.query.as_deref(),
                replica: rule.collect.contains(&Collect::Replica),
                status: rule.collect.iter().any(|what| matches!(what, Collect::Status | Collect::Variables)),
            };
            postgres::ask(stream, &session).await
        }
    };
    match asked {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Blind::new("Forbidden", error.to_string()))
        }
        other => Ok(other.unwrap_or_else(broken)),
    }
}

/// A Redis server.
pub async fn redis(rule: &Redis, place: &Place) -> Seen {
    let host = place.host(rule.host.as_deref()).await?;
    let stream = match dial(&host, rule.port).await? {
        Ok(stream) => stream,
        Err(sight) => return Ok(sight),
    };
    let tls = rule.tls.as_ref();
    // Redis has no question about TLS: a port speaks it or does not.
    let mut stream: Box<dyn Stream> = match mode(tls) {
        TlsMode::Required | TlsMode::Verify => match secured(stream, &host, place, tls).await? {
            Ok(stream) => stream,
            Err(sight) => return Ok(sight),
        },
        TlsMode::Disabled | TlsMode::Preferred => Box::new(stream),
    };
    let credentials = match &rule.credentials_secret_ref {
        Some(of) => Some(place.credentials(of).await?),
        None => None,
    };
    if rule.query.is_some() {
        return Err(Blind::new("BadRule", "redis knows no query: its INFO is in `result`"));
    }
    let asked = redis::look(&mut stream, credentials.as_ref()).await;
    Ok(asked.unwrap_or_else(|error| unreached(wire::broken(&host, rule.port, &error))))
}

/// As much of `result` as may be kept: 32 scalars, none of them a row of a query or a header.
pub fn observed(result: &Json) -> serde_json::Map<String, Json> {
    fn walk(prefix: &str, json: &Json, depth: u32, found: &mut serde_json::Map<String, Json>) {
        const KEPT_OUT: [&str; 7] = ["rows", "headers", "body", "json", "variables", "banner", "stdout"];
        let Some(map) = json.as_object() else { return };
        for (key, value) in map {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                _ if found.len() >= 32 || KEPT_OUT.contains(&key.as_str()) => {}
                Json::Object(_) if depth < 2 => walk(&name, value, depth + 1, found),
                Json::Bool(_) | Json::Number(_) => {
                    found.insert(name, value.clone());
                }
                Json::String(text) if !text.is_empty() => {
                    found.insert(name, text.chars().take(200).collect::<String>().into());
                }
                _ => {}
            }
        }
    }
    let mut found = serde_json::Map::new();
    walk("", result, 0, &mut found);
    found
}
