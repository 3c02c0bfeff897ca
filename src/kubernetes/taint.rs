//! The start-up taint: keeps workloads off a node until the driver's node part is registered there.
//!
//! A node joins with the taint `DRIVER/agent-not-ready` (by the kubelet's `--register-with-taints` or a cloud's node group). Once
//! its CSINode lists the driver, the taint goes. The controller does that, so that no node needs the right to change nodes. A
//! taint that somebody puts on later goes in the same way; of a driver that is unregistered, nothing is done.
//!
//! Rights: nodes get, list, watch, patch; csinodes list, watch.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use super::{Said, code, no_answer, watch_trouble};
use crate::telemetry::Metrics;

/// What stands behind the driver's name in the taint's key.
const SUFFIX: &str = "agent-not-ready";

/// How often a patch is tried at once where somebody else changed the node in between.
const AT_ONCE: u32 = 5;

/// How long to wait before a node is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Longer the answers about one node are not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for an event where nothing else is to be done.
const IDLE: Duration = Duration::from_secs(3600);

/// The start-up taint of one driver.
#[derive(Debug, Clone)]
pub struct StartupTaint {
    driver: String,
    key: String,
    again: Duration,
    patience: Duration,
}

impl StartupTaint {
    /// That of the driver of this name.
    pub fn of(driver: &str) -> Self {
        let key = format!("{driver}/{SUFFIX}");
        Self { driver: driver.to_owned(), key, again: AGAIN, patience: PATIENCE }
    }

    /// Takes the taint off nodes for as long as the process runs.
    pub async fn remove(self, client: Client, metrics: Metrics) {
        let (nodes, csi_nodes): (Api<Node>, Api<CSINode>) =
            (Api::all(client.clone()), Api::all(client.clone()));
        let seen_nodes = watcher(nodes.clone(), watcher::Config::default()).default_backoff();
        let seen_nodes = seen_nodes.map(|event| event.map(|event| Seen::of(event, |node| self.is_on(node))));
        let seen_csi = watcher(csi_nodes, watcher::Config::default()).default_backoff();
        let seen_csi =
            seen_csi.map(|event| event.map(|event| Seen::of(event, |node| self.is_registered(node))));
        let events = stream::select(
            seen_nodes.map(|event| (Kind::Tainted, event)),
            seen_csi.map(|event| (Kind::Registered, event)),
        );
        let mut events = pin!(events);
        let (mut known, mut not_before) = (Known::default(), Instant::now());
        let (mut watching, mut patching) = ([Said::default(), Said::default()], Said::default());
        loop {
            // Without a node that waits there is nothing to try again.
            let pause = if known.due().is_empty() { Instant::now() + IDLE } else { not_before };
            if let Ok(next) = tokio::time::timeout_at(pause, events.next()).await {
                let Some((kind, event)) = next else { return };
                let said = &mut watching[kind as usize];
                match event {
                    Ok(seen) => {
                        // Without the right to watch, a list may go well all the same, again and again.
                        if matches!(seen, Seen::Change(..)) {
                            said.well("watching nodes for the start-up taint");
                        }
                        known.note(kind, seen);
                    }
                    // The watcher's own pauses begin anew with each try to list.
                    Err(error) => {
                        watch_trouble(said, "nodes can't be watched for the start-up taint", error);
                        tokio::time::sleep(self.again).await;
                    }
                }
            }
            if Instant::now() < not_before {
                continue;
            }
            for node in known.due() {
                let removed = tokio::time::timeout(self.patience, self.untaint(&nodes, &node)).await;
                match removed.unwrap_or_else(|_| Err(no_answer())) {
                    Ok(removed) => {
                        patching.well("removing the start-up taint");
                        known.tainted.remove(&node);
                        if removed {
                            metrics.startup_taint_removed();
                            tracing::info!(node, taint = self.key, "the start-up taint is removed");
                        }
                    }
                    // The others are tried in the next round, which would most likely meet the same.
                    Err(error) => {
                        patching.trouble("the start-up taint can't be removed", &error);
                        not_before = Instant::now() + self.again;
                        break;
                    }
                }
            }
        }
    }

    /// Whether the driver is registered on a node.
    fn is_registered(&self, node: &CSINode) -> bool {
        node.spec.drivers.iter().any(|driver| driver.name == self.driver)
    }

    /// Whether a node has the taint, whatever its effect.
    fn is_on(&self, node: &Node) -> bool {
        taints(node).iter().any(|taint| taint.key == self.key)
    }

