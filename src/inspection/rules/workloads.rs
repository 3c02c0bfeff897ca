//! What runs in the cluster: objects of any kind, workloads, pods, events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value as Json, json};

use super::cel::{self, Expression, Scope};
use super::cluster::{Known, Which, named, subject, typed};
use super::place::Place;
use super::sight::{Blind, Seen, Sight, Verdict};
use crate::inspection::task::cluster::{
    EventType, Events, Namespaces, Pods, Resource, Workload, WorkloadKind,
};

/// Objects of one kind.
pub async fn resource(rule: &Resource, place: &Place) -> Seen {
    let filter = rule.filter.as_deref().map(Expression::compile).transpose();
    let filter = filter.map_err(|error| Blind::new("BadExpression", error.to_string()))?;
    let scope = Scope::new(place.now);
    let client = place.cluster().await?;
    let known = Known::of(&client, &rule.api_version, &rule.kind).await?;
    let which = Which {
        namespaces: Some(&rule.namespaces),
        labels: rule.label_selector.as_ref(),
        fields: rule.field_selector.as_deref(),
        name: rule.name.as_deref(),
    };
    let items = known.list(&client, place, &which, |object| match &filter {
        None => Ok(true),
        Some(filter) => filter
            .holds_for(&scope, &cel::theirs(object))
            .map_err(|error| Blind::new("EvaluationFailed", format!("where: {error}"))),
    });
    let items = items.await?;
    let result = json!({"count": items.len()});
    // One object that was asked for by its name and is not there is a finding by itself.
    let verdict = match (&rule.name, items.is_empty()) {
        (Some(name), true) => Verdict::fail("NotFound", format!("there is no {} {name}", rule.kind)),
        _ => Verdict::Unasserted,
    };
    Ok(Sight { result, items, foreign: true, verdict })
}

fn seconds_since(text: &Json, now: Timestamp) -> i64 {
    let then = text.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    then.map_or(0, |then| (now.as_second() - then.as_second()).max(0))
}

