//! Inline ephemeral volumes: made with a Pod, gone with it, and never the Pod's to place.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;
#[path = "common/inline.rs"]
mod inline;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use asks::Asker;
use common::{Driver, MIB, Mode, capability_with, create, listing, map, mounts_beneath};
use inline::Pod;
use kuration::csi::proto::GetCapacityRequest;
use tonic::{Code, Status};

const POOL: [&str; 3] = ["--inline-pool", "--inline-limit", "64MiB"];

fn directories(driver: &Driver) -> Vec<String> {
    let mut names = listing(&driver.home.path().join("pool"));
    names.retain(|name| name != ".kuration");
    names
}

fn trash(driver: &Driver) -> Vec<String> {
    listing(&driver.home.path().join("pool/.kuration/installations/default/trash"))
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn refused(asker: &Asker, pod: &Pod, attributes: &[(&str, &str)]) -> Status {
    asker.ask(pod.publish(attributes)).await.unwrap_err()
}

#[tokio::test]
async fn an_inline_volume_lives_as_long_as_its_pod() {
    let driver = Driver::pool(&POOL);
    let asker = Asker::of(&driver).await;
    let pod = Pod::new(driver.home.path(), "a");
    let publish = pod.publish(&[("size", "8Mi"), ("mountPermissions", "0770")]);
    for _ in 0..2 {
        asker.done(publish.clone()).await;
        assert_eq!(mounts_beneath(driver.home.path()), std::slice::from_ref(&pod.target));
        assert_eq!(directories(&driver).len(), 1);
    }
    let made = pod.target.metadata().unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o770);
    std::fs::write(pod.target.join("file"), "data").unwrap();
    let stats = asker.done(pod.stats()).await;
    assert!(stats.contains("unit: Bytes"), "{stats}");

    for _ in 0..2 {
        asker.done(pod.unpublish()).await;
        assert!(!pod.target.exists());
        assert_eq!(directories(&driver), Vec::<String>::new());
        assert_eq!(asker.ids().await, Vec::<String>::new());
    }
    assert_eq!(asker.code(pod.stats()).await, Code::NotFound);
    // The trash's lifetime is a day, and nobody misses a Pod's scratch.
    until("the data is gone", || trash(&driver).is_empty()).await;
}

#[tokio::test]
async fn a_volume_whose_record_cant_be_read_is_not_said_to_be_gone() {
    let driver = Driver::pool(&POOL);
    let asker = Asker::of(&driver).await;
    let pod = Pod::new(driver.home.path(), "a");
    asker.done(pod.publish(&[])).await;
    let records = driver.home.path().join("pool/.kuration/installations/default/volumes");
    let record = records.join(&listing(&records)[0]);
    let content = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{").unwrap();
    let refusal = asker.ask(pod.stats()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Internal, "{refusal:?}");
    assert!(refusal.message().contains(&listing(&records)[0]), "{refusal:?}");
    std::fs::write(&record, content).unwrap();
    asker.done(pod.stats()).await;
    asker.done(pod.unpublish()).await;
}

#[tokio::test]
async fn what_others_deleted_stays_in_the_trash_when_a_pods_scratch_goes() {
    let driver = Driver::pool(&POOL);
    let asker = Asker::of(&driver).await;
    let volume = asker.made("pvc-1").await;
    asker.done(asks::delete(&volume.volume_id)).await;
    assert_eq!(trash(&driver).len(), 2);
    let pod = Pod::new(driver.home.path(), "a");
    asker.done(pod.publish(&[])).await;
    asker.done(pod.unpublish()).await;
    // Longer than what is gathered is waited for.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    until("the scratch is gone", || trash(&driver).len() == 2).await;
}

#[tokio::test]
async fn without_leave_an_inline_volume_is_refused_with_the_flag_that_gives_it() {
    let pool = Driver::pool(&[]);
    let shares = Driver::start(tempfile::tempdir().unwrap(), "node", &["--node-id", "node-1"], &[]);
    for (driver, flag) in [(&pool, "--inline-pool"), (&shares, "--inline-share")] {
        let asker = Asker::of(driver).await;
        let pod = Pod::new(driver.home.path(), "a");
        let refusal = refused(&asker, &pod, &[]).await;
        assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal:?}");
        assert!(refusal.message().contains(flag), "{refusal:?}");
        assert!(!pod.target.exists());
        // A kubelet that unpublishes it all the same is told that it is gone.
        asker.done(pod.unpublish()).await;
    }
}

#[tokio::test]
async fn where_it_lives_and_how_it_is_mounted_is_not_the_pods_to_say() {
    let driver = Driver::pool(&POOL);
    let asker = Asker::of(&driver).await;
    let pod = Pod::new(driver.home.path(), "a");
    for key in ["server", "share", "subDir", "mountOptions", "onDelete", "uid", "gid"] {
        let refusal = refused(&asker, &pod, &[(key, "x")]).await;
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
        assert!(
            refusal.message().contains(key) && refusal.message().contains("administrator"),
            "{refusal:?}"
        );
    }
    for (attributes, word) in [
        (("size", "65Mi"), "--inline-limit"),
        (("size", "lots"), "500Mi"),
        (("sise", "1Mi"), "did you mean"),
        (("mountPermissions", "rwx"), "octal"),
    ] {
        let refusal = refused(&asker, &pod, &[attributes]).await;
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
        assert!(refusal.message().contains(word), "{refusal:?}");
    }
    let mut secret = pod.publish(&[]);
    secret.secrets = map(&[("mountOptions", "vers=4.1")]);
    let refusal = asker.ask(secret).await.unwrap_err();
    assert!(refusal.message().contains("nodePublishSecretRef"), "{refusal:?}");
    let mut flags = pod.publish(&[]);
    flags.volume_capability = Some(capability_with(Mode::SingleNodeWriter, &["vers=4.1"]));
    assert_eq!(asker.code(flags).await, Code::InvalidArgument);
    assert_eq!((directories(&driver), mounts_beneath(driver.home.path())), (vec![], vec![]));
}

