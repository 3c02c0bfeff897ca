//! The report of one run.

use maud::{Markup, html};

use super::changes::{Change, Changes};
use super::chart::{self, bar, class, line, sign, strip};
use super::finding::{found, severity};
use super::page::page;
use super::since::Since;
use super::story::{Day, Finding, Row, Story, uptime};
use super::words::{Language, Text, length, minute, percent, said, second, told, took};
use crate::inspection::run::{Counts, Detail, Outcome, RuleResult, Run, Trigger};

/// How many subjects are shown at once; the rest is folded away.
pub const SUBJECTS: usize = 8;

/// The report of a run as a whole page.
pub fn report(story: &Story<'_>, language: Language, nav: Markup) -> String {
    let run = story.run;
    let title = format!("{}/{} · {}", run.task.namespace, run.task.name, minute(run.start_time, story.zone));
    let nav = html! { span { (said("Inspection report", "巡检报告")) } (nav) };
    let body = html! {
        main {
            (verdict(story))
            (incomplete(run))
            @if let Some(changes) = &story.changes { (changed(story, changes)) }
            @if !story.findings.is_empty() {
                section {
                    h2 { (said("What is broken", "问题")) (aside(counts(story))) }
                    @for finding in &story.findings { (found(finding, story.zone)) }
                }
            }
            @if !story.unseen.is_empty() {
                section class="unseen" {
                    h2 {
                        (said("What could not be looked at", "无法检查的项目"))
                        (aside(said("neither good nor bad: nobody knows", "既非正常也非异常：情况未知")))
                    }
                    @for finding in &story.unseen { (found(finding, story.zone)) }
                }
            }
            (calendar(story))
            (rules(story))
            (time(story))
            (left_out(story))
        }
        (foot(story))
    };
    page(language, &title, Some(run.outcome), nav, body)
}

/// Something beside a heading.
pub fn aside(text: Text) -> Markup {
    html! { span class="aside" { (text) } }
}

/// An outcome as a word.
pub fn outcome(outcome: Outcome) -> Text {
    match outcome {
        Outcome::Pass => said("pass", "通过"),
        Outcome::Warn => said("warning", "警告"),
        Outcome::Fail => said("fail", "失败"),
        Outcome::Error => said("could not look", "无法检查"),
        Outcome::Skip => said("skipped", "已跳过"),
    }
}

fn verdict(story: &Story<'_>) -> Markup {
    let run = story.run;
    let heading = match run.outcome {
        Outcome::Pass => said("All is well", "一切正常"),
        Outcome::Warn => said("Working, with warnings", "可用，但有警告"),
        Outcome::Fail => said("Something is broken", "存在故障"),
        Outcome::Error => said("Nobody can tell", "无法判断"),
        Outcome::Skip => said("Nothing was looked at", "未执行任何检查"),
    };
    let before = story.previous.map(|before| took(millis(before)));
    let usual = before.map(|before| told(format!("the run before {before}"), format!("上次 {before}")));
    html! {
        section class={ "verdict " (class(run.outcome)) } {
            p class="which" { (run.task.namespace) " / " b { (run.task.name) } " → " (run.target) }
            h1 { (sign(run.outcome)) span { (heading) } }
            p class="lead" { (lead(story)) }
            dl class="facts" {
                (fact(said("Run", "本次运行"), html! {
                    (minute(run.start_time, story.zone))
                    small { (trigger(run)) }
                }))
                (fact(said("Took", "耗时"), html! {
                    (took(millis(run)))
                    @if let Some(usual) = usual { small { (usual) } }
                }))
                (fact(said("Rules", "规则"), html! { (story.rows.len()) small { (tally(&run.summary)) } }))
                (fact(said("Uptime, 30 days", "30 天可用率"), up(story)))
            }
        }
    }
}

