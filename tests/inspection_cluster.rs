//! Inspections in a real Kubernetes: the charts are installed by Helm, tasks are made as a user makes them, and what is tested
//! is what he sees: status, events, CronJobs, and the files on a volume that the driver provisioned.
//!
//! It needs a cluster, so it is no part of a plain `cargo test`: `tests/cluster/e2e --inspection` brings one up and runs it
//! there. Any other cluster does too that the tests may have for themselves, with the image at hand, and a pool where
//! `tests/kubernetes/site.rs` is told: it needs the first node alone. Cases run side by side, each in a namespace of its own;
//! those that break what others stand on run alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod inspection_cluster {
    pub mod admission;
    #[path = "../inspection/expressions.rs"]
    pub mod asked;
    pub mod expressions;
    pub mod fleet;
    pub mod ground;
    pub mod keeping;
    pub mod machines;
    pub mod openreports;
    pub mod plugin;
    pub mod running;
    pub mod upkeep;
}
