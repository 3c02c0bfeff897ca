//! Volume ids: opaque to the world, and enough by themselves to find the volume again.
//!
//! DeleteVolume gets an id and nothing else, so the id says where the volume lives, in at most 128 bytes:
//!
//! | form | means |
//! |---|---|
//! | `nfs1~SERVER~PATH~OPTIONS~KEY` | a share; its server, exported path and the mount options needed to reach it |
//! | `nfs1~SERVER~PATH~*~KEY` | the same, with options too long to carry: those of the known export are used |
//! | `nfs1~#HASH~KEY` | server and path are too long as well: the export is found among the known ones by its hash |
//! | `pool1~KEY` | a pool |
//! | `SERVER#SHARE#SUBDIR#UUID#ONDELETE` | a volume of csi-driver-nfs that was adopted |
//!
//! KEY is the identity of the export or pool (8 hex digits, drawn when Kuration first wrote to it) and the volume's own key
//! (32 hex digits). The first makes a server that lost its disk, or a path that now shows another file system, a clear
//! error instead of "no such volume, deleted".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Export, MountOptions};

/// The longest id that the CSI specification allows, in bytes.
pub const MAX_ID_BYTES: usize = 128;

/// A volume's key: 128 bits of SHA-256 over the installation and the volume's name, so that a name is found by one
/// look-up, by any controller, without an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key([u8; 16]);

impl Key {
    /// The key of the volume `name` of `installation`.
    pub fn of(installation: &str, name: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(installation);
        digest.update([0]);
        digest.update(name);
        let mut key = [0; 16];
        key.copy_from_slice(&digest.finalize()[..16]);
        Self(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text that is not the hex digits it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a key")]
pub struct NotAKey;

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

impl FromStr for Key {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        unhex(text).map(Self).ok_or(NotAKey)
    }
}

impl TryFrom<String> for Key {
    type Error = NotAKey;
    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

/// What tells one export or pool from another at the same address: 32 random bits, kept in `.kuration/id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity([u8; 4]);

impl Identity {
    /// An identity of these bits.
    pub fn new(bits: [u8; 4]) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Identity {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        unhex(text).map(Self).ok_or(NotAKey)
    }
}

impl TryFrom<String> for Identity {
    type Error = NotAKey;
    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}

/// The export that an id speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ExportName {
    /// Named in full. Without options (`None`) those of the known export count.
    Named(Export, Option<MountOptions>),
    /// Only its hash: to be found among the known exports.
    Hashed(String),
}

impl ExportName {
    /// The hash by which an id names an export that is too long to stand in it: 64 bits of SHA-256, in hex.
    pub fn hash(export: &Export) -> String {
        let digest = Sha256::digest(export.to_string());
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Where a volume lives and which one it is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VolumeId {
    /// A directory of an NFS export.
    Share {
        /// The export.
        export: ExportName,
        /// The export's identity when the volume was made.
        identity: Identity,
        /// The volume's key there.
        key: Key,
    },
    /// A volume of the pool.
    Pool {
        /// The pool's identity when the volume was made.
        identity: Identity,
        /// The volume's key there.
        key: Key,
    },
    /// A volume that csi-driver-nfs made. Its record, where it was adopted, stands under the key of the whole id.
    Peer {
        /// The export.
        export: Export,
        /// The id's own key.
        key: Key,
    },
}

impl VolumeId {
    /// The id of a volume on an export; the shortest form that fits, chosen by the arguments alone.
    pub fn share(export: &Export, options: &MountOptions, identity: Identity, key: Key) -> Self {
        let named =
            |options| Self::Share { export: ExportName::Named(export.clone(), options), identity, key };
        let forms = [named(Some(options.clone())), named(None)];
        let hashed = Self::Share { export: ExportName::Hashed(ExportName::hash(export)), identity, key };
        forms.into_iter().find(|id| id.to_string().len() <= MAX_ID_BYTES).unwrap_or(hashed)
    }

    /// The volume's key in its export or pool.
    pub fn key(&self) -> Key {
        match self {
            Self::Share { key, .. } | Self::Pool { key, .. } | Self::Peer { key, .. } => *key,
        }
    }

    /// The identity that its export or pool must still have, where the id says one.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Self::Share { identity, .. } | Self::Pool { identity, .. } => Some(*identity),
            Self::Peer { .. } => None,
        }
    }
}

/// `~` parts the fields, so `~` and `%` within one are written as `%7e` and `%25`.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('~', "%7e")
}

fn unescape(text: &str) -> String {
    text.replace("%7e", "~").replace("%25", "%")
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { export: ExportName::Named(export, options), identity, key } => {
                let options = options.as_ref().map_or("*".to_owned(), |o| escape(&o.to_string()));
                let (server, path) = (escape(export.server()), escape(export.path()));
                write!(f, "nfs1~{server}~{path}~{options}~{identity}{key}")
            }
            Self::Share { export: ExportName::Hashed(hash), identity, key } => {
                write!(f, "nfs1~#{hash}~{identity}{key}")
            }
            Self::Pool { identity, key } => write!(f, "pool1~{identity}{key}"),
            Self::Peer { export, key } => write!(f, "peer {export} {key}"),
        }
    }
}

