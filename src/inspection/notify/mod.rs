//! Who is told what, and how: a decision without effects, the form of a message, and its sending.
//!
//! A receiver is told of a state, not of a change: what it knows is compared with what is so. So a controller that was down,
//! a receiver that was down and a silence that ends all lead to one message, and none to two.

mod decide;
mod message;
mod send;

pub use decide::{Standing, decide, silenced};
pub use message::{Notice, Post, post};
pub use send::{SendError, send};
