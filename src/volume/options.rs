//! Mount options: nfs(5) and the general ones of mount(8), read, checked by name, and split by who acts on them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{has_control, nearest};

/// A version of the NFS protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// Version 3 (RFC 1813).
    V3,
    /// Version 4.0 (RFC 7530).
    V4_0,
    /// Version 4.1 (RFC 8881).
    V4_1,
    /// Version 4.2 (RFC 7862).
    V4_2,
}

impl Version {
    /// As the option `vers=` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "3",
            Self::V4_0 => "4.0",
            Self::V4_1 => "4.1",
            Self::V4_2 => "4.2",
        }
    }

    /// Newest first.
    const ALL: [Self; 4] = [Self::V4_2, Self::V4_1, Self::V4_0, Self::V3];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Attributes of one mount, as opposed to its superblock: the kernel keeps them per place where a file system is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `ro`.
    pub read_only: bool,
    /// `nosuid`.
    pub no_suid: bool,
    /// `nodev`.
    pub no_dev: bool,
    /// `noexec`.
    pub no_exec: bool,
    /// `noatime`.
    pub no_atime: bool,
    /// `nodiratime`.
    pub no_dir_atime: bool,
}

/// Mount options, in the order they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct MountOptions(Vec<(String, Option<String>)>);

/// Mount options out of a secret. They go to the kernel and to nobody else: not into an id, a record, a file, a log or an
/// error.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretOptions(MountOptions);

impl SecretOptions {
    /// These options, to be kept secret.
    pub fn new(options: MountOptions) -> Self {
        Self(options)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `options` and, behind them, these: for the kernel.
    pub fn behind(&self, options: &MountOptions) -> MountOptions {
        options.and(&self.0)
    }
}

impl fmt::Debug for SecretOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***stripped***")
    }
}

/// Why an option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("unknown mount option {0:?}{1}")]
    Unknown(String, String),
    /// It needs a value.
    #[error("mount option {0:?} needs a value ({0}=…)")]
    NoValue(String),
    /// It takes none.
    #[error("mount option {0:?} takes no value")]
    Value(String),
    /// It is Kuration's to set.
    #[error("mount option {0:?} can't be given: {1}")]
    Ours(String, &'static str),
    /// The value makes no sense.
    #[error("mount option {0:?}: {1}")]
    Bad(String, &'static str),
}

/// Who acts on an option.
#[derive(Clone, Copy, PartialEq)]
enum Actor {
    /// The NFS client; goes to the kernel as it is.
    Nfs,
    /// Chooses the version, which Kuration negotiates.
    Version,
    /// The superblock, whatever the file system.
    Superblock,
    /// The mount, not the superblock.
    Mount,
    /// Programs such as mount(8) and systemd; without meaning here, and harmless.
    Nobody,
}

/// Whether an option has a value.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    Flag,
    Value,
    Either,
}

use Actor::{Mount, Nfs, Nobody, Superblock, Version as Vers};
use Takes::{Either, Flag, Value};

