//! One operation at a time per object.
//!
//! Nobody else's steps can come between two of ours, and a repeated request that meets the first one still at work waits for
//! it and finds what it did, instead of being sent away. The CSI specification ("Concurrency") would allow ABORTED at once;
//! that is the answer only to one whose own time runs out meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

type Locks = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// What is being worked on.
#[derive(Clone, Default)]
pub struct InFlight {
    objects: Arc<Mutex<Locks>>,
}

/// The right to work on one object, given to the next in line when dropped.
pub struct Guard {
    objects: Arc<Mutex<Locks>>,
    object: String,
    held: Option<OwnedMutexGuard<()>>,
}

impl InFlight {
    /// Takes `object` for one operation, after those that came before; `None` where they are not done by `deadline`.
    pub async fn enter(&self, object: impl Into<String>, deadline: Instant) -> Option<Guard> {
        let object = object.into();
        let lock = Arc::clone(self.locks().entry(object.clone()).or_default());
        let mut guard = Guard { objects: Arc::clone(&self.objects), object, held: None };
        guard.held = tokio::time::timeout_at(deadline, lock.lock_owned()).await.ok();
        guard.held.is_some().then_some(guard)
    }

    fn locks(&self) -> parking_lot::MutexGuard<'_, Locks> {
        self.objects.lock()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut locks = self.objects.lock();
        self.held = None;
        // Whoever waits holds the lock too; the last one takes its entry away.
        if locks.get(&self.object).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.object);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::InFlight;
    use tokio::time::Instant;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn one_object_is_entered_once_until_it_is_left() {
        let inflight = InFlight::default();
        let guard = inflight.enter("a", soon()).await;
        assert!(guard.is_some());
        assert!(inflight.enter("a", soon()).await.is_none());
        assert!(inflight.enter("b", soon()).await.is_some());
        drop(guard);
        assert!(inflight.enter("a", soon()).await.is_some());
        assert_eq!(inflight.locks().len(), 0);
    }

    #[tokio::test]
    async fn the_next_in_line_goes_on_when_the_first_is_done() {
        let inflight = InFlight::default();
        let guard = inflight.enter("a", soon()).await;
        let next = tokio::spawn({
            let inflight = inflight.clone();
            async move { inflight.enter("a", Instant::now() + Duration::from_secs(10)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(guard);
        assert!(next.await.unwrap());
        assert_eq!(inflight.locks().len(), 0);
    }
}
