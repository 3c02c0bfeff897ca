//! The driver is killed at every point between two effects, and the repeated request converges.
#![cfg(feature = "fault-points")]
// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;
#[path = "common/fault_points.rs"]
mod fault_points;
#[path = "common/inline.rs"]
mod inline;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use asks::{
    Ask, Asker, delete, expand, get, node_expand, node_unpublish, publish, stats, tree, unpublish, unstage,
};
use common::{Driver, MIB, Mode, create, listing, mounts_beneath, node_publish, stage};
use kuration::backend::pool::fs::Plain;
use kuration::backend::store::Store;
use kuration::backend::{self, Answer, Job, Reaped};
use kuration::csi::proto::Volume;
use tempfile::TempDir;
use tonic::Code;

/// Every step of a life that has a point within, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Publish,
    Stage,
    NodePublish,
    Expand,
    NodeUnpublish,
    Unstage,
    Unpublish,
    Delete,
}

const LIFE: [Step; 9] = [
    Step::Create,
    Step::Publish,
    Step::Stage,
    Step::NodePublish,
    Step::Expand,
    Step::NodeUnpublish,
    Step::Unstage,
    Step::Unpublish,
    Step::Delete,
];

/// Each point, the step in which it lies, and how many reservations a crash there leaves until they are an hour old.
const CASES: [(&str, Step, usize); 13] = [
    ("create.reserved", Step::Create, 1),
    ("create.made", Step::Create, 1),
    ("create.committed", Step::Create, 1),
    ("publish.noted", Step::Publish, 0),
    ("stage.mounted", Step::Stage, 0),
    ("node_publish.bound", Step::NodePublish, 0),
    ("expand.limited", Step::Expand, 0),
    ("expand.written", Step::Expand, 1),
    ("node_unpublish.unmounted", Step::NodeUnpublish, 0),
    ("unstage.unmounted", Step::Unstage, 0),
    ("unpublish.removed", Step::Unpublish, 0),
    ("delete.moved", Step::Delete, 0),
    ("delete.committed", Step::Delete, 0),
];

/// The points in the life of an inline volume, and whether they lie in its unpublish.
const INLINE: [(&str, bool); 5] = [
    ("inline.made", false),
    ("inline.mounted", false),
    ("node_unpublish.unmounted", true),
    ("delete.moved", true),
    ("delete.committed", true),
];

/// What is in a pool in which volumes were, and are no more.
const EMPTY: [&str; 12] = [
    ".kuration",
    ".kuration/directories",
    ".kuration/id",
    ".kuration/installations",
    ".kuration/installations/default",
    ".kuration/installations/default/lock",
    ".kuration/installations/default/published",
    ".kuration/installations/default/reserved",
    ".kuration/installations/default/retained",
    ".kuration/installations/default/trash",
    ".kuration/installations/default/volumes",
    ".kuration/lock",
];

const MODE: Mode = Mode::SingleNodeWriter;
const REAPING: [&str; 4] = ["--trash-lifetime", "0s", "--reap-interval", "1s"];

/// One life, and where it stands.
struct Life {
    home: PathBuf,
    volume: Option<Volume>,
}

impl Life {
    fn new(home: &TempDir) -> Self {
        std::fs::create_dir_all(home.path().join("globalmount")).unwrap();
        Self { home: home.path().to_owned(), volume: None }
    }

    fn staging(&self) -> PathBuf {
        self.home.join("globalmount")
    }

    fn target(&self) -> PathBuf {
        self.home.join("pod")
    }

    fn id(&self) -> &str {
        &self.volume.as_ref().expect("a volume").volume_id
    }

    fn ask(&self, step: Step) -> Ask {
        if step == Step::Create {
            return create("pvc-1", 8 * MIB, &[]).into();
        }
        let (volume, id) = (self.volume.as_ref().expect("a volume"), self.id());
        match step {
            Step::Create | Step::Publish => publish(id, "node-1", MODE, false).into(),
            Step::Stage => stage(volume, &self.staging(), MODE).into(),
            Step::NodePublish => node_publish(volume, &self.staging(), &self.target(), MODE).into(),
            Step::Expand => expand(id, 16 * MIB, 0).into(),
            Step::NodeUnpublish => node_unpublish(id, &self.target()).into(),
            Step::Unstage => unstage(id, &self.staging()).into(),
            Step::Unpublish => unpublish(id, "node-1").into(),
            Step::Delete => delete(id).into(),
        }
    }

    /// Does a step that must succeed.
    async fn step(&mut self, asker: &Asker, step: Step) {
        asker.done(self.ask(step)).await;
        if step == Step::Create {
            let volume = asker.made("pvc-1").await;
            let first = self.volume.get_or_insert_with(|| volume.clone());
            assert_eq!((&volume.volume_id, volume.capacity_bytes), (&first.volume_id, 8 * MIB));
        }
        if step == Step::NodePublish {
            std::fs::write(self.target().join("file"), "data").unwrap();
        }
    }

