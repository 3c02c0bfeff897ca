//! Rules evaluated side by side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::inspection::rules::{Blind, Judged, Place, judge, look, observed, refused};
use crate::inspection::run::{Fingerprint, MOST_OBSERVED, OTHER_SHARD, Outcome, RuleResult, Scalar, Subject};
use crate::inspection::task::{Rule, Scope};

/// What a run may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many rules look at once: what is inspected must not feel it.
    pub at_once: usize,
    /// When the last rule must have ended.
    pub end: Instant,
    /// Which of the pods of a run this is; rules that are evaluated once are evaluated by the first.
    pub shard: u32,
}

/// Evaluates all rules. The results are in the rules' order, one for each.
pub async fn evaluate(rules: &[Rule], place: Arc<Place>, limits: Limits) -> Vec<RuleResult> {
    let turns = Arc::new(Semaphore::new(limits.at_once.max(1)));
    let (senders, receivers): (Vec<_>, Vec<_>) = rules.iter().map(|_| watch::channel(None)).unzip();
    let mut tasks = Vec::new();
    for (rule, sender) in rules.iter().zip(senders) {
        let waited: Vec<(String, Option<watch::Receiver<Option<Outcome>>>)> = rule
            .depends_on
            .iter()
            .map(|name| {
                let at = rules.iter().position(|other| other.name == *name && other.name != rule.name);
                (name.clone(), at.map(|at| receivers[at].clone()))
            })
            .collect();
        let circle = circular(rules, &rule.name);
        let (rule, place, turns) = (Arc::new(rule.clone()), Arc::clone(&place), Arc::clone(&turns));
        tasks.push(tokio::spawn(async move {
            let begun = Begun::now();
            let whole = one(&rule, &place, waited, circle, &turns, limits.shard, begun);
            let result = tokio::time::timeout_at(limits.end, whole).await.unwrap_or_else(|_| {
                let why = "the run had no time left for this rule: see activeDeadlineSeconds";
                begun.result(&rule, &place, Ended::blind(&Blind::new("BudgetExceeded", why)))
            });
            sender.send_replace(Some(result.result));
            result
        }));
    }
    let mut results = Vec::new();
    for (rule, task) in rules.iter().zip(tasks) {
        results.push(task.await.unwrap_or_else(|error| {
            let blind = Blind::new("Internal", format!("the rule's own code failed: {error}"));
            Begun::now().result(rule, &place, Ended::blind(&blind))
        }));
    }
    results
}

/// Whether a rule waits for itself.
fn circular(rules: &[Rule], name: &str) -> bool {
    let mut waiting = vec![name];
    let mut seen = Vec::new();
    while let Some(next) = waiting.pop() {
        for rule in rules.iter().filter(|rule| rule.name == next) {
            for other in &rule.depends_on {
                if other == name {
                    return true;
                }
                if !seen.contains(&other.as_str()) {
                    seen.push(other);
                    waiting.push(other);
                }
            }
        }
    }
    false
}

/// When a rule began.
#[derive(Clone, Copy)]
struct Begun {
    time: Timestamp,
    clock: Instant,
}

/// How a rule ended.
struct Ended {
    judged: Judged,
    attempts: u32,
    observed: Map<String, Json>,
}

impl Ended {
    fn blind(blind: &Blind) -> Self {
        Self { judged: Judged::blind(blind), attempts: 0, observed: Map::new() }
    }

    fn skipped(reason: &str, message: String) -> Self {
        let mut ended = Self::blind(&Blind::new("Skipped", message));
        ended.judged.outcome = Outcome::Skip;
        reason.clone_into(&mut ended.judged.reason);
        ended
    }
}

impl Begun {
    fn now() -> Self {
        Self { time: Timestamp::now(), clock: Instant::now() }
    }

