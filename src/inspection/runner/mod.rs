//! One run: every rule of a task, side by side, each to an end of its own.
//!
//! There are exactly as many results as rules, whatever happens: a rule that hangs ends at its deadline, one that the run
//! has no time left for is an error, one whose dependency did not pass is skipped, and one whose code panics is an error too.

mod compare;
mod evaluate;
mod jitter;
mod load;
mod process;
mod table;

pub use compare::{Changes, compare};
pub use evaluate::{Limits, evaluate};
pub use load::{LoadError, Loaded, load};
pub use process::{Output, RunFailure, Settings, run};
pub use table::table;
