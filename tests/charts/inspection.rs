//! The chart of the inspection controller.

use serde_json::{Value, json};

use super::helm;

const CHART: &str = "charts/kuration-server-controller";

fn render(values: &Value) -> Vec<Value> {
    helm::other(CHART, &["monitoring.coreos.com/v1"], values).unwrap_or_else(|error| panic!("{error}"))
}

fn of<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The rules of a role that speak of `resource`.
fn rules<'a>(role: &'a Value, resource: &str) -> Vec<&'a Value> {
    let speaks = |rule: &&Value| rule["resources"].as_array().unwrap().iter().any(|word| word == resource);
    role["rules"].as_array().unwrap().iter().filter(speaks).collect()
}

#[test]
fn without_values_nothing_is_made_that_a_cluster_may_not_know() {
    let objects = helm::other(CHART, &[], &json!({})).unwrap();
    let groups: Vec<&str> = objects.iter().filter_map(|object| object["apiVersion"].as_str()).collect();
    assert!(groups.iter().all(|group| !group.starts_with("monitoring.coreos.com")), "{groups:?}");
    let said = helm::other(CHART, &[], &json!({"metrics": {"alerts": {"enabled": true}}})).unwrap_err();
    assert!(said.contains("install the operator first"), "{said}");
}

#[test]
fn prometheus_gets_the_alert_rules_and_the_tasks_own_namespaces() {
    let objects = render(&json!({"metrics": {
        "serviceMonitor": {"enabled": true, "interval": "15s", "labels": {"release": "prometheus"}},
        "alerts": {"enabled": true}, "dashboard": {"enabled": true},
    }}));
    let monitor = of(&objects, "ServiceMonitor", "kuration-inspector-controller");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    // Else the label `namespace` of a task would become `exported_namespace`.
    assert_eq!(monitor["spec"]["endpoints"][0]["honorLabels"], true);
    assert_eq!(monitor["spec"]["endpoints"][0]["interval"], "15s");
    let service = of(&objects, "Service", "kuration-inspector-controller");
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(service["metadata"]["labels"][name], *value);
    }
    let alerts =
        &of(&objects, "PrometheusRule", "kuration-inspector-controller")["spec"]["groups"][0]["rules"];
    assert_eq!(alerts.as_array().unwrap().len(), 5);
    let board = of(&objects, "ConfigMap", "kuration-inspector-dashboard");
    assert_eq!(board["metadata"]["labels"]["grafana_dashboard"], "1");
    let board: Value =
        serde_json::from_str(board["data"]["kuration-inspection.json"].as_str().unwrap()).unwrap();
    assert!(board["panels"].as_array().unwrap().len() > 10);
}

#[test]
fn the_controller_reads_no_secrets_but_those_that_are_named() {
    let role = |values: &Value| {
        let objects = render(values);
        of(&objects, "ClusterRole", "kuration-inspector-controller").clone()
    };
    let usual = role(&json!({}));
    let secrets = rules(&usual, "secrets");
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0]["resourceNames"], json!(["kuration-notifications"]));
    assert_eq!(secrets[0]["verbs"], json!(["get"]));
    assert!(rules(&role(&json!({"notifications": {"secretNames": []}})), "secrets").is_empty());
    for watched in [
        "cronjobs",
        "jobs",
        "pods",
        "configmaps",
        "persistentvolumeclaims",
        "nodes",
        "storageclasses",
        "inspectiontasks",
    ] {
        let rule = rules(&usual, watched)[0];
        for verb in ["list", "watch"] {
            assert!(rule["verbs"].as_array().unwrap().iter().any(|word| word == verb), "{verb} {watched}");
        }
    }
}

#[test]
fn pages_may_ask_who_may_see_what_and_nothing_else() {
    let usual = render(&json!({}));
    assert!(usual.iter().all(|object| object["metadata"]["name"] != "kuration-inspection-report"));
    let objects = render(&json!({"report": {"namespaces": ["shop", {"name": "bank", "claimName": "kept"}]}}));
    let role = of(&objects, "ClusterRole", "kuration-inspection-report");
    assert_eq!(
        role["rules"],
        json!([
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
        ])
    );
    let binding = of(&objects, "ClusterRoleBinding", "kuration-inspection-report");
    let places: Vec<&str> =
        binding["subjects"].as_array().unwrap().iter().filter_map(|of| of["namespace"].as_str()).collect();
    assert_eq!(places, ["shop", "bank"]);
    let claims: Vec<(&str, &str)> = objects
        .iter()
        .filter(|object| {
            object["kind"] == "Deployment" && object["metadata"]["name"] == "kuration-inspection-report"
        })
        .map(|object| {
            let pod = &object["spec"]["template"]["spec"];
            assert_eq!(pod["containers"][0]["volumeMounts"][0]["readOnly"], true);
            let claim = &pod["volumes"][0]["persistentVolumeClaim"]["claimName"];
            (object["metadata"]["namespace"].as_str().unwrap(), claim.as_str().unwrap())
        })
        .collect();
    assert_eq!(claims.len(), 2);
    assert!(
        claims.contains(&("shop", "kuration-inspection-results")) && claims.contains(&("bank", "kept")),
        "{claims:?}"
    );
}
