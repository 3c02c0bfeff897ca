//! Releases of the chart beside the suite's own, each with a driver of its own name: attached shares, limits, and what an
//! upgrade, a rollback and an uninstallation leave alone.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, StorageClass, VolumeAttachment};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use tokio::time::{Duration, Instant};

use super::space::{self, PATIENCE, Space};
use super::{objects, rights, site};

crate::alone!(share_alone: Share; a_start_up_taint_goes_when_the_driver_is_registered,
    a_start_up_taint_on_the_controllers_own_node_goes_too);
crate::for_driver!(pool: Pool; a_pool_that_never_gets_ready_is_mended_by_an_upgrade);
crate::for_driver!(share: Share; a_share_that_is_attached_knows_its_limit,
    nfs_3_keeps_its_locks_where_the_controller_is_on_the_nodes_network,
    upgrade_rollback_and_uninstallation_leave_volumes_alone,
    a_kubelet_directory_that_is_not_there_is_named);

const RELEASE: &str = "second";

/// A release in the case's namespace.
struct Release<'a> {
    space: &'a Space,
    /// What it is to be, without what tells it from others.
    values: Value,
}

impl<'a> Release<'a> {
    /// A driver for shares alone. `port`: the first of 20 on the nodes' network that no other release has.
    fn new(space: &'a Space, port: u16, more: Value) -> Self {
        let mut values = space.site.values();
        let own = json!({
            "pool": null,
            "nfs": {
                "driverName": Self::driver(space),
                "controller": { "replicas": 1 },
                "node": { "port": port },
            },
            "storageClasses": [{
                "name": Self::class(space),
                "driver": "nfs",
                "parameters": { "server": space.site.nfs_server, "share": space.site.nfs_share },
            }],
        });
        objects::lay_over(&mut values, own);
        objects::lay_over(&mut values, more);
        Self { space, values }
    }

    /// A driver for a pool alone, in a directory of the suite's own pool.
    fn of_pool(space: &'a Space, more: Value) -> Self {
        let mut values = space.site.values();
        let own = json!({
            "nfs": { "enabled": false },
            "pool": {
                "driverName": Self::driver(space),
                "directory": format!("{}/{}", space.site.pool_directory(), space.name),
            },
            "storageClasses": [{ "name": Self::class(space), "driver": "pool" }],
        });
        objects::lay_over(&mut values, own);
        objects::lay_over(&mut values, more);
        Self { space, values }
    }

    fn driver(space: &Space) -> String {
        format!("{}.csi.kuration.io", space.name)
    }

    /// Gone with the case: its name begins with the namespace's.
    fn class(space: &Space) -> String {
        format!("{}-class", space.name)
    }

