//! What is advertised is no stub, and what is not advertised is not there.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;

use std::collections::BTreeSet;

use asks::{Ask, Asker, Staged, every_rpc, get, publish, text};
use common::{Driver, Mode};
use kuration::csi::proto::{self, SECRET_FIELDS};
use tonic::Code;

/// A capability, and the RPCs that it is about. Some are about how another one behaves.
type Capability = (&'static str, &'static [&'static str]);

/// Each capability that the specification defines, enum by enum.
const CAPABILITIES: &[(&str, &[Capability])] = &[
    (
        "PluginCapability.Service.Type",
        &[
            ("CONTROLLER_SERVICE", &["ControllerGetCapabilities", "ValidateVolumeCapabilities"]),
            ("VOLUME_ACCESSIBILITY_CONSTRAINTS", &[]),
            ("GROUP_CONTROLLER_SERVICE", &["GroupControllerGetCapabilities"]),
            ("SNAPSHOT_METADATA_SERVICE", &["GetMetadataAllocated", "GetMetadataDelta"]),
            ("SNAPSHOT_ACCESSIBILITY_CONSTRAINTS", &[]),
        ],
    ),
    ("PluginCapability.VolumeExpansion.Type", &[("ONLINE", &[]), ("OFFLINE", &[])]),
    (
        "ControllerServiceCapability.RPC.Type",
        &[
            ("CREATE_DELETE_VOLUME", &["CreateVolume", "DeleteVolume"]),
            ("PUBLISH_UNPUBLISH_VOLUME", &["ControllerPublishVolume", "ControllerUnpublishVolume"]),
            ("LIST_VOLUMES", &["ListVolumes"]),
            ("GET_CAPACITY", &["GetCapacity"]),
            ("CREATE_DELETE_SNAPSHOT", &["CreateSnapshot", "DeleteSnapshot"]),
            ("LIST_SNAPSHOTS", &["ListSnapshots"]),
            ("CLONE_VOLUME", &[]),
            ("PUBLISH_READONLY", &[]),
            ("EXPAND_VOLUME", &["ControllerExpandVolume"]),
            ("LIST_VOLUMES_PUBLISHED_NODES", &[]),
            ("GET_VOLUME", &["ControllerGetVolume"]),
            ("SINGLE_NODE_MULTI_WRITER", &[]),
            ("MODIFY_VOLUME", &["ControllerModifyVolume"]),
            ("GET_SNAPSHOT", &["GetSnapshot"]),
            ("GET_VOLUME_HEALTH", &["ControllerGetVolumeHealth"]),
            ("LIST_VOLUME_HEALTH", &["ControllerListVolumeHealth"]),
        ],
    ),
    (
        "GroupControllerServiceCapability.RPC.Type",
        &[(
            "CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT",
            &["CreateVolumeGroupSnapshot", "DeleteVolumeGroupSnapshot", "GetVolumeGroupSnapshot"],
        )],
    ),
    (
        "NodeServiceCapability.RPC.Type",
        &[
            ("STAGE_UNSTAGE_VOLUME", &["NodeStageVolume", "NodeUnstageVolume"]),
            ("GET_VOLUME_STATS", &["NodeGetVolumeStats"]),
            ("EXPAND_VOLUME", &["NodeExpandVolume"]),
            ("SINGLE_NODE_MULTI_WRITER", &[]),
            ("VOLUME_MOUNT_GROUP", &[]),
            ("GET_VOLUME_HEALTH", &["NodeGetVolumeHealth"]),
            ("GET_STORAGE_HEALTH", &["NodeGetStorageHealth"]),
        ],
    ),
];

/// What a service has whatever it advertises.
const IDENTITY: [&str; 3] = ["GetPluginInfo", "GetPluginCapabilities", "Probe"];
const NODE: [&str; 4] = ["NodePublishVolume", "NodeUnpublishVolume", "NodeGetCapabilities", "NodeGetInfo"];

/// The values of each enum in proto/csi.proto, with the messages around it, but for UNKNOWN.
fn enums() -> Vec<(String, Vec<String>)> {
    let (mut around, mut found) = (Vec::new(), Vec::new());
    for line in include_str!("../proto/csi.proto").lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("enum"), Some(name)) => {
                around.push(name.to_owned());
                found.push((around.join("."), Vec::new()));
            }
            (Some(value), Some("=")) if value.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') => {
                let (_, values) = found.last_mut().expect("an enum");
                values.extend(Some(value.to_owned()).filter(|value| value != "UNKNOWN"));
            }
            (_, Some(name)) if line.ends_with('{') => around.push(name.to_owned()),
            _ if line.ends_with('{') => around.push(String::new()),
            _ => {}
        }
        if line.starts_with('}') || line.ends_with("{}") {
            around.pop();
        }
    }
    found
}

