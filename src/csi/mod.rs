//! The porch: requests become the crate's own words here ([`ask`]), and answers and errors become CSI's.

pub mod ask;
mod controller;
mod files;
mod fullness;
mod identity;
mod inline;
mod node;
mod pending;
pub mod proto;
pub mod registration;
pub mod serve;
mod staged;
pub mod status;

pub use controller::Controller;
pub use fullness::Fullness;
pub use identity::{Identity, Readiness};
pub use inline::InlineVolumes;
pub use node::Node;
pub use pending::Limits;
pub use staged::Notes;
