//! A Lease: which of several processes does what one at a time should do.
//!
//! Held in the manner of client-go's leader election: the holder writes its name and renews it; another takes over when it has seen
//! no renewal for the lease's whole duration *by its own clock*, so that clocks which differ do no harm. Each write carries the
//! resource version of what was read, so of two who take over at once the API server refuses one. A holder that could not renew
//! in time takes itself for none, before another can.
//!
//! Rights, in the Lease's namespace: leases get, create, update.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Said, code, no_answer};

/// How long others wait after a renewal before they take over.
const DURATION: Duration = Duration::from_secs(15);

/// How long after its last renewal a holder still takes itself for one. Less than [`DURATION`], for what it does then takes
/// a moment to end.
const HELD: Duration = Duration::from_secs(10);

/// How often the lease is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);

/// Longer an answer is not waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// Times, for tests to shorten.
#[derive(Debug, Clone, Copy)]
struct Times {
    duration: Duration,
    held: Duration,
    period: Duration,
    patience: Duration,
}

/// One Lease, and by whom it is wanted.
pub struct Lease {
    api: Api<Object>,
    namespace: String,
    name: String,
    me: String,
    times: Times,
    /// The last version that was seen, and since when.
    seen: Option<(String, Instant)>,
}

/// A name for this process that no other has: the pod's or host's, and a part that is drawn. Two processes on one host, or one
/// after the other in one pod, are two.
pub fn identity() -> String {
    let host = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = host.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let mut drawn = [0_u8; 8];
    // Without random numbers the process id tells processes of one host apart.
    if rustix::rand::getrandom(&mut drawn, rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        drawn[..4].copy_from_slice(&std::process::id().to_be_bytes());
    }
    drawn.iter().fold(format!("{host}_"), |name, byte| format!("{name}{byte:02x}"))
}

/// What is to be done about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nobody has made it.
    Create,
    /// It is ours, free, or its holder is gone.
    Take,
    /// Another holds it.
    Wait,
}

impl Lease {
    /// The Lease `namespace/name`, wanted by `me`. Nothing is asked yet.
    pub fn new(client: Client, namespace: &str, name: &str, me: String) -> Self {
        let times = Times { duration: DURATION, held: HELD, period: PERIOD, patience: PATIENCE };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { api: Api::namespaced(client, &namespace), namespace, name, me, times, seen: None }
    }

    /// Takes the lease whenever it can be had, renews it, and tells in `held` whether this process holds it, for as long as
    /// anybody looks there.
    pub async fn keep(mut self, held: watch::Sender<bool>) {
        let mut said = Said::default();
        let mut until = Instant::now();
        while !held.is_closed() {
            let began = Instant::now();
            match tokio::time::timeout(self.times.patience, self.turn()).await {
                Ok(Ok(mine)) => {
                    said.well("the lease");
                    // From before it was asked: the renewal is at least as young.
                    until = if mine { began + self.times.held } else { began };
                }
                Ok(Err(error)) if code(&error) == Some(409) => {}
                Ok(Err(error)) => said.trouble(&self.what(), &error),
                Err(_) => said.trouble(&self.what(), &no_answer()),
            }
            let next = began + self.times.period;
            self.tell(&held, until > Instant::now());
            if until > Instant::now() && until < next {
                tokio::time::sleep_until(until).await;
                self.tell(&held, false);
            }
            tokio::time::sleep_until(next).await;
        }
    }

    fn what(&self) -> String {
        format!("the Lease {}/{} can't be read or written, so it is not held", self.namespace, self.name)
    }

    fn tell(&self, held: &watch::Sender<bool>, now: bool) {
        let (lease, me) = (format!("{}/{}", self.namespace, self.name), &self.me);
        if held.send_if_modified(|held| std::mem::replace(held, now) != now) {
            match now {
                true => tracing::info!(lease, identity = me, "the lease is held"),
                false => tracing::info!(lease, identity = me, "the lease is held no longer"),
            }
        }
    }

    /// Reads the lease and takes or renews it where that is possible; whether it is ours then.
    async fn turn(&mut self) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.name).await?;
        match self.step(found.as_ref(), Instant::now()) {
            Step::Wait => Ok(false),
            Step::Create => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..Default::default() };
                let lease = Object { metadata, spec: Some(self.claim(None)) };
                self.api.create(&PostParams::default(), &lease).await.map(|_| true)
            }
            Step::Take => {
                let mut lease = found.unwrap_or_default();
                lease.spec = Some(self.claim(lease.spec));
                // With the resource version that was read: whoever wrote in between wins.
                self.api.replace(&self.name, &PostParams::default(), &lease).await.map(|_| true)
            }
        }
    }

    fn step(&mut self, found: Option<&Object>, now: Instant) -> Step {
        let Some(lease) = found else { return Step::Create };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, now));
        }
        if holder.is_empty() || holder == self.me {
            return Step::Take;
        }
        let theirs = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = theirs.map_or(self.times.duration, Duration::from_secs);
        let silent = self.seen.as_ref().is_some_and(|(_, since)| now.duration_since(*since) > duration);
        if silent { Step::Take } else { Step::Wait }
    }

    /// The lease as ours.
    fn claim(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        let before = before.unwrap_or_default();
        let mine = before.holder_identity.as_ref() == Some(&self.me);
        LeaseSpec {
            acquire_time: if mine { before.acquire_time } else { Some(now.clone()) },
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.times.duration.as_secs().max(1)).ok(),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!mine)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
impl Lease {
    /// The same with times a hundred times as short, but for the duration, whose unit is the second.
    pub(super) fn hasty(mut self) -> Self {
        self.times = Times {
            duration: Duration::from_secs(1),
            held: Duration::from_millis(400),
            period: Duration::from_millis(20),
            patience: Duration::from_millis(200),
        };
        self
    }
}
