//! The story itself: there, and back.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::driver::{Backend, Driver, IMAGE, log_tail};
use super::namespace::Standing;
use super::place::Place;
use super::pod::{self, Pod};
use super::show::{Failed, Surroundings, size};
use super::{SIZE, Trial};
use crate::client::{Client, Kubelet, Life};

/// The size that the volume grows to.
const GROWN: u64 = 2 * SIZE;
/// What is written: more than fits at first, less than fits at last.
const WRITTEN: u64 = SIZE + SIZE / 4;

impl Trial {
    /// Up to a volume that two pods use. Stops at the first failure.
    pub(super) async fn forward(&mut self) -> Result<(), Failed> {
        let client = self.start().await?;
        if matches!(self.backend, Backend::Share(_)) {
            self.versions(&client).await?;
        }
        let plugin = client.plugin().clone();
        let life = self.life.insert(Life::new(client, self.kubelet.clone(), self.order.clone()));
        let teller = &mut self.teller;

        let creating = async {
            let given = said(life.create().await)?;
            let id = life.id().unwrap_or_default();
            Ok(((), format!("{}, id {id}", if given == 0 { "no size told".to_owned() } else { size(given) })))
        };
        teller.step("create", creating).await?;
        if plugin.attach {
            teller
                .step("publish", async {
                    said(life.publish().await).map(|()| told("ControllerPublishVolume"))
                })
                .await?;
        }
        if plugin.stage {
            teller
                .step("stage", async {
                    said(life.stage().await).map(|()| told("NodeStageVolume, once for all its pods"))
                })
                .await?;
        }
        let publishing = async {
            let target = said(life.node_publish().await)?;
            Ok((target, Self::mounted_as(life)))
        };
        let target = teller.step("node-publish", publishing).await?;

        // Outside a user namespace there are other users than root, and a pod is mostly one of them.
        let uid = (self.standing == Standing::Root).then_some(1000);
        let at_work = Arc::clone(&self.at_work);
        let first = Pod::new(&target, uid, &at_work);
        let who = uid.map_or(String::new(), |uid| format!(", as user {uid}"));
        let writing =
            async { said(first.write("from-the-first").await).map(|()| ((), format!("1 MiB{who}"))) };
        teller.step("write", writing).await?;
        if matches!(self.backend, Backend::Share(_)) {
            let root = Pod::new(&target, None, &at_work);
            self.squash(&root).await?;
            self.abilities(&root, "from-the-first").await?;
        }
        let Some(life) = &mut self.life else { return Ok(()) };
        let teller = &mut self.teller;
        if plugin.stats {
            let asking = async {
                let usage = said(life.stats(&target).await)?.unwrap_or_default();
                // Where no limit is enforced, the figures may be those of all that the volume lies on.
                let whole = if usage.total > GROWN { " (of the whole file system)" } else { "" };
                let detail = format!(
                    "{}, {} used, {} left{whole}",
                    size(usage.total),
                    size(usage.used),
                    size(usage.available)
                );
                Ok(((), detail))
            };
            teller.step("stats", asking).await?;
        }
        if self.limits {
            teller.step("fill", over_the_limit(&first)).await?;
        }
        if plugin.expand || plugin.node_expand {
            let expanding = async {
                let given = said(life.expand(GROWN, &target).await)?;
                if given < GROWN {
                    return Err(format!("it is {} now, and {} was asked for", size(given), size(GROWN)));
                }
                Ok(((), format!("from {} to {}, while the pod uses it", size(SIZE), size(given))))
            };
            teller.step("expand", expanding).await?;
            if self.limits {
                teller.step("fill-again", under_the_limit(&first)).await?;
            }
        }
        let joining = async {
            let second = Pod::new(&said(life.node_publish().await)?, uid, &at_work);
            said(second.read("from-the-first").await)?;
            said(second.write("from-the-second").await)?;
            said(first.read("from-the-second").await)?;
            Ok(((), "each reads what the other wrote (ReadWriteMany)".to_owned()))
        };
        teller.step("second-consumer", joining).await
    }

