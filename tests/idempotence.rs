//! What is asked again is answered again, and done once.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;

use std::path::{Path, PathBuf};

use asks::{
    Ask, Asker, Staged, delete, expand, get, node_expand, node_unpublish, publish, tree, unpublish, unstage,
};
use common::{Driver, MIB, Mode, capability, capability_with, create, listing, map, mounts_beneath, stage};
use kuration::csi::proto::{self, CapacityRange};
use tonic::Code::{self, AlreadyExists, FailedPrecondition, Ok as Done, OutOfRange, ResourceExhausted};

const ALL_MODES: [Mode; 7] = [
    Mode::SingleNodeWriter,
    Mode::SingleNodeReaderOnly,
    Mode::SingleNodeSingleWriter,
    Mode::SingleNodeMultiWriter,
    Mode::MultiNodeReaderOnly,
    Mode::MultiNodeSingleWriter,
    Mode::MultiNodeMultiWriter,
];

fn many_nodes(mode: Mode) -> bool {
    mode.as_str_name().starts_with("MULTI_NODE")
}

fn readers(mode: Mode) -> bool {
    mode.as_str_name().ends_with("READER_ONLY")
}

/// Asks, and holds the code and a word of the message against what is expected.
async fn expect(asker: &Asker, what: &str, ask: impl Into<Ask>, code: Code, word: &str) {
    let ask = ask.into();
    let (rpc, answer) = (ask.rpc(), asker.ask(ask).await);
    let (found, message) =
        answer.map_or_else(|status| (status.code(), status.message().to_owned()), |a| (Done, a));
    assert_eq!(found, code, "{what}: {rpc}: {message}");
    assert!(message.contains(word), "{what}: {rpc}: no {word:?} in {message:?}");
}