#[test]
fn every_capability_and_access_mode_that_the_specification_defines_is_known_here() {
    let enums = enums();
    let values = |name: &str| {
        let found = enums.iter().find(|(found, _)| found == name);
        found.unwrap_or_else(|| panic!("{name} is not among {enums:?}")).1.clone()
    };
    for (name, known) in CAPABILITIES {
        let known: Vec<&str> = known.iter().map(|(value, _)| *value).collect();
        assert_eq!(values(name), known, "{name}");
    }
    for value in values("VolumeCapability.AccessMode.Mode") {
        assert!(Mode::from_str_name(&value).is_some_and(|mode| mode != Mode::Unknown), "{value}");
    }
    // The generated code knows each of them by its name too.
    use proto::{controller_service_capability as c, node_service_capability as n, plugin_capability as p};
    for (name, known) in CAPABILITIES {
        for (value, _) in *known {
            let generated = match *name {
                "PluginCapability.Service.Type" => p::service::Type::from_str_name(value).is_some(),
                "PluginCapability.VolumeExpansion.Type" => {
                    p::volume_expansion::Type::from_str_name(value).is_some()
                }
                "ControllerServiceCapability.RPC.Type" => c::rpc::Type::from_str_name(value).is_some(),
                "NodeServiceCapability.RPC.Type" => n::rpc::Type::from_str_name(value).is_some(),
                _ => proto::group_controller_service_capability::rpc::Type::from_str_name(value).is_some(),
            };
            assert!(generated, "{name}.{value}");
        }
    }
    assert_eq!(
        SECRET_FIELDS.len(),
        include_str!("../proto/csi.proto").matches("(csi_secret) = true").count()
    );
}

