//! A driver, and the sidecars and kubelet that ask it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kuration::client::Kubelet;
use kuration::csi::proto;
use kuration::csi::proto::controller_client::ControllerClient;
use kuration::csi::proto::node_client::NodeClient;
use kuration::csi::proto::{Volume, VolumeUsage, volume_usage};
use kuration::mount::table;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::common::{self, Driver, MIB, Mode, mounts_beneath};
use crate::server::Share;

/// What a claim and its class ask for.
#[derive(Clone)]
pub struct Order {
    pub name: String,
    pub bytes: i64,
    pub parameters: Vec<(String, String)>,
    pub mode: Mode,
    pub flags: Vec<String>,
}

impl Order {
    /// A volume of 64 MiB that many nodes may write to.
    pub fn new(name: &str, parameters: &[(impl AsRef<str>, impl AsRef<str>)]) -> Self {
        let owned =
            |(key, value): &(_, _)| (AsRef::<str>::as_ref(key).into(), AsRef::<str>::as_ref(value).into());
        Self {
            name: name.to_owned(),
            bytes: 64 * MIB,
            parameters: parameters.iter().map(owned).collect(),
            mode: Mode::MultiNodeMultiWriter,
            flags: Vec::new(),
        }
    }

    /// The same on a share.
    pub fn on(share: &Share, name: &str) -> Self {
        Self::new(name, &share.parameters())
    }

    /// With one more parameter.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.parameters.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With these mount options.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        self
    }

    /// In this access mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Of this size.
    pub fn bytes(mut self, bytes: i64) -> Self {
        self.bytes = bytes;
        self
    }

    fn capability(&self) -> proto::VolumeCapability {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        common::capability_with(self.mode, &flags)
    }

    fn parameters(&self) -> Vec<(&str, &str)> {
        self.parameters.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}

/// A driver and those who ask it.
pub struct Site {
    pub driver: Driver,
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    kubelet: Kubelet,
    node_id: String,
    /// How long each answer is waited for.
    pub patience: Duration,
}

impl Site {
    /// `kuration all` as node-1, for shares.
    pub async fn new(arguments: &[&str]) -> Self {
        Self::at("node-1", arguments).await
    }

    /// The same as another node.
    pub async fn at(node: &str, arguments: &[&str]) -> Self {
        Self::again(home(), node, arguments).await
    }

    /// `kuration controller`, which knows any node.
    pub async fn controller(arguments: &[&str]) -> Self {
        Self::of(Driver::start(home(), "controller", arguments, &[]), "node-1").await
    }

    /// `kuration all` in the home of one that ended.
    pub async fn again(home: TempDir, node: &str, arguments: &[&str]) -> Self {
        let all = [&["--node-id", node], arguments].concat();
        Self::of(Driver::start(home, "all", &all, &[]), node).await
    }

