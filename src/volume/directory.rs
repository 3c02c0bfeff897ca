//! A place beneath an export or a pool, as a list of names that can't lead out of it.

use serde::{Deserialize, Serialize};

use super::{Key, has_control};

/// The directory that holds Kuration's own files at the top of each export and pool.
const OWN: &str = ".kuration";

/// Longest relative path accepted, in bytes; PATH_MAX is 4,096 and the export's own path stands before it.
const MAX_BYTES: usize = 1024;

/// A directory beneath an export: one or more names, none of them empty, `.`, `..`, or Kuration's own.
///
/// What it guards against is CVE-2026-3864: a path out of a request that climbs out of the export. It is opened with
/// `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)` all the same; this is the first of two doors.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Directory(String);

/// Why a directory is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// Nothing is left of it: the export's own root would be the volume, and a delete would empty the export.
    #[error("it names the export itself, and a volume must be a directory beneath it")]
    Root,
    /// `.` or `..` stands in it.
    #[error("it holds the component {0:?}, which could lead out of the export")]
    Climbs(String),
    /// Kuration's own directory.
    #[error("{OWN} is Kuration's own directory")]
    Own,
    /// A control character stands in it.
    #[error("it holds a control character")]
    Control,
    /// A component is longer than a file name may be.
    #[error("the component {0:?}… is longer than 255 bytes")]
    LongName(String),
    /// The whole is too long.
    #[error("it is {0} bytes long; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
}

impl Directory {
    /// Reads `a/b/c`; slashes at the ends and double ones count for nothing.
    pub fn parse(text: &str) -> Result<Self, DirectoryError> {
        if text.len() > MAX_BYTES {
            return Err(DirectoryError::TooLong(text.len()));
        }
        if has_control(text) {
            return Err(DirectoryError::Control);
        }
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        for name in &names {
            match *name {
                "." | ".." => return Err(DirectoryError::Climbs((*name).to_owned())),
                long if long.len() > 255 => {
                    return Err(DirectoryError::LongName(long.chars().take(32).collect()));
                }
                _ => {}
            }
        }
        match names.first() {
            None => Err(DirectoryError::Root),
            // In any case: some servers tell no capitals from small letters.
            Some(first) if first.eq_ignore_ascii_case(OWN) => Err(DirectoryError::Own),
            Some(_) => Ok(Self(names.join("/"))),
        }
    }

    /// The directory of a volume for which nobody chose one: its name where that is a plain file name, else its key.
    pub fn of_name(name: &str, key: &Key) -> Self {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if plain && !name.is_empty() && !name.starts_with('.') && name.len() <= 128 {
            Self(name.to_owned())
        } else {
            Self(format!("volume-{key}"))
        }
    }

    /// The path, relative, without a slash at either end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names, outermost first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The directories that this one lies in, outermost first, without itself: `a` and `a/b` of `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = Directory> + '_ {
        self.0.match_indices('/').map(|(at, _)| Directory(self.0[..at].to_owned()))
    }
}

impl TryFrom<String> for Directory {
    type Error = DirectoryError;
    fn try_from(text: String) -> Result<Self, DirectoryError> {
        Self::parse(&text)
    }
}

impl From<Directory> for String {
    fn from(directory: Directory) -> String {
        directory.0
    }
}

impl std::fmt::Display for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slashes_at_the_ends_count_for_nothing() {
        assert_eq!(Directory::parse("//a//b/").unwrap().as_str(), "a/b");
    }

    #[test]
    fn the_export_itself_is_refused() {
        for root in ["", "/", "//"] {
            assert_eq!(Directory::parse(root), Err(DirectoryError::Root), "{root:?}");
        }
    }

    #[test]
    fn climbing_out_is_refused() {
        for hostile in ["..", "a/../b", "../x", ".", "./a", "a/.."] {
            assert!(matches!(Directory::parse(hostile), Err(DirectoryError::Climbs(_))), "{hostile:?}");
        }
        assert_eq!(Directory::parse(".kuration/trash"), Err(DirectoryError::Own));
        assert_eq!(Directory::parse("a\nb"), Err(DirectoryError::Control));
        assert_eq!(Directory::parse("a\0b"), Err(DirectoryError::Control));
    }

    #[test]
    fn a_name_that_is_no_file_name_gets_the_directory_of_its_key() {
        let key = Key::of("default", "x");
        assert_eq!(Directory::of_name("pvc-1", &key).as_str(), "pvc-1");
        for odd in ["a/b", "..", ".hidden", "ü", "", "a b"] {
            assert_eq!(Directory::of_name(odd, &key).as_str(), format!("volume-{key}"), "{odd:?}");
        }
    }

    #[test]
    fn ancestors_come_outermost_first() {
        let all: Vec<_> = Directory::parse("a/b/c").unwrap().ancestors().map(String::from).collect();
        assert_eq!(all, ["a", "a/b"]);
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_beneath(text in "[a-z./\\\\ ~%]{0,40}") {
            if let Ok(directory) = Directory::parse(&text) {
                prop_assert!(directory.names().all(|n| !n.is_empty() && n != "." && n != ".."));
                prop_assert_eq!(Directory::parse(directory.as_str()), Ok(directory.clone()));
            }
        }

        #[test]
        fn of_name_always_gives_one_legal_name(name in "\\PC{0,200}") {
            let directory = Directory::of_name(&name, &Key::of("i", &name));
            prop_assert_eq!(Directory::parse(directory.as_str()), Ok(directory.clone()));
            prop_assert_eq!(directory.names().count(), 1);
        }
    }
}
