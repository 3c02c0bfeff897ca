//! A whole MySQL handshake without credentials.
//!
//! A server counts a connection that is dropped before it logs in (`SUM_CONNECT_ERRORS`) and blocks the host after
//! `max_connect_errors` of them, so a bare connect, repeated, takes the database away from its own users. A login that is
//! refused is counted as an authentication error, which blocks nobody. So this one goes to the end: greeting, login of a
//! user that does not exist, refusal (MySQL's protocol description, "Connection Phase"; host_cache of its manual).

use std::io;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::sight::{Finding, Verdict};
use super::wire::MOST;

/// The user who logs in and never can.
const NOBODY: &[u8] = b"kuration_handshake";

const PROTOCOL_41: u32 = 0x200;
const SSL: u32 = 0x800;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;

/// Errors with which a server says that it takes nobody, or not us (MySQL's error reference).
const TOO_MANY_CONNECTIONS: u16 = 1040;
const SERVER_SHUTDOWN: u16 = 1053;
const HOST_IS_BLOCKED: u16 = 1129;
const HOST_NOT_PRIVILEGED: u16 = 1130;

/// What a server said in its greeting.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Greeting {
    /// Its version, as it gives it.
    pub version: String,
    /// What it can do.
    pub capabilities: u32,
    /// How it wants to be logged in to.
    pub plugin: String,
}

/// How a handshake ended.
#[derive(Debug, Default, PartialEq)]
pub struct Handshake {
    /// The greeting, if one came.
    pub greeting: Option<Greeting>,
    /// Whether the server went through it to the end.
    pub completed: bool,
    /// The error that it gave instead of a greeting or of a login.
    pub error: Option<(u16, String)>,
}

impl Handshake {
    /// As CEL sees it.
    pub fn json(&self) -> Json {
        let (code, message) = self.error.clone().unwrap_or_default();
        json!({
            "handshake": {
                "completed": self.completed,
                "plugin": self.greeting.as_ref().map(|g| g.plugin.clone()).unwrap_or_default(),
                "errorCode": code, "error": message,
            },
            "version": self.greeting.as_ref().map(|g| g.version.clone()).unwrap_or_default(),
            "hostBlocked": code == HOST_IS_BLOCKED,
            "tlsOffered": self.greeting.as_ref().is_some_and(|g| g.capabilities & SSL != 0),
        })
    }

    /// What it says of the server.
    pub fn verdict(&self) -> Verdict {
        if self.completed {
            return Verdict::Pass;
        }
        let (code, message) = self.error.clone().unwrap_or_default();
        let reason = match code {
            HOST_IS_BLOCKED => "HostBlocked",
            HOST_NOT_PRIVILEGED => "HostNotAllowed",
            TOO_MANY_CONNECTIONS => "TooManyConnections",
            SERVER_SHUTDOWN => "ShuttingDown",
            _ => "HandshakeFailed",
        };
        Verdict::Fail(Finding {
            reason: reason.to_owned(),
            message: format!("the MySQL handshake did not complete: error {code}: {message}"),
            subjects: Vec::new(),
        })
    }
}

/// A packet: its sequence number and its payload.
async fn packet(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    if length > MOST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no MySQL server: its packet is too long",
        ));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], payload))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), sequence: u8, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
    let head = [length[0], length[1], length[2], sequence];
    stream.write_all(&[&head[..], payload].concat()).await
}

/// The error in an ERR packet; before the capabilities are agreed on it has no SQL state.
fn error(payload: &[u8]) -> (u16, String) {
    let code = payload.get(1..3).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    let text = payload.get(3..).unwrap_or_default();
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    (code, String::from_utf8_lossy(text).chars().take(300).collect())
}

fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), bytes.get(end + 1..).unwrap_or_default())
}

/// Reads the greeting: Protocol::HandshakeV10.
fn greeting(payload: &[u8]) -> io::Result<Greeting> {
    let odd =
        || io::Error::new(io::ErrorKind::InvalidData, "this is no MySQL server: its greeting can't be read");
    if payload.first() != Some(&10) {
        return Err(odd());
    }
    let (version, rest) = text(&payload[1..]);
    // Thread id (4), first part of the challenge (8), a zero, the lower half of the capabilities (2).
    let low = rest.get(13..15).ok_or_else(odd)?;
    let low = u32::from(u16::from_le_bytes([low[0], low[1]]));
    // Character set (1), status (2), the upper half (2), length of the challenge (1), ten zeros.
    let high = rest.get(18..20).map_or(0, |b| u32::from(u16::from_le_bytes([b[0], b[1]])));
    let length = rest.get(20).map_or(0, |length| usize::from(*length));
    let plugin = rest.get(31 + length.saturating_sub(8).max(13)..).unwrap_or_default();
    Ok(Greeting { version, capabilities: low | high << 16, plugin: text(plugin).0 })
}

