//! What the program makes of what the chart tells it.

use clap::Parser;
use kuration::args::{Args, Command};
use kuration::settings::Settings;
use serde_json::{Value, json};

use super::helm;
use crate::{all_sets, arguments, containers, everything};

/// Whether the program would start with what stands behind its name, as far as flags go.
fn understood(arguments: &[String]) -> Result<(), String> {
    let given: Vec<String> = ["kuration".to_owned()]
        .into_iter()
        .chain(
            arguments
                .iter()
                .map(|argument| argument.replace("$(NODE_NAME)", "n").replace("$(NAMESPACE)", "s")),
        )
        .collect();
    assert!(given.iter().all(|argument| !argument.contains("$(")), "{given:?}");
    let settings = match Args::try_parse_from(&given).map_err(|error| error.to_string())?.command {
        Command::Controller(args) => Settings::controller(args),
        Command::Node(args) => Settings::node(args),
        Command::All(args) => Settings::all(args),
        other => panic!("no driver: {other:?}"),
    };
    settings.map(drop).map_err(|error| error.to_string())
}

/// What the driver's containers are told, by component.
fn told(values: &Value) -> Vec<(String, Vec<String>)> {
    let objects = helm::render(values);
    let drivers = containers(&objects).into_iter().filter(|(_, name, _)| *name == "kuration");
    drivers
        .map(|(component, _, container)| {
            (component.to_owned(), arguments(container).into_iter().map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn the_program_understands_what_the_chart_tells_it() {
    for values in all_sets() {
        for (component, arguments) in told(&values) {
            understood(&arguments).unwrap_or_else(|error| panic!("{component}: {error}"));
        }
    }
}

#[test]
fn what_the_program_would_end_at_is_refused_by_the_chart() {
    let (longest, too_long) = ("a".repeat(63), "a".repeat(64));
    let cases: [(&str, &str, &[&str], &[&str]); 8] = [
        (
            "/installation",
            "installation",
            &["a", "Cluster_1.b-c", &longest],
            &["", "-a", "a.", "a b", &too_long],
        ),
        (
            "/nfs/driverName",
            "driver-name",
            &["ab", "nfs-4.example"],
            &["a", "4nfs.example", "nfs.example4", &too_long],
        ),
        (
            "/nfs/operationTimeout",
            "operation-timeout",
            &["1s", "0h1m30s", "2d"],
            &["0s", "0h", "999ms", "30"],
        ),
        ("/nfs/reapInterval", "reap-interval", &["1s", "1h500ms"], &["0s", "10ms", "1.5h"]),
        ("/nfs/inline/limit", "inline-limit", &["1GiB", "1.5Gi", "010 MB", "4096"], &["0", "0GiB", "much"]),
        (
            "/nfs/allowedServers/0",
            "allow-server",
            &["a", "*.lan", "10.0.0.0/8", "fd00::/8"],
            &["*", "a*", "*.*.lan", ""],
        ),
        ("/pool/image/size", "pool-image", &["10GiB", "0.5TiB"], &["0", "0.0GiB"]),
        ("/pool/overcommit", "overcommit", &["0.1", "0.15", "1", "12.5"], &["0", "0.0", "0.05", "-1"]),
    ];
    let all = everything();
    for (place, flag, good, bad) in cases {
        let with = |text: &str| {
            let mut values = all.clone();
            let outer = place.rsplit_once('/').unwrap();
            if let Some(found) = values.pointer_mut(place) {
                *found = json!(text);
            } else {
                values.pointer_mut(outer.0).unwrap()[outer.1] = json!(text);
            }
            values
        };
        for text in good {
            for (component, arguments) in told(&with(text)) {
                understood(&arguments)
                    .unwrap_or_else(|error| panic!("{place} {text:?}, {component}: {error}"));
            }
        }
        for text in bad {
            let refused = helm::text(&with(text)).expect_err(text);
            assert!(refused.contains(place), "{place} {text:?}: {refused}");
            // The chart is not stricter than it must be: each of these would have ended the program.
            let given = format!("--{flag}={text}");
            let mut ended = told(&all).into_iter().filter_map(|(_, mut arguments)| {
                let at = arguments.iter().position(|argument| argument.starts_with(&format!("--{flag}=")))?;
                arguments[at].clone_from(&given);
                Some(understood(&arguments).is_err())
            });
            assert!(ended.next().is_some_and(|ended| ended), "{given} is understood");
        }
    }
}
