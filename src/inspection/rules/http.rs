//! HTTP, a request at a time: bounded in redirects, in body, and by the rule's deadline.

use std::io;
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value as Json, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::certificate;
use super::database::millis;
use super::sight::{Blind, Seen, Sight, Verdict};
use super::wire::{self, MOST, Presented, Unconnected};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Where.
    pub uri: Uri,
    /// How.
    pub method: Method,
    /// With which headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// With which body.
    pub body: Bytes,
    /// Whether a certificate that can't be trusted is taken all the same.
    pub insecure: bool,
    /// Authorities beside the public ones (PEM).
    pub authorities: Option<Vec<u8>>,
    /// How many bytes of the answer's body are read.
    pub most: usize,
    /// How many redirects are followed.
    pub redirects: usize,
    /// The name that a certificate must have, where it is not the host's.
    pub server_name: Option<String>,
}

impl Ask {
    /// A GET.
    pub fn get(uri: Uri) -> Self {
        Self {
            uri,
            method: Method::GET,
            headers: Vec::new(),
            body: Bytes::new(),
            insecure: false,
            authorities: None,
            most: MOST,
            redirects: 3,
            server_name: None,
        }
    }
}

/// What came back.
#[derive(Debug, Default)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, in lower case; of those that come more than once, the last.
    pub headers: Map<String, Json>,
    /// The body, or its beginning.
    pub body: Vec<u8>,
    /// Whether there was more of it.
    pub truncated: bool,
    /// The certificate, as CEL sees it, where there is one.
    pub certificate: Option<Json>,
    /// Why it is not trusted.
    pub untrusted: Option<Verdict>,
    /// Redirects followed.
    pub redirects: usize,
}

/// Why no answer came.
#[derive(Debug)]
pub enum Unanswered {
    /// The other side's fault.
    Failed(Verdict),
    /// Ours.
    Blind(Blind),
}

/// Asks and judges by the default: 200 to 399.
pub async fn request(ask: Ask) -> Seen {
    let begun = Instant::now();
    let uri = ask.uri.to_string();
    let answer = match exchange(ask).await {
        Ok(answer) => answer,
        Err(Unanswered::Blind(blind)) => return Err(blind),
        Err(Unanswered::Failed(verdict)) => {
            let result = json!({"status": 0, "headers": {}, "body": "", "durationMillis": millis(begun)});
            return Ok(Sight::of(result, verdict));
        }
    };
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let mut result = json!({
        "status": answer.status, "headers": answer.headers, "body": body, "bodyTruncated": answer.truncated,
        "redirects": answer.redirects, "durationMillis": millis(begun),
    });
    // Half of a document is none.
    if let Some(json) = serde_json::from_str::<Json>(&body).ok().filter(|_| !answer.truncated) {
        result["json"] = json;
    }
    if let Some(certificate) = &answer.certificate {
        result["tlsNotAfter"] = certificate["notAfter"].clone();
        result["tlsChainValid"] = certificate["chainValid"].clone();
    }
    let verdict = match (answer.untrusted, answer.status) {
        (Some(untrusted), _) => untrusted,
        (None, 200..400) => Verdict::Pass,
        (None, status) => Verdict::fail("HttpStatus", format!("{uri} answered {status}")),
    };
    Ok(Sight::of(result, verdict))
}

/// Asks, following redirects.
pub async fn exchange(mut ask: Ask) -> Result<Answer, Unanswered> {
    let mut redirects = 0;
    loop {
        let mut answer = once(&ask).await?;
        answer.redirects = redirects;
        let redirected = ask.redirects > 0 && matches!(answer.status, 301 | 302 | 303 | 307 | 308);
        let location = answer.headers.get(LOCATION.as_str()).and_then(Json::as_str).filter(|_| redirected);
        let Some(location) = location else { return Ok(answer) };
        if redirects == ask.redirects {
            let message = format!("{} still redirects after {redirects} redirects", ask.uri);
            return Err(Unanswered::Failed(Verdict::fail("TooManyRedirects", message)));
        }
        let next = joined(&ask.uri, location).ok_or_else(|| {
            let message = format!("{} redirects to {location:?}, which is no address", ask.uri);
            Unanswered::Failed(Verdict::fail("BadAnswer", message))
        })?;
        // What was meant for one host is told to no other.
        if next.authority() != ask.uri.authority() {
            ask.headers.clear();
        }
        if matches!(answer.status, 301..=303) && ask.method != Method::HEAD {
            ask.method = Method::GET;
            ask.body = Bytes::new();
        }
        ask.uri = next;
        redirects += 1;
    }
}

