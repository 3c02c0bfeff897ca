//! StorageClass parameters, as csi-driver-nfs names them, and what they mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Claim, Directory, DirectoryError, Export, ExportError, Key, nearest};

/// Where the volumes of this process live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Directories on NFS exports that exist already.
    Share,
    /// Volumes of a file system that Kuration owns.
    Pool,
}

/// What becomes of the data when the volume is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// It goes to the trash, and the reaper removes it after a lifetime.
    Delete,
    /// It stays where it is.
    Retain,
}

/// Who owns a volume's directory and what the mode bits of it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Numeric owner; `None`: whoever the server makes it.
    pub uid: Option<u32>,
    /// Numeric group; `None`: whichever the server makes it.
    pub gid: Option<u32>,
    /// Permission bits.
    pub mode: u32,
}

impl Owner {
    /// Whether the directory stays with whoever makes it.
    pub fn is_makers(self) -> bool {
        self.uid.is_none() && self.gid.is_none()
    }
}

/// Permission bits of a volume for which the class says nothing: everybody may write, since the consumer is a pod of
/// which Kuration knows neither user nor group, and the directory lies behind an export, not in a shared home.
pub(super) const DEFAULT_MODE: u32 = 0o777;

/// Parameters of a CreateVolume request, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The export (a share's; a pool has none).
    pub export: Option<Export>,
    /// The directory, where the class chose one (`subDir`); else it follows from the name.
    pub directory: Option<Directory>,
    /// Owner and mode of the directory.
    pub owner: Owner,
    /// What a delete does.
    pub on_delete: OnDelete,
    /// Whose the volume will be, where the provisioner says it (`--extra-create-metadata`).
    pub claim: Option<Claim>,
    /// What was asked, key by key in lower case, without the metadata that the provisioner adds: the part of a request
    /// that must be the same when it is repeated.
    pub asked: BTreeMap<String, String>,
}

/// Why parameters are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// Keys that mean nothing here.
    #[error("unknown parameter{}: {}; known are {known}", if .unknown.len() == 1 { "" } else { "s" }, .unknown.join(", "))]
    Unknown {
        /// Each with the known one that it may have stood for.
        unknown: Vec<String>,
        /// All that are known.
        known: String,
    },
    /// The same key twice, in two spellings.
    #[error("parameter {0:?} is given twice, in two spellings")]
    Twice(String),
    /// A needed key is not there.
    #[error("parameter {0:?} is missing: {1}")]
    Missing(&'static str, &'static str),
    /// `server` or `share` is not usable.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// `subDir` is not usable.
    #[error("subDir {0:?}: {1}")]
    Directory(String, DirectoryError),
    /// `subDir` holds a variable without a value.
    #[error(
        "subDir needs {0}, which the request does not hold: run the provisioner with --extra-create-metadata"
    )]
    NoMetadata(String),
    /// `subDir` holds a variable that is not known.
    #[error("subDir holds {0:?}; known are {1}")]
    Template(String, String),
    /// A value is not a number of the right kind.
    #[error("{key} is {value:?}; {expected}")]
    Value {
        /// The parameter.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// Keys of the provisioner's own, which say who asks rather than what is asked.
pub(super) const METADATA: &str = "csi.storage.k8s.io/";

/// Variables of `subDir` and the metadata key that each is taken from.
const TEMPLATES: [(&str, &str); 3] = [
    ("${pvc.metadata.name}", "csi.storage.k8s.io/pvc/name"),
    ("${pvc.metadata.namespace}", "csi.storage.k8s.io/pvc/namespace"),
    ("${pv.metadata.name}", "csi.storage.k8s.io/pv/name"),
];

const SHARE: [&str; 7] = ["server", "share", "subDir", "mountPermissions", "onDelete", "uid", "gid"];
const POOL: [&str; 4] = ["mountPermissions", "onDelete", "uid", "gid"];

/// Names of the keys a volume context may hold that must never be logged: the kubelet puts a pod's tokens there.
pub const REDACTED_CONTEXT: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// The parameters that a StorageClass of this kind may hold.
pub fn known_parameters(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Share => &SHARE,
        Kind::Pool => &POOL,
    }
}

