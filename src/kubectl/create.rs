//! `kubectl create inspectiontask`.

use kube::api::PostParams;
use serde_json::{Value, json};

use super::show::document;
use super::{KubectlError, Place};
use crate::args::{CreateArgs, Output};
use crate::inspection::task::InspectionTask;

/// The task, with nothing in it but what was said: the API server writes the defaults.
fn task(asked: &CreateArgs, namespace: &str) -> Value {
    let mut spec = json!({"schedule": asked.schedule, "target": asked.target});
    if let Some(held) = spec.as_object_mut() {
        let said = [("timeZone", &asked.time_zone), ("serviceAccountName", &asked.service_account)];
        for (name, value) in said {
            if let Some(value) = value {
                held.insert(name.to_owned(), json!(value));
            }
        }
        if asked.suspend {
            held.insert("suspend".to_owned(), json!(true));
        }
    }
    json!({
        "apiVersion": "kuration.io/v1",
        "kind": "InspectionTask",
        "metadata": {"name": asked.name, "namespace": namespace},
        "spec": spec,
    })
}

/// What would be created, as YAML unless JSON is asked for.
pub fn preview(asked: &CreateArgs, namespace: &str) -> Result<String, KubectlError> {
    let output = if asked.output == Output::Json { Output::Json } else { Output::Yaml };
    Ok(document(&task(asked, namespace), output)?.unwrap_or_default())
}

/// Creates it.
pub async fn create(place: &Place, asked: &CreateArgs) -> Result<String, KubectlError> {
    let task: InspectionTask = serde_json::from_value(task(asked, &place.namespace))
        .map_err(|error| KubectlError::Form(error.to_string()))?;
    let made = place.tasks().create(&PostParams::default(), &task).await?;
    let said = format!("inspectiontask.kuration.io/{} created\n", asked.name);
    Ok(document(&made, asked.output)?.unwrap_or(said))
}
