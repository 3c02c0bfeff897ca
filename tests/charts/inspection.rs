//! The chart of the inspection controller, and that of the definition.

use std::fs;

use clap::Parser;
use kuration::args::Args;
use serde_json::{Value, json};

use super::helm::{self, Chart};
use super::{listing, strict, table};
use crate::{arguments, containers, golden, list, pods};

mod refusals;

const PATH: &str = "charts/kuration-server-controller";
/// In a cluster without anything of others'.
const BARE: Chart = Chart { path: PATH, groups: &[] };
/// In one that has the Prometheus operator.
const CHART: Chart = Chart { path: PATH, groups: &["monitoring.coreos.com/v1"] };
const DEFINITION: Chart = Chart { path: "charts/kuration-server-crd", groups: &[] };

/// Where the plain manifests put the controller.
const NAMESPACE: &str = "kuration-inspection";

fn render(values: &Value) -> Vec<Value> {
    CHART.render(values)
}

/// Everything switched on.
fn everything() -> Value {
    json!({
        "imagePullSecrets": [{"name": "registry"}],
        "logLevel": 5,
        "commonLabels": {"team": "all"},
        "replicas": 2,
        "results": {"storageClassName": "nfs", "size": "5Gi"},
        "notifications": {"secretNames": ["duty", "kuration-notifications"]},
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "extraArgs": ["--log-format=json"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "metrics": {
            "serviceAnnotations": {"prometheus.io/scrape": "true"},
            "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
            "alerts": {"enabled": true}, "dashboard": {"enabled": true},
        },
        "networkPolicy": {"enabled": true, "from": [{"namespaceSelector": {}}]},
        "report": {"namespaces": ["shop", {"name": "bank", "claimName": "kept"}]},
    })
}

fn all_sets() -> [Value; 3] {
    let little = json!({"admissionPolicy": false, "notifications": {"secretNames": []}, "networkPolicy": {"enabled": true}});
    [json!({}), little, everything()]
}

fn read(path: &str) -> String {
    fs::read_to_string(helm::in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
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
    let objects = BARE.render(&json!({}));
    let groups: Vec<&str> = objects.iter().filter_map(|object| object["apiVersion"].as_str()).collect();
    assert!(groups.iter().all(|group| !group.starts_with("monitoring.coreos.com")), "{groups:?}");
    let said = BARE.text(&json!({"metrics": {"alerts": {"enabled": true}}})).unwrap_err();
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
            let args = pod["containers"][0]["args"].as_array().unwrap();
            assert!(args.contains(&json!("--listen=[::]:8080")), "of both families: {args:?}");
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

#[test]
fn the_secrets_that_images_are_pulled_with_reach_the_pods_of_runs() {
    let given = |values: Value| -> Option<String> {
        let objects = render(&values);
        let controller = of(&objects, "Deployment", "kuration-inspector-controller");
        let env = controller["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
        let found = env.iter().find(|variable| variable["name"] == "KURATION_IMAGE_PULL_SECRET");
        found.map(|variable| variable["value"].as_str().unwrap().to_owned())
    };
    let secrets = json!({"imagePullSecrets": [{"name": "mirror"}, {"name": "registry"}]});
    assert_eq!(given(secrets).as_deref(), Some("mirror,registry"));
    assert_eq!(given(json!({})), None);
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    // Lint knows of no operator, whatever it is told.
    let mut sets = all_sets();
    sets[2]["metrics"] = json!({"dashboard": {"enabled": true}});
    for values in sets {
        BARE.lint(&values).unwrap_or_else(|error| panic!("{values}: {error}"));
    }
    DEFINITION.lint(&json!({})).unwrap();
}

#[test]
fn the_readme_has_every_value() {
    let path = format!("{PATH}/README.md");
    let text = table::written_into(&read(&path), &read(&format!("{PATH}/values.yaml")));
    golden(&path, &text).unwrap();
}

#[test]
fn the_plain_manifests_are_those_of_the_charts() {
    let text = listing::plain(PATH, &BARE.text_in(NAMESPACE, &json!({})).unwrap());
    golden("deploy/kubernetes/inspection/inspection.yaml", &text).unwrap();
    // With its marks: `helm install kuration-crd` takes over what was applied.
    let definition = read("charts/kuration-server-crd/templates/inspectiontask-crd.yaml");
    golden("deploy/kubernetes/inspection/inspectiontask-crd.yaml", &definition).unwrap();
    let listed: Value =
        serde_saphyr::from_str(&read("deploy/kubernetes/inspection/kustomization.yaml")).unwrap();
    assert_eq!(listed["resources"], json!(["namespace.yaml", "inspectiontask-crd.yaml", "inspection.yaml"]));
    let namespace = &helm::objects(&read("deploy/kubernetes/inspection/namespace.yaml"))[0];
    strict::fault(namespace).unwrap();
    assert_eq!(namespace["metadata"]["name"], NAMESPACE);
}

#[test]
fn every_object_has_only_fields_that_kubernetes_knows() {
    let mut kinds = Vec::new();
    for values in all_sets() {
        for object in render(&values) {
            // The operator's kinds are the operator's.
            if object["apiVersion"] != "monitoring.coreos.com/v1" {
                strict::fault(&object).unwrap_or_else(|error| panic!("{values}: {error}"));
                kinds.push(object["kind"].clone());
            }
        }
    }
    // What ready tasks bring along; the tasks themselves are looked at by tests/inspection.
    for directory in ["deploy/inspections", "deploy/inspections/examples"] {
        for entry in fs::read_dir(helm::in_repository(directory)).unwrap() {
            let path = entry.unwrap().path();
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
            let text = if is_yaml { fs::read_to_string(&path).unwrap() } else { String::new() };
            for object in helm::objects(&text).iter().filter(|object| object["kind"] != "InspectionTask") {
                strict::fault(object).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                kinds.push(object["kind"].clone());
            }
        }
    }
    for kind in [
        "Deployment",
        "Role",
        "Namespace",
        "ValidatingAdmissionPolicy",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ConfigMap",
    ] {
        assert!(kinds.contains(&json!(kind)), "{kind}: {kinds:?}");
    }
}

#[test]
fn the_charts_have_the_programs_version() {
    for path in [PATH, DEFINITION.path] {
        let chart: Value = serde_saphyr::from_str(&read(&format!("{path}/Chart.yaml"))).unwrap();
        let wanted = json!(env!("CARGO_PKG_VERSION"));
        assert_eq!((&chart["version"], &chart["appVersion"]), (&wanted, &wanted), "{path}");
    }
}

/// Flags as the program would have them from its environment.
fn flags(container: &Value) -> Vec<String> {
    let given = list(&container["env"]).iter().filter_map(|one| {
        let flag = one["name"].as_str()?.strip_prefix("KURATION_")?.to_lowercase().replace('_', "-");
        let value = one["value"].as_str().unwrap_or("of-the-pod");
        Some(format!("--{flag}={value}"))
    });
    let own = arguments(container).into_iter().map(str::to_owned);
    ["kuration".to_owned()].into_iter().chain(own).chain(given).collect()
}

#[test]
fn the_program_understands_what_the_chart_tells_it() {
    for values in all_sets() {
        for (component, name, container) in containers(&render(&values)) {
            let flags = flags(container);
            Args::try_parse_from(&flags).unwrap_or_else(|error| panic!("{component}/{name}: {error}"));
        }
    }
    let all = render(&everything());
    let (_, _, controller) =
        containers(&all).into_iter().find(|(component, ..)| *component == "controller").unwrap();
    let flags = flags(controller);
    for wanted in ["--results-class=nfs", "--results-size=5Gi", "--log-format=json", "--admin=[::]:8080"] {
        assert!(flags.iter().any(|flag| flag == wanted), "{wanted}: {flags:?}");
    }
}

#[test]
fn pods_of_runs_have_the_controllers_image() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for (values, wanted) in [
        (json!({}), format!("ghcr.io/kuration-io/kuration:{}", env!("CARGO_PKG_VERSION"))),
        (json!({"image": {"registry": "r.example", "repository": "k", "tag": "1"}}), "r.example/k:1".into()),
        (
            json!({"imageRegistry": "mirror.example:5000/tools/", "image": {"digest": digest, "tag": "1"}}),
            format!("mirror.example:5000/tools/kuration-io/kuration@{digest}"),
        ),
        (
            json!({"global": {"imageRegistry": "above.example"}, "image": {"tag": "1"}}),
            "above.example/kuration-io/kuration:1".into(),
        ),
    ] {
        let mut values = values;
        values["report"] = json!({"namespaces": ["shop"]});
        let objects = render(&values);
        let all = containers(&objects);
        assert_eq!(all.len(), 2);
        for (component, _, container) in all {
            assert_eq!(container["image"], json!(wanted), "{component}");
            if component == "controller" {
                assert!(flags(container).contains(&format!("--image={wanted}")), "{wanted}");
            }
        }
    }
}

#[test]
fn one_log_level_reaches_every_container() {
    for (component, name, container) in containers(&render(&everything())) {
        assert!(arguments(container).contains(&"--v=5"), "{component}/{name}");
    }
}

#[test]
fn every_container_is_watched_and_limited() {
    for values in all_sets() {
        for (component, name, container) in containers(&render(&values)) {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert!(container[probe]["httpGet"]["path"].is_string(), "{component}/{name}: {probe}");
            }
            assert!(container["resources"]["limits"]["memory"].is_string(), "{component}/{name}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{component}/{name}");
        }
    }
}

#[test]
fn no_pod_has_more_of_its_machine_than_a_restricted_namespace_allows() {
    let mut pods_seen = 0;
    for values in all_sets() {
        let objects = render(&values);
        for (component, name, container) in containers(&objects) {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{component}/{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{component}/{name}");
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{component}/{name}");
            assert!(context["privileged"].is_null(), "{component}/{name}");
        }
        for (component, pod) in pods(&objects) {
            pods_seen += 1;
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{component}");
            assert!(context["runAsUser"].as_i64().is_some_and(|user| user > 0), "{component}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{component}");
            for shared in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[shared].is_null(), "{component}: {shared}");
            }
            let from_host = list(&pod["volumes"]).iter().any(|volume| volume["hostPath"].is_object());
            assert!(!from_host && pod["enableServiceLinks"] == false, "{component}");
        }
    }
    assert_eq!(pods_seen, 5);
}

#[test]
fn selectors_find_their_own_pods_whatever_labels_are_given() {
    let mut values = everything();
    values["commonLabels"] =
        json!({"app.kubernetes.io/name": "x", "app.kubernetes.io/component": "y", "team": "all"});
    values["podLabels"] = json!({"app.kubernetes.io/instance": "z", "team": "own"});
    let objects = render(&values);
    let deployments: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "Deployment").collect();
    let found_by = |selector: &Value| -> Vec<&str> {
        let wanted = selector.as_object().unwrap();
        let bears = |labels: &Value| wanted.iter().all(|(name, value)| labels[name] == *value);
        let all = deployments.iter().filter(|of| bears(&of["spec"]["template"]["metadata"]["labels"]));
        all.map(|of| of["metadata"]["name"].as_str().unwrap()).collect()
    };
    for object in &objects {
        let selector = match object["kind"].as_str().unwrap() {
            "Deployment" | "PodDisruptionBudget" => &object["spec"]["selector"]["matchLabels"],
            "Service" => &object["spec"]["selector"],
            "NetworkPolicy" => &object["spec"]["podSelector"]["matchLabels"],
            _ => continue,
        };
        let name = object["metadata"]["name"].as_str().unwrap();
        let found = found_by(selector);
        assert!(!found.is_empty() && found.iter().all(|other| *other == name), "{name}: {found:?}");
    }
    let controller =
        deployments.iter().find(|of| of["metadata"]["name"] == "kuration-inspector-controller").unwrap();
    assert_eq!(controller["metadata"]["labels"]["team"], "all");
    assert_eq!(controller["spec"]["template"]["metadata"]["labels"]["team"], "own");
}