fn fact(name: Text, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// The sentence that answers what is broken, and since when.
fn lead(story: &Story<'_>) -> Markup {
    let of = |kind: Outcome| story.findings.iter().filter(move |found| found.rule.result == kind).collect();
    let broken: Vec<&Finding<'_>> = of(Outcome::Fail);
    let warned: Vec<&Finding<'_>> = of(Outcome::Warn);
    let blind: Vec<&Finding<'_>> = story.unseen.iter().collect();
    let since = since(&story.since, story);
    html! {
        @match story.run.outcome {
            Outcome::Pass => { (said("Every rule passed. So it has been ", "所有规则均通过，")) (since) (said(".", "。")) }
            Outcome::Fail => {
                (names(&broken)) (verb(broken.len(), "fails", "fail", "失败"))
                (said(". It has been so ", "，")) (since) (said(".", "。"))
                @if !blind.is_empty() { " " (names(&blind)) (said(" could not be looked at.", "无法检查。")) }
            }
            Outcome::Error => {
                @if blind.is_empty() {
                    (said("Nothing was looked at", "未执行任何检查"))
                } @else {
                    (names(&blind)) (said(" could not be looked at", "无法检查"))
                }
                (said(". It has been so ", "，")) (since) (said(".", "。"))
                @if !blind.is_empty() { " " (said("What was seen is not broken.", "已检查的部分没有故障。")) }
            }
            Outcome::Warn => {
                (names(&warned)) (verb(warned.len(), "warns", "warn", "发出警告"))
                (said(". It has been so ", "，")) (since) (said(".", "。"))
            }
            Outcome::Skip => { (said("No rule of this run said anything.", "本次运行没有任何规则给出结论。")) }
        }
    }
}

fn names(of: &[&Finding<'_>]) -> Markup {
    html! {
        @for (at, finding) in of.iter().take(3).enumerate() {
            @if at > 0 { (said(", ", "、")) }
            b { (finding.name) }
        }
        @if of.len() > 3 { (told(format!(" and {} more", of.len() - 3), format!(" 等 {} 项", of.len()))) }
    }
}

fn verb(count: usize, one: &'static str, many: &'static str, zh: &'static str) -> Text {
    told(format!(" {}", if count == 1 { one } else { many }), zh.to_owned())
}

/// `since 2026-11-21 13:05 (1 h 5 min, 13 runs)`.
fn since(since: &Since, story: &Story<'_>) -> Text {
    if since.runs <= 1 && !since.at_least {
        return said("since this run", "自本次运行起");
    }
    let at = minute(since.start, story.zone);
    let long = length(story.run.start_time.as_second() - since.start.as_second());
    let (older, older_zh) = if since.at_least { ("at least since", "至少自 ") } else { ("since", "自 ") };
    let (runs, runs_zh) = runs(since.runs);
    told(
        format!("{older} {at} ({}, {runs})", long.en),
        format!("{older_zh}{at} 起（{}，{runs_zh}）", long.zh),
    )
}

/// `1 run`, `13 runs`.
pub fn runs(count: u64) -> (String, String) {
    (format!("{count} run{}", if count == 1 { "" } else { "s" }), format!("{count} 次运行"))
}

fn trigger(run: &Run) -> Text {
    match run.trigger {
        Trigger::Schedule => said("on schedule", "定时触发"),
        Trigger::Manual => said("asked for by hand", "手动触发"),
        Trigger::Backfill => said("filled in later", "事后补录"),
    }
}

/// How long a run took, in milliseconds; a clock that went back makes it none.
pub fn millis(run: &Run) -> u64 {
    let length = run.completion_time.as_millisecond() - run.start_time.as_millisecond();
    u64::try_from(length).unwrap_or(0)
}

/// Counts, the worst first.
pub fn tally(counts: &Counts) -> Text {
    let words = [
        (Outcome::Fail, "fail", "失败"),
        (Outcome::Error, "unseen", "无法检查"),
        (Outcome::Warn, "warn", "警告"),
        (Outcome::Pass, "pass", "通过"),
        (Outcome::Skip, "skipped", "跳过"),
    ];
    let there = || words.into_iter().filter(|(of, ..)| counts.of(*of) > 0);
    let en: Vec<String> = there().map(|(of, en, _)| format!("{} {en}", counts.of(of))).collect();
    let zh: Vec<String> = there().map(|(of, _, zh)| format!("{} {zh}", counts.of(of))).collect();
    told(en.join(", "), zh.join("，"))
}

fn up(story: &Story<'_>) -> Markup {
    let (good, looked) = uptime(&story.counts);
    let (en, zh) = runs(looked);
    html! {
        @match percent(good, looked) { Some(share) => (share), None => "–" }
        small { (told(format!("of {en}"), format!("共 {zh}"))) }
    }
}

fn counts(story: &Story<'_>) -> Text {
    let failed = story.findings.iter().filter(|finding| finding.rule.result == Outcome::Fail).count();
    match (failed, story.findings.len() - failed) {
        (0, warned) => told(format!("{warned} with a warning"), format!("{warned} 项警告")),
        (failed, 0) => told(format!("{failed} failed"), format!("{failed} 项失败")),
        (failed, warned) => told(
            format!("{failed} failed, {warned} with a warning"),
            format!("{failed} 项失败，{warned} 项警告"),
        ),
    }
}

/// What is missing from the run as a whole.
fn incomplete(run: &Run) -> Markup {
    let missing = run.shards.as_ref().filter(|shards| !shards.missing.is_empty());
    html! {
        @if run.detail == Detail::SummaryOnly {
            p class="note" {
                (said("The results volume could not be written to when this run was made. This is its summary, filled in later: the details of what it saw are lost.",
                    "本次运行时结果卷无法写入。此处是事后补录的摘要，观测细节已丢失。"))
            }
        }
        @if let Some(shards) = missing {
            p class="note" {
                (told(format!("{} of {} nodes said nothing: ", shards.missing.len(), shards.expected),
                    format!("{} 个节点中有 {} 个没有结果：", shards.expected, shards.missing.len())))
                @for (at, node) in shards.missing.iter().enumerate() { @if at > 0 { ", " } b { (node) } }
            }
        }
    }
}

fn changed(story: &Story<'_>, changes: &Changes) -> Markup {
    let before = story.previous.map(|run| minute(run.start_time, story.zone)).unwrap_or_default();
    html! {
        section {
            h2 {
                (said("What changed", "变化"))
                (aside(told(format!("since the run before, {before}"), format!("与上次运行（{before}）相比"))))
            }
            (difference(changes))
        }
    }
}

/// What is different, in columns: new, gone, not known, still there.
pub fn difference(changes: &Changes) -> Markup {
    if changes.is_empty() && changes.still.is_empty() {
        return html! { p class="quiet" { (said("Nothing.", "没有变化。")) } };
    }
    html! {
        div class="changes" {
            (column("new", "+", said("New", "新增"), &changes.new, &[]))
            (column("gone", "−", said("Gone", "已恢复"), &changes.gone, &[]))
            (column("unknown", "?", said("Not known", "情况未知"), &changes.unknown, &changes.lost))
            (column("still", "=", said("Still there", "仍然存在"), &changes.still, &[]))
            (column("gone", "✓", said("Can be looked at again", "恢复检查"), &[], &changes.regained))
            (column("still", "+", said("Rules added", "新增规则"), &[], &changes.added))
            (column("still", "−", said("Rules removed", "删除规则"), &[], &changes.removed))
        }
    }
}

fn column(class: &str, mark: &str, name: Text, changes: &[Change], rules: &[String]) -> Markup {
    let rest = rules.iter().filter(|rule| !changes.iter().any(|change| change.rule == **rule));
    let rest: Vec<&String> = rest.collect();
    let count = changes.len() + rest.len();
    html! {
        @if count > 0 {
            div class=(class) {
                h3 { i { (mark) } span { (name) " " (count) } }
                ul {
                    @for change in changes.iter().take(SUBJECTS) {
                        li {
                            b { (change.rule) }
                            @if let Some(subject) = &change.subject { " " (subject) }
                            @if let Some(node) = &change.node { " @ " (node) }
                        }
                    }
                    @for rule in rest { li { b { (rule) } } }
                    @if changes.len() > SUBJECTS { li { (more(changes.len() - SUBJECTS)) } }
                }
            }
        }
    }
}

/// `and 7 more`.
pub fn more(count: usize) -> Text {
    told(format!("and {count} more"), format!("另有 {count} 项"))
}

fn calendar(story: &Story<'_>) -> Markup {
    let (good, looked) = uptime(&story.counts);
    let (blind, all) = (story.counts.error, story.counts.total());
    html! {
        section {
            div class="head" {
                h2 {
                    (said("The last 30 days", "最近 30 天"))
                    @if let Some(share) = percent(good, looked) {
                        (aside(told(format!("{share} up"), format!("可用率 {share}"))))
                    }
                    @if blind > 0 {
                        (aside(told(format!("{blind} of {all} runs could not look"),
                            format!("{all} 次运行中有 {blind} 次无法检查"))))
                    }
                }
                (key(&story.days))
            }
            (strip(&story.days, chart::CALENDAR))
            div class="ends" {
                @if let Some(first) = story.days.first() { span { (first.date) } }
                @if let Some(last) = story.days.last() { span { (last.date) } }
            }
        }
    }
}

/// What the colours mean, of those that are there.
fn key(days: &[Day]) -> Markup {
    let kinds = [Outcome::Pass, Outcome::Warn, Outcome::Fail, Outcome::Error, Outcome::Skip];
    let there = |kind: &Outcome| days.iter().any(|day| day.counts.of(*kind) > 0);
    html! {
        div class="key" {
            @for kind in kinds.into_iter().filter(there) {
                span class=(class(kind)) { i {} (outcome(kind)) }
            }
        }
    }
}

fn rules(story: &Story<'_>) -> Markup {
    html! {
        section {
            h2 { (said("Rule by rule", "各项规则")) (aside(said("days in UTC", "按 UTC 日"))) }
            table class="rules" {
                thead {
                    tr {
                        th { (said("Rule", "规则")) }
                        th class="days" { (said("30 days", "30 天")) }
                        th class="number" { (said("Up", "可用率")) }
                        th { (said("Duration: median to p95", "耗时：中位数至 p95")) }
                        th class="number" { (said("Now", "本次")) }
                    }
                }
                tbody { @for row in &story.rows { (rule(row)) } }
            }
        }
    }
}

fn rule(row: &Row<'_>) -> Markup {
    let (good, looked) = uptime(&row.trend.counts);
    let slowest = row.results.iter().map(|rule| rule.duration_millis).max().unwrap_or(0);
    let usual = row.trend.points.iter().map(|point| point.p95).max();
    html! {
        tr {
            td {
                div class="who" {
                    (sign(row.worst))
                    div {
                        span class="name" { (row.name) }
                        small {
                            (row.kind) " · " (severity(row.severity).1)
                            @if row.results.len() > 1 {
                                " · " (told(format!("{} nodes", row.results.len()), format!("{} 个节点", row.results.len())))
                            }
                        }
                    }
                }
            }
            td class="days" { (strip(&row.trend.days, chart::SMALL)) }
            td class="number" { @match percent(good, looked) { Some(share) => (share), None => "–" } }
            td class="time" { @if row.trend.points.is_empty() { "–" } @else { (line(&row.trend)) } }
            td class="number" { (took(slowest)) @if let Some(usual) = usual { small { "p95 ≤ " (took(usual)) } } }
        }
    }
}

/// How many rules are drawn on the time line: with a run on many nodes, the slowest.
const BARS: usize = 64;

fn time(story: &Story<'_>) -> Markup {
    let run = story.run;
    let whole = millis(run).max(1);
    let start = run.start_time.as_millisecond();
    let mut rules: Vec<&RuleResult> = run.rules.iter().filter(|rule| rule.result != Outcome::Skip).collect();
    if rules.len() > BARS {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.duration_millis));
        rules.truncate(BARS);
    }
    let share = |millis: u64| millis.saturating_mul(1_000) / whole;
    html! {
        section {
            h2 {
                (said("How long it took", "耗时"))
                (aside(told(format!("{} in all", took(millis(run))), format!("共 {}", took(millis(run))))))
            }
            table class="took" {
                tbody {
                    @for rule in rules {
                        @let from = u64::try_from(rule.start_time.as_millisecond() - start).unwrap_or(0);
                        tr {
                            td { (at_node(rule)) }
                            td { (bar(share(from), share(rule.duration_millis), rule.result)) }
                            td class="number" {
                                (took(rule.duration_millis))
                                @if rule.attempts > 1 {
                                    (told(format!(", {} attempts", rule.attempts), format!("，{} 次尝试", rule.attempts)))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A rule's name, with its node where it has one.
fn at_node(rule: &RuleResult) -> Markup {
    html! { (rule.name) @if let Some(node) = &rule.node { " @ " (node) } }
}

fn left_out(story: &Story<'_>) -> Markup {
    html! {
        @if story.skipped().next().is_some() {
            section {
                h2 { (said("What was left out", "跳过的规则")) }
                table class="took" {
                    tbody {
                        @for rule in story.skipped() {
                            tr {
                                td { (sign(rule.result)) " " (at_node(rule)) }
                                td class="quiet" { (rule.message) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn foot(story: &Story<'_>) -> Markup {
    let run = story.run;
    let zone = story.zone.iana_name().unwrap_or("UTC");
    let rows: [(Text, Markup); 5] = [
        (said("Run", "运行"), html! { span class="mono" { (run.id) } }),
        (
            said("From, to", "起止"),
            html! {
                (second(run.start_time, story.zone)) " – " (second(run.completion_time, story.zone)) " (" (zone) ")"
            },
        ),
        (
            said("Task", "任务"),
            html! {
                (run.task.namespace) "/" (run.task.name) ", "
                (told(format!("generation {}", run.task.generation), format!("第 {} 版", run.task.generation)))
            },
        ),
        (said("Seen from", "检查位置"), html! { (run.inspector.node) " · " (run.inspector.pod) }),
        (said("By", "程序"), html! { "kuration " (run.inspector.version) }),
    ];
    html! {
        footer {
            dl { @for (name, value) in rows { dt { (name) } dd { (value) } } }
        }
    }
}
