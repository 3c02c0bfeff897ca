//! Why a run that was due never started.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

/// Why a run that was due never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissReason {
    /// The run before it was still under way until it was too late.
    Overlap,
    /// The schedule was not in force: the task's condition Ready says why.
    NotReady,
    /// Nobody started it: kube-controller-manager was down or late, or the Job was refused.
    NotStarted,
}

impl MissReason {
    /// All of them.
    pub const ALL: [MissReason; 3] = [MissReason::Overlap, MissReason::NotReady, MissReason::NotStarted];

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            MissReason::Overlap => "Overlap",
            MissReason::NotReady => "NotReady",
            MissReason::NotStarted => "NotStarted",
        }
    }

    /// Why the run that was due at `slot`, and might have started within `deadline` seconds, did not.
    pub fn of(slot: Timestamp, deadline: i64, jobs: &[Job], ready: bool) -> Self {
        if jobs.iter().any(|job| covers(job, slot.as_second(), slot.as_second() + deadline)) {
            return MissReason::Overlap;
        }
        if ready { MissReason::NotStarted } else { MissReason::NotReady }
    }
}

/// A Job that ends a moment before the last chance leaves none: the CronJob controller takes that moment to see it.
const MOMENT: i64 = 5;

/// Whether a Job was under way from one second to another.
fn covers(job: &Job, from: i64, to: i64) -> bool {
    let Some(status) = job.status.as_ref() else { return false };
    let Some(begun) = status.start_time.as_ref().map(|begun| begun.0.as_second()) else { return false };
    let over = status.conditions.iter().flatten().find(|condition| {
        ["Complete", "Failed"].contains(&condition.type_.as_str()) && condition.status == "True"
    });
    let end = status.completion_time.as_ref().or(over.and_then(|over| over.last_transition_time.as_ref()));
    begun <= from && (over.is_none() || end.is_some_and(|end| end.0.as_second() >= to - MOMENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(begun: &str, end: Option<&str>) -> Job {
        let over =
            end.map(|end| json!([{ "type": "Complete", "status": "True", "lastTransitionTime": end }]));
        let status = json!({ "startTime": begun, "completionTime": end, "conditions": over });
        serde_json::from_value(json!({ "metadata": {}, "spec": { "template": {} }, "status": status }))
            .unwrap()
    }

    #[test]
    fn a_run_that_is_late_because_of_another_is_told_from_one_that_nobody_started() {
        let slot: Timestamp = "2026-09-01T12:05:00Z".parse().unwrap();
        let of = |jobs: &[Job], ready| MissReason::of(slot, 30, jobs, ready);
        let under_way = job("2026-09-01T12:04:01Z", None);
        let long = job("2026-09-01T12:04:01Z", Some("2026-09-01T12:05:31Z"));
        let short = job("2026-09-01T12:04:01Z", Some("2026-09-01T12:05:10Z"));
        let later = job("2026-09-01T12:06:01Z", None);
        assert_eq!(of(&[under_way], true), MissReason::Overlap);
        assert_eq!(of(&[short.clone(), long], false), MissReason::Overlap);
        assert_eq!(of(&[short.clone(), later], true), MissReason::NotStarted);
        assert_eq!(of(&[short], false), MissReason::NotReady);
    }
}
