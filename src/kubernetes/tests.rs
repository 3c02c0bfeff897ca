//! Both parts against an API server made of a map.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{Bound, Lease, StartupTaint, bindings};
use crate::telemetry::Metrics;
use crate::volume::Claim;

const DRIVER: &str = "nfs.csi.kuration.io";
const KEY: &str = "nfs.csi.kuration.io/agent-not-ready";

/// An API server: objects by their path, written with resource versions.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

type Edit = Box<dyn FnOnce(&mut Value) + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Every request but watches: method and path.
    asked: Vec<String>,
    /// What somebody else changes just before the next patches.
    edits: VecDeque<Edit>,
    /// Requests that begin so are refused with this code.
    refused: Option<(&'static str, u16)>,
    /// Requests that begin so get no answer.
    silent: Option<&'static str>,
    /// The next watch is told that it is too late for it, as after a time without a connection.
    expired: bool,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(tower::service_fn(move |request| server.clone().serve(request)), "default")
    }

    fn put(&self, path: &str, object: Value) {
        self.state().put(path, object);
    }

    fn object(&self, path: &str) -> Value {
        self.state().objects.get(path).cloned().unwrap_or_default()
    }

    fn asked(&self, what: &str) -> usize {
        self.state().asked.iter().filter(|asked| asked.starts_with(what)).count()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.state().asked);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        let name = path.rsplit('/').next().unwrap();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object);
    }

    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let what = format!("{method} {path}");
        self.asked.push(what.clone());
        if let Some((_, code)) = self.refused.filter(|(begin, _)| what.starts_with(begin)) {
            let message = format!("nodes is forbidden: User \"system:serviceaccount:a:b\" cannot {what}");
            return failed(code, &message);
        }
        match method {
            "GET" if path.ends_with("nodes") || path.ends_with("persistentvolumes") => {
                let below = format!("{path}/");
                let items: Vec<_> = self.objects.iter().filter(|(at, _)| at.starts_with(&below)).collect();
                let items: Vec<_> = items.into_iter().map(|(_, object)| object.clone()).collect();
                (200, json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items}))
            }
            "POST" => {
                let name = body["metadata"]["name"].as_str().unwrap();
                let path = format!("{path}/{name}");
                if self.objects.contains_key(&path) {
                    return failed(409, "it exists");
                }
                self.put(&path, body.clone());
                (201, self.objects[&path].clone())
            }
            _ if !self.objects.contains_key(path) => failed(404, "not found"),
            "GET" => (200, self.objects[path].clone()),
            "PUT" => {
                let now = &self.objects[path]["metadata"]["resourceVersion"];
                if body["metadata"]["resourceVersion"] != *now {
                    return failed(409, "the object has been modified");
                }
                self.put(path, body.clone());
                (200, self.objects[path].clone())
            }
            "PATCH" => {
                let mut object = self.objects[path].clone();
                if let Some(edit) = self.edits.pop_front() {
                    edit(&mut object);
                    self.put(path, object.clone());
                }
                if !patched(&mut object, body) {
                    return failed(422, "a test of the patch failed");
                }
                self.put(path, object);
                (200, self.objects[path].clone())
            }
            other => panic!("{other}"),
        }
    }
}

fn failed(code: u16, message: &str) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "Other" };
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message, "reason": reason}))
}

/// The two operations of RFC 6902 that are needed; whether all of them went.
fn patched(object: &mut Value, steps: &Value) -> bool {
    steps.as_array().unwrap().iter().all(|step| {
        let path = step["path"].as_str().unwrap();
        match step["op"].as_str().unwrap() {
            "test" => object.pointer(path) == Some(&step["value"]),
            "remove" => {
                let (list, at) = path.rsplit_once('/').unwrap();
                let list = object.pointer_mut(list).unwrap().as_array_mut().unwrap();
                list.remove(at.parse().unwrap());
                true
            }
            other => panic!("{other}"),
        }
    })
}

impl Server {
    async fn serve(self, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let body = body.collect_bytes().await.unwrap();
        let watching = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
        let what = format!("{} {path}", parts.method);
        if self.state().silent.is_some_and(|begin| what.starts_with(begin)) {
            self.state().asked.push(what);
            return std::future::pending().await;
        }
        let expired = watching && std::mem::take(&mut self.state().expired);
        let (code, text) = if expired {
            let (_, status) = failed(410, "too old resource version");
            (200, format!("{}\n", json!({"type": "ERROR", "object": status})))
        } else if watching {
            // A watch that tells of all there is, and ends.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (_, list) = self.state().answer("GET", &path, &Value::Null);
            let events = list["items"].as_array().cloned().unwrap_or_default().into_iter();
            (
                200,
                events.map(|object| format!("{}\n", json!({"type": "MODIFIED", "object": object}))).collect(),
            )
        } else {
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) = self.state().answer(parts.method.as_str(), &path, &body);
            (code, answer.to_string())
        };
        Ok(Response::builder().status(code).body(Body::from(text.into_bytes())).unwrap())
    }
}

