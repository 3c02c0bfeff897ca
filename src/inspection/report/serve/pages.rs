//! The pages beside a run's report: all tasks, a task's runs, the difference of two.

use http::StatusCode;
use jiff::Timestamp;
use maud::{Markup, html};

use super::super::Shelf;
use super::super::changes::changes;
use super::super::chart::{class, sign};
use super::super::formats::{junit, open_report};
use super::super::page::page;
use super::super::sheet::{aside, difference, more, outcome, report, tally};
use super::super::story::Story;
use super::super::words::{Language, said, told, took};
use super::PageError;
use crate::inspection::run::{IndexEntry, Outcome, Run};

/// What is asked for.
#[derive(Debug)]
pub enum Wanted {
    /// All tasks, or those with this in their name.
    Overview {
        /// In any case.
        search: String,
    },
    /// The runs of a task.
    Runs {
        /// In their id or verdict.
        search: String,
    },
    /// A run's report: of the newest, or of this one.
    Report {
        /// Its id.
        id: Option<String>,
    },
    /// The difference of two runs.
    Diff {
        /// The id of the one.
        before: String,
        /// The id of the other.
        after: String,
    },
    /// A run in another form.
    File {
        /// Its id.
        id: String,
        /// `run.json`, `junit.xml` or `report.json`.
        file: String,
    },
}

/// What kind of body an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A page.
    Page,
    /// JSON.
    Json,
    /// XML.
    Xml,
}

/// A page, or a file.
#[derive(Debug)]
pub struct Answer {
    /// Of what kind.
    pub content: Content,
    /// What it is.
    pub body: String,
}

fn a_page(body: String) -> Answer {
    Answer { content: Content::Page, body }
}

/// How many runs one page shows.
const RUNS: usize = 500;

/// What went wrong, as a page.
pub fn trouble(status: StatusCode, message: &str, language: Language) -> Answer {
    let body = html! {
        main {
            h1 { (status.as_u16()) }
            p { (message) }
            p { a href="/" { (said("All inspections", "全部巡检")) } }
        }
    };
    a_page(page(language, &status.to_string(), None, html! {}, body))
}

fn search_form(value: &str, action: &str) -> Markup {
    html! {
        form class="search" method="get" action=(action) {
            input type="search" name="q" value=(value) aria-label="search" maxlength="200";
            button { (said("Search", "搜索")) }
        }
    }
}

/// A task as the overview shows it.
struct Line {
    name: String,
    latest: Option<(Outcome, Timestamp)>,
}

/// How bad, the worst first; a task without a readable run is worth a look before those that are well.
fn order(line: &Line) -> u8 {
    match line.latest.map(|(outcome, _)| outcome) {
        Some(Outcome::Fail) => 0,
        Some(Outcome::Error) | None => 1,
        Some(Outcome::Warn) => 2,
        Some(Outcome::Pass) => 3,
        Some(Outcome::Skip) => 4,
    }
}

/// All tasks of `names`: the worst first.
pub fn overview(
    shelf: &Shelf,
    names: Vec<String>,
    wanted: &Wanted,
    language: Language,
) -> Result<Answer, PageError> {
    let Wanted::Overview { search } = wanted else { return Err(PageError::Nothing) };
    let low = search.to_lowercase();
    let found = names.into_iter().filter(|name| name.to_lowercase().contains(&low));
    let mut lines: Vec<Line> = found
        .map(|name| {
            let latest = shelf.beneath(&name).and_then(|task| task.latest()).ok();
            Line { latest: latest.map(|latest| (latest.outcome, latest.completion_time)), name }
        })
        .collect();
    lines.sort_by(|a, b| (order(a), &a.name).cmp(&(order(b), &b.name)));
    let broken = lines.iter().filter(|line| order(line) == 0).count();
    let blind = lines.iter().filter(|line| order(line) == 1).count();
    let body = html! {
        main {
            div class="head top" {
                h1 {
                    (said("Inspections", "巡检"))
                    (aside(told(
                        format!("{} in all, {broken} broken, {blind} that nobody can tell", lines.len()),
                        format!("共 {} 项，{broken} 项故障，{blind} 项情况未知", lines.len()),
                    )))
                }
                (search_form(search, "/"))
            }
            @if lines.is_empty() {
                p class="quiet" { (said("There is none.", "没有巡检。")) }
            } @else {
                table class="list" {
                    thead { tr {
                        th { (said("Task", "任务")) }
                        th { (said("Verdict", "结论")) }
                        th { (said("Last run (UTC)", "最近运行 (UTC)")) }
                        th {}
                    } }
                    tbody { @for line in &lines { (one(line)) } }
                }
            }
        }
    };
    Ok(a_page(page(
        language,
        "Kuration",
        lines.first().and_then(|line| line.latest).map(|(worst, _)| worst),
        html! {},
        body,
    )))
}

fn one(line: &Line) -> Markup {
    let address = format!("/t/{}", line.name);
    let (namespace, task) = line.name.split_once('/').unwrap_or(("", &line.name));
    // The eight signs of the uid tell two tasks of one name apart; a person needs them seldom.
    let (task, uid) = task.rsplit_once('-').unwrap_or((task, ""));
    html! {
        tr {
            td { span class="quiet" { (namespace) " / " } a href=(address) { b { (task) } } " " small class="uid" { (uid) } }
            @match line.latest {
                Some((verdict, at)) => {
                    td class=(class(verdict)) { (sign(verdict)) " " (outcome(verdict)) }
                    td { (at.strftime("%Y-%m-%d %H:%M")) }
                }
                None => { td class="error" { (sign(Outcome::Error)) " " (said("no readable run", "没有可读的运行")) } td { "–" } }
            }
            td class="number" { a href={ (address) "/runs" } { (said("runs", "历史")) } }
        }
    }
}

