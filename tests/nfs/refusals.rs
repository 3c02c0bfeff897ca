//! What can't be had, said in a sentence, with nothing left behind.

use std::fs;
use std::time::Duration;

use tonic::Code;

use crate::server::{Exchangeable, Share, Stopped, WithoutStatd};
use crate::site::{Order, Site, retried, superblocks, timed, until};

/// CreateVolume is refused with this code and these words; nothing is mounted afterwards.
async fn refused(site: &Site, order: &Order, code: Code, words: &[&str]) {
    let before = superblocks();
    let status = site.create(order).await.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    let missing: Vec<_> = words.iter().filter(|words| !status.message().contains(**words)).collect();
    assert!(missing.is_empty(), "no {missing:?} in {:?}", status.message());
    assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
    until("what was mounted for it goes", || superblocks() <= before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_root_is_squashed_the_answer_says_so_and_nothing_is_left() {
    let share = Share::on("squash");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    refused(&site, &order, Code::FailedPrecondition, &["root is probably squashed", "no_root_squash"]).await;
    assert_eq!(crate::common::listing(&share.path), Vec::<String>::new());
    // Where the squashed user may write, it works, for all that root may no longer do.
    std::os::unix::fs::chown(&share.path, Some(65534), Some(65534)).unwrap();
    let (volume, target) = site.up(&order).await;
    crate::site::write_as(1000, &target.join("file"), 1).unwrap();
    site.down(&volume).await;
    assert_eq!(share.directories(), Vec::<String>::new());
    // An owner can't be given by one who isn't root there.
    let owned = Order::on(&share, "owned").with("uid", "1000");
    refused(&site, &owned, Code::FailedPrecondition, &["root is probably squashed"]).await;
    assert_eq!(share.directories(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_export_is_refused() {
    let share = Share::on("readonly");
    let site = Site::new(&[]).await;
    refused(&site, &Order::on(&share, "pvc-1"), Code::FailedPrecondition, &["read-only", "export it rw"])
        .await;
    assert_eq!(crate::common::listing(&share.path), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_became_full_or_read_only_is_refused_until_it_is_well() {
    let export = Exchangeable::new(77);
    let site = Site::new(&[]).await;
    let own = export.parameters();
    let first = site.create(&Order::new("pvc-1", &own)).await.unwrap();
    let order = Order::new("pvc-2", &own);
    let names = || crate::common::listing(&export.path);
    let reserved = export.path.join(".kuration/installations/default/reserved");

    let filler = export.fill();
    let status = site.create(&order).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("no space left"), "{status}");
    assert_eq!(names(), [".kuration", "filler", "pvc-1"]);
    assert_eq!(crate::common::listing(&reserved), Vec::<String>::new());
    // What is there can be deleted, for that takes no room.
    site.delete(&first).await.unwrap();
    fs::remove_file(filler).unwrap();
    let second = site.create(&order).await.unwrap();

    export.export(77, "ro");
    let read_only = [
        site.create(&Order::new("pvc-3", &own)).await.map(drop),
        site.attach(&second, &order).await,
        site.expand(&second, 128 << 20, 0).await.map(drop),
        site.delete(&second).await,
    ];
    for answer in read_only {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("read-only"), "{status}");
    }
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&second.volume_id));
    export.export(77, "rw");
    site.delete(&second).await.unwrap();
    assert_eq!(names(), [".kuration"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_the_server_has_not_is_refused() {
    let site = Site::new(&[]).await;
    for (version, code) in [("4.2", Code::FailedPrecondition), ("3", Code::FailedPrecondition)] {
        let order = Order::new("pvc-1", &[("server", "127.0.0.1"), ("share", "/xfs/nowhere")]);
        let order = order.flags(&[&format!("vers={version}"), "nolock"]);
        refused(&site, &order, code, &["127.0.0.1:/xfs/nowhere"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_an_address_is_refused() {
    let site = Site::new(&[]).await;
    let order = Order::new("pvc-1", &[("server", "no-such-host.invalid"), ("share", "/xfs")]);
    refused(&site, &order, Code::Internal, &["no-such-host.invalid", "no address"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_option_is_refused_by_name() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let misspelt = order.clone().flags(&["nolocks"]);
    refused(&site, &misspelt, Code::InvalidArgument, &["\"nolocks\"", "did you mean \"nolock\""]).await;
    // What only the kernel knows to be wrong.
    refused(&site, &order.flags(&["rsize=many"]), Code::InvalidArgument, &["rsize=many", "kernel"]).await;
    assert_eq!(crate::common::listing(&share.path), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nfs_3_without_a_status_monitor_is_refused_with_what_to_do() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1").flags(&["vers=3"]);
    let words = ["rpc.statd", "nolock", "vers=4.1"];
    {
        let _monitor = WithoutStatd::begin();
        refused(&site, &order, Code::FailedPrecondition, &words).await;
        assert_eq!(crate::common::listing(&share.path), Vec::<String>::new());
        // With nolock it works without one.
        let local = Order::on(&share, "pvc-2").flags(&["vers=3", "nolock"]);
        let (volume, _) = site.up(&local).await;
        site.down(&volume).await;
    }
    let volume = site.create(&order).await.unwrap();
    {
        let _monitor = WithoutStatd::begin();
        let status = site.stage(&volume, &order).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(words.iter().all(|words| status.message().contains(words)), "{status}");
    }
    site.stage(&volume, &order).await.unwrap();
    site.unstage(&volume).await.unwrap();
    site.delete(&volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_connections_is_told_from_one_that_hangs() {
    let share = Share::on("xfs");
    let order = Order::on(&share, "pvc-1");
    let site = Site::new(&["--operation-timeout", "5s"]).await;
    for (options, words) in [("vers=4.2", "connection refused"), ("vers=3,nolock", "refused")] {
        let stopped = Stopped::begin();
        // Nothing was begun, so nothing can be under way: no code that makes the provisioner wait for it.
        let order = order.clone().flags(&[options]);
        let (status, took) = timed(site.create(&order)).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{options}: {status}");
        assert!(status.message().contains(words), "{options}: {status}");
        assert!(took < Duration::from_secs(5), "{options}: {took:?}");
        let status = site.capacity(&share.parameters()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{options}: {status}");
        drop(stopped);
    }
    let volume = retried(async || site.create(&order).await).await;
    let stopped = Stopped::begin();
    // Where the client is connected already, it tries to be so again, and a new mount waits for that.
    let (status, took) = timed(site.stage(&volume, &order)).await;
    let status = status.unwrap_err();
    assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded), "{status}");
    assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
    assert!(took < Duration::from_secs(6), "{took:?}");
    // The export is not let go, so all questions about it fail, and none says that there is less.
    let (status, took) = timed(site.list()).await;
    assert_eq!(status.unwrap_err().code(), Code::Unavailable);
    assert!(took < Duration::from_secs(7), "{took:?}");
    drop(stopped);
    assert_eq!(retried(async || site.list().await).await, std::slice::from_ref(&volume.volume_id));
    retried(async || site.stage(&volume, &order).await.map(drop)).await;
    site.unstage(&volume).await.unwrap();
    site.delete(&volume).await.unwrap();
    assert_eq!(fs::read_dir(share.path.join(".kuration/installations/default/reserved")).unwrap().count(), 0);
}
