//! The kubelet's part: where a volume is staged and published, and the directories it makes and removes there.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ClientError;
use crate::mount::table;

/// A line of the mount table.
pub type Mounted = table::Entry;

/// A kubelet's directory: `/var/lib/kubelet`, or one in a temporary place that looks like it.
#[derive(Debug, Clone)]
pub struct Kubelet {
    root: PathBuf,
    driver: String,
}

impl Kubelet {
    /// The directory `root`, for volumes of the driver of this name.
    pub fn new(root: &Path, driver: &str) -> Self {
        Self { root: root.to_owned(), driver: driver.to_owned() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a volume is staged: once per node, under the hash of its id.
    pub fn staging(&self, volume_id: &str) -> PathBuf {
        let hash: String = Sha256::digest(volume_id).iter().map(|byte| format!("{byte:02x}")).collect();
        self.root.join("plugins/kubernetes.io/csi").join(&self.driver).join(hash).join("globalmount")
    }

    /// Where a volume is published to one pod.
    pub fn target(&self, pod: &str, volume: &str) -> PathBuf {
        self.root.join("pods").join(pod).join("volumes/kubernetes.io~csi").join(volume).join("mount")
    }

    /// Makes a directory and those above it, as open as the kubelet makes them.
    pub(super) fn make(&self, path: &Path) -> Result<(), ClientError> {
        DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(|error| at(path, &error))
    }

    /// Removes an empty directory and what that leaves empty above it, up to the kubelet's own.
    ///
    /// Never more than `rmdir`: what is not empty, or still a mount, belongs to somebody and stays.
    pub(super) fn clear(&self, path: &Path) {
        for directory in path.ancestors().take_while(|d| d.starts_with(&self.root) && *d != self.root) {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return,
                _ => {}
            }
        }
    }
}

/// A local error with the path it is about.
pub(super) fn at(path: &Path, error: &io::Error) -> ClientError {
    ClientError::Path { path: path.to_owned(), reason: error.to_string() }
}

/// A random UUID, as pods and claims have one.
pub fn uuid() -> String {
    let mut bits = [0; 16];
    // 16 bytes come at once and whole, or the kernel has no getrandom(2), which was before any NFS 4.2.
    rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    bits[6] = bits[6] & 0x0f | 0x40;
    bits[8] = bits[8] & 0x3f | 0x80;
    let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The mounts at or beneath `root` in the mount namespace of a process (`self` or its number), in the order in which they
/// were made.
pub fn mounts_beneath(process: &str, root: &Path) -> io::Result<Vec<table::Entry>> {
    let mut entries = table::parse(&fs::read(format!("/proc/{process}/mountinfo"))?);
    entries.retain(|entry| entry.target.starts_with(root));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_kubelets() {
        let kubelet = Kubelet::new(Path::new("/var/lib/kubelet"), "nfs.csi.kuration.io");
        let hash = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        let staging =
            format!("/var/lib/kubelet/plugins/kubernetes.io/csi/nfs.csi.kuration.io/{hash}/globalmount");
        assert_eq!(kubelet.staging("a"), Path::new(&staging));
        let target = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pvc-1/mount";
        assert_eq!(kubelet.target("u", "pvc-1"), Path::new(target));
    }

    #[test]
    fn clearing_stops_at_what_is_not_empty() {
        let root = tempfile::tempdir().unwrap();
        let kubelet = Kubelet::new(root.path(), "d");
        let (one, other) = (root.path().join("a/b/c"), root.path().join("a/x"));
        kubelet.make(&one).unwrap();
        kubelet.make(&other).unwrap();
        kubelet.clear(&one);
        assert!(other.exists() && !root.path().join("a/b").exists());
        kubelet.clear(&other);
        assert!(root.path().exists() && !root.path().join("a").exists());
    }

    #[test]
    fn the_root_has_mounts_beneath_it() {
        assert!(!mounts_beneath("self", Path::new("/")).unwrap().is_empty());
        assert!(mounts_beneath("self", Path::new("/nowhere")).unwrap().is_empty());
    }

    #[test]
    fn uuids_look_like_it_and_differ() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        assert!(one.len() == 36 && one.as_bytes()[14] == b'4', "{one}");
    }
}
