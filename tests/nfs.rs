//! The driver against a real NFS server and client: the kernel's own.
//!
//! It needs the server of `tests/guest/nfsd` beside it, which these tests break and mend, so it is no part of a plain
//! `cargo test`: `tests/run` starts it, one test at a time, where there is such a server (`tests/guest/with-nfs`). Those in the
//! module `selinux` need its policy too (`tests/guest/selinux/load`), and have a kernel of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;
#[path = "common/inline.rs"]
mod inline;

#[path = "nfs/host.rs"]
mod host;
#[path = "nfs/server.rs"]
mod server;
#[path = "nfs/site.rs"]
mod site;

#[path = "nfs/access.rs"]
mod access;
#[path = "nfs/calls.rs"]
mod calls;
#[path = "nfs/controllers.rs"]
mod controllers;
#[path = "nfs/directories.rs"]
mod directories;
#[path = "nfs/identity.rs"]
mod identity;
#[path = "nfs/inline_volumes.rs"]
mod inline_volumes;
#[path = "nfs/life.rs"]
mod life;
#[path = "nfs/outage.rs"]
mod outage;
#[path = "nfs/pool.rs"]
mod pool;
#[path = "nfs/refusals.rs"]
mod refusals;
#[path = "nfs/results.rs"]
mod results;
#[path = "nfs/selinux.rs"]
mod selinux;
#[path = "nfs/static_volumes.rs"]
mod static_volumes;
#[path = "nfs/trash.rs"]
mod trash;
#[path = "nfs/trial.rs"]
mod trial;
