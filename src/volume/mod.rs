//! The words: what a volume is, where it lives, who may use it and how large it is.
//!
//! Everything here is pure. A request becomes one of these types at the porch ([`crate::csi`]) and can't be wrong
//! afterwards; what lies on disk ([`Record`]) is read into them too.

mod access;
mod capacity;
mod directory;
mod export;
mod id;
mod inline;
mod label;
mod options;
mod parameters;
mod record;
mod servers;
mod suggest;
mod usage;

pub use access::{Access, AccessError, Capability, Mode};
pub use capacity::{Capacity, CapacityError, DEFAULT_CAPACITY};
pub use directory::{Directory, DirectoryError};
pub use export::{Export, ExportError};
pub use id::{ExportName, Identity, Key, MAX_ID_BYTES, VolumeId};
pub use inline::{Inline, InlineError};
pub use label::same_level;
pub use options::{Attributes, MountOptions, OptionError, SecretOptions, Version};
use parameters::DEFAULT_MODE;
pub use parameters::{Kind, OnDelete, Owner, ParameterError, Parameters, REDACTED_CONTEXT, known_parameters};
pub use record::{Claim, Fingerprint, Publication, RECORD_VERSION, Record, Scratch, Volume, Wanted};
pub use servers::{AllowedServers, NotAllowed, PatternError, ServerPattern};
use sha2::{Digest, Sha256};
pub use suggest::nearest;
pub use usage::Usage;

/// Whether `text` holds a control character (NUL and newline among them), which the CSI specification forbids in names.
pub fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// A name of 32 characters for `text`, which may hold what no file name can: 128 bits of its SHA-256, in hex.
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `name` is a legal volume name: 1 to 128 bytes without control characters (CSI specification, "Size Limits"
/// and `CreateVolumeRequest.name`).
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > 128 {
        return Err(NameError::TooLong(name.len()));
    }
    if has_control(name) {
        return Err(NameError::Control);
    }
    Ok(())
}

/// Why a volume's name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name at all.
    #[error("the name is missing")]
    Empty,
    /// Longer than the specification allows.
    #[error("the name is {0} bytes long; at most 128 are allowed")]
    TooLong(usize),
    /// A control character stands in it.
    #[error("the name holds a control character (a newline, a NUL or the like)")]
    Control,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_hash_is_the_first_half_of_sha_256() {
        // FIPS 180-4's own example. Names of files rest on it.
        assert_eq!(short_hash("abc"), "ba7816bf8f01cfea414140de5dae2223");
    }
}
