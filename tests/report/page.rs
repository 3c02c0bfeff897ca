use std::fs;
use std::path::Path;

use kuration::inspection::report::{Language, Shelf, html};

use crate::fixture;

fn database() -> (tempfile::TempDir, Shelf) {
    let volume = tempfile::tempdir().unwrap();
    let home = fixture::store(volume.path(), &fixture::database(60));
    let shelf = Shelf::open(&home).unwrap();
    (volume, shelf)
}

/// What a person reads: the text without what is between angle brackets.
fn text(html: &str) -> String {
    let body = html.split("</style>").nth(1).unwrap();
    let mut text = String::new();
    let mut inside = false;
    for c in body.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text
}

#[test]
fn a_report_is_the_one_that_was_read() {
    let (_volume, shelf) = database();
    let made = html(&shelf.history(None).unwrap(), Language::English);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/report.html");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == made, "UPDATE_GOLDEN=1 writes tests/golden/report.html anew");
}

#[test]
fn the_same_results_make_the_same_bytes() {
    let ((_one, first), (_two, second)) = (database(), database());
    for language in [Language::English, Language::Chinese] {
        let reports = [&first, &second, &first].map(|shelf| html(&shelf.history(None).unwrap(), language));
        assert!(reports[0] == reports[1] && reports[1] == reports[2]);
    }
}

#[test]
fn the_verdict_comes_first_with_what_is_broken_and_since_when() {
    let (_volume, shelf) = database();
    let said = text(&html(&shelf.history(None).unwrap(), Language::English));
    let order = [
        "Something is broken",
        "connections",
        "replica-lag",
        "since 2026-11-20 21:05 (17 h, 18 runs)",
        "What changed",
        "Pod shop/mysql-2",
        "What is broken",
        "Find who holds the connections",
        "What could not be looked at",
        "may not list jobs.batch",
        "The last 30 days",
        "Rule by rule",
        "How long it took",
        "What was left out",
    ];
    let mut rest = said.as_str();
    for wanted in order {
        let at = rest.find(wanted).unwrap_or_else(|| panic!("{wanted:?} does not follow in\n{rest}"));
        rest = &rest[at..];
    }
    assert!(said.contains("存在故障") && said.contains("处理建议"), "Chinese stands beside it");
}
