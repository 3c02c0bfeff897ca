//! What the chart refuses, and in which words.

use serde_json::json;

use super::helm;

#[test]
fn a_misspelt_value_is_refused_by_its_name() {
    for (values, name) in [
        (json!({"nsf": {}}), "nsf"),
        (json!({"nfs": {"drivername": "x"}}), "drivername"),
        (json!({"nfs": {"controller": {"replica": 1}}}), "replica"),
        (json!({"pool": {"image": {"sise": "1GiB"}}}), "sise"),
        (json!({"sidecars": {"provisioner": {"threads": 1}}}), "threads"),
        (json!({"storageClasses": [{"name": "a", "driver": "nfs", "paramters": {}}]}), "paramters"),
        (json!({"probes": {"liveness": {"period": 1}}}), "period"),
    ] {
        let refused = helm::text(&values).expect_err(name);
        let wanted = format!("additional properties '{name}' not allowed");
        assert!(refused.contains(&wanted), "{values}: {refused}");
    }
    for (values, place) in [
        (json!({"nfs": {"trashLifetime": "1 day"}}), "/nfs/trashLifetime"),
        (json!({"nfs": {"node": {"registrar": "me"}}}), "/nfs/node/registrar"),
        (json!({"kubeletDir": "var/lib/kubelet"}), "/kubeletDir"),
        // These would make another manifest of it.
        (json!({"kubeletDir": "/var/lib/{kubelet}"}), "/kubeletDir"),
        (json!({"pool": {"directory": "/srv, type: File"}}), "/pool/directory"),
        // The value of a topology has no more.
        (json!({"pool": {"enabled": true, "nodeName": "a".repeat(64)}}), "/pool/nodeName"),
        (json!({"pool": {"image": {"hostDirectories": ["/usr/"]}}}), "/pool/image/hostDirectories/0"),
        (
            json!({"nfs": {"controller": {"updateStrategy": {"type": "OnDelete"}}}}),
            "/nfs/controller/updateStrategy",
        ),
        // YAML has read 0777 as 511 by now, and 1000650000 as 1.00065e+09.
        (
            json!({"storageClasses": [{"name": "a", "driver": "nfs", "parameters": {"mountPermissions": 0o777}}]}),
            "/storageClasses/0/parameters/mountPermissions",
        ),
    ] {
        let refused = helm::text(&values).expect_err(place);
        assert!(refused.contains(place), "{values}: {refused}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused_with_a_remedy() {
    let class = |name: &str| json!({"name": name, "driver": "nfs", "default": true, "parameters": {"server": "a", "share": "/b"}});
    for (values, words) in [
        (json!({"nfs": {"enabled": false}}), "set nfs.enabled or pool.enabled to true"),
        (json!({"pool": {"enabled": true}}), "pool.enabled needs pool.nodeName"),
        (json!({"pool": {"enabled": true, "nodeName": "a", "nodeSelector": {"b": "c"}}}), "leave one away"),
        (
            json!({"pool": {"enabled": true, "nodeName": "a", "driverName": "nfs.csi.kuration.io"}}),
            "two drivers need two names",
        ),
        (json!({"nfs": {"inline": {"enabled": true}}}), "nfs.inline.enabled needs nfs.inline.share"),
        (json!({"nfs": {"inline": {"share": "a:/b"}}}), "set nfs.inline.enabled to true"),
        (json!({"nfs": {"controller": {"hostNetwork": true, "hostUsers": false}}}), "choose one"),
        (
            json!({"podMonitor": {"enabled": true}, "serviceMonitor": {"enabled": true}}),
            "scrape everything twice",
        ),
        (json!({"snapshots": {"enabled": true}}), "version 0.1 has no snapshots"),
        (json!({"volumeSnapshotClasses": [{"name": "a", "driver": "nfs"}]}), "leave them away"),
        (json!({"storageClasses": [class("a"), class("b")]}), "two defaults, a and b"),
        (json!({"storageClasses": [class("a"), class("a")]}), "storageClasses has a twice"),
        (json!({"storageClasses": [{"name": "a", "driver": "pool"}]}), "set pool.enabled to true"),
        (json!({"storageClasses": [{"name": "a", "driver": "nfs"}]}), "a has no parameters.server"),
        (
            json!({"storageClasses": [{"name": "a", "driver": "nfs", "parameters": {"server": "a", "share": "/b"},
                "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]}]}),
            "a has allowedTopologies, which mean nothing for shares",
        ),
    ] {
        let refused = helm::text(&values).expect_err(words);
        assert!(refused.contains(words), "{values}: {refused}");
    }
}

#[test]
fn an_old_kubernetes_is_refused_in_words() {
    let refused = helm::text_for("1.30.9", &json!({})).unwrap_err();
    assert!(
        refused
            .contains("chart requires kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.9"),
        "{refused}"
    );
    let values = json!({"nfs": {"nodeAllocatableUpdatePeriodSeconds": 60}});
    let refused = helm::text_for("1.33.0", &values).unwrap_err();
    assert!(refused.contains("needs Kubernetes 1.35 or newer, or 1.34 with the feature gate"), "{refused}");
    assert!(refused.contains("and this is v1.33.0"), "{refused}");
    // With the gate or without: nobody can see which.
    helm::text_for("1.34.0", &values).unwrap();
    helm::text_for("1.31.0", &json!({})).unwrap();
}