/// The capabilities that a driver advertises, as (enum, value).
async fn advertised(driver: &Driver) -> Vec<(&'static str, &'static str)> {
    use proto::{controller_service_capability as c, node_service_capability as n, plugin_capability as p};
    let mut all = Vec::new();
    let plugin =
        driver.identity().await.get_plugin_capabilities(proto::GetPluginCapabilitiesRequest {}).await;
    for capability in plugin.expect("capabilities").into_inner().capabilities {
        all.push(match capability.r#type.expect("a type") {
            p::Type::Service(service) => ("PluginCapability.Service.Type", service.r#type().as_str_name()),
            p::Type::VolumeExpansion(how) => {
                ("PluginCapability.VolumeExpansion.Type", how.r#type().as_str_name())
            }
        });
    }
    let answer = driver
        .controller()
        .await
        .controller_get_capabilities(proto::ControllerGetCapabilitiesRequest {})
        .await;
    for capability in answer.map(|answer| answer.into_inner().capabilities).unwrap_or_default() {
        let c::Type::Rpc(rpc) = capability.r#type.expect("a type");
        all.push(("ControllerServiceCapability.RPC.Type", rpc.r#type().as_str_name()));
    }
    let answer = driver.node().await.node_get_capabilities(proto::NodeGetCapabilitiesRequest {}).await;
    for capability in answer.map(|answer| answer.into_inner().capabilities).unwrap_or_default() {
        let n::Type::Rpc(rpc) = capability.r#type.expect("a type");
        all.push(("NodeServiceCapability.RPC.Type", rpc.r#type().as_str_name()));
    }
    all
}

/// The RPCs that those capabilities promise.
fn promised(advertised: &[(&str, &str)]) -> BTreeSet<&'static str> {
    let all = CAPABILITIES
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |(value, rpcs)| ((*name, *value), *rpcs)));
    all.filter(|(capability, _)| advertised.contains(capability))
        .flat_map(|(_, rpcs)| rpcs.iter().copied())
        .collect()
}

/// The RPCs that a driver serves: those that it does not call unimplemented.
async fn served(driver: &Driver) -> BTreeSet<&'static str> {
    let asker = Asker::of(driver).await;
    let mut served = BTreeSet::new();
    for ask in every_rpc() {
        let rpc = ask.rpc();
        match asker.ask(ask).await {
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => {
                // A request that says nothing is refused with a sentence, by every RPC that needs something.
                assert_eq!(status.code(), Code::InvalidArgument, "{rpc}: {status:?}");
                assert!(!status.message().is_empty(), "{rpc}");
                served.insert(rpc);
            }
            Ok(_) => {
                served.insert(rpc);
            }
        }
    }
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_serves_what_it_advertises_and_nothing_else() {
    let driver = Driver::pool(&[]);
    let advertised = advertised(&driver).await;
    let mut wanted = promised(&advertised);
    wanted.extend(IDENTITY);
    wanted.extend(NODE);
    assert_eq!(served(&driver).await, wanted);
    let mut once = advertised.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), advertised.len(), "something is advertised twice: {advertised:?}");
    assert!(advertised.contains(&("PluginCapability.VolumeExpansion.Type", "ONLINE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_serves_its_part_and_all_say_the_same_of_the_plugin() {
    let both = Driver::pool(&[]);
    let pool = text(&both.home.path().join("pool"));
    let start = |role: &str, arguments: &[&str]| {
        let home = tempfile::tempdir().expect("a directory");
        Driver::start(home, role, &[&["--pool", &pool], arguments].concat(), &[])
    };
    let controller = start("controller", &[]);
    let node = start("node", &["--node-id", "node-1"]);
    let [all, a, b] = [served(&both).await, served(&controller).await, served(&node).await];
    let of_node = |rpcs: &BTreeSet<&'static str>| rpcs.iter().filter(|rpc| rpc.starts_with("Node")).count();
    assert_eq!((of_node(&a), of_node(&b)), (0, of_node(&all)));
    assert_eq!(a.union(&b).copied().collect::<BTreeSet<_>>(), all);
    assert_eq!(a.intersection(&b).copied().collect::<BTreeSet<_>>(), BTreeSet::from(IDENTITY));
    // One vendor version has one answer (CSI specification, GetPluginCapabilities).
    for ask in [
        Ask::from(proto::GetPluginCapabilitiesRequest::default()),
        proto::GetPluginInfoRequest::default().into(),
        proto::ProbeRequest::default().into(),
    ] {
        let wanted = Asker::of(&both).await.done(ask.clone()).await;
        for driver in [&controller, &node] {
            assert_eq!(Asker::of(driver).await.done(ask.clone()).await, wanted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_without_an_rpc_of_their_own_are_kept_too() {
    let driver = Driver::pool(&["--known-node", "node-2"]);
    let advertised = advertised(&driver).await;
    let has = |value: &str| advertised.iter().any(|(_, found)| *found == value);
    let asker = Asker::of(&driver).await;
    assert!(
        has("PUBLISH_READONLY") && has("LIST_VOLUMES_PUBLISHED_NODES") && has("SINGLE_NODE_MULTI_WRITER")
    );

    // PUBLISH_READONLY: what the controller was told, the node enforces.
    let mode = Mode::MultiNodeMultiWriter;
    let staged = Staged::new(&asker, &driver, "pvc-1", mode).await;
    let id = staged.volume.volume_id.as_str();
    let answer = asker.done(publish(id, "node-1", mode, true)).await;
    assert!(answer.contains("\"readonly\": \"true\""), "{answer}");
    let target = staged.target("pod");
    let mut request = staged.at(&target, false);
    request.publish_context = common::map(&[("readonly", "true")]);
    asker.done(request).await;
    let written = std::fs::write(target.join("file"), "x").unwrap_err();
    assert_eq!(written.raw_os_error(), Some(nix::libc::EROFS));

    // LIST_VOLUMES_PUBLISHED_NODES, and the same of GET_VOLUME.
    asker.done(publish(id, "node-2", mode, false)).await;
    assert_eq!(asker.page("", 0).await.unwrap().0[0].1, ["node-1", "node-2"]);
    assert!(asker.done(get(id)).await.contains("[\"node-1\", \"node-2\"]"));

    // SINGLE_NODE_MULTI_WRITER: two targets on one node, both written to.
    let staged = Staged::new(&asker, &driver, "pvc-2", Mode::SingleNodeMultiWriter).await;
    for name in ["a", "b"] {
        asker.done(staged.at(&staged.target(name), false)).await;
        std::fs::write(staged.target(name).join(name), "x").unwrap();
    }
    assert!(staged.target("b").join("a").exists() && staged.target("a").join("b").exists());
}
