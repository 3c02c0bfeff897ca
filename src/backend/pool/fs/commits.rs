//! Commits that many wait for at once.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::io::{Errno, Result};

/// Commits of a file system, of which each makes all last that was done before it: so as few are made as are needed.
///
/// Who comes while one is under way waits for the next, with all others who come till then. Once several have waited for one, the
/// next begins only after a pause of [`PAUSE`] times as long as that one took, so that no more than a sixth of the time is spent on
/// committing: each costs a millisecond of the processor, however little is in it.
#[derive(Default)]
pub struct Commits {
    state: Mutex<State>,
    /// For who waits for an even one, and for who waits for an odd one.
    ended: [Condvar; 2],
}

/// How much longer than a commit the pause after it is.
const PAUSE: u32 = 5;

#[derive(Default)]
struct State {
    /// How many were begun, and how many ended.
    begun: u64,
    ended: u64,
    /// Somebody sees to the next one.
    led: bool,
    /// How many wait for the next one.
    waiting: u32,
    /// How long the next one is to wait after the last, and when that ended.
    pause: Duration,
    last: Option<Instant>,
    /// What the last one came to.
    failed: Option<Errno>,
}

/// However slow a disk is, nobody waits longer than this for company.
const LONGEST: Duration = Duration::from_millis(200);

impl Commits {
    /// Returns once a commit that began after this was called has ended, made by this caller or another.
    pub fn commit(&self, commit: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut state = self.state.lock();
        // One that is under way may have passed what the caller did.
        let mine = state.begun + 1;
        state.waiting += 1;
        while state.led && state.ended < mine {
            self.ended(mine).wait(&mut state);
        }
        if state.ended >= mine {
            return state.failed.map_or(Ok(()), Err);
        }
        state.led = true;
        if let Some(last) = state.last {
            let until = last + state.pause;
            parking_lot::MutexGuard::unlocked(&mut state, || {
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
            });
        }
        state.begun += 1;
        let company = std::mem::take(&mut state.waiting) > 1;
        let began = Instant::now();
        let done = parking_lot::MutexGuard::unlocked(&mut state, commit);
        let now = Instant::now();
        state.pause = if company { LONGEST.min((now - began) * PAUSE) } else { Duration::ZERO };
        (state.ended, state.last, state.failed, state.led) = (state.begun, Some(now), done.err(), false);
        drop(state);
        self.ended(mine).notify_all();
        // Of those who came meanwhile, one leads the next.
        self.ended(mine + 1).notify_one();
        done
    }

    fn ended(&self, commit: u64) -> &Condvar {
        &self.ended[usize::from(commit % 2 == 1)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn one_alone_commits_each_time_and_at_once() {
        let (commits, made) = (Commits::default(), AtomicU32::new(0));
        for count in 1..=100 {
            commits
                .commit(|| {
                    made.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })
                .unwrap();
            assert_eq!(made.load(Ordering::Relaxed), count);
            assert_eq!(commits.state.lock().pause, Duration::ZERO);
        }
    }

    #[test]
    fn everybody_waits_for_a_commit_that_began_after_he_came_and_they_share_them() {
        let (commits, made, done) = (Commits::default(), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        let before = done.fetch_add(1, Ordering::SeqCst);
                        let mut covers = None;
                        commits
                            .commit(|| {
                                covers = Some(done.load(Ordering::SeqCst));
                                std::thread::sleep(Duration::from_millis(5));
                                made.fetch_add(1, Ordering::SeqCst);
                                Ok(())
                            })
                            .unwrap();
                        assert!(covers.is_none_or(|covers| covers > before));
                    }
                });
            }
        });
        let made = made.load(Ordering::SeqCst);
        assert!((4..=60).contains(&made), "{made} commits for 200 changes of 50 threads");
    }

    #[test]
    fn a_commit_that_fails_fails_for_all_who_waited_for_it_and_for_nobody_later() {
        let commits = Commits::default();
        let failing = || {
            std::thread::sleep(Duration::from_millis(20));
            Err(Errno::ROFS)
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..10).map(|_| scope.spawn(|| commits.commit(failing))).collect();
            for one in all {
                assert_eq!(one.join().unwrap(), Err(Errno::ROFS));
            }
        });
        assert_eq!(commits.commit(|| Ok(())), Ok(()));
    }
}
