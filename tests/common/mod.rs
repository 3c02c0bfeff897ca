//! A driver process to ask, and the requests that most tests ask it with.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::expect_used, reason = "a test that cannot set up its driver has failed")]

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kuration::csi::proto::controller_client::ControllerClient;
use kuration::csi::proto::identity_client::IdentityClient;
use kuration::csi::proto::node_client::NodeClient;
use kuration::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
use kuration::csi::proto::{
    CapacityRange, CreateVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, Volume,
    VolumeCapability,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

pub use access_mode::Mode;

/// One mebibyte, in bytes.
pub const MIB: i64 = 1 << 20;

/// A driver process of its own, ended when dropped.
pub struct Driver {
    process: Child,
    /// Where its socket, state, and the kubelet's paths of a test lie.
    pub home: TempDir,
    socket: PathBuf,
}

impl Driver {
    /// Starts `kuration ROLE ARGS`, with a socket and a state directory of its own, and waits until it answers. `home` may
    /// be the one of a driver that ended, to go on where that was.
    pub fn start(home: TempDir, role: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // A name per start: two drivers may share a home.
        let socket = home.path().join(format!("csi-{}.sock", kuration::client::uuid()));
        let log = home.path().join("driver.log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let program = std::env::var_os("KURATION").unwrap_or_else(|| env!("CARGO_BIN_EXE_kuration").into());
        let process = Command::new(program)
            .arg(role)
            .arg("--endpoint")
            .arg(format!("unix://{}", socket.display()))
            .arg("--state-dir")
            .arg(home.path().join("state"))
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the driver starts");
        let mut driver = Self { process, home, socket };
        let until = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&driver.socket).is_err() {
            assert!(
                driver.process.try_wait().expect("waitable").is_none(),
                "ended at start: {}",
                driver.log()
            );
            assert!(Instant::now() < until, "no socket in time: {}", driver.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        driver
    }

    /// `kuration all` over a pool in a directory of its home, which is made.
    pub fn pool(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        Self::pool_in(home, arguments, &[])
    }

    /// The same in `home`.
    pub fn pool_in(home: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let pool = home.path().join("pool");
        std::fs::create_dir_all(&pool).expect("a pool directory");
        let pool = pool.to_string_lossy().into_owned();
        let all = [&["--node-id", "node-1", "--pool", &pool], arguments].concat();
        Self::start(home, "all", &all, environment)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("driver.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A channel to it.
    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::try_from(format!("unix:{}", self.socket.display())).expect("an endpoint");
        endpoint.connect().await.expect("the driver accepts")
    }

    pub async fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel().await)
    }

    pub async fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel().await)
    }

    pub async fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel().await)
    }

    /// Ends it by SIGKILL, and gives back its home for the next.
    pub fn kill(mut self) -> TempDir {
        self.process.kill().expect("killable");
        self.process.wait().expect("waitable");
        self.take_home()
    }

    /// Ends it by SIGTERM, and gives back how it ended, and its home.
    pub fn stop(mut self) -> (ExitStatus, TempDir) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        let status = self.process.wait().expect("waitable");
        (status, self.take_home())
    }

    /// Waits until it ends by itself (a fault point that kills it), and gives back its home.
    pub fn wait_for_death(mut self) -> TempDir {
        let status = self.process.wait().expect("waitable");
        assert_eq!(status.signal(), Some(9), "it was to be killed: {}", self.log());
        self.take_home()
    }

    /// Waits until it ends by itself, and gives back how, and what it has logged.
    pub fn end(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.process.try_wait().expect("waitable") {
                return (status, self.log());
            }
            assert!(Instant::now() < until, "it goes on: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn take_home(&mut self) -> TempDir {
        std::mem::replace(&mut self.home, tempfile::tempdir().expect("a directory"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- the driver's log\n{}", self.log());
        }
        unmount_beneath(self.home.path());
    }
}

/// Unmounts all that a test left below `root`, so that its directory can go.
pub fn unmount_beneath(root: &Path) {
    let table = kuration::mount::table::read().unwrap_or_default();
    for entry in table.iter().rev().filter(|entry| entry.target.starts_with(root)) {
        nix::mount::umount2(&entry.target, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// What is mounted below `root`.
pub fn mounts_beneath(root: &Path) -> Vec<PathBuf> {
    let table = kuration::mount::table::read().expect("a mount table");
    table.into_iter().map(|entry| entry.target).filter(|target| target.starts_with(root)).collect()
}

/// A mount capability of this mode.
pub fn capability(mode: Mode) -> VolumeCapability {
    capability_with(mode, &[])
}

/// The same with mount options.
pub fn capability_with(mode: Mode, flags: &[&str]) -> VolumeCapability {
    let mount = MountVolume {
        mount_flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        ..MountVolume::default()
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

/// A request for a volume of `bytes` that many nodes may write to.
pub fn create(name: &str, bytes: i64, parameters: &[(&str, &str)]) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter)],
        parameters: map(parameters),
        ..CreateVolumeRequest::default()
    }
}

/// A map of strings.
pub fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A request to stage `volume` at `staging`.
pub fn stage(volume: &Volume, staging: &Path, mode: Mode) -> NodeStageVolumeRequest {
    NodeStageVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: staging.to_string_lossy().into_owned(),
        volume_capability: Some(capability(mode)),
        volume_context: volume.volume_context.clone(),
        ..NodeStageVolumeRequest::default()
    }
}

/// A request to publish `volume`, staged at `staging`, at `target`.
pub fn node_publish(volume: &Volume, staging: &Path, target: &Path, mode: Mode) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: volume.volume_id.clone(),
        staging_target_path: staging.to_string_lossy().into_owned(),
        target_path: target.to_string_lossy().into_owned(),
        volume_capability: Some(capability(mode)),
        volume_context: volume.volume_context.clone(),
        ..NodePublishVolumeRequest::default()
    }
}

/// The names in a directory, sorted.
pub fn listing(directory: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
