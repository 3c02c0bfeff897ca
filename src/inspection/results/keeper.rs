//! The child that touches the volume, and the side that waits for it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::store::{Kept, Loaded, Problem, Saving, load, save};
use super::volume::{self, Room, Tried};
use crate::child::{self, Child, Lost};
use crate::inspection::run::TaskName;

#[derive(Serialize, Deserialize)]
enum Job {
    Load { root: PathBuf, task: TaskName, most: usize },
    Save(Box<Saving>),
    Room { root: PathBuf },
    Try { root: PathBuf, bytes: u64 },
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Loaded(Box<Result<Loaded, Problem>>),
    Saved(Box<Result<Kept, Problem>>),
    Room(Result<Room, Problem>),
    Tried(Result<Tried, Problem>),
}

/// Does what a [`Keeper`] asks for, until it goes away: `kuration worker results`.
pub fn work() -> io::Result<()> {
    child::serve(1, |job| match job {
        Job::Load { root, task, most } => Answer::Loaded(Box::new(load(&root, &task, most))),
        Job::Save(saving) => Answer::Saved(Box::new(save(&saving))),
        Job::Room { root } => Answer::Room(volume::room(&root).map_err(Problem::from)),
        Job::Try { root, bytes } => {
            Answer::Tried(volume::try_out(&root, bytes, std::process::id()).map_err(Problem::from))
        }
    })
}

/// Reads and writes results without ever waiting for the volume longer than it says.
pub struct Keeper {
    child: Child<Job, Answer>,
}

impl Keeper {
    /// Starts the child.
    pub fn start() -> Result<Self, Problem> {
        let child = Child::start("results").map_err(|error| Problem {
            reason: "NoChild".to_owned(),
            message: format!("a child process can't be started: {error}"),
        })?;
        Ok(Self { child })
    }

    /// The last runs, newest first.
    pub async fn load(
        &self,
        root: PathBuf,
        task: TaskName,
        most: usize,
        limit: Duration,
    ) -> Result<Loaded, Problem> {
        match self.ask(&Job::Load { root, task, most }, limit).await? {
            Answer::Loaded(loaded) => *loaded,
            _ => Err(odd()),
        }
    }

    /// Writes a run.
    pub async fn save(&self, saving: Saving, limit: Duration) -> Result<Kept, Problem> {
        match self.ask(&Job::Save(Box::new(saving)), limit).await? {
            Answer::Saved(saved) => *saved,
            _ => Err(odd()),
        }
    }

    async fn ask(&self, job: &Job, limit: Duration) -> Result<Answer, Problem> {
        let answer = self.child.ask(job, Instant::now() + limit).await;
        answer.map_err(|lost| match lost {
            Lost::Deadline => {
                // Nobody else waits for it, and it may hang for ever.
                self.child.kill();
                Problem {
                    reason: "Timeout".to_owned(),
                    message: format!("the results volume did not answer within {} s", limit.as_secs()),
                }
            }
            Lost::Died => Problem {
                reason: "ChildDied".to_owned(),
                message: "the process that writes to the results volume ended".to_owned(),
            },
        })
    }
}

/// How full the volume at `root` is, asked by a child of its own.
pub async fn room(root: PathBuf) -> Result<Room, Problem> {
    match Keeper::start()?.ask(&Job::Room { root }, LONG).await? {
        Answer::Room(room) => room,
        _ => Err(odd()),
    }
}

/// Tries the volume at `root` out with a file of so many bytes, by a child of its own.
pub async fn try_out(root: PathBuf, bytes: u64) -> Result<Tried, Problem> {
    match Keeper::start()?.ask(&Job::Try { root, bytes }, LONG).await? {
        Answer::Tried(tried) => tried,
        _ => Err(odd()),
    }
}

/// A rule's own deadline is sooner; dropping what waits ends the child.
const LONG: Duration = Duration::from_secs(3600);

fn odd() -> Problem {
    Problem { reason: "Internal".to_owned(), message: "the child answered something else".to_owned() }
}
