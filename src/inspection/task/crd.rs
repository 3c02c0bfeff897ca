//! The CustomResourceDefinition, as the chart ships it and `kuration crd` prints it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::super::run::{RUN_SCHEMA, Run};
use super::InspectionTask;

/// The release that owns the definition where it was applied before Helm came: `helm install kuration-crd` takes it over
/// because these stand in it. A release of another name or namespace needs `--take-ownership`.
const RELEASE: [(&str, &str); 3] = [
    // Deleting the release would delete every task with it.
    ("helm.sh/resource-policy", "keep"),
    ("meta.helm.sh/release-name", "kuration-crd"),
    ("meta.helm.sh/release-namespace", "default"),
];

const LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/managed-by", "Helm"), ("app.kubernetes.io/part-of", "kuration")];

const HEAD: &str = "# InspectionTask. Made by: kuration crd
#
# kubectl apply -f of this file and helm install kuration-crd can come in any order: the release's name and namespace stand in
# its annotations. A release of another name, or outside the namespace default, needs helm install --take-ownership.
";

/// The definition.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = InspectionTask::crd();
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    crd.metadata.annotations = Some(pairs(&RELEASE));
    crd.metadata.labels = Some(pairs(&LABELS));
    crd
}

/// The definition as a YAML file.
pub fn yaml() -> Result<String, serde_saphyr::ser_error::Error> {
    let mut value = serde_json::to_value(definition()).unwrap_or_default();
    tidy(&mut value);
    Ok(format!("{HEAD}{}", serde_saphyr::to_string(&value)?))
}

/// What is left out is absent: no field is nullable. And no number has a format that the API server doesn't know.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            if map
                .get("format")
                .is_some_and(|format| format.as_str().is_some_and(|format| format.starts_with("uint")))
            {
                map.remove("format");
            }
            if let Some(Value::String(about)) = map.get_mut("description") {
                // A line's end in a comment means nothing to a reader of the definition; and what a quantity is needs no page.
                *about = match about.strip_prefix("Quantity is a fixed-point") {
                    Some(_) => "A quantity, such as 100m or 64Mi.".to_owned(),
                    None => about.replace('\n', " "),
                };
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// The JSON Schema (2020-12) of a `run.json`.
pub fn run_schema() -> String {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Run>();
    schema.insert("$id".into(), format!("https://{RUN_SCHEMA}").into());
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
