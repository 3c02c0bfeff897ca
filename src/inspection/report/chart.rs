//! The report's pictures: SVG within the page, coloured by the page's style, without a script and without a style of their own.

use maud::{Markup, html};

use super::story::{Day, Point, Trend};
use super::words::took;
use crate::inspection::run::{Counts, Outcome};

/// The class that colours an outcome.
pub fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Warn => "warn",
        Outcome::Fail => "fail",
        Outcome::Error => "error",
        Outcome::Skip => "skip",
    }
}

/// An outcome as a sign that is told apart without its colour.
pub fn sign(outcome: Outcome) -> Markup {
    html! {
        svg class={ "sign " (class(outcome)) } viewBox="0 0 20 20" aria-hidden="true" {
            @match outcome {
                Outcome::Pass => {
                    circle cx="10" cy="10" r="10" {}
                    path d="M5.6 10.4l3 3 5.8-6.4" {}
                }
                Outcome::Warn => {
                    path class="body" d="M10 1.2c.6 0 1.1.3 1.4.8l8 14.4c.6 1.1-.2 2.4-1.4 2.4H2c-1.2 0-2-1.3-1.4-2.4L8.6 2c.3-.5.8-.8 1.4-.8z" {}
                    path d="M10 7v5M10 15.2v.3" {}
                }
                Outcome::Fail => {
                    circle cx="10" cy="10" r="10" {}
                    path d="M6.6 6.6l6.8 6.800M13.4 6.600l-6.8 6.8" {}
                }
                Outcome::Error => {
                    circle class="ring" cx="10" cy="10" r="8.6" {}
                    path class="mark" d="M7.5 7.8c0-1.5 1.1-2.5 2.6-2.5s2.5 1 2.5 2.300c0 1.9-2.5 2-2.5 4M10.1 14.4v.3" {}
                }
                Outcome::Skip => {
                    circle class="ring" cx="10" cy="10" r="8.6" {}
                    path class="mark" d="M6.5 10h7" {}
                }
            }
        }
    }
}

/// A tally in signs, for a tooltip: it needs no language.
fn counted(tally: &Counts) -> String {
    let parts =
        [(tally.pass, "✓"), (tally.warn, "⚠"), (tally.fail, "✗"), (tally.error, "?"), (tally.skip, "–")];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, sign)| format!("{sign} {count}")).collect::<Vec<_>>().join("  ")
}

/// The measures of a strip of days.
#[derive(Debug, Clone, Copy)]
pub struct Strip {
    /// A day's width, with the gap after it.
    pub step: usize,
    /// Without the gap.
    pub width: usize,
    /// A day's height.
    pub height: usize,
}

/// The calendar at the top.
pub const CALENDAR: Strip = Strip { step: 24, width: 20, height: 44 };

/// A rule's own.
pub const SMALL: Strip = Strip { step: 6, width: 5, height: 22 };

/// A day is a column: what was broken rises from its foot, as high as its share of the day's runs.
pub fn strip(days: &[Day], strip: Strip) -> Markup {
    let Strip { step, width, height } = strip;
    let whole = (days.len() * step).saturating_sub(step - width);
    html! {
        svg class="strip" viewBox={ "0 0 " (whole) " " (height) } role="img" {
            @for (at, day) in days.iter().enumerate() {
                g {
                    title { (day.date) @if day.counts.total() > 0 { "  " (counted(&day.counts)) } }
                    @if day.counts.total() == 0 {
                        rect class="none" x=(at * step) y=(height - 3) width=(width) height="3" rx="1" {}
                    } @else {
                        @for (class, y, tall) in column(&day.counts, height) {
                            rect class=(class) x=(at * step) y=(y) width=(width) height=(tall) {}
                        }
                    }
                }
            }
        }
    }
}

