//! What is refused, with which code and in which words; and that nothing is left of it.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;
#[path = "common/refusal.rs"]
mod refusal;

use std::path::Path;

use asks::{
    Ask, Asker, Staged, delete, expand, get, node_expand, node_unpublish, publish, stats, unpublish, unstage,
};
use common::{Driver, MIB, Mode, capability, create, listing, map, node_publish, stage};
use kuration::csi::proto::{self, CapacityRange, Volume, VolumeCapability};
use kuration::volume::{Export, Identity, Key, MountOptions, VolumeId};
use refusal::{bad_capabilities, case, long, refused, traces};
use tonic::Code::{self, Aborted, FailedPrecondition, InvalidArgument, NotFound, OutOfRange};

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cant_be_is_not_made() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    asker.made("first").await;
    let good = || create("name", MIB, &[]);
    let named = |name: &str| create(name, MIB, &[]);
    let mut cases = vec![
        case("no name", named(""), InvalidArgument, "name is missing"),
        case("a name of 129 bytes", named(&long(129)), InvalidArgument, "129"),
        case("a name of 129 bytes in 65 letters", named(&"ü".repeat(65)), InvalidArgument, "130"),
        case("a name of 1 MiB", named(&long(1 << 20)), InvalidArgument, "1048576"),
    ];
    for control in ["a\nb", "a\0b", "a\tb", "\u{7f}", "\u{85}", "a\r"] {
        cases.push(case(&format!("the name {control:?}"), named(control), InvalidArgument, "control"));
    }
    let ranges = [
        (-1, 0, InvalidArgument, "negative"),
        (0, -1, InvalidArgument, "negative"),
        (i64::MIN, i64::MIN, InvalidArgument, "negative"),
        (2, 1, OutOfRange, "no size is both"),
        (i64::MAX, 0, OutOfRange, "do not fit"),
    ];
    for (required_bytes, limit_bytes, code, word) in ranges {
        let mut request = good();
        request.capacity_range = Some(CapacityRange { required_bytes, limit_bytes });
        cases.push(case(&format!("{required_bytes} to {limit_bytes} bytes"), request, code, word));
    }
    let (huge, key) = (long(1 << 20), long(1 << 20));
    let parameters: [(&[(&str, &str)], &'static str); 12] = [
        (&[("onDelte", "delete")], "\"onDelte\" (did you mean \"onDelete\"?)"),
        (&[("zzz", "1"), ("mountPermission", "0777")], "\"zzz\""),
        (&[("server", "h"), ("share", "/a")], "known are mountPermissions"),
        (&[("uid", "0"), ("UID", "0")], "twice"),
        (&[("onDelete", "archive")], "not built yet"),
        (&[("onDelete", "shred")], "delete or retain"),
        (&[("onDelete", &huge)], "at most 4096"),
        (&[("uid", "root")], "number"),
        (&[("gid", "-1")], "number"),
        (&[("uid", &huge)], "at most 4096"),
        (&[("mountPermissions", "0999")], "octal"),
        (&[(&key, "1")], "at most 4096"),
    ];
    for (parameters, word) in parameters {
        let what = format!("the parameters {:.60}", format!("{parameters:?}"));
        cases.push(case(&what, create("name", MIB, parameters), InvalidArgument, word));
    }
    let mut many = good();
    many.parameters = (0..1000).map(|n| (format!("key{n}"), String::new())).collect();
    cases.push(case("a thousand parameters", many, InvalidArgument, "at most 4096"));

    let mut none = good();
    none.volume_capabilities.clear();
    cases.push(case("no capability", none, InvalidArgument, "volume_capabilities"));
    for (what, bad, word) in bad_capabilities() {
        let mut request = good();
        request.volume_capabilities.push(bad);
        cases.push(case(what, request, InvalidArgument, word));
    }
    use proto::volume_content_source::{SnapshotSource, Type, VolumeSource};
    let sources = [
        Type::Snapshot(SnapshotSource { snapshot_id: "s".into() }),
        Type::Volume(VolumeSource { volume_id: "v".into() }),
    ];
    for kind in sources {
        let mut request = good();
        request.volume_content_source = Some(proto::VolumeContentSource { r#type: Some(kind) });
        cases.push(case("a content source", request, InvalidArgument, "volume_content_source"));
    }
    let mut request = good();
    request.mutable_parameters = map(&[("a", "b")]);
    cases.push(case("mutable parameters", request, InvalidArgument, "mutable_parameters"));
    refused(&asker, &driver, cases).await;
    assert_eq!(asker.ids().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_legal_name_is_accepted_and_stays_beneath_the_pool() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let outside = driver.home.path().join("canary");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "precious").unwrap();
    let around = |driver: &Driver| {
        let mut names = listing(driver.home.path());
        names.retain(|name| !name.ends_with(".log"));
        names
    };
    let before = around(&driver);
    let longest = long(128);
    let names = [
        "a/b",
        "/",
        "//",
        "/etc/passwd",
        "..",
        ".",
        "../canary",
        "../../../etc",
        "a/../../canary",
        "a/..",
        ".kuration",
        ".kuration/trash",
        "-rf",
        "~",
        "*",
        "%2e%2e%2f",
        "\\..\\",
        "a b",
        " ",
        "ü",
        "名前",
        "🦀",
        "e\u{301}",
        "\u{202e}txt",
        "'; rm -rf /",
        "$(reboot)",
        "${pvc.metadata.name}",
        "nfs1~a",
        "pool1~x",
        "a#b#c",
        "con",
        "volume-",
        &longest,
    ];
    let mut ids = Vec::new();
    for name in names {
        let volume = asker.made(name).await;
        assert!(volume.volume_id.len() <= 128, "{name:?}");
        assert!(!ids.contains(&volume.volume_id), "{name:?} is another's volume");
        ids.push(volume.volume_id);
    }
    // Each has one directory at the top of the pool, of a plain name.
    let directories: Vec<String> =
        listing(&driver.home.path().join("pool")).into_iter().filter(|name| name != ".kuration").collect();
    assert_eq!(directories.len(), names.len(), "{directories:?}");
    let plain = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    assert!(directories.iter().all(plain), "{directories:?}");
    for id in &ids {
        asker.done(delete(id)).await;
    }
    assert_eq!(listing(&driver.home.path().join("pool")), [".kuration"]);
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "precious");
    assert_eq!(around(&driver), before);
}

/// Each RPC that names a volume, with this id and all else in order.
fn with_id(id: &str, home: &Path) -> Vec<Ask> {
    let volume = proto::Volume { volume_id: id.to_owned(), ..Default::default() };
    let (mode, staging) = (Mode::MultiNodeMultiWriter, home.join("staging"));
    let validate = proto::ValidateVolumeCapabilitiesRequest {
        volume_id: id.to_owned(),
        volume_capabilities: vec![capability(mode)],
        ..Default::default()
    };
    vec![
        delete(id).into(),
        unpublish(id, "node-1").into(),
        unpublish(id, "").into(),
        unstage(id, &staging).into(),
        node_unpublish(id, &home.join("nowhere")).into(),
        publish(id, "node-1", mode, false).into(),
        validate.into(),
        get(id).into(),
        expand(id, MIB, 0).into(),
        stage(&volume, &staging, mode).into(),
        node_publish(&volume, &staging, &home.join("target"), mode).into(),
        stats(id, &staging).into(),
        node_expand(id, &staging, MIB).into(),
    ]
}

/// Those of them that succeed where there is no such volume: what they undo is not there.
const UNDOING: [&str; 4] =
    ["DeleteVolume", "ControllerUnpublishVolume", "NodeUnstageVolume", "NodeUnpublishVolume"];

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_missing_or_no_id_at_all_is_refused_by_every_rpc() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    asker.made("first").await;
    std::fs::create_dir(driver.home.path().join("staging")).unwrap();
    let mut cases = Vec::new();
    for id in ["", "a\nb", "a\0b", &long(1 << 20)] {
        for ask in with_id(id, driver.home.path()) {
            cases.push((format!("the id {id:.10?}"), ask, InvalidArgument, "volume_id"));
        }
    }
    refused(&asker, &driver, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_not_there_is_not_found_and_its_end_is_a_success() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let first = asker.made("first").await;
    std::fs::create_dir(driver.home.path().join("staging")).unwrap();
    let unknown = format!("{}{}", &first.volume_id[..first.volume_id.len() - 32], "0".repeat(32));
    let ids = [
        "fake",
        "srv#share#../../canary#uuid#delete",
        "srv#share#sub#uuid#delete",
        &format!("nfs1~h~/a~~01020304{}", "0".repeat(32)),
        "pool1~",
        "../../etc",
        "/etc",
        &long(128),
        &long(129),
        &"ü".repeat(65),
        &unknown,
    ];
    let mut cases = Vec::new();
    for id in ids {
        for ask in with_id(id, driver.home.path()) {
            if UNDOING.contains(&ask.rpc()) {
                let before = traces(&driver);
                asker.done(ask).await;
                assert_eq!(traces(&driver), before, "{id:?}");
            } else {
                cases.push((format!("the id {id:?}"), ask, NotFound, ""));
            }
        }
    }
    refused(&asker, &driver, cases).await;
    assert_eq!(asker.ids().await, [first.volume_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_a_pool_that_is_not_this_one_is_never_taken_for_a_deleted_volume() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let first = asker.made("first").await;
    let (_, key) = first.volume_id.split_at(first.volume_id.len() - 32);
    let stranger = format!("pool1~00000000{key}");
    let cases = [delete(&stranger).into(), get(&stranger).into(), unpublish(&stranger, "").into()];
    let cases = cases.map(|ask: Ask| ("another pool".to_owned(), ask, FailedPrecondition, "not the one"));
    refused(&asker, &driver, cases.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_or_a_capability_that_cant_be_is_refused() {
    let driver = Driver::pool(&["--known-node", "node-2"]);
    let asker = Asker::of(&driver).await;
    let volume = asker.made("first").await;
    std::fs::create_dir(driver.home.path().join("staging")).unwrap();
    let (id, mode) = (volume.volume_id.as_str(), Mode::MultiNodeMultiWriter);
    let mut cases = Vec::new();
    for (node, code, word) in [
        ("", InvalidArgument, "node_id is missing"),
        (&*long(257), InvalidArgument, "256"),
        (&*long(1 << 20), InvalidArgument, "256"),
        ("a\nb", InvalidArgument, "control"),
        ("a\0b", InvalidArgument, "control"),
        ("node-3", NotFound, "\"node-3\""),
    ] {
        cases.push(case(&format!("the node {node:.10?}"), publish(id, node, mode, false), code, word));
    }
    let (staging, target) = (driver.home.path().join("staging"), driver.home.path().join("target"));
    let all = |given: Option<VolumeCapability>| -> Vec<Ask> {
        let mut controller = publish(id, "node-2", mode, false);
        controller.volume_capability = given.clone();
        let mut node_stage = stage(&volume, &staging, mode);
        node_stage.volume_capability = given.clone();
        let mut node = node_publish(&volume, &staging, &target, mode);
        node.volume_capability = given;
        vec![controller.into(), node_stage.into(), node.into()]
    };
    for ask in all(None) {
        cases.push((String::from("no capability"), ask, InvalidArgument, "volume_capability"));
    }
    for (what, bad, word) in bad_capabilities() {
        let mut growing = expand(id, MIB, 0);
        growing.volume_capability = Some(bad.clone());
        cases.push(case(what, growing, InvalidArgument, word));
        let asked = vec![capability(mode), bad.clone()];
        let room = proto::GetCapacityRequest { volume_capabilities: asked, ..Default::default() };
        cases.push(case(what, room, InvalidArgument, word));
        cases.extend(all(Some(bad)).into_iter().map(|ask| (what.to_owned(), ask, InvalidArgument, word)));
    }
    let nothing = proto::ValidateVolumeCapabilitiesRequest { volume_id: id.to_owned(), ..Default::default() };
    cases.push(case("no capability", nothing, InvalidArgument, "volume_capabilities"));
    refused(&asker, &driver, cases).await;
    // Known nodes are this one and those that were named.
    for node in ["node-1", "node-2"] {
        asker.done(publish(id, node, mode, false)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cant_be_had_is_not_confirmed_and_said_why() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let volume = asker.made("first").await;
    let good = proto::ValidateVolumeCapabilitiesRequest {
        volume_id: volume.volume_id.clone(),
        volume_capabilities: vec![capability(Mode::MultiNodeMultiWriter)],
        ..Default::default()
    };
    let answer = asker.done(good.clone()).await;
    assert!(answer.contains("confirmed: Some"), "{answer}");
    let mut refused = Vec::new();
    for (_, bad, word) in bad_capabilities() {
        let mut request = good.clone();
        request.volume_capabilities.push(bad);
        refused.push((request, word));
    }
    let with = |f: &dyn Fn(&mut proto::ValidateVolumeCapabilitiesRequest)| {
        let mut request = good.clone();
        f(&mut request);
        request
    };
    refused.push((with(&|r| r.volume_context = map(&[("server", "h")])), "context"));
    refused.push((with(&|r| r.parameters = map(&[("onDelete", "retain")])), "made with"));
    refused.push((with(&|r| r.parameters = map(&[("uidd", "1")])), "did you mean"));
    refused.push((with(&|r| r.mutable_parameters = map(&[("a", "b")])), "mutable_parameters"));
    for (request, word) in refused {
        let answer = asker.done(request).await;
        assert!(answer.contains("confirmed: None") && answer.contains(word), "no {word:?} in {answer}");
        assert!(answer.len() < 2048, "an answer of {} bytes", answer.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_or_a_page_that_cant_be_is_refused() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let staged = Staged::new(&asker, &driver, "first", Mode::MultiNodeMultiWriter).await;
    let id = staged.volume.volume_id.as_str();
    let mut cases = vec![
        case("no size", expand(id, 0, 0), InvalidArgument, "no size"),
        case("a negative size", expand(id, -1, 0), InvalidArgument, "negative"),
        case("a negative limit", expand(id, MIB, -1), InvalidArgument, "negative"),
        case("more than the limit", expand(id, 2 * MIB, MIB), OutOfRange, "no size is both"),
        case("less than there is", expand(id, 0, MIB), OutOfRange, "can't shrink"),
        case("more than there can be", expand(id, i64::MAX, 0), OutOfRange, "do not fit"),
        case("a negative size", node_expand(id, &staged.staging, -1), InvalidArgument, "negative"),
        case(
            "more than the controller gave",
            node_expand(id, &staged.staging, 1 << 40),
            FailedPrecondition,
            "controller first",
        ),
    ];
    let mut sizeless = expand(id, MIB, 0);
    sizeless.capacity_range = None;
    cases.push(case("no range", sizeless, InvalidArgument, "no size"));
    let list = |max_entries: i32, token: &str| proto::ListVolumesRequest {
        max_entries,
        starting_token: token.to_owned(),
    };
    cases.push(case("a negative page", list(-1, ""), InvalidArgument, "negative"));
    let key = "0".repeat(32);
    for token in
        ["x", "@", "@pool", &key, &format!("{key}@"), &format!("{key}@../pool"), "\0", &long(1 << 20)]
    {
        cases.push(case(&format!("the token {token:.12?}"), list(0, token), Aborted, "starting_token"));
    }
    refused(&asker, &driver, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_allowed_is_refused_by_whatever_names_it() {
    let home = tempfile::tempdir().unwrap();
    let allowed =
        ["--node-id", "node-1", "--allow-server", "nas,*.example.com", "--allow-server", "192.0.2.0/24"];
    let driver = Driver::start(home, "all", &allowed, &[]);
    let asker = Asker::of(&driver).await;
    let staging = driver.home.path().join("staging");
    std::fs::create_dir(&staging).unwrap();
    let (mode, word) = (Mode::MultiNodeMultiWriter, "allowed are nas, *.example.com, 192.0.2.0/24");
    let mut cases = Vec::new();
    for server in ["nas2", "example.com", "127.0.0.1", "::1", "192.0.3.1"] {
        let place = [("server", server), ("share", "/exports")];
        cases.push(case(server, create("name", MIB, &place), InvalidArgument, word));
        let room = proto::GetCapacityRequest { parameters: map(&place), ..Default::default() };
        cases.push(case(server, room, InvalidArgument, word));
        let by_hand =
            Volume { volume_id: "by hand".into(), volume_context: map(&place), ..Default::default() };
        cases.push(case(server, stage(&by_hand, &staging, mode), InvalidArgument, word));
        let mut attach = publish("by hand", "node-1", mode, false);
        attach.volume_context = map(&place);
        cases.push(case(server, attach, InvalidArgument, word));
        let export = Export::new(server, "/exports").unwrap();
        let id = VolumeId::share(&export, &MountOptions::default(), Identity::new([0; 4]), Key::of("", "x"));
        cases.push(case(server, publish(&id.to_string(), "node-1", mode, false), InvalidArgument, word));
    }
    refused(&asker, &driver, cases).await;

    // An id is proof that the server was allowed once: its volume can go.
    let export = Export::new("127.0.0.1", "/exports").unwrap();
    let id = VolumeId::share(&export, &MountOptions::default(), Identity::new([0; 4]), Key::of("", "x"));
    let trouble = asker.ask(delete(&id.to_string())).await.unwrap_err();
    assert!(trouble.code() != InvalidArgument && !trouble.message().contains("allowed are"), "{trouble:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_made_by_hand_is_published_without_a_record_where_its_context_says_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let driver = Driver::start(home, "all", &["--node-id", "node-1"], &[]);
    let asker = Asker::of(&driver).await;
    let mode = Mode::MultiNodeMultiWriter;
    let context = map(&[("server", "192.0.2.1"), ("share", "/exports"), ("subDir", "team/a")]);
    let mut attach = publish("by hand", "node-1", mode, false);
    attach.volume_context = context;
    asker.done(attach.clone()).await;
    attach.node_id = "node-2".into();
    let unknown = asker.ask(attach).await.unwrap_err();
    assert!(unknown.code() == NotFound && unknown.message().contains("node-2"), "{unknown:?}");
    asker.done(unpublish("by hand", "node-1")).await;
    let nowhere = asker.ask(publish("by hand", "node-1", mode, false)).await.unwrap_err();
    assert_eq!(nowhere.code(), NotFound, "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_with_a_place_makes_volumes_there_and_nowhere_else() {
    let driver = Driver::pool(&["--topology", "pool.csi.kuration.io/node=n1,zone=a"]);
    let asker = Asker::of(&driver).await;
    let place = |pairs: &[(&str, &str)]| proto::Topology { segments: map(pairs) };
    let here = place(&[("pool.csi.kuration.io/node", "n1")]);
    let there = place(&[("pool.csi.kuration.io/node", "n2")]);
    let wish = |requisite: &[&proto::Topology], preferred: &[&proto::Topology]| {
        let owned = |all: &[&proto::Topology]| all.iter().map(|&one| one.clone()).collect();
        let mut request = create("name", MIB, &[]);
        request.accessibility_requirements =
            Some(proto::TopologyRequirement { requisite: owned(requisite), preferred: owned(preferred) });
        request
    };
    let word = "pool.csi.kuration.io/node=n1, zone=a";
    let cases = vec![
        case("another node", wish(&[&there], &[&there]), Code::ResourceExhausted, word),
        case("another zone", wish(&[&place(&[("zone", "b")])], &[]), Code::ResourceExhausted, word),
        case("a rack", wish(&[&place(&[("zone", "a"), ("rack", "1")])], &[]), Code::ResourceExhausted, word),
    ];
    refused(&asker, &driver, cases).await;
    // One of several will do, in whatever order; a preference binds nobody; a key has no case.
    for good in [
        wish(&[&there, &here], &[&there, &here]),
        wish(&[], &[&there]),
        wish(&[&place(&[("ZONE", "a")])], &[]),
    ] {
        let made = asker.done(good).await;
        assert!(made.contains("\"zone\": \"a\"") && made.contains("\"n1\""), "{made}");
    }
    // What storage capacity objects are made of.
    let mut controller = driver.controller().await;
    let mut room = async |place: Option<&proto::Topology>| {
        let request = proto::GetCapacityRequest { accessible_topology: place.cloned(), ..Default::default() };
        controller.get_capacity(request).await.unwrap().into_inner().available_capacity
    };
    assert!(room(None).await > 0 && room(Some(&here)).await > 0);
    assert_eq!(room(Some(&there)).await, 0);
}