    /// Holds all that can be seen against what should be after `step`.
    async fn check(&self, asker: &Asker, step: Step) {
        let at = |other: Step| LIFE.iter().position(|one| *one == other);
        let between = |from: Step, to: Step| at(from) <= at(step) && at(step) < at(to);
        let live = step != Step::Delete;
        assert_eq!(asker.ids().await, if live { vec![self.id().to_owned()] } else { vec![] });
        let directories: &[&str] = if live { &[".kuration", "pvc-1"] } else { &[".kuration"] };
        assert_eq!(listing(&self.home.join("pool")), directories);
        let mut mounts = Vec::new();
        mounts.extend(between(Step::Stage, Step::Unstage).then(|| self.staging()));
        mounts.extend(between(Step::NodePublish, Step::NodeUnpublish).then(|| self.target()));
        let mut mounted = mounts_beneath(&self.home);
        mounted.sort();
        assert_eq!(mounted, mounts);
        let notes = usize::from(between(Step::Stage, Step::Unstage));
        assert_eq!(listing(&self.home.join("state/staged")).len(), notes);
        if !live {
            assert_eq!(asker.code(get(self.id())).await, Code::NotFound);
            return;
        }
        let seen = asker.done(get(self.id())).await;
        let (size, nodes) = (
            if at(step) >= at(Step::Expand) { 16 * MIB } else { 8 * MIB },
            if between(Step::Publish, Step::Unpublish) { "[\"node-1\"]" } else { "[]" },
        );
        assert!(seen.contains(&format!("capacity_bytes: {size},")), "{seen}");
        assert!(seen.contains(&format!("published_node_ids: {nodes}")), "{seen}");
        if at(step) >= at(Step::NodePublish) {
            assert_eq!(std::fs::read_to_string(self.home.join("pool/pvc-1/file")).unwrap(), "data");
        }
        if between(Step::NodePublish, Step::NodeUnpublish) {
            assert_eq!(std::fs::read_to_string(self.target().join("file")).unwrap(), "data");
            asker.done(stats(self.id(), &self.target())).await;
            asker.done(node_expand(self.id(), &self.target(), size)).await;
        }
    }
}

#[test]
fn every_fault_point_has_a_case() {
    let cases = CASES.iter().map(|(point, ..)| *point).chain(INLINE.iter().map(|(point, _)| *point));
    let cases: BTreeSet<String> = cases.map(str::to_owned).collect();
    // Those of results are tests/inspect's.
    let points = fault_points::all().into_iter().filter(|point| !point.starts_with("results."));
    assert_eq!(points.collect::<BTreeSet<_>>(), cases);
}

/// Does what blocks where no other life waits for it.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Asks for `step` of a driver that dies at `point`.
async fn die(home: TempDir, life: &Life, point: &str, step: Step) -> TempDir {
    let driver = Driver::pool_in(home, &[], &[("KURATION_FAULT", &format!("{point}=kill"))]);
    let asker = Asker::of(&driver).await;
    let answer = asker.ask(life.ask(step)).await;
    assert!(answer.is_err(), "{point}: {answer:?}");
    aside(|| driver.wait_for_death()).await
}