    /// `helm VERB… RELEASE`.
    async fn helm(&self, arguments: &[&str]) -> Result<String, String> {
        let values = site::values(&self.values);
        let (chart, namespace) = (site::chart(), self.space.name.clone());
        let mut words: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        if arguments[0] == "upgrade" {
            words.push(chart.display().to_string());
            words.extend([
                "--install".to_owned(),
                "--values".to_owned(),
                values.path().display().to_string(),
            ]);
            words.extend(
                site::variable("KURATION_VALUES").into_iter().flat_map(|file| ["--values".to_owned(), file]),
            );
        }
        let done = tokio::task::spawn_blocking(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            site::helm(&namespace, &words)
        });
        let done = done.await.expect("no panic");
        drop(values);
        done
    }

    /// Installs it, or changes it to its values, and waits until it works.
    async fn apply(&self) -> Result<String, String> {
        self.helm(&["upgrade", RELEASE, "--wait", "--timeout", "3m"]).await
    }

    /// That nothing it asked of the API server was denied. Before it is uninstalled: what still ends then has no rights any more.
    async fn was_denied_nothing(&self) {
        // Where there is no log, a case of `rights` says so by failing.
        if site::variable(rights::AUDIT_LOG).is_none() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (asked, denied) = rights::calls(&self.space.name);
            assert!(denied.is_empty(), "denied: {denied:#?}");
            if asked > 0 {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the release's accounts have asked the API server for nothing"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The case, and the release taken away however it ends: what belongs to no namespace would stay.
    async fn during(&self, case: impl Future<Output = ()>) {
        let outcome = AssertUnwindSafe(case).catch_unwind().await;
        let gone = self.helm(&["uninstall", RELEASE, "--ignore-not-found", "--wait"]).await;
        outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
        gone.unwrap_or_else(|error| panic!("{error}"));
    }
}

async fn a_share_that_is_attached_knows_its_limit(space: &Space) {
    let release = Release::new(
        space,
        29760,
        json!({ "nfs": {
            "attachRequired": true,
            "nodeAllocatableUpdatePeriodSeconds": 10,
            "node": { "maxVolumesPerNode": 2 },
        } }),
    );
    release
        .during(async {
            release.apply().await.unwrap_or_else(|error| panic!("{error}"));
            let driver = Release::driver(space);
            assert_eq!(space.all::<CSIDriver>().get(&driver).await.unwrap().spec.attach_required, Some(true));
            let node = space.all::<CSINode>().get(space.node()).await.unwrap();
            let registered = node.spec.drivers.iter().find(|one| one.name == driver).expect("registered");
            assert_eq!(registered.allocatable.as_ref().and_then(|allocatable| allocatable.count), Some(2));
            for number in 1..=3 {
                let (claim, pod) = (format!("data-{number}"), format!("pod-{number}"));
                space.claim_of(&claim, &Release::class(space)).await;
                space.bound(&claim).await;
                space.pod(&pod, &claim, json!({})).await;
                if number < 3 {
                    space.running(&pod).await;
                    space.sh(&pod, "echo x > /data/note").await;
                }
            }
            space.event("Pod", "pod-3", &["exceed max volume count"]).await;
            let volume = space.bound("data-1").await.name_any();
            let attachments =
                space.all::<VolumeAttachment>().list(&ListParams::default()).await.unwrap().items;
            let attachment = attachments
                .iter()
                .find(|one| one.spec.source.persistent_volume_name.as_deref() == Some(&volume));
            assert!(attachment.and_then(|one| one.status.as_ref()).is_some_and(|status| status.attached));
            // One place is free again.
            space.end("pod-1").await;
            space.running("pod-3").await;
            // A limit that is changed reaches the scheduler while pods run: the new node plugin registers itself.
            let more = json!({ "nfs": { "node": { "maxVolumesPerNode": 3 } } });
            let mut wider = Release { space, values: release.values.clone() };
            objects::lay_over(&mut wider.values, more);
            wider.apply().await.unwrap_or_else(|error| panic!("{error}"));
            let known = |node: &CSINode| {
                let of = node.spec.drivers.iter().find(|one| one.name == driver);
                of.and_then(|one| one.allocatable.as_ref()?.count) == Some(3)
            };
            space.until(space.all::<CSINode>(), space.node(), "allows three volumes", known).await;
            space.pod("pod-1", "data-1", json!({})).await;
            space.running("pod-1").await;
            // Without a new plugin, the kubelet asks again every ten seconds, and sets right what stands there.
            space
                .amend(space.all::<CSINode>(), space.node(), |node| {
                    let of = node.spec.drivers.iter_mut().find(|one| one.name == driver);
                    of.and_then(|one| one.allocatable.as_mut()).expect("a limit").count = Some(9);
                })
                .await;
            space.until(space.all::<CSINode>(), space.node(), "allows three volumes again", known).await;
            space.empty().await;
            wider.was_denied_nothing().await;
        })
        .await;
}

fn has_taint(node: &Node, key: &str) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == key)
}

async fn a_start_up_taint_goes_when_the_driver_is_registered(space: &Space) {
    start_up_taint(space, "NoSchedule", json!({})).await;
}

async fn a_start_up_taint_on_the_controllers_own_node_goes_too(space: &Space) {
    // There is no other node for it, and this effect ends what runs already.
    let there = objects::among(&[space.node().to_owned()]);
    start_up_taint(space, "NoExecute", json!({ "nfs": { "controller": { "affinity": there } } })).await;
}