/// A page of the task whose directory is `shelf` and whose pages are beneath `base`.
pub fn of_task(shelf: &Shelf, base: &str, wanted: &Wanted, language: Language) -> Result<Answer, PageError> {
    let nav = |id: Option<&str>| {
        html! {
            a href="/" { (said("All inspections", "全部巡检")) }
            a href=(base) { (said("Newest", "最新")) }
            a href={ (base) "/runs" } { (said("Runs", "历史")) }
            @if let Some(id) = id {
                a href={ (base) "/run/" (id) "/run.json" } { "JSON" }
                a href={ (base) "/run/" (id) "/junit.xml" } { "JUnit" }
                a href={ (base) "/run/" (id) "/report.json" } { "OpenReports" }
            }
        }
    };
    match wanted {
        Wanted::Overview { .. } => Err(PageError::Nothing),
        Wanted::Report { id } => {
            let history = shelf.history(id.as_deref())?;
            Ok(a_page(report(&Story::of(&history), language, nav(Some(&history.run.id)))))
        }
        Wanted::Runs { search } => Ok(a_page(list(shelf, base, search, language, nav(None)))),
        Wanted::Diff { before, after } => {
            let (before, after) = (by_id(shelf, before)?, by_id(shelf, after)?);
            Ok(a_page(diff(&before, &after, base, language, nav(None))))
        }
        Wanted::File { id, file } => {
            let run = by_id(shelf, id)?;
            let json = |value| Answer { content: Content::Json, body: format!("{value:#}\n") };
            match file.as_str() {
                "run.json" => Ok(json(serde_json::to_value(&run).unwrap_or_default())),
                "report.json" => Ok(json(open_report(&run))),
                "junit.xml" => Ok(Answer { content: Content::Xml, body: junit(&run) }),
                _ => Err(PageError::Nothing),
            }
        }
    }
}

fn by_id(shelf: &Shelf, id: &str) -> Result<Run, PageError> {
    let unknown = || super::ShelfError::Unknown(id.to_owned());
    let entry = shelf.index().into_iter().find(|entry| entry.id == id).ok_or_else(unknown)?;
    Ok(shelf.run(&entry.path)?)
}

fn list(shelf: &Shelf, base: &str, search: &str, language: Language, nav: Markup) -> String {
    let low = search.to_lowercase();
    let matches =
        |entry: &IndexEntry| entry.id.to_lowercase().contains(&low) || entry.outcome.word().contains(&low);
    let found: Vec<IndexEntry> = shelf.index().into_iter().filter(matches).collect();
    let body = html! {
        main {
            div class="head top" {
                h1 { (said("Runs", "历史")) (aside(told(format!("{}", found.len()), format!("{}", found.len())))) }
                (search_form(search, &format!("{base}/runs")))
            }
            form method="get" action={ (base) "/diff" } {
                table class="list" {
                    thead { tr {
                        th { (said("Run", "运行")) }
                        th { (said("Verdict", "结论")) }
                        th { (said("Rules", "规则")) }
                        th class="number" { (said("Took", "耗时")) }
                        th class="number" { button { (said("Compare", "比较")) } }
                    } }
                    tbody {
                        @for (at, entry) in found.iter().take(RUNS).enumerate() {
                            tr {
                                td { a href={ (base) "/run/" (entry.id) } { (entry.start_time.strftime("%Y-%m-%d %H:%M:%S")) } }
                                td class=(class(entry.outcome)) { (sign(entry.outcome)) " " (outcome(entry.outcome)) }
                                td { (tally(&entry.summary)) }
                                td class="number" { (took(entry.duration_millis)) }
                                td class="number" {
                                    input type="radio" name="a" value=(entry.id) aria-label="A" checked[at == 1] required;
                                    " "
                                    input type="radio" name="b" value=(entry.id) aria-label="B" checked[at == 0] required;
                                }
                            }
                        }
                    }
                }
            }
            @if found.len() > RUNS { p class="quiet" { (more(found.len() - RUNS)) } }
        }
    };
    page(language, "Runs", found.first().map(|entry| entry.outcome), nav, body)
}

fn diff(before: &Run, after: &Run, base: &str, language: Language, nav: Markup) -> String {
    let side = |run: &Run| {
        html! {
            a href={ (base) "/run/" (run.id) } { (run.start_time.strftime("%Y-%m-%d %H:%M:%S")) }
            " " span class=(class(run.outcome)) { (sign(run.outcome)) " " (outcome(run.outcome)) }
        }
    };
    let past = |name: &str, node: &Option<String>| {
        before.rules.iter().find(|rule| rule.name == name && rule.node == *node)
    };
    let body = html! {
        main {
            h1 { (said("What is different", "两次运行的差异")) }
            p { (side(before)) " → " (side(after)) }
            section { (difference(&changes(before, after))) }
            section {
                table class="list" {
                    thead { tr {
                        th { (said("Rule", "规则")) }
                        th { (said("Before", "之前")) }
                        th { (said("After", "之后")) }
                        th { (said("Says", "说明")) }
                    } }
                    tbody {
                        @for rule in &after.rules {
                            tr {
                                td { b { (rule.name) } @if let Some(node) = &rule.node { " @ " (node) } }
                                td {
                                    @match past(&rule.name, &rule.node) {
                                        Some(past) => { (sign(past.result)) " " (took(past.duration_millis)) }
                                        None => { "–" }
                                    }
                                }
                                td { (sign(rule.result)) " " (took(rule.duration_millis)) }
                                td class="quiet" { (rule.message) }
                            }
                        }
                    }
                }
            }
        }
    };
    page(language, "Diff", Some(after.outcome), nav, body)
}
