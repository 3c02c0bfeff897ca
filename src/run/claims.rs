//! Records that name the claims which have their volumes, also after a volume has changed hands: written by one process at a time
//! where there is a Lease.

use std::collections::HashMap;
use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::backend::{ExpandError, Handle, Place, Trouble, Volumes};
use crate::kubernetes::{self, Bound};
use crate::volume::{AllowedServers, Claim, SecretOptions, VolumeId};

/// How long one record may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often what failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Watches who has the volumes of `driver`, and writes it down, for as long as `held` is true; without it, always.
pub(super) async fn whenever_held(
    held: Option<watch::Receiver<bool>>,
    client: Client,
    driver: String,
    volumes: Volumes,
    servers: AllowedServers,
) {
    super::held::whenever_held(held, || async {
        let (sender, told) = mpsc::channel(1);
        tokio::join!(
            kubernetes::bindings(client.clone(), driver.clone(), sender),
            follow(told, volumes.clone(), servers.clone(), AGAIN),
        );
    })
    .await;
}

/// Writes down what is told, and tries what failed once `again`. Of a server that is not allowed nothing is asked, nor of a
/// volume that nobody made here.
async fn follow(mut told: mpsc::Receiver<Bound>, volumes: Volumes, servers: AllowedServers, again: Duration) {
    let mut late: HashMap<VolumeId, Claim> = HashMap::new();
    // By a clock of its own, or a cluster in which something is always bound would never come to it.
    let mut again = tokio::time::interval(again);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due: Vec<(VolumeId, Claim)> = tokio::select! {
            next = told.recv() => match next {
                None => return,
                Some(Bound { volume_id, claim }) => {
                    volume_id.parse().ok().map(|id| (id, claim)).into_iter().collect()
                }
            },
            _ = again.tick() => late.drain().collect(),
        };
        for (id, claim) in due {
            let handle = Handle { id: id.clone(), secret: SecretOptions::default() };
            late.remove(&id);
            let recorded = match may_be_asked(&handle, &volumes, &servers) {
                Ok(true) => volumes.claim(&handle, claim.clone(), Instant::now() + PATIENCE).await,
                Ok(false) => continue,
                Err(trouble) => Err(trouble.into()),
            };
            match recorded {
                Ok(true) => {
                    let Claim { namespace, name, volume } = &claim;
                    tracing::info!(volume_id = %id, namespace, claim = name, volume, "the volume's claim is recorded");
                }
                // A volume that is gone has no claim.
                Ok(false) | Err(ExpandError::NotFound) => {}
                Err(error) => {
                    tracing::debug!(volume_id = %id, %error, "the volume's claim can't be recorded now");
                    late.insert(id, claim);
                }
            }
        }
    }
}

/// Whether the volume's place may be asked. An export that its id names by a hash alone has to be known first.
fn may_be_asked(handle: &Handle, volumes: &Volumes, servers: &AllowedServers) -> Result<bool, Trouble> {
    Ok(match volumes.backend().locate(handle)? {
        Some(Place::Share { export, .. }) => {
            !matches!(handle.id, VolumeId::Peer { .. }) && servers.check(&export).is_ok()
        }
        Some(Place::Pool) => true,
        None => false,
    })
}

#[cfg(test)]
mod tests;
