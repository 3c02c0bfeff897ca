//! What the driver may do: no more than it needs, and nothing that it tries is denied.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::ListParams;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::objects;
use super::site::{self, NAMESPACE};
use super::space::{PATIENCE, Space};

crate::for_driver!(pool: Pool; nothing_that_the_driver_asks_the_api_server_is_denied, a_call_that_is_denied_is_found,
    no_account_of_the_driver_reads_secrets, a_pools_process_gives_up_what_it_does_not_need);
crate::for_driver!(share: Share; a_node_plugin_has_no_token, a_node_plugin_keeps_the_one_capability_that_it_needs);

/// The variable that names the API server's audit log.
pub const AUDIT_LOG: &str = "KURATION_AUDIT_LOG";

/// What the accounts of a namespace have asked the API server so far, by its audit log: how often, and what was denied how often.
pub fn calls(namespace: &str) -> (usize, BTreeMap<String, usize>) {
    let path = site::variable(AUDIT_LOG).expect("KURATION_AUDIT_LOG: the path of the API server's audit log");
    let log = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let accounts = format!("system:serviceaccount:{namespace}:");
    let (mut asked, mut denied) = (0, BTreeMap::new());
    for line in BufReader::new(log).lines() {
        let line = line.unwrap_or_else(|error| panic!("{path}: {error}"));
        if !line.contains(&accounts) {
            continue;
        }
        // The last one may be half written.
        let Ok(call) = serde_json::from_str::<Value>(&line) else { continue };
        let user = call["user"]["username"].as_str().unwrap_or_default();
        if !user.starts_with(&accounts) {
            continue;
        }
        asked += 1;
        if call["responseStatus"]["code"] == 403
            || call["annotations"]["authorization.k8s.io/decision"] == "forbid"
        {
            *denied.entry(format!("{user} {} {}", call["verb"], call["requestURI"])).or_insert(0) += 1;
        }
    }
    (asked, denied)
}

/// Over the whole run so far, whatever the cases made the driver do. What they install beside it, they look at themselves.
async fn nothing_that_the_driver_asks_the_api_server_is_denied(space: &Space) {
    // Something of everything, in case this runs first.
    space.claim_in_pod("data", "pod").await;
    space.resize("data", "128Mi").await;
    space.event("PersistentVolumeClaim", "data", &["Require file system resize"]).await;
    let (asked, denied) = calls(NAMESPACE);
    assert!(asked > 100, "an audit log with {asked} calls of the driver's accounts is not this cluster's");
    assert!(denied.is_empty(), "denied: {denied:#?}");
}

async fn a_call_that_is_denied_is_found(space: &Space) {
    space.make::<ServiceAccount>(json!({ "metadata": { "name": "nobody" } })).await;
    let wanted: TokenRequest = objects::typed(json!({ "metadata": {}, "spec": { "audiences": [] } }));
    let accounts = space.api::<ServiceAccount>();
    let token = accounts.create_token_request("nobody", &Default::default(), &wanted).await.expect("a token");
    let token = token.status.expect("a token").token;
    let mut config = Config::infer().await.expect("KUBECONFIG");
    config.auth_info = objects::typed(json!({ "token": token }));
    let nobody = Client::try_from(config).expect("a client");
    let secrets = Api::<Secret>::namespaced(nobody, &space.name);
    secrets.list(&ListParams::default()).await.expect_err("nobody may do nothing");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (asked, denied) = calls(&space.name);
        if denied.keys().any(|call| call.contains(":nobody ") && call.contains("/secrets")) {
            return;
        }
        assert!(Instant::now() < deadline, "{asked} calls, and of those denied {denied:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Every container of every part of the driver.
async fn parts(space: &Space) -> Vec<Pod> {
    let pods = Api::<Pod>::namespaced(space.client.clone(), NAMESPACE);
    let of = ListParams::default().labels("app.kubernetes.io/name=kuration-csi");
    let found = pods.list(&of).await.expect("the driver's pods").items;
    assert!(found.len() >= 3, "a pool, a controller and a node at least");
    found
}

async fn no_account_of_the_driver_reads_secrets(space: &Space) {
    let mut accounts: Vec<String> =
        parts(space).await.into_iter().filter_map(|pod| pod.spec?.service_account_name).collect();
    accounts.sort();
    accounts.dedup();
    let reviews = Api::<SubjectAccessReview>::all(space.client.clone());
    let may = async |account: &str, verb: &str, group: &str, resource: &str| {
        let review = json!({ "metadata": {}, "spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:{account}"),
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": { "verb": verb, "group": group, "resource": resource, "namespace": "default" },
        } });
        let review: SubjectAccessReview = objects::typed(review);
        reviews
            .create(&Default::default(), &review)
            .await
            .expect("a review")
            .status
            .expect("an answer")
            .allowed
    };
    for account in &accounts {
        for (verb, group, resource) in [
            ("get", "", "secrets"),
            ("list", "", "secrets"),
            ("create", "", "pods"),
            ("delete", "", "nodes"),
            ("delete", "", "persistentvolumeclaims"),
            ("update", "storage.k8s.io", "storageclasses"),
            ("impersonate", "", "users"),
            ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
        ] {
            assert!(!may(account, verb, group, resource).await, "{account} may {verb} {resource}");
        }
    }
    // The question itself tells yes from no.
    let pool = accounts.iter().find(|account| account.ends_with("-pool")).expect("the pool's account");
    assert!(may(pool, "create", "", "persistentvolumes").await);
}