/// Every option of nfs(5) and the general ones of mount(8).
#[rustfmt::skip]
const KNOWN: &[(&str, Actor, Takes)] = &[
    // nfs(5), "Options supported by all versions"
    ("nfsvers", Vers, Value), ("vers", Vers, Value), ("minorversion", Vers, Value),
    ("soft", Nfs, Flag), ("softerr", Nfs, Flag), ("hard", Nfs, Flag), ("softreval", Nfs, Flag), ("nosoftreval", Nfs, Flag),
    ("intr", Nobody, Flag), ("nointr", Nobody, Flag), ("timeo", Nfs, Value), ("retrans", Nfs, Value),
    ("rsize", Nfs, Value), ("wsize", Nfs, Value), ("bsize", Nfs, Value), ("ac", Nfs, Flag), ("noac", Nfs, Flag),
    ("acregmin", Nfs, Value), ("acregmax", Nfs, Value), ("acdirmin", Nfs, Value), ("acdirmax", Nfs, Value),
    ("actimeo", Nfs, Value), ("bg", Nobody, Flag), ("fg", Nobody, Flag), ("nconnect", Nfs, Value),
    ("max_connect", Nfs, Value), ("trunkdiscovery", Nfs, Flag), ("notrunkdiscovery", Nfs, Flag),
    ("rdirplus", Nfs, Either), ("nordirplus", Nfs, Flag), ("retry", Nobody, Value), ("sec", Nfs, Value),
    ("xprtsec", Nfs, Value), ("cert_serial", Nfs, Value), ("privkey_serial", Nfs, Value),
    ("sharecache", Nfs, Flag), ("nosharecache", Nfs, Flag), ("resvport", Nfs, Flag), ("noresvport", Nfs, Flag),
    ("lookupcache", Nfs, Value), ("fsc", Nfs, Either), ("nofsc", Nfs, Flag), ("write", Nfs, Value),
    ("alignwrite", Nfs, Flag), ("noalignwrite", Nfs, Flag),
    // "Options for NFS versions 2 and 3 only"
    ("proto", Nfs, Value), ("udp", Nfs, Flag), ("tcp", Nfs, Flag), ("rdma", Nfs, Flag), ("port", Nfs, Value),
    ("mountport", Nfs, Value), ("mountproto", Nfs, Value), ("mountvers", Nfs, Value), ("namlen", Nfs, Value),
    ("lock", Nfs, Flag), ("nolock", Nfs, Flag), ("cto", Nfs, Flag), ("nocto", Nfs, Flag), ("acl", Nfs, Flag),
    ("noacl", Nfs, Flag), ("local_lock", Nfs, Value), ("posix", Nfs, Flag), ("noposix", Nfs, Flag),
    // "Options for NFS version 4 only"
    ("clientaddr", Nfs, Value), ("migration", Nfs, Flag), ("nomigration", Nfs, Flag),
    // mount(8), "Filesystem-independent mount options"
    ("ro", Mount, Flag), ("rw", Mount, Flag), ("suid", Mount, Flag), ("nosuid", Mount, Flag), ("dev", Mount, Flag),
    ("nodev", Mount, Flag), ("exec", Mount, Flag), ("noexec", Mount, Flag), ("atime", Mount, Flag),
    ("noatime", Mount, Flag), ("diratime", Mount, Flag), ("nodiratime", Mount, Flag), ("relatime", Mount, Flag),
    ("strictatime", Mount, Flag), ("sync", Superblock, Flag), ("async", Superblock, Flag), ("dirsync", Superblock, Flag),
    ("lazytime", Superblock, Flag), ("nolazytime", Superblock, Flag), ("mand", Superblock, Flag),
    ("nomand", Superblock, Flag), ("context", Nfs, Value), ("fscontext", Nfs, Value), ("defcontext", Nfs, Value),
    ("rootcontext", Nfs, Value), ("defaults", Nobody, Flag), ("auto", Nobody, Flag), ("noauto", Nobody, Flag),
    ("nofail", Nobody, Flag), ("_netdev", Nobody, Flag), ("comment", Nobody, Value),
];

/// Options that Kuration sets by itself, with the reason.
const OURS: &[(&str, &str)] = &[
    ("addr", "the server's name is resolved at each mount"),
    // By these NFS 3 would send the MOUNT call to any host, also one that --allow-server leaves out.
    ("mountaddr", "the server itself is asked"),
    ("mounthost", "the server itself is asked"),
    ("remount", "a volume is mounted once, and not changed under its users"),
    ("bind", "a volume is mounted from its server"),
    ("rbind", "a volume is mounted from its server"),
    ("move", "a volume is mounted from its server"),
    ("loop", "a volume is mounted from its server"),
    ("user", "the driver alone mounts volumes"),
    ("users", "the driver alone mounts volumes"),
];

/// Options of the client's caches: how stale a consumer lets things be says nothing of what a controller may believe.
#[rustfmt::skip]
const CACHES: &[&str] = &[
    "ac", "noac", "acregmin", "acregmax", "acdirmin", "acdirmax", "actimeo", "cto", "nocto", "lookupcache", "fsc", "nofsc",
];

/// SELinux labels: of one consumer's mount, and refused by the kernel if it gets one twice.
const LABELS: &[&str] = &["context", "fscontext", "defcontext", "rootcontext"];

