//! What to mount on a node, given what is mounted there.

use std::path::Path;

use crate::mount::table::{self, Entry};
use crate::volume::{Access, same_level};

/// Where a volume's files are, in the terms of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On a server: the mount's source.
    Nfs(String),
    /// On this machine: the superblock, and the directory in it.
    Local {
        /// `major:minor`.
        device: String,
        /// The path within that file system.
        root: std::path::PathBuf,
    },
}

impl Origin {
    /// Whether a mount shows these files.
    pub fn is_shown_by(&self, entry: &Entry) -> bool {
        match self {
            Self::Nfs(source) => entry.is_nfs() && entry.source == *source,
            Self::Local { device, root } => entry.device == *device && entry.root == *root,
        }
    }
}

/// What to do at a staging path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeStage {
    /// Mount.
    Mount,
    /// It is done.
    Done,
    /// Something else is there.
    Conflict(String),
}

/// A volume from `origin` should be at `target`.
pub fn node_stage(origin: &Origin, target: &Path, read_only: bool, table: &[Entry]) -> NodeStage {
    let Some(entry) = table::at(table, target) else { return NodeStage::Mount };
    if !origin.is_shown_by(entry) {
        return NodeStage::Conflict(format!("{} is mounted there", entry.source));
    }
    // A pool's superblock serves writers elsewhere, so there the mount alone is read-only.
    let held_read_only = entry.read_only || entry.superblock_read_only;
    if held_read_only != read_only {
        let word = |read_only| if read_only { "read-only" } else { "writable" };
        return NodeStage::Conflict(format!(
            "it is staged {} there, not {}",
            word(held_read_only),
            word(read_only)
        ));
    }
    NodeStage::Done
}

/// Why a mount does not do for one who asks for this label, or for none; nothing if it does.
pub fn other_label(entry: &Entry, asked: Option<&str>) -> Option<String> {
    let same = match (entry.label(), asked) {
        (Some(held), Some(asked)) => same_level(held, asked),
        (held, asked) => held.is_none() && asked.is_none(),
    };
    let word = |label: Option<&str>| {
        label.map_or("without a label".into(), |label| format!("with the label {label}"))
    };
    (!same).then(|| format!("it is mounted {} there, not {}", word(entry.label()), word(asked)))
}

/// What to do at a target path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePublish {
    /// Bind the staged volume to it.
    Bind,
    /// It is done.
    Done,
    /// The volume isn't staged.
    NotStaged,
    /// It is published there in another way, or something else is mounted there.
    Differs(String),
    /// It is published at another target, and the mode allows only one.
    OtherTarget(String),
}