async fn start_up_taint(space: &Space, effect: &str, more: Value) {
    let driver = Release::driver(space);
    let (ours, other) = (format!("{driver}/agent-not-ready"), format!("{driver}/somebody-elses"));
    let is_registered = async || {
        let node = space.all::<CSINode>().get(space.node()).await.unwrap();
        node.spec.drivers.iter().any(|one| one.name == driver)
    };
    let mut release = Release::new(space, 29820, json!({ "startupTaint": true }));
    objects::lay_over(&mut release.values, more);
    let mut without_nodes = Release { space, values: release.values.clone() };
    without_nodes.values["nfs"]["node"]["affinity"] = objects::among(&["no-such-node".to_owned()]);

    let nodes = space.all::<Node>();
    let outcome = AssertUnwindSafe(async {
        space
            .amend(nodes.clone(), space.node(), |node| {
                let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
                for (key, effect) in [(&other, "PreferNoSchedule"), (&ours, effect)] {
                    taints.push(objects::typed(json!({ "key": key, "effect": effect })));
                }
            })
            .await;
        let case = async {
            without_nodes.apply().await.unwrap_or_else(|error| panic!("{error}"));
            let waits = || objects::pod("waits", space.node(), json!({ "emptyDir": {} }));
            space.make::<Pod>(waits()).await;
            space.event("Pod", "waits", &["untolerated taint"]).await;
            // The controller has long seen it.
            let node = nodes.get(space.node()).await.unwrap();
            assert!(has_taint(&node, &ours) && !is_registered().await, "gone before its time");

            release.apply().await.unwrap_or_else(|error| panic!("{error}"));
            let gone = |node: &Node| !has_taint(node, &ours);
            let node = space.until(nodes.clone(), space.node(), "has lost the start-up taint", gone).await;
            assert!(has_taint(&node, &other), "a taint that is not the driver's own is gone");
            assert!(is_registered().await, "gone before its time");
            // A kubelet that learns late that the taint is gone turns down a pod that comes at once, for good: whoever has
            // made the pod makes another.
            let turned_down = |pod: &Pod| {
                let status = pod.status.as_ref().and_then(|status| status.reason.as_deref());
                status == Some("TaintToleration")
            };
            let settled = |pod: &Pod| space::ready(pod) || turned_down(pod);
            let pods = space.api::<Pod>();
            if turned_down(&space.until(pods, "waits", "is Ready, or turned down", settled).await) {
                space.end("waits").await;
                space.make::<Pod>(waits()).await;
            }
            space.running("waits").await;
            release.was_denied_nothing().await;
        };
        release.during(case).await;
    });
    let outcome = outcome.catch_unwind().await;
    space
        .amend(nodes.clone(), space.node(), |node| {
            if let Some(taints) = node.spec.as_mut().and_then(|spec| spec.taints.as_mut()) {
                taints.retain(|taint| taint.key != ours && taint.key != other);
            }
        })
        .await;
    outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
}

async fn nfs_3_keeps_its_locks_where_the_controller_is_on_the_nodes_network(space: &Space) {
    // Where rpc.statd is: a pod's own network has none, and the default is refused there with the remedy.
    let more = json!({
        "nfs": { "controller": { "hostNetwork": true, "port": 29850, "replicas": 1 } },
        "storageClasses": [{
            "name": Release::class(space),
            "driver": "nfs",
            "mountOptions": ["vers=3"],
            "parameters": { "server": space.site.nfs_server, "share": space.site.nfs_share },
        }],
    });
    let release = Release::new(space, 29840, more);
    release
        .during(async {
            release.apply().await.unwrap_or_else(|error| panic!("{error}"));
            space.claim_of("data", &Release::class(space)).await;
            space.pod("pod", "data", json!({})).await;
            space.running("pod").await;
            let options = space.sh("pod", "grep ' /data nfs' /proc/mounts").await;
            assert!(options.contains("vers=3") && !options.contains("nolock"), "{options}");
            // The controller takes a lock for this.
            space.resize("data", "128Mi").await;
            let grown = |claim: &PersistentVolumeClaim| {
                let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
                capacity.and_then(|capacity| capacity.get("storage")).is_some_and(|size| size.0 == "128Mi")
            };
            space.until(space.api::<PersistentVolumeClaim>(), "data", "has 128 MiB", grown).await;
            space.end("pod").await;
            space.empty().await;
            release.was_denied_nothing().await;
        })
        .await;
}

