//! Whether an object is one of its kind: every field is one that Kubernetes knows, of the right type.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is wrong with the object, if anything.
pub fn fault(object: &Value) -> Result<(), String> {
    let kind = object["kind"].as_str().ok_or("it has no kind")?;
    let known = match kind {
        "ClusterRole" => known::<ClusterRole>(object),
        "ClusterRoleBinding" => known::<ClusterRoleBinding>(object),
        "ConfigMap" => known::<ConfigMap>(object),
        "CSIDriver" => known::<CSIDriver>(object),
        "DaemonSet" => known::<DaemonSet>(object),
        "Deployment" => known::<Deployment>(object),
        "Namespace" => known::<Namespace>(object),
        "NetworkPolicy" => known::<NetworkPolicy>(object),
        "PersistentVolume" => known::<PersistentVolume>(object),
        "PersistentVolumeClaim" => known::<PersistentVolumeClaim>(object),
        "Pod" => known::<Pod>(object),
        "PodDisruptionBudget" => known::<PodDisruptionBudget>(object),
        "Role" => known::<Role>(object),
        "RoleBinding" => known::<RoleBinding>(object),
        "Service" => known::<Service>(object),
        "ServiceAccount" => known::<ServiceAccount>(object),
        "StatefulSet" => known::<StatefulSet>(object),
        "StorageClass" => known::<StorageClass>(object),
        "ValidatingAdmissionPolicy" => known::<ValidatingAdmissionPolicy>(object),
        "ValidatingAdmissionPolicyBinding" => known::<ValidatingAdmissionPolicyBinding>(object),
        other => return Err(format!("{other}: tests/charts/strict.rs knows no such kind")),
    };
    let known = known.map_err(|error| format!("{kind}: {error}"))?;
    lost(object, &known, kind)
}

/// The object as its type understands it.
fn known<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
}

/// What was there before and is no longer: the type does not know it.
fn lost(before: &Value, after: &Value, at: &str) -> Result<(), String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let at = format!("{at}.{key}");
                match after.get(key) {
                    Some(kept) => lost(value, kept, &at)?,
                    // An empty list or map may go.
                    None if value.as_array().is_some_and(Vec::is_empty) => {}
                    None if value.as_object().is_some_and(serde_json::Map::is_empty) => {}
                    None => return Err(format!("{at} is no field of its")),
                }
            }
            Ok(())
        }
        (Value::Array(before), Value::Array(after)) => before
            .iter()
            .zip(after)
            .enumerate()
            .try_for_each(|(index, (before, after))| lost(before, after, &format!("{at}[{index}]"))),
        _ => Ok(()),
    }
}