    fn result(&self, rule: &Rule, place: &Place, ended: Ended) -> RuleResult {
        let Ended { judged, attempts, observed } = ended;
        let result = judged.outcome;
        let node = place.shards.then(|| place.node.clone()).flatten();
        let print = |subject: Option<&Subject>| Fingerprint::of(&rule.name, result, node.as_deref(), subject);
        let mut subjects = judged.subjects;
        for subject in &mut subjects {
            subject.fingerprint = print(Some(subject));
        }
        // A finding about objects is one finding for each of them.
        let fingerprint = if subjects.is_empty() { print(None) } else { None };
        let scalar = |value: Json| match value {
            Json::Bool(held) => Some(Scalar::Bool(held)),
            Json::Number(number) => Some(
                number
                    .as_i64()
                    .map_or_else(|| Scalar::Number(number.as_f64().unwrap_or(0.0)), Scalar::Integer),
            ),
            Json::String(text) => Some(Scalar::Text(text)),
            _ => None,
        };
        let observed: BTreeMap<String, Scalar> = observed
            .into_iter()
            .filter_map(|(key, value)| Some((key, scalar(value)?)))
            .take(MOST_OBSERVED)
            .collect();
        RuleResult {
            name: rule.name.clone(),
            kind: rule.kind().map_or("", |kind| kind.name()).to_owned(),
            severity: rule.severity,
            category: rule.category.clone(),
            result,
            reason: judged.reason,
            message: judged.message,
            remedy: rule.remedy.clone().filter(|_| !result.well()),
            start_time: self.time,
            duration_millis: u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX),
            attempts,
            flaky: attempts > 1 && result.well() && result != Outcome::Skip,
            observed,
            subjects,
            truncated: judged.truncated,
            node,
            fingerprint,
        }
    }
}

async fn one(
    rule: &Arc<Rule>,
    place: &Arc<Place>,
    waited: Vec<(String, Option<watch::Receiver<Option<Outcome>>>)>,
    circle: bool,
    turns: &Semaphore,
    shard: u32,
    begun: Begun,
) -> RuleResult {
    if circle {
        let why = format!("{} waits for itself by way of dependsOn", rule.name);
        return begun.result(rule, place, Ended::blind(&Blind::new("BadRule", why)));
    }
    for (name, receiver) in waited {
        let Some(mut receiver) = receiver else {
            let blind =
                Blind::new("BadRule", format!("dependsOn names {name}, which is no other rule of this task"));
            return begun.result(rule, place, Ended::blind(&blind));
        };
        // The sender is gone only when its rule's code failed.
        let outcome = receiver.wait_for(Option::is_some).await.ok().and_then(|outcome| *outcome);
        if !matches!(outcome, Some(Outcome::Pass | Outcome::Warn)) {
            let word = outcome.unwrap_or(Outcome::Error).word();
            let why = format!("{name}, on which it rests, came out as {word}");
            return begun.result(rule, place, Ended::skipped("DependencyNotPassed", why));
        }
    }
    if rule.scope == Scope::Once && shard > 0 {
        let ended = Ended::skipped(OTHER_SHARD, "evaluated by the run's first pod alone".to_owned());
        return begun.result(rule, place, ended);
    }
    if let Some(blind) = refused(rule) {
        return begun.result(rule, place, Ended::blind(&blind));
    }
    let mut attempts = 0;
    let ended = loop {
        // A turn for each attempt, not for the wait between two. It is never closed.
        let turn = turns.acquire().await;
        attempts += 1;
        let (judged, observed) = attempt(rule, place).await;
        drop(turn);
        if attempts > rule.retries || !judged.may_change() {
            break Ended { judged, attempts, observed };
        }
        tokio::time::sleep(Duration::from_secs(rule.retry_delay_seconds.into())).await;
    };
    begun.result(rule, place, ended)
}

/// One look, and one judgement, within the rule's deadline.
async fn attempt(rule: &Arc<Rule>, place: &Arc<Place>) -> (Judged, Map<String, Json>) {
    let seconds = rule.timeout_seconds.max(1);
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let late = |what: &str| Blind::new("Timeout", format!("{what} took longer than {seconds} s"));
    let seen = tokio::time::timeout_at(end, look(rule, place)).await;
    let seen = seen.unwrap_or_else(|_| Err(late("the look")));
    let held = seen.as_ref().map(|sight| observed(&sight.result)).unwrap_or_default();
    let (rule, place) = (Arc::clone(rule), Arc::clone(place));
    // CEL has no budget of its own: it gets a thread, and the rule's deadline.
    let thought = tokio::task::spawn_blocking(move || {
        let previous = place.past.first().and_then(|past| past.observed.get(&rule.name));
        judge(&rule, seen, &place, previous)
    });
    let judged = match tokio::time::timeout_at(end + GRACE, thought).await {
        Ok(Ok(judged)) => judged,
        Ok(Err(error)) => Judged::blind(&Blind::new("Internal", format!("the judgement failed: {error}"))),
        Err(_) => Judged::blind(&late("the expressions")),
    };
    (judged, held)
}

