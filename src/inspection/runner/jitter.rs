//! Tasks of one schedule do not all look at once: each waits a share of its jitter, always the same one.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::inspection::run::{RunId, TaskName, Trigger};
use jiff::Timestamp;

/// How long the run of the Job `job` waits before it begins. One that a person asked for does not, nor does one that is made up
/// for, having been late already.
pub fn wait(task: &TaskName, job: Option<&str>, jitter_seconds: i64) -> Duration {
    let due = job.filter(|job| !job.ends_with("-d"));
    let trigger = due.map(|job| RunId::of(job, &task.name, Timestamp::UNIX_EPOCH).trigger);
    if trigger != Some(Trigger::Schedule) {
        return Duration::ZERO;
    }
    let digest = Sha256::digest(&task.uid);
    let share = digest.iter().take(4).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    // Of 2^32 parts.
    Duration::from_millis((share * (jitter_seconds.unsigned_abs() * 1_000)) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(uid: &str) -> TaskName {
        TaskName { name: "check".into(), uid: uid.into(), ..TaskName::default() }
    }

    #[test]
    fn many_tasks_are_spread_over_their_jitter_and_each_keeps_its_place() {
        let waits: Vec<u128> = (0..1_000)
            .map(|at| wait(&task(&format!("uid-{at}")), Some("check-29804405"), 60).as_millis())
            .collect();
        assert!(waits.iter().all(|wait| *wait < 60_000));
        for second in 0..60 {
            let begun = waits.iter().filter(|wait| **wait / 1_000 == second).count();
            assert!((4..40).contains(&begun), "{begun} of 1,000 begin in second {second}");
        }
        assert_eq!(wait(&task("uid-7"), Some("check-29804406"), 60).as_millis(), waits[7]);
    }

    #[test]
    fn only_what_the_schedule_started_waits() {
        for job in [None, Some("check-now"), Some("check-29804405-d")] {
            assert_eq!(wait(&task("uid"), job, 3_600), Duration::ZERO, "{job:?}");
        }
        assert_eq!(wait(&task("uid"), Some("check-29804405"), 0), Duration::ZERO);
    }
}
