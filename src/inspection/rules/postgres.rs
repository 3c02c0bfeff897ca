//! PostgreSQL: a handshake without credentials in the protocol itself, queries with them through tokio-postgres.

use std::io;
use std::time::Instant;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_postgres::{Config, NoTls};

use super::database::{Credentials, ROWS, millis};
use super::sight::{Sight, Verdict};
use super::wire::MOST;

/// The code of SSLRequest (PostgreSQL's manual, "Message Formats").
const SSL_REQUEST: u32 = 80_877_103;
const PROTOCOL_3: u32 = 196_608;

/// Asks for TLS; whether the server takes it.
pub async fn start_tls(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<bool> {
    stream.write_all(&[8_u32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat()).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is no PostgreSQL server")),
    }
}

/// What a server answers to the start of a session by a user that does not exist. It asks for a password or says that
/// there is no such user; either is the end of a whole handshake, as pg_isready takes it. The connection is then closed in
/// silence: to the server that is a client which had no password.
pub async fn handshake(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Sight> {
    let begun = Instant::now();
    let mut body = PROTOCOL_3.to_be_bytes().to_vec();
    body.extend(b"user\0kuration_handshake\0database\0postgres\0application_name\0kuration\0\0");
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &body].concat()).await?;
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    if !(4..=MOST).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no PostgreSQL server"));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    let (code, message) = match kind {
        b'R' => (String::new(), String::new()),
        b'E' => (field(&body, b'C'), field(&body, b'M')),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no PostgreSQL server")),
    };
    // Classes of "Error Codes" in which a server takes nobody: 53 insufficient resources, 57 operator intervention.
    let verdict = match code.get(..2) {
        Some("53") => Verdict::fail("TooManyConnections", message.clone()),
        Some("57") => Verdict::fail("NotReady", message.clone()),
        Some("58" | "XX") => Verdict::fail("ServerError", message.clone()),
        _ => Verdict::Pass,
    };
    let result = json!({
        "handshake": {"completed": verdict == Verdict::Pass, "errorCode": code, "error": message},
        "durationMillis": millis(begun),
    });
    Ok(Sight::of(result, verdict))
}

/// A field of an ErrorResponse.
fn field(body: &[u8], wanted: u8) -> String {
    let mut parts = body.split(|b| *b == 0);
    let found = parts.find_map(|part| part.split_first().filter(|(kind, _)| **kind == wanted));
    found.map(|(_, text)| String::from_utf8_lossy(text).chars().take(300).collect()).unwrap_or_default()
}

/// What is to be asked with credentials.
pub struct Session<'a> {
    /// Whose.
    pub credentials: &'a Credentials,
    /// Of which database.
    pub database: &'a str,
    /// A SELECT, if any.
    pub query: Option<&'a str>,
    /// Whether to ask about replication.
    pub replica: bool,
    /// Whether to ask about connections.
    pub status: bool,
}