/// What a look that used its whole deadline leaves to the judgement: to say so takes none of it.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inspection::task::Target;
    use proptest::prelude::*;
    use serde_json::json;

    fn rule(name: &str, text: Json) -> Rule {
        let mut whole = json!({"name": name, "timeoutSeconds": 1});
        whole.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn here() -> Arc<Place> {
        Arc::new(Place::new("shop", Target::parse("mysql-service").unwrap(), Timestamp::now()))
    }

    fn all(rules: &[Rule], millis: u64) -> Vec<RuleResult> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let end = Duration::from_millis(millis);
        let results = runtime.block_on(async {
            evaluate(rules, here(), Limits { at_once: 4, end: Instant::now() + end, shard: 0 }).await
        });
        runtime.shutdown_background();
        results
    }

    /// A port of this machine that takes connections and says nothing.
    fn silent() -> (std::net::TcpListener, u16) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn outcomes(results: &[RuleResult]) -> Vec<(Outcome, &str)> {
        results.iter().map(|rule| (rule.result, rule.reason.as_str())).collect()
    }

    #[test]
    fn a_rule_rests_on_others_and_is_skipped_without_them() {
        let (_held, port) = silent();
        let tcp = json!({"tcp": {"host": "127.0.0.1", "port": port}});
        let with = |depends: Json, more: &Json| {
            let mut text = more.clone();
            text["dependsOn"] = depends;
            text
        };
        let rules = [
            rule("last", with(json!(["first", "closed"]), &tcp)),
            rule("first", tcp.clone()),
            rule("closed", json!({"tcp": {"host": "127.0.0.1", "port": 1}})),
            rule("second", with(json!(["first"]), &tcp)),
            rule("circle", with(json!(["round"]), &tcp)),
            rule("round", with(json!(["circle"]), &tcp)),
            rule("lost", with(json!(["nobody"]), &tcp)),
        ];
        use Outcome::{Error, Fail, Pass, Skip};
        let wanted = [
            (Skip, "DependencyNotPassed"),
            (Pass, "Passed"),
            (Fail, "ConnectionRefused"),
            (Pass, "Passed"),
            (Error, "BadRule"),
            (Error, "BadRule"),
            (Error, "BadRule"),
        ];
        assert_eq!(outcomes(&all(&rules, 10_000)), wanted);
    }

    #[test]
    fn a_rule_that_hangs_ends_at_its_deadline_and_a_run_at_its_own() {
        let (_held, port) = silent();
        let redis = json!({"redis": {"host": "127.0.0.1", "port": port}});
        let one = [rule("hangs", redis.clone())];
        assert_eq!(outcomes(&all(&one, 10_000)), [(Outcome::Error, "Timeout")]);
        let begun = std::time::Instant::now();
        let many: Vec<Rule> = (0..20).map(|at| rule(&format!("hangs-{at}"), redis.clone())).collect();
        let results = all(&many, 1500);
        assert!(begun.elapsed() < Duration::from_secs(4));
        assert_eq!(results.len(), 20);
        assert_eq!(results[19].reason, "BudgetExceeded");
    }

    #[test]
    fn a_rule_that_passes_when_tried_again_is_flaky() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            use std::io::Write;
            // The first one is hung up on.
            drop(listener.accept().unwrap());
            let (mut second, _) = listener.accept().unwrap();
            second.write_all(b"+PONG\r\n-ERR\r\n").unwrap();
            std::thread::sleep(Duration::from_millis(200));
        });
        let text =
            json!({"redis": {"host": "127.0.0.1", "port": port}, "retries": 3, "retryDelaySeconds": 0});
        let results = all(&[rule("shaky", text)], 10_000);
        server.join().unwrap();
        assert_eq!((results[0].result, results[0].attempts, results[0].flaky), (Outcome::Pass, 2, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn there_are_as_many_results_as_rules(
            kinds in prop::collection::vec((0_usize..7, prop::collection::vec(0_usize..12, 0..3)), 1..12)
        ) {
            let texts = [
                json!({"tcp": {"host": "127.0.0.1", "port": 1}}),
                json!({"tcp": {"port": 3306}}),
                json!({"http": {"url": "http://127.0.0.1:1/"}}),
                json!({"http": {"url": "http://127.0.0.1:1/"}, "assert": [{"expr": "nonsense("}]}),
                json!({}),
                json!({"exec": {"image": "x", "command": ["true"]}}),
                json!({"tls": {"host": "127.0.0.1", "port": 1}}),
            ];
            let rules: Vec<Rule> = kinds.iter().enumerate().map(|(at, (kind, depends))| {
                let mut text = texts[*kind].clone();
                text["dependsOn"] = depends.iter().map(|other| format!("r{other}")).collect();
                rule(&format!("r{at}"), text)
            }).collect();
            let results = all(&rules, 5000);
            let wanted: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
            let found: Vec<&str> = results.iter().map(|result| result.name.as_str()).collect();
            prop_assert_eq!(wanted, found);
            prop_assert!(results.iter().all(|result| !result.reason.is_empty()));
        }
    }
}
