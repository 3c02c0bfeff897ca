//! A volume's files, and how they are shown at a path of this node.

use std::path::Path;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::Node;
use super::ask::Source;
use crate::backend::Local;
use crate::mount::linux;
use crate::mount::table::{self, Entry};
use crate::plan::{self, Origin};
use crate::telemetry::MountResult;
use crate::volume::{Attributes, MountOptions, SecretOptions};

/// Where a volume's files are.
pub enum Files {
    /// On this machine.
    Here(Box<Local>),
    /// On a server.
    There(Source),
}

impl Files {
    /// The same in the terms of the mount table.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Here(local) => local.origin.clone(),
            Self::There(source) => Origin::Nfs(source.export.source(&source.path)),
        }
    }
}

/// How they are mounted.
pub struct Manner {
    /// For the kernel, behind those of the source.
    pub options: MountOptions,
    /// Behind all others.
    pub secret: SecretOptions,
    /// What the mount itself keeps.
    pub attributes: Attributes,
}

impl Node {
    /// Mounts `files` at `target`, an empty directory.
    pub(super) async fn show(
        &self,
        files: Files,
        target: &Path,
        manner: &Manner,
        deadline: Instant,
    ) -> Result<(), Status> {
        let done = match files {
            Files::Here(local) => self.bind_local(*local, target, manner.attributes, deadline).await,
            Files::There(source) => {
                let options = self.defaults.and(&source.options).and(&manner.options);
                let options = (&options, &manner.secret);
                let (path, read_only) = (source.path.as_str(), manner.attributes.read_only);
                let stage = self.mounter.stage(&source.export, path, options, read_only, target, deadline);
                stage.await.map(|_| ()).map_err(Status::from)
            }
        };
        self.count(&done);
        done
    }

    /// Refuses what would be mounted with another label than the share's volume has that is mounted at `target`. Of a secret's
    /// options no message may tell.
    pub(super) fn check_label(
        &self,
        files: &Files,
        (target, table): (&Path, &[Entry]),
        options: &MountOptions,
        secret: &SecretOptions,
    ) -> Result<(), Status> {
        let Files::There(source) = files else { return Ok(()) };
        let options = self.defaults.and(&source.options).and(options);
        let entry = table::at(table, target).filter(|_| secret.is_empty());
        match entry.and_then(|entry| plan::other_label(entry, options.label())) {
            Some(what) => Err(Status::already_exists(format!("{}: {what}", target.display()))),
            None => Ok(()),
        }
    }

    /// A pool's volume is a directory of this machine: nothing can hang, so no child is needed.
    async fn bind_local(
        &self,
        local: Local,
        target: &Path,
        attributes: Attributes,
        deadline: Instant,
    ) -> Result<(), Status> {
        self.mounter.check(target, deadline).await?;
        let target = target.to_owned();
        let bound =
            tokio::task::spawn_blocking(move || linux::bind_directory(&local.directory, &target, attributes));
        match bound.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) => {
                Err(Status::internal(format!("the volume's directory can't be bound: {errno}")))
            }
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    /// Counts what came of a mount.
    pub(super) fn count(&self, mounted: &Result<(), Status>) {
        self.metrics.mounted(match mounted {
            Ok(()) => MountResult::Mounted,
            Err(status) if status.code() == Code::DeadlineExceeded => MountResult::TimedOut,
            Err(_) => MountResult::Refused,
        });
    }
}
