//! A handful of children that take one job at a time.

use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Child, Lost};

/// Children of one role, each at one job at a time, so that a job that hangs takes nobody else's with it.
pub struct Crew<J, A> {
    role: &'static str,
    idle: Mutex<Vec<(Child<J, A>, Instant)>>,
}

/// How many wait for work after a burst, so that the next one pays for no fork and exec. More at once are started as they
/// are needed.
const MOST: usize = 16;

/// How long they wait before all but one are let go: 4 MB each is worth having back when nothing happens.
const PATIENCE: Duration = Duration::from_secs(60);

impl<J: Serialize, A: DeserializeOwned> Crew<J, A> {
    /// A crew whose first child is started now, so that the first request finds it.
    pub fn new(role: &'static str) -> std::io::Result<Self> {
        Ok(Self { role, idle: Mutex::new(vec![(Child::start(role)?, Instant::now())]) })
    }

    /// Has a job done by a child that does nothing else meanwhile.
    pub async fn run(&self, job: &J, deadline: Instant) -> Result<A, Lost> {
        let idle = self.idle.lock().pop();
        let child = match idle.filter(|(child, _)| !child.is_dead()) {
            Some((child, _)) => child,
            None => Child::start(self.role).map_err(|error| {
                tracing::error!(role = self.role, %error, "a child process can't be started");
                Lost::Died
            })?,
        };
        let answer = child.ask(job, deadline).await;
        if matches!(answer, Err(Lost::Deadline)) && !child.is_dead() {
            // It does one job at a time, so nobody else waits for it.
            child.kill();
        }
        if answer.is_ok() {
            let mut idle = self.idle.lock();
            if idle.len() < MOST {
                idle.push((child, Instant::now()));
            }
        }
        answer
    }

    /// The same for a job that may rightly take long: after `first` it goes on, until `last` at most, only if `worth` says so.
    pub async fn run_patiently(
        &self,
        job: &J,
        first: Duration,
        worth: impl Future<Output = bool>,
        last: Duration,
    ) -> Result<A, Lost> {
        let mut run = std::pin::pin!(self.run(job, Instant::now() + last));
        if let Ok(done) = tokio::time::timeout(first, &mut run).await {
            return done;
        }
        // Left undone, the run is dropped, and the child with it.
        if worth.await { run.await } else { Err(Lost::Deadline) }
    }

    /// Lets children go that have waited long. The one that worked last stays.
    pub fn retire(&self) {
        let mut idle = self.idle.lock();
        while idle.len() > 1 && idle[0].1.elapsed() > PATIENCE {
            idle.remove(0);
        }
    }
}
