//! Runs beside a real NFS server: its volume taken away, and storage that is broken in each way that a rule looks for.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::ground::{self, Ground, condition, kubectl, output, typed};
use super::running::SELDOM;

/// The node that serves, and one that has volumes of it.
pub const SERVER: &str = "nfs";
pub const CLIENT: &str = "nfs2";
/// The export of `tests/guest/nfsd`.
const ADDRESS: &str = "198.51.100.2";
const EXPORT: &str = "/xfs";

/// Does something to a node's machine.
async fn to(node: &'static str, what: &'static str) {
    let folder = std::env::var("KURATION_CLUSTER_TOOLS").expect(
        "this case breaks a machine and needs KURATION_CLUSTER_TOOLS, the folder of this repository's tests/cluster, and a \
         cluster made by it; leave such cases out by --skip machines --skip fleet",
    );
    let mut command = Command::new(PathBuf::from(folder).join("nfs-node"));
    command.env("NFS_NODE", node).arg(what);
    let done = tokio::task::spawn_blocking(move || output(&mut command)).await;
    done.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
}

/// Whether a node is ready, and keeps no pod away.
pub fn ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True") && !closed(node)
}

/// Whether a node keeps pods away: it is cordoned, or known not to answer.
pub fn closed(node: &Node) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).next().is_some()
}

/// Does what must be seen while a node does not answer, and lets it go on whatever came of it.
pub async fn without<T>(ground: &Ground, node: &'static str, look: impl Future<Output = T>) -> T {
    to(node, "freeze").await;
    let outcome = AssertUnwindSafe(look).catch_unwind().await;
    to(node, "thaw").await;
    let nodes = Api::<Node>::all(ground.client.clone());
    ground.until_so("the node is ready", async || ready(&nodes.get(node).await.expect("a node"))).await;
    outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

async fn without_the_server<T>(ground: &Ground, look: impl Future<Output = T>) -> T {
    without(ground, SERVER, look).await
}

/// A class of shares for results: an error rather than a wait without end. It begins with z: the controller takes the first class
/// of the driver for tasks that say none.
pub async fn share(ground: &Ground, retain: bool) -> String {
    let name = format!("z-{}-share{}", ground.name, if retain { "-retain" } else { "" });
    let class: StorageClass = typed(json!({
        "metadata": { "name": name },
        "provisioner": "nfs.csi.kuration.io",
        "parameters": { "server": ADDRESS, "share": EXPORT },
        "mountOptions": ["softerr", "timeo=50", "retrans=1"],
        "reclaimPolicy": if retain { "Retain" } else { "Delete" },
    }));
    Api::<StorageClass>::all(ground.client.clone()).create(&Default::default(), &class).await.unwrap();
    name
}

pub async fn gone(ground: &Ground, class: &str) {
    drop(Api::<StorageClass>::all(ground.client.clone()).delete(class, &DeleteParams::default()).await);
}

pub fn results(class: &str) -> Value {
    json!({ "volumeClaimTemplate": { "storageClassName": class, "resources": { "requests": { "storage": "64Mi" } } },
        "claimRetention": "Delete", "persistTimeoutSeconds": 8 })
}

/// What the index of the task's results says of its runs, newest first: how much is there of each.
async fn kept(ground: &Ground, task: &str) -> Vec<String> {
    let claim = ground.seen(task).await["status"]["claimName"].as_str().expect("a claim").to_owned();
    let reader = format!("reader-{task}");
    ground.reader_on(CLIENT, &reader, &claim).await;
    let directory = ground.directory(task).await;
    let index = ground.read(&reader, &format!("{directory}/index.json")).await;
    let whole = format!(
        "for d in {directory}/runs/*/*/*/*; do cd $d && sha256sum -c SHA256SUMS >/dev/null || exit 1; done"
    );
    ground.sh(&reader, &whole).await;
    ground.api::<Pod>().delete(&reader, &DeleteParams::default()).await.unwrap();
    let runs = index["runs"].as_array().expect("runs");
    runs.iter().map(|run| run["detail"].as_str().expect("a detail").to_owned()).collect()
}

#[test]
fn a_run_goes_on_while_the_server_of_its_volume_is_away_and_is_written_down_later() {
    ground::run_alone(async |ground: &Ground| {
        let class = share(ground, false).await;
        let rules = json!([{ "name": "api", "tcp": { "host": "10.96.0.1", "port": 443 } }]);
        let on = json!({ "nodeSelector": { "kubernetes.io/hostname": CLIENT } });
        let spec = json!({ "schedule": SELDOM, "target": "node/first", "rules": rules, "podTemplate": on, "results": results(&class) });
        ground.task("check", spec).await;
        let task = ground.run_now("check", "with the server").await;
        assert_eq!(condition(&task, "ResultsPersisted"), ("True".into(), "Written".into()), "{task}");
        let (task, took) = without_the_server(ground, async {
            let begun = Instant::now();
            (ground.run_now("check", "without the server").await, begun.elapsed())
        })
        .await;
        assert_eq!(condition(&task, "Healthy"), ("True".into(), "Passed".into()), "{task}");
        assert_eq!(condition(&task, "ResultsPersisted").0, "False", "{task}");
        assert!(took < Duration::from_secs(90), "{took:?}");
        let task = ground.run_now("check", "with the server again").await;
        assert_eq!(condition(&task, "ResultsPersisted"), ("True".into(), "Written".into()), "{task}");
        assert_eq!(kept(ground, "check").await, ["Full", "SummaryOnly", "Full"]);
        gone(ground, &class).await;
    });
}

#[test]
fn a_server_that_goes_away_under_a_run_costs_a_deadline_and_no_result() {
    ground::run_alone(async |ground: &Ground| {
        let class = share(ground, false).await;
        // A server that says nothing, so that there is time to take the volume away.
        ground.web("web").await;
        ground.sh("web", "nc -ll -p 9000 -e sleep 600 >/dev/null 2>&1 &").await;
        let address = ground.api::<Pod>().get("web").await.unwrap().status.and_then(|status| status.pod_ip);
        let rules = json!([
            { "name": "api", "tcp": { "host": "10.96.0.1", "port": 443 } },
            { "name": "slow", "timeoutSeconds": 12, "redis": { "host": address.unwrap(), "port": 9000 } },
        ]);
        let on = json!({ "nodeSelector": { "kubernetes.io/hostname": CLIENT } });
        let spec = json!({ "schedule": SELDOM, "target": "node/first", "rules": rules, "podTemplate": on, "results": results(&class) });
        ground.task("check", spec).await;
        ground.run_now("check", "with the server").await;
        ground.ask("check", "under way").await;
        let runs = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.labels().contains_key("kuration.io/task")
        };
        ground
            .until_so("a pod runs", async || {
                ground.api::<Pod>().list(&Default::default()).await.unwrap().iter().any(runs)
            })
            .await;
        let task = without_the_server(
            ground,
            ground.until("check", "has run twice", |task| {
                task["status"]["recentRuns"].as_array().is_some_and(|runs| runs.len() == 2)
            }),
        )
        .await;
        let (status, reason) = condition(&task, "ResultsPersisted");
        assert!(
            status == "False" && ["Timeout", "ETIMEDOUT", "EIO"].contains(&reason.as_str()),
            "{reason}: {task}"
        );
        // What it found is there all the same: one rule passed, and one found nobody that answers.
        let summary = &task["status"]["lastRun"]["summary"];
        assert_eq!(summary["pass"], 1, "{task}");
        let task = ground.run_now("check", "with the server again").await;
        assert_eq!(condition(&task, "ResultsPersisted").0, "True", "{task}");
        assert_eq!(kept(ground, "check").await, ["Full", "SummaryOnly", "Full"]);
        gone(ground, &class).await;
    });
}

