//! The child's side: a loop over jobs.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::MAX_MESSAGE;

/// Answers jobs from standard input, up to `threads` at once, until the parent closes it.
///
/// The thread that reads never touches a mount. So when the parent ends, however it ends, this returns at once, and the
/// caller must leave the process, which frees even threads that hang.
pub fn serve<J, A>(threads: usize, answer: impl Fn(J) -> A + Send + Sync + 'static) -> io::Result<()>
where
    J: DeserializeOwned + Send + 'static,
    A: Serialize,
{
    // It was started by /proc/self/exe, and ps(1) would call it 'exe'.
    rustix::thread::set_name(c"kuration")?;
    let socket = UnixStream::from(standard_input());
    let writer = Arc::new(Mutex::new(socket.try_clone()?));
    let queue = Arc::new(Queue::<(u64, J)>::default());
    let answer = Arc::new(answer);
    for _ in 0..threads {
        let (queue, writer, answer) = (Arc::clone(&queue), Arc::clone(&writer), Arc::clone(&answer));
        // The default stack of 2 MiB is address space, not memory; nothing here recurses.
        std::thread::Builder::new().name("job".into()).spawn(move || {
            loop {
                let (id, job) = queue.next();
                let sent = encode(id, &answer(job)).and_then(|message| held(&writer).write_all(&message));
                if sent.is_err() {
                    // The parent is gone, or the answer can't be told: an end that the parent sees, not a silent wait.
                    std::process::exit(1);
                }
            }
        })?;
    }
    let mut reader = io::BufReader::new(socket);
    while let Some(job) = read(&mut reader)? {
        queue.put(job);
    }
    Ok(())
}

/// Jobs that wait for a thread. Each wakes one, where threads in line for a channel's receiver wake one another.
struct Queue<T> {
    jobs: Mutex<VecDeque<T>>,
    more: Condvar,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { jobs: Mutex::default(), more: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn put(&self, job: T) {
        held(&self.jobs).push_back(job);
        self.more.notify_one();
    }

    /// The oldest job, waited for.
    fn next(&self) -> T {
        let mut jobs = held(&self.jobs);
        loop {
            match jobs.pop_front() {
                Some(job) => return job,
                None => jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Nothing that is done under these locks panics.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(unsafe_code)]
fn standard_input() -> OwnedFd {
    // SAFETY: descriptor 0 is the socket that the parent passed as standard input; nothing else in this process uses it,
    // and this is called once, at the start of a worker's life.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// A message: four bytes of length, eight of the job's number, JSON.
pub(super) fn encode(id: u64, body: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 12];
    serde_json::to_writer(&mut message, body)?;
    let length = u32::try_from(message.len() - 4).map_err(io::Error::other)?;
    message[..4].copy_from_slice(&length.to_be_bytes());
    message[4..12].copy_from_slice(&id.to_be_bytes());
    Ok(message)
}

fn read<J: DeserializeOwned>(reader: &mut impl Read) -> io::Result<Option<(u64, J)>> {
    let mut length = [0; 4];
    match reader.read_exact(&mut length) {
        // The parent closed the socket, or was killed with something unread in it.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
        {
            return Ok(None);
        }
        other => other?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if !(8..=MAX_MESSAGE).contains(&length) {
        return Err(io::Error::other("a message of a length that can't be"));
    }
    let mut message = vec![0; length];
    reader.read_exact(&mut message)?;
    let (id, body) = message.split_at(8);
    let id = u64::from_be_bytes(id.try_into().map_err(io::Error::other)?);
    Ok(Some((id, serde_json::from_slice(body)?)))
}