#[test]
fn rights_are_those_that_were_read() {
    let sets = [
        ("without values", json!({})),
        ("no receivers", json!({"notifications": {"secretNames": []}})),
        ("pages", json!({"report": {"namespaces": ["shop"]}})),
    ];
    let text: String = sets
        .into_iter()
        .map(|(name, values)| format!("== {name}\n{}", listing::rights(&render(&values))))
        .collect();
    golden("tests/golden/inspection-rights.txt", &text).unwrap();
    assert!(!text.contains('*'), "{text}");
}

#[test]
fn nobody_may_make_a_task_who_may_not_make_a_cron_job() {
    let objects = render(&json!({}));
    let policy = of(&objects, "ValidatingAdmissionPolicy", "kuration-inspectiontasks");
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let rule = &policy["spec"]["matchConstraints"]["resourceRules"][0];
    assert_eq!(
        (&rule["resources"], &rule["operations"]),
        (&json!(["inspectiontasks"]), &json!(["CREATE", "UPDATE"]))
    );
    let expression = policy["spec"]["validations"][0]["expression"].as_str().unwrap();
    for word in ["group('batch')", "resource('cronjobs')", "object.metadata.namespace", "check('create')"] {
        assert!(expression.contains(word), "{word}: {expression}");
    }
    let binding = of(&objects, "ValidatingAdmissionPolicyBinding", "kuration-inspectiontasks");
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    let off = render(&json!({"admissionPolicy": false}));
    assert!(off.iter().all(|object| object["kind"] != "ValidatingAdmissionPolicy"));
}

#[test]
fn the_definition_is_kept_with_every_task_when_its_release_goes() {
    let objects = DEFINITION.render(&json!({}));
    let kept: Vec<&Value> =
        objects.iter().map(|object| &object["metadata"]["annotations"]["helm.sh/resource-policy"]).collect();
    assert_eq!(kept, ["keep"]);
}
