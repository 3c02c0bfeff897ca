//! The driver definitions of Kubernetes' own storage suite (`tests/kubernetes-suite`). The suite takes a key that it doesn't
//! know for none at all, and then leaves out what the key was meant to ask for; so each is checked here, against the types that
//! Kubernetes 1.36 reads a definition into (test/e2e/storage/external/external.go and test/e2e/storage/framework/testdriver.go).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]
#![allow(dead_code, reason = "the fields are there to be named")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Definition {
    storage_class: Source,
    volume_attributes_class: Option<Source>,
    snapshot_class: Option<Source>,
    group_snapshot_class: Option<Source>,
    driver_info: DriverInfo,
    inline_volumes: Option<Vec<InlineVolume>>,
    client_node_name: Option<String>,
    node_selectors: Option<BTreeMap<String, String>>,
    timeouts: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Source {
    from_name: Option<bool>,
    from_file: Option<PathBuf>,
    from_existing_class_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct InlineVolume {
    attributes: Option<BTreeMap<String, String>>,
    shared: Option<bool>,
    read_only: Option<bool>,
}

type Set = BTreeMap<String, Empty>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DriverInfo {
    name: String,
    max_file_size: Option<i64>,
    supported_size_range: Option<SizeRange>,
    supported_fs_type: Option<Set>,
    supported_mount_option: Option<Set>,
    required_mount_option: Option<Set>,
    capabilities: BTreeMap<Capability, bool>,
    required_access_modes: Option<Vec<String>>,
    topology_keys: Option<Vec<String>>,
    num_allowed_topologies: Option<u32>,
    stress_test_options: Option<Stress>,
    volume_snapshot_stress_test_options: Option<Stress>,
    volume_group_snapshot_stress_test_options: Option<Stress>,
    volume_modify_stress_test_options: Option<Stress>,
    performance_test_options: Option<Performance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SizeRange {
    min: Option<String>,
    max: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Stress {
    num_pods: u32,
    num_restarts: Option<u32>,
    num_snapshots: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Performance {
    provisioning_options: Provisioning,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Provisioning {
    volume_size: String,
    count: u32,
    expected_metrics: Metrics,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Metrics {
    /// In nanoseconds.
    avg_latency: u64,
    /// Volumes per second.
    throughput: f64,
}

/// Every one there is: a definition that doesn't mention one leaves its specs out.
#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Capability {
    #[serde(rename = "persistence")]
    Persistence,
    #[serde(rename = "block")]
    Block,
    #[serde(rename = "fsGroup")]
    FsGroup,
    #[serde(rename = "volumeMountGroup")]
    VolumeMountGroup,
    #[serde(rename = "exec")]
    Exec,
    #[serde(rename = "snapshotDataSource")]
    SnapshotDataSource,
    #[serde(rename = "snapshotMetadata")]
    SnapshotMetadata,
    #[serde(rename = "groupSnapshot")]
    GroupSnapshot,
    #[serde(rename = "pvcDataSource")]
    PvcDataSource,
    #[serde(rename = "multipods")]
    MultiPods,
    #[serde(rename = "RWX")]
    Rwx,
    #[serde(rename = "controllerExpansion")]
    ControllerExpansion,
    #[serde(rename = "nodeExpansion")]
    NodeExpansion,
    #[serde(rename = "offlineExpansion")]
    OfflineExpansion,
    #[serde(rename = "onlineExpansion")]
    OnlineExpansion,
    #[serde(rename = "volumeLimits")]
    VolumeLimits,
    #[serde(rename = "singleNodeVolume")]
    SingleNodeVolume,
    #[serde(rename = "topology")]
    Topology,
    #[serde(rename = "capacity")]
    Capacity,
    #[serde(rename = "FSResizeFromSourceNotSupported")]
    FsResizeFromSourceNotSupported,
    #[serde(rename = "readWriteOncePod")]
    ReadWriteOncePod,
    #[serde(rename = "multiplePVsSameID")]
    MultiplePvsSameId,
    #[serde(rename = "capReadOnlyMany")]
    CapReadOnlyMany,
    #[serde(rename = "seLinuxMount")]
    SeLinuxMount,
}
const CAPABILITIES: usize = 24;

#[derive(Deserialize)]
struct Class {
    provisioner: String,
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

#[test]
fn the_suite_knows_every_key_of_a_definition() {
    for driver in ["share", "pool"] {
        let path = format!("tests/kubernetes-suite.d/{driver}.yaml");
        let definition: Definition =
            serde_saphyr::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let capabilities = &definition.driver_info.capabilities;
        assert_eq!(capabilities.len(), CAPABILITIES, "{path} says yes or no to each: {capabilities:?}");
        let class = definition.storage_class.from_file.expect("a class in a file");
        let class: Class = serde_saphyr::from_str(&read(class.to_str().unwrap())).expect("a StorageClass");
        assert_eq!(class.provisioner, definition.driver_info.name, "{path}: the class is another driver's");
    }
}

#[test]
fn every_spec_that_does_not_run_has_a_pattern_and_a_reason() {
    let files = ["reasons", "left-out"].map(|name| read(&format!("tests/kubernetes-suite.d/{name}")));
    let reasons = files.concat();
    let lines: Vec<&str> = reasons.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(!lines.is_empty());
    for line in lines {
        let (pattern, meaning) = line.split_once(" | ").unwrap_or_else(|| panic!("no ' | ' in {line:?}"));
        assert!(!pattern.trim().is_empty() && !meaning.trim().is_empty(), "{line:?}");
    }
}