/// Workloads: what is ready, what should be, and why not.
pub async fn workload(rule: &Workload, place: &Place) -> Seen {
    const ALL: [WorkloadKind; 3] =
        [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet];
    let client = place.cluster().await?;
    let kinds = if rule.kinds.is_empty() { &ALL[..] } else { &rule.kinds };
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    for kind in kinds {
        let word = match kind {
            WorkloadKind::Deployment => "Deployment",
            WorkloadKind::StatefulSet => "StatefulSet",
            WorkloadKind::DaemonSet => "DaemonSet",
        };
        let known = Known::of(&client, "apps/v1", word).await?;
        let which = Which {
            namespaces: Some(&rule.namespaces),
            labels: rule.selector.as_ref(),
            name: rule.name.as_deref(),
            fields: None,
        };
        for object in known.list(&client, place, &which, |_| Ok(true)).await? {
            let item = rolled_out(&object, *kind, place.now);
            let late =
                item["notReadySeconds"].as_i64().unwrap_or(0) >= i64::from(rule.not_ready_grace_seconds);
            if item["ready"] != item["desired"] && late || item["reason"] == "ProgressDeadlineExceeded" {
                let message =
                    format!("{} of {} ready: {}", item["ready"], item["desired"], text(&item["reason"]));
                bad.push(subject(&object, message));
            }
            items.push(item);
        }
    }
    if let (Some(name), true) = (&rule.name, items.is_empty()) {
        return Ok(Sight::of_items(items, Verdict::fail("NotFound", format!("there is no workload {name}"))));
    }
    let verdict = Verdict::unless_any("NotReady", "not rolled out", bad);
    Ok(Sight::of_items(items, verdict))
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

/// What a workload says of itself.
pub fn rolled_out(object: &Json, kind: WorkloadKind, now: Timestamp) -> Json {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |json: &Json| json.as_i64().unwrap_or(0);
    let (desired, ready, updated) = match kind {
        WorkloadKind::DaemonSet => (
            count(&status["desiredNumberScheduled"]),
            count(&status["numberReady"]),
            count(&status["updatedNumberScheduled"]),
        ),
        _ => (
            spec["replicas"].as_i64().unwrap_or(1),
            count(&status["readyReplicas"]),
            count(&status["updatedReplicas"]),
        ),
    };
    let condition = |wanted: &str| {
        let all = status["conditions"].as_array().into_iter().flatten();
        all.into_iter().find(|condition| condition["type"] == wanted).cloned().unwrap_or_default()
    };
    let (available, progressing) = (condition("Available"), condition("Progressing"));
    let behind = count(&status["observedGeneration"]) < count(&object["metadata"]["generation"]);
    let reason = if progressing["status"] == "False" {
        text(&progressing["reason"]).to_owned()
    } else if behind {
        "NotObserved".to_owned()
    } else if ready < desired {
        Some(text(&available["reason"]))
            .filter(|reason| !reason.is_empty())
            .unwrap_or("PodsNotReady")
            .to_owned()
    } else if updated < desired && spec["updateStrategy"]["type"] != "OnDelete" {
        "RollingOut".to_owned()
    } else {
        String::new()
    };
    // Since when, as far as anybody remembers: the condition's last change, else the object's birth.
    let since = match &available["lastTransitionTime"] {
        Json::Null => &object["metadata"]["creationTimestamp"],
        time => time,
    };
    let waiting = if reason.is_empty() { 0 } else { seconds_since(since, now) };
    json!({
        "kind": object["kind"], "namespace": object["metadata"]["namespace"], "name": object["metadata"]["name"],
        "desired": desired, "ready": ready, "updated": updated, "reason": reason, "notReadySeconds": waiting,
        "rolledOut": reason.is_empty(),
    })
}

/// Pods.
pub async fn pods(rule: &Pods, place: &Place) -> Seen {
    let which =
        Which { namespaces: Some(&rule.namespaces), labels: rule.selector.as_ref(), ..Which::default() };
    let found: Vec<Pod> = typed(place, "v1", "Pod", &which).await?;
    Ok(judged(&found, i64::from(rule.pending_grace_seconds), place.now))
}

/// What pods say of themselves.
pub fn judged(pods: &[Pod], grace: i64, now: Timestamp) -> Sight {
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    for pod in pods {
        let item = one(pod, now);
        let waiting = text(&item["waitingReason"]);
        let pending = item["pendingSeconds"].as_i64().unwrap_or(0);
        let back_off =
            waiting.ends_with("BackOff") || waiting.starts_with("Err") || waiting.starts_with("Create");
        let message = match text(&item["phase"]) {
            "Failed" => Some(format!("failed: {}", text(&item["reason"]))),
            _ if back_off => Some(format!("waiting: {waiting}")),
            "Pending" if pending > grace => {
                Some(format!("pending for {pending} s: {}", text(&item["reason"])))
            }
            _ => None,
        };
        if let Some(message) = message {
            bad.push(named("v1", "Pod", pod.metadata.namespace.as_deref(), text(&item["name"]), message));
        }
        items.push(item);
    }
    let verdict = Verdict::unless_any("PodsNotWell", "not well", bad);
    Sight::of_items(items, verdict)
}

fn one(pod: &Pod, now: Timestamp) -> Json {
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let statuses =
        [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
    let (mut waiting, mut oom, mut restarts, mut recent) = (String::new(), false, 0, 0);
    for container in statuses {
        restarts += container.restart_count;
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        oom |= ended.is_some_and(|ended| ended.reason.as_deref() == Some("OOMKilled"));
        // The API tells the last restart alone: within the hour all count, which errs on the side of telling.
        let hour = |ended: &k8s_openapi::api::core::v1::ContainerStateTerminated| {
            ended.finished_at.as_ref().is_some_and(|at| now.as_second() - at.0.as_second() < 3600)
        };
        if ended.is_some_and(hour) {
            recent += container.restart_count;
        }
        let state = container.state.unwrap_or_default();
        if let Some(reason) = state.waiting.and_then(|waiting| waiting.reason) {
            waiting = reason;
        }
    }
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now.as_second(), |at| at.0.as_second());
    let pending = if phase == "Pending" { (now.as_second() - created).max(0) } else { 0 };
    let unscheduled = status.conditions.iter().flatten().find(|condition| condition.status == "False");
    let reason = status.reason.or_else(|| unscheduled.and_then(|condition| condition.reason.clone()));
    json!({
        "namespace": pod.metadata.namespace, "name": pod.metadata.name, "phase": phase, "waitingReason": waiting,
        "reason": reason.unwrap_or_default(), "restarts": restarts, "restartsLastHour": recent,
        "pendingSeconds": pending, "oomKilled": oom,
        "node": pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
    })
}

/// Events.
pub async fn events(rule: &Events, place: &Place) -> Seen {
    let which = Which { namespaces: Some(&rule.namespaces), ..Which::default() };
    let client = place.cluster().await?;
    let known = Known::of(&client, "v1", "Event").await?;
    let types = if rule.types.is_empty() { vec![EventType::Warning] } else { rule.types.clone() };
    let wanted = |object: &Json| {
        let kind = match text(&object["type"]) {
            "Warning" => EventType::Warning,
            _ => EventType::Normal,
        };
        let times = [&object["series"]["lastObservedTime"], &object["lastTimestamp"], &object["eventTime"]];
        let last = times.into_iter().find(|time| time.is_string());
        let recent = last.is_some_and(|last| seconds_since(last, place.now) <= i64::from(rule.since_seconds));
        let reason = text(&object["reason"]);
        types.contains(&kind)
            && recent
            && (rule.reasons.is_empty() || rule.reasons.iter().any(|r| r == reason))
    };
    let found = known.list(&client, place, &which, |object| Ok(wanted(object))).await?;
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    for event in &found {
        let about = &event["involvedObject"];
        let message: String = text(&event["message"]).chars().take(300).collect();
        let subject = named(
            text(&about["apiVersion"]),
            text(&about["kind"]),
            about["namespace"].as_str(),
            text(&about["name"]),
            format!("{}: {message}", text(&event["reason"])),
        );
        if !bad.contains(&subject) {
            bad.push(subject);
        }
        items.push(json!({
            "type": event["type"], "reason": event["reason"], "message": message,
            "count": event["count"].as_i64().or(event["series"]["count"].as_i64()).unwrap_or(1),
            "kind": about["kind"], "namespace": about["namespace"], "name": about["name"],
        }));
    }
    let verdict = Verdict::unless_any("Events", "events", bad);
    Ok(Sight::of_items(items, verdict))
}

/// Pods of one namespace, or of all: what a target of that kind looks at.
pub fn pods_of(namespaces: Namespaces) -> Pods {
    Pods { namespaces, selector: None, pending_grace_seconds: 300 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod(status: Json) -> Pod {
        let metadata =
            json!({"name": "web-1", "namespace": "shop", "creationTimestamp": "2026-09-01T00:00:00Z"});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn now() -> Timestamp {
        "2026-09-01T00:10:00Z".parse().unwrap()
    }

    fn said(status: Json) -> Option<String> {
        match judged(&[pod(status)], 300, now()).verdict {
            Verdict::Fail(finding) => finding.subjects[0].message.clone(),
            _ => None,
        }
    }

    #[test]
    fn pods_that_fail_hang_or_crash_are_named() {
        assert_eq!(said(json!({"phase": "Running"})), None);
        assert_eq!(said(json!({"phase": "Failed", "reason": "Evicted"})).unwrap(), "failed: Evicted");
        let unschedulable = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
        assert_eq!(said(unschedulable).unwrap(), "pending for 600 s: Unschedulable");
        let crashing = json!({"phase": "Running", "containerStatuses": [{
            "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 7,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-09-01T00:09:00Z"}},
        }]});
        assert_eq!(said(crashing.clone()).unwrap(), "waiting: CrashLoopBackOff");
        let item = one(&pod(crashing), now());
        assert_eq!((&item["oomKilled"], &item["restartsLastHour"]), (&json!(true), &json!(7)));
    }

    #[test]
    fn a_workload_says_how_far_it_is() {
        let object = json!({
            "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop", "generation": 2},
            "spec": {"replicas": 3},
            "status": {"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 3, "conditions": [
                {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable",
                 "lastTransitionTime": "2026-09-01T00:00:00Z"}]},
        });
        let item = rolled_out(&object, WorkloadKind::Deployment, now());
        assert_eq!((&item["ready"], &item["desired"]), (&json!(2), &json!(3)));
        assert_eq!(
            (&item["reason"], &item["notReadySeconds"]),
            (&json!("MinimumReplicasUnavailable"), &json!(600))
        );
        let none = json!({"kind": "DaemonSet", "metadata": {"generation": 1},
                          "status": {"observedGeneration": 1, "desiredNumberScheduled": 0, "numberReady": 0}});
        assert_eq!(rolled_out(&none, WorkloadKind::DaemonSet, now())["rolledOut"], true);
    }
}
