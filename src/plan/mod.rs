//! The decisions: from what is asked and what is found to what is to be done, or why not. Nothing here has an effect.

mod create;
mod node;
mod publish;
mod topology;

pub use create::{Create, Expand, create, expand, promisable};
pub use node::{NodePublish, NodeStage, Origin, node_publish, node_stage, other_label};
pub use publish::{Publish, describe, publish};
pub use topology::lies_within;