fn known(name: &str) -> Option<&'static (&'static str, Actor, Takes)> {
    KNOWN.iter().find(|(known, ..)| *known == name)
}

impl MountOptions {
    /// Reads options; each item may itself be a list parted by commas. A value that holds a comma stands in quotes, as a
    /// security context does (`context="system_u:object_r:container_file_t:s0:c1,c2"`); the kernel gets it without them.
    pub fn parse(items: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, OptionError> {
        let mut options = Vec::new();
        for item in items {
            for option in split(item.as_ref()).map(str::trim).filter(|o| !o.is_empty()) {
                options.push(check(option)?);
            }
        }
        let options = Self(options);
        options.versions()?;
        Ok(options)
    }

    /// These, and behind them `more`, which win where both speak of one thing: the kernel takes the last.
    pub fn and(&self, more: &Self) -> Self {
        Self(self.0.iter().chain(&more.0).cloned().collect())
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the flag `name` is set, and its opposite `undo` is not set behind it.
    pub fn has(&self, name: &str, undo: &str) -> bool {
        self.last(&[name, undo]).is_some_and(|(last, _)| last == name)
    }

    fn last(&self, names: &[&str]) -> Option<&(String, Option<String>)> {
        self.0.iter().rev().find(|(name, _)| names.contains(&name.as_str()))
    }

    /// The versions to try, in this order: all, newest first, unless the options say which.
    pub fn versions(&self) -> Result<Vec<Version>, OptionError> {
        let bad = |name: &str, value: &str| {
            Err(OptionError::Bad(format!("{name}={value}"), "Kuration speaks 3, 4, 4.0, 4.1 and 4.2"))
        };
        let minor = match self.last(&["minorversion"]) {
            Some((name, Some(value))) => match value.as_str() {
                "0" => Some(Version::V4_0),
                "1" => Some(Version::V4_1),
                "2" => Some(Version::V4_2),
                other => return bad(name, other),
            },
            _ => None,
        };
        match self.last(&["vers", "nfsvers"]) {
            Some((name, Some(value))) => Ok(match (value.as_str(), minor) {
                ("3", None) => vec![Version::V3],
                ("4", None) => vec![Version::V4_2, Version::V4_1, Version::V4_0],
                ("4", Some(version)) => vec![version],
                ("4.0", None) => vec![Version::V4_0],
                ("4.1", None) => vec![Version::V4_1],
                ("4.2", None) => vec![Version::V4_2],
                (other, _) => return bad(name, other),
            }),
            _ => Ok(minor.map_or(Version::ALL.to_vec(), |version| vec![version])),
        }
    }

    /// The SELinux label that all files of the mount shall have.
    pub fn label(&self) -> Option<&str> {
        self.last(&["context"]).and_then(|(_, value)| value.as_deref())
    }

    /// Whether they speak of SELinux labels.
    pub fn is_labelled(&self) -> bool {
        self.last(LABELS).is_some()
    }

    /// What goes to the NFS client, name by name.
    pub fn nfs(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.by(Actor::Nfs)
    }

    /// What goes to the superblock, whatever the file system.
    pub fn superblock(&self) -> impl Iterator<Item = &str> {
        self.by(Actor::Superblock).map(|(name, _)| name)
    }

    fn by(&self, actor: Actor) -> impl Iterator<Item = (&str, Option<&str>)> {
        let of_actor = move |name: &str| known(name).is_some_and(|(_, a, _)| *a == actor);
        // The kernel takes the last of any other option, but refuses a label that comes twice.
        let later = |at: usize, name: &str| self.0.iter().skip(at + 1).any(|(later, _)| later == name);
        self.0
            .iter()
            .enumerate()
            .filter(move |(at, (name, _))| {
                of_actor(name) && !(LABELS.contains(&name.as_str()) && later(*at, name))
            })
            .map(|(_, (name, value))| (name.as_str(), value.as_deref()))
    }

    /// What the mount itself keeps, the last word winning.
    pub fn attributes(&self) -> Attributes {
        let mut set = Attributes::default();
        for (name, _) in self.by(Actor::Mount) {
            match name {
                "ro" => set.read_only = true,
                "rw" => set.read_only = false,
                "nosuid" => set.no_suid = true,
                "suid" => set.no_suid = false,
                "nodev" => set.no_dev = true,
                "dev" => set.no_dev = false,
                "noexec" => set.no_exec = true,
                "exec" => set.no_exec = false,
                "noatime" => set.no_atime = true,
                "atime" | "relatime" | "strictatime" => set.no_atime = false,
                "nodiratime" => set.no_dir_atime = true,
                "diratime" => set.no_dir_atime = false,
                _ => {}
            }
        }
        set
    }

    /// The options that matter for reaching the export, without those of one consumer's mount (`ro`, `noexec`, a label, …) and
    /// those of its caches: what the controller mounts with, and what an id carries.
    pub fn reach(&self) -> Self {
        let kept = |name: &str| {
            let reaches = known(name).is_some_and(|(_, actor, _)| matches!(actor, Nfs | Vers));
            reaches && !CACHES.contains(&name) && !LABELS.contains(&name)
        };
        Self(self.0.iter().filter(|(name, _)| kept(name)).cloned().collect())
    }
}

/// The parts of a list between its commas, those in quotes left out.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
}

/// A value without the quotes around it.
fn unquoted(name: &str, value: &str) -> Result<String, OptionError> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    match inner.contains('"') {
        false => Ok(inner.to_owned()),
        true => Err(OptionError::Bad(name.to_owned(), "a quote stands around a whole value, or nowhere")),
    }
}

