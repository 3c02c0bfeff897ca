//! How full the volumes of this node are, as NodeGetVolumeStats last said.
//!
//! | name | labels | what |
//! |---|---|---|
//! | `kuration_volume_used_bytes`, `kuration_volume_capacity_bytes` | `volume_id` | bytes in use, and the size |
//! | `kuration_volume_inodes_used`, `kuration_volume_inodes` | `volume_id` | inodes in use, and all; where the file system counts them |
//!
//! The kubelet asks of each volume that a pod has, once a minute unless it is told otherwise. What left the node is not shown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::telemetry::{Families, FamilyKind, Labels, Number, Page};
use crate::volume::Usage;

/// The volumes, by id. A clone is another handle on the same ones.
#[derive(Debug, Clone, Default)]
pub struct Fullness(Arc<Mutex<BTreeMap<String, Usage>>>);

impl Fullness {
    /// Keeps what was said of a volume.
    pub(super) fn is(&self, volume_id: &str, usage: Usage) {
        self.0.lock().insert(volume_id.to_owned(), usage);
    }

    /// A volume is no longer on this node.
    pub(super) fn left(&self, volume_id: &str) {
        self.0.lock().remove(volume_id);
    }
}

impl Families for Fullness {
    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        let volumes = self.0.lock();
        let mut family = |name: &str, help: &str, of: fn(&Usage) -> Option<u64>| {
            let numbers = volumes.iter().filter_map(|(id, usage)| {
                let labels: Labels<'_> = vec![("volume_id", id)];
                // A gauge is a float; above 8 PiB it is exact to 2 bytes.
                Some((labels, Number::Gauge(of(usage)? as f64)))
            });
            page.family(name, help, FamilyKind::Gauge, numbers)
        };
        // Some file systems count no inodes.
        family("kuration_volume_used_bytes", "Bytes in use", |usage| Some(usage.used))?;
        family("kuration_volume_capacity_bytes", "Size", |usage| Some(usage.total))?;
        family("kuration_volume_inodes_used", "Inodes in use", |usage| {
            (usage.inodes > 0).then_some(usage.inodes_used)
        })?;
        family("kuration_volume_inodes", "Inodes in all", |usage| (usage.inodes > 0).then_some(usage.inodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn a_volume_is_shown_until_it_leaves_and_inodes_where_they_are_counted() {
        let (metrics, fullness) = (Metrics::new(), Fullness::default());
        metrics.families(fullness.clone());
        let shown = || {
            let text = metrics.text().unwrap();
            text.lines()
                .filter(|line| line.starts_with("kuration_volume_"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        fullness.is("a", Usage { total: 64, used: 9, inodes: 8, inodes_used: 3, ..Usage::default() });
        fullness.is("b", Usage { total: 32, used: 5, ..Usage::default() });
        fullness.is("b", Usage { total: 32, used: 6, ..Usage::default() });
        let first = [
            "kuration_volume_used_bytes{volume_id=\"a\"} 9.0",
            "kuration_volume_used_bytes{volume_id=\"b\"} 6.0",
            "kuration_volume_capacity_bytes{volume_id=\"a\"} 64.0",
            "kuration_volume_capacity_bytes{volume_id=\"b\"} 32.0",
            "kuration_volume_inodes_used{volume_id=\"a\"} 3.0",
            "kuration_volume_inodes{volume_id=\"a\"} 8.0",
        ];
        assert_eq!(shown(), first);
        fullness.left("a");
        fullness.left("b");
        assert!(shown().is_empty());
    }
}
