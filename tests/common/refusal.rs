//! Refusals: asked for twice, held against their code and words, and looked after for what they leave.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::PathBuf;

use kuration::csi::proto::VolumeCapability;
use kuration::csi::proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use tonic::Code;

use crate::asks::{Ask, Asker, tree};
use crate::common::{Driver, Mode, capability, capability_with, mounts_beneath};

/// One refusal: what is wrong, the request, its code, and a word of the message.
pub type Case = (String, Ask, Code, &'static str);

pub fn case(what: &str, ask: impl Into<Ask>, code: Code, word: &'static str) -> Case {
    (what.to_owned(), ask.into(), code, word)
}

/// All that a request could leave behind: files, and mounts.
pub fn traces(driver: &Driver) -> (Vec<String>, Vec<PathBuf>) {
    (tree(driver.home.path()), mounts_beneath(driver.home.path()))
}

/// Asks each, twice: a refusal must not change what comes after it.
pub async fn refused(asker: &Asker, driver: &Driver, cases: Vec<Case>) {
    let before = traces(driver);
    for (what, ask, code, word) in cases {
        for _ in 0..2 {
            let rpc = ask.rpc();
            let status = match asker.ask(ask.clone()).await {
                Ok(answer) => panic!("{rpc}, {what}: was to be refused, and got {answer}"),
                Err(status) => status,
            };
            let message = status.message();
            assert_eq!(status.code(), code, "{rpc}, {what}: {message}");
            assert!(message.contains(word), "{rpc}, {what}: no {word:?} in {message:?}");
            // Kubernetes cuts an event's message at 1 KiB.
            assert!(message.len() <= 1024, "{rpc}, {what}: a message of {} bytes", message.len());
            assert_eq!(traces(driver), before, "{rpc}, {what}: something was left");
        }
    }
    assert!(!driver.log().contains("panicked"), "{}", driver.log());
}

/// So many letters.
pub fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Capabilities that nobody can have, with a word about each.
pub fn bad_capabilities() -> Vec<(&'static str, VolumeCapability, &'static str)> {
    let good = capability(Mode::MultiNodeMultiWriter);
    let mode = |mode| VolumeCapability { access_mode: Some(AccessMode { mode }), ..good.clone() };
    let mount = |mount| VolumeCapability { access_type: Some(AccessType::Mount(mount)), ..good.clone() };
    let block = Some(AccessType::Block(BlockVolume {}));
    let flagged = |flag: &str| capability_with(Mode::MultiNodeMultiWriter, &[flag]);
    vec![
        ("no access type", VolumeCapability { access_type: None, ..good.clone() }, "access type"),
        ("no access mode", VolumeCapability { access_mode: None, ..good.clone() }, "access mode 0"),
        ("the mode UNKNOWN", mode(0), "access mode 0"),
        ("a mode that nobody defined", mode(99), "access mode 99"),
        ("a negative mode", mode(-1), "access mode -1"),
        ("block", VolumeCapability { access_type: block, ..good.clone() }, "block"),
        (
            "a mount group",
            mount(MountVolume { volume_mount_group: "1000".into(), ..Default::default() }),
            "group",
        ),
        (
            "a long mount group",
            mount(MountVolume { volume_mount_group: long(1 << 20), ..Default::default() }),
            "group",
        ),
        ("a file system", mount(MountVolume { fs_type: "ext4".into(), ..Default::default() }), "ext4"),
        (
            "a long file system",
            mount(MountVolume { fs_type: long(1 << 20), ..Default::default() }),
            "fs_type",
        ),
        ("a misspelt option", flagged("nfsver=4.1"), "nfsvers"),
        ("an option of ours", flagged("addr=10.0.0.1"), "addr"),
        ("a version that isn't", flagged("vers=5"), "vers=5"),
        ("a long option", flagged(&long(4000)), "unknown mount option"),
        ("a longer option", flagged(&long(1 << 20)), "at most 4096"),
        ("a long value", flagged(&format!("hard={}", long(4000))), "hard"),
    ]
}