/// An account that may look at all that the rules about storage look at.
async fn account(ground: &Ground) {
    let rules = json!([
        { "apiGroups": [""], "resources": ["persistentvolumes", "persistentvolumeclaims", "nodes", "pods", "events"], "verbs": ["get", "list"] },
        { "apiGroups": ["storage.k8s.io"], "resources": ["storageclasses", "csinodes", "volumeattachments"], "verbs": ["get", "list"] },
        { "apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get", "list"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list"] },
    ]);
    let name = &ground.name;
    ground.make::<ServiceAccount>(json!({ "metadata": { "name": "storage" } })).await;
    let role: ClusterRole = typed(json!({ "metadata": { "name": name }, "rules": rules }));
    Api::all(ground.client.clone()).create(&Default::default(), &role).await.unwrap();
    let binding: ClusterRoleBinding = typed(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": "storage", "namespace": name }],
    }));
    Api::all(ground.client.clone()).create(&Default::default(), &binding).await.unwrap();
}

/// How each rule came out in the last run: result, reason and the names of what it complains of.
fn outcomes(task: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rules = task["status"]["failingRules"].as_array().cloned().unwrap_or_default();
    rules.iter().map(|rule| (text(&rule["name"]), text(&rule["result"]), text(&rule["message"]))).collect()
}

