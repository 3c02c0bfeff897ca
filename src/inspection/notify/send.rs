//! Sending a message: one POST, one answer, under a deadline. Redirects are not followed: an address is a secret, and what
//! stands behind it is for its owner to say.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Post;

/// How long a receiver may take.
const LIMIT: Duration = Duration::from_secs(10);

/// So much of a refusal is read.
const MOST: usize = 512;

/// Why a message was not delivered. The address is never named: it often holds a password.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The address in the secret.
    #[error("the address in the secret is no http:// or https:// URL")]
    Address,
    /// The way there.
    #[error("{0} can't be reached: {1}")]
    Unreachable(String, String),
    /// It took too long.
    #[error("{0} did not answer in 10 s")]
    Slow(String),
    /// It was refused.
    #[error("{0} answered {1}: {2}")]
    Refused(String, u16, String),
}

/// Sends `post`; done when the receiver answers with a status of 200 to 299.
pub async fn send(post: &Post) -> Result<(), SendError> {
    let uri: Uri = post.url.parse().map_err(|_| SendError::Address)?;
    let host = uri.host().ok_or(SendError::Address)?.to_owned();
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(SendError::Address),
    };
    match tokio::time::timeout(LIMIT, deliver(post, &uri, &host, tls)).await {
        Ok(done) => done,
        Err(_) => Err(SendError::Slow(host)),
    }
}

async fn deliver(post: &Post, uri: &Uri, host: &str, tls: bool) -> Result<(), SendError> {
    let unreachable =
        |error: &dyn std::fmt::Display| SendError::Unreachable(host.to_owned(), error.to_string());
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| unreachable(&error))?;
    if !tls {
        return exchange(post, uri, host, stream).await;
    }
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unreachable(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| unreachable(&error))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| unreachable(&error))?;
    exchange(post, uri, host, stream).await
}

async fn exchange(
    post: &Post,
    uri: &Uri,
    host: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(), SendError> {
    let unreachable =
        |error: &dyn std::fmt::Display| SendError::Unreachable(host.to_owned(), error.to_string());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    // It ends with the sender; what it has to say, the answer says too.
    let turning = tokio::spawn(async move { drop(connection.await) });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // An authority may hold a password, which has no place in this header.
    let authority =
        uri.authority().map_or(host, |authority| authority.as_str().rsplit('@').next().unwrap_or(host));
    let request = Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, post.content_type)
        .header(USER_AGENT, concat!("kuration/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(post.body.clone())))
        .map_err(|_| SendError::Address)?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    let status = answer.status();
    let done = if status.is_success() {
        Ok(())
    } else {
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
        Err(SendError::Refused(host.to_owned(), status.as_u16(), text.unwrap_or_default()))
    };
    turning.abort();
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A receiver that answers `answer` once; what it was sent.
    async fn receiver(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?key=hunter2", listener.local_addr().unwrap());
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"{\"a\":1}") {
                let mut part = [0; 1024];
                let length = stream.read(&mut part).await.unwrap();
                heard.extend_from_slice(&part[..length]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(heard).unwrap()
        });
        (url, heard)
    }

    fn post(url: String) -> Post {
        Post { url, content_type: "application/json", body: "{\"a\":1}".into() }
    }

    #[tokio::test]
    async fn a_message_arrives_as_it_is() {
        let (url, heard) = receiver("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        send(&post(url)).await.unwrap();
        let heard = heard.await.unwrap();
        assert!(heard.starts_with("POST /hook?key=hunter2 HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("content-type: application/json\r\n"), "{heard}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_without_the_address() {
        let (url, heard) = receiver(
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 4\r\n\r\nlost",
        )
        .await;
        let error = send(&post(url)).await.unwrap_err().to_string();
        drop(heard.await);
        assert_eq!(error, "127.0.0.1 answered 302: lost");
        let error = send(&post("ftp://user:hunter2@host/".into())).await.unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let error = send(&post("http://user:hunter2@127.0.0.1:1/key".into())).await.unwrap_err().to_string();
        assert!(
            error.contains("can't be reached") && !error.contains("hunter2") && !error.contains("key"),
            "{error}"
        );
    }
}
