//! What was seen of the cluster: of each watched object as little as decisions read, as JSON, by the task that it belongs to.
//!
//! A thousand tasks have ten thousand Jobs and as many pods, of which each takes kilobytes as a Rust value, most of it fields
//! that are not set. Packed they take a tenth. And since what no decision reads is not kept, a change of it is none.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector::ObjectRef};
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::super::task::InspectionTask;
use crate::kubernetes::{Said, watch_trouble};

/// A task, by its namespace and its name. What belongs to a whole namespace has no name, and what belongs to the cluster has
/// neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub task: String,
}

impl Key {
    /// That of the task `task` in `namespace`.
    pub fn new(namespace: &str, task: &str) -> Self {
        Key { namespace: namespace.to_owned(), task: task.to_owned() }
    }

    /// As a queue takes it.
    pub fn reference<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
        ObjectRef::new(&self.task).within(&self.namespace)
    }
}

impl From<&InspectionTask> for Key {
    fn from(task: &InspectionTask) -> Self {
        Key { namespace: task.namespace().unwrap_or_default(), task: task.name_any() }
    }
}

/// A kind that is watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Send + 'static
{
    /// Its objects, in a word.
    const WHAT: &'static str;

    /// Whose it is; none where it is no task's.
    fn belongs(&self) -> Option<Key>;

    /// Without what no decision reads.
    fn bare(self) -> Self;
}

/// The objects of a task, packed, in the order of their names. There are few: a tree's node has room for eleven, and would be
/// larger than what is in it.
#[derive(Default, PartialEq)]
struct Own(Vec<(Box<str>, Box<[u8]>)>);

impl Own {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        let (_, packed) = self.0.get(self.place(name).ok()?)?;
        Some(packed)
    }

    fn put(&mut self, name: Box<str>, packed: Box<[u8]>) {
        match self.place(&name) {
            Ok(at) => {
                if let Some(held) = self.0.get_mut(at) {
                    held.1 = packed;
                }
            }
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (name, packed));
            }
        }
    }

    fn remove(&mut self, name: &str) -> bool {
        let there = self.place(name).map(|at| drop(self.0.remove(at)));
        self.0.shrink_to_fit();
        there.is_ok()
    }
}

type Packed = HashMap<Key, Own>;

/// What was seen of one kind.
pub struct Seen<K> {
    kept: Mutex<Packed>,
    /// What a list that is not yet at its end said.
    arriving: Mutex<Option<Packed>>,
    whole: watch::Sender<bool>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Seen {
            kept: Mutex::default(),
            arriving: Mutex::default(),
            whole: watch::Sender::new(false),
            kind: PhantomData,
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    of.lock()
}

impl<K: Watched> Seen<K> {
    /// Takes in an event; the tasks for which it is news.
    pub fn take(&self, event: Event<K>) -> Vec<Key> {
        match event {
            Event::Init => *lock(&self.arriving) = Some(HashMap::new()),
            Event::InitApply(object) => {
                let mut arriving = lock(&self.arriving);
                if let (Some((key, name, packed)), Some(all)) = (pack(object), arriving.as_mut()) {
                    all.entry(key).or_default().put(name, packed);
                }
            }
            Event::InitDone => {
                let Some(new) = lock(&self.arriving).take() else { return Vec::new() };
                let mut kept = lock(&self.kept);
                let mut changed: Vec<Key> = new
                    .iter()
                    .filter(|(key, all)| kept.get(*key) != Some(*all))
                    .map(|(key, _)| key.clone())
                    .collect();
                changed.extend(kept.keys().filter(|key| !new.contains_key(*key)).cloned());
                *kept = new;
                self.whole.send_replace(true);
                return changed;
            }
            Event::Apply(object) => {
                let Some((key, name, packed)) = pack(object) else { return Vec::new() };
                let mut kept = lock(&self.kept);
                let old = kept.entry(key.clone()).or_default();
                if old.get(&name) != Some(&*packed) {
                    old.put(name, packed);
                    return vec![key];
                }
            }
            Event::Delete(object) => {
                let (name, key) = (object.name_any(), object.belongs());
                let Some(key) = key.filter(|key| self.forget(key, &name)) else { return Vec::new() };
                return vec![key];
            }
        }
        Vec::new()
    }

    /// The object `name` of a task.
    pub fn get(&self, of: &Key, name: &str) -> Option<K> {
        let kept = lock(&self.kept);
        serde_json::from_slice(kept.get(of)?.get(name)?).ok()
    }

    /// All objects of a task, by name.
    pub fn all(&self, of: &Key) -> Vec<K> {
        let kept = lock(&self.kept);
        kept.get(of)
            .into_iter()
            .flat_map(|own| &own.0)
            .filter_map(|(_, packed)| serde_json::from_slice(packed).ok())
            .collect()
    }

