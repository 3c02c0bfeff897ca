//! How fast it goes: so many tasks a second, whatever happens, and ever more slowly with a task that does not come right.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::seen::Key;

/// Between two tasks: at most fifty a second.
const STEP: Duration = Duration::from_millis(20);

/// So many may come at once before that holds.
const BURST: u32 = 50;

/// How long a task waits that could not be looked after, the first time.
const FIRST: Duration = Duration::from_secs(5);

/// It waits no longer than this.
const LONGEST: Duration = Duration::from_secs(300);

/// Keeps the pace.
pub struct Pace {
    /// When the next one may begin, if nobody has a rest coming.
    next: Mutex<Instant>,
    failed: Mutex<HashMap<Key, u32>>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { next: Mutex::new(Instant::now()), failed: Mutex::default() }
    }
}

impl Pace {
    /// Returns when it is the caller's turn.
    pub async fn turn(&self) {
        tokio::time::sleep_until(self.slot(Instant::now())).await;
    }

    /// When it is the turn of one who asks now.
    fn slot(&self, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let earliest = now.checked_sub(STEP * BURST).unwrap_or(now);
        let mine = (*next).max(earliest);
        *next = mine + STEP;
        mine
    }

    /// It went well with a task.
    pub fn well(&self, key: &Key) {
        self.failed.lock().remove(key);
    }

    /// It did not; how long to wait until it is tried again.
    pub fn again(&self, key: &Key) -> Duration {
        let mut failed = self.failed.lock();
        let times = failed.entry(key.clone()).or_default();
        let wait = FIRST.saturating_mul(1 << (*times).min(10));
        *times = times.saturating_add(1);
        wait.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_at_once_take_their_time_and_a_few_do_not_wait() {
        let pace = Pace::default();
        let now = Instant::now() + Duration::from_secs(60);
        let waits: Vec<Duration> =
            (0..1_050).map(|_| pace.slot(now).saturating_duration_since(now)).collect();
        assert!(waits[..=50].iter().all(Duration::is_zero), "{:?}", waits[50]);
        assert_eq!(waits[51], STEP);
        assert_eq!(waits[1_049], STEP * 999);
    }

    #[test]
    fn a_task_that_does_not_come_right_is_tried_ever_more_rarely() {
        let (pace, key, other) = (Pace::default(), Key::new("shop", "a"), Key::new("shop", "b"));
        let seconds: Vec<u64> = (0..9).map(|_| pace.again(&key).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(pace.again(&other).as_secs(), 5);
        pace.well(&key);
        assert_eq!(pace.again(&key).as_secs(), 5);
    }
}