    /// Around a driver that runs.
    pub async fn of(driver: Driver, node: &str) -> Self {
        let kubelet = Kubelet::new(&driver.home.path().join("kubelet"), "nfs.csi.kuration.io");
        let (controller, node_id) = (driver.controller().await, node.to_owned());
        let node = driver.node().await;
        Self { driver, controller, node, kubelet, node_id, patience: Duration::from_secs(30) }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.patience);
        request
    }

    /// Where a volume is staged.
    pub fn staging(&self, volume: &Volume) -> PathBuf {
        self.kubelet.staging(&volume.volume_id)
    }

    /// Where a volume is published to a pod.
    pub fn target(&self, volume: &Volume, pod: &str) -> PathBuf {
        let key = volume.volume_id.rsplit('~').next().expect("a last part");
        self.kubelet.target(pod, key)
    }

    /// CreateVolume.
    pub async fn create(&self, order: &Order) -> Result<Volume, Status> {
        let mut request = common::create(&order.name, order.bytes, &order.parameters());
        request.volume_capabilities = vec![order.capability()];
        let answer = self.controller.clone().create_volume(self.request(request)).await?;
        Ok(answer.into_inner().volume.expect("a volume"))
    }

    /// DeleteVolume.
    pub async fn delete(&self, volume: &Volume) -> Result<(), Status> {
        let request =
            proto::DeleteVolumeRequest { volume_id: volume.volume_id.clone(), ..Default::default() };
        self.controller.clone().delete_volume(self.request(request)).await.map(drop)
    }

    /// ControllerPublishVolume to this site's node.
    pub async fn attach(&self, volume: &Volume, order: &Order) -> Result<(), Status> {
        self.attach_to(volume, order, &self.node_id).await
    }

    /// The same to another node.
    pub async fn attach_to(&self, volume: &Volume, order: &Order, node: &str) -> Result<(), Status> {
        self.attach_as(volume, order, node, false).await.map(drop)
    }

    /// The same with the request's `readonly`: the publish context.
    pub async fn attach_as(
        &self,
        volume: &Volume,
        order: &Order,
        node: &str,
        readonly: bool,
    ) -> Result<HashMap<String, String>, Status> {
        let request = proto::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node.to_owned(),
            readonly,
            volume_capability: Some(order.capability()),
            volume_context: volume.volume_context.clone(),
            ..Default::default()
        };
        let answer = self.controller.clone().controller_publish_volume(self.request(request)).await?;
        Ok(answer.into_inner().publish_context)
    }

    /// ControllerUnpublishVolume from this site's node.
    pub async fn detach(&self, volume: &Volume) -> Result<(), Status> {
        self.detach_from(volume, &self.node_id).await
    }

    /// The same from another node.
    pub async fn detach_from(&self, volume: &Volume, node: &str) -> Result<(), Status> {
        let request = proto::ControllerUnpublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node.to_owned(),
            ..Default::default()
        };
        self.controller.clone().controller_unpublish_volume(self.request(request)).await.map(drop)
    }

    /// ControllerGetVolume: the nodes that have the volume.
    pub async fn nodes(&self, volume: &Volume) -> Result<Vec<String>, Status> {
        let request = proto::ControllerGetVolumeRequest { volume_id: volume.volume_id.clone() };
        let answer = self.controller.clone().controller_get_volume(self.request(request)).await?.into_inner();
        Ok(answer.status.expect("a status").published_node_ids)
    }

    /// ListVolumes: their ids.
    pub async fn list(&self) -> Result<Vec<String>, Status> {
        let request = self.request(proto::ListVolumesRequest::default());
        let answer = self.controller.clone().list_volumes(request).await?.into_inner();
        Ok(answer.entries.into_iter().map(|entry| entry.volume.expect("a volume").volume_id).collect())
    }

    /// GetCapacity for a class, in bytes.
    pub async fn capacity(&self, parameters: &[(&str, &str)]) -> Result<i64, Status> {
        let request = proto::GetCapacityRequest { parameters: common::map(parameters), ..Default::default() };
        let answer = self.controller.clone().get_capacity(self.request(request)).await?;
        Ok(answer.into_inner().available_capacity)
    }

    /// ControllerExpandVolume: the volume's size afterwards.
    pub async fn expand(&self, volume: &Volume, required: i64, limit: i64) -> Result<i64, Status> {
        let range = proto::CapacityRange { required_bytes: required, limit_bytes: limit };
        let request = proto::ControllerExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            capacity_range: Some(range),
            ..Default::default()
        };
        let answer =
            self.controller.clone().controller_expand_volume(self.request(request)).await?.into_inner();
        assert!(answer.node_expansion_required, "the node confirms what it sees");
        Ok(answer.capacity_bytes)
    }

    /// NodeExpandVolume: the size that the node sees.
    pub async fn node_expand(&self, volume: &Volume, path: &Path, required: i64) -> Result<i64, Status> {
        let range = proto::CapacityRange { required_bytes: required, limit_bytes: 0 };
        let request = proto::NodeExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            volume_path: wire(path),
            capacity_range: Some(range),
            ..Default::default()
        };
        Ok(self.node.clone().node_expand_volume(self.request(request)).await?.into_inner().capacity_bytes)
    }

    /// NodeStageVolume; the kubelet has made the directory.
    pub async fn stage(&self, volume: &Volume, order: &Order) -> Result<PathBuf, Status> {
        self.stage_as(volume, order, HashMap::new()).await
    }

    /// The same with what ControllerPublishVolume answered.
    pub async fn stage_as(
        &self,
        volume: &Volume,
        order: &Order,
        publish_context: HashMap<String, String>,
    ) -> Result<PathBuf, Status> {
        let staging = self.staging(volume);
        fs::create_dir_all(&staging).expect("the kubelet's directory");
        let mut request = common::stage(volume, &staging, order.mode);
        (request.volume_capability, request.publish_context) = (Some(order.capability()), publish_context);
        self.node.clone().node_stage_volume(self.request(request)).await?;
        Ok(staging)
    }

    /// NodeUnstageVolume; the kubelet removes its directory afterwards, which must be empty and no mount.
    pub async fn unstage(&self, volume: &Volume) -> Result<(), Status> {
        let staging = self.staging(volume);
        let (volume_id, staging_target_path) = (volume.volume_id.clone(), wire(&staging));
        let request = proto::NodeUnstageVolumeRequest { volume_id, staging_target_path };
        self.node.clone().node_unstage_volume(self.request(request)).await?;
        fs::remove_dir(&staging).expect("an empty directory, mounted nowhere");
        Ok(())
    }

    /// NodePublishVolume to a pod.
    pub async fn publish(&self, volume: &Volume, order: &Order, pod: &str) -> Result<PathBuf, Status> {
        self.publish_as(volume, order, pod, false).await
    }

    /// The same, with the request's `readonly`.
    pub async fn publish_as(
        &self,
        volume: &Volume,
        order: &Order,
        pod: &str,
        readonly: bool,
    ) -> Result<PathBuf, Status> {
        let target = self.target(volume, pod);
        fs::create_dir_all(target.parent().expect("a parent")).expect("the kubelet's directory");
        let mut request = common::node_publish(volume, &self.staging(volume), &target, order.mode);
        (request.volume_capability, request.readonly) = (Some(order.capability()), readonly);
        self.node.clone().node_publish_volume(self.request(request)).await?;
        Ok(target)
    }

    /// NodeUnpublishVolume; the target must be gone afterwards.
    pub async fn unpublish(&self, volume: &Volume, pod: &str) -> Result<(), Status> {
        let target = self.target(volume, pod);
        let (volume_id, target_path) = (volume.volume_id.clone(), wire(&target));
        let request = proto::NodeUnpublishVolumeRequest { volume_id, target_path };
        self.node.clone().node_unpublish_volume(self.request(request)).await?;
        assert!(fs::symlink_metadata(&target).is_err(), "the target is gone");
        Ok(())
    }

    /// NodeGetVolumeStats: bytes.
    pub async fn stats(&self, volume: &Volume, path: &Path) -> Result<VolumeUsage, Status> {
        let request = proto::NodeGetVolumeStatsRequest {
            volume_id: volume.volume_id.clone(),
            volume_path: wire(path),
            ..Default::default()
        };
        let answer = self.node.clone().node_get_volume_stats(self.request(request)).await?.into_inner();
        Ok(answer.usage.into_iter().find(|usage| usage.unit() == volume_usage::Unit::Bytes).expect("bytes"))
    }

    /// Create, attach, stage and publish to the pod "pod": the volume and the pod's path.
    pub async fn up(&self, order: &Order) -> (Volume, PathBuf) {
        let volume = self.create(order).await.unwrap();
        self.attach(&volume, order).await.unwrap();
        self.stage(&volume, order).await.unwrap();
        let target = self.publish(&volume, order, "pod").await.unwrap();
        (volume, target)
    }

    /// The reverse of [`Site::up`].
    pub async fn down(&self, volume: &Volume) {
        self.unpublish(volume, "pod").await.unwrap();
        self.unstage(volume).await.unwrap();
        self.detach(volume).await.unwrap();
        self.delete(volume).await.unwrap();
    }

    /// The mount at a path.
    pub fn mount_at(&self, path: &Path) -> table::Entry {
        let table = table::read().expect("a mount table");
        table::at(&table, path).unwrap_or_else(|| panic!("nothing is mounted at {}", path.display())).clone()
    }

    /// What this driver has mounted.
    pub fn mounts(&self) -> Vec<PathBuf> {
        mounts_beneath(self.driver.home.path())
    }

    /// The numbers of its children.
    pub fn children(&self) -> Vec<i32> {
        let parent = i32::try_from(self.driver.pid()).expect("a number");
        let children = processes().into_iter().filter(|process| process.parent == parent);
        children.map(|process| process.pid).collect()
    }
}

