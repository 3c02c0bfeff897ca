//! The reaper's rounds: at each place by itself, and by one process at a time where there is a Lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backend::{Place, Trouble, Volumes};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::VolumeCount;

/// How many volumes each place had when it was last looked at.
type Counts = Arc<Mutex<HashMap<Place, VolumeCount>>>;

/// A round at one place. Dropped, it stops before the next removal.
struct Round(JoinHandle<()>);

impl Drop for Round {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Empties the trash for as long as `held` is true; without it, always.
///
/// A process that does not hold the Lease counts no volumes either, so that of two controllers one tells how many there are.
pub(super) async fn whenever_held(
    held: Option<watch::Receiver<bool>>,
    volumes: Volumes,
    metrics: Metrics,
    lifetime: Duration,
    interval: Duration,
) {
    let counts = Counts::default();
    let shown = Arc::clone(&counts);
    metrics.volumes(move || {
        let counts = shown.lock();
        counts
            .values()
            .copied()
            .reduce(|a, b| VolumeCount { live: a.live + b.live, trash: a.trash + b.trash })
    });
    super::held::whenever_held(held, || async {
        let _cleared = Cleared(&counts);
        reap(&volumes, &metrics, lifetime, interval, &counts).await;
    })
    .await;
}

/// Forgets all counts at its end.
struct Cleared<'a>(&'a Counts);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.lock().clear();
    }
}

/// Empties the trash: of each export by itself, so that one which hangs, or whose trash takes hours, holds up no other.
async fn reap(volumes: &Volumes, metrics: &Metrics, lifetime: Duration, interval: Duration, counts: &Counts) {
    let mut rounds: HashMap<Place, Round> = HashMap::new();
    loop {
        rounds.retain(|_, round| !round.0.is_finished());
        for place in volumes.backend().places() {
            rounds.entry(place).or_insert_with_key(|place| {
                let (volumes, metrics, counts) = (volumes.clone(), metrics.clone(), Arc::clone(counts));
                Round(tokio::spawn(reap_place(volumes, metrics, lifetime, place.clone(), counts)))
            });
        }
        tokio::time::sleep(interval).await;
    }
}

/// One round at one place; what is there afterwards goes into `counts`.
async fn reap_place(volumes: Volumes, metrics: Metrics, lifetime: Duration, place: Place, counts: Counts) {
    let name = place.name();
    let failed = |trouble: Trouble| tracing::warn!(place = name, %trouble, "the trash can't be emptied now");
    match volumes.backend().reap(&place, Some(lifetime.as_secs())).await {
        Ok(reaped) => {
            metrics.reaped(reaped.removed);
            if reaped.removed > 0 {
                tracing::info!(place = name, volumes = reaped.removed, "trash removed");
            }
            reaped.trouble.into_iter().for_each(failed);
            let count = VolumeCount { live: reaped.volumes, trash: reaped.waiting };
            counts.lock().insert(place, count);
        }
        Err(trouble) => failed(trouble),
    }
}