    /// What takes the taint off `node`; `None` where it is not on it.
    ///
    /// A taint is named by its place in the list, and each removal tests that the key there is ours: where somebody changed
    /// the list in between, the API server refuses the whole patch, and no neighbour's taint is lost.
    fn patch(&self, node: &Node) -> Option<serde_json::Value> {
        let mut steps = Vec::new();
        // From the end, so that the places before it stay what they are.
        for (at, _) in taints(node).iter().enumerate().rev().filter(|(_, taint)| taint.key == self.key) {
            steps.push(json!({"op": "test", "path": format!("/spec/taints/{at}/key"), "value": self.key}));
            steps.push(json!({"op": "remove", "path": format!("/spec/taints/{at}")}));
        }
        (!steps.is_empty()).then_some(steps.into())
    }

    /// Takes the taint off one node; whether it was on it.
    async fn untaint(&self, nodes: &Api<Node>, name: &str) -> Result<bool, kube::Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(node) = nodes.get_opt(name).await? else { return Ok(false) };
            let Some(patch) = self.patch(&node) else { return Ok(false) };
            let patch = Patch::Json::<()>(serde_json::from_value(patch).map_err(kube::Error::SerdeError)?);
            match nodes.patch(name, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(true),
                Err(error) if code(&error) == Some(404) => return Ok(false),
                // A conflict, or a test that failed: somebody changed the node in between.
                Err(error) if tries < AT_ONCE && matches!(code(&error), Some(409 | 422)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nodes, which have the taint or not.
    Tainted,
    /// CSINodes, which list the driver or not.
    Registered,
}

/// What a watch saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It begins anew: what was seen before may be gone.
    Anew,
    /// All there is has been seen.
    All,
    /// An object of the list, and whether it is one of those that are looked for.
    One(String, bool),
    /// The same of one that changed.
    Change(String, bool),
}

impl Seen {
    fn of<K: ResourceExt>(event: watcher::Event<K>, is_one: impl Fn(&K) -> bool) -> Self {
        match event {
            watcher::Event::Init => Self::Anew,
            watcher::Event::InitDone => Self::All,
            watcher::Event::InitApply(object) => Self::One(object.name_any(), is_one(&object)),
            watcher::Event::Apply(object) => Self::Change(object.name_any(), is_one(&object)),
            watcher::Event::Delete(object) => Self::Change(object.name_any(), false),
        }
    }
}

/// What is known of nodes: two sets of names, and no more of any node than that.
#[derive(Debug, Default)]
struct Known {
    tainted: BTreeSet<String>,
    registered: BTreeSet<String>,
}

impl Known {
    fn note(&mut self, kind: Kind, seen: Seen) {
        let set = match kind {
            Kind::Tainted => &mut self.tainted,
            Kind::Registered => &mut self.registered,
        };
        match seen {
            Seen::Anew => set.clear(),
            Seen::All => {}
            Seen::One(name, true) | Seen::Change(name, true) => drop(set.insert(name)),
            Seen::One(name, false) | Seen::Change(name, false) => drop(set.remove(&name)),
        }
    }

    /// The nodes whose taint is to go.
    fn due(&self) -> Vec<String> {
        self.tainted.intersection(&self.registered).cloned().collect()
    }
}

#[cfg(test)]
impl StartupTaint {
    /// The same, less patient.
    pub(super) fn hasty(mut self) -> Self {
        self.again = Duration::from_millis(20);
        self.patience = Duration::from_millis(200);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(keys: &[&str]) -> Node {
        let taints: Vec<_> = keys.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"taints": taints}})).unwrap()
    }

    #[test]
    fn a_patch_takes_off_ours_of_every_effect_from_the_end_and_tests_each() {
        let taint = StartupTaint::of("a.b");
        let patch = taint.patch(&node(&["a.b/agent-not-ready", "other", "a.b/agent-not-ready"])).unwrap();
        let key = "a.b/agent-not-ready";
        let steps = json!([
            {"op": "test", "path": "/spec/taints/2/key", "value": key},
            {"op": "remove", "path": "/spec/taints/2"},
            {"op": "test", "path": "/spec/taints/0/key", "value": key},
            {"op": "remove", "path": "/spec/taints/0"},
        ]);
        assert_eq!(patch, steps);
        assert_eq!(taint.patch(&node(&["other", "a.bc/agent-not-ready", "a.b/other"])), None);
        assert_eq!(taint.patch(&Node::default()), None);
    }

    #[test]
    fn a_node_is_due_when_it_is_tainted_and_registered_and_no_longer() {
        let mut known = Known::default();
        let mut after = |kind, seen| {
            known.note(kind, seen);
            known.due()
        };
        let one = |is| Seen::One("n".to_owned(), is);
        assert!(after(Kind::Tainted, one(true)).is_empty());
        assert_eq!(after(Kind::Registered, one(true)), ["n"]);
        assert!(after(Kind::Tainted, one(false)).is_empty());
        assert_eq!(after(Kind::Tainted, one(true)), ["n"]);
        assert!(after(Kind::Registered, Seen::Anew).is_empty());
        assert!(after(Kind::Registered, Seen::All).is_empty());
        assert_eq!(after(Kind::Registered, one(true)), ["n"]);
    }
}
