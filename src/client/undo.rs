//! The second half of a life: every step has its reverse.

use std::fs;
use std::io;
use std::time::Duration;

use super::ClientError;
use super::kubelet::at;
use super::life::{Life, wire};
use crate::csi::proto;

impl Life {
    /// NodeUnpublishVolume, for the pod that came last; `false` where none is left. A target that the driver leaves behind
    /// is a failure: the specification has it remove what it made, and a kubelet waits for that.
    pub async fn node_unpublish(&mut self) -> Result<bool, ClientError> {
        const METHOD: &str = "NodeUnpublishVolume";
        let Some(target) = self.targets.last().cloned() else { return Ok(false) };
        let volume_id = self.volume(METHOD)?.volume_id;
        let request = proto::NodeUnpublishVolumeRequest { volume_id, target_path: wire(&target) };
        let request = self.client.request(request);
        let mut node = self.client.node();
        self.call(METHOD, node.node_unpublish_volume(request)).await?;
        if fs::symlink_metadata(&target).is_ok() {
            let fault = format!("the target {} is still there afterwards", target.display());
            return Err(ClientError::Answer { method: METHOD, fault });
        }
        self.kubelet.clear(target.parent().unwrap_or(&target));
        self.targets.pop();
        Ok(true)
    }

    /// NodeUnstageVolume; the kubelet removes the directory that it made.
    pub async fn unstage(&mut self) -> Result<(), ClientError> {
        if !self.staged {
            return Ok(());
        }
        let volume_id = self.volume("NodeUnstageVolume")?.volume_id;
        let staging = self.kubelet.staging(&volume_id);
        let request = proto::NodeUnstageVolumeRequest { volume_id, staging_target_path: wire(&staging) };
        let request = self.client.request(request);
        let mut node = self.client.node();
        self.call("NodeUnstageVolume", node.node_unstage_volume(request)).await?;
        self.kubelet.clear(&staging);
        if let Err(error) = fs::symlink_metadata(&staging) {
            self.staged = error.kind() != io::ErrorKind::NotFound;
            return if self.staged { Err(at(&staging, &error)) } else { Ok(()) };
        }
        let fault = format!("{} is still a mount, or not empty, afterwards", staging.display());
        Err(ClientError::Answer { method: "NodeUnstageVolume", fault })
    }

    /// ControllerUnpublishVolume.
    pub async fn unpublish(&mut self) -> Result<(), ClientError> {
        if !self.published {
            return Ok(());
        }
        let volume_id = self.volume("ControllerUnpublishVolume")?.volume_id;
        let request = self.client.request(proto::ControllerUnpublishVolumeRequest {
            volume_id,
            node_id: self.client.plugin().node_id.clone(),
            secrets: self.secrets(),
        });
        let mut controller = self.client.controller();
        self.call("ControllerUnpublishVolume", controller.controller_unpublish_volume(request)).await?;
        self.published = false;
        Ok(())
    }

    /// DeleteVolume. Where it is unknown what came of CreateVolume, that is asked again first, as external-provisioner
    /// does: without an id nothing can be deleted.
    pub async fn delete(&mut self) -> Result<(), ClientError> {
        if !self.created {
            return Ok(());
        }
        if self.volume.is_none() {
            let again = self.create().await;
            if !self.created {
                return Ok(());
            }
            again?;
        }
        let volume_id = self.volume("DeleteVolume")?.volume_id;
        let request = proto::DeleteVolumeRequest { volume_id, secrets: self.secrets() };
        let request = self.client.request(request);
        let mut controller = self.client.controller();
        self.call("DeleteVolume", controller.delete_volume(request)).await?;
        self.created = false;
        Ok(())
    }

    /// Undoes whatever was tried, in reverse, each step up to three times. Goes on after a failure, and answers with the
    /// first that remained.
    pub async fn down(&mut self) -> Result<(), ClientError> {
        let mut outcome = Ok(());
        for tried in 1..=3 {
            outcome = self.down_once().await;
            if outcome.is_ok() || tried == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        outcome
    }

    async fn down_once(&mut self) -> Result<(), ClientError> {
        let mut outcome = Ok(());
        // Without an id there is nothing that was published or staged.
        if self.volume.is_some() {
            loop {
                match self.node_unpublish().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            outcome = outcome.and(self.unstage().await);
            outcome = outcome.and(self.unpublish().await);
        }
        outcome.and(self.delete().await)
    }
}
