//! What MySQL says to those who have credentials: one query that only reads, its status, its replication.

use mysql_async::consts::ColumnType;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, SslOpts, Value};
use serde_json::{Map, Value as Json, json};

use super::database::{Credentials, ROWS};
use super::sight::{Blind, Sight, Verdict};

/// Statements that read. Anything else is refused before a connection is made.
const READS: [&str; 7] = ["SELECT", "SHOW", "WITH", "EXPLAIN", "DESCRIBE", "TABLE", "VALUES"];

/// What is to be asked.
pub struct Session<'a> {
    /// Of which server.
    pub host: &'a str,
    /// At which port.
    pub port: u16,
    /// Whose session.
    pub credentials: &'a Credentials,
    /// Its schema, if any.
    pub database: Option<&'a str>,
    /// With TLS, and whether its chain must hold.
    pub tls: Option<Trust>,
    /// A query that reads.
    pub query: Option<&'a str>,
    /// SHOW GLOBAL STATUS and VARIABLES.
    pub status: bool,
    /// SHOW REPLICA STATUS.
    pub replica: bool,
}

/// What a server's certificate must be.
pub struct Trust {
    /// Signed by one of these (PEM); without them, by a public root.
    pub authorities: Option<Vec<u8>>,
    /// Whether it is verified at all.
    pub verified: bool,
}

/// Refuses what would not only read.
pub fn only_reads(query: &str) -> Result<(), Blind> {
    let verb = query.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let reads = READS.iter().any(|known| known.eq_ignore_ascii_case(verb));
    let message = || format!("a query may begin with {}; this one begins with {verb:?}", READS.join(", "));
    if reads { Ok(()) } else { Err(Blind::new("BadRule", message())) }
}

/// Logs in and asks; adds what it learns to `result`.
pub async fn ask(session: &Session<'_>, mut result: Json) -> Result<Sight, Blind> {
    if let Some(query) = session.query {
        only_reads(query)?;
    }
    let ssl = session.tls.as_ref().map(|trust| {
        let own = trust.authorities.clone().map(|pem| vec![pem.into()]).unwrap_or_default();
        SslOpts::default()
            .with_disable_built_in_roots(!own.is_empty())
            .with_root_certs(own)
            .with_danger_accept_invalid_certs(!trust.verified)
            .with_danger_skip_domain_validation(!trust.verified)
    });
    let opts = OptsBuilder::default()
        .ip_or_hostname(session.host)
        .tcp_port(session.port)
        .user(Some(&session.credentials.username))
        .pass(Some(&session.credentials.password))
        .db_name(session.database)
        .ssl_opts(ssl)
        .prefer_socket(false)
        .stmt_cache_size(0)
        .max_allowed_packet(Some(1 << 20));
    let asked = async {
        let mut conn = Conn::new(opts).await?;
        let asked = read(&mut conn, session, &mut result).await;
        // A server counts clients that vanish; a farewell that fails tells nothing that the rest did not.
        conn.disconnect().await.ok();
        asked
    };
    match asked.await {
        Ok(()) => Ok(Sight::of(result, Verdict::Pass)),
        // A right that is missing says nothing about the server: ER_TABLEACCESS_DENIED, ER_SPECIFIC_ACCESS_DENIED.
        Err(mysql_async::Error::Server(error)) if matches!(error.code, 1142 | 1227) => {
            Err(Blind::new("Forbidden", format!("error {}: {}", error.code, error.message)))
        }
        Err(error) => {
            let (reason, message) = why(&error);
            result["error"] = json!(message);
            Ok(Sight::of(result, Verdict::fail(reason, message)))
        }
    }
}

fn why(error: &mysql_async::Error) -> (&'static str, String) {
    match error {
        mysql_async::Error::Server(error) => {
            let reason = match error.code {
                1044 | 1045 | 1698 => "LoginRefused",
                1049 => "NoSuchDatabase",
                1040 => "TooManyConnections",
                1129 => "HostBlocked",
                _ => "QueryFailed",
            };
            (reason, format!("error {}: {}", error.code, error.message))
        }
        mysql_async::Error::Io(mysql_async::IoError::Tls(error)) => ("TlsFailed", error.to_string()),
        other => ("ConversationFailed", other.to_string()),
    }
}

