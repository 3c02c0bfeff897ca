//! How fast reports are: `cargo bench --bench report`. 8,640 runs are thirty days of one each five minutes.

// clippy lets tests unwrap, but not what benches call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/report/fixture.rs"]
mod fixture;

use std::time::{Duration, Instant};

use kuration::inspection::report::serve::{Wanted, overview};
use kuration::inspection::report::{Language, Shelf, html};

/// The middle of `count` times, in milliseconds.
fn middle(count: usize, mut work: impl FnMut()) -> f64 {
    let mut taken: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    taken.sort();
    taken[count / 2].as_secs_f64() * 1_000.0
}

fn main() {
    let volume = tempfile::tempdir().unwrap();
    let runs = fixture::database(5);
    let home = fixture::store(volume.path(), &runs);
    let mut bytes = 0;
    let report = middle(15, || {
        let shelf = Shelf::open(&home).unwrap();
        bytes = html(&shelf.history(None).unwrap(), Language::English).len();
    });
    println!("report over {} runs, from the volume: {report:.1} ms ({bytes} bytes)", runs.len());

    let volume = tempfile::tempdir().unwrap();
    let last = runs.last().unwrap();
    for at in 0..1_000 {
        let mut run = last.clone();
        run.task = fixture::task(&format!("check-{at}"));
        fixture::store(volume.path(), &[run]);
    }
    let index = middle(15, || {
        let shelf = Shelf::open(volume.path()).unwrap();
        let names = shelf.tasks();
        let wanted = Wanted::Overview { search: String::new() };
        let answer = overview(&shelf, names, &wanted, Language::English).unwrap();
        bytes = answer.body.len();
    });
    println!("index of 1,000 tasks, from the volume: {index:.1} ms ({bytes} bytes)");
}
