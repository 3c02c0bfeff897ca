//! Reports: always the same bytes, nothing in them runs, and a broken volume hides nothing.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chromium;
mod fixture;
mod hostile;
mod page;
mod shelf;
