//! TCP, HTTP, TLS and Prometheus rules, from how they are written to what they saw.

use std::io;
use std::time::{Duration, Instant};

use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::certificate;
use super::database::millis;
use super::http::{Ask, Unanswered, exchange, request};
use super::place::Place;
use super::sight::{Blind, Seen, Sight, Verdict};
use super::wire::{self, MOST, Unconnected};
use super::{mysql, postgres};
use crate::inspection::task::probe::{
    Http, Method, OnEmpty, Promql, Scheme, StartTls, Tcp, Tls, TlsClient, TlsMode,
};

/// How long a server that speaks first has for its banner.
const BANNER: Duration = Duration::from_millis(300);

/// Ports of servers that count a bare connection as an attack, and the kind of rule that speaks to them.
const SPOKEN: [(u16, &str); 3] = [(3306, "mysql"), (5432, "postgresql"), (6379, "redis")];

/// A TCP connection.
pub async fn tcp(rule: &Tcp, place: &Place) -> Seen {
    if let Some((_, kind)) = SPOKEN.iter().find(|(port, _)| *port == rule.port) {
        let why = format!("a bare connection to port {} counts as an attack there: use {kind}", rule.port);
        return Err(Blind::new("BadRule", why));
    }
    let begun = Instant::now();
    let host = place.host(rule.host.as_deref()).await?;
    let mut stream = match wire::connect(&host, rule.port).await {
        Ok(stream) => stream,
        Err(Unconnected::Blind(blind)) => return Err(blind),
        Err(Unconnected::Refused(finding)) => {
            let result = json!({"connected": false, "banner": "", "durationMillis": millis(begun)});
            return Ok(Sight::of(result, Verdict::Fail(finding)));
        }
    };
    let taken = millis(begun);
    let spoken = converse(&mut stream, rule).await;
    // The other side's own end may come first.
    stream.shutdown().await.ok();
    let (banner, verdict) = match spoken {
        Ok((banner, true)) => (banner, Verdict::Pass),
        Ok((banner, false)) => {
            let expected = rule.expect.as_deref().unwrap_or_default();
            let verdict =
                Verdict::fail("UnexpectedAnswer", format!("{host}:{} did not say {expected:?}", rule.port));
            (banner, verdict)
        }
        Err(error) => (String::new(), wire::broken(&host, rule.port, &error)),
    };
    Ok(Sight::of(json!({"connected": true, "banner": banner, "durationMillis": taken}), verdict))
}

/// Says and hears what the rule wants; what was heard, and whether it was what was expected.
async fn converse(stream: &mut TcpStream, rule: &Tcp) -> io::Result<(String, bool)> {
    if let Some(text) = &rule.send {
        stream.write_all(text.as_bytes()).await?;
    }
    let Some(expected) = &rule.expect else {
        let heard =
            tokio::time::timeout(BANNER, wire::read_some(stream, 1024, |held| held.contains(&b'\n'))).await;
        // A server that waits to be spoken to, and one that hangs up on whom it doesn't know, both took the connection.
        let heard = heard.unwrap_or(Ok(Vec::new())).unwrap_or_default();
        return Ok((String::from_utf8_lossy(&heard).into_owned(), true));
    };
    let said = |held: &[u8]| held.windows(expected.len().max(1)).any(|part| part == expected.as_bytes());
    let heard = wire::read_some(stream, MOST, said).await?;
    Ok((String::from_utf8_lossy(&heard).chars().take(1024).collect(), said(&heard)))
}