/// The pieces of a column from its foot up: class, top, height. None that exists is lower than can be seen.
fn column(tally: &Counts, height: usize) -> Vec<(&'static str, usize, usize)> {
    let least = height / 6;
    let parts = [
        ("fail", tally.fail),
        ("error", tally.error),
        ("warn", tally.warn),
        ("skip", tally.skip),
        ("pass", tally.pass),
    ];
    let total = tally.total().max(1);
    let parts: Vec<_> = parts.into_iter().filter(|(_, count)| *count > 0).collect();
    let mut left = height;
    let mut pieces = Vec::new();
    for (at, (class, count)) in parts.iter().enumerate() {
        let share = usize::try_from(u64::from(*count) * height as u64 / u64::from(total)).unwrap_or(height);
        let after = (parts.len() - at - 1) * least;
        let tall = if after == 0 { left } else { share.clamp(least, left.saturating_sub(after).max(least)) };
        left = left.saturating_sub(tall);
        pieces.push((*class, left, tall));
    }
    pieces
}

const WIDE: u64 = 260;
const TALL: u64 = 40;

/// How long a rule took: a line through the middle values, and above it the band that 95 of 100 stayed within.
pub fn line(trend: &Trend) -> Markup {
    let top = trend.points.iter().map(|point| point.p95).max().unwrap_or(0).max(1);
    let x = |point: &Point| {
        let steps = (trend.stretches.max(2) - 1) as u64;
        4 + (WIDE - 8) * point.at as u64 / steps
    };
    let y = |millis: u64| 4 + (TALL - 8) * (top - millis.min(top)) / top;
    // Time without runs is a gap, not a bridge.
    let apart = |a: &Point, b: &Point| b.at - a.at > 3;
    html! {
        svg class="line" viewBox={ "0 0 " (WIDE) " " (TALL) } role="img" {
            title { "p50 " (took(trend.points.last().map_or(0, |point| point.median))) "  p95 " (took(trend.points.last().map_or(0, |point| point.p95))) }
            path class="floor" d={ "M0 " (TALL - 2) "H" (WIDE) } {}
            @for part in trend.points.chunk_by(|a, b| !apart(a, b)) {
                @if let [only] = part {
                    circle class="dot" cx=(x(only)) cy=(y(only.median)) r="2" {}
                } @else {
                    path class="band" d=(band(part, x, y)) {}
                    path class="middle" d=(path(part.iter().map(|point| (x(point), y(point.median))))) {}
                }
            }
            @if let Some(last) = trend.points.last() {
                circle class="dot" cx=(x(last)) cy=(y(last.median)) r="3" {}
            }
        }
    }
}

fn path(points: impl Iterator<Item = (u64, u64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        path.push(if path.is_empty() { 'M' } else { 'L' });
        path.push_str(&format!("{x} {y}"));
    }
    path
}

fn band(part: &[Point], x: impl Fn(&Point) -> u64, y: impl Fn(u64) -> u64) -> String {
    let there = part.iter().map(|point| (x(point), y(point.p95)));
    let back = part.iter().rev().map(|point| (x(point), y(point.median)));
    path(there.chain(back)) + "Z"
}

/// When in the run a rule was at work: a bar, in thousandths of the whole.
pub fn bar(from: u64, length: u64, outcome: Outcome) -> Markup {
    let from = from.min(1_000);
    html! {
        svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            rect class="rail" x="0" y="4" width="1000" height="2" {}
            rect class=(class(outcome)) x=(from) y="0" width=(length.clamp(4, (1_000 - from).max(4))) height="10" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_among_thousands_can_be_seen_and_a_column_is_full() {
        let tally = Counts { pass: 9_999, fail: 1, error: 1, ..Counts::default() };
        let pieces = column(&tally, 42);
        assert_eq!(pieces.iter().map(|(class, ..)| *class).collect::<Vec<_>>(), ["fail", "error", "pass"]);
        assert!(pieces.iter().all(|(_, _, tall)| *tall >= 7), "{pieces:?}");
        assert_eq!(pieces.iter().map(|(_, _, tall)| tall).sum::<usize>(), 42);
        assert_eq!(pieces.last().map(|(_, y, _)| *y), Some(0));
    }
}