/// `location` as seen from `base`: whole, or without scheme, or a path.
fn joined(base: &Uri, location: &str) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let text = match location {
        whole if whole.contains("://") => whole.to_owned(),
        other if other.starts_with("//") => format!("{scheme}:{other}"),
        path if path.starts_with('/') => format!("{scheme}://{authority}{path}"),
        relative => {
            let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{scheme}://{authority}{directory}/{relative}")
        }
    };
    let uri: Uri = text.split('#').next()?.parse().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}

async fn once(ask: &Ask) -> Result<Answer, Unanswered> {
    let bad = |what: &str| Unanswered::Blind(Blind::new("BadRule", format!("{}: {what}", ask.uri)));
    let host = ask.uri.host().ok_or_else(|| bad("no host"))?;
    let secure = match ask.uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad("neither http nor https")),
    };
    let port = ask.uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let failed = |error: &io::Error| Unanswered::Failed(wire::broken(host, port, error));
    let stream = wire::connect(host, port).await.map_err(|error| match error {
        Unconnected::Refused(finding) => Unanswered::Failed(Verdict::Fail(finding)),
        Unconnected::Blind(blind) => Unanswered::Blind(blind),
    })?;
    if !secure {
        return talk(stream, ask).await.map_err(|error| failed(&error));
    }
    let (stream, presented) =
        wire::tls(stream, ask.server_name.as_deref().unwrap_or(host), ask.authorities.as_deref())
            .await
            .map_err(|error| {
                Unanswered::Failed(Verdict::fail("TlsFailed", format!("{host}:{port}: {error}")))
            })?;
    let (json, untrusted) = judged(&presented)?;
    if !ask.insecure && untrusted.is_some() {
        // Nothing is told to a server that is not who it should be.
        return Ok(Answer { certificate: Some(json), untrusted, ..Answer::default() });
    }
    let answer = talk(stream, ask).await.map_err(|error| failed(&error))?;
    Ok(Answer { certificate: Some(json), ..answer })
}

/// What was presented, and why it is not trusted. That it ends soon is no reason to refuse it.
fn judged(presented: &Presented) -> Result<(Json, Option<Verdict>), Unanswered> {
    let (json, verdict) = certificate::judge(presented, jiff::Timestamp::now()).map_err(Unanswered::Blind)?;
    let untrusted = presented.untrusted.as_ref().map(|why| match verdict {
        Verdict::Fail(finding) if finding.reason != "CertificateExpiring" => Verdict::Fail(finding),
        _ => Verdict::fail("CertificateUntrusted", why.clone()),
    });
    Ok((json, untrusted))
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    ask: &Ask,
) -> io::Result<Answer> {
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MOST)
        .handshake(io)
        .await
        .map_err(io::Error::other)?;
    // It ends with the sender, or with the rule's deadline.
    let driver = tokio::spawn(connection);
    let path = ask.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(ask.method.clone()).uri(path);
    if let Some(headers) = request.headers_mut() {
        let authority = ask.uri.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        headers.insert(HOST, HeaderValue::from_str(host).map_err(io::Error::other)?);
        headers.insert(USER_AGENT, HeaderValue::from_static("kuration-inspector"));
        for (name, value) in &ask.headers {
            headers.insert(name, value.clone());
        }
    }
    let request = request.body(Full::new(ask.body.clone())).map_err(io::Error::other)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(spoken)?;
        let status = answer.status().as_u16();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers =
            answer.headers().iter().map(|(name, value)| (name.to_string(), text(value).into())).collect();
        let mut body = answer.into_body();
        let (mut held, mut truncated) = (Vec::new(), false);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(spoken)?.into_data() else { continue };
            let room = ask.most - held.len();
            held.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                truncated = true;
                break;
            }
        }
        Ok(Answer { status, headers, body: held, truncated, ..Answer::default() })
    };
    let answer = answer.await;
    // Whatever else the server would send is not waited for.
    driver.abort();
    answer
}

/// The error of a connection below an error of HTTP, else one that says what was wrong in its own words.
fn spoken(error: hyper::Error) -> io::Error {
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<io::Error>() {
            return io::Error::new(inner.kind(), error.to_string());
        }
        source = inner.source();
    }
    if error.is_incomplete_message() {
        return io::Error::new(io::ErrorKind::UnexpectedEof, error);
    }
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_seen_from_where_it_stands() {
        let base: Uri = "https://a.example:8443/x/y?z".parse().unwrap();
        let to = |location| joined(&base, location).map(|uri| uri.to_string());
        assert_eq!(to("/login").unwrap(), "https://a.example:8443/login");
        assert_eq!(to("next").unwrap(), "https://a.example:8443/x/next");
        assert_eq!(to("//b.example/").unwrap(), "https://b.example/");
        assert_eq!(to("http://b.example/#part").unwrap(), "http://b.example/");
        assert_eq!(to("file:///etc/passwd"), None);
    }
}
