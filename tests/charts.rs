//! The chart, the manifests and the examples, without a cluster: what Helm makes of them is what was read, is accepted by
//! Kubernetes' types and by this program, and asks for no more rights than promised.
//!
//! `UPDATE_GOLDEN=1 cargo test --test charts` writes what is generated anew: the table in the chart's README, deploy/kubernetes
//! and tests/golden/rights.txt.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use charts::{helm, listing, strict, table};

mod charts {
    pub mod helm;
    mod inspection;
    pub mod listing;
    mod program;
    mod refusals;
    mod rights;
    pub mod strict;
    pub mod table;
}

/// Everything switched on.
fn everything() -> Value {
    json!({
        "imagePullSecrets": [{"name": "registry"}],
        "startupTaint": true,
        "logLevel": 5,
        "networkPolicy": {"enabled": true},
        "controllerSecrets": [{"namespace": "storage", "name": "nfs"}],
        "nfs": {
            "attachRequired": true,
            "allowedServers": ["nfs.example", "*.lan", "10.0.0.0/8"],
            "mountOptions": ["hard", "nconnect=2"],
            "shares": ["nfs.example:/exports/data,vers=4.2"],
            "inline": {"enabled": true, "share": "nfs.example:/scratch", "limit": "2GiB"},
            "node": {"registrar": "sidecar", "livenessProbe": "sidecar", "maxVolumesPerNode": 50},
            "nodeAllocatableUpdatePeriodSeconds": 60,
        },
        "pool": {
            "enabled": true, "nodeName": "storage-1", "image": {"size": "10GiB"}, "registrar": "sidecar",
            "livenessProbe": "sidecar", "inline": {"enabled": true}, "maxVolumesPerNode": 50,
        },
        "storageClasses": [
            {"name": "nfs", "driver": "nfs", "default": true, "parameters": {"server": "nfs.example", "share": "/exports/data"}},
            {"name": "pool", "driver": "pool", "reclaimPolicy": "Retain", "allowVolumeExpansion": false},
        ],
    })
}

/// The values of deploy/kubernetes, by directory.
fn manifests() -> [(&'static str, Value); 2] {
    [
        ("nfs", json!({})),
        (
            "pool",
            json!({"nfs": {"enabled": false}, "pool": {"enabled": true, "nodeSelector": {"kuration.io/pool": "true"}}}),
        ),
    ]
}

fn all_sets() -> Vec<Value> {
    let own = json!({"pool": {"enabled": true, "nodeName": "storage-1"}, "nfs": {"controller": {"hostNetwork": true}}});
    manifests().into_iter().map(|(_, values)| values).chain([own, everything()]).collect()
}

/// Compares with the committed text, or writes it anew.
fn golden(path: &str, text: &str) -> Result<(), String> {
    let path = helm::in_repository(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    if fs::read_to_string(&path).ok().as_deref() == Some(text) {
        return Ok(());
    }
    Err(format!(
        "{} is not what is made now; UPDATE_GOLDEN=1 cargo test --test charts writes it anew",
        path.display()
    ))
}

fn of<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The pod templates, by their component.
fn pods(objects: &[Value]) -> Vec<(&str, &Value)> {
    let workloads = objects.iter().filter(|object| object["spec"]["template"].is_object());
    workloads
        .map(|object| {
            let component = &object["metadata"]["labels"]["app.kubernetes.io/component"];
            (component.as_str().unwrap(), &object["spec"]["template"]["spec"])
        })
        .collect()
}

/// Every container of every workload, as component, name and container.
fn containers(objects: &[Value]) -> Vec<(&str, &str, &Value)> {
    let all = pods(objects).into_iter().flat_map(|(component, pod)| {
        assert!(pod["initContainers"].is_null(), "{component}");
        list(&pod["containers"]).iter().map(move |container| (component, container))
    });
    all.map(|(component, container)| (component, container["name"].as_str().unwrap(), container)).collect()
}

fn arguments(container: &Value) -> Vec<&str> {
    list(&container["args"]).iter().map(|argument| argument.as_str().unwrap()).collect()
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    for values in all_sets() {
        helm::lint(&values).unwrap_or_else(|error| panic!("{values}: {error}"));
    }
}

#[test]
fn the_readme_has_every_value() {
    let values = fs::read_to_string(helm::in_repository("charts/kuration-csi/values.yaml")).unwrap();
    let readme = fs::read_to_string(helm::in_repository("charts/kuration-csi/README.md")).unwrap();
    golden("charts/kuration-csi/README.md", &table::written_into(&readme, &values)).unwrap();
}

#[test]
fn the_plain_manifests_are_those_of_the_chart() {
    for (name, values) in manifests() {
        let text = listing::plain("charts/kuration-csi", &helm::text(&values).unwrap());
        golden(&format!("deploy/kubernetes/{name}/{name}.yaml"), &text).unwrap();
    }
}

#[test]
fn every_object_has_only_fields_that_kubernetes_knows() {
    let read = |path: String| fs::read_to_string(helm::in_repository(&path)).unwrap();
    let mut sources: Vec<(String, Vec<Value>)> =
        all_sets().iter().map(|values| (values.to_string(), helm::render(values))).collect();
    for (name, _) in manifests() {
        let path = format!("deploy/kubernetes/{name}/namespace.yaml");
        sources.push((path.clone(), helm::objects(&read(path))));
    }
    let mut examples = 0;
    for entry in fs::read_dir(helm::in_repository("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            sources.push((path.display().to_string(), helm::objects(&fs::read_to_string(&path).unwrap())));
            examples += 1;
        }
    }
    assert!(examples > 10, "{examples} examples");
    for (source, objects) in sources {
        assert!(!objects.is_empty(), "{source} is empty");
        for object in objects {
            strict::fault(&object).unwrap_or_else(|error| panic!("{source}: {error}"));
        }
    }
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_found() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "b", "imge": "c"}]}});
    assert_eq!(strict::fault(&pod), Err("Pod.spec.containers[0].imge is no field of its".into()));
}

