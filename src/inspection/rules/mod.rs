//! Rules: from how they are written to how they came out.
//!
//! A rule goes two steps. A *probe* looks and says what it saw ([`Sight`]), or why it could not look ([`Blind`]). Then the
//! task's assertions, or the kind's own default, are held against what was seen. So "the target is bad" and "nobody could
//! tell" never become one, and every kind gets deadlines, retries and CEL from one place.
//!
//! No probe harms what it looks at: it reads, it ends what it begins, it takes one connection and a bounded answer.

pub mod cel;
mod certificate;
mod cluster;
mod database;
mod dialect;
mod dns;
pub mod exec;
mod grpc;
mod http;
mod judge;
mod mysql;
mod mysql_session;
mod network;
mod nfs;
mod nodes;
mod place;
mod postgres;
mod redis;
mod rpc;
mod sight;
mod storage;
mod target;
mod volume_probe;
mod wire;
mod workloads;

pub use database::observed;
pub use judge::{Judged, judge, refused};
pub use place::{Past, Place};
pub use sight::{Blind, Finding, Seen, Sight, Verdict};

use crate::inspection::task::{Kind, Rule};

/// Looks, by the rule's kind.
pub async fn look(rule: &Rule, place: &Place) -> Seen {
    let Some(kind) = rule.kind() else {
        return Err(Blind::new("BadRule", "a rule has exactly one kind; this one has none or several"));
    };
    match kind {
        Kind::TargetCheck(_) => target::look(place).await,
        Kind::Tcp(rule) => network::tcp(rule, place).await,
        Kind::Http(rule) => network::http(rule, place).await,
        Kind::Dns(rule) => dns::look(rule).await,
        Kind::Tls(rule) => network::tls(rule, place).await,
        Kind::Grpc(rule) => grpc::look(rule, place).await,
        Kind::Mysql(rule) => database::mysql(rule, place).await,
        Kind::Postgresql(rule) => database::postgresql(rule, place).await,
        Kind::Redis(rule) => database::redis(rule, place).await,
        Kind::Resource(rule) => workloads::resource(rule, place).await,
        Kind::Workload(rule) => workloads::workload(rule, place).await,
        Kind::Pods(rule) => workloads::pods(rule, place).await,
        Kind::Events(rule) => workloads::events(rule, place).await,
        Kind::Node(rule) => nodes::look(rule, place).await,
        Kind::CertificateSecrets(rule) => nodes::certificates(rule, place).await,
        Kind::PersistentVolumeClaims(rule) => storage::claims(rule, place).await,
        Kind::VolumeUsage(usage) => storage::usage(usage, &rule.name, place).await,
        Kind::VolumeProbe(rule) => volume_probe::look(rule, place).await,
        Kind::Nfs(rule) => nfs::look(rule, place).await,
        Kind::CsiDriver(rule) => storage::driver(rule, place).await,
        Kind::Promql(rule) => network::promql(rule, place).await,
        Kind::Exec(exec) => exec::look(exec, &rule.name, place).await,
    }
}
