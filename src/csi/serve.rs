//! The socket, and the server behind it.

use std::fs::{DirBuilder, File};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::telemetry::{Metrics, RpcLayer};

/// Who may connect: the user that the driver runs as, and its group. A sidecar runs as the same user.
const MODE: Mode = Mode::from_raw_mode(0o660);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Requests that one client may have under way; the protocol makes it wait with more. The sidecars' own defaults add up to
/// some 250 (100 provisioner workers, 10 to 100 of each other).
const CONCURRENT: u32 = 256;

/// How long to wait for another driver that is just starting on the same directory. It holds the lock for a few system
/// calls.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long to accept nothing after that failed. The usual reason, too many open files, does not go away by itself at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens. Dropping it removes its file, if that is still its own.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, by which a successor's is told from ours.
    file: (u64, u64),
    pause: Option<Pin<Box<Sleep>>>,
}

/// Why the socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its directory isn't there and can't be made, or can't be opened.
    #[error("the directory of {0} can't be used: {1}")]
    Directory(PathBuf, io::Error),
    /// Another driver is just starting there, and does not get on.
    #[error("another process is just starting on the directory of {0}, and has been for 5s")]
    Busy(PathBuf),
    /// Something else bears the name.
    #[error("{0} is there and is not a socket; it is left alone: move it away or choose another --endpoint")]
    NotASocket(PathBuf),
    /// Somebody answers.
    #[error("another process serves {0}")]
    Served(PathBuf),
    /// Nobody knows whether somebody answers.
    #[error("{0} is there, and whether another process serves it can't be told ({1}); it is left alone")]
    Unclear(PathBuf, io::Error),
    /// The kernel said no.
    #[error("{0} can't be served: {1}")]
    Socket(PathBuf, io::Error),
}

/// Listens at `path`, whose directory is made if need be. A socket there that nobody answers on is replaced.
///
/// Whoever looks at what is there and then replaces it must not be disturbed in between, or two drivers that start at once
/// remove each other's socket. So a lock on the directory is held meanwhile. The kernel forgets it with its holder, and
/// nothing of it stays on disk.
///
/// May block for a moment, and needs tokio's runtime around it.
pub fn listen(path: &Path) -> Result<Listener, ListenError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let no_directory = |error| ListenError::Directory(path.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(no_directory)?;
    let directory = File::open(directory).map_err(no_directory)?;
    lock(&directory, path)?;
    clear(path)?;
    let failed = |error: rustix::io::Errno| ListenError::Socket(path.to_owned(), error.into());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    // The mode of a socket's file is that of the socket less the umask. Set here, it is never wider than it should be, not
    // for a moment, and other threads are left alone, which a change of the umask would not do: it is the whole process'.
    rustix::fs::fchmod(&socket, MODE).map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    // What the umask took away is given back; nobody can connect before the next line.
    rustix::fs::chmod(path, MODE).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    let failed = |error| ListenError::Socket(path.to_owned(), error);
    let file = identity(path).map_err(failed)?;
    let socket = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Listener { socket, path: path.to_owned(), file, pause: None })
}

/// Locks the directory until `directory` is dropped.
fn lock(directory: &File, path: &Path) -> Result<(), ListenError> {
    let start = Instant::now();
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() > LOCK_PATIENCE => {
                return Err(ListenError::Busy(path.to_owned()));
            }
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            // Some network file systems lock no directories. No reason not to start: what is lost is the protection
            // against a second driver that starts in the very same millisecond.
            Ok(()) | Err(_) => return Ok(()),
        }
    }
}

/// Removes a socket that nobody answers on, and nothing else.
fn clear(path: &Path) -> Result<(), ListenError> {
    let unclear = |error| ListenError::Unclear(path.to_owned(), error);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unclear(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    // Not blocking: on a socket whose backlog is full a connect would wait. Only a refusal says that nobody listens.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let address = SocketAddrUnix::new(path).map_err(|error| unclear(error.into()))?;
    match rustix::net::connect(probe.map_err(|error| unclear(error.into()))?, &address) {
        Err(rustix::io::Errno::CONNREFUSED) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ListenError::Socket(path.to_owned(), error))
            }
            _ => Ok(()),
        },
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::PROTOTYPE) => {
            Err(ListenError::Served(path.to_owned()))
        }
        Err(error) => Err(unclear(error.into())),
    }
}

/// Device and inode of the file at `path`.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|found| (found.dev(), found.ino()))
}

impl Listener {
    /// Device and inode of its file.
    pub(super) fn file(&self) -> (u64, u64) {
        self.file
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The socket still listens here, so no other driver takes it for stale and replaces it between the two lines.
        if identity(&self.path).is_ok_and(|file| file == self.file)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket can't be removed");
        }
    }
}

impl Stream for Listener {
    type Item = io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.socket.poll_accept(cx)) {
                Ok((stream, _)) => return Poll::Ready(Some(Ok(stream))),
                // Handed to the server, the error would make it ask again at once, and again.
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

/// Serves `routes` on what comes in, until `stop` comes to an end; then lets requests under way finish for `grace`.
///
/// `incoming` is dropped as soon as `stop` ends, which closes the socket and removes its file: a successor may start while
/// the last requests here go on. What is still under way after `grace` is said in the log and left: it ends with the
/// runtime.
///
/// Messages are limited to 4 MiB by the services themselves, which is tonic's default and that of the sidecars.
pub async fn serve<IO>(
    routes: Routes,
    incoming: impl Stream<Item = io::Result<IO>>,
    metrics: Metrics,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let stopping = Notify::new();
    let server = Server::builder()
        .max_concurrent_streams(CONCURRENT)
        .layer(RpcLayer::new(metrics.clone()))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async {
            stop.await;
            stopping.notify_one();
        });
    let patience = async {
        stopping.notified().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        ended = server => ended,
        () = patience => {
            tracing::warn!(requests = metrics.under_way(), ?grace, "stopping without waiting for these any longer");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
