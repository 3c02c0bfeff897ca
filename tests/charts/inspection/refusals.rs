//! What the charts of inspection refuse, and with which words.

use kuration::inspection::task::Size;
use serde_json::json;

use super::super::helm;
use super::{BARE, CHART, DEFINITION, PATH, read};

#[test]
fn a_misspelt_value_is_refused_by_its_name() {
    for (values, name) in [
        (json!({"replica": 1}), "replica"),
        (json!({"image": {"repo": "x"}}), "repo"),
        (json!({"results": {"storageClass": "nfs"}}), "storageClass"),
        (json!({"notifications": {"secrets": []}}), "secrets"),
        (json!({"metrics": {"alerts": {"enable": true}}}), "enable"),
        (json!({"metrics": {"serviceMonitor": {"period": "1s"}}}), "period"),
        (json!({"report": {"namespace": "shop"}}), "namespace"),
        (json!({"report": {"namespaces": [{"name": "shop", "claim": "a"}]}}), "claim"),
        (json!({"probes": {"liveness": {"period": 1}}}), "period"),
        (json!({"resources": {"limit": {}}}), "limit"),
    ] {
        let refused = CHART.text(&values).expect_err(name);
        let wanted = format!("additional properties '{name}' not allowed");
        assert!(refused.contains(&wanted), "{values}: {refused}");
    }
    // A chart without values takes none.
    let refused = DEFINITION.text(&json!({"keep": false})).expect_err("keep");
    assert!(refused.contains("additional properties 'keep' not allowed"), "{refused}");
}

#[test]
fn a_value_that_can_not_be_is_refused_by_its_place() {
    for (values, place) in [
        (json!({"replicas": 0}), "/replicas"),
        (json!({"logLevel": 11}), "/logLevel"),
        (json!({"image": {"digest": "sha256:abc"}}), "/image/digest"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "/image/pullPolicy"),
        (json!({"results": {"storageClassName": "NFS"}}), "/results/storageClassName"),
        (json!({"notifications": {"secretNames": ["*"]}}), "/notifications/secretNames/0"),
        (json!({"metrics": {"serviceMonitor": {"interval": "30"}}}), "/metrics/serviceMonitor/interval"),
        (json!({"report": {"namespaces": ["a.b"]}}), "/report/namespaces/0"),
        (json!({"report": {"namespaces": [{"claimName": "a"}]}}), "/report/namespaces/0"),
        (json!({"admissionPolicy": "yes"}), "/admissionPolicy"),
    ] {
        let refused = CHART.text(&values).expect_err(place);
        assert!(refused.contains(place), "{values}: {refused}");
    }
    // Sizes are those of a task's claim.
    for (size, good) in [
        ("1Gi", true),
        ("500M", true),
        ("1073741824", true),
        ("1.5Gi", false),
        ("0", false),
        ("0Gi", false),
        ("much", false),
        ("", false),
    ] {
        let taken = CHART.text(&json!({"results": {"size": size}}));
        assert_eq!(taken.is_ok(), good, "{size}: {taken:?}");
        let bytes = Size::Text(size.to_owned()).bytes().filter(|bytes| *bytes > 0);
        assert_eq!(bytes.is_some(), good, "{size}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused_with_a_remedy() {
    for (values, words) in [
        (json!({"report": {"namespaces": ["a", {"name": "a"}]}}), "report.namespaces has a twice"),
        (
            json!({"metrics": {"serviceMonitor": {"enabled": true}}}),
            "install the operator first, or set them to false",
        ),
    ] {
        let refused = BARE.text(&values).expect_err(words);
        assert!(refused.contains(words), "{values}: {refused}");
    }
}

#[test]
fn an_old_kubernetes_is_refused_in_words() {
    for chart in [BARE, DEFINITION] {
        let refused = chart.text_for("1.29.9", &json!({})).unwrap_err();
        assert!(refused.contains("chart requires kubeVersion: >=1.30.0-0"), "{refused}");
        chart.text_for("1.30.0", &json!({})).unwrap();
    }
}

#[test]
fn a_second_release_would_be_a_second_controller_and_helm_refuses_it() {
    let everywhere = |namespace: &str| -> Vec<String> {
        let objects = helm::objects(&BARE.text_in(namespace, &json!({})).unwrap());
        let all = objects.iter().filter(|object| object["metadata"]["namespace"].is_null());
        all.map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
    };
    // Helm makes no object that another release owns, and says whose it is; the chart says it first, where it sees a cluster.
    let first = everywhere("one");
    assert!(first.contains(&r#""ClusterRole" "kuration-inspector-controller""#.to_owned()), "{first:?}");
    assert_eq!(first, everywhere("two"));
    let checks = read(&format!("{PATH}/templates/_checks.tpl"));
    assert!(checks.contains(r#""ClusterRole" "" "kuration-inspector-controller""#), "{checks}");
}
