//! What some rules need in the pod besides its runner: a command in an image of its own, and claims to write to.

use serde_json::{Value, json};

use super::super::task::{Kind, Rule};
use super::objects::Defaults;

/// What a pod gets for its rules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aside {
    /// Containers that are done before the others start.
    pub before: Vec<Value>,
    /// Containers beside the runner.
    pub beside: Vec<Value>,
    /// The pod's volumes.
    pub volumes: Vec<Value>,
    /// What the runner sees of them.
    pub mounts: Vec<Value>,
    /// What the runner is told of them.
    pub env: Vec<Value>,
}

/// Where the runner sees what commands said, and the claims of volume probes.
const SAID: &str = "/run/kuration/exec";
const CLAIMS: &str = "/run/kuration/claims";

/// Where a command's container has this program, and its own directory.
const TOOL: &str = "/run/kuration/bin";
const INTO: &str = "/run/kuration/out";

/// Where Kubernetes puts an account's token, unless it is told not to.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What a container may do that is admitted where pods are restricted.
pub fn confined() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
    })
}

/// What these rules need.
pub fn aside(rules: &[Rule], defaults: &Defaults) -> Aside {
    let mut found = Aside::default();
    let mut claims = std::collections::BTreeSet::new();
    for (at, rule) in rules.iter().enumerate() {
        match rule.kind() {
            Some(Kind::Exec(exec)) => {
                let mut command = vec![format!("{TOOL}/kuration"), "exec".to_owned(), "--into".to_owned()];
                command.extend([INTO.to_owned(), "--".to_owned()]);
                command.extend(exec.command.iter().cloned());
                let secrets =
                    exec.env_from.iter().map(|secret| json!({ "secretRef": { "name": secret.name } }));
                found.beside.push(json!({
                    "name": format!("exec-{at}"),
                    "image": exec.image,
                    "command": command,
                    "envFrom": secrets.collect::<Vec<_>>(),
                    "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } },
                    "securityContext": confined(),
                    // Its own directory alone: what others said can't be written over.
                    "volumeMounts": [
                        { "name": "exec-bin", "mountPath": TOOL, "readOnly": true },
                        { "name": "exec", "mountPath": INTO, "subPath": rule.name },
                    ],
                }));
            }
            Some(Kind::VolumeProbe(probe)) => claims.extend(probe.claim_name.iter()),
            _ => {}
        }
    }
    if !found.beside.is_empty() {
        found.before.push(json!({
            "name": "exec",
            "image": defaults.image,
            "imagePullPolicy": defaults.pull_policy,
            "args": ["exec", "--install", TOOL],
            "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } },
            "securityContext": confined(),
            "volumeMounts": [{ "name": "exec-bin", "mountPath": TOOL }],
        }));
        found.env.push(json!({ "name": "KURATION_EXEC", "value": SAID }));
        // The account's token is the runner's alone.
        found.volumes.extend([
            json!({ "name": "exec", "emptyDir": { "sizeLimit": "16Mi" } }),
            json!({ "name": "exec-bin", "emptyDir": { "sizeLimit": "256Mi" } }),
            json!({ "name": "token", "projected": { "sources": [
                { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
            ] } }),
        ]);
        found.mounts.extend([
            json!({ "name": "exec", "mountPath": SAID, "readOnly": true }),
            json!({ "name": "token", "mountPath": TOKEN, "readOnly": true }),
        ]);
    }
    for (at, claim) in claims.iter().enumerate() {
        let volume = format!("claim-{at}");
        found.volumes.push(json!({ "name": volume, "persistentVolumeClaim": { "claimName": claim } }));
        found.mounts.push(json!({ "name": volume, "mountPath": format!("{CLAIMS}/{claim}") }));
    }
    if !claims.is_empty() {
        found.env.push(json!({ "name": "KURATION_CLAIMS", "value": CLAIMS }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: Value) -> Aside {
        let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
        let defaults = Defaults {
            image: "kuration".into(),
            pull_policy: "IfNotPresent".into(),
            class: None,
            size: "1Gi".into(),
            role: "view".into(),
        };
        aside(&rules, &defaults)
    }

    #[test]
    fn rules_that_need_nothing_get_nothing() {
        assert_eq!(of(json!([{"name": "a", "tcp": {"port": 80}}])), Aside::default());
    }

    #[test]
    fn a_command_has_its_own_directory_and_no_token() {
        let exec =
            json!({"image": "busybox", "command": ["sh", "-c", "true"], "envFrom": [{"name": "login"}]});
        let found = of(json!([{"name": "a", "tcp": {"port": 80}}, {"name": "team", "exec": exec}]));
        let [beside] = found.beside.as_slice() else { unreachable!("{found:?}") };
        let command = json!([
            "/run/kuration/bin/kuration",
            "exec",
            "--into",
            "/run/kuration/out",
            "--",
            "sh",
            "-c",
            "true"
        ]);
        assert_eq!((&beside["command"], &beside["securityContext"]), (&command, &confined()));
        assert_eq!(beside["envFrom"], json!([{"secretRef": {"name": "login"}}]));
        assert_eq!(beside["volumeMounts"][1]["subPath"], "team");
        assert!(!beside["volumeMounts"].to_string().contains("token"));
        assert!(found.mounts.iter().any(|mount| mount["mountPath"] == TOKEN));
    }

    #[test]
    fn a_claim_that_several_rules_write_to_is_mounted_once() {
        let probe = json!({"mode": "Write", "claimName": "data"});
        let found = of(json!([{"name": "a", "volumeProbe": probe}, {"name": "b", "volumeProbe": probe}]));
        assert_eq!((found.volumes.len(), found.mounts.len(), found.env.len()), (1, 1, 1));
        assert_eq!(found.mounts[0]["mountPath"], "/run/kuration/claims/data");
    }
}
