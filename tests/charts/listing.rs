//! What a chart makes, in forms that are committed and read by people.

use serde_json::Value;

/// The rights that the roles among `objects` give, a line for each rule.
pub fn rights(objects: &[Value]) -> String {
    let mut text = String::new();
    for kind in ["ClusterRole", "Role"] {
        for role in objects.iter().filter(|object| object["kind"] == kind) {
            let place = role["metadata"]["namespace"]
                .as_str()
                .map_or("everywhere".into(), |namespace| format!("in {namespace}"));
            text += &format!("{kind} {} {place}\n", role["metadata"]["name"].as_str().expect("a name"));
            for rule in role["rules"].as_array().into_iter().flatten() {
                let words = |field: &str| {
                    let all: Vec<&str> =
                        rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    all.join(" ")
                };
                let named = if rule["resourceNames"].is_array() {
                    format!(" named {}", words("resourceNames"))
                } else {
                    String::new()
                };
                let group = words("apiGroups");
                let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                text += &format!("  {}{group}{named}: {}\n", words("resources"), words("verbs"));
            }
        }
    }
    text
}

/// What Helm made of `chart`, for kubectl: without what says that Helm manages it, which would be untrue.
pub fn plain(chart: &str, rendered: &str) -> String {
    let helm_only = ["helm.sh/chart:", "app.kubernetes.io/managed-by:", "# Source:"];
    let lines = rendered.lines().filter(|line| !helm_only.iter().any(|words| line.contains(words)));
    let head = format!("# Made of {chart} by UPDATE_GOLDEN=1 cargo test --test charts; do not edit.\n");
    [head.as_str()].into_iter().chain(lines.flat_map(|line| [line, "\n"])).collect()
}
