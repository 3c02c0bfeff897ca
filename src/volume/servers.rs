//! The servers that a class or a static volume may name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Export;

/// How many patterns a refusal lists: an event holds 1 KiB, and a name has up to 253 bytes.
const SHOWN: usize = 3;

/// One way to name servers.
///
/// Names are compared with names and addresses with addresses, and nothing is resolved: what a name stands for is the
/// resolver's to say, and it may say something else a moment later. So a name does not allow its address, nor an address a
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPattern {
    /// This host, in lower case.
    Host(String),
    /// Every host beneath this domain (`*.example.com`), at any depth, but not the domain itself; in lower case.
    Beneath(String),
    /// The addresses that begin with these bits; a single address has all of them.
    Network {
        /// The first address.
        first: IpAddr,
        /// How many bits count: at most 32 of IPv4, 128 of IPv6.
        bits: u8,
    },
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing that could stand for a server.
    #[error("it must be a host name, *.domain, an IP address or a network such as 10.0.0.0/8")]
    Form,
    /// A star elsewhere than in front of a domain.
    #[error(
        "a star stands only in front of a domain, as in *.example.com; to allow every server, leave the flag out"
    )]
    Star,
    /// More bits than the address has.
    #[error("the prefix must be a number from 0 to {0}")]
    Bits(u8),
    /// Bits are set behind the prefix.
    #[error("the network has bits set behind its prefix; did you mean {0}?")]
    Host(ServerPattern),
}

/// Without brackets, a dot at the end, the zone of an address, and capitals.
fn plain(server: &str) -> String {
    let server = server.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(server);
    server.strip_suffix('.').unwrap_or(server).to_ascii_lowercase()
}

/// The address that `server` is. `fe80::1%eth0` is one: its zone says by which interface it is reached.
fn address(server: &str) -> Option<IpAddr> {
    let (address, _zone) = server.split_once('%').unwrap_or((server, ""));
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// An address as 128 bits from the left, and how many of them it has.
fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// The bits of an IPv6 address in front of an IPv4 address that it stands for (`::ffff:10.0.0.1`).
const MAPPED: u8 = 96;

/// `value` with all but its first `bits` bits cleared.
fn prefix(value: u128, bits: u8) -> u128 {
    value & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// Whether `name` is one that a resolver looks up. One whose last part is a number is read as an address of the old forms
/// (`10.1`, `0x7f.1`) by some resolvers, so it is none.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let number = |label: &str| label.bytes().all(|b| b.is_ascii_digit()) || label.starts_with("0x");
    name.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(number)
}

impl ServerPattern {
    /// Whether it allows `server`, a name or an address as a request gives it.
    pub fn allows(&self, server: &str) -> bool {
        let server = plain(server);
        match (self, address(&server)) {
            (Self::Network { first, bits }, Some(address)) => {
                let ((first, all), (asked, of)) = (number(*first), number(address));
                all == of && prefix(asked, *bits) == first
            }
            (Self::Host(host), None) => *host == server,
            (Self::Beneath(domain), None) => {
                is_name(&server)
                    && server
                        .strip_suffix(domain.as_str())
                        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            _ => false,
        }
    }
}

impl FromStr for ServerPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = plain(text.trim());
        if let Some(domain) = text.strip_prefix("*.") {
            return if is_name(domain) {
                Ok(Self::Beneath(domain.to_owned()))
            } else {
                Err(PatternError::Form)
            };
        }
        if text.contains('*') {
            return Err(PatternError::Star);
        }
        let (start, length) =
            text.split_once('/').map_or((&*text, None), |(start, bits)| (start, Some(bits)));
        if let Ok(address) = plain(start).parse::<IpAddr>() {
            let (_, all) = number(address);
            let bits = match length {
                None => all,
                Some(bits) => {
                    bits.parse::<u8>().ok().filter(|bits| *bits <= all).ok_or(PatternError::Bits(all))?
                }
            };
            // An IPv4 network in IPv6's clothes, whose prefix counts these too, is one of IPv4, as a server's address is.
            let (first, bits) = match address.to_canonical() {
                inner @ IpAddr::V4(_) if address.is_ipv6() && bits >= MAPPED => (inner, bits - MAPPED),
                _ => (address, bits),
            };
            let (value, _) = number(first);
            let masked = prefix(value, bits);
            if masked == value {
                return Ok(Self::Network { first, bits });
            }
            let first = match first {
                IpAddr::V4(_) => IpAddr::V4(((masked >> 96) as u32).into()),
                IpAddr::V6(_) => IpAddr::V6(masked.into()),
            };
            return Err(PatternError::Host(Self::Network { first, bits }));
        }
        if length.is_none() && is_name(&text) { Ok(Self::Host(text)) } else { Err(PatternError::Form) }
    }
}

impl fmt::Display for ServerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Beneath(domain) => write!(f, "*.{domain}"),
            Self::Network { first, bits } if *bits == number(*first).1 => write!(f, "{first}"),
            Self::Network { first, bits } => write!(f, "{first}/{bits}"),
        }
    }
}

/// The servers that requests may name; without a pattern, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedServers(Vec<ServerPattern>);

/// A server that is not among the allowed ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server {server:?} is not allowed here; allowed are {allowed} (--allow-server of the driver){hint}"
)]
pub struct NotAllowed {
    server: String,
    allowed: String,
    hint: &'static str,
}

impl AllowedServers {
    /// Those that one of `patterns` allows; all, if there is none.
    pub fn new(patterns: Vec<ServerPattern>) -> Self {
        Self(patterns)
    }

