//! Telling receivers: each message is sent beside the work on tasks, as a receiver may take its time, and what was told is
//! said in the task's status once it was. So one that could not be reached is told later, and none is told twice unless this
//! process dies between the two.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::super::intent::objects;
use super::super::notify::{Notice, Standing, decide, post, send, silenced};
use super::super::run::Outcome;
use super::super::schedule::Schedule;
use super::super::task::probe::SecretKey;
use super::super::task::{InspectionTask, InspectionTaskStatus, Moment, Notification, Told};
use super::seen::Key;

/// So many messages are on their way at once.
const AT_ONCE: usize = 8;

/// How long a receiver that could not be reached is left alone, the first time and at most.
const AGAIN: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(600);

/// Reads the address of a receiver from a Secret of a namespace, or says why it can't.
pub type Addresses =
    Arc<dyn Fn(String, SecretKey) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// Tells receivers. A clone is another handle on the same one.
#[derive(Clone)]
pub struct Notices {
    addresses: Addresses,
    state: Arc<Mutex<State>>,
    lines: Arc<Semaphore>,
    /// Whose message came to an end.
    ended: mpsc::UnboundedSender<Key>,
}

/// A receiver of a task.
type Receiver = (Key, String);

#[derive(Default)]
struct State {
    under_way: HashSet<Receiver>,
    delivered: HashMap<Receiver, Told>,
    /// Those of them that stand in a status which may not have been written.
    merged: HashMap<Receiver, Told>,
    failed: HashMap<Receiver, Failed>,
}

struct Failed {
    why: String,
    times: u32,
    again: Instant,
}

impl Notices {
    /// One that asks `addresses`, and tells `ended` whose message came to an end.
    pub fn new(addresses: Addresses, ended: mpsc::UnboundedSender<Key>) -> Self {
        Notices { addresses, state: Arc::default(), lines: Arc::new(Semaphore::new(AT_ONCE)), ended }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Sends what is to be told of `task`, of which `status` is about to be said, and writes into it what was. Returns the
    /// words of a failure for a condition, and after how long there may be more to tell. `before` is the count of missed runs
    /// that a receiver is taken to know that was not there before.
    pub fn tell(
        &self,
        task: &InspectionTask,
        status: &mut InspectionTaskStatus,
        before: u64,
        now: Timestamp,
    ) -> (Option<String>, Option<Duration>) {
        let key = Key::from(task);
        let receivers = task.spec.notifications.as_deref().unwrap_or_default();
        let known = |name: &str| receivers.iter().any(|receiver| receiver.name == name);
        status.notifications.retain(|told| known(&told.name));
        let (mut trouble, mut wait) = (None, None::<Duration>);
        for receiver in receivers {
            let at: Receiver = (key.clone(), receiver.name.clone());
            let mut state = self.state();
            if let Some(delivered) = state.delivered.remove(&at) {
                state.merged.insert(at.clone(), delivered);
            }
            let written = status.notifications.iter().find(|told| told.name == receiver.name).cloned();
            let told = state.merged.get(&at).cloned().or(written).unwrap_or_else(|| Told {
                name: receiver.name.clone(),
                missed: before,
                ..Told::default()
            });
            let (moments, after) =
                decide(standing(status), receiver, &told, silent(task, receiver, now), now);
            let known = if moments.is_empty() { after.clone() } else { told };
            status.notifications.retain(|told| told.name != receiver.name);
            status.notifications.push(known);
            let mut sooner = |than: Duration| wait = Some(wait.map_or(than, |wait| wait.min(than)));
            if let Some(due) = after.failed_at.filter(|_| receiver.reminder_seconds > 0) {
                let due = due.as_second() + i64::from(receiver.reminder_seconds) - now.as_second();
                sooner(Duration::from_secs(u64::try_from(due).unwrap_or(0).max(1)));
            }
            if moments.is_empty() {
                state.failed.remove(&at);
                continue;
            }
            if let Some(failed) = state.failed.get(&at) {
                trouble = Some(format!("{}: {}", receiver.name, failed.why));
                let left = failed.again.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    sooner(left);
                    continue;
                }
            }
            if state.under_way.insert(at.clone()) {
                let notices = moments.into_iter().map(|moment| notice(task, status, moment, now)).collect();
                tokio::spawn(self.clone().deliver(at, receiver.clone(), notices, after));
            }
        }
        (trouble, wait)
    }

