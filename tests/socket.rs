//! What may stand where the socket is to be, and what becomes of it.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use kuration::csi::serve::{ListenError, listen};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use rustix::process::{Pid, Signal, kill_process};

/// A path for a socket, in a directory that goes away with the first value.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    (directory, path)
}

/// A socket on which nobody listens, as one is that a driver left. On one that listened, a program that another test starts at this
/// moment would still listen: it has all that this process has open, until it is executed.
fn stale(path: &Path) {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[tokio::test]
async fn the_directory_is_made_and_the_socket_is_for_owner_and_group_alone() {
    let (directory, _) = place();
    let path = directory.path().join("a/b/csi.sock");
    let listener = listen(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    UnixStream::connect(&path).unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let (_directory, path) = place();
    stale(&path);
    assert!(UnixStream::connect(&path).is_err());
    let _listener = listen(&path).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_live_socket_is_refused_and_stays() {
    let (_directory, path) = place();
    let _listener = listen(&path).unwrap();
    let before = inode(&path);
    let error = listen(&path).unwrap_err();
    assert!(matches!(error, ListenError::Served(_)), "{error}");
    assert!(error.to_string().starts_with("another process serves"), "{error}");
    assert_eq!(inode(&path), before);
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn a_live_socket_that_accepts_nothing_is_live_all_the_same() {
    let (_directory, path) = place();
    let socket = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    // With a backlog of 0 one connection may wait; a second one would, if it were not told to come again.
    let _waiting = UnixStream::connect(&path).unwrap();
    let error = listen(&path).unwrap_err();
    assert!(matches!(error, ListenError::Served(_)), "{error}");
}

#[tokio::test]
async fn what_is_not_a_socket_is_never_removed() {
    let (directory, path) = place();
    let elsewhere = directory.path().join("elsewhere.sock");
    let _listener = listen(&elsewhere).unwrap();

    fs::write(&path, "precious").unwrap();
    assert!(matches!(listen(&path), Err(ListenError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(listen(&path), Err(ListenError::NotASocket(_))));

    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(matches!(listen(&path), Err(ListenError::NotASocket(_))));
    assert!(elsewhere.exists());
}

#[tokio::test]
async fn a_successors_socket_is_not_removed() {
    let (_directory, path) = place();
    let listener = listen(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _successor = listen(&path).unwrap();
    drop(listener);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    UnixStream::connect(&path).unwrap();
}

#[tokio::test]
async fn of_many_that_start_at_once_exactly_one_serves() {
    for _ in 0..20 {
        let (_directory, path) = place();
        stale(&path);
        let runtime = tokio::runtime::Handle::current();
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let (path, runtime) = (path.clone(), runtime.clone());
                std::thread::spawn(move || {
                    let _inside = runtime.enter();
                    listen(&path)
                })
            })
            .collect();
        let ends: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
        UnixStream::connect(&path).unwrap();
    }
}

/// The program, serving a pool; ended with the test however that ends.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Driver {
    fn start(directory: &Path, socket: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_kuration"))
            .env_clear()
            .args(["all", "--node-id", "n1", "--v", "0", "--endpoint"])
            .arg(format!("unix://{}", socket.display()))
            .arg("--pool")
            .arg(directory.join("pool"))
            .arg("--state-dir")
            .arg(directory.join("state"))
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn end(&mut self) -> Option<i32> {
        let mut end = None;
        soon("the driver ends", || {
            end = self.0.try_wait().unwrap();
            end.is_some()
        });
        end.unwrap().code()
    }
}

fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn sigterm_ends_the_driver_with_0_and_removes_the_socket() {
    let (directory, path) = place();
    fs::create_dir(directory.path().join("pool")).unwrap();
    let mut driver = Driver::start(directory.path(), &path);
    soon("the socket is served", || UnixStream::connect(&path).is_ok());
    driver.signal(Signal::TERM);
    assert_eq!(driver.end(), Some(0));
    assert!(!path.exists());
}

#[test]
fn after_a_kill_the_next_driver_takes_the_socket_over_and_a_third_is_refused() {
    let (directory, path) = place();
    fs::create_dir(directory.path().join("pool")).unwrap();
    let mut first = Driver::start(directory.path(), &path);
    soon("the socket is served", || UnixStream::connect(&path).is_ok());
    first.signal(Signal::KILL);
    assert_eq!(first.end(), None);
    assert!(path.exists());
    let _second = Driver::start(directory.path(), &path);
    soon("the socket is served again", || UnixStream::connect(&path).is_ok());
    let mut third = Driver::start(directory.path(), &path);
    assert!(third.end().is_some_and(|code| code != 0));
    UnixStream::connect(&path).unwrap();
}