const NODE: &str = "/api/v1/nodes/n1";
const CSI_NODE: &str = "/apis/storage.k8s.io/v1/csinodes/n1";

fn node(keys: &[&str]) -> Value {
    let taints: Vec<_> = keys.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
    json!({"metadata": {}, "spec": {"taints": taints}})
}

fn keys(node: &Value) -> Vec<String> {
    let taints = node["spec"]["taints"].as_array().unwrap();
    taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}

fn csi_node(drivers: &[&str]) -> Value {
    let drivers: Vec<_> = drivers.iter().map(|name| json!({"name": name, "nodeID": "n1"})).collect();
    json!({"metadata": {}, "spec": {"drivers": drivers}})
}

/// Taints are removed in the background; what is counted of it.
fn removing(server: &Server) -> Metrics {
    let metrics = Metrics::new();
    tokio::spawn(StartupTaint::of(DRIVER).hasty().remove(server.client(), metrics.clone()));
    metrics
}

#[tokio::test]
async fn the_taint_goes_when_the_driver_is_registered_and_not_before() {
    let server = Server::default();
    server.put(NODE, node(&["other", KEY, "more"]));
    server.put(CSI_NODE, csi_node(&["another.driver"]));
    let metrics = removing(&server);
    server.until("both are watched", |server| server.asked("GET /api") > 6).await;
    assert_eq!(keys(&server.object(NODE)), ["other", KEY, "more"]);
    assert_eq!(server.asked("PATCH"), 0);
    server.put(CSI_NODE, csi_node(&["another.driver", DRIVER]));
    server.until("the taint is gone", |server| keys(&server.object(NODE)) == ["other", "more"]).await;
    assert!(metrics.text().unwrap().contains("kuration_startup_taints_removed_total 1"));
    assert_eq!(server.asked("PATCH"), 1);
    // Registered no more: nothing is put back, and a taint that comes now stays.
    server.put(CSI_NODE, csi_node(&[]));
    server.until("that is seen", |server| server.asked("GET /apis/storage") > 8).await;
    server.put(NODE, node(&[KEY]));
    server.until("that is seen", |server| server.asked("GET /api/v1/nodes") > 12).await;
    assert_eq!(keys(&server.object(NODE)), [KEY]);
}

#[tokio::test]
async fn a_node_that_somebody_changes_meanwhile_keeps_the_taints_of_others() {
    let server = Server::default();
    server.put(NODE, node(&["first", KEY]));
    server.put(CSI_NODE, csi_node(&[DRIVER]));
    // The place of our taint is another's when the patch comes, and then another one again.
    server.state().edits.push_back(Box::new(|object| *object = node(&[KEY, "neighbour"])));
    server.state().edits.push_back(Box::new(|object| *object = node(&["neighbour", "late", KEY])));
    removing(&server);
    server.until("the taint is gone", |server| !keys(&server.object(NODE)).contains(&KEY.to_owned())).await;
    assert_eq!(keys(&server.object(NODE)), ["neighbour", "late"]);
    assert_eq!(server.asked("PATCH"), 3);
}

#[tokio::test]
async fn what_fails_for_a_while_is_tried_again() {
    let server = Server::default();
    server.put(NODE, node(&[KEY]));
    server.put(CSI_NODE, csi_node(&[DRIVER]));
    server.state().refused = Some(("PATCH", 500));
    removing(&server);
    server.until("it was tried again", |server| server.asked("PATCH") > 2).await;
    server.state().refused = None;
    server.until("the taint is gone", |server| keys(&server.object(NODE)).is_empty()).await;
}

#[tokio::test]
async fn a_request_that_is_never_answered_is_given_up_and_made_again() {
    let server = Server::default();
    server.put(NODE, node(&[KEY]));
    server.put(CSI_NODE, csi_node(&[DRIVER]));
    server.state().silent = Some("PATCH");
    removing(&server);
    server.until("it was tried again", |server| server.asked("PATCH") > 2).await;
    server.state().silent = None;
    server.until("the taint is gone", |server| keys(&server.object(NODE)).is_empty()).await;
}

#[tokio::test]
async fn a_server_that_takes_a_request_and_says_nothing_holds_nobody_for_ever() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let client =
        super::client(kube::Config::new(server.parse().unwrap()), Duration::from_millis(200)).unwrap();
    let nodes = kube::api::Api::<k8s_openapi::api::core::v1::Node>::all(client);
    let list = tokio::spawn(async move { nodes.list(&Default::default()).await });
    let _connected = listener.accept().await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), list).await;
    assert!(answer.expect("an end").unwrap().is_err());
}

