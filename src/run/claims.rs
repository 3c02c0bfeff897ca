//! Records that name the claims which have their volumes, also after a volume has changed hands.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::backend::{ExpandError, Handle, Volumes};
use crate::kubernetes::Bound;
use crate::volume::{AllowedServers, Claim, ExportName, SecretOptions, VolumeId};

/// How long one record may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Writes down what is told. Of a server that is not allowed nothing is asked, nor of a volume that nobody made here.
pub(super) async fn follow(mut told: mpsc::Receiver<Bound>, volumes: Volumes, servers: AllowedServers) {
    let mut late: HashMap<VolumeId, Claim> = HashMap::new();
    loop {
        let next = tokio::time::timeout(AGAIN, told.recv()).await;
        let due: Vec<(VolumeId, Claim)> = match next {
            Ok(None) => return,
            Ok(Some(Bound { volume_id, claim })) => {
                let id = volume_id.parse().ok().filter(|id| is_ours(id, &servers));
                id.map(|id| (id, claim)).into_iter().collect()
            }
            Err(_) => late.drain().collect(),
        };
        for (id, claim) in due {
            let handle = Handle { id: id.clone(), secret: SecretOptions::default() };
            late.remove(&id);
            match volumes.claim(&handle, claim.clone(), Instant::now() + PATIENCE).await {
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

fn is_ours(id: &VolumeId, servers: &AllowedServers) -> bool {
    match id {
        VolumeId::Share { export: ExportName::Named(export, _), .. } => servers.check(export).is_ok(),
        VolumeId::Share { export: ExportName::Hashed(_), .. } | VolumeId::Pool { .. } => true,
        VolumeId::Peer { .. } => false,
    }
}