    /// The driver, serving. A pool gets a file system of its own if this machine can make one; if the driver can't use it
    /// after all, the next best is a plain directory.
    async fn start(&mut self) -> Result<Client, Failed> {
        let (backend, limits) = self.choose_backend();
        self.limits = limits;
        self.teller.open(self.surroundings(&backend));
        self.backend = backend;
        let Self { teller, place, backend, driver, limits, log, .. } = self;
        let starting = async {
            let mut fallen_back = String::new();
            loop {
                let driver = driver.insert(said(Driver::start(place, backend, log.as_deref()))?);
                let error = match driver.client(place).await {
                    Ok(client) => {
                        let plugin = client.plugin();
                        return Ok((
                            client.clone(),
                            format!("{} {}{fallen_back}", plugin.name, plugin.version),
                        ));
                    }
                    Err(error) => error,
                };
                driver.kill().await;
                if !matches!(backend, Backend::Pool { image: true }) {
                    return Err(error.to_string());
                }
                *backend = Backend::Pool { image: false };
                *limits = false;
                let last = log_tail(place, 1).pop().unwrap_or_default();
                fallen_back = format!("\nin a plain directory: with --pool-image, {error}\n{last}");
            }
        };
        let client = teller.step("start", starting).await?;
        self.teller.correct(self.surroundings(&self.backend));
        self.kubelet = Kubelet::new(&self.place.kubelet(), &client.plugin().name);
        self.pool_before = contents(&self.place.pool());
        Ok(client)
    }

    fn choose_backend(&self) -> (Backend, bool) {
        if let Some(export) = &self.server {
            return (Backend::Share(export.clone()), false);
        }
        let directories = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"];
        let is_there = |program| directories.iter().any(|d| fs::metadata(format!("{d}/{program}")).is_ok());
        let image = self.standing == Standing::Root && (is_there("mkfs.btrfs") || is_there("mkfs.xfs"));
        (Backend::Pool { image }, image)
    }

    fn surroundings(&self, backend: &Backend) -> Surroundings {
        let pool = self.place.pool();
        let backend = match backend {
            Backend::Pool { image: true } => {
                format!("a file system of {IMAGE} in {}: limits are real", pool.display())
            }
            Backend::Pool { image: false } => {
                let limits = match self.standing {
                    Standing::Root => "tried (that needs mkfs.btrfs or mkfs.xfs, and a loop device)",
                    Standing::User { .. } => "enforced (that needs root)",
                };
                format!("the directory {}: limits are not {limits}", pool.display())
            }
            Backend::Share(export) => format!("on {export}"),
        };
        let standing = match self.standing {
            Standing::Root => "root, in a mount namespace of its own".to_owned(),
            Standing::User { uid } => format!("user {uid}, in a user and mount namespace of its own"),
        };
        Surroundings { backend, standing }
    }

