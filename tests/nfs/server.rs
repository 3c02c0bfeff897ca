//! The NFS server that the tests break, and what they do behind the driver's back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Its address.
pub const ADDRESS: &str = "127.0.0.1";

/// Runs a program to its end.
pub fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().expect("the program starts");
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {words}");
}

/// `tests/guest/nfsd ARGUMENTS`.
pub fn nfsd(arguments: &[&str]) {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    run(&Path::new(&root).join("tests/guest/nfsd").to_string_lossy(), arguments);
}

/// Whether an outage was made since this host's client was last seen to be well.
static DISTURBED: AtomicBool = AtomicBool::new(false);

/// Waits until the client has got over the outages of earlier tests: where a connection was lost, it is not tried at once.
fn calm() {
    if !DISTURBED.swap(false, Ordering::Relaxed) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_string_lossy();
    run("mount", &["-t", "nfs4", "-o", "vers=4.2", &format!("{ADDRESS}:/tmpfs"), &path]);
    run("umount", &[&path]);
}

/// Waits, within reason, until the mounts of drivers that ended are gone. To remove a file makes the server call its delegation
/// back from the client; where that call is answered while the client's last mount goes, Linux 7.2 waits for itself
/// (nfs4_callback_compound, nfs_put_client, nfs_callback_down), and no NFS 4 mount works on this host any more.
fn forgotten() {
    let until = Instant::now() + Duration::from_secs(5);
    while super::site::superblocks() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A directory of an export that one test has for itself, as it would an export. Removed when dropped.
pub struct Share {
    /// What clients call it.
    pub share: String,
    /// Where it is on the server.
    pub path: PathBuf,
}

impl Share {
    /// A new one on the export of this name (see `tests/guest/nfsd`).
    pub fn on(export: &str) -> Self {
        calm();
        let name = kuration::client::uuid();
        let name = name.split('-').next().expect("a first part");
        let path = Path::new("/srv").join(export).join(name);
        // Made behind the client's back, as all servers' directories are.
        fs::create_dir(&path).expect("made on the server");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("opened to all");
        Self { share: format!("/{export}/{name}"), path }
    }

    /// The parameters that name it.
    pub fn parameters(&self) -> [(&str, &str); 2] {
        [("server", ADDRESS), ("share", &self.share)]
    }

    /// As `--share` has it.
    pub fn flag(&self) -> String {
        format!("{ADDRESS}:{}", self.share)
    }

    /// The names at its top, without Kuration's own.
    pub fn directories(&self) -> Vec<String> {
        let mut names = crate::common::listing(&self.path);
        names.retain(|name| name != ".kuration");
        names
    }

    /// What lies in a part of an installation's tree.
    pub fn part(&self, installation: &str, part: &str) -> Vec<String> {
        let path = self.path.join(".kuration/installations").join(installation).join(part);
        if path.exists() { crate::common::listing(&path) } else { Vec::new() }
    }

    /// The keys of all volumes.
    pub fn volumes(&self) -> Vec<String> {
        self.part("default", "volumes")
    }

    /// What lies in the trash: a directory and a record for each volume.
    pub fn trash(&self) -> Vec<String> {
        self.part("default", "trash")
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        forgotten();
        fs::remove_dir_all(&self.path).ok();
    }
}

/// The server swallows what it is sent, until this is dropped.
pub struct Silence;

impl Silence {
    pub fn begin() -> Self {
        DISTURBED.store(true, Ordering::Relaxed);
        nfsd(&["drop"]);
        Self
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        nfsd(&["undrop"]);
    }
}

/// The server refuses connections, until this is dropped.
pub struct Stopped;

impl Stopped {
    pub fn begin() -> Self {
        DISTURBED.store(true, Ordering::Relaxed);
        nfsd(&["stop"]);
        Self
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        nfsd(&["start"]);
        nfsd(&["end-grace"]);
    }
}

/// No status monitor runs on this host, until this is dropped.
pub struct WithoutStatd;

impl WithoutStatd {
    pub fn begin() -> Self {
        let monitor = super::site::processes().into_iter().find(|process| process.name == "rpc.statd");
        let monitor = nix::unistd::Pid::from_raw(monitor.expect("tests/guest/nfsd started it").pid);
        nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGTERM).expect("signalled");
        super::site::until("rpc.statd ends", || {
            super::site::processes().iter().all(|p| p.name != "rpc.statd")
        });
        Self
    }
}

impl Drop for WithoutStatd {
    fn drop(&mut self) {
        run("rpc.statd", &["--no-notify"]);
    }
}

/// An export of its own on a memory file system that can be exchanged.
pub struct Exchangeable {
    name: String,
    /// Where it is on the server.
    pub path: PathBuf,
}

impl Exchangeable {
    /// A new one, exported under this file system number.
    pub fn new(fsid: u32) -> Self {
        calm();
        let name = format!("x{fsid}");
        let path = Path::new("/srv").join(&name);
        fs::create_dir_all(&path).expect("made on the server");
        let this = Self { name, path };
        this.insert();
        this.export(fsid, "rw");
        this
    }

    /// Small, so that it is soon full.
    const SIZE: &str = "size=8m,mode=0755";

    /// The parameters that name it.
    pub fn parameters(&self) -> [(String, String); 2] {
        [("server".into(), ADDRESS.into()), ("share".into(), format!("/{}", self.name))]
    }

    fn insert(&self) {
        run("mount", &["-t", "tmpfs", "-o", Self::SIZE, "tmpfs", &self.path.to_string_lossy()]);
    }

    /// Exports it, also over what it is exported as, with `rw` or `ro`.
    pub fn export(&self, fsid: u32, access: &str) {
        let options = format!("{access},no_root_squash,insecure,no_subtree_check,fsid={fsid}");
        run("exportfs", &["-o", &options, &format!("*:/{}", self.name)]);
    }

    fn withdraw(&self) {
        run("exportfs", &["-u", &format!("*:/{}", self.name)]);
    }

    /// Leaves no room on it, until the file that this gives back is removed.
    pub fn fill(&self) -> PathBuf {
        let path = self.path.join("filler");
        let mut file = fs::File::create(&path).expect("made on the server");
        std::io::copy(&mut std::io::repeat(1), &mut file).expect_err("full at last");
        path
    }

    /// The server comes back with another, empty file system at the path, under the same number.
    pub fn exchange(&self, fsid: u32) {
        let stopped = Stopped::begin();
        self.withdraw();
        run("umount", &[&self.path.to_string_lossy()]);
        self.insert();
        self.export(fsid, "rw");
        drop(stopped);
    }

    /// The server comes back with the same files under another number.
    pub fn renumber(&self, fsid: u32) {
        let stopped = Stopped::begin();
        self.withdraw();
        self.export(fsid, "rw");
        drop(stopped);
    }
}

impl Drop for Exchangeable {
    fn drop(&mut self) {
        forgotten();
        Command::new("exportfs").args(["-u", &format!("*:/{}", self.name)]).output().ok();
        // Clients may hold it for a while.
        nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}