fn check(option: &str) -> Result<(String, Option<String>), OptionError> {
    if has_control(option) {
        let shown = option.chars().take(64).collect();
        return Err(OptionError::Bad(shown, "it holds a control character, which no mount option can"));
    }
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(unquoted(name, value)?)),
        None => (option, None),
    };
    if name.starts_with("x-") || name.starts_with("X-") {
        return Ok((name.to_owned(), value));
    }
    if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == name) {
        return Err(OptionError::Ours(name.to_owned(), why));
    }
    let Some((_, _, takes)) = known(name) else {
        let hint = match nearest(name, KNOWN.iter().map(|(name, ..)| *name)) {
            Some(near) => format!(" (did you mean {near:?}?)"),
            None => "; see nfs(5)".to_owned(),
        };
        return Err(OptionError::Unknown(name.chars().take(64).collect(), hint));
    };
    let empty = value.as_ref().is_none_or(String::is_empty);
    match takes {
        Value if empty => Err(OptionError::NoValue(name.to_owned())),
        Flag if value.is_some() => Err(OptionError::Value(name.to_owned())),
        Either | Value | Flag => Ok((name.to_owned(), value)),
    }
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written: Vec<String> = self.clone().into();
        f.write_str(&written.join(","))
    }
}

impl TryFrom<Vec<String>> for MountOptions {
    type Error = OptionError;
    fn try_from(items: Vec<String>) -> Result<Self, OptionError> {
        Self::parse(items)
    }
}