    /// Back to nothing. Every step is taken, whatever became of the one before it, and only what was done is undone.
    pub(super) async fn backward(&mut self) {
        pod::all_done(&self.at_work).await;
        let Self { teller, life, kubelet, .. } = self;
        if let Some(life) = life {
            // A step that fails was told, and is the verdict's; here it must not keep the next from being tried.
            if !life.targets().is_empty() {
                let leaving = async {
                    let mut left = 0;
                    while said(life.node_unpublish().await)? {
                        left += 1;
                    }
                    Ok(((), if left == 1 { "one pod".to_owned() } else { format!("{left} pods") }))
                };
                teller.step("node-unpublish", leaving).await.unwrap_or_default();
            }
            if life.is_staged() {
                teller
                    .step("unstage", async { said(life.unstage().await).map(|()| told("NodeUnstageVolume")) })
                    .await
                    .unwrap_or_default();
            }
            if life.is_published() {
                let unpublishing =
                    async { said(life.unpublish().await).map(|()| told("ControllerUnpublishVolume")) };
                teller.step("unpublish", unpublishing).await.unwrap_or_default();
            }
            if life.is_created() {
                teller
                    .step("delete", async { said(life.delete().await).map(|()| told("DeleteVolume")) })
                    .await
                    .unwrap_or_default();
                teller
                    .step("nothing-left", nothing_left(&self.place, &self.pool_before, kubelet, life))
                    .await
                    .unwrap_or_default();
            }
        }
        let Some(driver) = &mut self.driver else { return };
        if teller.failed().is_none_or(|failed| failed.step != "start") {
            // The driver empties its trash once a second here; on the person's own server nothing should stay in it.
            if matches!(self.backend, Backend::Share(_)) {
                tokio::time::sleep(Duration::from_millis(2500)).await;
            }
            let stopping =
                async { driver.stop(&self.place).await.map(|()| told("SIGTERM, exit 0, socket gone")) };
            teller.step("stop", stopping).await.unwrap_or_default();
        }
    }

    /// Ends the driver in any case and removes the temporary place.
    pub(super) async fn clean(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.kill().await;
        }
        let Self { teller, place, .. } = self;
        let sweeping = async { said(place.sweep()).map(|()| told("")) };
        teller.step("clean", sweeping).await.unwrap_or_default();
    }
}

async fn over_the_limit(pod: &Pod) -> Result<((), String), String> {
    let filled = said(pod.fill("large", WRITTEN).await)?;
    match filled.refused {
        Some(error) if matches!(error.kind(), io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull) => {
            Ok(((), format!("refused after {}: {error}", size(filled.size))))
        }
        Some(error) => Err(format!("stopped after {}, but not by the limit: {error}", size(filled.size))),
        None => Err(format!("{} fitted into a volume of {}", size(filled.size), size(SIZE))),
    }
}

async fn under_the_limit(pod: &Pod) -> Result<((), String), String> {
    let filled = said(pod.fill("large", WRITTEN).await)?;
    match filled.refused {
        None => Ok(((), format!("{} fit now", size(filled.size)))),
        Some(error) => Err(format!("refused after {} of {}: {error}", size(filled.size), size(WRITTEN))),
    }
}

/// What lies in a pool, wherever below its directory the pool's file system begins. Names with a dot are Kuration's own;
/// deleted volumes wait there for their end.
fn contents(pool: &Path) -> BTreeSet<PathBuf> {
    let entries = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let plain = entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        plain.map(|entry| entry.path()).collect::<BTreeSet<_>>()
    };
    let mut found = entries(pool);
    found.extend(entries(pool).iter().flat_map(|path| entries(path)).collect::<Vec<_>>());
    found
}

/// That the volume is gone wherever it was: mounts, the kubelet's directories, the driver's records, the pool.
async fn nothing_left(
    place: &Place,
    before: &BTreeSet<PathBuf>,
    kubelet: &Kubelet,
    life: &Life,
) -> Result<((), String), String> {
    let mut left: Vec<String> =
        Place::mounts(kubelet.root()).iter().map(|mount| format!("the mount {mount}")).collect();
    for entry in fs::read_dir(kubelet.root()).into_iter().flatten().flatten() {
        left.push(format!("the kubelet's {}", entry.path().display()));
    }
    for path in contents(&place.pool()).difference(before) {
        left.push(format!("the pool's {}", path.display()));
    }
    if let Some(id) = life.id()
        && said(life.client().knows(id).await)? == Some(true)
    {
        left.push(format!("the driver's record of {id}"));
    }
    if left.is_empty() {
        Ok(((), "no mount, no directory, no record".to_owned()))
    } else {
        Err(format!("left behind: {}", left.join(", ")))
    }
}

fn told(detail: &str) -> ((), String) {
    ((), detail.to_owned())
}

/// An error as its words.
fn said<T, E: std::fmt::Display>(outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|error| error.to_string())
}
