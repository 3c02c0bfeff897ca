//! The parent's side: starting a child, asking it, and ending it.

use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::serve::encode;
use super::{ALIVE, KILLED, MAX_MESSAGE, STARTED, count};

/// A child that answers jobs of type `J` with answers of type `A`. Dropping it ends it.
pub struct Child<J, A> {
    shared: Arc<Shared>,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    next: AtomicU64,
    role: &'static str,
    types: PhantomData<fn(J) -> A>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    dead: AtomicBool,
    process: Mutex<Option<tokio::process::Child>>,
}

/// What was asked and not yet answered, those included that nobody waits for any more.
struct Waiting {
    asked: HashMap<u64, (Instant, oneshot::Sender<Vec<u8>>)>,
    last_answer: Instant,
}

/// A child that has answered nothing for this long, while it was asked something, hangs; before, it may only be slow, or the
/// one who asks impatient, and others wait for it too.
const HANGS: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The deadline passed: what was asked may have happened or not, or may happen yet. A child that hangs was killed.
    #[error("no answer in time")]
    Deadline,
    /// The child ended, or could not be started.
    #[error("the child process ended")]
    Died,
}

impl<J: Serialize, A: DeserializeOwned> Child<J, A> {
    /// Starts `kuration worker ROLE` from this program's own file.
    pub fn start(role: &'static str) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let process = tokio::process::Command::new("/proc/self/exe")
            .args(["worker", role])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .kill_on_drop(true)
            .spawn()?;
        count(&STARTED);
        ALIVE.fetch_add(1, Ordering::Relaxed);
        let (reader, writer) = UnixStream::from_std(ours)?.into_split();
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Waiting { asked: HashMap::new(), last_answer: Instant::now() }),
            dead: AtomicBool::new(false),
            process: Mutex::new(Some(process)),
        });
        tokio::spawn(receive(reader, Arc::clone(&shared)));
        Ok(Self {
            shared,
            writer: tokio::sync::Mutex::new(writer),
            next: AtomicU64::new(0),
            role,
            types: PhantomData,
        })
    }

    /// Asks, and waits for the answer until `deadline`. Where the child has answered nobody for a while then, it is killed, and
    /// with it all else it was asked.
    ///
    /// Not cancel safe in one way: a caller that goes away leaves the job running and its answer unread, which is what a
    /// request whose client has gone away should do.
    pub async fn ask(&self, job: &J, deadline: Instant) -> Result<A, Lost> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let message = encode(id, job).map_err(|_| Lost::Died)?;
        let (sender, receiver) = oneshot::channel();
        self.shared.waiting().asked.insert(id, (Instant::now(), sender));
        if self.is_dead() {
            return Err(Lost::Died);
        }
        let exchange = async {
            self.writer.lock().await.write_all(&message).await.map_err(|_| Lost::Died)?;
            let answer = receiver.await.map_err(|_| Lost::Died)?;
            serde_json::from_slice(&answer).map_err(|_| Lost::Died)
        };
        let answer = tokio::time::timeout_at(deadline, exchange).await.unwrap_or(Err(Lost::Deadline));
        match answer {
            Err(Lost::Deadline) if self.shared.hangs() => self.kill(),
            Err(Lost::Died) => self.shared.end(),
            _ => {}
        }
        answer
    }

    /// Ends the child, because it does not answer.
    pub fn kill(&self) {
        KILLED.iter().filter(|(role, _)| *role == self.role).for_each(|(_, killed)| count(killed));
        self.shared.end();
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.shared.dead.load(Ordering::Acquire)
    }
}

impl<J, A> Drop for Child<J, A> {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    fn waiting(&self) -> parking_lot::MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    fn hangs(&self) -> bool {
        let waiting = self.waiting();
        let oldest = waiting.asked.values().map(|(since, _)| *since).min();
        oldest.is_some_and(|oldest| oldest.max(waiting.last_answer).elapsed() >= HANGS)
    }

    /// Kills the child, and lets everyone who waits for it know. The process is reaped in the background: with a dead
    /// server its end may take the kernel seconds (it tries to say good-bye), and nobody should wait for that.
    fn end(&self) {
        self.dead.store(true, Ordering::Release);
        self.waiting().asked.clear();
        let process = self.process.lock().take();
        let Some(mut process) = process else { return };
        ALIVE.fetch_sub(1, Ordering::Relaxed);
        // Both fail only where the process is gone already, or the runtime is; then there is nothing to reap for.
        drop(process.start_kill());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { process.wait().await });
        }
    }
}

async fn receive(reader: OwnedReadHalf, shared: Arc<Shared>) {
    // A message is three reads, and mostly comes whole.
    let mut reader = BufReader::new(reader);
    while let Ok((id, body)) = message(&mut reader).await {
        let asked = {
            let mut waiting = shared.waiting();
            waiting.last_answer = Instant::now();
            waiting.asked.remove(&id)
        };
        if let Some((_, asked)) = asked {
            // The one who asked may have gone away.
            drop(asked.send(body));
        }
    }
    shared.end();
}

async fn message(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<(u64, Vec<u8>)> {
    let length = reader.read_u32().await? as usize;
    if !(8..=MAX_MESSAGE).contains(&length) {
        return Err(io::Error::other("a message of a length that can't be"));
    }
    let id = reader.read_u64().await?;
    let mut body = vec![0; length - 8];
    reader.read_exact(&mut body).await?;
    Ok((id, body))
}
