//! What a volume should be, against what it is.

use crate::volume::{Capacity, Record, Wanted};

/// What to do where a volume of the name exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Create {
    /// It is what was asked for.
    Keep,
    /// It differs, in these words.
    Differs(String),
}

/// A volume of this name exists: is it the one that is asked for? (CSI specification, CreateVolume: the same name with
/// compatible arguments is the same volume.)
pub fn create(wanted: &Wanted, record: &Record) -> Create {
    let mut differences = Vec::new();
    if record.name != wanted.name {
        differences.push(format!("its name is {:?}", record.name));
    }
    if !wanted.capacity().admits(record.capacity) {
        differences.push(format!(
            "it has {} bytes, and {} are asked for",
            record.capacity,
            wanted.capacity()
        ));
    }
    let (held, asked) = (&record.fingerprint, &wanted.fingerprint);
    for key in
        held.parameters.keys().chain(asked.parameters.keys().filter(|k| !held.parameters.contains_key(*k)))
    {
        let (old, new) = (held.parameters.get(key), asked.parameters.get(key));
        if old != new {
            let show = |value: Option<&String>| value.map_or("not set".to_owned(), |v| format!("{v:?}"));
            differences.push(format!("its parameter {key} is {}, not {}", show(old), show(new)));
        }
    }
    if record.directory != wanted.directory {
        differences.push(format!("its directory is {}, not {}", record.directory, wanted.directory));
    }
    if held.capabilities != asked.capabilities {
        let show = |capabilities: &[crate::volume::Capability]| {
            let one = |c: &crate::volume::Capability| match c.mount_flags.join(",") {
                flags if flags.is_empty() => c.mode.to_string(),
                flags => format!("{} with {flags}", c.mode),
            };
            capabilities.iter().map(one).collect::<Vec<_>>().join(" and ")
        };
        differences.push(format!(
            "it was made for {}, not for {}",
            show(&held.capabilities),
            show(&asked.capabilities)
        ));
    }
    if differences.is_empty() { Create::Keep } else { Create::Differs(differences.join("; ")) }
}

/// What to do with a volume that should grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expand {
    /// It is large enough.
    Keep,
    /// It gets this many bytes.
    Grow(u64),
    /// It is larger than the request allows.
    Shrink {
        /// What the request allows, in bytes.
        limit: u64,
    },
}

/// A volume of `current` bytes should have what `range` says.
pub fn expand(current: u64, range: Capacity) -> Expand {
    match (range.wanted(), range.limit()) {
        (_, Some(limit)) if current > limit => Expand::Shrink { limit },
        (Ok(wanted), _) if wanted > current => Expand::Grow(wanted),
        _ => Expand::Keep,
    }
}

/// Bytes that may still be promised, of a file system of `total` bytes of which `free` are free and `promised` promised.
///
/// Where sizes are enforced, what is promised is all that can ever be used, and the file system is Kuration's alone. Where
/// they are not, others may have filled it, and nobody can be given more than is free.
pub fn promisable(total: u64, free: u64, promised: u64, overcommit: f64, enforced: bool) -> u64 {
    let times = |bytes: u64| {
        // A float holds any real file system's size to the byte; a ratio that makes it more than u64 saturates.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let scaled = (bytes as f64 * overcommit) as u64;
        scaled
    };
    let by_promise = times(total).saturating_sub(promised);
    if enforced { by_promise } else { by_promise.min(times(free)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_grows_to_what_is_required_and_never_shrinks() {
        let range = |required, limit| Capacity::parse(required, limit).unwrap();
        assert_eq!(expand(10, range(20, 0)), Expand::Grow(20));
        assert_eq!(expand(10, range(10, 0)), Expand::Keep);
        assert_eq!(expand(10, range(5, 0)), Expand::Keep);
        assert_eq!(expand(10, range(5, 8)), Expand::Shrink { limit: 8 });
        assert_eq!(expand(10, range(0, 12)), Expand::Grow(12));
    }

    #[test]
    fn what_is_promised_is_not_promised_twice() {
        assert_eq!(promisable(100, 90, 60, 1.0, true), 40);
        assert_eq!(promisable(100, 90, 60, 2.0, true), 140);
        assert_eq!(promisable(100, 90, 160, 1.0, true), 0);
    }

    #[test]
    fn without_enforcement_nobody_is_promised_more_than_is_free() {
        assert_eq!(promisable(100, 10, 0, 1.0, false), 10);
        assert_eq!(promisable(100, 10, 0, 3.0, false), 30);
    }
}