impl Parameters {
    /// Reads what a StorageClass says, keys in any case.
    pub fn parse<'a>(
        kind: Kind,
        given: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, ParameterError> {
        let known = known_parameters(kind);
        let mut asked = BTreeMap::new();
        let mut metadata = BTreeMap::new();
        let mut unknown = Vec::new();
        for (key, value) in given {
            if key.starts_with(METADATA) {
                metadata.insert(key.as_str(), value.as_str());
            } else if known.iter().any(|k| k.eq_ignore_ascii_case(key)) {
                if asked.insert(key.to_ascii_lowercase(), value.clone()).is_some() {
                    return Err(ParameterError::Twice(shown(key)));
                }
            } else {
                unknown.push(match nearest(key, known.iter().copied()) {
                    Some(near) => format!("{key:?} (did you mean {near:?}?)"),
                    None => format!("{:?}", shown(key)),
                });
            }
        }
        if !unknown.is_empty() {
            unknown.sort();
            return Err(ParameterError::Unknown { unknown, known: known.join(", ") });
        }
        let value =
            |key: &str| asked.get(&key.to_ascii_lowercase()).map(|v| v.trim()).filter(|v| !v.is_empty());
        let export = match kind {
            Kind::Pool => None,
            Kind::Share => {
                let missing = ParameterError::Missing;
                let server =
                    value("server").ok_or(missing("server", "name the NFS server's host or address"))?;
                let share =
                    value("share").ok_or(missing("share", "name the path that the server exports"))?;
                Some(Export::new(server, share)?)
            }
        };
        let directory = value("subDir").map(|template| sub_directory(template, &metadata)).transpose()?;
        let owner = Owner {
            uid: value("uid").map(|v| number("uid", v)).transpose()?,
            gid: value("gid").map(|v| number("gid", v)).transpose()?,
            mode: value("mountPermissions").map(permissions).transpose()?.flatten().unwrap_or(DEFAULT_MODE),
        };
        let on_delete = match value("onDelete").map(str::to_ascii_lowercase).as_deref() {
            None | Some("delete") => OnDelete::Delete,
            Some("retain") => OnDelete::Retain,
            Some(other) => {
                let expected = match other {
                    "archive" => {
                        "archive is not built yet: use delete (kept in the trash for a while) or retain"
                    }
                    _ => "it must be delete or retain",
                };
                return Err(ParameterError::Value { key: "onDelete", value: shown(other), expected });
            }
        };
        Ok(Self { export, directory, owner, on_delete, claim: claim(&metadata), asked })
    }

    /// The directory of the volume `name`.
    pub fn directory(&self, name: &str, key: &Key) -> Directory {
        self.directory.clone().unwrap_or_else(|| Directory::of_name(name, key))
    }
}

/// The claim that the provisioner's metadata names.
fn claim(metadata: &BTreeMap<&str, &str>) -> Option<Claim> {
    let [name, namespace, volume] =
        TEMPLATES.map(|(_, key)| metadata.get(key).map(|&value| value.to_owned()));
    Some(Claim { namespace: namespace?, name: name?, volume: volume? })
}

/// `subDir` with its variables filled in. A value may not bring a slash of its own: what a claim's author writes must not
/// choose the levels of the path.
fn sub_directory(template: &str, metadata: &BTreeMap<&str, &str>) -> Result<Directory, ParameterError> {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find("${") {
        text.push_str(&rest[..at]);
        let end = rest[at..].find('}').map(|e| at + e + 1);
        let variable = end.map_or(&rest[at..], |end| &rest[at..end]);
        let Some((_, key)) = TEMPLATES.iter().find(|(name, _)| *name == variable) else {
            let known = TEMPLATES.map(|(name, _)| name).join(", ");
            return Err(ParameterError::Template(shown(variable), known));
        };
        let value = metadata.get(key).filter(|v| !v.is_empty());
        let value = value.ok_or_else(|| ParameterError::NoMetadata(variable.to_owned()))?;
        if value.contains('/') {
            let climbs = DirectoryError::Climbs(shown(value));
            return Err(ParameterError::Directory(shown(template), climbs));
        }
        text.push_str(value);
        rest = &rest[variable.len() + at..];
    }
    text.push_str(rest);
    Directory::parse(&text).map_err(|error| ParameterError::Directory(shown(&text), error))
}

/// The beginning of `value`, which may be as long as a request.
fn shown(value: &str) -> String {
    value.chars().take(64).collect()
}

fn number(key: &'static str, value: &str) -> Result<u32, ParameterError> {
    let expected = "it must be a number from 0 to 2147483647";
    let parsed = value.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
    parsed.ok_or_else(|| ParameterError::Value { key, value: shown(value), expected })
}

