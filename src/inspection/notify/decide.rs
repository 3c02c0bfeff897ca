//! What a receiver is to be told now.

use jiff::{SignedDuration, Timestamp};

use crate::inspection::task::{Moment, Notification, Told, Window};

/// How a task stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The condition Healthy; none while it is Unknown.
    pub healthy: Option<bool>,
    /// Whether the last run could not tell.
    pub inconclusive: bool,
    /// How many runs that were due never started.
    pub missed: u64,
}

/// What the receiver `of` is to be told, and what it knows once it has been. During a silence it is told nothing, and learns
/// afterwards what is still so.
pub fn decide(
    standing: Standing,
    of: &Notification,
    told: &Told,
    silent: bool,
    now: Timestamp,
) -> (Vec<Moment>, Told) {
    if silent {
        return (Vec::new(), told.clone());
    }
    let wants = |moment: Moment| match of.when.as_slice() {
        [] => matches!(moment, Moment::Failed | Moment::Recovered),
        some => some.contains(&moment),
    };
    let (mut moments, mut after) = (Vec::new(), told.clone());
    match standing.healthy {
        Some(false) => {
            let again = SignedDuration::from_secs(i64::from(of.reminder_seconds));
            let due = |at: Timestamp| !again.is_zero() && now.duration_since(at) >= again;
            if !told.failing || told.failed_at.is_some_and(due) {
                moments.push(Moment::Failed);
                after.failing = true;
                after.failed_at = Some(now);
            }
        }
        Some(true) => {
            if told.failing {
                moments.push(Moment::Recovered);
            }
            after.failing = false;
            after.failed_at = None;
        }
        // Nobody knows: what was told still stands.
        None => {}
    }
    if standing.inconclusive && !told.inconclusive {
        moments.push(Moment::Inconclusive);
    }
    after.inconclusive = standing.inconclusive;
    if standing.missed > told.missed {
        moments.push(Moment::Missed);
    }
    // A task that was made anew counts from 0 again.
    after.missed = standing.missed;
    moments.retain(|moment| wants(*moment));
    (moments, after)
}

/// Whether `now` lies in one of `windows`; `next` gives the first moment of a schedule after another.
pub fn silenced(
    windows: &[Window],
    now: Timestamp,
    mut next: impl FnMut(&str, Timestamp) -> Option<Timestamp>,
) -> bool {
    windows.iter().any(|window| {
        let length = SignedDuration::from_secs(i64::from(window.duration_seconds));
        // A window that began exactly `length` ago is over.
        let begun = now.checked_sub(length).ok().and_then(|before| next(&window.schedule, before));
        begun.is_some_and(|begun| begun <= now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::task::{Format, Notification};

    fn of(on: &[Moment], reminder: u32) -> Notification {
        serde_json::from_value(serde_json::json!({
            "name": "duty", "urlSecretRef": {"name": "duty", "key": "url"}, "format": Format::Webhook,
            "when": on, "reminderSeconds": reminder,
        }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    const WELL: Standing = Standing { healthy: Some(true), inconclusive: false, missed: 0 };
    const FAILS: Standing = Standing { healthy: Some(false), ..WELL };

    #[test]
    fn a_failure_is_told_once_and_so_is_its_end() {
        let duty = of(&[], 0);
        let mut told = Told::default();
        let mut all = Vec::new();
        for (second, standing) in [WELL, FAILS, FAILS, WELL, WELL].into_iter().enumerate() {
            let (moments, after) = decide(standing, &duty, &told, false, at(second as i64));
            told = after;
            all.push(moments);
        }
        assert_eq!(all, [vec![], vec![Moment::Failed], vec![], vec![Moment::Recovered], vec![]]);
    }

    #[test]
    fn what_nobody_can_tell_is_neither_a_recovery_nor_a_new_failure() {
        let duty = of(&[Moment::Failed, Moment::Recovered, Moment::Inconclusive], 0);
        let failing = decide(FAILS, &duty, &Told::default(), false, at(0)).1;
        let blind = Standing { healthy: None, inconclusive: true, missed: 0 };
        let (moments, told) = decide(blind, &duty, &failing, false, at(1));
        assert_eq!(moments, [Moment::Inconclusive]);
        assert_eq!(decide(blind, &duty, &told, false, at(2)).0, []);
        assert_eq!(decide(FAILS, &duty, &told, false, at(3)).0, []);
    }

    #[test]
    fn after_a_silence_it_is_told_what_is_still_so() {
        let duty = of(&[], 0);
        let (none, told) = decide(FAILS, &duty, &Told::default(), true, at(0));
        assert!(none.is_empty());
        assert_eq!(decide(FAILS, &duty, &told, false, at(1)).0, [Moment::Failed]);
        assert_eq!(decide(WELL, &duty, &told, false, at(1)).0, []);
    }

    #[test]
    fn reminders_come_when_they_are_due_and_only_if_asked_for() {
        let (told_once, told) = decide(FAILS, &of(&[], 60), &Told::default(), false, at(0));
        assert_eq!(told_once, [Moment::Failed]);
        assert_eq!(decide(FAILS, &of(&[], 60), &told, false, at(59)).0, []);
        assert_eq!(decide(FAILS, &of(&[], 60), &told, false, at(60)).0, [Moment::Failed]);
        assert_eq!(decide(FAILS, &of(&[], 0), &told, false, at(9_999)).0, []);
    }

    #[test]
    fn each_missed_run_is_told_and_a_new_count_is_no_news() {
        let duty = of(&[Moment::Missed], 0);
        let missed = |count| Standing { missed: count, ..WELL };
        let (moments, told) = decide(missed(3), &duty, &Told::default(), false, at(0));
        assert_eq!(moments, [Moment::Missed]);
        assert_eq!(decide(missed(3), &duty, &told, false, at(1)).0, []);
        assert_eq!(decide(missed(0), &duty, &told, false, at(1)), (vec![], Told::default()));
    }

    #[test]
    fn a_silence_holds_from_its_first_moment_to_its_last() {
        let window = Window { schedule: "0 2 * * *".into(), duration_seconds: 100 };
        // Begins at second 1000, and once more a day later.
        let next =
            |_: &str, after: Timestamp| [at(1_000), at(87_400)].into_iter().find(|begin| *begin > after);
        let silent = |second| silenced(std::slice::from_ref(&window), at(second), next);
        assert_eq!([999, 1_000, 1_099, 1_100, 50_000].map(silent), [false, true, true, false, false]);
    }
}