/// Why nobody can write to `directory`, or `None`.
fn refusal(directory: &Path) -> Option<i32> {
    std::fs::write(directory.join("written"), "x").err().and_then(|error| error.raw_os_error())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_twice_gets_the_same_answer_and_is_done_once() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let mode = Mode::MultiNodeMultiWriter;
    let volume = asker.made("pvc-1").await;
    let id = volume.volume_id.as_str();
    let (staging, target) = (driver.home.path().join("globalmount"), driver.home.path().join("pod"));
    std::fs::create_dir(&staging).unwrap();
    let validate = proto::ValidateVolumeCapabilitiesRequest {
        volume_id: id.to_owned(),
        volume_capabilities: vec![capability(mode)],
        ..Default::default()
    };
    let life: Vec<Ask> = vec![
        create("pvc-1", 8 * MIB, &[]).into(),
        validate.into(),
        publish(id, "node-1", mode, true).into(),
        get(id).into(),
        proto::ListVolumesRequest::default().into(),
        stage(&volume, &staging, mode).into(),
        common::node_publish(&volume, &staging, &target, mode).into(),
        expand(id, 16 * MIB, 0).into(),
        node_expand(id, &target, 16 * MIB).into(),
        proto::NodeGetInfoRequest::default().into(),
        node_unpublish(id, &target).into(),
        unstage(id, &staging).into(),
        unpublish(id, "node-1").into(),
        delete(id).into(),
    ];
    for ask in life {
        let rpc = ask.rpc();
        let first = asker.done(ask.clone()).await;
        let left = (tree(driver.home.path()), mounts_beneath(driver.home.path()));
        for _ in 0..3 {
            assert_eq!(asker.done(ask.clone()).await, first, "{rpc}");
            assert_eq!((tree(driver.home.path()), mounts_beneath(driver.home.path())), left, "{rpc}");
        }
    }
    assert!(staging.exists() && !target.exists());
    assert_eq!(asker.ids().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_in_other_words_is_refused_with_the_difference() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let mode = Mode::MultiNodeMultiWriter;
    let mut first = create("pvc-1", 8 * MIB, &[("onDelete", "delete")]);
    first.volume_capabilities = vec![capability(mode), capability(Mode::SingleNodeWriter)];
    let volume = asker.volume(first.clone()).await.unwrap();
    let with = |change: &dyn Fn(&mut proto::CreateVolumeRequest)| {
        let mut request = first.clone();
        change(&mut request);
        request
    };
    let sized = |required_bytes, limit_bytes| {
        with(&|r| r.capacity_range = Some(CapacityRange { required_bytes, limit_bytes }))
    };
    // What the volume is good enough for is the volume.
    for (what, same) in [
        ("less", sized(MIB, 0)),
        ("any size", sized(0, 0)),
        ("no range", with(&|r| r.capacity_range = None)),
        ("exactly that", sized(8 * MIB, 8 * MIB)),
        ("a wider range", sized(MIB, 16 * MIB)),
        ("capabilities in another order", with(&|r| r.volume_capabilities.reverse())),
        ("a capability twice", with(&|r| r.volume_capabilities.push(capability(mode)))),
        ("keys in another case", with(&|r| r.parameters = map(&[("ONDELETE", "delete")]))),
        (
            "another claim's name",
            with(&|r| {
                r.parameters.insert("csi.storage.k8s.io/pvc/name".into(), "claim".into());
            }),
        ),
        ("secrets", with(&|r| r.secrets = map(&[("a", "b")]))),
    ] {
        let again = asker.volume(same).await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
        assert_eq!(again, volume, "{what}");
    }
    let before = tree(driver.home.path());
    for (what, other, word) in [
        ("more", sized(16 * MIB, 0), "it has 8388608 bytes, and at least 16777216 bytes are asked for"),
        ("no more than less", sized(0, MIB), "at most 1048576 bytes"),
        (
            "another value",
            with(&|r| r.parameters = map(&[("onDelete", "retain")])),
            "\"delete\", not \"retain\"",
        ),
        ("a parameter less", with(&|r| r.parameters.clear()), "not not set"),
        (
            "a parameter more",
            with(&|r| r.parameters = map(&[("onDelete", "delete"), ("uid", "1")])),
            "parameter uid is not set",
        ),
        (
            "one capability",
            with(&|r| r.volume_capabilities.truncate(1)),
            "for SINGLE_NODE_WRITER and MULTI_NODE_MULTI_WRITER, not for MULTI_NODE_MULTI_WRITER",
        ),
        (
            "mount options",
            with(&|r| r.volume_capabilities[0] = capability_with(mode, &["noexec"])),
            "MULTI_NODE_MULTI_WRITER with noexec",
        ),
        (
            "all at once",
            with(&|r| {
                (r.parameters, r.capacity_range) = (map(&[("uid", "1")]), sized(1 << 30, 0).capacity_range)
            }),
            "; ",
        ),
    ] {
        expect(&asker, what, other, AlreadyExists, word).await;
        assert_eq!(tree(driver.home.path()), before, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_publish_follows_the_specifications_table_in_every_access_mode() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    for mode in ALL_MODES {
        let name = mode.as_str_name();
        let staged = Staged::new(&asker, &driver, name, mode).await;
        let id = staged.volume.volume_id.clone();
        let targets = driver.home.path().join(format!("{name}-pods"));
        std::fs::create_dir(&targets).unwrap();
        let [first, second] = ["1", "2"].map(|target| targets.join(target));
        for _ in 0..3 {
            asker.done(staged.at(&first, false)).await;
            assert_eq!(mounts_beneath(&targets), std::slice::from_ref(&first), "{name}");
        }
        // Nobody writes by a mode that only reads; to a reader it makes no difference that it says so.
        let rofs = Some(nix::libc::EROFS);
        assert_eq!(refusal(&first), rofs.filter(|_| readers(mode)), "{name}");
        assert_eq!(refusal(&staged.staging), rofs.filter(|_| readers(mode)), "{name}");
        let (code, word) = if readers(mode) { (Done, "") } else { (AlreadyExists, "it is writable there") };
        expect(&asker, name, staged.at(&first, true), code, word).await;
        // A second target, where the mode allows one.
        let many = many_nodes(mode) || mode == Mode::SingleNodeMultiWriter;
        let (code, word) = if many { (Done, "") } else { (FailedPrecondition, name) };
        expect(&asker, name, staged.at(&second, true), code, word).await;
        let both = [first.clone(), second.clone()];
        assert_eq!(mounts_beneath(&targets), both[..if many { 2 } else { 1 }], "{name}");
        assert_eq!(second.exists(), many, "{name}");
        if many {
            assert_eq!(refusal(&second), rofs, "{name}: a reader wrote");
        }
        // Another capability than the one it was staged with.
        let other =
            if mode == Mode::SingleNodeWriter { Mode::MultiNodeMultiWriter } else { Mode::SingleNodeWriter };
        let mut differing = staged.at(&first, false);
        differing.volume_capability = Some(capability(other));
        expect(&asker, name, differing, FailedPrecondition, name).await;
        let staged_otherwise = stage(&staged.volume, &staged.staging, other);
        expect(&asker, name, staged_otherwise, AlreadyExists, "staged").await;
        // What one has left, another may have.
        asker.done(node_unpublish(&id, &first)).await;
        asker.done(node_unpublish(&id, &second)).await;
        asker.done(staged.at(&second, true)).await;
        assert_eq!(refusal(&second), rofs, "{name}: a reader wrote");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_a_volume_beside_others_as_its_mode_says() {
    let driver = Driver::pool(&["--known-node", "node-2,node-3"]);
    let asker = Asker::of(&driver).await;
    for mode in ALL_MODES {
        let name = mode.as_str_name();
        let volume = asker.made(name).await;
        let id = volume.volume_id.as_str();
        let ask = |node: &str, readonly| publish(id, node, mode, readonly);
        let first = asker.done(ask("node-1", false)).await;
        assert_eq!(asker.done(ask("node-1", false)).await, first, "{name}");
        expect(&asker, name, ask("node-1", true), AlreadyExists, "not as").await;
        let other =
            if mode == Mode::SingleNodeWriter { Mode::MultiNodeMultiWriter } else { Mode::SingleNodeWriter };
        expect(&asker, name, publish(id, "node-1", other, false), AlreadyExists, name).await;
        let one_writer = mode == Mode::MultiNodeSingleWriter;
        let (code, word) = match many_nodes(mode) && !one_writer {
            true => (Done, ""),
            false => (FailedPrecondition, "\"node-1\""),
        };
        expect(&asker, name, ask("node-2", false), code, word).await;
        expect(&asker, name, ask("node-2", false), code, word).await;
        let mut nodes = vec!["node-1", "node-2"];
        nodes.truncate(if code == Done { 2 } else { 1 });
        if one_writer {
            for node in ["node-2", "node-3"] {
                asker.done(ask(node, true)).await;
                nodes.push(node);
            }
        }
        let listed = asker.page("", 0).await.unwrap().0;
        let (_, published) = listed.iter().find(|(listed, _)| listed == id).unwrap();
        assert_eq!(*published, nodes, "{name}");
        expect(&asker, name, delete(id), FailedPrecondition, "published to node-1").await;
        assert!(driver.home.path().join("pool").join(name).is_dir(), "{name}");
        // Whoever leaves makes room.
        asker.done(unpublish(id, "node-1")).await;
        asker.done(ask("node-3", one_writer)).await;
        // Without a node: all.
        asker.done(unpublish(id, "")).await;
        asker.done(unpublish(id, "")).await;
        assert!(asker.done(get(id)).await.contains("published_node_ids: []"), "{name}");
        asker.done(delete(id)).await;
    }
    assert_eq!(listing(&driver.home.path().join("pool")), [".kuration"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_no_more_volumes_than_it_may_have() {
    let driver = Driver::pool(&["--max-volumes-per-node", "2", "--known-node", "node-2"]);
    let asker = Asker::of(&driver).await;
    let info = asker.done(proto::NodeGetInfoRequest::default()).await;
    assert!(info.contains("max_volumes_per_node: 2"), "{info}");
    let mut volumes = Vec::new();
    for name in ["a", "b", "c"] {
        volumes.push(asker.made(name).await.volume_id);
    }
    let ask = |at: usize, node: &str| publish(&volumes[at], node, Mode::SingleNodeWriter, false);
    for at in [0, 1, 0] {
        asker.done(ask(at, "node-1")).await;
    }
    for _ in 0..2 {
        expect(&asker, "the third", ask(2, "node-1"), ResourceExhausted, "2 volumes").await;
    }
    asker.done(ask(2, "node-2")).await;
    asker.done(unpublish(&volumes[0], "node-1")).await;
    asker.done(unpublish(&volumes[2], "node-2")).await;
    asker.done(ask(2, "node-1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_grows_to_what_is_asked_and_never_shrinks() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let staged = Staged::new(&asker, &driver, "pvc-1", Mode::MultiNodeMultiWriter).await;
    let id = staged.volume.volume_id.as_str();
    let target = staged.target("pod");
    let size = |bytes: i64| format!("capacity_bytes: {bytes},");
    for (required, limit, code, word) in [
        (16 * MIB, 0, Done, size(16 * MIB)),
        (16 * MIB, 0, Done, size(16 * MIB)),
        (MIB, 0, Done, size(16 * MIB)),
        (0, 18 * MIB, Done, size(18 * MIB)),
        (MIB, 15 * MIB, OutOfRange, "can't shrink".into()),
        (0, MIB, OutOfRange, "can't shrink".into()),
        (24 * MIB, 24 * MIB, Done, size(24 * MIB)),
    ] {
        expect(&asker, &format!("{required} to {limit}"), expand(id, required, limit), code, &word).await;
    }
    // The node confirms it between stage and publish, on the staging path or in its stead, and after publish.
    let node = |path: &Path, bytes| node_expand(id, path, bytes);
    let in_stead = proto::NodeExpandVolumeRequest {
        staging_target_path: asks::text(&staged.staging),
        ..node(&target, 24 * MIB)
    };
    for ask in [node(&staged.staging, 24 * MIB), in_stead] {
        expect(&asker, "staged", ask, Done, "capacity_bytes: 25165824").await;
    }
    asker.done(staged.at(&target, false)).await;
    expect(&asker, "published", node(&target, 24 * MIB), Done, "25165824").await;
    expect(&asker, "too early", node(&target, 32 * MIB), FailedPrecondition, "controller first").await;
    asker.done(expand(id, 32 * MIB, 0)).await;
    expect(&asker, "in time", node(&target, 32 * MIB), Done, "33554432").await;
    // The creation's repetition still finds the volume: it has at least what was asked for.
    let again = asker.volume(create("pvc-1", 8 * MIB, &[])).await.unwrap();
    assert_eq!((again.volume_id.as_str(), again.capacity_bytes), (id, 32 * MIB));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_for_one_volume_are_one_call_or_are_told_to_wait() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    /// Asks twenty times at once; the answers of those that were not sent away, which must be the same.
    async fn at_once(asker: &Asker, ask: impl Into<Ask>) -> Vec<String> {
        let ask = ask.into();
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let (asker, ask) = (asker.clone(), ask.clone());
                tokio::spawn(async move { asker.ask(ask).await })
            })
            .collect();
        let mut answers = Vec::new();
        for one in asked {
            match one.await.unwrap() {
                Ok(answer) => answers.push(answer),
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{}: {status:?}", ask.rpc()),
            }
        }
        answers.push(asker.done(ask.clone()).await);
        answers.dedup();
        assert_eq!(answers.len(), 1, "{}: {answers:?}", ask.rpc());
        answers
    }
    at_once(&asker, create("pvc-1", 8 * MIB, &[])).await;
    let volume = asker.made("pvc-1").await;
    assert_eq!(listing(&driver.home.path().join("pool")), [".kuration", "pvc-1"]);
    let (id, mode) = (volume.volume_id.as_str(), Mode::SingleNodeMultiWriter);
    at_once(&asker, publish(id, "node-1", mode, false)).await;
    at_once(&asker, expand(id, 16 * MIB, 0)).await;
    let (staging, target) = (driver.home.path().join("globalmount"), driver.home.path().join("pod"));
    std::fs::create_dir(&staging).unwrap();
    at_once(&asker, stage(&volume, &staging, mode)).await;
    at_once(&asker, common::node_publish(&volume, &staging, &target, mode)).await;
    let mut mounted = mounts_beneath(driver.home.path());
    mounted.sort();
    assert_eq!(mounted, [staging.clone(), target.clone()]);
    at_once(&asker, node_unpublish(id, &target)).await;
    at_once(&asker, unstage(id, &staging)).await;
    at_once(&asker, unpublish(id, "node-1")).await;
    at_once(&asker, delete(id)).await;
    assert_eq!(mounts_beneath(driver.home.path()), Vec::<PathBuf>::new());
    assert_eq!(listing(&driver.home.path().join("pool")), [".kuration"]);
    assert_eq!(listing(&driver.home.path().join("pool/.kuration/installations/default/trash")).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_list_hold_each_volume_once_whatever_is_deleted_meanwhile() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let mut ids = Vec::new();
    for at in 0..7 {
        ids.push(asker.made(&format!("pvc-{at}")).await.volume_id);
    }
    ids.sort();
    for (most, pages) in [(3, vec![3, 3, 1]), (7, vec![7]), (1, vec![1; 7]), (100, vec![7]), (0, vec![7])] {
        let (mut token, mut listed, mut sizes) = (String::new(), Vec::new(), Vec::new());
        loop {
            let (page, next) = asker.page(&token, most).await.unwrap();
            sizes.push(page.len());
            listed.extend(page.into_iter().map(|(id, _)| id));
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!((&listed, sizes), (&ids, pages), "pages of {most}");
    }
    // The last of the first page goes, and one of the second, and a page stays what it was after a restart too.
    let (first, token) = asker.page("", 3).await.unwrap();
    assert_eq!(first.len(), 3);
    asker.done(delete(&ids[2])).await;
    asker.done(delete(&ids[4])).await;
    let driver = Driver::pool_in(driver.kill(), &[], &[]);
    let asker = Asker::of(&driver).await;
    let (second, token) = asker.page(&token, 3).await.unwrap();
    let second: Vec<String> = second.into_iter().map(|(id, _)| id).collect();
    assert_eq!((second, token), (vec![ids[3].clone(), ids[5].clone(), ids[6].clone()], String::new()));
}