impl From<MountOptions> for Vec<String> {
    fn from(options: MountOptions) -> Vec<String> {
        let written = |(name, value): (String, Option<String>)| match value {
            Some(value) if value.contains(',') => format!("{name}=\"{value}\""),
            Some(value) => format!("{name}={value}"),
            None => name,
        };
        options.0.into_iter().map(written).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountOptions, OptionError> {
        MountOptions::parse([text])
    }

    #[test]
    fn without_a_version_all_are_tried_newest_first() {
        use Version::{V3, V4_0, V4_1, V4_2};
        assert_eq!(parse("hard").unwrap().versions(), Ok(vec![V4_2, V4_1, V4_0, V3]));
        assert_eq!(parse("vers=4").unwrap().versions(), Ok(vec![V4_2, V4_1, V4_0]));
        assert_eq!(parse("nfsvers=4,minorversion=1").unwrap().versions(), Ok(vec![V4_1]));
        assert_eq!(parse("vers=3").unwrap().versions(), Ok(vec![V3]));
    }

    #[test]
    fn a_version_nobody_speaks_is_refused() {
        for text in ["vers=2", "vers=4.3", "vers=3,minorversion=1", "minorversion=9"] {
            assert!(matches!(parse(text), Err(OptionError::Bad(..))), "{text}");
        }
    }

    #[test]
    fn a_misspelt_option_is_named_with_its_nearest() {
        let error = parse("nolocks").unwrap_err().to_string();
        assert!(error.contains("\"nolocks\" (did you mean \"nolock\"?)"), "{error}");
    }

    #[test]
    fn options_of_the_driver_are_refused_with_the_reason() {
        assert!(matches!(parse("addr=10.0.0.1"), Err(OptionError::Ours(..))));
        assert!(matches!(parse("remount"), Err(OptionError::Ours(..))));
        // Nor may anybody but the server be asked to mount.
        assert!(matches!(parse("vers=3,mountaddr=10.0.0.1"), Err(OptionError::Ours(..))));
        assert!(matches!(parse("vers=3,mounthost=10.0.0.1"), Err(OptionError::Ours(..))));
    }

    #[test]
    fn values_are_demanded_and_refused() {
        assert_eq!(parse("timeo"), Err(OptionError::NoValue("timeo".into())));
        assert_eq!(parse("timeo="), Err(OptionError::NoValue("timeo".into())));
        assert_eq!(parse("hard=1"), Err(OptionError::Value("hard".into())));
    }

    #[test]
    fn each_option_goes_to_the_one_who_acts_on_it() {
        let options =
            parse("ro,noexec,vers=4.1,timeo=50,sync,_netdev,nconnect=2,rw,x-systemd.automount").unwrap();
        assert_eq!(options.nfs().collect::<Vec<_>>(), [("timeo", Some("50")), ("nconnect", Some("2"))]);
        assert_eq!(options.superblock().collect::<Vec<_>>(), ["sync"]);
        let attributes = options.attributes();
        assert!(!attributes.read_only && attributes.no_exec);
        assert_eq!(options.reach().to_string(), "vers=4.1,timeo=50,nconnect=2");
    }

    #[test]
    fn a_security_context_keeps_its_commas_and_loses_its_quotes() {
        let context = "system_u:object_r:container_file_t:s0:c1,c2";
        // As the kubelet writes it for a pod with a label (seLinuxMount).
        let options = MountOptions::parse(["hard", &format!("context=\"{context}\""), "ro"]).unwrap();
        let kernel: Vec<_> = options.nfs().collect();
        assert_eq!(kernel, [("hard", None), ("context", Some(context))]);
        assert!(options.attributes().read_only);
        assert_eq!(options.to_string(), format!("hard,context=\"{context}\",ro"));
        assert_eq!(parse(&options.to_string()).unwrap(), options);
        assert_eq!(options.label(), Some(context));
    }

    #[test]
    fn the_last_of_several_labels_is_the_mounts_and_none_is_the_controllers() {
        let class = parse("context=u:r:t:s0,hard,rootcontext=u:r:t:s0").unwrap();
        let pod = class.and(&parse("context=u:r:t:s0:c1,timeo=50").unwrap());
        let kernel: Vec<_> =
            pod.nfs().map(|(name, value)| format!("{name}={}", value.unwrap_or(""))).collect();
        assert_eq!(kernel, ["hard=", "rootcontext=u:r:t:s0", "context=u:r:t:s0:c1", "timeo=50"]);
        assert_eq!(pod.label(), Some("u:r:t:s0:c1"));
        assert_eq!(pod.reach().to_string(), "hard,timeo=50");
        assert!(class.is_labelled() && !pod.reach().is_labelled());
    }

    #[test]
    fn a_quote_out_of_place_is_refused() {
        for text in ["context=\"a,b", "context=a\"b\"", "sec=\"sys\"krb5\"", "\"hard\""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_survive_being_written_down() {
        for text in ["vers=4.1,timeo=50,ro", "rootcontext=\"u:r:t:s0:c1,c2\",hard"] {
            let options = parse(text).unwrap();
            let json = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<MountOptions>(&json).unwrap(), options);
        }
    }
}
