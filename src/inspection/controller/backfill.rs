//! What runs without their volume said is kept in a ConfigMap, for the next run that has one to write down.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::super::intent::objects::{backfill_name, owner};
use super::super::intent::{Ended, FIELD_MANAGER, TASK_LABEL};
use super::super::task::InspectionTask;

/// So many runs are kept, of at most 4 KiB each: far below what a ConfigMap may hold.
const MOST: usize = 60;

/// Puts in what could not be written, and takes out what was since.
pub async fn keep(maps: &Api<ConfigMap>, task: &InspectionTask, ended: &[Ended]) -> Result<(), kube::Error> {
    let written: Vec<&String> =
        ended.iter().filter_map(|run| run.said.as_ref()).flat_map(|said| &said.backfilled).collect();
    let lost: Vec<_> = ended
        .iter()
        .filter_map(|run| run.said.as_ref())
        .filter(|said| !said.persisted.ok)
        .map(|said| (format!("{}.json", said.id), said.clone().fitted()))
        .collect();
    if written.is_empty() && lost.is_empty() {
        return Ok(());
    }
    let Some(task_name) = task.metadata.name.as_deref() else { return Ok(()) };
    let name = backfill_name(task_name);
    let found = maps.get_opt(&name).await?.and_then(|map| map.data).unwrap_or_default();
    let mut data: BTreeMap<String, String> = found.clone();
    for id in written {
        data.remove(&format!("{id}.json"));
    }
    data.extend(lost);
    // Ids begin with their time: the oldest come first.
    while data.len() > MOST {
        data.pop_first();
    }
    if data == found {
        return Ok(());
    }
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": task.metadata.namespace,
            "labels": { "app.kubernetes.io/managed-by": "kuration-inspector", TASK_LABEL: task_name },
            "ownerReferences": owner(task),
        },
        "data": data,
    });
    maps.patch(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&map)).await?;
    Ok(())
}
