//! The driver under trial: this same program as a child, `kuration all`.

use std::fs::{self, File};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::place::Place;
use crate::client::{Client, ClientError};
use crate::volume::Export;

/// How long the driver may take to be ready: it may have to make a file system first.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end; longer than the time it gives requests under way.
const END: Duration = Duration::from_secs(30);
/// A deadline for each call, short enough for somebody who waits at a terminal.
const CALL: Duration = Duration::from_secs(60);

/// The size of a pool's own file system: enough for the volume and what a file system needs for itself (xfs: 300 MiB at
/// least), and little enough for a /tmp in memory. The file is sparse.
pub(super) const IMAGE: &str = "512MiB";

/// Where the driver keeps its volumes.
#[derive(Debug, Clone)]
pub(super) enum Backend {
    /// A directory, with or without a file system of its own in it.
    Pool { image: bool },
    /// The person's own server.
    Share(Export),
}

/// A running driver. It leads a process group, so that Ctrl-C at the terminal does not reach it before the trial has
/// undone what it did, and so that its own children can be ended with it.
pub(super) struct Driver {
    child: Child,
    group: Pid,
}

impl Driver {
    /// Starts it. With `log`, it writes what that filter lets through to the terminal, else warnings to a file.
    pub(super) fn start(place: &Place, backend: &Backend, log: Option<&str>) -> io::Result<Self> {
        // As /proc names it, the program is the one that runs, even after its file was replaced.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("kuration").arg("all");
        command.arg("--endpoint").arg(format!("unix://{}", place.socket().display()));
        command.args(["--node-id", "this-machine"]).arg("--state-dir").arg(place.state());
        // What was deleted goes at once, so that nothing stays on the person's server. The installation keeps that from
        // their own volumes' trash.
        command.args(["--installation", "kuration-try"]);
        command.args(["--trash-lifetime", "0", "--reap-interval", "1s", "--log-format", "text"]);
        command.args(["--log", log.unwrap_or("warn")]);
        match backend {
            Backend::Pool { image } => {
                fs::create_dir_all(place.pool())?;
                command.arg("--pool").arg(place.pool());
                if *image {
                    command.args(["--pool-image", IMAGE]);
                }
            }
            Backend::Share(export) => {
                command.arg("--share").arg(export.to_string());
            }
        }
        // Flags may stand in the environment too; the trial's own are meant for it alone.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KURATION_"))
        {
            command.env_remove(name);
        }
        command.env_remove("CSI_ENDPOINT");
        let output = || match log {
            Some(_) => Ok(Stdio::inherit()),
            None => File::options().create(true).append(true).open(place.log()).map(Stdio::from),
        };
        // Nothing but the trial's own words may stand on its standard output.
        let stdout = if log.is_some() { Stdio::null() } else { output()? };
        command.stdin(Stdio::null()).stdout(stdout).stderr(output()?);
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Pid::from_raw(group.ok_or_else(|| io::Error::other("the driver has no process number"))?);
        Ok(Self { child, group })
    }

    /// Waits until it serves, or has ended without.
    pub(super) async fn client(&mut self, place: &Place) -> Result<Client, StartError> {
        let endpoint = format!("unix://{}", place.socket().display());
        tokio::select! {
            client = Client::connect(&endpoint, START) => Ok(client?.with_deadline(CALL)),
            status = self.child.wait() => Err(StartError::Ended(status?)),
        }
    }

    /// Ends it as Kubernetes would, and says what it did not do as it should.
    pub(super) async fn stop(&mut self, place: &Place) -> Result<(), String> {
        kill(self.group, Signal::SIGTERM).map_err(|errno| format!("SIGTERM can't be sent: {errno}"))?;
        let status = timeout(END, self.child.wait()).await;
        let status = status.map_err(|_| format!("still running {END:?} after SIGTERM"))?;
        let status = status.map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("ended with {status} after SIGTERM; it should be 0"));
        }
        if fs::symlink_metadata(place.socket()).is_ok() {
            return Err(format!("ended, but left its socket {}", place.socket().display()));
        }
        // A pool's own file system stays mounted for the next start.
        let mut mounts = Place::mounts(&place.state());
        mounts.extend(Place::mounts(&place.kubelet()));
        if let Some(mount) = mounts.first() {
            return Err(format!("ended, but left the mount {mount}"));
        }
        Ok(())
    }

    /// Ends it and its children, whatever they are at, and waits until they are gone.
    pub(super) async fn kill(&mut self) {
        // Each step fails only where there is nobody left.
        killpg(self.group, Signal::SIGKILL).ok();
        self.child.wait().await.ok();
        for _ in 0..200 {
            if killpg(self.group, None).is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Why the driver does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("the driver ended at once ({0})")]
    Ended(ExitStatus),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Wait(#[from] io::Error),
}

/// The last lines of its log.
pub(super) fn log_tail(place: &Place, lines: usize) -> Vec<String> {
    let log = fs::read(place.log()).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
}
