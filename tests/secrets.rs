//! A canary in every field that holds a secret, and a look at everything that is told and kept.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;

use std::collections::{BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use asks::{
    Ask, Asker, delete, every_rpc, expand, get, node_expand, node_unpublish, publish, stats, unpublish,
    unstage,
};
use common::{Driver, MIB, Mode, capability, create, map, node_publish, stage};
use kuration::csi::proto::{self, SECRET_FIELDS};
use tonic::Code;

const CANARY: &str = "canary-7f3a9c";

/// Where a kubelet puts a pod's tokens, unless its driver asks for them in a secret.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// What a secret may hold: any key, and the one that Kuration reads, which must be mount options.
fn secret(options: &str) -> HashMap<String, String> {
    map(&[("password", CANARY), (CANARY, "a key"), ("mountOptions", options)])
}

macro_rules! messages_with_secrets {
    ($($message:ident)+) => {
        /// Puts the secret into a request, if its message has a place for one.
        fn hide(ask: &mut Ask, secret: &HashMap<String, String>) -> Option<&'static str> {
            match ask {
                $(Ask::$message(request) => {
                    request.secrets = secret.clone();
                    Some(stringify!($message))
                })+
                _ => None,
            }
        }
    };
}

messages_with_secrets! {
    CreateVolumeRequest DeleteVolumeRequest ControllerPublishVolumeRequest ControllerUnpublishVolumeRequest
    ValidateVolumeCapabilitiesRequest ControllerListVolumeHealthRequest ControllerGetVolumeHealthRequest
    ControllerModifyVolumeRequest CreateSnapshotRequest DeleteSnapshotRequest ListSnapshotsRequest GetSnapshotRequest
    ControllerExpandVolumeRequest NodeStageVolumeRequest NodePublishVolumeRequest NodeGetStorageHealthRequest
    NodeExpandVolumeRequest CreateVolumeGroupSnapshotRequest DeleteVolumeGroupSnapshotRequest
    GetVolumeGroupSnapshotRequest GetMetadataAllocatedRequest GetMetadataDeltaRequest
}

/// Puts a pod's tokens where a kubelet does.
fn tokenize(ask: &mut Ask) {
    let context = match ask {
        Ask::NodePublishVolumeRequest(request) => &mut request.volume_context,
        Ask::NodeStageVolumeRequest(request) => &mut request.volume_context,
        Ask::ControllerPublishVolumeRequest(request) => &mut request.volume_context,
        Ask::ValidateVolumeCapabilitiesRequest(request) => &mut request.volume_context,
        _ => return,
    };
    context.insert(TOKENS.to_owned(), format!("{{\"audience\":{{\"token\":\"{CANARY}\"}}}}"));
}

#[test]
fn every_field_that_the_specification_calls_secret_gets_the_canary() {
    let marked: BTreeSet<(&str, &str)> = SECRET_FIELDS.iter().copied().collect();
    let filled: BTreeSet<(&str, &str)> = every_rpc()
        .iter_mut()
        .filter_map(|ask| hide(ask, &secret("hard")))
        .map(|message| (message, "secrets"))
        .collect();
    assert_eq!(filled, marked);
}