/// The volume staged at `staging` should be at `target` too (CSI specification, NodePublishVolume, the table of a second
/// publish).
pub fn node_publish(staging: &Path, target: &Path, access: Access, table: &[Entry]) -> NodePublish {
    let Some(staged) = table::at(table, staging) else { return NodePublish::NotStaged };
    if let Some(entry) = table::at(table, target) {
        if !entry.same_as(staged) {
            return NodePublish::Differs(format!("{} is mounted there", entry.source));
        }
        let held = entry.read_only || entry.superblock_read_only;
        let asked = access.reads_only() || staged.read_only || staged.superblock_read_only;
        if held != asked {
            let word = |read_only| if read_only { "read-only" } else { "writable" };
            return NodePublish::Differs(format!("it is {} there, not {}", word(held), word(asked)));
        }
        return NodePublish::Done;
    }
    let here = table::seat(table, staged);
    let other = table.iter().find(|entry| {
        let elsewhere = here.is_none() || table::seat(table, entry) != here;
        entry.same_as(staged) && entry.target != staging && elsewhere
    });
    match other {
        Some(entry) if !access.mode.many_targets() => {
            NodePublish::OtherTarget(entry.target.display().to_string())
        }
        _ => NodePublish::Bind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Mode;

    fn entry(device: &str, target: &str, read_only: bool) -> Entry {
        Entry {
            id: 1,
            parent: 0,
            device: device.into(),
            root: "/v".into(),
            target: target.into(),
            read_only,
            kind: "nfs4".into(),
            source: format!("h:/{device}"),
            superblock_read_only: false,
            options: String::new(),
        }
    }

    fn access(mode: Mode, readonly: bool) -> Access {
        Access { mode, readonly }
    }

    #[test]
    fn staging_twice_mounts_once() {
        let table = [entry("a", "/s", false)];
        let origin = Origin::Nfs("h:/a".into());
        assert_eq!(node_stage(&origin, Path::new("/s"), false, &table), NodeStage::Done);
        assert_eq!(node_stage(&origin, Path::new("/other"), false, &table), NodeStage::Mount);
        assert!(matches!(node_stage(&origin, Path::new("/s"), true, &table), NodeStage::Conflict(_)));
        let stranger = Origin::Nfs("h:/b".into());
        assert!(matches!(node_stage(&stranger, Path::new("/s"), false, &table), NodeStage::Conflict(_)));
    }

    #[test]
    fn a_mount_does_only_for_its_own_label() {
        let mut held = entry("a", "/s", false);
        assert_eq!(other_label(&held, None), None);
        assert_eq!(
            other_label(&held, Some("u:r:t:s0:c1")).unwrap(),
            "it is mounted without a label there, not with the label u:r:t:s0:c1"
        );
        held.options = "rw,context=\"u:r:t:s0:c1,c5\",vers=4.2".into();
        assert_eq!(other_label(&held, Some("u:r:t:s0:c5,c1")), None);
        assert_eq!(
            other_label(&held, Some("u:r:t:s0:c2")).unwrap(),
            "it is mounted with the label u:r:t:s0:c1,c5 there, not with the label u:r:t:s0:c2"
        );
        assert!(other_label(&held, None).unwrap().ends_with("not without a label"));
    }

    #[test]
    fn a_second_publish_follows_the_specifications_table() {
        let table = [entry("a", "/s", false), entry("a", "/t1", false)];
        let publish = |target: &str, access| node_publish(Path::new("/s"), Path::new(target), access, &table);
        for mode in [Mode::MultiNodeMultiWriter, Mode::MultiNodeReaderOnly, Mode::SingleNodeMultiWriter] {
            assert_eq!(publish("/t2", access(mode, false)), NodePublish::Bind, "{mode}");
        }
        for mode in [Mode::SingleNodeSingleWriter, Mode::SingleNodeWriter, Mode::SingleNodeReaderOnly] {
            assert_eq!(publish("/t2", access(mode, false)), NodePublish::OtherTarget("/t1".into()), "{mode}");
        }
        let writer = Mode::SingleNodeMultiWriter;
        assert_eq!(publish("/t1", access(writer, false)), NodePublish::Done);
        assert!(matches!(publish("/t1", access(writer, true)), NodePublish::Differs(_)));
    }

    #[test]
    fn a_staged_mount_that_is_seen_at_two_places_is_not_a_second_target() {
        let text = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:1 /var /host rw - ext4 /dev/sda rw\n\
                    3 1 0:9 /v /var/s rw - nfs4 h:/a rw\n4 2 0:9 /v /host/s rw - nfs4 h:/a rw\n";
        let table = table::parse(text.as_bytes());
        let access = access(Mode::SingleNodeSingleWriter, false);
        assert_eq!(node_publish(Path::new("/var/s"), Path::new("/var/t"), access, &table), NodePublish::Bind);
    }

    #[test]
    fn what_is_not_staged_is_not_published() {
        let access = access(Mode::SingleNodeWriter, false);
        assert_eq!(node_publish(Path::new("/s"), Path::new("/t"), access, &[]), NodePublish::NotStaged);
    }

    #[test]
    fn another_volume_at_the_target_is_a_conflict() {
        let table = [entry("a", "/s", false), entry("b", "/t", false)];
        let access = access(Mode::MultiNodeMultiWriter, false);
        assert!(matches!(
            node_publish(Path::new("/s"), Path::new("/t"), access, &table),
            NodePublish::Differs(_)
        ));
    }
}
