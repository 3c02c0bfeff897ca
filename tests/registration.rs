//! A driver that registers itself, and a kubelet that comes to its socket.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::Driver;
use kuration::csi::registration::proto::registration_client::RegistrationClient;
use kuration::csi::registration::proto::{InfoRequest, PluginInfo, RegistrationStatus};
use tonic::transport::{Channel, Endpoint};

const NAME: &str = "pool.csi.kuration.io";

/// The kubelet's side: its directory of plugins, and what it asks at the socket there.
struct Kubelet {
    directory: tempfile::TempDir,
}

impl Kubelet {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join(format!("kuration@{NAME}-reg.sock"))
    }

    /// A driver that registers here.
    fn driver(&self, more: &[&str]) -> Driver {
        let driver = Driver::pool(&[&["--kubelet-registration", self.path()], more].concat());
        // Its file is there a moment before it listens.
        soon("the socket answers", || UnixStream::connect(self.socket()).is_ok());
        driver
    }

    async fn dial(&self) -> RegistrationClient<Channel> {
        let endpoint = Endpoint::try_from(format!("unix:{}", self.socket().display())).unwrap();
        RegistrationClient::new(endpoint.connect().await.unwrap())
    }

    async fn info(&self) -> PluginInfo {
        self.dial().await.get_info(InfoRequest {}).await.unwrap().into_inner()
    }

    async fn notify(&self, plugin_registered: bool, error: &str) {
        let status = RegistrationStatus { plugin_registered, error: error.to_owned() };
        self.dial().await.notify_registration_status(status).await.unwrap();
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn soon(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `HTTP/1.1 CODE …` and the text of GET `path`.
fn ask(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn the_kubelet_is_told_name_endpoint_and_version() {
    let kubelet = Kubelet::new();
    let _driver = kubelet.driver(&["--kubelet-endpoint", "/var/lib/kubelet/plugins/p/csi.sock"]);
    let info = kubelet.info().await;
    assert_eq!(info.r#type, "CSIPlugin");
    assert_eq!(info.name, NAME);
    assert_eq!(info.endpoint, "/var/lib/kubelet/plugins/p/csi.sock");
    assert_eq!(info.supported_versions, ["1.0.0"]);
}

#[tokio::test]
async fn without_another_word_the_endpoint_is_the_drivers_own_and_serves_csi_by_then() {
    let kubelet = Kubelet::new();
    let _driver = kubelet.driver(&[]);
    let endpoint = kubelet.info().await.endpoint;
    let channel = Endpoint::try_from(format!("unix:{endpoint}")).unwrap().connect().await.unwrap();
    let mut node = kuration::csi::proto::node_client::NodeClient::new(channel);
    let asked = kuration::csi::proto::NodeGetInfoRequest {};
    assert_eq!(node.node_get_info(asked).await.unwrap().into_inner().node_id, "node-1");
}

#[tokio::test]
async fn the_driver_is_ready_once_the_kubelet_has_taken_it_and_alive_all_the_while() {
    let kubelet = Kubelet::new();
    let address = free_address();
    let driver = kubelet.driver(&["--admin", &address]);
    soon("the pool is ready", || ask(&address, "/readyz").contains("the kubelet has not registered"));
    assert!(ask(&address, "/readyz").starts_with("HTTP/1.1 503"));
    assert!(ask(&address, "/livez").starts_with("HTTP/1.1 200"));
    // The sidecars' own question is another: whoever waits for the kubelet must not be restarted for it.
    let probe = kuration::csi::proto::ProbeRequest {};
    assert_eq!(driver.identity().await.probe(probe).await.unwrap().into_inner().ready, Some(true));

    kubelet.notify(true, "").await;
    soon("it is ready", || ask(&address, "/readyz").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_kubelet_that_starts_anew_is_answered_anew() {
    let kubelet = Kubelet::new();
    let _driver = kubelet.driver(&[]);
    for _ in 0..3 {
        assert_eq!(kubelet.info().await.name, NAME);
        kubelet.notify(true, "").await;
    }
}

#[tokio::test]
async fn a_refusal_ends_the_driver_with_the_kubelets_words() {
    let kubelet = Kubelet::new();
    let driver = kubelet.driver(&[]);
    // A kubelet that keeps its connection open must not keep the process.
    let _open = kubelet.dial().await;
    kubelet.notify(false, "another driver of this name is here").await;
    let (status, log) = driver.end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("refused to register this driver: another driver of this name is here"), "{log}");
    assert!(!kubelet.socket().exists());
}

#[tokio::test]
async fn at_its_end_the_driver_takes_its_socket_away() {
    let kubelet = Kubelet::new();
    let driver = kubelet.driver(&[]);
    kubelet.notify(true, "").await;
    let (status, _home) = driver.stop();
    assert_eq!(status.code(), Some(0));
    assert!(!kubelet.socket().exists());
}

#[tokio::test]
async fn the_socket_of_a_driver_that_was_killed_is_replaced() {
    let kubelet = Kubelet::new();
    drop(kubelet.driver(&[]).kill());
    assert!(is_socket(&kubelet.socket()));
    let dead = std::fs::symlink_metadata(kubelet.socket()).unwrap();
    let _driver = kubelet.driver(&[]);
    let new = std::fs::symlink_metadata(kubelet.socket()).unwrap();
    assert_ne!(created(&dead), created(&new));
    assert_eq!(kubelet.info().await.name, NAME);
}

fn created(file: &std::fs::Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (file.ctime(), file.ctime_nsec())
}

#[tokio::test]
async fn a_socket_that_somebody_removed_is_put_there_again() {
    let kubelet = Kubelet::new();
    let driver = kubelet.driver(&[]);
    kubelet.notify(true, "").await;
    std::fs::remove_file(kubelet.socket()).unwrap();
    soon("the socket is there again", || UnixStream::connect(kubelet.socket()).is_ok());
    assert_eq!(kubelet.info().await.name, NAME);
    assert_eq!(driver.stop().0.code(), Some(0));
}

#[test]
fn a_directory_that_is_not_there_is_refused_with_what_to_mount() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("pool")).unwrap();
    let missing = home.path().join("plugins_registry");
    let kuration = std::process::Command::new(env!("CARGO_BIN_EXE_kuration"))
        .env_clear()
        .args(["all", "--node-id", "n1", "--endpoint"])
        .arg(format!("unix://{}", home.path().join("csi.sock").display()))
        .arg("--pool")
        .arg(home.path().join("pool"))
        .arg("--state-dir")
        .arg(home.path().join("state"))
        .arg("--kubelet-registration")
        .arg(&missing)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&kuration.stderr).into_owned();
    assert_eq!(kuration.status.code(), Some(1), "{said}");
    for word in
        [missing.to_str().unwrap(), "/var/lib/kubelet/plugins_registry", "mount that into this container"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!missing.exists());
}
