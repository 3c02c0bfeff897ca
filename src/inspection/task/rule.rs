//! One rule of a task: how it is named and weighed, what it asserts, and of which kind it is.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{cluster, probe};

/// How bad it is when a rule does not pass; the words of OpenReports.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Can wait.
    Low,
    /// Should be looked at.
    #[default]
    Medium,
    /// Should be looked at today.
    High,
    /// Should be looked at now.
    Critical,
}

/// Which pods of a run evaluate a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// Each of them.
    #[default]
    PerShard,
    /// One alone.
    Once,
}

/// A CEL expression over what a rule saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Assertion {
    /// True when all is well. It sees `result`, `items`, `target`, `now` and `previous`.
    #[schemars(length(min = 1, max = 1024))]
    pub expr: String,
    /// What to say when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

macro_rules! rule {
    ($($(#[$about:meta])* $field:ident: $path:ident::$kind:ident, $word:literal;)+) => {
        /// One rule of a task. Exactly one kind is set.
        #[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[x_kube(
            validation = Rule::new(concat!("[", $("has(self.", $word, "),",)+ "].filter(x, x).size() == 1"))
                .message("exactly one rule kind must be set"),
            validation = Rule::new("!(has(self.resource) || has(self.promql)) || has(self.assert) || has(self.warn)")
                .message("this rule asserts nothing: resource and promql need assert or warn"),
            validation = Rule::new("!has(self.dependsOn) || !(self.name in self.dependsOn)")
                .message("a rule can't depend on itself"),
            validation = Rule::new("!has(self.tcp) || !(self.tcp.port in [3306, 5432, 6379])")
                .message("use mysql, postgresql or redis for this port: a bare connect counts as an attack there")
        )]
        #[serde(rename_all = "camelCase")]
        pub struct Rule {
            /// Its name, which no other rule of the task has.
            #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
            pub name: String,
            /// How bad it is when it does not pass.
            #[serde(default)]
            pub severity: Severity,
            /// A word to sort it by in reports.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(max = 63))]
            pub category: Option<String>,
            /// Which pods of a run evaluate it.
            #[serde(default)]
            pub scope: Scope,
            /// How long one attempt may take, in seconds.
            #[serde(default = "ten")]
            #[schemars(range(min = 1, max = 3600))]
            pub timeout_seconds: u32,
            /// How often it is tried again before it is said to fail.
            #[serde(default)]
            #[schemars(range(max = 10))]
            pub retries: u32,
            /// How long to wait before it is tried again, in seconds.
            #[serde(default = "one")]
            #[schemars(range(max = 300))]
            pub retry_delay_seconds: u32,
            /// Rules without which this one says nothing: unless all of them pass or warn, it is skipped.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(max = 8), inner(length(max = 63)))]
            pub depends_on: Vec<String>,
            /// What must hold, else the rule fails. Without it: the kind's default, whether or not there is a warn.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(min = 1, max = 16))]
            pub assert: Option<Vec<Assertion>>,
            /// What should hold, else the rule warns.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(min = 1, max = 16))]
            pub warn: Option<Vec<Assertion>>,
            /// What to do about it, for the report.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(length(max = 1024))]
            pub remedy: Option<String>,
            $(
                $(#[$about])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$path::$kind>,
            )+
        }

        /// What a rule is of.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Kind<'a> {
            $($(#[$about])* $kind(&'a $path::$kind),)+
        }

        impl Rule {
            /// Its kind; None when none is set, or more than one: what the API server refuses, but a file may hold.
            pub fn kind(&self) -> Option<Kind<'_>> {
                let mut set = [$(self.$field.as_ref().map(Kind::$kind),)+].into_iter().flatten();
                set.next().filter(|_| set.next().is_none())
            }
        }

        impl Kind<'_> {
            /// Every kind, by the field that it is written as.
            pub const ALL: &'static [&'static str] = &[$($word,)+];

            /// The field that it is written as, such as `http`.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Kind::$kind(_) => $word,)+
                }
            }
        }
    };
}

rule! {
    /// What a task without rules does: the target exists, is well, and answers.
    target: cluster::TargetCheck, "target";
    /// A TCP connection.
    tcp: probe::Tcp, "tcp";
    /// An HTTP request.
    http: probe::Http, "http";
    /// A name's addresses or other records.
    dns: probe::Dns, "dns";
    /// A certificate.
    tls: probe::Tls, "tls";
    /// A gRPC health check.
    grpc: probe::Grpc, "grpc";
    /// A MySQL server.
    mysql: probe::Mysql, "mysql";
    /// A PostgreSQL server.
    postgresql: probe::Postgresql, "postgresql";
    /// A Redis server.
    redis: probe::Redis, "redis";
    /// Objects of the API.
    resource: cluster::Resource, "resource";
    /// Deployments, StatefulSets, DaemonSets.
    workload: cluster::Workload, "workload";
    /// Pods.
    pods: cluster::Pods, "pods";
    /// Events.
    events: cluster::Events, "events";
    /// The node that the run is on.
    node: cluster::Node, "node";
    /// Certificates in Secrets.
    certificate_secrets: cluster::CertificateSecrets, "certificateSecrets";
    /// Claims.
    persistent_volume_claims: cluster::PersistentVolumeClaims, "persistentVolumeClaims";
    /// How full volumes are.
    volume_usage: cluster::VolumeUsage, "volumeUsage";
    /// A volume that is written to, or made and deleted.
    volume_probe: cluster::VolumeProbe, "volumeProbe";
    /// An NFS server, without a mount.
    nfs: probe::Nfs, "nfs";
    /// A CSI driver.
    csi_driver: cluster::CsiDriver, "csiDriver";
    /// A Prometheus query.
    promql: probe::Promql, "promql";
    /// A command in an image of its own.
    exec: cluster::Exec, "exec";
}

fn ten() -> u32 {
    10
}

fn one() -> u32 {
    1
}
