//! The functions that expressions may call: those in the documentation are those of the program, and each does what its name says.

use std::collections::BTreeSet;

use kuration::inspection::rules::cel::{Expression, Scope, theirs};

use super::expressions::{NOW, OBJECT, SAID, Said, USES};

/// What the parser itself makes of these.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

/// What the CEL specification has and the library behind the program does not: it is refused by name.
const NOT_THERE: [(&str, &str); 1] = [("type", "type(1) == int")];

/// The functions that the documentation lists.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/inspection-rules.md");
    let list = page.split("### Functions\n").nth(1).unwrap().split("\n\n").nth(1).unwrap();
    assert!(list.starts_with("- macros:"), "{list}");
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_functions_in_the_documentation_are_those_of_the_program() {
    let program = include_str!("../../src/inspection/rules/cel.rs");
    let list = program.split("const FUNCTIONS: &str = \"").nth(1).unwrap().split("\";").next().unwrap();
    let known = list.split([' ', '\n', '\\']).filter(|word| !word.is_empty());
    let known: BTreeSet<String> = known.chain(MACROS).map(str::to_owned).collect();
    assert!(known.len() > 100, "{}", known.len());
    assert_eq!(documented(), known);
    for (name, expr) in NOT_THERE {
        let refused = Expression::compile(expr).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|error| error.contains(&format!("calls {name}()"))), "{name}");
    }
}

#[test]
fn each_function_evaluates() {
    let used: BTreeSet<String> = USES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!((used.len(), &used), (USES.len(), &documented()));
    let scope = Scope::new(NOW.parse().unwrap());
    let mut wrong = Vec::new();
    for (name, expr) in USES {
        assert!(expr.contains(name.rsplit('.').next().unwrap()), "{expr} does not use {name}");
        let said =
            Expression::compile(expr).map_err(|error| error.to_string()).and_then(|it| it.holds(&scope));
        if said != Ok(true) {
            wrong.push(format!("{name}: {expr}: {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn whole_numbers_and_fractions_compare_as_numbers() {
    let scope = Scope::new(NOW.parse().unwrap());
    for expr in ["30 < 30.5", "29.5 < 30", "!(31 < 30.5)", "30 == 30.0", "30 != 30.5", "!(30 != 30.0)"] {
        assert_eq!(Expression::compile(expr).unwrap().holds(&scope), Ok(true), "{expr}");
    }
}

/// What the program says otherwise, and docs/limitations.md tells.
const OTHERWISE: &[(&str, Said)] = &[
    // It has no checker of types: what an API server refuses unseen is evaluated.
    ("30 == 30.0", Said::True),
    ("1.0 in [1, 2]", Said::True),
    ("[1] == [1.0]", Said::True),
    ("1 == 1u", Said::True),
    ("[1, 1.0].distinct().size() == 2", Said::False),
    ("[[1, [2]], [3]].flatten() == [1, [2], 3]", Said::True),
    // An error where there is an answer: never the other way round.
    ("[0, 1].exists(x, 1 / x == 1)", Said::Error),
    ("[0, 1].all(x, 1 / x == 2)", Said::Error),
    ("[1, 2].all(i, v, v == i + 1)", Said::Error),
    ("[1, 2].exists(i, v, v == 9)", Said::Error),
    ("{'a': 1}.transformList(k, v, v) == [1]", Said::Error),
    ("[duration('1h'), duration('2h')].sum() == duration('3h')", Said::Error),
    ("type(1) == int", Said::Error),
    ("!!true", Said::Error),
    ("--2 == 2", Said::Error),
    // More than there is.
    ("'abc'.reverse() == 'cba'", Said::True),
    ("quantity('-1').sign() == -1", Said::True),
    // Written or read otherwise.
    ("'%s'.format([2.0]) == '2.0'", Said::True),
    ("'%s'.format([2.0]) == '2'", Said::False),
    ("'%e'.format([1234.5]) == '1.234500e+03'", Said::True),
    ("'%s'.format([timestamp('2026-09-01T00:00:00Z')]) == '2026-09-01T00:00:00Z'", Said::False),
    ("'%s'.format([duration('1h')]) == '3600s'", Said::False),
    ("'abc'.split('') == ['a', 'b', 'c']", Said::False),
    ("semver('1.2.3+build') == semver('1.2.3')", Said::False),
    ("isCIDR('10.0.0.0/08')", Said::True),
    ("isURL('https://a.example:99999/')", Said::False),
    ("url('https://a.example').getEscapedPath() == ''", Said::False),
    ("timestamp('2026-09-02 03:04:05Z') == timestamp('2026-09-02T03:04:05Z')", Said::True),
];

/// What the program says.
fn said(expr: &str) -> (Said, String) {
    let scope = Scope::new(NOW.parse().unwrap());
    let object = theirs(&serde_json::from_str(OBJECT).unwrap());
    let compiled = Expression::compile(expr).map_err(|error| error.to_string());
    match compiled.and_then(|it| it.holds_for(&scope, &object)) {
        Ok(true) => (Said::True, String::new()),
        Ok(false) => (Said::False, String::new()),
        Err(why) => (Said::Error, why),
    }
}

#[test]
fn expressions_come_out_as_they_do_in_an_api_server() {
    let mut wrong = Vec::new();
    for (expr, theirs) in SAID {
        let otherwise = OTHERWISE.iter().find(|(other, _)| other == expr).map(|(_, ours)| ours);
        let (ours, why) = said(expr);
        if ours != *otherwise.unwrap_or(theirs) || otherwise == Some(theirs) {
            wrong.push(format!("{expr}: {ours:?}, not {theirs:?} ({otherwise:?}): {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
    let asked = |expr: &str| SAID.iter().any(|(asked, _)| *asked == expr);
    assert!(OTHERWISE.iter().all(|(expr, _)| asked(expr)), "nobody has asked an API server");
}
