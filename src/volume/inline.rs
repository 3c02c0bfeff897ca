//! Inline ephemeral volumes: what a Pod may say of one, which is how large and how open. Where it lives is never the Pod's
//! to say: whoever can make a Pod could else mount any export that the node can reach.

use std::collections::{BTreeMap, HashMap};

use super::parameters::{METADATA, permissions};
use super::{DEFAULT_MODE, Owner, ParameterError, nearest, short_hash};

/// An inline volume, as its Pod asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inline {
    /// Its size, in bytes.
    pub bytes: u64,
    /// Owner and mode of its directory.
    pub owner: Owner,
    /// What the Pod said, and who it is: kept in the volume's record.
    pub asked: BTreeMap<String, String>,
}

/// Why an inline volume is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InlineError {
    /// What only the administrator says.
    #[error(
        "an inline volume can't have {0:?} in its volumeAttributes: where inline volumes live and how they are mounted is for \
         the administrator to say; a Pod may say {known}", known = KNOWN.join(", ")
    )]
    Reserved(String),
    /// A key that means nothing.
    #[error("unknown volumeAttribute {0:?}{1}; a Pod may say {known}", known = KNOWN.join(", "))]
    Unknown(String, String),
    /// The same key twice, in two spellings.
    #[error("volumeAttribute {0:?} is given twice, in two spellings")]
    Twice(String),
    /// Not a size.
    #[error("the volumeAttribute size is {0:?}; a size looks like 500Mi or 2Gi, and is more than 0")]
    Size(String),
    /// More than allowed.
    #[error(
        "the volumeAttribute size is {asked} bytes, and inline volumes have {limit} at most (--inline-limit)"
    )]
    TooLarge {
        /// What was asked for, in bytes.
        asked: u64,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// `mountPermissions` are none.
    #[error(transparent)]
    Permissions(#[from] ParameterError),
}

const KNOWN: [&str; 2] = ["size", "mountPermissions"];

/// Keys that mean something in a StorageClass or a static volume, and nothing here.
const RESERVED: [&str; 7] = ["server", "share", "subDir", "mountOptions", "onDelete", "uid", "gid"];

/// Keys by which the kubelet says whose volume it is (`podInfoOnMount`). They are the same at each try.
const POD: [&str; 3] =
    ["csi.storage.k8s.io/pod.namespace", "csi.storage.k8s.io/pod.name", "csi.storage.k8s.io/pod.uid"];

/// The key by which the kubelet says that a volume is inline.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

impl Inline {
    /// Whether a context says that its volume is inline.
    pub fn is_asked(context: &HashMap<String, String>) -> bool {
        context.get(EPHEMERAL).is_some_and(|value| value == "true")
    }

    /// Whether the kubelet makes such ids for inline volumes: `csi-` and a SHA-256 of the Pod's uid and the volume's name.
    pub fn is_id(volume_id: &str) -> bool {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        volume_id.strip_prefix("csi-").is_some_and(|hash| hash.len() == 64 && hash.bytes().all(lower))
    }

    /// The name of the volume that is made for an id. It is one that no claim's volume has, and short enough for any id.
    pub fn name(volume_id: &str) -> String {
        format!("inline-{}", short_hash(volume_id))
    }

    /// Reads what a Pod says, keys in any case. A size that is not said is `limit`, in bytes.
    pub fn parse(context: &HashMap<String, String>, limit: u64) -> Result<Self, InlineError> {
        let mut said: BTreeMap<&str, &str> = BTreeMap::new();
        let mut keys: Vec<&String> = context.keys().filter(|key| !key.starts_with(METADATA)).collect();
        keys.sort();
        for key in keys {
            if let Some(reserved) = RESERVED.iter().find(|reserved| reserved.eq_ignore_ascii_case(key)) {
                return Err(InlineError::Reserved((*reserved).to_owned()));
            }
            let Some(known) = KNOWN.iter().find(|known| known.eq_ignore_ascii_case(key)) else {
                let hint = nearest(key, KNOWN).map(|near| format!(" (did you mean {near:?}?)"));
                return Err(InlineError::Unknown(key.chars().take(64).collect(), hint.unwrap_or_default()));
            };
            if said.insert(known, context[key].trim()).is_some() {
                return Err(InlineError::Twice((*known).to_owned()));
            }
        }
        let bytes = match said.get("size") {
            None => limit,
            Some(text) => {
                let wrong = || InlineError::Size(text.chars().take(64).collect());
                quantity(text).filter(|&bytes| bytes > 0).ok_or_else(wrong)?
            }
        };
        if bytes > limit {
            return Err(InlineError::TooLarge { asked: bytes, limit });
        }
        let mode = said.get("mountPermissions").map(|text| permissions(text)).transpose()?.flatten();
        let owner = Owner { uid: None, gid: None, mode: mode.unwrap_or(DEFAULT_MODE) };
        let who = POD.iter().filter_map(|key| Some((*key, context.get(*key)?.as_str())));
        let asked = said.into_iter().chain(who).map(|(key, value)| (key.to_owned(), value.to_owned()));
        Ok(Self { bytes, owner, asked: asked.collect() })
    }
}

/// A number of bytes as Kubernetes writes it: a whole number, and `Ki` to `Ei` or `k` to `E` behind it.
fn quantity(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn parse(given: &[(&str, &str)]) -> Result<Inline, String> {
        let context = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Inline::parse(&context, 100 * MIB).map_err(|error| error.to_string())
    }

    #[test]
    fn a_size_is_what_the_pod_says_or_all_that_it_may_have() {
        assert_eq!(parse(&[]).unwrap().bytes, 100 * MIB);
        for (text, bytes) in
            [("1Mi", MIB), ("100Mi", 100 * MIB), ("5k", 5_000), ("77", 77), (" 2Mi ", 2 * MIB)]
        {
            assert_eq!(parse(&[("size", text)]).unwrap().bytes, bytes, "{text}");
        }
        for text in ["", "0", "-1", "1.5Gi", "much", "1mi", "99999999999E"] {
            assert!(parse(&[("size", text)]).unwrap_err().contains("a size looks like"), "{text}");
        }
        assert!(parse(&[("size", "101Mi")]).unwrap_err().contains("--inline-limit"));
    }

    #[test]
    fn where_it_lives_is_not_the_pods_to_say() {
        for key in ["server", "SHARE", "subdir", "mountOptions", "onDelete", "uid", "gid"] {
            let refusal = parse(&[(key, "x")]).unwrap_err();
            assert!(refusal.contains("for the administrator to say"), "{refusal}");
        }
        assert!(parse(&[("sizes", "1Mi")]).unwrap_err().contains("did you mean \"size\"?"));
        assert!(parse(&[("size", "1Mi"), ("Size", "2Mi")]).unwrap_err().contains("twice"));
        assert!(parse(&[("mountPermissions", "rwx")]).unwrap_err().contains("octal"));
    }

    #[test]
    fn whose_it_is_is_kept_and_its_tokens_are_not() {
        let pod = [
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", "p"),
            ("csi.storage.k8s.io/serviceAccount.tokens", "secret"),
            ("csi.storage.k8s.io/whatever.comes.next", "x"),
            ("mountPermissions", "0750"),
        ];
        let inline = parse(&pod).unwrap();
        let kept: Vec<_> = inline.asked.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(kept, [("csi.storage.k8s.io/pod.name", "p"), ("mountPermissions", "0750")]);
        assert_eq!(inline.owner.mode, 0o750);
    }

    #[test]
    fn the_kubelets_ids_are_known_by_their_form() {
        let id = format!("csi-{}", "0f".repeat(32));
        assert!(Inline::is_id(&id));
        for other in ["csi-", "pvc-1", "data", &id.to_uppercase(), &format!("{id}0")] {
            assert!(!Inline::is_id(other), "{other}");
        }
        assert_eq!(Inline::name(&id), Inline::name(&id));
        assert_ne!(Inline::name(&id), Inline::name("csi-2"));
    }
}
