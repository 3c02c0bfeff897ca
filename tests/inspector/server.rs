//! An API server of one machine's memory, as far as the controller asks one: lists, watches, applies, and says what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<Place, Value>,
    version: u64,
    asked: Vec<String>,
    /// Kinds of definitions that the cluster has beside our own.
    defined: Vec<String>,
    /// Every event there was, for watches that begin later than their list.
    past: Vec<(u64, String, Value)>,
}

/// The server. A clone is another handle on the same one.
#[derive(Clone)]
pub struct Server {
    held: Arc<Mutex<Held>>,
    events: broadcast::Sender<(String, Value)>,
    /// Where it is.
    pub url: String,
}

/// What of a path is what.
struct Asked {
    place: Place,
    status: bool,
    /// From which version on, where it is a watch.
    watch: Option<u64>,
    /// Which page of a list, by its first object, and how many there are on a page.
    page: (usize, usize),
}

fn parse(uri: &Uri) -> Option<Asked> {
    let mut parts = uri.path().trim_matches('/').split('/').peekable();
    let skip = if parts.next()? == "api" { 1 } else { 2 };
    let mut parts = parts.skip(skip).map(str::to_owned).collect::<Vec<_>>().into_iter();
    let first = parts.next()?;
    let (namespace, kind) =
        if first == "namespaces" { (parts.next()?, parts.next()?) } else { (String::new(), first) };
    let name = parts.next().unwrap_or_default();
    let status = parts.next().is_some_and(|part| part == "status");
    let query: Vec<&str> = uri.query().unwrap_or_default().split('&').collect();
    let number = |name: &str| {
        query.iter().find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    let watch = query.contains(&"watch=true").then(|| number("resourceVersion").unwrap_or(0));
    let page = (number("continue").unwrap_or(0) as usize, number("limit").unwrap_or(u64::MAX) as usize);
    Some(Asked { place: Place { kind, namespace, name }, status, watch, page })
}

fn answer(code: u16, body: &Value) -> Response {
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).unwrap()
}

fn refusal(code: u16, reason: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code });
    answer(code, &status)
}

