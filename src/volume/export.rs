//! `server:/path`, as NFS names what a server offers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::has_control;

/// One export of one NFS server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Export {
    server: String,
    path: String,
}

/// Why an export is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// No server was named.
    #[error("the server is missing: name a host or an address")]
    NoServer,
    /// The server is not a host name or an address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Server(String),
    /// The path is not absolute.
    #[error("the share {0:?} must be an absolute path, as the server exports it (/exports/data)")]
    Relative(String),
    /// The path climbs.
    #[error("the share {0:?} holds \"..\"")]
    Climbs(String),
    /// A control character stands in the path, or it is over 1,024 bytes.
    #[error("the share holds a control character or is longer than 1,024 bytes")]
    Path,
    /// Not of the form `server:/path`.
    #[error("{0:?} is not of the form server:/path")]
    Form(String),
}

impl Export {
    /// `server`: a host name, an IPv4 address, or an IPv6 address with or without brackets; `path`: absolute.
    pub fn new(server: &str, path: &str) -> Result<Self, ExportError> {
        let server = server.trim();
        let server = server.strip_prefix('[').and_then(|s| s.strip_suffix(']')).unwrap_or(server);
        if server.is_empty() {
            return Err(ExportError::NoServer);
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%');
        if server.len() > 253 || !server.bytes().all(legal) {
            return Err(ExportError::Server(server.chars().take(64).collect()));
        }
        if path.len() > 1024 || has_control(path) {
            return Err(ExportError::Path);
        }
        if !path.starts_with('/') {
            return Err(ExportError::Relative(path.to_owned()));
        }
        let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty() && *n != ".").collect();
        if names.contains(&"..") {
            return Err(ExportError::Climbs(path.to_owned()));
        }
        Ok(Self { server: server.to_owned(), path: format!("/{}", names.join("/")) })
    }

    /// The server, without brackets.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The exported path, absolute, without a slash at its end (but `/` itself).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of `below` on the server, which is what a mount of a volume names.
    pub fn path_of(&self, below: &str) -> String {
        format!("{}/{below}", self.path.trim_end_matches('/'))
    }

    /// What stands in the mount table for `path` on this server: an IPv6 address gets its brackets.
    pub fn source(&self, path: &str) -> String {
        if self.server.contains(':') {
            format!("[{}]:{path}", self.server)
        } else {
            format!("{}:{path}", self.server)
        }
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source(&self.path))
    }
}

impl FromStr for Export {
    type Err = ExportError;
    fn from_str(text: &str) -> Result<Self, ExportError> {
        // The path starts at the first ":/", which no IPv6 address holds.
        let (server, path) = text.split_once(":/").ok_or_else(|| ExportError::Form(text.to_owned()))?;
        Self::new(server, &format!("/{path}"))
    }
}

impl TryFrom<String> for Export {
    type Error = ExportError;
    fn try_from(text: String) -> Result<Self, ExportError> {
        text.parse()
    }
}

impl From<Export> for String {
    fn from(export: Export) -> String {
        export.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_server_gets_brackets_when_shown_and_none_when_used() {
        for text in ["[fd00::1]:/a", "fd00::1:/a"] {
            let export: Export = text.parse().unwrap();
            assert_eq!((export.server(), export.to_string().as_str()), ("fd00::1", "[fd00::1]:/a"));
        }
    }

    #[test]
    fn paths_are_normalised() {
        assert_eq!(Export::new("h", "//a//b/").unwrap().to_string(), "h:/a/b");
        assert_eq!(Export::new("h", "/").unwrap().path_of("v"), "/v");
        assert_eq!(Export::new("h", "/a").unwrap().path_of("v"), "/a/v");
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Export::new("", "/a"), Err(ExportError::NoServer));
        assert_eq!(Export::new("h", "a"), Err(ExportError::Relative("a".into())));
        assert_eq!(Export::new("h", "/a/../b"), Err(ExportError::Climbs("/a/../b".into())));
        assert_eq!(Export::new("h", "/a\n"), Err(ExportError::Path));
        assert!(matches!(Export::new("h,vers=3", "/a"), Err(ExportError::Server(_))));
        assert!(matches!("nothing".parse::<Export>(), Err(ExportError::Form(_))));
    }
}
