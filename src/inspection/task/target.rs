//! What a task looks at, out of one short string.

use std::fmt;

use thiserror::Error;

/// What a task looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One object, of the task's own namespace where its kind has one.
    One {
        /// The kind in lower case, singular or plural or short, perhaps with its group: `service`, `deployments.apps`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// All objects of a kind.
    All {
        /// The kind, as in [`Target::One`].
        kind: String,
    },
}

/// A target that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("target {0:?} is neither a Service's name nor kind/name nor kind/*")]
pub struct TargetError(pub String);

impl Target {
    /// Reads `name` (a Service), `kind/name` or `kind/*`.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let bad = || TargetError(text.to_owned());
        let plain = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c))
        };
        match text.split_once('/') {
            None if plain(text) && !text.contains('.') => {
                Ok(Target::One { kind: "service".into(), name: text.into() })
            }
            Some((kind, "*")) if plain(kind) => Ok(Target::All { kind: kind.to_ascii_lowercase() }),
            Some((kind, name)) if plain(kind) && plain(name) => {
                Ok(Target::One { kind: kind.to_ascii_lowercase(), name: name.into() })
            }
            _ => Err(bad()),
        }
    }

    /// Its kind, in lower case.
    pub fn kind(&self) -> &str {
        match self {
            Target::One { kind, .. } | Target::All { kind } => kind,
        }
    }

    /// Its name, unless all are meant.
    pub fn name(&self) -> Option<&str> {
        match self {
            Target::One { name, .. } => Some(name),
            Target::All { .. } => None,
        }
    }

    /// The Service that is meant, if one is.
    pub fn service(&self) -> Option<&str> {
        matches!(self.kind(), "service" | "services" | "svc").then(|| self.name()).flatten()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind(), self.name().unwrap_or("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_service() {
        let target = Target::parse("mysql-service").unwrap();
        assert_eq!(target.service(), Some("mysql-service"));
        assert_eq!(target.to_string(), "service/mysql-service");
    }

    #[test]
    fn a_kind_may_be_named_with_one_or_with_all_of_its_objects() {
        assert_eq!(Target::parse("node/*").unwrap(), Target::All { kind: "node".into() });
        let one = Target::parse("deployments.apps/web").unwrap();
        assert_eq!((one.kind(), one.name(), one.service()), ("deployments.apps", Some("web"), None));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for bad in ["", "/", "a/", "/a", "a/b/c", "mysql.shop", "a b", "svc/../x"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