async fn a_node_plugin_has_no_token(space: &Space) {
    let mut nodes = parts(space).await;
    nodes.retain(|pod| pod.labels()["app.kubernetes.io/component"] == "nfs-node");
    assert!(!nodes.is_empty(), "no node plugin");
    for pod in &nodes {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
        let tokens: Vec<_> =
            volumes.filter(|volume| volume.projected.is_some() || volume.secret.is_some()).collect();
        assert!(tokens.is_empty(), "{}: {tokens:?}", pod.name_any());
    }
}

/// The capabilities that processes of a driver can still get, by their arguments, each set once: a child is not told from its parent
/// until it is its own program. Seen from a pod among the node's processes.
async fn bounds(space: &Space, role: &str) -> Vec<u64> {
    let look = json!({ "spec": { "hostPID": true, "volumes": [{ "name": "data", "emptyDir": {} }] } });
    let mut pod = objects::pod("looks", space.node(), json!({}));
    objects::lay_over(&mut pod, look);
    space.make::<Pod>(pod).await;
    space.running("looks").await;
    let script = format!(
        "for p in /proc/[0-9]*; do if tr '\\0' ' ' < $p/cmdline | grep -q '[k]uration.* {role} .*--driver-name={} '; then \
         sed -n 's/^CapBnd:\t//p' $p/status; fi; done 2> /dev/null",
        space.driver.name()
    );
    let found = space.sh("looks", &script).await;
    let mut found: Vec<u64> =
        found.lines().map(|line| u64::from_str_radix(line, 16).expect("a set of capabilities")).collect();
    found.sort_unstable();
    found.dedup();
    assert!(!found.is_empty(), "no process of {}", space.driver.name());
    found
}

async fn a_node_plugin_keeps_the_one_capability_that_it_needs(space: &Space) {
    let found = bounds(space, "node").await;
    // CAP_SYS_ADMIN, for mounts (capability.h). A container that is privileged starts with all.
    assert_eq!(found, [1 << 21]);
}

async fn a_pools_process_gives_up_what_it_does_not_need(space: &Space) {
    let found = bounds(space, "all").await;
    let [bound] = found.as_slice() else { panic!("one set: {found:?}") };
    // None of CAP_NET_ADMIN, CAP_SYS_MODULE, CAP_SYS_PTRACE, CAP_SYS_BOOT, CAP_BPF (capability.h).
    for capability in [12, 16, 19, 22, 39] {
        assert_eq!(bound & (1 << capability), 0, "capability {capability} of {bound:x}");
    }
    assert_ne!(bound & (1 << 21), 0, "CAP_SYS_ADMIN, without which it could not mount");
}
