//! The end of a case: what is left of it, and what the cluster knows of one that failed.

use k8s_openapi::api::core::v1::{Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Duration;

use super::{PATIENCE, Space};

impl Space {
    /// Deletes what is left of the case; its volumes must follow. A driver that it installed here goes on, or they could not.
    pub async fn empty(&self) {
        let (all, now) = (ListParams::default(), DeleteParams::default());
        let its_own = ListParams::default().labels("app.kubernetes.io/name!=kuration-csi");
        self.api::<Pod>().delete_collection(&now, &its_own).await.expect("pods deleted");
        self.api::<PersistentVolumeClaim>().delete_collection(&now, &all).await.expect("claims deleted");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = self.volumes().await;
            if left.is_empty() {
                return;
            }
            let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
            assert!(tokio::time::Instant::now() < deadline, "volumes are left behind: {}", names.join(", "));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The volumes that claims of this namespace have, or had and should have taken with them.
    pub async fn volumes(&self) -> Vec<PersistentVolume> {
        let mut found =
            self.all::<PersistentVolume>().list(&Default::default()).await.expect("volumes").items;
        found.retain(|volume| self.has(volume));
        found
    }

    /// Whether a claim of this namespace has a volume, or had it.
    fn has(&self, volume: &PersistentVolume) -> bool {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        claim.and_then(|claim| claim.namespace.as_deref()) == Some(&self.name)
    }

    /// Removes everything, without asking how it went: for the next case's sake. Volumes that the case retained or made by hand
    /// become the provisioner's, which deletes them with their claims.
    pub async fn close(&self) {
        let now = DeleteParams::default();
        let volumes = self.all::<PersistentVolume>();
        for volume in volumes.list(&Default::default()).await.into_iter().flatten() {
            let name = volume.name_any();
            if !self.has(&volume) && !name.starts_with(&format!("{}-", self.name)) {
                continue;
            }
            let spec = volume.spec.as_ref();
            let driver = spec.and_then(|spec| spec.csi.as_ref()).map(|source| source.driver.as_str());
            let mortal = json!({
                "metadata": { "annotations": { "pv.kubernetes.io/provisioned-by": driver } },
                "spec": { "persistentVolumeReclaimPolicy": "Delete" },
            });
            drop(volumes.patch(&name, &PatchParams::default(), &Patch::Merge(&mortal)).await);
            if spec.is_some_and(|spec| spec.claim_ref.is_none()) {
                drop(volumes.delete(&name, &now).await);
            }
        }
        for class in self.all::<StorageClass>().list_metadata(&Default::default()).await.into_iter().flatten()
        {
            let name = class.name_any();
            if name.starts_with(&format!("{}-", self.name)) {
                drop(self.all::<StorageClass>().delete(&name, &now).await);
            }
        }
        drop(self.all::<Namespace>().delete(&self.name, &now).await);
    }

    /// Says what the cluster knows of a case that failed.
    pub(super) async fn tell(&self) {
        eprintln!("--- namespace {}", self.name);
        for event in self.api::<Event>().list(&Default::default()).await.into_iter().flatten() {
            let about = &event.involved_object;
            eprintln!(
                "{} {}: {} (x{}) {}",
                about.kind.as_deref().unwrap_or_default(),
                about.name.as_deref().unwrap_or_default(),
                event.reason.as_deref().unwrap_or_default(),
                event.count.unwrap_or(1),
                event.message.as_deref().unwrap_or_default()
            );
        }
        for pod in self.api::<Pod>().list(&Default::default()).await.into_iter().flatten() {
            eprintln!("pod {}: {}", pod.name_any(), serde_json::to_string(&pod.status).unwrap_or_default());
        }
    }
}
