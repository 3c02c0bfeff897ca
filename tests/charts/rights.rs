//! Who may ask the API server for what.

use serde_json::json;

use super::{helm, listing};
use crate::{all_sets, arguments, containers, everything, golden, list, manifests, of, pods};

#[test]
fn a_leader_has_a_lease_that_its_account_may_hold() {
    let objects = helm::render(&everything());
    let role = of(&objects, "Role")
        .into_iter()
        .find(|role| role["metadata"]["name"] == "kuration-nfs-controller")
        .unwrap();
    let leases = list(&role["rules"]).iter().find(|rule| rule["resourceNames"].is_array()).unwrap();
    let elected = containers(&objects).into_iter().filter(|(component, name, container)| {
        *component == "nfs-controller"
            && *name != "kuration"
            && arguments(container).contains(&"--leader-election")
    });
    // One each, and the reaper's.
    assert_eq!(list(&leases["resourceNames"]).len(), elected.count() + 1);
    let driver = containers(&objects)
        .into_iter()
        .find(|(component, name, _)| (*component, *name) == ("nfs-controller", "kuration"))
        .unwrap()
        .2;
    let reaper = arguments(driver)
        .into_iter()
        .find_map(|argument| argument.strip_prefix("--lease=$(NAMESPACE)/"))
        .unwrap();
    assert!(list(&leases["resourceNames"]).contains(&json!(reaper)), "{reaper}");
}

#[test]
fn rights_are_those_that_were_read() {
    let sets = [
        ("shares", json!({})),
        ("shares, attached", json!({"nfs": {"attachRequired": true}})),
        ("a pool", manifests()[1].1.clone()),
        (
            "a pool, not attached",
            json!({"nfs": {"enabled": false}, "pool": {"enabled": true, "nodeName": "a", "attachRequired": false}}),
        ),
        (
            "shares, start-up taint, a secret",
            json!({"startupTaint": true, "controllerSecrets": [{"namespace": "storage", "name": "nfs"}]}),
        ),
    ];
    let text: String = sets
        .into_iter()
        .map(|(name, values)| format!("== {name}\n{}", listing::rights(&helm::render(&values))))
        .collect();
    golden("tests/golden/rights.txt", &text).unwrap();
    assert!(!text.contains('*'), "{text}");
}

#[test]
fn the_node_plugin_has_no_rights_at_all() {
    for values in all_sets() {
        let objects = helm::render(&values);
        for binding in of(&objects, "ClusterRoleBinding").into_iter().chain(of(&objects, "RoleBinding")) {
            for subject in list(&binding["subjects"]) {
                assert_ne!(subject["name"], "kuration-nfs-node", "{binding}");
            }
        }
        for (component, pod) in pods(&objects) {
            assert_eq!(pod["automountServiceAccountToken"] == false, component == "nfs-node", "{component}");
        }
    }
}
