//! What the driver tells of itself: logs, metrics, and whether it is well.
//!
//! | part | tells |
//! |---|---|
//! | [`logs`] | lines on standard error: text for a terminal, else JSON |
//! | [`rpc`] | a span, a line and a measurement for each request, made in one place and never in a handler |
//! | [`codec`] | what requests and answers hold, where logs are that verbose |
//! | [`metrics`] | numbers, in the OpenMetrics format |
//! | [`families`] | numbers of what comes and goes, which another room keeps |
//! | [`admin`] | `/livez`, `/readyz` and `/metrics` over HTTP |
//!
//! Labels come from closed sets: a method, a code, a role. No name of a volume and no error's text ever becomes one, as
//! each new value would stay in memory, here and in the database that collects them. What another room keeps may name what it
//! keeps it of: it goes with it.

pub mod admin;
pub mod codec;
pub mod families;
pub mod logs;
pub mod metrics;
pub mod rpc;

pub use admin::{Admin, listen};
pub use codec::Codec;
pub use families::{Families, FamilyKind, Labels, Number, Page};
pub use metrics::{Metrics, MountResult};
pub use rpc::{Deadline, RpcLayer, name_volume};