async fn upgrade_rollback_and_uninstallation_leave_volumes_alone(space: &Space) {
    let first = Release::new(space, 29780, json!({}));
    let mut release = Release { space, values: first.values.clone() };
    objects::lay_over(&mut release.values, json!({ "logLevel": 4 }));
    release
        .during(async {
            first.apply().await.unwrap_or_else(|error| panic!("{error}"));
            space.claim_of("data", &Release::class(space)).await;
            space.pod("pod", "data", json!({})).await;
            space.running("pod").await;
            space.sh("pod", "echo kept > /data/note && sync").await;
            let volume = space.bound("data").await;
            release.apply().await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(space.sh("pod", "cat /data/note && echo upgraded >> /data/note").await, "kept");
            release
                .helm(&["rollback", RELEASE, "1", "--wait"])
                .await
                .unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(
                space.sh("pod", "echo back >> /data/note && cat /data/note").await,
                "kept\nupgraded\nback"
            );
            // Kubernetes never changes a class: the chart says so before it tries.
            let mut other = Release { space, values: first.values.clone() };
            other.values["storageClasses"][0]["parameters"]["onDelete"] = json!("retain");
            let refused = other.apply().await.expect_err("a class with other parameters");
            assert!(refused.contains("give the class a new name"), "{refused}");
            // Nor whether volumes are attached.
            let mut other = Release { space, values: first.values.clone() };
            other.values["nfs"]["attachRequired"] = json!(true);
            let refused = other.apply().await.expect_err("another attachRequired");
            assert!(refused.contains("install under a new name"), "{refused}");

            release.was_denied_nothing().await;
            release.helm(&["uninstall", RELEASE, "--wait"]).await.unwrap_or_else(|error| panic!("{error}"));
            assert!(space.all::<StorageClass>().get_opt(&Release::class(space)).await.unwrap().is_none());
            // The pod runs on, and what it writes is kept; the claim and its volume are as they were.
            assert_eq!(space.sh("pod", "echo alone >> /data/note && tail -n 1 /data/note").await, "alone");
            let claim = space.api::<PersistentVolumeClaim>().get("data").await.unwrap();
            assert_eq!(space::phase(&claim), "Bound");
            let left = space.all::<PersistentVolume>().get(&volume.name_any()).await.unwrap();
            assert_eq!(left.uid(), volume.uid());

            // Installed again, it knows its volumes.
            release.apply().await.unwrap_or_else(|error| panic!("{error}"));
            space.end("pod").await;
            space.pod("pod", "data", json!({})).await;
            space.running("pod").await;
            assert_eq!(space.sh("pod", "cat /data/note").await, "kept\nupgraded\nback\nalone");
            space.empty().await;
        })
        .await;
}

async fn a_kubelet_directory_that_is_not_there_is_named(space: &Space) {
    let release = Release::new(space, 29800, json!({ "kubeletDir": "/no/such/kubelet" }));
    release
        .during(async {
            let failed = release.helm(&["upgrade", RELEASE, "--wait", "--timeout", "15s"]).await;
            failed.expect_err("it can't work");
            let deadline = Instant::now() + PATIENCE;
            loop {
                let events = space.api::<Event>().list(&ListParams::default()).await.unwrap().items;
                let mut said = events.iter().filter_map(|event| event.message.as_deref());
                if said.any(|message| message.contains("/no/such/kubelet")) {
                    break;
                }
                assert!(Instant::now() < deadline, "no event names the directory: {events:#?}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            release.was_denied_nothing().await;
        })
        .await;
}

async fn a_pool_that_never_gets_ready_is_mended_by_an_upgrade(space: &Space) {
    let broken = Release::of_pool(space, json!({ "pool": { "extraArgs": ["--nonsense"] } }));
    let mended = Release::of_pool(space, json!({}));
    let the_pod = async || {
        let of = ListParams::default().labels("app.kubernetes.io/component=pool");
        let mut found = space.api::<Pod>().list(&of).await.unwrap().items;
        assert_eq!(found.len(), 1, "{found:#?}");
        found.remove(0)
    };
    mended
        .during(async {
            let failed = broken.helm(&["upgrade", RELEASE, "--wait", "--timeout", "15s"]).await;
            failed.expect_err("it can't work");
            let old = the_pod().await;
            assert!(!space::ready(&old), "{old:#?}");
            mended.apply().await.unwrap_or_else(|error| panic!("{error}"));
            let new = the_pod().await;
            assert!(space::ready(&new) && new.uid() != old.uid(), "{new:#?}");
            space.claim_of("data", &Release::class(space)).await;
            space.pod("pod", "data", json!({})).await;
            space.running("pod").await;
            space.sh("pod", "echo x > /data/note").await;
            space.empty().await;
            mended.was_denied_nothing().await;
        })
        .await;
}
