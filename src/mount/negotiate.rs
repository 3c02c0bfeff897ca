//! From a server's name to a mount: every address, every version, until one works.

use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::time::Instant;

use super::{MountError, NfsMount};
use crate::volume::{Export, MountOptions, SecretOptions, Version};

/// What worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The server's address.
    pub address: IpAddr,
    /// The version it speaks.
    pub version: Version,
}

/// The share of the whole time that one address may take, so that a dead one does not use up what a living one needs.
const SHARE_OF_ONE_ADDRESS: f64 = 0.5;

/// Tries to mount `path` of `export` by `attempt`, over all addresses of its server and all versions that `options` allow.
///
/// A refused version leads to the next one; a server that can't be reached, to the next address; anything else is the
/// answer. The server's name is looked up each time: what it stood for yesterday may be somebody else's today.
pub async fn negotiate<F>(
    export: &Export,
    path: &str,
    options: (&MountOptions, &SecretOptions),
    template: (bool, bool),
    deadline: Instant,
    mut attempt: impl FnMut(NfsMount, Instant) -> F,
) -> Result<Found, MountError>
where
    F: Future<Output = Result<(), MountError>>,
{
    let source = export.source(path);
    let (options, secret) = options;
    let versions = secret.behind(options).versions().map_err(|error| MountError::Options {
        source_: source.clone(),
        options: options.to_string(),
        why: if secret.is_empty() { error.to_string() } else { "no such version".to_owned() },
    })?;
    let addresses = resolve(export.server(), deadline).await?;
    let (read_only, own_superblock) = template;
    let mut last = None;
    for (at, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let until = if at + 1 == addresses.len() {
            deadline
        } else {
            Instant::now() + left.mul_f64(SHARE_OF_ONE_ADDRESS)
        };
        for version in &versions {
            let mount = NfsMount {
                source: source.clone(),
                address: *address,
                version: *version,
                options: options.clone(),
                secret: secret.clone(),
                read_only,
                own_superblock,
            };
            match attempt(mount, until).await {
                Ok(()) => return Ok(Found { address: *address, version: *version }),
                Err(MountError::Version { source_, .. }) => {
                    last = Some(MountError::Version { source_, versions: versions.clone() });
                }
                // A kernel may have a client for version 3 and none for 4.
                Err(error @ MountError::NoClient(_)) => last = Some(error),
                Err(
                    error @ (MountError::Refused { .. }
                    | MountError::Unreachable { .. }
                    | MountError::TimedOut { .. }),
                ) => {
                    last = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    let why = "the name stands for no address".to_owned();
    Err(last.unwrap_or(MountError::Resolve { server: export.server().to_owned(), why }))
}

/// Looks a name up, by /etc/hosts and DNS as libc does, on a thread that may be left behind.
async fn resolve(server: &str, deadline: Instant) -> Result<Vec<IpAddr>, MountError> {
    if let Ok(address) = server.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    let fail = |why: String| MountError::Resolve { server: server.to_owned(), why };
    let name = server.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        // libc in an image without nsswitch.conf asks DNS first, and believes its "no" before it looks into the file.
        let hosts =
            std::fs::read_to_string("/etc/hosts").map(|hosts| in_hosts(&hosts, &name)).unwrap_or_default();
        if hosts.is_empty() {
            (name.as_str(), 2049).to_socket_addrs().map(|found| found.map(|socket| socket.ip()).collect())
        } else {
            Ok(hosts)
        }
    });
    // A resolver that does not answer keeps its thread for a while; the request gets its answer all the same.
    let limit = deadline.min(Instant::now() + Duration::from_secs(10));
    let found = tokio::time::timeout_at(limit, lookup).await;
    let found = found.map_err(|_| fail("the resolver did not answer in time".to_owned()))?;
    let found: Vec<IpAddr> =
        found.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The addresses that a hosts(5) file has for `name`.
fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let named = lines.filter_map(|line| {
        let (address, names) = line.trim().split_once(char::is_whitespace)?;
        names
            .split_whitespace()
            .any(|other| other.eq_ignore_ascii_case(name))
            .then(|| address.parse().ok())?
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn tried(
        options: &str,
        fails: fn(&NfsMount) -> Option<MountError>,
    ) -> (Vec<Version>, Result<Found, MountError>) {
        let export = Export::new("192.0.2.1", "/a").expect("an export");
        let options = MountOptions::parse([options]).expect("options");
        let seen = std::sync::Mutex::new(Vec::new());
        let options = (&options, &SecretOptions::default());
        let result = negotiate(&export, "/a/v", options, (false, true), soon(), |mount, _| {
            seen.lock().expect("no panic").push(mount.version);
            let outcome = fails(&mount).map_or(Ok(()), Err);
            async move { outcome }
        })
        .await;
        (seen.into_inner().expect("no panic"), result)
    }

    fn no_version(mount: &NfsMount) -> Option<MountError> {
        Some(MountError::Version { source_: mount.source.clone(), versions: vec![] })
    }

    #[tokio::test]
    async fn an_older_version_is_tried_where_a_newer_is_refused() {
        let only_4_0 = |m: &NfsMount| if m.version == Version::V4_0 { None } else { no_version(m) };
        let (seen, result) = tried("hard", only_4_0).await;
        assert_eq!(seen, [Version::V4_2, Version::V4_1, Version::V4_0]);
        assert_eq!(result.map(|f| f.version), Ok(Version::V4_0));
    }

    #[tokio::test]
    async fn a_version_that_the_user_chose_is_the_only_one_tried() {
        let (seen, result) = tried("vers=4.1", no_version).await;
        assert_eq!(seen, [Version::V4_1]);
        assert!(matches!(result, Err(MountError::Version { versions, .. }) if versions == [Version::V4_1]));
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_tried_in_four_versions() {
        let refused = |m: &NfsMount| {
            Some(MountError::Refused { source_: m.source.clone(), address: m.address.to_string() })
        };
        let (seen, result) = tried("", refused).await;
        assert_eq!(seen.len(), 1);
        assert!(matches!(result, Err(MountError::Refused { .. })));
    }

    #[tokio::test]
    async fn a_name_without_an_address_says_so() {
        let export = Export::new("no-such-host.invalid", "/a").expect("an export");
        let (options, secret) = (MountOptions::default(), SecretOptions::default());
        let result =
            negotiate(&export, "/a", (&options, &secret), (false, false), soon(), |_, _| async { Ok(()) })
                .await;
        assert!(matches!(result, Err(MountError::Resolve { .. })), "{result:?}");
    }

    #[test]
    fn the_hosts_file_is_read_as_hosts_5_has_it() {
        let hosts = "127.0.0.1 localhost\n10.0.0.1\tNAS nas.example # the big one\nfd00::1 nas\nnonsense\n";
        let found: Vec<String> = in_hosts(hosts, "nas").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "fd00::1"]);
        assert!(in_hosts(hosts, "big").is_empty());
    }
}
