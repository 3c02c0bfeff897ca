//! The messages and services of CSI 1.13, generated from proto/csi.proto by build.rs.

#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
mod generated {
    tonic::include_proto!("csi.v1");
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

pub use generated::*;

/// Every field that the specification marks `csi_secret`, as (message, field).
pub const SECRET_FIELDS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/secret_fields.rs"));

/// What stands in a log where a secret was.
mod redact {
    use std::collections::HashMap;
    use std::fmt;

    use crate::volume::REDACTED_CONTEXT;

    /// A field marked `csi_secret`.
    pub struct Secret;

    impl fmt::Debug for Secret {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("***stripped***")
        }
    }

    /// A map of strings, in which a kubelet may have put a pod's tokens.
    pub struct Map<'a>(pub &'a HashMap<String, String>);

    impl fmt::Debug for Map<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut keys: Vec<&String> = self.0.keys().collect();
            keys.sort();
            let mut map = f.debug_map();
            for key in keys {
                if key.starts_with(REDACTED_CONTEXT) {
                    map.entry(key, &Secret);
                } else {
                    map.entry(key, &self.0[key]);
                }
            }
            map.finish()
        }
    }
}
