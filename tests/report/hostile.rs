//! What an inspected server may answer stands in reports: none of it may run, break the page, or be lost.

use kuration::inspection::report::{Language, Shelf, html, junit};
use kuration::inspection::run::{Outcome, Scalar};
use kuration::inspection::task::Severity;

use crate::fixture;

const CORPUS: &[&str] = &[
    "<script>window.owned=1</script>",
    "\"><script>window.owned=1</script>",
    "'><img src=x onerror=window.owned=1>",
    "<svg/onload=window.owned=1>",
    "</title><script>window.owned=1</script>",
    "</style><script>window.owned=1</script>",
    "<!--><script>window.owned=1</script>-->",
    "<![CDATA[<script>window.owned=1</script>]]>",
    "javascript:window.owned=1",
    "<a href=javascript:window.owned=1>x</a>",
    "<iframe srcdoc='<script>parent.owned=1</script>'>",
    "<meta http-equiv=refresh content='0;url=http://198.51.100.1/'>",
    "<link rel=stylesheet href=http://198.51.100.1/x.css>",
    "<style>*{display:none}</style>",
    "<base href=http://198.51.100.1/>",
    "<form action=http://198.51.100.1/><input name=x>",
    "]]></failure><script xmlns='http://www.w3.org/1999/xhtml'>window.owned=1</script>",
    "\u{202e}gnihton si siht",
    "\u{0}\u{1}\u{1b}[2J\u{7f}\u{fffe}",
    "+ADw-script+AD4-window.owned=1+ADw-/script+AD4-",
    "{{constructor.constructor('window.owned=1')()}}",
    "&lt;script&gt;window.owned=1&lt;/script&gt;",
];

/// A directory whose one run says the whole corpus wherever something can be said.
pub fn volume() -> (tempfile::TempDir, Shelf) {
    let mut rules = Vec::new();
    for (at, text) in CORPUS.iter().enumerate() {
        let mut rule = fixture::rule(&format!("rule-{at} {text}"), text, Severity::High, fixture::end());
        rule.result = [Outcome::Fail, Outcome::Warn, Outcome::Error, Outcome::Skip, Outcome::Pass][at % 5];
        rule.reason = (*text).into();
        rule.message = (*text).into();
        rule.remedy = Some((*text).into());
        rule.node = Some((*text).into());
        rule.observed.insert((*text).into(), Scalar::Text((*text).into()));
        rule.subjects = vec![fixture::subject(text, text, text)];
        rules.push(rule);
    }
    let all = CORPUS.concat();
    let mut run = fixture::run(fixture::task("hostile"), fixture::end(), rules);
    run.target = all.clone();
    run.inspector.pod = all.clone();
    run.inspector.node = all.clone();
    run.inspector.version = all;
    let volume = tempfile::tempdir().unwrap();
    let home = fixture::store(volume.path(), &[run]);
    let shelf = Shelf::open(&home).unwrap();
    (volume, shelf)
}

/// The names of the elements of a page, and of their attributes.
fn elements(html: &str) -> Vec<String> {
    let after_style = html.split("</style>").nth(1).unwrap();
    let tags = after_style.split('<').skip(1).map(|tag| tag.split('>').next().unwrap_or_default());
    tags.map(|tag| {
        let mut plain = String::new();
        let mut quoted = false;
        for c in tag.chars() {
            match c {
                '"' => quoted = !quoted,
                c if !quoted => plain.push(c),
                _ => {}
            }
        }
        plain
    })
    .collect()
}

#[test]
fn whatever_a_server_answers_stays_text() {
    let (_volume, shelf) = volume();
    let page = html(&shelf.history(None).unwrap(), Language::English);
    assert_eq!(page.matches("</style>").count(), 1);
    for tag in elements(&page) {
        let name = tag.trim_start_matches('/').split([' ', '=']).next().unwrap_or_default();
        let known = [
            "a", "article", "b", "body", "circle", "code", "dd", "details", "div", "dl", "dt", "footer", "g",
            "h1", "h2", "h3", "head", "header", "html", "i", "input", "label", "li", "main", "nav", "p",
            "path", "rect", "section", "small", "span", "summary", "svg", "table", "tbody", "td", "th",
            "thead", "title", "tr", "ul",
        ];
        assert!(known.contains(&name), "an element <{tag}> got in");
        let attributes = tag.split(' ').skip(1).filter_map(|attribute| attribute.split('=').next());
        for attribute in attributes {
            assert!(!attribute.starts_with("on") && attribute != "style" && attribute != "src", "<{tag}>");
        }
    }
    // Not lost either: a person must be able to read what the server said.
    assert!(page.contains("&lt;script&gt;window.owned=1&lt;/script&gt;"));
    assert!(page.contains("+ADw-script+AD4-"));
}

#[test]
fn junit_stays_xml_whatever_a_server_answers() {
    let (_volume, shelf) = volume();
    let text = junit(&shelf.history(None).unwrap().run);
    assert!(
        !text.contains("<script")
            && !text.contains("]]>")
            && !text.contains('\u{0}')
            && !text.contains('\u{1b}')
    );
    assert_eq!(text.matches("<testcase ").count(), CORPUS.len());
    assert_eq!(text.matches("<failure ").count(), text.matches("</failure>").count());
}