/// Octal permission bits; 0 means "leave them", as csi-driver-nfs documents it.
pub(super) fn permissions(value: &str) -> Result<Option<u32>, ParameterError> {
    let expected = "it must be octal permission bits, such as 0770";
    let bits = u32::from_str_radix(value, 8).ok().filter(|bits| *bits <= 0o7777);
    let bits =
        bits.ok_or(ParameterError::Value { key: "mountPermissions", value: shown(value), expected })?;
    Ok((bits != 0).then_some(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: Kind, given: &[(&str, &str)]) -> Result<Parameters, ParameterError> {
        let given: BTreeMap<String, String> = given.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Parameters::parse(kind, &given)
    }

    const BASE: [(&str, &str); 2] = [("server", "h"), ("share", "/a")];

    fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        BASE.iter().copied().chain(more.iter().copied()).collect()
    }

    #[test]
    fn keys_are_read_in_any_case() {
        let parameters =
            parse(Kind::Share, &[("Server", "h"), ("SHARE", "/a"), ("ONDELETE", "Retain")]).unwrap();
        assert_eq!(parameters.export.unwrap().to_string(), "h:/a");
        assert_eq!(parameters.on_delete, OnDelete::Retain);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_nearest() {
        let error = parse(Kind::Share, &with(&[("subdirr", "x"), ("zzz", "y")])).unwrap_err().to_string();
        assert!(
            error.contains("\"subdirr\" (did you mean \"subDir\"?)") && error.contains("\"zzz\""),
            "{error}"
        );
    }

    #[test]
    fn a_pool_takes_no_server() {
        assert!(matches!(parse(Kind::Pool, &BASE), Err(ParameterError::Unknown { .. })));
    }

    #[test]
    fn the_provisioners_metadata_is_never_unknown() {
        let key = |part| format!("csi.storage.k8s.io/{part}");
        let (name, namespace, volume) = (key("pvc/name"), key("pvc/namespace"), key("pv/name"));
        let mut given = with(&[(&name, "c"), (&namespace, "n")]);
        let parameters = parse(Kind::Share, &given).unwrap();
        assert!(parameters.claim.is_none() && !parameters.asked.contains_key(&name));
        given.push((&volume, "v"));
        let claim = Claim { namespace: "n".into(), name: "c".into(), volume: "v".into() };
        assert_eq!(parse(Kind::Share, &given).unwrap().claim, Some(claim));
    }

    #[test]
    fn variables_of_sub_dir_are_filled_in() {
        let given = with(&[
            ("subDir", "${pvc.metadata.namespace}/${pvc.metadata.name}-x"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
            ("csi.storage.k8s.io/pvc/namespace", "team"),
        ]);
        assert_eq!(parse(Kind::Share, &given).unwrap().directory.unwrap().as_str(), "team/claim-x");
    }

    #[test]
    fn a_variable_cant_climb_or_be_unknown_or_empty() {
        let hostile = |value| {
            let given = with(&[("subDir", "a/${pvc.metadata.name}"), ("csi.storage.k8s.io/pvc/name", value)]);
            parse(Kind::Share, &given)
        };
        assert!(matches!(hostile("../x"), Err(ParameterError::Directory(..))));
        assert!(matches!(hostile(".."), Err(ParameterError::Directory(..))));
        assert!(matches!(hostile(""), Err(ParameterError::NoMetadata(_))));
        assert!(matches!(
            parse(Kind::Share, &with(&[("subDir", "${pvc.x}")])),
            Err(ParameterError::Template(..))
        ));
        assert!(matches!(
            parse(Kind::Share, &with(&[("subDir", "${pvc")])),
            Err(ParameterError::Template(..))
        ));
        assert!(matches!(parse(Kind::Share, &with(&[("subDir", "/")])), Err(ParameterError::Directory(..))));
    }

    #[test]
    fn permissions_are_octal_and_zero_leaves_the_default() {
        let mode = |v| parse(Kind::Share, &with(&[("mountPermissions", v)])).map(|p| p.owner.mode);
        assert_eq!(mode("0750"), Ok(0o750));
        assert_eq!(mode("0"), Ok(DEFAULT_MODE));
        assert!(mode("999").is_err() && mode("70000").is_err() && mode("rwx").is_err());
    }

    #[test]
    fn ids_are_numbers_in_range() {
        let uid = |v| parse(Kind::Share, &with(&[("uid", v)])).map(|p| p.owner.uid);
        assert_eq!(uid("1000"), Ok(Some(1000)));
        assert!(uid("-1").is_err() && uid("4294967295").is_err() && uid("root").is_err());
    }

    #[test]
    fn archive_is_refused_in_words() {
        let error = parse(Kind::Share, &with(&[("onDelete", "archive")])).unwrap_err().to_string();
        assert!(error.contains("not built yet"), "{error}");
    }
}