/// Logs in, in a session that can write nothing.
///
/// The query stands in a subquery that makes JSON of its rows: so it is one statement that reads, its types need no
/// decoding here, and the server itself ends after [`ROWS`] of them.
pub async fn ask<S>(stream: S, session: &Session<'_>) -> io::Result<Sight>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Instant::now();
    let mut config = Config::new();
    config
        .user(&session.credentials.username)
        .password(&session.credentials.password)
        .dbname(session.database)
        .application_name("kuration")
        .options("-c default_transaction_read_only=on -c statement_timeout=60s");
    let refused = |error: tokio_postgres::Error| {
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        let message = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
        let result =
            json!({"handshake": {"completed": !code.is_empty(), "errorCode": code, "error": message}});
        let reason = match code.get(..2) {
            Some("28") => "LoginRefused",
            Some("3D") => "NoSuchDatabase",
            Some("53") => "TooManyConnections",
            Some("57") => "NotReady",
            Some(_) => "QueryFailed",
            None => "ConversationFailed",
        };
        Sight::of(result, Verdict::fail(reason, message))
    };
    let (client, connection) = match config.connect_raw(stream, NoTls).await {
        Ok(made) => made,
        Err(error) => return Ok(refused(error)),
    };
    // It ends when the client is dropped; its errors reach the client's calls.
    let driver = tokio::spawn(connection);
    let mut result = json!({"handshake": {"completed": true, "errorCode": "", "error": ""}});
    let asked = async {
        let about = "SELECT json_build_object('version', current_setting('server_version'), \
                     'role', CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END)::text";
        merge(&mut result, &rows(&client, about).await?);
        if session.replica {
            let lag = "SELECT json_build_object('replicaLagSeconds', extract(epoch FROM now() - \
                       pg_last_xact_replay_timestamp())::float8)::text WHERE pg_is_in_recovery()";
            merge(&mut result, &rows(&client, lag).await?);
        }
        if session.status {
            let status = "SELECT json_build_object('connections', (SELECT count(*) FROM pg_stat_activity), \
                          'maxConnections', current_setting('max_connections')::int)::text";
            merge(&mut result, &rows(&client, status).await?);
        }
        if let Some(query) = session.query {
            let query = query.trim().trim_end_matches(';');
            let wrapped = format!("SELECT to_json(asked)::text FROM ({query}\n) asked LIMIT {ROWS}");
            result["rows"] = Json::Array(rows(&client, &wrapped).await?);
        }
        Ok::<(), tokio_postgres::Error>(())
    };
    let asked = asked.await;
    drop(client);
    // The farewell is the driver's last act; nothing is left to be learnt from how it went.
    driver.await.ok();
    if let Err(error) = asked {
        // A right that is missing says nothing about the server.
        if error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        return Ok(refused(error));
    }
    result["durationMillis"] = json!(millis(begun));
    Ok(Sight::of(result, Verdict::Pass))
}

async fn rows(client: &tokio_postgres::Client, query: &str) -> Result<Vec<Json>, tokio_postgres::Error> {
    let rows = client.query(query, &[]).await?;
    let text = |row: &tokio_postgres::Row| row.try_get::<_, &str>(0).map(str::to_owned);
    rows.iter().map(|row| Ok(serde_json::from_str(&text(row)?).unwrap_or(Json::Null))).collect()
}

/// Adds the fields of `rows` to `result`. A field that the server has no value for is left out, as `has()` asks: a standby that
/// has replayed nothing yet has no lag.
fn merge(result: &mut Json, rows: &[Json]) {
    for (key, value) in
        rows.iter().filter_map(Json::as_object).flatten().filter(|(_, value)| !value.is_null())
    {
        result[key] = value.clone();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn says(kind: u8, body: &[u8]) -> Sight {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let length = u32::try_from(body.len() + 4).unwrap();
        server.write_all(&[&[kind], &length.to_be_bytes()[..], body].concat()).await.unwrap();
        handshake(&mut client).await.unwrap()
    }

    #[tokio::test]
    async fn a_server_that_asks_for_a_password_or_knows_no_such_user_is_alive() {
        assert_eq!(says(b'R', &10_u32.to_be_bytes()).await.verdict, Verdict::Pass);
        let unknown = says(b'E', b"SFATAL\0C28000\0Mrole does not exist\0\0").await;
        assert_eq!(unknown.verdict, Verdict::Pass);
        assert_eq!(unknown.result["handshake"]["errorCode"], "28000");
    }

    #[test]
    fn a_standby_that_has_replayed_nothing_has_no_lag() {
        let mut result = json!({"handshake": {"completed": true}});
        merge(&mut result, &[json!({"role": "standby"})]);
        merge(&mut result, &[json!({"replicaLagSeconds": null})]);
        assert_eq!(result, json!({"handshake": {"completed": true}, "role": "standby"}));
        merge(&mut result, &[json!({"replicaLagSeconds": 1.5})]);
        assert_eq!(result["replicaLagSeconds"], 1.5);
    }

    #[tokio::test]
    async fn a_server_that_starts_or_is_full_fails() {
        let reason = |sight: Sight| match sight.verdict {
            Verdict::Fail(finding) => finding.reason,
            other => format!("{other:?}"),
        };
        let starting = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0";
        assert_eq!(reason(says(b'E', starting).await), "NotReady");
        assert_eq!(reason(says(b'E', b"SFATAL\0C53300\0Mtoo many clients\0\0").await), "TooManyConnections");
    }
}
