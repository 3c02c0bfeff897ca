//! A second host.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::Driver;
use crate::server::run;
use crate::site::{Site, home, is_mounted_from, processes};

/// A second host: a driver in a network and a host name of its own, whose NFS client shares nothing with this one's.
/// To be dropped behind every driver that reaches the server by [`HERE`], for the cable goes with it.
pub struct OtherHost(Option<Site>);

/// This host's address on the cable between the two.
pub const HERE: &str = "10.77.0.1";

impl OtherHost {
    /// `kuration all` there, as node-2.
    pub async fn new(arguments: &[&str]) -> Self {
        Self::start("all", &[&["--node-id", "node-2"], arguments].concat()).await
    }

    /// `kuration controller` there.
    pub async fn controller(arguments: &[&str]) -> Self {
        Self::start("controller", arguments).await
    }

    async fn start(role: &str, arguments: &[&str]) -> Self {
        let driver = std::thread::scope(|scope| {
            let start = || {
                let own = nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_NEWUTS;
                nix::sched::unshare(own).unwrap();
                rustix::system::sethostname(b"other-host").unwrap();
                run("ip", &["link", "add", "k1", "type", "veth", "peer", "name", "k0", "netns", "1"]);
                run("ip", &["address", "add", "10.77.0.2/24", "dev", "k1"]);
                run("ip", &["link", "set", "k1", "up"]);
                run("ip", &["link", "set", "lo", "up"]);
                Driver::start(home(), role, arguments, &[])
            };
            scope.spawn(start).join().unwrap()
        });
        run("ip", &["address", "add", &format!("{HERE}/24"), "dev", "k0"]);
        run("ip", &["link", "set", "k0", "up"]);
        Self(Some(Site::of(driver, "node-2").await))
    }

    /// The driver there, and those who ask it. The mount table is the same.
    pub fn site(&self) -> &Site {
        self.0.as_ref().expect("there until the end")
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        let children = self.0.as_ref().map(Site::children).unwrap_or_default();
        drop(self.0.take());
        // Killed with their driver, and gone when they have given back to the server what they hold there: a delegation that
        // can't be returned, since the cable is gone, keeps a child for ever. So too those of drivers that were dropped before,
        // of whom this host's mounts tell.
        let began = Instant::now();
        let alive =
            || processes().iter().any(|process| children.contains(&process.pid)) || is_mounted_from(HERE);
        while alive() && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Command::new("ip").args(["link", "delete", "k0"]).output().ok();
    }
}
