//! The form of a message: Alertmanager's API v2, CloudEvents 1.0, or plain JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::inspection::run::{Counts, Outcome};
use crate::inspection::task::{FailingRule, Format, Moment};

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// What happened.
    pub moment: Moment,
    /// The task's namespace.
    pub namespace: String,
    /// The task's name.
    pub task: String,
    /// What it looks at.
    pub target: String,
    /// The run that shows it, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The run's verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The run's counts.
    pub summary: Counts,
    /// The rules that did not pass.
    pub rules: Vec<FailingRule>,
    /// How many runs were missed.
    pub missed: u64,
    /// Since when it is so.
    pub since: Timestamp,
    /// When this is told.
    pub time: Timestamp,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// What it is.
    pub content_type: &'static str,
    /// Itself.
    pub body: String,
}

impl Notice {
    /// In one sentence.
    pub fn sentence(&self) -> String {
        let name = format!("{}/{}", self.namespace, self.task);
        match self.moment {
            Moment::Failed => {
                let rules: Vec<&str> = self.rules.iter().take(3).map(|rule| rule.name.as_str()).collect();
                let more = self.rules.len().saturating_sub(rules.len());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                match rules.is_empty() {
                    true => format!("{name} fails"),
                    false => format!("{name} fails: {}{more}", rules.join(", ")),
                }
            }
            Moment::Recovered => format!("{name} is well again"),
            Moment::Inconclusive => format!("{name} can't be inspected: nobody knows how it is"),
            Moment::Missed => format!("{name} missed runs: {} so far", self.missed),
        }
    }

    fn word(&self) -> &'static str {
        match self.moment {
            Moment::Failed => "failed",
            Moment::Recovered => "recovered",
            Moment::Inconclusive => "inconclusive",
            Moment::Missed => "missed",
        }
    }

    /// What the worst rules say, in lines.
    fn description(&self) -> String {
        let line = |rule: &FailingRule| {
            format!(
                "{}: {}",
                rule.name,
                rule.message.as_deref().or(rule.reason.as_deref()).unwrap_or_default()
            )
        };
        self.rules.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// So long an alert that nobody ends by itself stays: a missed run recovers by no message.
const STAYS: i64 = 3600;

/// `notice` in the form `format`, for the address `url`.
pub fn post(notice: &Notice, format: Format, url: &str, labels: &BTreeMap<String, String>) -> Post {
    match format {
        Format::Alertmanager => Post {
            url: match url.contains("/api/v2/alerts") {
                true => url.to_owned(),
                false => format!("{}/api/v2/alerts", url.trim_end_matches('/')),
            },
            content_type: "application/json",
            body: json!([alert(notice, labels)]).to_string(),
        },
        Format::CloudEvents => Post {
            url: url.to_owned(),
            content_type: "application/cloudevents+json",
            body: event(notice, labels).to_string(),
        },
        Format::Webhook => {
            let mut body = json!(notice);
            if let Some(held) = body.as_object_mut() {
                held.insert("message".to_owned(), json!(notice.sentence()));
                held.insert("labels".to_owned(), json!(labels));
            }
            Post { url: url.to_owned(), content_type: "application/json", body: body.to_string() }
        }
    }
}

/// An alert is known by its labels: those of a recovery must be those of the failure that it ends.
fn alert(notice: &Notice, labels: &BTreeMap<String, String>) -> Value {
    let name = match notice.moment {
        Moment::Failed | Moment::Recovered => "InspectionFailed",
        Moment::Inconclusive => "InspectionInconclusive",
        Moment::Missed => "InspectionMissed",
    };
    let mut named = labels.clone();
    for (label, value) in
        [("alertname", name), ("namespace", &notice.namespace), ("inspectiontask", &notice.task)]
    {
        named.insert(label.to_owned(), value.to_owned());
    }
    let mut alert = json!({
        "labels": named,
        "annotations": {
            "summary": notice.sentence(),
            "description": notice.description(),
            "target": notice.target,
            "run": notice.run.clone().unwrap_or_default(),
        },
        "startsAt": notice.since.to_string(),
    });
    let end = match notice.moment {
        Moment::Recovered => Some(notice.time),
        Moment::Inconclusive | Moment::Missed => Timestamp::from_second(notice.time.as_second() + STAYS).ok(),
        // Alertmanager ends it itself when nothing more is heard for its resolve_timeout; reminderSeconds keeps it.
        Moment::Failed => None,
    };
    if let (Some(end), Some(held)) = (end, alert.as_object_mut()) {
        held.insert("endsAt".to_owned(), json!(end.to_string()));
    }
    alert
}

fn event(notice: &Notice, labels: &BTreeMap<String, String>) -> Value {
    let word = notice.word();
    // The same news has the same id: who gets it twice can tell.
    let of = notice.run.clone().unwrap_or_else(|| notice.since.to_string());
    let mut data = json!(notice);
    if let Some(held) = data.as_object_mut() {
        held.insert("message".to_owned(), json!(notice.sentence()));
        held.insert("labels".to_owned(), json!(labels));
    }
    json!({
        "specversion": "1.0",
        "id": format!("{of}/{word}"),
        "source": format!("/apis/kuration.io/v1/namespaces/{}/inspectiontasks/{}", notice.namespace, notice.task),
        "type": format!("io.kuration.inspection.{word}"),
        "subject": notice.target,
        "time": notice.time.to_string(),
        "datacontenttype": "application/json",
        "data": data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(moment: Moment) -> Notice {
        let at = |text: &str| text.parse().unwrap();
        Notice {
            moment,
            namespace: "shop".into(),
            task: "check-database".into(),
            target: "mysql-service".into(),
            run: Some("20261121T060500Z-29804405".into()),
            outcome: Some(Outcome::Fail),
            summary: Counts { fail: 1, pass: 4, ..Counts::default() },
            rules: vec![],
            missed: 0,
            since: at("2026-11-21T06:05:00Z"),
            time: at("2026-11-21T06:05:02Z"),
        }
    }

    fn body(moment: Moment, format: Format) -> Value {
        let labels = BTreeMap::from([("team".to_owned(), "data".to_owned())]);
        serde_json::from_str(&post(&notice(moment), format, "http://a:9093/", &labels).body).unwrap()
    }

    #[test]
    fn a_recovery_ends_the_alert_that_its_failure_began() {
        let (failed, recovered) =
            (body(Moment::Failed, Format::Alertmanager), body(Moment::Recovered, Format::Alertmanager));
        assert_eq!(failed[0]["labels"], recovered[0]["labels"]);
        assert_eq!(failed[0]["labels"]["team"], "data");
        assert!(failed[0].get("endsAt").is_none());
        assert_eq!(recovered[0]["endsAt"], "2026-11-21T06:05:02Z");
        let post = post(&notice(Moment::Failed), Format::Alertmanager, "http://a:9093/", &BTreeMap::new());
        assert_eq!(post.url, "http://a:9093/api/v2/alerts");
    }

    #[test]
    fn an_event_has_what_cloudevents_requires_and_the_same_news_the_same_id() {
        let event = body(Moment::Inconclusive, Format::CloudEvents);
        for required in ["specversion", "id", "source", "type"] {
            assert!(event[required].as_str().is_some_and(|value| !value.is_empty()), "{required}");
        }
        assert_eq!(event["type"], "io.kuration.inspection.inconclusive");
        assert_eq!(event["id"], body(Moment::Inconclusive, Format::CloudEvents)["id"]);
        assert_ne!(event["id"], body(Moment::Failed, Format::CloudEvents)["id"]);
        assert_eq!(event["data"]["task"], "check-database");
    }
}