/// Waits until the reaper has emptied the trash.
fn wait_for_reaper(home: &Path) {
    let trash = home.join("pool/.kuration/installations/default/trash");
    let until = Instant::now() + Duration::from_secs(20);
    while !listing(&trash).is_empty() {
        assert!(Instant::now() < until, "{:?}", listing(&trash));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One round of the reaper, with all that is reserved so many seconds old.
fn reap(home: &Path, seconds: u64) {
    let written = SystemTime::now() - Duration::from_secs(seconds);
    let reserved = home.join("pool/.kuration/installations/default/reserved");
    for name in listing(&reserved) {
        std::fs::File::open(reserved.join(name)).unwrap().set_modified(written).unwrap();
    }
    let root: OwnedFd = std::fs::File::open(home.join("pool")).unwrap().into();
    let store = Store::new(root, "the pool".into(), "default".into(), Box::new(Plain::local()), Some(1.0));
    let answer = store.answer(backend::Ask { identity: None, job: Job::Reap { lifetime: Some(0) } });
    assert!(matches!(answer, Answer::Reap(Ok(Reaped { trouble: None, .. }))), "{answer:?}");
}

fn reservations(home: &Path) -> Vec<String> {
    listing(&home.join("pool/.kuration/installations/default/reserved"))
}

/// A whole life, with a death at `point` in `step`.
async fn survive(point: &str, step: Step, left: usize) {
    let home = tempfile::tempdir().unwrap();
    let mut life = Life::new(&home);
    let at = LIFE.iter().position(|one| *one == step).unwrap();
    let driver = Driver::pool_in(home, &[], &[]);
    let asker = Asker::of(&driver).await;
    for &before in &LIFE[..at] {
        life.step(&asker, before).await;
    }
    let home = die(driver.kill(), &life, point, step).await;
    let driver = Driver::pool_in(home, &REAPING, &[]);
    let asker = Asker::of(&driver).await;
    for &step in &LIFE[at..] {
        life.step(&asker, step).await;
        life.check(&asker, step).await;
        // And once more, as a sidecar that missed the answer does.
        life.step(&asker, step).await;
        life.check(&asker, step).await;
    }
    let (status, home) = aside(|| {
        wait_for_reaper(driver.home.path());
        driver.stop()
    })
    .await;
    assert_eq!(status.code(), Some(0), "{point}");
    assert_eq!(reservations(home.path()).len(), left, "{point}");
    reap(home.path(), 1800);
    assert_eq!(reservations(home.path()).len(), left, "{point}: younger than an hour");
    reap(home.path(), 3601);
    assert_eq!(tree(&home.path().join("pool")), EMPTY, "{point}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_death_at_any_point_the_repeated_request_converges_and_nothing_is_left() {
    let lives = CASES.map(|(point, step, left)| tokio::spawn(survive(point, step, left)));
    for life in lives {
        life.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_nobody_repeats_is_undone_after_an_hour_or_was_made() {
    for (point, made) in [("create.reserved", false), ("create.made", false), ("create.committed", true)] {
        let home = tempfile::tempdir().unwrap();
        let life = Life::new(&home);
        let home = die(home, &life, point, Step::Create).await;
        reap(home.path(), 1800);
        assert_eq!(reservations(home.path()).len(), 1, "{point}: younger than an hour");
        reap(home.path(), 3601);
        assert_eq!(reservations(home.path()), Vec::<String>::new(), "{point}");
        let directories: &[&str] = if made { &[".kuration", "pvc-1"] } else { &[".kuration"] };
        assert_eq!(listing(&home.path().join("pool")), directories, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_a_dead_creation_left_is_not_undone_once_somebody_uses_it() {
    let home = tempfile::tempdir().unwrap();
    let life = Life::new(&home);
    let home = die(home, &life, "create.made", Step::Create).await;
    std::fs::write(home.path().join("pool/pvc-1/file"), "precious").unwrap();
    reap(home.path(), 3601);
    assert_eq!(std::fs::read_to_string(home.path().join("pool/pvc-1/file")).unwrap(), "precious");
    // Nor is it taken for the volume: it is no longer known whose it is.
    let driver = Driver::pool_in(home, &[], &[]);
    let asker = Asker::of(&driver).await;
    assert_eq!(asker.code(life.ask(Step::Create)).await, Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_to_be_refused_is_taken_back_by_its_unpublish() {
    let home = tempfile::tempdir().unwrap();
    let mut life = Life::new(&home);
    let nodes = ["--known-node", "node-2"];
    let driver = Driver::pool_in(home, &nodes, &[]);
    let asker = Asker::of(&driver).await;
    life.step(&asker, Step::Create).await;
    life.step(&asker, Step::Publish).await;
    let driver = Driver::pool_in(driver.kill(), &nodes, &[("KURATION_FAULT", "publish.noted=kill")]);
    let asker = Asker::of(&driver).await;
    let second = publish(life.id(), "node-2", MODE, false);
    assert!(asker.ask(second.clone()).await.is_err());
    let home = aside(|| driver.wait_for_death()).await;
    let driver = Driver::pool_in(home, &nodes, &[]);
    let asker = Asker::of(&driver).await;
    assert_eq!(asker.code(second.clone()).await, Code::FailedPrecondition);
    asker.done(unpublish(life.id(), "node-2")).await;
    life.step(&asker, Step::Publish).await;
    assert_eq!(asker.code(second.clone()).await, Code::FailedPrecondition);
    asker.done(unpublish(life.id(), "node-1")).await;
    asker.done(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_volume_outlives_a_death_and_does_not_outlive_its_pod() {
    for (point, ending) in INLINE {
        let home = tempfile::tempdir().unwrap();
        let pod = inline::Pod::new(home.path(), "a");
        let allowed = ["--inline-pool"];
        let driver = if ending {
            let driver = Driver::pool_in(home, &allowed, &[]);
            Asker::of(&driver).await.done(pod.publish(&[])).await;
            std::fs::write(pod.target.join("file"), "data").unwrap();
            Driver::pool_in(driver.kill(), &allowed, &[("KURATION_FAULT", &format!("{point}=kill"))])
        } else {
            Driver::pool_in(home, &allowed, &[("KURATION_FAULT", &format!("{point}=kill"))])
        };
        let asker = Asker::of(&driver).await;
        let asked: Ask = if ending { pod.unpublish().into() } else { pod.publish(&[]).into() };
        assert!(asker.ask(asked.clone()).await.is_err(), "{point}");
        let driver = Driver::pool_in(aside(|| driver.wait_for_death()).await, &allowed, &[]);
        let asker = Asker::of(&driver).await;
        asker.done(asked).await;
        if !ending {
            assert_eq!(mounts_beneath(driver.home.path()), std::slice::from_ref(&pod.target), "{point}");
            assert_eq!(asker.ids().await.len(), 1, "{point}");
            asker.done(pod.unpublish()).await;
        }
        assert_eq!(mounts_beneath(driver.home.path()), Vec::<PathBuf>::new(), "{point}");
        aside(move || wait_for_reaper(driver.home.path())).await;
    }
}
