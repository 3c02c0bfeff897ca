//! A handful of children that take one job at a time.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Child, Lost};

/// Children of one role, each at one job at a time, so that a job that hangs takes nobody else's with it.
pub struct Crew<J, A> {
    role: &'static str,
    /// How many stay when there is nothing to do. One is enough for a node that mounts now and then; a few keep a burst
    /// from paying for fork and exec again and again.
    keep: usize,
    idle: Mutex<Vec<Child<J, A>>>,
}

impl<J: Serialize, A: DeserializeOwned> Crew<J, A> {
    /// A crew that keeps `keep` children waiting. The first is started now, so that the first request finds it.
    pub fn new(role: &'static str, keep: usize) -> std::io::Result<Self> {
        Ok(Self { role, keep, idle: Mutex::new(vec![Child::start(role)?]) })
    }

    /// Has a job done by a child that does nothing else meanwhile.
    pub async fn run(&self, job: &J, deadline: Instant) -> Result<A, Lost> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let child = match idle.filter(|child| !child.is_dead()) {
            Some(child) => child,
            None => Child::start(self.role).map_err(|error| {
                tracing::error!(role = self.role, %error, "a child process can't be started");
                Lost::Died
            })?,
        };
        let answer = child.ask(job, deadline).await;
        if answer.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < self.keep {
                idle.push(child);
            }
        }
        answer
    }
}
