//! Objects as Kubernetes' documentation writes them, made typed.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The image of the cases' pods.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";

/// A document as the object that it is.
pub fn typed<K: DeserializeOwned>(document: Value) -> K {
    let shown = document.to_string();
    serde_json::from_value(document).unwrap_or_else(|error| panic!("{error}: {shown}"))
}

/// Lays `more` over `document`: an object key by key, anything else as a whole, null takes away (RFC 7386).
pub fn lay_over(document: &mut Value, more: Value) {
    match (document, more) {
        (Value::Object(document), Value::Object(more)) => {
            for (key, value) in more {
                if value.is_null() {
                    document.remove(&key);
                } else {
                    lay_over(document.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (document, more) => *document = more,
    }
}

/// A nodeSelector.
pub fn on(node: &str) -> Value {
    json!({ "kubernetes.io/hostname": node })
}

/// An affinity for nodes.
pub fn among(nodes: &[String]) -> Value {
    let term = json!({ "matchExpressions": [
        { "key": "kubernetes.io/hostname", "operator": "In", "values": nodes },
    ]});
    json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } })
}

/// A pod on a node that sleeps, with the volume `data` at /data.
pub fn pod(name: &str, node: &str, volume: Value) -> Value {
    let mut data = json!({ "name": "data" });
    lay_over(&mut data, volume);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeSelector": on(node),
            // Cases of tainted nodes ask for more.
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "restartPolicy": "Always",
            "containers": [{
                "name": "main",
                "image": BUSYBOX,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", "trap exit TERM; while :; do sleep 1000000 & wait $!; done"],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [data],
        },
    })
}

/// The source of a pod's volume: a claim.
pub fn claimed(claim: &str) -> Value {
    json!({ "persistentVolumeClaim": { "claimName": claim } })
}

/// A claim of 64 MiB that any number of nodes may write.
pub fn claim(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": class,
            "resources": { "requests": { "storage": "64Mi" } },
        },
    })
}