    /// Whether a task has an object `name`.
    pub fn has(&self, of: &Key, name: &str) -> bool {
        lock(&self.kept).get(of).is_some_and(|own| own.get(name).is_some())
    }

    /// The names of a task's objects.
    pub fn names(&self, of: &Key) -> Vec<String> {
        let kept = lock(&self.kept);
        kept.get(of).into_iter().flat_map(|own| &own.0).map(|(name, _)| name.to_string()).collect()
    }

    /// Everyone who has an object.
    pub fn keys(&self) -> Vec<Key> {
        lock(&self.kept).keys().cloned().collect()
    }

    /// Keeps an object no longer; whether it was kept.
    pub fn forget(&self, of: &Key, name: &str) -> bool {
        let mut kept = lock(&self.kept);
        let Some(all) = kept.get_mut(of) else { return false };
        let was = all.remove(name);
        if all.0.is_empty() {
            kept.remove(of);
        }
        was
    }

    /// Returns when all that there is has been seen once.
    pub async fn whole(&self) {
        // The sender is a field of what is waited on.
        drop(self.whole.subscribe().wait_for(|whole| *whole).await);
    }

    /// Whether all that there is has been seen once.
    pub fn is_whole(&self) -> bool {
        *self.whole.borrow()
    }

    /// Takes in what a watch says, for as long as it is polled; the tasks for which there is news.
    pub fn follow<S>(self: Arc<Self>, events: S) -> impl Stream<Item = Key> + Send
    where
        S: Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    {
        let mut said = Said::default();
        let trouble = format!("{} can't be watched", K::WHAT);
        let well = format!("watching {}", K::WHAT);
        events
            .default_backoff()
            .map(move |event| match event {
                Ok(event) => {
                    if !matches!(event, Event::Init | Event::InitDone) {
                        said.well(&well);
                    }
                    self.take(event)
                }
                Err(error) => {
                    watch_trouble(&mut said, &trouble, error);
                    Vec::new()
                }
            })
            .flat_map(stream::iter)
    }
}

fn pack<K: Watched>(object: K) -> Option<(Key, Box<str>, Box<[u8]>)> {
    let (key, name) = (object.belongs()?, object.name_any().into_boxed_str());
    let packed = serde_json::to_vec(&object.bare()).ok()?;
    Some((key, name, packed.into_boxed_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::Job;
    use serde_json::json;

    fn job(name: &str, version: &str, active: i32) -> Job {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "shop", "resourceVersion": version,
                "labels": { "kuration.io/task": "check" }, "managedFields": [{ "manager": "other" }],
            },
            "spec": { "template": { "spec": { "containers": [{ "name": "inspect", "image": "large" }] } } },
            "status": { "active": active, "ready": version.len() },
        }))
        .unwrap()
    }

    #[test]
    fn what_no_decision_reads_is_neither_kept_nor_news() {
        let seen = Seen::<Job>::default();
        let key = Key::new("shop", "check");
        assert_eq!(seen.take(Event::Apply(job("check-1", "1", 1))), std::slice::from_ref(&key));
        assert!(seen.take(Event::Apply(job("check-1", "10", 1))).is_empty());
        assert_eq!(seen.take(Event::Apply(job("check-1", "11", 0))), std::slice::from_ref(&key));
        let kept = serde_json::to_string(&seen.all(&key)).unwrap();
        assert!(!kept.contains("large") && !kept.contains("other"), "{kept}");
        let mut foreign = job("check-2", "1", 1);
        foreign.metadata.labels = None;
        assert!(seen.take(Event::Apply(foreign)).is_empty());
    }

    #[test]
    fn a_list_tells_of_what_came_changed_and_went_while_nobody_looked() {
        let seen = Seen::<Job>::default();
        let of = |task: &str, name: &str, active| {
            let mut job = job(name, "1", active);
            job.metadata.labels = Some([("kuration.io/task".to_owned(), task.to_owned())].into());
            job
        };
        let list = |jobs: Vec<Job>| {
            let before = seen.take(Event::Init);
            let during: Vec<Key> =
                jobs.into_iter().flat_map(|job| seen.take(Event::InitApply(job))).collect();
            assert!(before.is_empty() && during.is_empty());
            let mut news: Vec<String> = seen.take(Event::InitDone).into_iter().map(|key| key.task).collect();
            news.sort();
            news
        };
        assert_eq!(list(vec![of("a", "a-1", 1), of("b", "b-1", 1), of("c", "c-1", 1)]), ["a", "b", "c"]);
        assert_eq!(list(vec![of("a", "a-1", 1), of("b", "b-1", 0), of("d", "d-1", 1)]), ["b", "c", "d"]);
        assert!(seen.all(&Key::new("shop", "c")).is_empty());
        assert_eq!(seen.take(Event::Delete(of("d", "d-1", 1))), [Key::new("shop", "d")]);
        assert!(seen.take(Event::Delete(of("d", "d-1", 1))).is_empty());
    }
}