/// A home for a driver, that pods' users can walk through.
pub fn home() -> TempDir {
    let home = tempfile::tempdir().expect("a directory");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("opened to all");
    home
}

/// A path as requests carry it.
pub fn wire(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A process.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub name: String,
    /// As in /proc/PID/stat.
    pub state: char,
}

/// All processes.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries.filter_map(|entry| process(&entry.file_name())).collect()
}

fn process(number: &OsStr) -> Option<Process> {
    number.to_str()?.parse::<i32>().ok()?;
    process_at(&Path::new("/proc").join(number).join("stat"))
}

fn process_at(stat: &Path) -> Option<Process> {
    let stat = fs::read_to_string(stat).ok()?;
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let (pid, parent) = (pid.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Process { pid, parent, name: name.to_owned(), state })
}

/// Threads of the driver, its children and a test's writer that are in an uninterruptible wait, or dead and not buried. A
/// process as a whole has the state of its first thread, which is not the one that touches a mount.
pub fn stuck() -> Vec<Process> {
    let mut ours = processes();
    // A child is started as /proc/self/exe.
    ours.retain(|process| ["kuration", "exe", "dd"].contains(&process.name.as_str()));
    let threads = ours.iter().flat_map(|process| {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten();
        tasks.filter_map(Result::ok).filter_map(|task| process_at(&task.path().join("stat")))
    });
    threads.filter(|thread| matches!(thread.state, 'D' | 'Z')).collect()
}

