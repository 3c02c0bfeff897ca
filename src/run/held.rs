//! Work that one of several processes does at a time.

use tokio::sync::watch;

/// Does `work` for as long as `held` is true, and begins it anew when it is true again; without it, always. What is under way when
/// it turns false is dropped.
pub(super) async fn whenever_held<F: Future<Output = ()>>(
    held: Option<watch::Receiver<bool>>,
    mut work: impl FnMut() -> F,
) {
    let Some(mut held) = held else { return work().await };
    // The sender lives as long as the process.
    while held.wait_for(|held| *held).await.is_ok() {
        tokio::select! {
            () = work() => {}
            _ = held.wait_for(|held| !*held) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    /// One more, for as long as it lives.
    struct Working<'a>(&'a AtomicI32);

    impl Drop for Working<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn work_begins_and_ends_with_the_lease() {
        let (begun, working) = (AtomicUsize::new(0), AtomicI32::new(0));
        let (sender, held) = watch::channel(false);
        let work = || async {
            begun.fetch_add(1, Ordering::Relaxed);
            working.fetch_add(1, Ordering::Relaxed);
            let _working = Working(&working);
            std::future::pending().await
        };
        let counts = || (begun.load(Ordering::Relaxed), working.load(Ordering::Relaxed));
        let check = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(counts(), (0, 0));
            for (now, expected) in [(true, (1, 1)), (false, (1, 0)), (true, (2, 1)), (false, (2, 0))] {
                sender.send_replace(now);
                let until = Instant::now() + Duration::from_secs(20);
                while counts() != expected {
                    assert!(Instant::now() < until, "held: {now}: {:?} instead of {expected:?}", counts());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        tokio::select! {
            () = whenever_held(Some(held), work) => panic!("it ended"),
            () = check => {}
        }
    }
}