#[test]
fn no_message_shows_its_secret_in_its_own_debug() {
    for mut ask in every_rpc() {
        hide(&mut ask, &secret(CANARY));
        tokenize(&mut ask);
        let shown = format!("{ask:?}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
}

/// A whole life, with every way a request can go wrong that speaks of what it holds, and each RPC that isn't served.
fn asks(volume: &proto::Volume, home: &Path) -> Vec<(Ask, Code)> {
    let (id, mode) = (volume.volume_id.as_str(), Mode::MultiNodeMultiWriter);
    let (staging, target) = (home.join("globalmount"), home.join("pod"));
    let validate = proto::ValidateVolumeCapabilitiesRequest {
        volume_id: id.to_owned(),
        volume_capabilities: vec![capability(mode)],
        ..Default::default()
    };
    let mut all: Vec<(Ask, Code)> = vec![
        (create("pvc-1", 8 * MIB, &[]).into(), Code::Ok),
        (create("pvc-1", 16 * MIB, &[]).into(), Code::AlreadyExists),
        (create("pvc-2", MIB, &[("onDelte", "x")]).into(), Code::InvalidArgument),
        (create("pvc-2", i64::MAX, &[]).into(), Code::OutOfRange),
        (validate.into(), Code::Ok),
        (publish(id, "node-1", mode, false).into(), Code::Ok),
        (publish(id, "node-9", mode, false).into(), Code::NotFound),
        (expand(id, 16 * MIB, 0).into(), Code::Ok),
        (expand(id, i64::MAX, 0).into(), Code::OutOfRange),
        (stage(volume, &home.join("missing"), mode).into(), Code::InvalidArgument),
        (node_publish(volume, &staging, &target, mode).into(), Code::FailedPrecondition),
        (stage(volume, &staging, mode).into(), Code::Ok),
        (node_publish(volume, &staging, &target, mode).into(), Code::Ok),
        (node_publish(volume, &staging, &home.join("no/pod"), mode).into(), Code::InvalidArgument),
        (node_expand(id, &target, 16 * MIB).into(), Code::Ok),
        (node_expand(id, &target, 32 * MIB).into(), Code::FailedPrecondition),
        (stats(id, &target).into(), Code::Ok),
        (delete(id).into(), Code::FailedPrecondition),
        (node_unpublish(id, &target).into(), Code::Ok),
        (unstage(id, &staging).into(), Code::Ok),
        (unpublish(id, "node-1").into(), Code::Ok),
        (get(id).into(), Code::Ok),
        (delete(id).into(), Code::Ok),
    ];
    // A request that says nothing else, of each RPC there is; those that need nothing succeed.
    all.extend(every_rpc().into_iter().map(|ask| (ask, Code::Unknown)));
    all
}

/// All that lies beneath `root`: names, contents and where links lead.
fn kept(root: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(root).expect("readable").map(|entry| entry.expect("readable")) {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        found.push(path.display().to_string());
        if kind.is_symlink() {
            found.push(std::fs::read_link(&path).expect("a link").display().to_string());
        } else if kind.is_dir() {
            kept(&path, found);
        } else if kind.is_file() {
            found.push(String::from_utf8_lossy(&std::fs::read(&path).expect("readable")).into_owned());
        }
    }
}

/// What the driver's address for metrics says.
fn scraped(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("metrics are served");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("writable");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("readable");
    assert!(text.contains("CreateVolume"), "{text}");
    text
}

/// Walks a volume through its life by a driver that says all it can, and gives back all that was said and kept.
async fn told(verbosity: &[&str]) -> Vec<String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let address = free.to_string();
    let driver = Driver::pool(&[&["--admin", &address], verbosity].concat());
    let asker = Asker::of(&driver).await;
    std::fs::create_dir(driver.home.path().join("globalmount")).expect("a directory");
    // First options of a secret that are in order, then some that are not.
    let options = [format!("hard,context={CANARY}"), format!("hrad={CANARY},{CANARY}")];
    let mut request = create("pvc-1", 8 * MIB, &[]);
    request.secrets = secret(&options[0]);
    let volume = asker.volume(request).await.expect("a volume");
    let mut found = vec![format!("{volume:?}")];
    for (round, options) in options.iter().enumerate() {
        for (mut ask, code) in asks(&volume, driver.home.path()) {
            hide(&mut ask, &secret(options));
            tokenize(&mut ask);
            let rpc = ask.rpc();
            let answer = asker.ask(ask).await;
            let came = answer.as_ref().map_or_else(tonic::Status::code, |_| Code::Ok);
            assert!(round > 0 || code == Code::Unknown || came == code, "{rpc}: {answer:?}");
            found.push(format!("{rpc} answered {answer:?}"));
            kept(driver.home.path(), &mut found);
        }
    }
    found.push(scraped(free));
    let log = driver.log();
    assert!(log.contains("***stripped***"), "the log holds no contents at all");
    found.push(log);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_told_or_kept_however_talkative_the_driver_is() {
    for verbosity in [["--v", "10"], ["--log", "trace"]] {
        for text in told(&verbosity).await {
            let line = text.lines().find(|line| line.contains(CANARY));
            assert_eq!(line.map(|line| &line[..line.len().min(2000)]), None, "{verbosity:?}");
        }
    }
}