/// Goes through a handshake from the greeting to the refusal.
///
/// # Errors
/// The conversation broke off, or the other side speaks something else.
pub async fn handshake(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Handshake> {
    let (sequence, payload) = packet(stream).await?;
    if payload.first() == Some(&0xff) {
        return Ok(Handshake { error: Some(error(&payload)), ..Handshake::default() });
    }
    let greeting = greeting(&payload)?;
    let capabilities = PROTOCOL_41 | SECURE_CONNECTION | (greeting.capabilities & PLUGIN_AUTH);
    let mut login = capabilities.to_le_bytes().to_vec();
    login.extend((1_u32 << 24).to_le_bytes());
    login.push(45);
    login.extend([0; 23]);
    login.extend(NOBODY);
    // The end of the name, and an answer to the challenge that has no bytes.
    login.extend([0, 0]);
    if capabilities & PLUGIN_AUTH != 0 {
        login.extend(greeting.plugin.as_bytes());
        login.push(0);
    }
    send(stream, sequence.wrapping_add(1), &login).await?;
    // A server may ask to log in by other means, a few times over.
    for _ in 0..4 {
        let (sequence, payload) = packet(stream).await?;
        match payload.first() {
            Some(0xff) => {
                let (code, message) = error(&payload);
                let takes_nobody =
                    [TOO_MANY_CONNECTIONS, SERVER_SHUTDOWN, HOST_IS_BLOCKED, HOST_NOT_PRIVILEGED];
                let completed = !takes_nobody.contains(&code);
                return Ok(Handshake { greeting: Some(greeting), completed, error: Some((code, message)) });
            }
            // An anonymous user exists: we are in, and leave as one should (COM_QUIT).
            Some(0x00) => {
                send(stream, 0, &[1]).await?;
                return Ok(Handshake { greeting: Some(greeting), completed: true, error: None });
            }
            _ => send(stream, sequence.wrapping_add(1), &[0]).await?,
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the server asks for one login after the other"))
}

/// Asks for TLS in a MySQL conversation: afterwards the stream speaks TLS.
pub async fn start_tls(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let (sequence, payload) = packet(stream).await?;
    if payload.first() == Some(&0xff) {
        let (code, message) = error(&payload);
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("error {code}: {message}")));
    }
    if greeting(&payload)?.capabilities & SSL == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the server offers no TLS"));
    }
    let mut request = (PROTOCOL_41 | SECURE_CONNECTION | SSL | PLUGIN_AUTH).to_le_bytes().to_vec();
    request.extend((1_u32 << 24).to_le_bytes());
    request.push(45);
    request.extend([0; 23]);
    send(stream, sequence.wrapping_add(1), &request).await
}

/// After [`start_tls`] and TLS itself, with sequence number 2: logs in as nobody, so that this too is no aborted connect.
pub async fn finish_in_tls(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let mut login = (PROTOCOL_41 | SECURE_CONNECTION | SSL).to_le_bytes().to_vec();
    login.extend((1_u32 << 24).to_le_bytes());
    login.push(45);
    login.extend([0; 23]);
    login.extend(NOBODY);
    login.extend([0, 0]);
    send(stream, 2, &login).await?;
    for _ in 0..4 {
        let (sequence, payload) = packet(stream).await?;
        match payload.first() {
            Some(0xff) => return Ok(()),
            Some(0x00) => return send(stream, 0, &[1]).await,
            _ => send(stream, sequence.wrapping_add(1), &[0]).await?,
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn greets() -> Vec<u8> {
        let mut payload = vec![10];
        payload.extend(b"8.4.2\0");
        payload.extend(7_u32.to_le_bytes());
        payload.extend(b"12345678\0");
        payload.extend([0xff, 0xff, 45, 2, 0, 0xff, 0xdf, 21]);
        payload.extend([0; 10]);
        payload.extend(b"123456789012\0caching_sha2_password\0");
        payload
    }

    #[test]
    fn a_greeting_is_read_whole() {
        let greeting = greeting(&greets()).unwrap();
        assert_eq!((greeting.version.as_str(), greeting.plugin.as_str()), ("8.4.2", "caching_sha2_password"));
        assert_eq!(greeting.capabilities, 0xdfff_ffff);
    }

    #[tokio::test]
    async fn a_refused_login_is_a_completed_handshake() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let serve = async {
            send(&mut server, 0, &greets()).await.unwrap();
            let (sequence, login) = packet(&mut server).await.unwrap();
            assert_eq!(sequence, 1);
            assert!(login.windows(NOBODY.len()).any(|part| part == NOBODY));
            send(&mut server, 2, b"\xfemysql_native_password\0salt\0").await.unwrap();
            assert_eq!(packet(&mut server).await.unwrap().0, 3);
            send(&mut server, 4, b"\xff\x15\x04#28000Access denied for user").await.unwrap();
        };
        let (done, ()) = tokio::join!(handshake(&mut client), serve);
        let done = done.unwrap();
        assert!(done.completed);
        assert_eq!(done.error, Some((1045, "Access denied for user".to_owned())));
        assert_eq!(done.json()["version"], "8.4.2");
    }

    #[tokio::test]
    async fn a_blocked_host_is_said_to_be_blocked() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        send(&mut server, 0, b"\xff\x69\x04Host '10.0.0.7' is blocked").await.unwrap();
        let done = handshake(&mut client).await.unwrap();
        assert_eq!(done.json()["hostBlocked"], true);
        assert!(matches!(done.verdict(), Verdict::Fail(finding) if finding.reason == "HostBlocked"));
    }
}
