//! The driver in a real Kubernetes: the chart is installed by Helm, and what is tested is what a cluster's users see:
//! claims, volumes, pods, events.
//!
//! It needs a cluster, so it is no part of a plain `cargo test`: `tests/cluster/e2e` brings one up and runs it there. Any
//! other cluster does too, whose KUBECONFIG may do everything; `tests/kubernetes/site.rs` says what it is asked by the
//! environment. Cases run side by side, each in a namespace of its own; those that break what others stand on run alone.
//! Cases that need a machine to be broken (a server's plug pulled, a kubelet ended) are in modules named `machines`: on a
//! cluster that was not made by `tests/cluster`, leave them out by `--skip machines`, and where there is no NFS server, the
//! share driver by `--skip share`. Where the API server's audit log can't be read, leave out `--skip denied`; where the nodes
//! have no SELinux, or their kubelets not the feature gates that `tests/kubernetes/selinux.rs` names, `--skip selinux`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod kubernetes {
    pub mod claims;
    pub mod driver;
    pub mod expansion;
    pub mod inline;
    pub mod node;
    pub mod objects;
    pub mod outage;
    pub mod phases;
    pub mod pods;
    pub mod refusals;
    pub mod release;
    pub mod rights;
    pub mod scale;
    pub mod selinux;
    pub mod site;
    pub mod space;
}