#[tokio::test]
async fn a_pod_that_reads_only_may_not_write() {
    let driver = Driver::pool(&POOL);
    let asker = Asker::of(&driver).await;
    let pod = Pod::new(driver.home.path(), "a");
    let mut publish = pod.publish(&[]);
    publish.readonly = true;
    asker.done(publish.clone()).await;
    asker.done(publish).await;
    let error = std::fs::write(pod.target.join("file"), "data").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    asker.done(pod.unpublish()).await;
}

#[tokio::test]
async fn its_size_is_promised_and_held_and_free_again_with_the_pods_end() {
    let image = ["--pool-image", "512MiB", "--pool-filesystem", "btrfs"];
    let driver = Driver::pool(&[&POOL[..], &image].concat());
    let asker = Asker::of(&driver).await;
    let mut controller = driver.controller().await;
    let mut room = async || {
        let asked = GetCapacityRequest::default();
        controller.get_capacity(asked).await.unwrap().into_inner().available_capacity
    };
    let before = room().await;
    let (small, default) = (Pod::new(driver.home.path(), "a"), Pod::new(driver.home.path(), "b"));
    asker.done(small.publish(&[("size", "16Mi")])).await;
    asker.done(default.publish(&[])).await;
    assert_eq!(before - room().await, (16 + 64) * MIB);

    let mut file = std::fs::File::create(small.target.join("file")).unwrap();
    let block = vec![7; 1 << 20];
    let error = (0..32).find_map(|_| file.write_all(&block).and_then(|()| file.sync_all()).err());
    drop(file);
    let full = error.expect("more than the volume holds was written").raw_os_error();
    assert!([Some(122), Some(28)].contains(&full), "EDQUOT or ENOSPC: {full:?}");
    let stats = asker.done(small.stats()).await;
    assert!(stats.contains(&format!("total: {}", 16 * MIB)), "{stats}");

    asker.done(small.unpublish()).await;
    asker.done(default.unpublish()).await;
    assert_eq!(room().await, before);
}

#[tokio::test]
async fn a_driver_that_starts_anew_without_its_state_finds_and_removes_it() {
    let driver = Driver::pool(&POOL);
    let pod = Pod::new(driver.home.path(), "a");
    Asker::of(&driver).await.done(pod.publish(&[("size", "1Mi")])).await;
    std::fs::write(pod.target.join("file"), "data").unwrap();
    let home = driver.kill();
    std::fs::remove_dir_all(home.path().join("state")).unwrap();

    // Also one in which inline volumes are no longer allowed.
    let driver = Driver::pool_in(home, &[], &[]);
    let asker = Asker::of(&driver).await;
    assert_eq!(std::fs::read_to_string(pod.target.join("file")).unwrap(), "data");
    asker.done(pod.unpublish()).await;
    assert_eq!(directories(&driver), Vec::<String>::new());
    until("the data is gone", || trash(&driver).is_empty()).await;
}

fn unmount(path: &Path) {
    nix::mount::umount2(path, nix::mount::MntFlags::empty()).unwrap();
}

#[tokio::test]
async fn a_volume_whose_pod_went_without_a_word_is_removed_and_one_that_comes_back_is_not() {
    let driver = Driver::pool(&POOL);
    let asker = Asker::of(&driver).await;
    asker.done(create("pvc-1", MIB, &[])).await;
    let (gone, back) = (Pod::new(driver.home.path(), "gone"), Pod::new(driver.home.path(), "back"));
    for pod in [&gone, &back] {
        asker.done(pod.publish(&[])).await;
        std::fs::write(pod.target.join("file"), "data").unwrap();
    }
    // The node starts anew: nothing is mounted, and of one Pod the kubelet knows nothing any more.
    let home = driver.kill();
    for pod in [&gone, &back] {
        unmount(&pod.target);
    }
    gone.forget();
    // Nor does another node touch what is this one's.
    let pool = home.path().join("pool").to_string_lossy().into_owned();
    let other = Driver::start(home, "all", &["--node-id", "node-2", "--pool", &pool, "--inline-pool"], &[]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(directories(&other).len(), 3);

    let driver = Driver::pool_in(other.kill(), &POOL, &[]);
    until("one is gone", || directories(&driver).len() == 2).await;
    let asker = Asker::of(&driver).await;
    asker.done(back.publish(&[])).await;
    assert_eq!(std::fs::read_to_string(back.target.join("file")).unwrap(), "data");
    asker.done(back.unpublish()).await;
    assert_eq!(directories(&driver), ["pvc-1"]);
}

#[tokio::test]
async fn an_id_that_is_not_the_kubelets_is_no_inline_volume() {
    let driver = Driver::pool(&POOL);
    let asker = Asker::of(&driver).await;
    let pod = Pod::new(driver.home.path(), "a");
    let mut publish = pod.publish(&[]);
    publish.volume_id = "data".to_owned();
    assert_eq!(asker.code(publish).await, Code::InvalidArgument);
}