impl Server {
    /// One that listens.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server { held: Arc::default(), events: broadcast::channel(1024).0, url };
        let routes = Router::new().fallback(serve).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        server
    }

    /// How to reach it, as a file that is gone with the handle.
    pub fn kubeconfig(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{ "name": "a", "cluster": { "server": self.url } }],
            "users": [{ "name": "a", "user": {} }],
            "contexts": [{ "name": "a", "context": { "cluster": "a", "user": "a" } }],
        });
        std::fs::write(file.path(), text.to_string()).unwrap();
        file
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    /// What was asked since this was last asked, leases and watches aside.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.held().asked)
    }

    /// From now on the cluster has the definition of such objects, which no cluster has by itself.
    pub fn define(&self, kind: &str) {
        self.held().defined.push(kind.to_owned());
    }

    /// An object as it is.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let place = Place { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        self.held().objects.get(&place).cloned()
    }

    /// How many objects there are of each kind.
    pub fn count(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        self.held().objects.keys().for_each(|place| *count.entry(place.kind.clone()).or_default() += 1);
        count
    }

    /// Puts an object there, in place of the one that was; everybody who watches is told.
    pub fn put(&self, kind: &str, object: Value) -> Value {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let place = Place { kind: kind.into(), namespace: text("namespace"), name: text("name") };
        self.keep(place, object)
    }

    /// Takes an object away.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let place = Place { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let mut held = self.held();
        if let Some(mut object) = held.objects.remove(&place) {
            held.version += 1;
            object["metadata"]["resourceVersion"] = held.version.to_string().into();
            self.tell(&mut held, place.kind, json!({ "type": "DELETED", "object": object }));
        }
    }

    fn tell(&self, held: &mut Held, kind: String, event: Value) {
        held.past.push((held.version, kind.clone(), event.clone()));
        drop(self.events.send((kind, event)));
    }

    fn keep(&self, place: Place, mut object: Value) -> Value {
        let mut held = self.held();
        held.version += 1;
        let version = held.version.to_string();
        let old = held.objects.get(&place);
        let uid = old.map_or_else(|| json!(format!("uid-{version}")), |old| old["metadata"]["uid"].clone());
        object["metadata"]["resourceVersion"] = version.into();
        object["metadata"]["uid"] = uid;
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        held.objects.insert(place.clone(), object.clone());
        self.tell(&mut held, place.kind, json!({ "type": kind, "object": object }));
        object
    }

    fn list(&self, of: &Place, (from, most): (usize, usize)) -> Response {
        let held = self.held();
        let here = |place: &Place| {
            place.kind == of.kind && (of.namespace.is_empty() || place.namespace == of.namespace)
        };
        let mut rest =
            held.objects.iter().filter(|(place, _)| here(place)).map(|(_, object)| object).skip(from);
        let items: Vec<&Value> = rest.by_ref().take(most).collect();
        let mut metadata = json!({ "resourceVersion": held.version.to_string() });
        if rest.next().is_some() {
            metadata["continue"] = (from + most).to_string().into();
        }
        answer(200, &json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items }))
    }

    fn watch(&self, kind: String, from: u64) -> Response {
        let held = self.held();
        let events = self.events.subscribe();
        let missed = held.past.iter().filter(|(version, of, _)| *version > from && *of == kind);
        let missed: Vec<String> = missed.map(|(_, _, event)| format!("{event}\n")).collect();
        drop(held);
        let told = stream::unfold((events, kind), |(mut events, kind)| async move {
            loop {
                match events.recv().await {
                    Ok((of, event)) if of == kind => return Some((format!("{event}\n"), (events, kind))),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        });
        let told = stream::iter(missed).chain(told).map(Ok::<_, std::io::Error>);
        Response::builder().header("content-type", "application/json").body(Body::from_stream(told)).unwrap()
    }

    fn write(&self, asked: Asked, method: &Method, body: Value) -> Response {
        let place = asked.place;
        let old = self.get(&place.kind, &place.namespace, &place.name);
        if asked.status {
            let Some(mut object) = old else { return refusal(404, "NotFound") };
            object["status"] = body["status"].clone();
            return answer(200, &self.keep(place, object));
        }
        if *method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let place = Place { name, ..place };
            if self.get(&place.kind, &place.namespace, &place.name).is_some() {
                return refusal(409, "AlreadyExists");
            }
            let mut object = body;
            object["metadata"]["namespace"] = place.namespace.clone().into();
            return answer(201, &self.keep(place, object));
        }
        let mut object = body;
        if let Some(old) = old {
            object["status"] = old["status"].clone();
        }
        answer(200, &self.keep(place, object))
    }
}

async fn serve(State(server): State<Server>, method: Method, uri: Uri, body: Bytes) -> Response {
    if uri.path() == "/apis/kuration.io/v1" {
        let kind = json!({ "name": "inspectiontasks", "singularName": "", "namespaced": true, "kind": "InspectionTask", "verbs": [] });
        return answer(
            200,
            &json!({ "kind": "APIResourceList", "groupVersion": "kuration.io/v1", "resources": [kind] }),
        );
    }
    let Some(asked) = parse(&uri) else { return refusal(404, "NotFound") };
    if asked.watch.is_none() && asked.place.kind != "leases" {
        server.held().asked.push(format!("{method} {}", uri.path()));
    }
    let unknown = uri.path().starts_with("/apis/openreports.io/") && {
        !server.held().defined.contains(&asked.place.kind)
    };
    if unknown {
        // In these words, and no object.
        return Response::builder().status(404).body(Body::from("404 page not found\n")).unwrap();
    }
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if let Some(from) = asked.watch {
        return server.watch(asked.place.kind, from);
    }
    match method {
        Method::GET if asked.place.name.is_empty() => server.list(&asked.place, asked.page),
        Method::GET => match server.get(&asked.place.kind, &asked.place.namespace, &asked.place.name) {
            Some(object) => answer(StatusCode::OK.as_u16(), &object),
            None => refusal(404, "NotFound"),
        },
        Method::DELETE => {
            server.remove(&asked.place.kind, &asked.place.namespace, &asked.place.name);
            answer(200, &json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
        }
        method => server.write(asked, &method, body),
    }
}