#[test]
fn the_chart_has_the_programs_version() {
    let text = fs::read_to_string(helm::in_repository("charts/kuration-csi/Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    let wanted = json!(env!("CARGO_PKG_VERSION"));
    assert_eq!((&chart["version"], &chart["appVersion"]), (&wanted, &wanted));
}

#[test]
fn large_numbers_and_names_of_digits_stay_what_they_are() {
    let mut values = everything();
    values["nfs"]["node"]["maxVolumesPerNode"] = json!(1_000_000);
    values["sidecars"] = json!({"provisioner": {"workerThreads": 1_000_000, "kubeApiBurst": 2_000_000}});
    values["nfs"]["nodeAllocatableUpdatePeriodSeconds"] = json!(1_000_000);
    values["storageClasses"] = json!([{"name": "123", "driver": "nfs", "labels": {"a": "1"},
        "parameters": {"server": "a", "share": "/b", "mountPermissions": "0777", "uid": "1000650000"}}]);
    values["controllerSecrets"] = json!([{"namespace": "456", "name": "789"}]);
    let objects = helm::render(&values);
    let all: Vec<&str> =
        containers(&objects).into_iter().flat_map(|(_, _, container)| arguments(container)).collect();
    for wanted in ["--max-volumes-per-node=1000000", "--worker-threads=1000000", "--kube-api-burst=2000000"] {
        assert!(all.contains(&wanted), "{wanted}: {all:?}");
    }
    let driver = of(&objects, "CSIDriver")[0];
    assert_eq!(driver["spec"]["nodeAllocatableUpdatePeriodSeconds"], 1_000_000);
    let class = of(&objects, "StorageClass")[0];
    assert_eq!(class["metadata"]["name"], "123");
    assert_eq!(class["parameters"]["mountPermissions"], "0777");
    assert_eq!(class["parameters"]["uid"], "1000650000");
    assert!(of(&objects, "Role").iter().any(|role| {
        role["metadata"]["namespace"] == "456" && role["rules"][0]["resourceNames"] == json!(["789"])
    }));
}

#[test]
fn the_charts_own_labels_win_and_none_stands_twice() {
    let mut values = everything();
    let mine = json!({"app.kubernetes.io/component": "x", "app.kubernetes.io/name": "y", "team": "all"});
    values["commonLabels"] = mine.clone();
    values["podMonitor"] = json!({"enabled": true, "labels": {"team": "own"}});
    values["pool"]["podLabels"] = json!({"app.kubernetes.io/instance": "z", "team": "own"});
    values["nfs"]["node"]["podAnnotations"] = json!({"kubectl.kubernetes.io/default-container": "registrar"});
    values["storageClasses"] = json!([{"name": "pool", "driver": "pool", "default": true, "labels": {"team": "own"},
        "annotations": {"storageclass.kubernetes.io/is-default-class": "false", "why": "x"}}]);
    // A key that stands twice is an error of the parser's.
    let objects = helm::render(&values);
    for object in objects.iter().filter(|object| object["spec"]["template"].is_object()) {
        let selector = object["spec"]["selector"]["matchLabels"].as_object().unwrap();
        for (key, value) in selector {
            for labels in [&object["metadata"]["labels"], &object["spec"]["template"]["metadata"]["labels"]] {
                assert_eq!(&labels[key], value, "{key}");
            }
        }
    }
    let team = |kind: &str, path: &str| of(&objects, kind)[0].pointer(path).unwrap()["team"].clone();
    assert_eq!(team("StatefulSet", "/metadata/labels"), "all");
    assert_eq!(team("StatefulSet", "/spec/template/metadata/labels"), "own");
    assert_eq!(team("PodMonitor", "/metadata/labels"), "own");
    assert_eq!(team("StorageClass", "/metadata/labels"), "own");
    let annotations = &of(&objects, "StorageClass")[0]["metadata"]["annotations"];
    assert_eq!(annotations, &json!({"storageclass.kubernetes.io/is-default-class": "true", "why": "x"}));
    let node = &of(&objects, "DaemonSet")[0]["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(node["kubectl.kubernetes.io/default-container"], "registrar");
}

#[test]
fn a_strategy_that_rolls_nothing_has_no_numbers_beside_it() {
    let objects = helm::render(&json!({"nfs": {
        "controller": {"updateStrategy": {"type": "Recreate"}}, "node": {"updateStrategy": {"type": "OnDelete"}}}}));
    assert_eq!(of(&objects, "Deployment")[0]["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(of(&objects, "DaemonSet")[0]["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
}

#[test]
fn two_releases_of_one_name_share_no_object() {
    let names = |namespace: &str| -> BTreeSet<String> {
        let mut values = everything();
        // A driver's name is the cluster's, and so are classes.
        for driver in ["nfs", "pool"] {
            values[driver]["driverName"] = json!(format!("{driver}.{namespace}"));
        }
        values["storageClasses"] = json!([]);
        let objects = helm::objects(&helm::text_in(namespace, &values).unwrap());
        objects
            .iter()
            .map(|object| {
                let name = &object["metadata"];
                format!("{} {}/{}", object["kind"], name["namespace"], name["name"])
            })
            .collect()
    };
    let shared: Vec<String> = names("one").intersection(&names("two")).cloned().collect();
    assert_eq!(shared, [""; 0]);
}

#[test]
fn one_log_level_reaches_every_container() {
    for (component, name, container) in containers(&helm::render(&everything())) {
        assert!(arguments(container).contains(&"--v=5"), "{component}/{name}");
    }
}

#[test]
fn every_container_is_watched_and_limited() {
    for values in all_sets() {
        for (component, name, container) in containers(&helm::render(&values)) {
            let whose = format!("{component}/{name}");
            // The one that asks the driver whether it lives is watched by nobody; the driver's own probe asks it.
            if name != "livenessprobe" {
                assert!(container["startupProbe"]["httpGet"]["path"].is_string(), "{whose}");
                assert!(container["livenessProbe"]["httpGet"]["path"].is_string(), "{whose}");
            }
            assert_eq!(container["readinessProbe"].is_object(), name == "kuration", "{whose}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{whose}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{whose}");
        }
    }
}

#[test]
fn privileges_are_those_that_mounting_takes() {
    for values in all_sets() {
        let objects = helm::render(&values);
        for (component, name, container) in containers(&objects) {
            let whose = format!("{component}/{name}");
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{whose}");
            // The image's own user is nobody, and the driver's socket is root's.
            assert_eq!(context["runAsUser"], 0, "{whose}");
            let mounts_for_others = name == "kuration" && component != "nfs-controller";
            assert_eq!(context["privileged"] == true, mounts_for_others, "{whose}");
            if !mounts_for_others {
                assert_eq!(context["allowPrivilegeEscalation"], false, "{whose}");
                assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{whose}");
                let added = if name == "kuration" { json!(["SYS_ADMIN"]) } else { Value::Null };
                assert_eq!(
                    (&context["capabilities"]["drop"], &context["capabilities"]["add"]),
                    (&json!(["ALL"]), &added),
                    "{whose}"
                );
            }
        }
        for (component, pod) in pods(&objects) {
            let wants_network = component == "nfs-node"
                || values["nfs"]["controller"]["hostNetwork"] == true && component == "nfs-controller";
            assert_eq!(pod["hostNetwork"] == true, wants_network, "{component}");
            assert_eq!(pod["dnsPolicy"] == "ClusterFirstWithHostNet", wants_network, "{component}");
            assert!(pod["hostPID"].is_null() && pod["hostIPC"].is_null(), "{component}");
            assert_eq!(pod["enableServiceLinks"], false, "{component}");
            assert!(pod["priorityClassName"].is_string(), "{component}");
        }
    }
}

#[test]
fn the_node_plugin_is_one_container_unless_sidecars_are_asked_for() {
    let names = |values: Value| -> Vec<(String, String)> {
        let objects = helm::render(&values);
        let all = containers(&objects).into_iter().filter(|(component, ..)| *component == "nfs-node");
        all.map(|(_, name, container)| (name.to_owned(), arguments(container).join(" "))).collect()
    };
    let own = names(json!({}));
    assert!(
        matches!(&own[..], [(name, flags)] if name == "kuration" && flags.contains("--kubelet-registration=/registration")),
        "{own:?}"
    );
    let with_sidecars = names(everything());
    assert_eq!(
        with_sidecars.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["kuration", "registrar", "livenessprobe"]
    );
    assert!(!with_sidecars[0].1.contains("--kubelet-registration"), "{with_sidecars:?}");
}

#[test]
fn every_image_is_pinned_and_follows_the_registry() {
    for values in all_sets() {
        for (component, name, container) in containers(&helm::render(&values)) {
            let image = container["image"].as_str().unwrap();
            let tag = image.rsplit_once(':').map(|(_, tag)| tag.trim_start_matches('v'));
            assert!(
                tag.is_some_and(|tag| tag.starts_with(|c: char| c.is_ascii_digit())),
                "{component}/{name}: {image}"
            );
        }
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    let mut values = everything();
    values["imageRegistry"] = json!("mirror.example:5000/storage");
    values["image"] = json!({"digest": digest});
    for (component, name, container) in containers(&helm::render(&values)) {
        let image = container["image"].as_str().unwrap();
        assert!(image.starts_with("mirror.example:5000/storage/"), "{component}/{name}: {image}");
        assert_eq!(
            image.ends_with(&format!("kuration@{digest}")),
            name == "kuration",
            "{component}/{name}: {image}"
        );
    }
    values["imageRegistry"] = json!("");
    values["global"] = json!({"imageRegistry": "above.example"});
    let objects = helm::render(&values);
    assert!(
        containers(&objects)
            .iter()
            .all(|(_, _, container)| container["image"].as_str().unwrap().starts_with("above.example/"))
    );
}

#[test]
fn a_pool_pod_that_never_gets_ready_can_be_replaced() {
    let objects = helm::render(&manifests()[1].1);
    let set = &of(&objects, "StatefulSet")[0]["spec"];
    assert_eq!(set["replicas"], 1);
    // Both are needed: the first where Kubernetes does not know the second, the second where it does.
    assert_eq!(set["podManagementPolicy"], "Parallel");
    assert_eq!(set["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 2);
}

#[test]
fn who_takes_the_startup_taint_off_starts_where_every_node_has_it() {
    let mut values = everything();
    // Nothing else that would let them.
    values["nfs"]["controller"] = json!({"tolerations": []});
    values["nfs"]["node"] = json!({"tolerations": []});
    values["pool"]["tolerations"] = json!([]);
    let tolerated = |values: &Value| -> Vec<Vec<String>> {
        let objects = helm::render(values);
        let keys = |pod: &Value| {
            list(&pod["tolerations"])
                .iter()
                .filter(|toleration| toleration["operator"] == "Exists" && toleration["effect"].is_null())
                .map(|toleration| toleration["key"].as_str().unwrap().to_owned())
                .collect()
        };
        pods(&objects).into_iter().map(|(_, pod)| keys(pod)).collect()
    };
    let both = ["nfs.csi.kuration.io/agent-not-ready", "pool.csi.kuration.io/agent-not-ready"];
    assert_eq!(tolerated(&values), [both, both, both]);
    values["pool"] = json!({"enabled": false});
    values["storageClasses"] = json!([]);
    assert_eq!(tolerated(&values), [&both[..1], &both[..1]]);
    values["startupTaint"] = json!(false);
    assert_eq!(tolerated(&values), [[""; 0]; 2]);
}

#[test]
fn health_and_metrics_are_served_to_either_family_of_addresses() {
    for values in all_sets() {
        for (component, name, container) in containers(&helm::render(&values)) {
            let admin =
                arguments(container).into_iter().find_map(|argument| argument.strip_prefix("--admin="));
            assert_eq!(admin.is_some(), name == "kuration", "{component}");
            let host = admin.map(|address| address.rsplit_once(':').unwrap().0);
            // The node plugin's port is on the node's network, and for its kubelet alone.
            let wanted = if component == "nfs-node" { "127.0.0.1" } else { "[::]" };
            assert!(host.is_none_or(|host| host == wanted), "{component}: {admin:?}");
        }
    }
    let objects = helm::render(&json!({"podMonitor": {"enabled": true}}));
    assert!(
        containers(&objects)
            .iter()
            .any(|(_, _, container)| arguments(container).contains(&"--admin=[::]:29660"))
    );
}

#[test]
fn no_class_is_the_default_unless_asked() {
    let annotation = |objects: &[Value]| -> Vec<bool> {
        let classes = of(objects, "StorageClass");
        classes
            .iter()
            .map(|class| {
                class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
            })
            .collect()
    };
    assert_eq!(annotation(&helm::render(&json!({}))), [false; 0]);
    assert_eq!(annotation(&helm::render(&everything())), [true, false]);
}
