//! Servers that hang in the middle.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::common::MIB;
use crate::server::{Share, Silence, Stopped, nfsd};
use crate::site::{Order, Site, nobody_is_stuck, retried, stuck, superblocks, timed, until};

/// How long an operation may take in these tests, and how long after that its answer may come at the latest.
const LIMIT: Duration = Duration::from_secs(3);
const MARGIN: Duration = Duration::from_millis(1500);

async fn site(share: &Share) -> Site {
    Site::new(&["--operation-timeout", "3s", "--share", &share.flag()]).await
}

/// What comes of a request while the server hangs: an error, in time.
async fn hanging<T: Debug>(ask: impl AsyncFnOnce() -> Result<T, Status>) -> Status {
    let silence = Silence::begin();
    let (answer, took) = timed(ask()).await;
    drop(silence);
    assert!(took < LIMIT + MARGIN, "{took:?} for {answer:?}");
    answer.unwrap_err()
}

/// After an outage nothing of it is left: as many children and mounts as before, and no process that waits for ever.
struct Before {
    children: usize,
    superblocks: usize,
}

impl Before {
    fn of(site: &Site) -> Self {
        Self { children: site.children().len(), superblocks: superblocks() }
    }

    fn is_again(&self, site: &Site) {
        nobody_is_stuck();
        until("there are as many children as before", || site.children().len() <= self.children);
        until("there are as many mounts as before", || superblocks() <= self.superblocks);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_in_the_middle_of_an_outage_is_found_by_the_retry() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    let warm = site.create(&Order::on(&share, "warm")).await.unwrap();
    let before = Before::of(&site);
    let order = Order::on(&share, "pvc-1");
    {
        let silence = Silence::begin();
        let (first, took) = timed(site.create(&order)).await;
        let first = first.unwrap_err();
        assert_eq!(first.code(), Code::DeadlineExceeded, "{first}");
        assert!(first.message().contains("did not answer within 3 s"), "{first}");
        assert!(took < LIMIT + MARGIN, "{took:?}");
        // At once again: refused without a wait, and still with "may be under way", since that is so.
        let (second, took) = timed(site.create(&order)).await;
        let second = second.unwrap_err();
        assert_eq!(second.code(), Code::Unavailable, "{second}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        // Of another volume nothing was begun.
        let other = site.create(&Order::on(&share, "other")).await.unwrap_err();
        assert_eq!(other.code(), Code::Internal, "{other}");
        drop(silence);
    }
    let volume = retried(async || site.create(&order).await).await;
    assert_eq!(share.directories(), ["pvc-1", "warm"]);
    assert_eq!(share.volumes().len(), 2);
    assert_eq!(site.create(&order).await.unwrap().volume_id, volume.volume_id);
    before.is_again(&site);
    site.delete(&volume).await.unwrap();
    site.delete(&warm).await.unwrap();
    assert_eq!((share.directories().len(), share.volumes().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_in_the_middle_of_an_outage_is_finished_by_the_retry() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    let (keep, gone) = (Order::on(&share, "keep"), Order::on(&share, "gone"));
    let (keep, gone) = (site.create(&keep).await.unwrap(), site.create(&gone).await.unwrap());
    let before = Before::of(&site);
    let status = hanging(async || site.delete(&gone).await).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("did not answer within 3 s"), "{status}");
    retried(async || site.delete(&gone).await).await;
    assert_eq!((share.directories(), share.volumes().len()), (vec!["keep".to_owned()], 1));
    assert_eq!(share.trash().len(), 2);
    assert_eq!(site.list().await.unwrap(), std::slice::from_ref(&keep.volume_id));
    before.is_again(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_other_request_of_a_controller_is_answered_in_time() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    let order = Order::on(&share, "pvc-1");
    let volume = site.create(&order).await.unwrap();
    let before = Before::of(&site);

    let status = hanging(async || site.list().await).await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(retried(async || site.list().await).await, std::slice::from_ref(&volume.volume_id));

    let status = hanging(async || site.capacity(&share.parameters()).await).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    retried(async || site.capacity(&share.parameters()).await).await;

    let status = hanging(async || site.attach(&volume, &order).await).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    retried(async || site.attach(&volume, &order).await).await;
    assert_eq!(site.nodes(&volume).await.unwrap(), ["node-1"]);

    let status = hanging(async || site.expand(&volume, 128 * MIB, 0).await).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert_eq!(retried(async || site.expand(&volume, 128 * MIB, 0).await).await, 128 * MIB);

    let status = hanging(async || site.detach(&volume).await).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    retried(async || site.detach(&volume).await).await;
    assert_eq!(retried(async || site.nodes(&volume).await).await, Vec::<String>::new());
    before.is_again(&site);
    site.delete(&volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_in_an_outage_are_all_answered_in_time() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    let volume = site.create(&Order::on(&share, "pvc-0")).await.unwrap();
    let before = Before::of(&site);
    let orders: Vec<Order> = (1..=24).map(|number| Order::on(&share, &format!("pvc-{number}"))).collect();
    let silence = Silence::begin();
    let creations = async {
        let mut answers = Vec::new();
        let mut under_way: Vec<_> = orders.iter().map(|order| Box::pin(timed(site.create(order)))).collect();
        for answer in &mut under_way {
            answers.push(answer.await);
        }
        answers
    };
    let (listed, deleted, created) = tokio::join!(timed(site.list()), timed(site.delete(&volume)), creations);
    drop(silence);
    assert_eq!(listed.0.unwrap_err().code(), Code::Unavailable);
    assert!(deleted.0.is_err());
    let times = created.iter().map(|(_, took)| *took).chain([listed.1, deleted.1]);
    assert!(times.max().unwrap() < LIMIT + MARGIN, "{created:?}");
    assert!(created.iter().all(|(answer, _)| answer.is_err()), "{created:?}");
    for order in &orders {
        retried(async || site.create(order).await).await;
    }
    retried(async || site.delete(&volume).await).await;
    assert_eq!((share.directories().len(), share.volumes().len()), (24, 24));
    before.is_again(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_before_the_callers_own_patience_ends() {
    let share = Share::on("xfs");
    let mut site = Site::new(&["--share", &share.flag()]).await;
    let order = Order::on(&share, "pvc-1");
    let volume = site.create(&order).await.unwrap();
    site.patience = Duration::from_secs(2);
    for number in 0..2 {
        let silence = Silence::begin();
        let (answer, took) = match number {
            0 => timed(site.attach(&volume, &order)).await,
            // The staged mount is a new one.
            _ => {
                let (answer, took) = timed(site.stage(&volume, &order)).await;
                (answer.map(drop), took)
            }
        };
        drop(silence);
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(status.message().contains("answer within 1 s"), "the driver's own words: {status}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        retried(async || site.list().await).await;
    }
    retried(async || site.stage(&volume, &order).await.map(drop)).await;
    site.unstage(&volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_from_the_start_is_told_so_and_nothing_is_begun() {
    let share = Share::on("xfs");
    for options in ["vers=4.2", "vers=3,nolock"] {
        let site = Site::new(&["--operation-timeout", "3s"]).await;
        let before = superblocks();
        let order = Order::on(&share, "pvc-1").flags(&[options]);
        let status = hanging(async || site.create(&order).await).await;
        assert_eq!(status.code(), Code::Internal, "{options}: {status}");
        assert!(status.message().contains("no answer within"), "{options}: {status}");
        nobody_is_stuck();
        until("nothing is mounted", || superblocks() <= before);
        let volume = retried(async || site.create(&order).await).await;
        let status = hanging(async || site.stage(&volume, &order).await).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{options}: {status}");
        assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
        retried(async || site.stage(&volume, &order).await.map(drop)).await;
        site.unstage(&volume).await.unwrap();
        retried(async || site.delete(&volume).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_hangs_leaves_the_others_alone_but_no_list_is_shorter() {
    let (well, ill) = (Share::on("xfs"), Share::on("btrfs"));
    let site = Site::new(&["--operation-timeout", "3s"]).await;
    let order = Order::on(&well, "pvc-1");
    // Over version 3, since over a newer one the client knows both addresses for one server.
    let parameters = [("server", "127.0.0.9"), ("share", ill.share.as_str())];
    let other = Order::new("pvc-2", &parameters).flags(&["vers=3,nolock"]);
    let (volume, second) = (site.create(&order).await.unwrap(), site.create(&other).await.unwrap());
    assert_eq!(site.list().await.unwrap().len(), 2);
    {
        struct Undrop;
        impl Drop for Undrop {
            fn drop(&mut self) {
                nfsd(&["undrop"]);
            }
        }
        nfsd(&["drop", "127.0.0.9"]);
        let _undrop = Undrop;
        let (listed, took) = timed(site.list()).await;
        assert_eq!(listed.unwrap_err().code(), Code::Unavailable);
        assert!(took < LIMIT + MARGIN, "{took:?}");
        let (target, took) = timed(async {
            site.attach(&volume, &order).await.unwrap();
            site.stage(&volume, &order).await.unwrap();
            site.publish(&volume, &order, "pod").await.unwrap()
        })
        .await;
        fs::write(target.join("file"), "data").unwrap();
        site.down(&volume).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(site.list().await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(retried(async || site.list().await).await, std::slice::from_ref(&second.volume_id));
    retried(async || site.delete(&second).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_node_is_answered_in_time() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    // Attributes are asked for anew after a second, so nothing is answered from memory.
    let order = Order::on(&share, "pvc-1").flags(&["actimeo=1"]);
    let (volume, target) = site.up(&order).await;
    let other = site.create(&Order::on(&share, "pvc-2")).await.unwrap();
    let before = Before::of(&site);
    tokio::time::sleep(Duration::from_millis(1200)).await;

    let silence = Silence::begin();
    let (stats, took) = timed(site.stats(&volume, &target)).await;
    let stats = stats.unwrap_err();
    assert_eq!(stats.code(), Code::Unavailable, "{stats}");
    assert!(stats.message().contains("did not answer within 3 s"), "{stats}");
    assert!(took < LIMIT + MARGIN, "{took:?}");

    let (published, took) = timed(site.publish(&volume, &order, "second")).await;
    println!("NodePublishVolume of a staged volume whose server hangs: {took:?}, {published:?}");
    assert!(took < LIMIT + MARGIN, "{took:?}");

    let (staged, took) = timed(site.stage(&other, &Order::on(&share, "pvc-2"))).await;
    let staged = staged.unwrap_err();
    assert_eq!(staged.code(), Code::DeadlineExceeded, "{staged}");
    assert!(took < LIMIT + MARGIN, "{took:?}");

    let (expanded, took) = timed(site.node_expand(&volume, &target, 64 * MIB)).await;
    assert!(expanded.is_err());
    assert!(took < LIMIT + MARGIN, "{took:?}");

    if published.is_ok() {
        site.unpublish(&volume, "second").await.unwrap();
    }
    let (unpublished, took) = timed(site.unpublish(&volume, "pod")).await;
    unpublished.unwrap();
    println!("NodeUnpublishVolume while the server hangs: {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    let (unstaged, took) = timed(site.unstage(&volume)).await;
    unstaged.unwrap();
    println!("NodeUnstageVolume while the server hangs: {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
    drop(silence);

    let target = {
        retried(async || site.stage(&volume, &order).await.map(drop)).await;
        site.publish(&volume, &order, "pod").await.unwrap()
    };
    fs::write(target.join("file"), "data").unwrap();
    before.is_again(&site);
    retried(async || site.detach(&volume).await).await;
    site.unpublish(&volume, "pod").await.unwrap();
    site.unstage(&volume).await.unwrap();
    site.delete(&volume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_a_dead_mount_away_leaves_its_neighbour_working() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    let (dead, neighbour) = (Order::on(&share, "dead"), Order::on(&share, "neighbour"));
    let ((dead, dead_target), (neighbour, target)) = (site.up(&dead).await, site.up(&neighbour).await);
    let mut file =
        File::options().create(true).truncate(true).read(true).write(true).open(target.join("file")).unwrap();
    file.write_all(b"before").unwrap();
    file.sync_all().unwrap();

    // Two that use the one that will be dead: a writer with data in memory, and one who sits there and does nothing.
    let mut writer = Command::new("dd")
        .args(["bs=1M", "iflag=fullblock", "conv=fsync", "status=none"])
        .arg(format!("of={}", dead_target.join("large").display()))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut data = writer.stdin.take().unwrap();
    data.write_all(&vec![1; 1 << 20]).unwrap();
    until("the writer has begun", || share.path.join("dead/large").exists());
    let mut holder = Command::new("sleep").arg("600").current_dir(&dead_target).spawn().unwrap();
    let silence = Silence::begin();
    data.write_all(&vec![1; 8 << 20]).unwrap();
    drop(data);
    until("the writer waits for the server", || stuck().iter().any(|process| process.name == "dd"));

    // An answer may be that it takes longer and goes on.
    let began = Instant::now();
    let (answer, took) = timed(site.unpublish(&dead, "pod")).await;
    assert!(took < LIMIT + MARGIN, "{took:?} for {answer:?}");
    retried(async || site.unpublish(&dead, "pod").await).await;
    let unpublish = began.elapsed();
    let (answer, took) = timed(site.unstage(&dead)).await;
    assert!(took < LIMIT + MARGIN, "{took:?} for {answer:?}");
    if answer.is_err() {
        retried(async || site.unstage(&dead).await).await;
    }
    let unstage = began.elapsed() - unpublish;
    println!("with two on it: NodeUnpublishVolume {unpublish:?}, NodeUnstageVolume {unstage:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{unpublish:?} {unstage:?}");
    until("the writer has got its error", || writer.try_wait().unwrap().is_some());
    drop(silence);

    file.write_all(b" after").unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "before after");
    assert_eq!(fs::read_to_string(share.path.join("neighbour/file")).unwrap(), "before after");
    fs::write(target.join("new"), "as ever").unwrap();
    drop(file);
    holder.kill().unwrap();
    holder.wait().unwrap();
    nobody_is_stuck();

    // The volume itself is as good as new.
    let order = Order::on(&share, "dead");
    retried(async || site.stage(&dead, &order).await.map(drop)).await;
    let again = site.publish(&dead, &order, "pod").await.unwrap();
    fs::write(again.join("new"), "as ever").unwrap();
    site.down(&dead).await;
    site.down(&neighbour).await;
    assert_eq!(site.mounts(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_in_use_is_not_taken_away_while_its_server_is_well() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    let (volume, target) = site.up(&Order::on(&share, "pvc-1")).await;
    let file = File::create(target.join("file")).unwrap();
    let status = site.unpublish(&volume, "pod").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("in use"), "{status}");
    (&file).write_all(b"data").unwrap();
    drop(file);
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_under_a_mounted_export_keeps_no_request_waiting() {
    let share = Share::on("xfs");
    let site = site(&share).await;
    let order = Order::on(&share, "pvc-1");
    let (volume, target) = site.up(&order).await;
    let before = Before::of(&site);
    let stopped = Stopped::begin();
    let (created, took) = timed(site.create(&Order::on(&share, "pvc-2"))).await;
    assert!(took < LIMIT + MARGIN, "{took:?}");
    // That one may have been begun.
    assert_eq!(created.unwrap_err().code(), Code::DeadlineExceeded);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    // Then the export is mounted anew, which is refused.
    let again = site.create(&Order::on(&share, "pvc-2")).await.unwrap_err();
    assert_eq!(again.code(), Code::Unavailable, "{again}");
    // Of this one nothing was begun.
    let other = site.create(&Order::on(&share, "pvc-3")).await.unwrap_err();
    assert_eq!(other.code(), Code::Internal, "{other}");
    let (stats, took) = timed(site.stats(&volume, &target)).await;
    assert_eq!(stats.unwrap_err().code(), Code::Unavailable);
    assert!(took < LIMIT + MARGIN, "{took:?}");
    drop(stopped);
    let second = retried(async || site.create(&Order::on(&share, "pvc-2")).await).await;
    assert_eq!(share.directories(), ["pvc-1", "pvc-2"]);
    retried(async || site.stats(&volume, &target).await).await;
    before.is_again(&site);
    site.delete(&second).await.unwrap();
    site.down(&volume).await;
}