#[test]
fn a_missing_right_is_said_once_with_who_lacks_what() {
    let forbidden = |message: &str| -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status::failure(message, "Forbidden").with_code(403)))
    };
    let message =
        "nodes \"n1\" is forbidden: User \"system:serviceaccount:a:b\" cannot patch resource \"nodes\"";
    let words = super::words(&forbidden(message));
    assert!(
        words.contains(message) && words.contains("give the driver's service account this right"),
        "{words}"
    );
    let mut said = super::Said::default();
    assert!(said.is_new(&words));
    assert!(!said.is_new(&super::words(&forbidden(message))));
    assert!(said.is_new(&super::words(&forbidden("another"))));
    said.well("it");
    assert!(said.is_new(&super::words(&forbidden("another"))));
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/a/leases/reaper";

fn keeping(server: &Server, me: &str) -> watch::Receiver<bool> {
    let (sender, held) = watch::channel(false);
    let lease = Lease::new(server.client(), "a", "reaper", me.to_owned()).hasty();
    tokio::spawn(lease.keep(sender));
    held
}

fn holder(server: &Server) -> Value {
    server.object(LEASE)["spec"]["holderIdentity"].clone()
}

#[tokio::test]
async fn of_two_who_want_a_lease_one_holds_it_and_the_other_follows_when_it_is_gone() {
    let server = Server::default();
    let mut first = keeping(&server, "first");
    first.wait_for(|held| *held).await.unwrap();
    let mut second = keeping(&server, "second");
    // More than twice the lease's duration: a holder that renews keeps it.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(*first.borrow() && !*second.borrow());
    assert_eq!(holder(&server), "first");
    // The first goes away without a word.
    drop(first);
    second.wait_for(|held| *held).await.unwrap();
    assert_eq!(holder(&server), "second");
    assert_eq!(server.object(LEASE)["spec"]["leaseTransitions"], 2);
}

#[tokio::test]
async fn a_holder_that_cant_renew_takes_itself_for_none_before_another_may() {
    let server = Server::default();
    let mut held = keeping(&server, "first");
    held.wait_for(|held| *held).await.unwrap();
    server.state().refused = Some(("PUT", 500));
    let since = Instant::now();
    held.wait_for(|held| !*held).await.unwrap();
    assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
    server.state().refused = None;
    held.wait_for(|held| *held).await.unwrap();
}

#[tokio::test]
async fn who_finds_the_lease_taken_away_holds_it_no_longer() {
    let server = Server::default();
    let mut held = keeping(&server, "first");
    held.wait_for(|held| *held).await.unwrap();
    let mut lease = server.object(LEASE);
    lease["spec"]["holderIdentity"] = json!("another");
    server.put(LEASE, lease);
    held.wait_for(|held| !*held).await.unwrap();
    assert_eq!(holder(&server), "another");
}

const VOLUME: &str = "/api/v1/persistentvolumes/pvc-1";

fn volume(namespace: &str, phase: &str) -> Value {
    let source = json!({"driver": DRIVER, "volumeHandle": "pool1~x"});
    let claim = json!({"namespace": namespace, "name": "data"});
    json!({"metadata": {}, "spec": {"csi": source, "claimRef": claim}, "status": {"phase": phase}})
}

fn of(namespace: &str) -> Option<Bound> {
    let claim = Claim { namespace: namespace.into(), name: "data".into(), volume: "pvc-1".into() };
    Some(Bound { volume_id: "pool1~x".into(), claim })
}

/// Bindings are watched in the background.
fn binding(server: &Server) -> mpsc::Receiver<Bound> {
    let (sender, told) = mpsc::channel(1);
    tokio::spawn(bindings(server.client(), DRIVER.to_owned(), sender));
    told
}

#[tokio::test]
async fn a_claim_is_told_once_and_again_when_the_volume_has_another() {
    let server = Server::default();
    server.put(VOLUME, volume("one", "Bound"));
    let mut told = binding(&server);
    assert_eq!(told.recv().await, of("one"));
    // On its way to the next it is nobody's, and what was told is not told again.
    server.put(VOLUME, volume("one", "Released"));
    let seen = server.asked("GET");
    server.until("that is seen", |server| server.asked("GET") > seen + 3).await;
    assert!(told.try_recv().is_err());
    server.put(VOLUME, volume("two", "Bound"));
    assert_eq!(told.recv().await, of("two"));
}

#[tokio::test]
async fn a_volume_that_went_while_the_watch_was_broken_is_forgotten() {
    let server = Server::default();
    server.put(VOLUME, volume("one", "Bound"));
    let mut told = binding(&server);
    assert_eq!(told.recv().await, of("one"));
    server.state().objects.remove(VOLUME);
    server.state().expired = true;
    server.until("the watch is broken", |server| !server.state().expired).await;
    let seen = server.asked("GET");
    server.until("all is listed anew", |server| server.asked("GET") > seen + 2).await;
    server.put(VOLUME, volume("one", "Bound"));
    let again = tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
    assert_eq!(again.expect("it is another volume"), of("one"));
}