/// An id that is none of ours. Such a volume does not exist here, which makes a delete of it a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id that this driver gave out")]
pub struct ForeignId;

impl FromStr for VolumeId {
    type Err = ForeignId;

    fn from_str(text: &str) -> Result<Self, ForeignId> {
        let last = |text: &str| -> Option<(Identity, Key)> {
            let (identity, key) = text.split_at_checked(8)?;
            Some((identity.parse().ok()?, key.parse().ok()?))
        };
        let parsed = || -> Option<Self> {
            let fields: Vec<&str> = text.split('~').collect();
            match fields[..] {
                ["nfs1", server, path, options, tail] => {
                    let export = Export::new(&unescape(server), &unescape(path)).ok()?;
                    let options = match options {
                        "*" => None,
                        given => Some(MountOptions::parse([unescape(given)]).ok()?),
                    };
                    let (identity, key) = last(tail)?;
                    Some(Self::Share { export: ExportName::Named(export, options), identity, key })
                }
                ["nfs1", hash, tail] => {
                    let hash = hash.strip_prefix('#')?;
                    unhex::<8>(hash)?;
                    let (identity, key) = last(tail)?;
                    Some(Self::Share { export: ExportName::Hashed(hash.to_owned()), identity, key })
                }
                ["pool1", tail] => last(tail).map(|(identity, key)| Self::Pool { identity, key }),
                [peer] => match peer.split('#').collect::<Vec<_>>()[..] {
                    [server, share, sub_dir, _uuid, on_delete] => {
                        super::Directory::parse(sub_dir).ok()?;
                        matches!(on_delete, "" | "delete" | "retain" | "archive").then_some(())?;
                        let export = Export::new(server, &format!("/{share}")).ok()?;
                        Some(Self::Peer { export, key: Key::of("", peer) })
                    }
                    _ => None,
                },
                _ => None,
            }
        };
        if text.len() > MAX_ID_BYTES { Err(ForeignId) } else { parsed().ok_or(ForeignId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(server: &str, path: &str, options: &str) -> VolumeId {
        let options = MountOptions::parse([options.to_owned()]).unwrap();
        VolumeId::share(
            &Export::new(server, path).unwrap(),
            &options,
            Identity::new([1, 2, 3, 4]),
            Key::of("default", "pvc-1"),
        )
    }

    #[test]
    fn an_id_says_where_in_plain_words() {
        let key = Key::of("default", "pvc-1");
        assert_eq!(
            id("nfs.example", "/data", "vers=3,nolock").to_string(),
            format!("nfs1~nfs.example~/data~vers=3,nolock~01020304{key}")
        );
    }

    #[test]
    fn a_long_export_is_named_by_its_hash() {
        let long = id("nfs.example", &format!("/{}", "a".repeat(100)), "");
        assert!(matches!(long, VolumeId::Share { export: ExportName::Hashed(_), .. }));
        assert_eq!(long.to_string().parse(), Ok(long));
    }

    #[test]
    fn long_options_give_way_before_the_export_does() {
        let id = id("nfs.example", "/data", &format!("xprtsec={}", "x".repeat(80)));
        assert!(id.to_string().contains("~*~"), "{id}");
        assert!(matches!(id, VolumeId::Share { export: ExportName::Named(_, None), .. }));
    }

    #[test]
    fn ids_of_csi_driver_nfs_parse_too() {
        let peer: VolumeId = "srv#a/b#pvc-1##".parse().unwrap();
        let VolumeId::Peer { export, .. } = &peer else { panic!("{peer:?}") };
        assert_eq!(export.to_string(), "srv:/a/b");
        assert!("srv##n/c#pvc-1#retain".parse::<VolumeId>().is_ok());
    }

    #[test]
    fn hostile_ids_of_csi_driver_nfs_are_foreign() {
        for hostile in
            ["srv#a#../../etc#u#", "srv#a##u#", "srv#a#/#u#", "srv#a#.#u#delete", "srv#a#b#c#d#e", "#a#b##"]
        {
            assert_eq!(hostile.parse::<VolumeId>(), Err(ForeignId), "{hostile}");
        }
    }

    #[test]
    fn an_id_of_another_driver_is_foreign() {
        for other in ["", "fake-vol-id", "pvc-6d2", "nfs1~a", "nfs1~~~~", "pool1~", "pool1~zz", "nfs1~#xx~00"]
        {
            assert_eq!(other.parse::<VolumeId>(), Err(ForeignId), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_id_survives_the_round_trip(server in "[a-z0-9.-]{1,60}", path in "/[a-zA-Z0-9/~%# .-]{0,60}") {
            if let Ok(export) = Export::new(&server, &path) {
                let id = VolumeId::share(&export, &MountOptions::default(), Identity::new([0; 4]), Key::of("i", "n"));
                let text = id.to_string();
                prop_assert!(text.len() <= MAX_ID_BYTES);
                prop_assert_eq!(text.parse(), Ok(id));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,140}") {
            let _parsed: Result<VolumeId, _> = text.parse();
        }

        #[test]
        fn no_tildes_and_hashes_make_the_parser_panic(text in "(nfs1|pool1|[a-z]{0,3})[~#a-f0-9/.%é]{0,120}") {
            let _parsed: Result<VolumeId, _> = text.parse();
        }
    }
}