/// The servers of the NFS file systems that this host has mounted, attached to a path or not: their addresses, in hexadecimal.
fn servers() -> Vec<String> {
    let volumes = fs::read_to_string("/proc/fs/nfsfs/volumes").unwrap_or_default();
    volumes.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
}

/// How many NFS file systems this host has mounted.
pub fn superblocks() -> usize {
    servers().len()
}

/// Whether one of them is of the server at `address`, of IPv4.
pub fn is_mounted_from(address: &str) -> bool {
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    servers().contains(&format!("{:08x}", address.to_bits()))
}

/// Waits until something is so, for up to half a minute.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    until_none(what, || (!so()).then_some(()));
}

/// Waits until nobody of ours is stuck; else says who is.
pub fn nobody_is_stuck() {
    until_none("no process is stuck", || Some(stuck()).filter(|stuck| !stuck.is_empty()));
}

fn until_none<T: std::fmt::Debug>(what: &str, mut in_the_way: impl FnMut() -> Option<T>) {
    let began = Instant::now();
    while let Some(still) = in_the_way() {
        assert!(began.elapsed() < Duration::from_secs(30), "not in time: {what}: {still:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks again, as sidecars and kubelet do, until the answer is a success, for up to half a minute.
pub async fn retried<T>(mut ask: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(status) if began.elapsed() > Duration::from_secs(30) => panic!("still after 30 s: {status}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
}

/// An answer and the time it took.
pub async fn timed<T>(answer: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let answer = answer.await;
    (answer, began.elapsed())
}

/// Writes this many MiB to a file as this user, a process of its own, down to the server's disk. An error is the kernel's
/// words.
pub fn write_as(user: u32, file: &Path, mebibytes: u32) -> Result<(), String> {
    let done = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "conv=fsync", "status=none"])
        .arg(format!("of={}", file.display()))
        .arg(format!("count={mebibytes}"))
        .env("LC_ALL", "C")
        .uid(user)
        .gid(user)
        .output()
        .expect("dd starts");
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}