async fn read(conn: &mut Conn, session: &Session<'_>, result: &mut Json) -> mysql_async::Result<()> {
    conn.query_drop("SET SESSION TRANSACTION READ ONLY").await?;
    result["login"] = json!(true);
    if session.status {
        for (field, query) in [("status", "SHOW GLOBAL STATUS"), ("variables", "SHOW GLOBAL VARIABLES")] {
            let pairs: Vec<(String, String)> = conn.query(query).await?;
            let number = |text: String| text.parse::<i64>().map_or(Json::String(text), Json::from);
            result[field] =
                pairs.into_iter().map(|(name, text)| (name, number(text))).collect::<Map<_, _>>().into();
        }
    }
    if session.replica {
        // The old word where the new one is not known (MySQL before 8.0.22, MariaDB before 10.5).
        let new: mysql_async::Result<Option<Row>> = conn.query_first("SHOW REPLICA STATUS").await;
        let row = match new {
            Err(mysql_async::Error::Server(error)) if error.code == 1064 => {
                conn.query_first("SHOW SLAVE STATUS").await?
            }
            other => other?,
        };
        if let Some(row) = row.map(|row| columns(&row)) {
            let either = |names: [&str; 2]| names.iter().find_map(|name| row.get(*name)).cloned();
            let runs = |names| either(names).is_some_and(|value| value == "Yes");
            let mut replica = json!({
                "ioRunning": runs(["Replica_IO_Running", "Slave_IO_Running"]),
                "sqlRunning": runs(["Replica_SQL_Running", "Slave_SQL_Running"]),
            });
            // NULL while replication is broken: then there is no such number.
            if let Some(lag) =
                either(["Seconds_Behind_Source", "Seconds_Behind_Master"]).filter(|lag| !lag.is_null())
            {
                replica["secondsBehindSource"] = lag;
            }
            result["replica"] = replica;
        }
    }
    if let Some(query) = session.query {
        conn.query_drop("START TRANSACTION READ ONLY").await?;
        // Prepared, it can't be more than one statement.
        let mut answer = conn.exec_iter(query.trim().trim_end_matches(';'), ()).await?;
        let mut rows = Vec::new();
        while let Some(row) = answer.next().await? {
            rows.push(Json::Object(columns(&row)));
            if rows.len() == ROWS {
                break;
            }
        }
        result["rows"] = Json::Array(rows);
    }
    Ok(())
}

/// A row by the names of its columns.
fn columns(row: &Row) -> Map<String, Json> {
    let columns = row.columns_ref().iter().enumerate();
    let named = columns.map(|(at, column)| {
        let value = row.as_ref(at).map_or(Json::Null, |value| plain(value, column.column_type()));
        (column.name_str().into_owned(), value)
    });
    named.collect()
}

fn plain(value: &Value, kind: ColumnType) -> Json {
    match value {
        Value::NULL => Json::Null,
        Value::Int(n) => json!(n),
        Value::UInt(n) => json!(n),
        Value::Float(x) => json!(x),
        Value::Double(x) => json!(x),
        Value::Bytes(bytes) => {
            let text: String = String::from_utf8_lossy(bytes).chars().take(4096).collect();
            let whole = matches!(
                kind,
                ColumnType::MYSQL_TYPE_TINY
                    | ColumnType::MYSQL_TYPE_SHORT
                    | ColumnType::MYSQL_TYPE_INT24
                    | ColumnType::MYSQL_TYPE_LONG
                    | ColumnType::MYSQL_TYPE_LONGLONG
            );
            let number = matches!(kind, ColumnType::MYSQL_TYPE_NEWDECIMAL | ColumnType::MYSQL_TYPE_DECIMAL);
            match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(n), _) if whole || number => json!(n),
                (_, Ok(x)) if number => json!(x),
                _ => Json::String(text),
            }
        }
        // Dates and times, as MySQL writes them.
        other => Json::String(other.as_sql(true).trim_matches('\'').to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reads_is_asked() {
        assert_eq!(only_reads("  select 1"), Ok(()));
        assert_eq!(only_reads("SHOW STATUS"), Ok(()));
        for query in ["DELETE FROM t", "SET GLOBAL x = 1", "(SELECT 1)", "", "/*!40000 DROP TABLE t*/"] {
            assert_eq!(only_reads(query).map_err(|blind| blind.reason), Err("BadRule"), "{query}");
        }
    }
}
