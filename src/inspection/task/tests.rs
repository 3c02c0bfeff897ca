//! Which tasks the CEL rules of the definition take, and which they refuse: the table that the API server is tested with too.

use serde_json::json;

use super::InspectionTask;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    spec: serde_json::Value,
    #[serde(default)]
    by: String,
    refused: Option<String>,
}

fn task(case: &Case) -> InspectionTask {
    let name = if case.name.contains(' ') { "check" } else { &case.name };
    let object = json!({
        "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
        "metadata": { "name": name, "namespace": "default" }, "spec": case.spec,
    });
    serde_json::from_value(object).unwrap_or_else(|error| panic!("{}: {error}", case.name))
}

#[test]
fn the_definition_takes_what_is_right_and_refuses_what_is_wrong() {
    let table = include_str!("../../../tests/inspection/tasks.json");
    let cases: Vec<Case> = serde_json::from_str(table).unwrap();
    // What the schema refuses has no CEL rule; the API server is asked about it by tests/inspection_cluster.rs.
    let cases: Vec<Case> = cases.into_iter().filter(|case| case.by != "schema").collect();
    assert!(cases.len() > 35, "{}", cases.len());
    for case in &cases {
        let said = task(case).validate_cel().map_err(|errors| errors.to_string());
        match (&case.refused, said) {
            (None, Ok(())) => {}
            (Some(word), Err(errors)) if errors.contains(word.as_str()) => {}
            (_, said) => panic!("{}: {said:?}", case.name),
        }
    }
}

#[test]
fn the_template_of_a_claim_can_not_be_changed() {
    let with = |size: &str| {
        let mut task = task(&Case {
            name: "check".into(),
            by: String::new(),
            refused: None,
            spec: json!({ "schedule": "@daily", "target": "a" }),
        });
        task.spec.results = serde_json::from_value(json!({
            "volumeClaimTemplate": { "resources": { "requests": { "storage": size } } },
        }))
        .unwrap();
        task
    };
    assert!(with("1Gi").validate_cel_update(&with("1Gi")).is_ok());
    let refused = with("2Gi").validate_cel_update(&with("1Gi")).unwrap_err().to_string();
    assert!(refused.contains("immutable"), "{refused}");
}

#[test]
fn a_task_that_says_little_has_its_defaults() {
    let task: InspectionTask = serde_json::from_value(json!({
        "apiVersion": "kuration.io/v1", "kind": "InspectionTask", "metadata": {},
        "spec": { "schedule": "*/5 * * * *", "target": "mysql-service" },
    }))
    .unwrap();
    assert_eq!((task.spec.time_zone.as_str(), task.spec.account()), ("UTC", "kuration-inspector"));
    assert!(task.spec.rules.is_none() && !task.spec.suspend && !task.spec.every_node());
}
