//! Redis, in its own protocol (RESP): PING, and INFO where credentials are given or none are needed.

use std::io;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::database::{Credentials, millis};
use super::sight::{Sight, Verdict};
use super::wire::MOST;

/// A command as an array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text.into_bytes()
}

/// One answer: a simple string, an error, or a bulk string. The error is the server's own.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<String, String>> {
    let odd =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("this is no Redis server: {what}"));
    let mut line = Vec::new();
    loop {
        line.push(stream.read_u8().await?);
        if line.ends_with(b"\r\n") {
            break;
        }
        if line.len() > 1024 {
            return Err(odd("its answer has no end"));
        }
    }
    let text = String::from_utf8_lossy(&line[1..line.len() - 2]).into_owned();
    match line[0] {
        b'+' => Ok(Ok(text)),
        b'-' => Ok(Err(text)),
        b'$' => {
            let length: usize = text.parse().map_err(|_| odd("a length that is none"))?;
            if length > MOST {
                return Err(odd("its answer is too long"));
            }
            let mut bulk = vec![0; length + 2];
            stream.read_exact(&mut bulk).await?;
            bulk.truncate(length);
            Ok(Ok(String::from_utf8_lossy(&bulk).into_owned()))
        }
        _ => Err(odd("an answer of no known kind")),
    }
}

/// PING, and with credentials AUTH before and INFO after it.
///
/// # Errors
/// The conversation broke off, or the other side speaks something else.
pub async fn look(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    credentials: Option<&Credentials>,
) -> io::Result<Sight> {
    let begun = Instant::now();
    if let Some(Credentials { username, password }) = credentials {
        let words = match username.as_str() {
            "" => vec!["AUTH", password],
            name => vec!["AUTH", name, password],
        };
        stream.write_all(&command(&words)).await?;
        if let Err(error) = answer(stream).await? {
            let result = json!({"handshake": {"completed": true, "error": error}, "pong": false});
            return Ok(Sight::of(result, Verdict::fail("LoginRefused", error)));
        }
    }
    stream.write_all(&command(&["PING"])).await?;
    let pong = answer(stream).await?;
    // Alive, and right to ask for a password: that is all that can be known without one.
    let asks_for_login =
        matches!(&pong, Err(error) if error.starts_with("NOAUTH") || error.starts_with("NOPERM"));
    let is_pong = matches!(&pong, Ok(text) if text == "PONG");
    let error = pong.as_ref().err().cloned().unwrap_or_default();
    let mut result = json!({
        "handshake": {"completed": is_pong || asks_for_login, "error": error},
        "pong": is_pong, "durationMillis": millis(begun),
    });
    let verdict = match (is_pong || asks_for_login, &pong) {
        (true, _) => Verdict::Pass,
        (false, Err(error)) if error.starts_with("LOADING") => Verdict::fail("Loading", error.clone()),
        (false, Err(error)) if error.contains("max number of clients") => {
            Verdict::fail("TooManyConnections", error.clone())
        }
        (false, Err(error)) => Verdict::fail("PingRefused", error.clone()),
        (false, Ok(text)) => {
            let text: String = text.chars().take(100).collect();
            Verdict::fail("BadAnswer", format!("PING was answered with {text:?}"))
        }
    };
    if is_pong {
        stream.write_all(&command(&["INFO"])).await?;
        if let Ok(info) = answer(stream).await? {
            add_info(&mut result, &info);
        }
    }
    stream.write_all(&command(&["QUIT"])).await?;
    Ok(Sight::of(result, verdict))
}

fn add_info(result: &mut Json, info: &str) {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = |name: &str| field(name).and_then(|text| text.trim().parse::<i64>().ok());
    let texts = [("role", "role"), ("version", "redis_version"), ("masterLinkStatus", "master_link_status")];
    for (ours, theirs) in texts {
        if let Some(text) = field(theirs) {
            result[ours] = json!(text.trim());
        }
    }
    let numbers = [
        ("usedMemoryBytes", "used_memory"),
        ("maxMemoryBytes", "maxmemory"),
        ("connectedClients", "connected_clients"),
        ("connectedReplicas", "connected_slaves"),
        ("replicaLagSeconds", "master_last_io_seconds_ago"),
        ("uptimeSeconds", "uptime_in_seconds"),
        ("evictedKeys", "evicted_keys"),
    ];
    for (ours, theirs) in numbers {
        if let Some(n) = number(theirs) {
            result[ours] = json!(n);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn says(bytes: &'static [u8], credentials: Option<&Credentials>) -> io::Result<Sight> {
        let (mut client, mut server) = tokio::io::duplex(1 << 16);
        server.write_all(bytes).await.unwrap();
        look(&mut client, credentials).await
    }

    #[tokio::test]
    async fn a_server_that_asks_for_a_password_is_alive() {
        let sight = says(b"-NOAUTH Authentication required.\r\n", None).await.unwrap();
        assert_eq!(sight.verdict, Verdict::Pass);
        assert_eq!(sight.result["handshake"]["completed"], true);
    }

    #[tokio::test]
    async fn what_a_server_says_of_itself_is_read() {
        let info = b"+PONG\r\n$48\r\nrole:slave\r\nused_memory:1024\r\nmaxmemory:4096\r\n\r\n+OK\r\n";
        let sight = says(info, None).await.unwrap();
        assert_eq!(
            (&sight.result["role"], &sight.result["usedMemoryBytes"]),
            (&json!("slave"), &json!(1024))
        );
    }

    #[tokio::test]
    async fn a_server_that_still_loads_or_speaks_something_else_fails() {
        let sight = says(b"-LOADING Redis is loading the dataset in memory\r\n", None).await.unwrap();
        assert!(matches!(sight.verdict, Verdict::Fail(f) if f.reason == "Loading"));
        assert_eq!(says(b"SSH-2.0-OpenSSH\r\n", None).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(says(b"$99999999\r\n", None).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
