//! Kuration: NFS volumes for Kubernetes that behave.
//!
//! A tour of the rooms, from the words to the door:
//!
//! | room | what it is |
//! |---|---|
//! | [`volume`] | the words: ids, parameters, access modes, sizes, mount options, records; pure |
//! | [`plan`] | the decisions: from what is asked and what is found to what is to be done; pure |
//! | [`child`] | work that may hang, done by processes that can be killed |
//! | [`mount`] | a node's mounts, and how an export is mounted |
//! | [`backend`] | where volumes are kept: on shares, or in a pool |
//! | [`csi`] | the porch: CSI requests and answers; the only room that knows gRPC |
//! | [`kubernetes`] | what is asked of the cluster's API server |
//! | [`inspection`] | scheduled inspection: tasks, runs, what is kept of them |
//! | [`kubectl`] | `kubectl kuration`: a person's view of inspections |
//! | [`telemetry`] | logs, metrics, health |
//! | [`client`], [`trial`], [`bench`](mod@bench) | the other side of CSI: `kuration try` and `kuration bench` |
//! | [`privilege`] | what a process may do, cut down at its start |
//! | [`args`], [`settings`], [`run`] | flags as typed, flags as meant, and what they set going |

pub mod args;
pub mod backend;
pub mod bench;
pub mod child;
pub mod client;
pub mod csi;
pub mod fault;
pub mod inflight;
pub mod inspection;
pub mod kubectl;
pub mod kubernetes;
pub mod mount;
pub mod plan;
pub mod privilege;
pub mod run;
pub mod settings;
pub mod telemetry;
pub mod trial;
pub mod volume;
