//! What an API server would say to a task: the definition's schema, then the CEL rules in it.

use kuration::inspection::task::crd;
use serde_json::{Map, Value, json};

/// The schema of the version that is stored.
fn schema() -> Value {
    let definition = serde_json::to_value(crd::definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Everything that is wrong with a task, each with its place.
pub fn faults(task: &Value) -> Vec<String> {
    let schema = schema();
    let mut faults = Vec::new();
    for field in ["apiVersion", "kind", "metadata", "spec"] {
        if task[field].is_null() {
            faults.push(format!("{field} is missing"));
        }
    }
    let mut own = task.clone();
    // What every object has stands in no schema of a definition.
    let own = own.as_object_mut().unwrap();
    for field in ["apiVersion", "kind", "metadata"] {
        own.remove(field);
    }
    walk(&Value::Object(own.clone()), &schema, "", &mut faults);
    let said = kube_cel::Validator::new().validate(&schema, task, None);
    faults.extend(said.err().into_iter().flat_map(|errors| errors.into_vec()).map(|error| error.to_string()));
    faults
}

fn matches(text: &str, pattern: &str) -> bool {
    let program = kube_cel::cel::Program::compile("text.matches(pattern)").unwrap();
    let mut context = kube_cel::cel::Context::default();
    context.add_variable_from_value("text", text.to_owned());
    context.add_variable_from_value("pattern", pattern.to_owned());
    matches!(program.execute(&context), Ok(kube_cel::cel::Value::Bool(true)))
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{other} is no type"),
    }
}

/// A structural schema: types, enumerations, bounds, patterns, fields that must be there, and none that it does not know.
fn walk(value: &Value, schema: &Value, at: &str, faults: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    match schema["type"].as_str() {
        Some(kind) if !is_of(value, kind) => {
            faults.push(format!("{at}: {value} is no {kind}"));
            return;
        }
        None if int_or_string && !is_of(value, "integer") && !value.is_string() => {
            faults.push(format!("{at}: {value} is neither an integer nor a string"));
        }
        _ => {}
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        faults.push(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    let bound = |name: &str| schema[name].as_f64();
    let mut beyond = |what: &str, size: f64, least: Option<f64>, most: Option<f64>| {
        if least.is_some_and(|least| size < least) || most.is_some_and(|most| size > most) {
            faults.push(format!("{at}: {what} is {size}, and may be {least:?} to {most:?}"));
        }
    };
    match value {
        Value::Number(number) => {
            beyond("it", number.as_f64().unwrap(), bound("minimum"), bound("maximum"));
        }
        Value::String(text) => {
            let length = text.chars().count() as f64;
            beyond("its length", length, bound("minLength"), bound("maxLength"));
            if schema["pattern"].as_str().is_some_and(|pattern| !matches(text, pattern)) {
                faults.push(format!("{at}: {text:?} does not match {}", schema["pattern"]));
            }
        }
        Value::Array(items) => {
            beyond("its length", items.len() as f64, bound("minItems"), bound("maxItems"));
            for (index, item) in items.iter().enumerate() {
                walk(item, &schema["items"], &format!("{at}[{index}]"), faults);
            }
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            for key in keys.filter_map(Value::as_str) {
                let mut names: Vec<String> = items.iter().map(|item| item[key].to_string()).collect();
                names.sort();
                if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                    faults.push(format!("{at}: two are called {}", twice[0]));
                }
            }
        }
        Value::Object(fields) => {
            beyond("its size", fields.len() as f64, None, bound("maxProperties"));
            of_object(fields, schema, at, faults);
        }
        _ => {}
    }
}

fn of_object(fields: &Map<String, Value>, schema: &Value, at: &str, faults: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            faults.push(format!("{at}.{name} is missing"));
        }
    }
    for (name, value) in fields {
        let at = format!("{at}.{name}");
        let known = &schema["properties"][name];
        let any = &schema["additionalProperties"];
        match (known, any) {
            (Value::Object(_), _) => walk(value, known, &at, faults),
            (_, Value::Object(_)) => walk(value, any, &at, faults),
            (_, Value::Bool(true)) => {}
            _ => faults.push(format!("{at} is no field")),
        }
    }
}

#[test]
fn the_table_of_tasks_is_told_apart_as_the_api_server_does() {
    let cases: Value = serde_json::from_str(include_str!("tasks.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 50, "{}", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let called = if name.contains(' ') { "check" } else { name };
        let mut spec = case["spec"].clone();
        // The API server drops what is null before it looks.
        drop_nulls(&mut spec);
        let task = json!({"apiVersion": "kuration.io/v1", "kind": "InspectionTask",
                          "metadata": {"name": called, "namespace": "default"}, "spec": spec});
        let faults = faults(&task);
        assert_eq!(faults.is_empty(), case["refused"].is_null(), "{name}: {faults:?}");
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
