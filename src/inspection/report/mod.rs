//! What a run found, as a person reads it: one page that needs nothing but itself, and the forms that other programs read.
//!
//! | part | what it is | |
//! |---|---|---|
//! | [`story`], [`since`], [`changes`] | the decisions: what is broken, since when, what changed | pure |
//! | [`words`], [`chart`], [`remedy`], [`page`], [`sheet`] | how it is said and drawn | pure |
//! | [`formats`] | JUnit XML, an OpenReports object | pure |
//! | [`serve`] | `kuration report`: pages over a volume | |
//! | [`shelf`] | reading what runs have left in a directory | |
//!
//! The same records make the same bytes: nothing here asks for the time, and every order is defined.

pub mod changes;
pub mod chart;
pub mod finding;
pub mod formats;
pub mod page;
pub mod remedy;
pub mod serve;
pub mod sheet;
pub mod shelf;
pub mod since;
pub mod story;
pub mod words;

pub use formats::{junit, open_report};
pub use shelf::{Shelf, ShelfError};
pub use story::{History, Story};
pub use words::Language;

/// The report of a run, as a file: `report.html`. Both languages stand in it, and the reader switches.
pub fn html(history: &History, language: Language) -> String {
    sheet::report(&Story::of(history), language, maud::html! {})
}