/// Settings of TLS for a request.
async fn trusting(ask: &mut Ask, tls: Option<&TlsClient>, place: &Place) -> Result<(), Blind> {
    let Some(tls) = tls else { return Ok(()) };
    ask.authorities = place.authorities(tls.ca_secret_ref.as_ref()).await?;
    ask.insecure = tls.mode == TlsMode::Preferred && tls.ca_secret_ref.is_none();
    ask.server_name = tls.server_name.clone();
    Ok(())
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Blind> {
    let bad = || Blind::new("BadRule", format!("the header {name:?} can't be sent"));
    Ok((name.parse().map_err(|_| bad())?, value.parse().map_err(|_| bad())?))
}

/// An HTTP request.
pub async fn http(rule: &Http, place: &Place) -> Seen {
    let text = match &rule.url {
        Some(url) => url.clone(),
        None => {
            let scheme = rule.scheme.unwrap_or_default();
            let (word, usual) = match scheme {
                Scheme::Http => ("http", 80),
                Scheme::Https => ("https", 443),
            };
            let host = place.host(None).await?;
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("{word}://{host}:{}{}", rule.port.unwrap_or(usual), rule.path.as_deref().unwrap_or("/"))
        }
    };
    let uri: Uri = text.parse().map_err(|_| Blind::new("BadRule", format!("{text:?} is no address")))?;
    let mut ask = Ask::get(uri);
    ask.method = match rule.method {
        Method::Get => hyper::Method::GET,
        Method::Head => hyper::Method::HEAD,
        Method::Options => hyper::Method::OPTIONS,
        Method::Post => hyper::Method::POST,
    };
    ask.redirects = usize::try_from(rule.max_redirects).unwrap_or(10).min(10);
    ask.body = Bytes::from(rule.body.clone().unwrap_or_default());
    for own in &rule.headers {
        ask.headers.push(header(&own.name, &own.value)?);
    }
    for secret in &rule.headers_from {
        let value = place.secret_text(&secret.secret_key_ref.name, &secret.secret_key_ref.key).await?;
        let (name, mut value) = header(&secret.name, &value)?;
        value.set_sensitive(true);
        ask.headers.push((name, value));
    }
    trusting(&mut ask, rule.tls.as_ref(), place).await?;
    request(ask).await
}

/// A certificate as a server shows it.
pub async fn tls(rule: &Tls, place: &Place) -> Seen {
    let host = place.host(rule.host.as_deref()).await?;
    let nothing = |verdict| {
        let result = json!({"chainValid": false, "daysLeft": 0, "sans": [], "issuer": "", "subject": ""});
        Ok(Sight::of(result, verdict))
    };
    let mut stream = match wire::connect(&host, rule.port).await {
        Ok(stream) => stream,
        Err(Unconnected::Blind(blind)) => return Err(blind),
        Err(Unconnected::Refused(finding)) => return nothing(Verdict::Fail(finding)),
    };
    let prepared = match rule.start_tls {
        StartTls::None => Ok(()),
        StartTls::Mysql => mysql::start_tls(&mut stream).await,
        StartTls::Postgresql => match postgres::start_tls(&mut stream).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::new(io::ErrorKind::InvalidData, "the server offers no TLS")),
            Err(error) => Err(error),
        },
        StartTls::Smtp => smtp_start_tls(&mut stream).await,
    };
    if let Err(error) = prepared {
        return nothing(wire::broken(&host, rule.port, &error));
    }
    let authorities = place.authorities(rule.ca_secret_ref.as_ref()).await?;
    let name = rule.sni.as_deref().unwrap_or(&host);
    let (mut stream, presented) = match wire::tls(stream, name, authorities.as_deref()).await {
        Ok(made) => made,
        Err(error) => return nothing(Verdict::fail("TlsFailed", format!("{host}:{}: {error}", rule.port))),
    };
    let farewell = match rule.start_tls {
        StartTls::Mysql => mysql::finish_in_tls(&mut stream).await,
        _ => stream.shutdown().await,
    };
    // The certificate was seen; a server that hangs up first changes nothing about it.
    farewell.ok();
    let (result, verdict) = certificate::judge(&presented, place.now)?;
    Ok(Sight::of(result, verdict))
}

/// EHLO and STARTTLS (RFC 3207).
async fn smtp_start_tls(stream: &mut TcpStream) -> io::Result<()> {
    for (say, wanted) in [("", b"220"), ("EHLO kuration\r\n", b"250"), ("STARTTLS\r\n", b"220")] {
        stream.write_all(say.as_bytes()).await?;
        let mut heard = Vec::new();
        // The last line of an answer has a space behind its code.
        let ended = |held: &[u8]| {
            let mut lines = held.split_inclusive(|b| *b == b'\n');
            lines.any(|line| line.get(3) == Some(&b' ') && line.ends_with(b"\n"))
        };
        while !ended(&heard) {
            heard.push(stream.read_u8().await?);
            if heard.len() > 8192 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no SMTP server"));
            }
        }
        if !heard.starts_with(wanted) {
            let said: String = String::from_utf8_lossy(&heard).chars().take(100).collect();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the server answered {said:?}")));
        }
    }
    Ok(())
}

