//! What the pods of every run have from the controller's own installation, whatever their task says.

use k8s_openapi::api::core::v1::LocalObjectReference;
use serde_json::{Value, json};

/// What the pods of every run have.
#[derive(Debug, Clone, Default)]
pub struct RunPods {
    /// Names of Secrets to pull images with, each of the task's own namespace. A kubelet passes over one that is not there.
    pub pull_secrets: Vec<String>,
    /// Environment variables that say how much the program logs.
    pub log: Vec<(String, String)>,
}

impl RunPods {
    /// The Secrets to pull images with: the task's own, and these; None where there is none.
    pub fn pull_secrets(&self, own: Option<Vec<LocalObjectReference>>) -> Option<Value> {
        let mut names: Vec<String> = own.into_iter().flatten().map(|secret| secret.name).collect();
        let more: Vec<String> =
            self.pull_secrets.iter().filter(|name| !names.contains(name)).cloned().collect();
        names.extend(more);
        let references: Vec<Value> = names.into_iter().map(|name| json!({ "name": name })).collect();
        (!references.is_empty()).then(|| references.into())
    }

    /// The environment of the run's container.
    pub fn env(&self) -> Vec<Value> {
        self.log.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Defaults, desired};
    use super::*;
    use crate::inspection::task::InspectionTask;

    fn pod(pods: &RunPods, template: Value) -> Value {
        let task: InspectionTask = serde_json::from_value(json!({
            "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": { "name": "check", "namespace": "shop", "uid": "u" },
            "spec": { "schedule": "@daily", "target": "mysql", "podTemplate": template },
        }))
        .unwrap();
        let defaults = Defaults {
            image: "kuration".into(),
            pull_policy: "IfNotPresent".into(),
            class: None,
            size: "1Gi".into(),
            role: "view".into(),
        };
        let desired = desired(&task, &defaults, pods, None, "2026-09-01T00:00:00Z".parse().unwrap()).unwrap();
        desired.cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"].clone()
    }

    #[test]
    fn images_are_pulled_with_the_installations_secrets_beside_the_tasks_own() {
        let pods = RunPods { pull_secrets: vec!["mirror".into(), "both".into()], ..RunPods::default() };
        let own = json!({ "imagePullSecrets": [{ "name": "own" }, { "name": "both" }] });
        let wanted = json!([{ "name": "own" }, { "name": "both" }, { "name": "mirror" }]);
        assert_eq!(pod(&pods, own)["imagePullSecrets"], wanted);
        assert_eq!(
            pod(&pods, json!({}))["imagePullSecrets"],
            json!([{ "name": "mirror" }, { "name": "both" }])
        );
        assert!(pod(&RunPods::default(), json!({})).get("imagePullSecrets").is_none());
    }

    #[test]
    fn a_run_logs_as_much_as_the_controller() {
        let pods = RunPods { log: vec![("KURATION_V".into(), "4".into())], ..RunPods::default() };
        let env = pod(&pods, json!({}))["containers"][0]["env"].clone();
        assert!(env.as_array().unwrap().contains(&json!({ "name": "KURATION_V", "value": "4" })), "{env}");
    }
}