#[test]
fn storage_that_is_broken_is_found_in_each_way_and_told_apart() {
    ground::run_alone(async |ground: &Ground| {
        account(ground).await;
        let (class, retains) = (share(ground, false).await, share(ground, true).await);
        let claim = |name: &str, class: &str| {
            json!({ "metadata": { "name": name }, "spec": { "accessModes": ["ReadWriteMany"],
                "storageClassName": class, "resources": { "requests": { "storage": "64Mi" } } } })
        };
        ground.make::<PersistentVolumeClaim>(claim("one", &retains)).await;
        ground.make::<PersistentVolumeClaim>(claim("two", &class)).await;
        ground.make::<PersistentVolumeClaim>(claim("full", &ground.pool_class().await.name_any())).await;
        ground.reader("writer", "full").await;
        let released = format!("object.spec.storageClassName == '{retains}'");
        let rules = json!([
            { "name": "export", "timeoutSeconds": 10, "nfs": { "server": ADDRESS, "export": EXPORT, "versions": ["4.1", "3"] } },
            { "name": "claims", "persistentVolumeClaims": { "pendingGraceSeconds": 5 } },
            { "name": "volumes", "resource": { "apiVersion": "v1", "kind": "PersistentVolume", "where": released },
              "assert": [{ "expr": "!(object.status.phase in ['Released', 'Failed'])", "message": "a released volume holds space" }] },
            { "name": "usage", "volumeUsage": { "source": "Driver" } },
            { "name": "driver", "csiDriver": { "name": "nfs.csi.kuration.io" },
              "assert": [{ "expr": "result.nodes.filter(n, n.name != 'first').all(n, n.registered && n.podReady)",
                           "message": "the driver is away from a node" }] },
        ]);
        let spec = json!({ "schedule": SELDOM, "target": "storageclass/".to_owned() + &class, "rules": rules,
            "serviceAccountName": "storage", "activeDeadlineSeconds": 120 });
        ground.task("check", spec).await;
        let bound = async |name: &str| {
            let claim = ground.api::<PersistentVolumeClaim>().get(name).await.unwrap();
            claim.status.and_then(|status| status.phase).as_deref() == Some("Bound")
        };
        ground.until_so("all are bound", async || bound("one").await && bound("two").await).await;
        // The kubelet asks a volume's usage once a minute.
        ground.until("check", "is ready", |task| condition(task, "Ready").0 == "True").await;
        let mut asked = 0;
        ground
            .until_so("all is well", async || {
                asked += 1;
                let task = ground.run_now("check", &format!("well {asked}")).await;
                let found = outcomes(&task);
                // Nothing is false but that nobody has measured yet.
                let unmeasured = found.iter().all(|(rule, result, _)| rule == "usage" && result == "error");
                assert!(unmeasured, "{found:?}");
                found.is_empty()
            })
            .await;

        // Five things break.
        let volume = ground.api::<PersistentVolumeClaim>().get("one").await.unwrap();
        let volume = volume.spec.and_then(|spec| spec.volume_name).expect("a volume");
        ground.api::<PersistentVolumeClaim>().delete("one", &DeleteParams::default()).await.unwrap();
        ground.make::<PersistentVolumeClaim>(claim("waits", "z-there-is-no-such-class")).await;
        ground.sh("writer", "dd if=/dev/urandom of=/data/fill bs=1M count=59 2>/dev/null; sync").await;
        let set = |selector: &str| {
            let patch = format!("{{\"spec\":{{\"template\":{{\"spec\":{{\"nodeSelector\":{selector}}}}}}}}}");
            let set = kubectl(&["-n", "kuration-system", "get", "daemonset", "-o", "name"]).unwrap();
            let set = set.lines().find(|name| name.contains("nfs")).expect("the node plugin's").to_owned();
            kubectl(&["-n", "kuration-system", "patch", &set, "--type=merge", "-p", &patch]).unwrap();
        };
        set("{\"kuration.io/nowhere\":\"true\"}");
        // Long enough for the grace of a claim, the kubelet's next look at volumes, and pods that go.
        tokio::time::sleep(Duration::from_secs(75)).await;
        let task = without_the_server(ground, ground.run_now("check", "broken")).await;
        set("null");
        let found = outcomes(&task);
        let about = |rule: &str| {
            let one = found.iter().find(|(name, ..)| name == rule);
            let (_, result, message) = one.unwrap_or_else(|| panic!("{rule} is well: {task}"));
            assert_eq!(result, "fail", "{rule}: {message}");
            message.clone()
        };
        for (rule, word) in [
            ("export", ADDRESS),
            ("claims", "waits"),
            ("volumes", "released"),
            ("usage", "full"),
            ("driver", "away"),
        ] {
            let message = about(rule);
            assert!(message.contains(word), "{rule}: {message}");
        }
        assert_eq!(found.len(), 5, "{found:?}");
        drop(
            Api::<PersistentVolume>::all(ground.client.clone())
                .delete(&volume, &DeleteParams::default())
                .await,
        );
        for cluster in ["clusterrole", "clusterrolebinding"] {
            drop(kubectl(&["delete", cluster, &ground.name]));
        }
        gone(ground, &class).await;
        gone(ground, &retains).await;
        ground
            .until_so("the driver is back", async || {
                let shown =
                    kubectl(&["-n", "kuration-system", "rollout", "status", "daemonset", "--timeout=5s"]);
                shown.is_ok()
            })
            .await;
    });
}