/// A query to Prometheus, by its HTTP API v1.
pub async fn promql(rule: &Promql, place: &Place) -> Seen {
    let samples =
        match query(&rule.endpoint, &rule.query, rule.tls.as_ref(), rule.token_secret_ref.as_ref(), place)
            .await?
        {
            Ok(samples) => samples,
            Err(verdict) => return Ok(Sight::of(json!({"samples": []}), verdict)),
        };
    if samples.is_empty() && rule.on_empty == OnEmpty::Error {
        return Err(Blind::new("NoSamples", "the query has no samples: what it asks about is not measured"));
    }
    let count = samples.len();
    let empty = samples.is_empty();
    let result = json!({"samples": samples.clone(), "count": count});
    // An empty answer that was said to be well leaves nothing to be asserted.
    let verdict = if empty { Verdict::Pass } else { Verdict::Unasserted };
    Ok(Sight { result, items: samples, foreign: false, verdict })
}

/// The samples of a query, as {labels, value}.
pub async fn query(
    endpoint: &str,
    text: &str,
    tls: Option<&TlsClient>,
    token: Option<&crate::inspection::task::probe::SecretKey>,
    place: &Place,
) -> Result<Result<Vec<Json>, Verdict>, Blind> {
    let url = format!("{}/api/v1/query", endpoint.trim_end_matches('/'));
    let uri: Uri = url.parse().map_err(|_| Blind::new("BadRule", format!("{url:?} is no address")))?;
    let mut ask = Ask::get(uri);
    ask.method = hyper::Method::POST;
    ask.most = 1 << 20;
    ask.body = Bytes::from(format!("query={}", escaped(text)));
    ask.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")));
    if let Some(token) = token {
        let (_, mut value) =
            header("x", &format!("Bearer {}", place.secret_text(&token.name, &token.key).await?))?;
        value.set_sensitive(true);
        ask.headers.push((AUTHORIZATION, value));
    }
    trusting(&mut ask, tls, place).await?;
    // Prometheus is not what is looked at but what it is looked at with: without it nobody can tell.
    let answer = exchange(ask).await.map_err(|error| match error {
        Unanswered::Blind(blind) => blind,
        Unanswered::Failed(Verdict::Fail(finding)) => Blind::new("PrometheusUnavailable", finding.message),
        Unanswered::Failed(_) => Blind::new("PrometheusUnavailable", format!("{endpoint} gave no answer")),
    })?;
    if answer.untrusted.is_some() {
        return Err(Blind::new(
            "PrometheusUnavailable",
            format!("the certificate of {endpoint} is not trusted"),
        ));
    }
    let read: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    if read["status"] != "success" {
        let why = read["error"].as_str().map_or_else(|| format!("status {}", answer.status), str::to_owned);
        let reason = if read["errorType"] == "bad_data" { "BadExpression" } else { "PrometheusUnavailable" };
        return Err(Blind::new(reason, format!("{endpoint}: {why}")));
    }
    let data = &read["data"];
    let number = |pair: &Json| pair[1].as_str().and_then(|text| text.parse::<f64>().ok());
    let sample =
        |labels: &Json, pair: &Json| number(pair).map(|value| json!({"labels": labels, "value": value}));
    Ok(Ok(match data["resultType"].as_str() {
        Some("vector") => {
            let found = data["result"].as_array().into_iter().flatten();
            found.filter_map(|one| sample(&one["metric"], &one["value"])).take(1000).collect()
        }
        Some("scalar") => sample(&json!({}), &data["result"]).into_iter().collect(),
        other => {
            let other = other.unwrap_or("nothing");
            return Err(Blind::new(
                "BadExpression",
                format!("the query gives {other}, not a vector or a scalar"),
            ));
        }
    }))
}

/// As forms want it (application/x-www-form-urlencoded).
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