    /// Sends, and keeps what became of it for the task's next turn.
    async fn deliver(self, at: Receiver, to: Notification, notices: Vec<Notice>, after: Told) {
        let done = self.send(&at.0.namespace, &to, &notices).await;
        let mut state = self.state();
        state.under_way.remove(&at);
        match done {
            Ok(()) => {
                state.failed.remove(&at);
                state.delivered.insert(at.clone(), after);
            }
            Err(why) => {
                tracing::warn!(
                    namespace = at.0.namespace,
                    task = at.0.task,
                    receiver = at.1,
                    why,
                    "not told"
                );
                let failed = state.failed.entry(at.clone());
                let failed = failed.or_insert(Failed { why: String::new(), times: 0, again: Instant::now() });
                failed.why = why;
                failed.again = Instant::now() + AGAIN.saturating_mul(1 << failed.times.min(10)).min(LONGEST);
                failed.times += 1;
            }
        }
        drop(state);
        // Nobody listens when the process ends.
        drop(self.ended.send(at.0));
    }

    async fn send(&self, namespace: &str, to: &Notification, notices: &[Notice]) -> Result<(), String> {
        let _line = self.lines.acquire().await.map_err(|error| error.to_string())?;
        let address = (self.addresses)(namespace.to_owned(), to.url_secret_ref.clone()).await?;
        let labels: BTreeMap<String, String> = to.labels.clone().unwrap_or_default();
        for notice in notices {
            send(&post(notice, to.format, address.trim(), &labels))
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The status that [`Notices::tell`] wrote into was said: what stands in it need not be remembered here.
    pub fn written(&self, key: &Key) {
        self.state().merged.retain(|(of, _), _| of != key);
    }

    /// The task went.
    pub fn forget(&self, key: &Key) {
        let mut state = self.state();
        state.delivered.retain(|(of, _), _| of != key);
        state.merged.retain(|(of, _), _| of != key);
        state.failed.retain(|(of, _), _| of != key);
    }
}

fn standing(status: &InspectionTaskStatus) -> Standing {
    Standing {
        healthy: status.healthy(),
        inconclusive: status.last_run.as_ref().is_some_and(|run| run.outcome == Outcome::Error),
        missed: status.missed_runs,
    }
}

/// Whether a receiver is to be left in peace now.
fn silent(task: &InspectionTask, receiver: &Notification, now: Timestamp) -> bool {
    let Ok((_, zone)) = objects::schedule(task, now) else { return false };
    silenced(&receiver.silences, now, |window, after| {
        // A window that nobody can read silences nothing.
        Schedule::parse(window).ok()?.next(after, &zone)
    })
}

fn notice(task: &InspectionTask, status: &InspectionTaskStatus, moment: Moment, now: Timestamp) -> Notice {
    let key = Key::from(task);
    let healthy = status.conditions.iter().find(|condition| condition.type_ == "Healthy");
    let run = status.last_run.as_ref().filter(|_| moment != Moment::Missed);
    let since = match moment {
        Moment::Missed => status.missed_until.unwrap_or(now),
        _ => healthy.map_or(now, |healthy| healthy.last_transition_time.0),
    };
    Notice {
        moment,
        namespace: key.namespace,
        task: key.task,
        target: task.spec.target.clone(),
        run: run.map(|run| run.id.clone()),
        outcome: run.map(|run| run.outcome),
        summary: run.map(|run| run.summary).unwrap_or_default(),
        rules: if run.is_some() { status.failing_rules.clone() } else { Vec::new() },
        missed: status.missed_runs,
        since,
        time: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::State as Held;
    use axum::http::StatusCode;
    use axum::routing::post as route;
    use serde_json::{Value, json};

    type Heard = Arc<Mutex<(Vec<Value>, bool)>>;

    /// A receiver over HTTP: what it was told, and whether it is well.
    async fn receiver() -> (String, Heard) {
        let heard = Heard::new(Mutex::new((Vec::new(), true)));
        let hear = |Held(heard): Held<Heard>, body: String| async move {
            let mut heard = heard.lock();
            if !heard.1 {
                return (StatusCode::SERVICE_UNAVAILABLE, "later");
            }
            heard.0.push(serde_json::from_str(&body).unwrap());
            (StatusCode::OK, "")
        };
        let routes = Router::new().route("/hook", route(hear)).with_state(Arc::clone(&heard));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (address, heard)
    }

    struct Site {
        task: InspectionTask,
        notices: Notices,
        ended: mpsc::UnboundedReceiver<Key>,
        now: i64,
    }

    impl Site {
        fn new(address: String, silences: Value) -> Self {
            let (sender, ended) = mpsc::unbounded_channel();
            let addresses: Addresses = Arc::new(move |namespace, key| {
                assert_eq!((namespace.as_str(), key.name.as_str()), ("shop", "duty"));
                let address = address.clone();
                Box::pin(async move { Ok(format!("{address}\n")) })
            });
            let task = serde_json::from_value(json!({
                "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
                "metadata": { "name": "check", "namespace": "shop", "uid": "u" },
                "spec": { "schedule": "* * * * *", "target": "mysql", "notifications": [{
                    "name": "duty", "urlSecretRef": { "name": "duty", "key": "url" }, "format": "Webhook",
                    "when": ["Failed", "Recovered", "Inconclusive", "Missed"], "silences": silences,
                }]},
                "status": {},
            }))
            .unwrap();
            Site { task, notices: Notices::new(addresses, sender), ended, now: 1_790_000_000 }
        }

        /// A turn, and where a message is sent, the turn after its end; what stands in the condition.
        async fn turn(&mut self, healthy: &str, outcome: &str, missed: u64, sent: bool) -> Option<String> {
            let mut trouble = None;
            for _ in 0..=usize::from(sent) {
                self.now += 1;
                let now = Timestamp::from_second(self.now).unwrap();
                let mut status = self.task.status.clone().unwrap();
                let before = status.missed_runs;
                status.missed_runs = missed;
                let condition = json!([{ "type": "Healthy", "status": healthy, "reason": "", "message": "",
                                         "lastTransitionTime": "2026-09-01T12:05:00Z" }]);
                status.conditions = serde_json::from_value(condition).unwrap();
                status.last_run = serde_json::from_value(json!({
                    "id": "run", "job": "check-1", "trigger": "Schedule", "completionTime": "2026-09-01T12:05:00Z",
                    "outcome": outcome, "summary": {}, "findings": 1, "persisted": true,
                }))
                .unwrap();
                trouble = self.notices.tell(&self.task, &mut status, before, now).0;
                self.task.status = Some(status);
                self.notices.written(&Key::from(&self.task));
                if sent && self.notices.state().under_way.len() == 1 {
                    self.ended.recv().await.unwrap();
                }
            }
            trouble
        }
    }

    fn moments(heard: &Heard) -> Vec<String> {
        heard.lock().0.iter().map(|said| said["moment"].as_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn each_change_is_told_once_over_http() {
        let (address, heard) = receiver().await;
        let mut site = Site::new(address, json!([]));
        site.turn("True", "pass", 0, false).await;
        site.turn("False", "fail", 0, true).await;
        site.turn("False", "fail", 0, false).await;
        site.turn("Unknown", "error", 0, true).await;
        site.turn("True", "pass", 0, true).await;
        site.turn("True", "pass", 2, true).await;
        site.turn("True", "pass", 2, false).await;
        assert_eq!(moments(&heard), ["Failed", "Inconclusive", "Recovered", "Missed"]);
        assert_eq!(heard.lock().0[0]["task"], "check");
        assert_eq!(site.task.status.unwrap().notifications[0].missed, 2);
    }

    #[tokio::test]
    async fn a_receiver_that_is_down_is_told_when_it_is_back_and_the_condition_says_so_meanwhile() {
        let (address, heard) = receiver().await;
        heard.lock().1 = false;
        let mut site = Site::new(address, json!([]));
        let trouble = site.turn("False", "fail", 0, true).await.unwrap();
        assert_eq!(trouble, "duty: 127.0.0.1 answered 503: later");
        assert!(!site.task.status.as_ref().unwrap().notifications[0].failing);
        heard.lock().1 = true;
        // Its time has not come.
        assert!(site.turn("False", "fail", 0, false).await.is_some());
        assert!(moments(&heard).is_empty());
        site.notices.state().failed.values_mut().for_each(|failed| failed.again = Instant::now());
        assert_eq!(site.turn("False", "fail", 0, true).await, None);
        assert_eq!(moments(&heard), ["Failed"]);
    }

    #[tokio::test]
    async fn in_a_silence_nobody_is_told() {
        let (address, heard) = receiver().await;
        let mut site = Site::new(address, json!([{ "schedule": "* * * * *", "durationSeconds": 60 }]));
        site.turn("False", "fail", 3, false).await;
        assert!(site.notices.state().under_way.is_empty() && moments(&heard).is_empty());
    }
}
