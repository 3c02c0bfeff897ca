//! Inline ephemeral volumes: made at NodePublish, where the administrator says, and gone with their Pod.
//!
//! Nothing of them rests on this process or its state directory. A volume's key follows from the id that the kubelet gives
//! it, and its record names the node and the Pod's path, so whatever a crash left is found again: by the kubelet's next
//! try, or by [`Node::tidy`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::Node;
use super::ask::{self, Source};
use super::files::{Files, Manner};
use super::node::table;
use super::proto;
use crate::backend::store::random;
use crate::backend::{FindError, Handle, Place};
use crate::fault_point;
use crate::plan::{self, NodeStage};
use crate::volume::{
    Capability, Directory, Fingerprint, Inline, Key, Kind, MountOptions, OnDelete, Scratch, SecretOptions,
    VolumeId, Wanted,
};

/// How long the end of a Pod waits for its volume's removal. What takes longer is left to [`Node::tidy`].
const PATIENCE: Duration = Duration::from_secs(5);

/// Volumes on one page of a list.
const PAGE: usize = 250;

/// How often to look for volumes whose Pod is gone without a word, on average. Each node reads every record of the export for
/// it, and most such volumes are found when their node starts anew.
const LOOK: Duration = Duration::from_secs(24 * 3600);

/// How soon to look again after something went wrong.
const AGAIN: Duration = Duration::from_secs(15);

/// So many Pods as end within this time are cleaned up after together.
const GATHER: Duration = Duration::from_secs(1);

/// A look at the list, and what one volume's removal may take.
const SWEEP: Duration = Duration::from_secs(60);

/// Where inline volumes live.
#[derive(Clone)]
pub struct InlineVolumes {
    /// The export, or the pool.
    pub place: Place,
    /// How the export is mounted.
    pub options: MountOptions,
    /// The largest, in bytes; `None`: there may be no new ones.
    pub limit: Option<u64>,
    /// Whose they are.
    pub installation: String,
    /// Told when one is in the trash.
    pub freed: Arc<Notify>,
    /// Told when one could not be removed.
    pub late: Arc<Notify>,
}

impl InlineVolumes {
    fn key(&self, volume_id: &str) -> Key {
        Key::of(&self.installation, &Inline::name(volume_id))
    }
}

/// NodePublishVolume of an inline volume, read.
pub(super) struct PublishInline {
    inlines: InlineVolumes,
    wanted: Wanted,
    target: PathBuf,
    options: MountOptions,
    read_only: bool,
}

/// What the administrator can do, by what the driver's volumes are.
fn not_allowed(kind: Kind) -> Status {
    let flag = match kind {
        Kind::Share => "--inline-share SERVER:/PATH (in the chart: nfs.inline.enabled and nfs.inline.share)",
        Kind::Pool => "--inline-pool (in the chart: pool.inline.enabled)",
    };
    Status::failed_precondition(format!(
        "inline volumes are not allowed here; the administrator allows them by {flag}. A generic ephemeral volume \
         (ephemeral.volumeClaimTemplate) needs no leave"
    ))
}

impl PublishInline {
    /// Reads a request to a node.
    pub(super) fn parse(node: &Node, request: &proto::NodePublishVolumeRequest) -> Result<Self, Status> {
        let kind = node.volumes.backend().kind();
        let inlines = node.inlines.clone().filter(|inlines| inlines.limit.is_some());
        let inlines = inlines.ok_or_else(|| not_allowed(kind))?;
        let volume_id = ask::volume_id(&request.volume_id)?;
        if !Inline::is_id(volume_id) {
            let shown: String = volume_id.chars().take(128).collect();
            return Err(Status::invalid_argument(format!("{shown:?} is no id of an inline volume")));
        }
        let target = ask::path("target_path", &request.target_path)?;
        let capability: Capability = ask::capability(request.volume_capability.as_ref())?;
        let options = MountOptions::parse(&capability.mount_flags)?;
        ask::fitting(kind, &options)?;
        if !ask::secret(&request.secrets)?.is_empty() {
            let words = "an inline volume can't have mountOptions in its nodePublishSecretRef: how it is mounted is for the \
                         administrator to say";
            return Err(Status::invalid_argument(words));
        }
        let Inline { bytes, owner, asked } =
            Inline::parse(&request.volume_context, inlines.limit.unwrap_or_default())?;
        let (name, key) = (Inline::name(volume_id), inlines.key(volume_id));
        let read_only = ask::access(&capability, request.readonly).reads_only();
        let wanted = Wanted {
            directory: Directory::of_name(&name, &key),
            name,
            key,
            chosen: false,
            required: i64::try_from(bytes).unwrap_or(i64::MAX),
            limit: 0,
            owner,
            on_delete: OnDelete::Delete,
            mount_options: match &inlines.place {
                Place::Share { options, .. } => options.clone(),
                Place::Pool => MountOptions::default(),
            },
            // How a kubelet mounts it is none of the volume's own: it may come again with another label.
            fingerprint: Fingerprint { parameters: asked, capabilities: Vec::new() },
            now: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            // The Pod has no claim to it.
            claim: None,
            scratch: Some(Scratch { node: node.id.clone(), target: request.target_path.clone() }),
        };
        Ok(Self { inlines, wanted, target, options, read_only })
    }
}

