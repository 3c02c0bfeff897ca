//! A run on every node: which nodes are meant, and what of its Job follows from them.

use k8s_openapi::api::core::v1::{Node, Toleration};
use serde_json::{Value, json};

use super::super::task::InspectionTaskSpec;

/// Names of nodes are given to the pods, so that they can name those from which nothing was heard, unless these are so many
/// bytes: a process takes no longer variable than 128 KiB, and an object no more than 1.5 MiB.
const MOST_NAMES: usize = 32 << 10;

/// Where the pods find these names.
pub const NODES: &str = "KURATION_NODES";

/// The names of the nodes that a task means, sorted. One that is down or cordoned is meant: that it can't be inspected is
/// something to say. One with a taint that its pods don't tolerate is not.
pub fn meant(spec: &InspectionTaskSpec, nodes: &[Node]) -> Vec<String> {
    let all = spec.fan_out.as_ref().is_some_and(|fan_out| fan_out.tolerate_all_taints);
    let more = spec.pod_template.as_ref().and_then(|more| more.tolerations.clone()).unwrap_or_default();
    let kept_away = |node: &Node| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let mut hard = taints.filter(|taint| taint.effect != "PreferNoSchedule");
        hard.any(|taint| {
            let passing = taint.key.starts_with("node.kubernetes.io/");
            !passing
                && !more
                    .iter()
                    .any(|tolerated| tolerates(tolerated, &taint.key, taint.value.as_deref(), &taint.effect))
        })
    };
    let meant = nodes.iter().filter(|node| all || !kept_away(node));
    let mut names: Vec<String> = meant.filter_map(|node| node.metadata.name.clone()).collect();
    names.sort();
    names
}

fn tolerates(tolerated: &Toleration, key: &str, value: Option<&str>, effect: &str) -> bool {
    let exists = tolerated.operator.as_deref() == Some("Exists");
    tolerated.key.as_deref().map_or(exists, |tolerated| tolerated == key)
        && (exists || tolerated.value.as_deref().unwrap_or_default() == value.unwrap_or_default())
        && tolerated.effect.as_deref().is_none_or(|tolerated| tolerated.is_empty() || tolerated == effect)
}

/// Makes a Job's specification one for these nodes: a pod for each.
pub fn spread(job: &mut Value, nodes: &[String]) {
    let count = nodes.len().max(1);
    job["completions"] = count.into();
    job["parallelism"] = count.into();
    let names = nodes.join(",");
    let env = job.pointer_mut("/template/spec/containers/0/env").and_then(Value::as_array_mut);
    if let Some(env) = env {
        env.push(json!({ "name": "KURATION_SHARDS", "value": count.to_string() }));
        if names.len() <= MOST_NAMES && !nodes.is_empty() {
            env.push(json!({ "name": NODES, "value": names }));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn node(name: &str, taint: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": { "taints": [taint] } }))
            .unwrap()
    }

    fn spec(fan_out: Value, pod: Value) -> InspectionTaskSpec {
        let text =
            json!({ "schedule": "* * * * *", "target": "node/*", "fanOut": fan_out, "podTemplate": pod });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_node_that_is_down_is_meant_and_one_that_wants_no_pods_is_not() {
        let nodes = [
            node("down", json!({ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" })),
            node("cordoned", json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" })),
            node("soft", json!({ "key": "a", "effect": "PreferNoSchedule" })),
            node("gpu", json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" })),
        ];
        let few = ["cordoned", "down", "soft"];
        let all = ["cordoned", "down", "gpu", "soft"];
        assert_eq!(meant(&spec(json!({}), json!({})), &nodes), few);
        assert_eq!(meant(&spec(json!({ "tolerateAllTaints": true }), json!({})), &nodes), all);
        let tolerates = |toleration: Value| json!({ "tolerations": [toleration] });
        for toleration in [
            json!({ "operator": "Exists" }),
            json!({ "key": "gpu", "operator": "Exists" }),
            json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" }),
        ] {
            assert_eq!(meant(&spec(json!({}), tolerates(toleration)), &nodes), all);
        }
        for toleration in
            [json!({ "key": "gpu" }), json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" })]
        {
            assert_eq!(meant(&spec(json!({}), tolerates(toleration)), &nodes), few);
        }
    }
}
