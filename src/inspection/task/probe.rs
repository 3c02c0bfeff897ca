//! Kinds of rules that speak to something over a network.
//!
//! A probe without a host speaks to the task's target.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A key of a Secret in the task's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKey {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A TCP connection: it must be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tcp {
    /// The host. Without it: the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What to send first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub send: Option<String>,
    /// What the answer must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub expect: Option<String>,
}

/// How a certificate is checked, and with what one shows who one is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsClient {
    /// Whether TLS is spoken and what is checked.
    #[serde(default)]
    pub mode: TlsMode,
    /// Authorities to trust instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
    /// The name that the certificate must have. Without it: the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub server_name: Option<String>,
}

/// Whether TLS is spoken and what is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// Where the server can; the certificate is not checked.
    #[default]
    Preferred,
    /// Always; the certificate is checked where authorities are given.
    Required,
    /// Always, and the certificate must be trusted and bear the host's name.
    Verify,
}

/// An HTTP header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// An HTTP header whose value is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Where its value is.
    pub secret_key_ref: SecretKey,
}

/// An HTTP request: its status must be 200 to 399.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.url) || !(has(self.path) || has(self.port) || has(self.scheme))")
    .message("set url, or path, port and scheme, but not both"))]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// The whole address. Without it: scheme, target, port and path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), pattern("^https?://"))]
    pub url: Option<String>,
    /// The path at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), pattern("^/"))]
    pub path: Option<String>,
    /// The port at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Whether the target speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub headers: Vec<Header>,
    /// Headers out of Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub headers_from: Vec<SecretHeader>,
    /// The body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub body: Option<String>,
    /// How many redirects are followed.
    #[serde(default = "three")]
    #[schemars(range(max = 10))]
    pub max_redirects: u32,
    /// How its certificate is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
}

fn three() -> u32 {
    3
}

/// The scheme of a web address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS.
    Https,
}

/// The methods that a check may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Head and body.
    #[default]
    Get,
    /// The head alone.
    Head,
    /// What may be done.
    Options,
    /// A search or query that needs a body. It must change nothing.
    Post,
}

/// A question to a name server: it must answer NOERROR with at least one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dns {
    /// The name.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// The type of record.
    #[serde(rename = "type", default)]
    pub record_type: RecordType,
    /// The server, with or without a port. Without it: the pod's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server: Option<String>,
}

/// Types of DNS records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum RecordType {
    #[default]
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

/// A certificate as a server shows it: its chain must be valid, and for 14 days more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The host. Without it: the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What is spoken before TLS.
    #[serde(default)]
    pub start_tls: StartTls,
    /// The name to ask for. Without it: the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub sni: Option<String>,
    /// Authorities to trust instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKey>,
}

/// What is spoken before TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartTls {
    /// Nothing.
    #[default]
    None,
    /// MySQL's greeting.
    Mysql,
    /// PostgreSQL's request for TLS.
    Postgresql,
    /// EHLO and STARTTLS.
    Smtp,
}

/// A gRPC health check: the answer must be SERVING.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Grpc {
    /// The host. Without it: the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// The port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The service that is asked about. Without it: the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service: Option<String>,
    /// How its certificate is checked. Without it: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
}

/// A Secret with a name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key of the user's name.
    #[serde(default = "username")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// The key of the password.
    #[serde(default = "password")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

fn username() -> String {
    "username".to_owned()
}

fn password() -> String {
    "password".to_owned()
}

macro_rules! database {
    ($(#[$about:meta])* $name:ident, $port:literal, $default:ident, $rule:literal, $message:literal) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
        #[x_kube(validation = Rule::new($rule).message($message))]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The host. Without it: the target.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(min = 1, max = 253))]
            pub host: Option<String>,
            /// The port.
            #[serde(default = $port)]
            #[schemars(range(min = 1, max = 65535))]
            pub port: u16,
            /// Who logs in. Without it: a whole handshake without a login.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub credentials_secret_ref: Option<Credentials>,
            /// Whether TLS is spoken, and what is checked.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub tls: Option<TlsClient>,
            /// The database.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(max = 128))]
            pub database: Option<String>,
            /// What to ask, in a session that can only read. At most 100 rows are seen.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(min = 1, max = 4096))]
            pub query: Option<String>,
            /// What else to look at.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(max = 4))]
            pub collect: Vec<Collect>,
        }

        fn $default() -> u16 {
            database_port(stringify!($name))
        }
    };
}

fn database_port(of: &str) -> u16 {
    match of {
        "Mysql" => 3306,
        "Postgresql" => 5432,
        _ => 6379,
    }
}

database! {
    /// A MySQL or MariaDB server: its handshake must complete, in a way that the server does not count as an attack.
    Mysql, "mysql_port", mysql_port,
    "has(self.credentialsSecretRef) || !(has(self.query) || has(self.collect))",
    "query and collect need credentialsSecretRef"
}
database! {
    /// A PostgreSQL server: it must be ready for queries.
    Postgresql, "postgresql_port", postgresql_port,
    "has(self.credentialsSecretRef) || !(has(self.query) || has(self.collect))",
    "query and collect need credentialsSecretRef"
}
database! {
    /// A Redis server: it must answer PONG, or ask who is there.
    Redis, "redis_port", redis_port,
    "!has(self.query) && (has(self.credentialsSecretRef) || !has(self.collect))",
    "redis knows no query, as its INFO is in result; collect needs credentialsSecretRef"
}

/// What a database is asked beside the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Collect {
    /// Its counters.
    Status,
    /// Its settings.
    Variables,
    /// How far a replica is behind.
    Replica,
}

/// An NFS server, spoken to without a mount: it must be reachable and have the export.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.server) != has(self.fromStorageClass)")
    .message("set server or fromStorageClass"))]
#[serde(rename_all = "camelCase")]
pub struct Nfs {
    /// The server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server: Option<String>,
    /// The path that it exports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern("^/"))]
    pub export: Option<String>,
    /// A StorageClass that says server and export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub from_storage_class: Option<String>,
    /// Versions to speak, such as "4.1": of 3, 4.0, 4.1 and 4.2. Without it: the newest that the server has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 3), pattern(r"^(3|4\.[012])$")))]
    pub versions: Vec<String>,
}

/// A query to Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promql {
    /// Its address, such as http://prometheus.monitoring:9090.
    #[schemars(length(min = 1, max = 2048), pattern("^https?://"))]
    pub endpoint: String,
    /// The query.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKey>,
    /// How its certificate is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsClient>,
    /// What an answer without samples means.
    #[serde(default)]
    pub on_empty: OnEmpty,
}

/// What an answer without samples means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnEmpty {
    /// That nothing could be seen.
    #[default]
    Error,
    /// That all is well.
    Pass,
}