impl Node {
    /// Makes an inline volume, or finds the one that an earlier try made, and mounts it for its Pod.
    pub(super) async fn publish_inline(self, ask: PublishInline, deadline: Instant) -> Result<(), Status> {
        let PublishInline { inlines, wanted, target, options, read_only } = ask;
        let target = self.resolve("target_path", &target).await?;
        let (id, volume) = self.volumes.create(&inlines.place, wanted, deadline).await?;
        fault_point!("inline.made");
        let files = match &inlines.place {
            Place::Pool => Files::Here(Box::new(self.local_of(&id).await?)),
            Place::Share { export, .. } => Files::There(Source {
                export: export.clone(),
                path: export.path_of(volume.record.directory.as_str()),
                options: inlines.options.clone(),
            }),
        };
        let mut attributes = self.defaults.and(&inlines.options).and(&options).attributes();
        attributes.read_only |= read_only;
        let table = table()?;
        match plan::node_stage(&files.origin(), &target, attributes.read_only, &table) {
            NodeStage::Done => {
                self.check_label(&files, (&target, &table), &options, &SecretOptions::default())
            }
            NodeStage::Conflict(what) => Err(Status::already_exists(format!("{}: {what}", target.display()))),
            NodeStage::Mount => {
                self.mounter.prepare(&target, deadline).await?;
                let manner = Manner { options, secret: SecretOptions::default(), attributes };
                let done = self.show(files, &target, &manner, deadline).await;
                fault_point!("inline.mounted");
                done
            }
        }
    }

    /// Removes the volume that was made for `volume_id`, which is mounted nowhere any more, if one was. A server that does not
    /// answer holds up no Pod's end: it is removed later then.
    pub(super) async fn forget_inline(&self, volume_id: &str, deadline: Instant) {
        let Some(inlines) = self.inlines.as_ref().filter(|_| Inline::is_id(volume_id)) else { return };
        let until = deadline.min(Instant::now() + PATIENCE);
        if let Err(status) = self.remove_inline(inlines, inlines.key(volume_id), until).await {
            tracing::warn!(why = status.message(), "an inline volume is not removed yet; it is tried again");
            inlines.late.notify_one();
        }
    }

    async fn remove_inline(&self, inlines: &InlineVolumes, key: Key, until: Instant) -> Result<(), Status> {
        match self.volumes.look_up(&inlines.place, key, until).await {
            // Only ever what was made for a Pod.
            Ok((id, volume)) if volume.record.scratch.is_some() => {
                let handle = Handle { id, secret: SecretOptions::default() };
                self.volumes.delete(&handle, until).await?;
                inlines.freed.notify_one();
                Ok(())
            }
            Ok(_) | Err(FindError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The pool's volume that an inline id speaks of.
    pub(super) async fn inline_id(&self, volume_id: &str) -> Result<VolumeId, FindError> {
        let inlines =
            self.inlines.as_ref().filter(|_| Inline::is_id(volume_id)).ok_or(FindError::NotFound)?;
        let until = Instant::now() + PATIENCE;
        let (id, _) = self.volumes.look_up(&inlines.place, inlines.key(volume_id), until).await?;
        Ok(id)
    }

    /// Removes what inline volumes leave, as long as the driver runs: their data at once, since nobody brings back a Pod's
    /// scratch, and now and then volumes whose Pod went without a word, with its node's disk for instance.
    pub async fn tidy(self) {
        let Some(inlines) = self.inlines.clone() else { return };
        loop {
            let mut next = Instant::now() + pause(random().unwrap_or_default());
            if let Err(status) = self.sweep(&inlines).await {
                tracing::warn!(why = status.message(), "leftover inline volumes can't be looked for now");
                next = Instant::now() + AGAIN;
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(next) => break,
                    () = inlines.late.notified() => next = next.min(Instant::now() + AGAIN),
                    () = inlines.freed.notified() => {
                        tokio::time::sleep(GATHER).await;
                        self.empty(&inlines.place).await;
                    }
                }
            }
        }
    }

    async fn empty(&self, place: &Place) {
        let emptied = self.volumes.backend().reap(place, None).await;
        if let Some(trouble) = emptied.map_or_else(Some, |reaped| reaped.trouble) {
            tracing::warn!(%trouble, "what inline volumes held can't be removed now");
        }
    }

    async fn sweep(&self, inlines: &InlineVolumes) -> Result<(), Status> {
        let mut after = None;
        loop {
            let until = Instant::now() + SWEEP;
            let page = self.volumes.page(&inlines.place, after, PAGE, until).await?;
            for volume in &page.volumes {
                let key = volume.record.key;
                after = Some(key);
                let ours = volume.record.scratch.as_ref().filter(|scratch| scratch.node == self.id);
                let Some(scratch) = ours else { continue };
                if is_left(Path::new(&scratch.target)).await {
                    tracing::info!(
                        volume = volume.record.name,
                        "removing an inline volume whose Pod is gone"
                    );
                    self.remove_inline(inlines, key, Instant::now() + SWEEP).await?;
                }
            }
            if !page.more {
                return Ok(());
            }
        }
    }
}

/// How long until the next look, by a number that was drawn: half of [`LOOK`] to one and a half, so that nodes which started
/// together don't go on asking together.
fn pause(drawn: [u8; 4]) -> Duration {
    LOOK.mul_f64(0.5 + f64::from(u32::from_ne_bytes(drawn)) / f64::from(u32::MAX))
}

/// Whether the kubelet has no directory for the volume any more. It makes one before it asks for the volume, and removes it
/// when it was told that the volume is unpublished.
async fn is_left(target: &Path) -> bool {
    let Some(parent) = target.parent() else { return false };
    matches!(tokio::fs::symlink_metadata(parent).await, Err(error) if error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_started_together_look_for_leftovers_at_times_of_their_own_about_once_a_day() {
        let hours = |drawn| pause(drawn).as_secs() / 3600;
        assert_eq!((hours([0; 4]), hours([255; 4])), (12, 36));
        assert!(pause([0, 0, 1, 0]) > pause([0; 4]));
    }
}