    /// Refuses an export on a server that is not allowed.
    pub fn check(&self, export: &Export) -> Result<(), NotAllowed> {
        let server = export.server();
        if self.0.is_empty() || self.0.iter().any(|pattern| pattern.allows(server)) {
            return Ok(());
        }
        let mut allowed: Vec<String> = self.0.iter().take(SHOWN).map(ToString::to_string).collect();
        if self.0.len() > SHOWN {
            allowed.push(format!("{} more", self.0.len() - SHOWN));
        }
        let by_address = address(&plain(server)).is_some();
        let of_the_other_form =
            |pattern: &ServerPattern| matches!(pattern, ServerPattern::Network { .. }) != by_address;
        let hint = match by_address {
            _ if !self.0.iter().all(of_the_other_form) => "",
            true => "; these are names, and a name does not allow the address it stands for",
            false => "; these are addresses, and an address does not allow the names that stand for it",
        };
        Err(NotAllowed { server: server.to_owned(), allowed: allowed.join(", "), hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, server: &str) -> bool {
        pattern.parse::<ServerPattern>().unwrap().allows(server)
    }

    #[test]
    fn a_name_is_allowed_by_itself_in_any_case_and_by_the_domain_above() {
        for (pattern, server) in [
            ("nas.example.com", "NAS.example.com"),
            ("NAS", "nas"),
            ("nas.example.com", "nas.example.com."),
            ("*.example.com", "nas.example.com"),
            ("*.Example.com.", "a.b.EXAMPLE.com"),
        ] {
            assert!(allows(pattern, server), "{pattern} {server}");
        }
        for (pattern, server) in [
            ("nas.example.com", "nas.example.co"),
            ("nas", "nas.example.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", ".example.com"),
            ("*.example.com", "notexample.com"),
            ("*.example.com", "example.com.evil.org"),
            ("*.example.com", "..example.com"),
        ] {
            assert!(!allows(pattern, server), "{pattern} {server}");
        }
    }

    #[test]
    fn an_address_is_allowed_by_itself_and_by_its_network() {
        for (pattern, server) in [
            ("10.1.2.3", "10.1.2.3"),
            ("10.0.0.0/8", "10.255.0.1"),
            ("0.0.0.0/0", "192.0.2.1"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("fd00::1", "fd00:0:0:0::1"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::/8", "fdff::1"),
            ("::/0", "fd00::1"),
            ("fe80::/10", "fe80::1%eth0"),
            ("10.1.2.3", "::ffff:10.1.2.3"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3"),
            ("::ffff:0.0.0.0/96", "192.0.2.1"),
        ] {
            assert!(allows(pattern, server), "{pattern} {server}");
        }
        for (pattern, server) in [
            ("10.1.2.3", "10.1.2.4"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/31", "10.0.0.2"),
            ("0.0.0.0/0", "fd00::1"),
            ("::/0", "10.0.0.1"),
            ("fd00::/8", "fc00::1"),
            ("::ffff:10.0.0.0/104", "11.0.0.1"),
            ("::ffff:10.1.2.3/128", "10.1.2.4"),
            // What some resolvers take for 10.0.0.1 is no address here, and no name either.
            ("10.0.0.0/8", "10.1"),
            ("0.0.0.0/0", "0x0a000001"),
        ] {
            assert!(!allows(pattern, server), "{pattern} {server}");
        }
    }

    #[test]
    fn a_name_does_not_allow_an_address_nor_an_address_a_name() {
        assert!(!allows("localhost", "127.0.0.1") && !allows("127.0.0.0/8", "localhost"));
        assert!(!allows("*.example.com", "192.0.2.1") && !allows("192.0.2.0/24", "nas.example.com"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_words() {
        for (text, words) in [
            ("", "host name"),
            ("a b", "host name"),
            ("10.1", "host name"),
            ("*.1", "host name"),
            ("nas/24", "host name"),
            ("nas:/share", "host name"),
            ("*", "leave the flag out"),
            ("nas*", "in front of a domain"),
            ("a.*.b", "in front of a domain"),
            ("10.0.0.0/33", "0 to 32"),
            ("fd00::/129", "0 to 128"),
            ("10.0.0.0/x", "0 to 32"),
            ("10.1.2.3/8", "did you mean 10.0.0.0/8?"),
            ("fd00::1/64", "did you mean fd00::/64?"),
            ("::ffff:10.1.2.3/104", "did you mean 10.0.0.0/8?"),
            ("::ffff:10.0.0.0/129", "0 to 128"),
        ] {
            let refusal = text.parse::<ServerPattern>().expect_err(text).to_string();
            assert!(refusal.contains(words), "{text:?}: {refusal}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_read() {
        for text in ["nas", "*.example.com", "10.0.0.0/8", "10.1.2.3", "fd00::/8", "fd00::1"] {
            assert_eq!(text.parse::<ServerPattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_refusal_says_what_is_allowed_and_fits_into_an_event() {
        let allowed = |patterns: &[&str]| {
            AllowedServers::new(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect())
        };
        let export = Export::new("192.0.2.9", "/a").unwrap();
        assert_eq!(allowed(&[]).check(&export), Ok(()));
        assert_eq!(allowed(&["nas", "192.0.2.0/24"]).check(&export), Ok(()));
        let refusal = |patterns: &[&str]| allowed(patterns).check(&export).unwrap_err().to_string();
        let names = refusal(&["nas", "*.example.com"]);
        assert!(names.contains("\"192.0.2.9\"") && names.contains("nas, *.example.com"), "{names}");
        assert!(names.contains("--allow-server") && names.contains("these are names"), "{names}");
        assert!(!refusal(&["nas", "10.0.0.0/8"]).contains("these are"));
        let long = format!("{0}.{0}.{0}.com", "x".repeat(63));
        let many = refusal(&[long.as_str(); 9]);
        assert!(many.contains("6 more") && many.len() < 1024, "{many}");
    }
}
