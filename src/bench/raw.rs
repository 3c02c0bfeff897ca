//! The bare system calls on the same server in the same run: what a driver can at best come near to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, mkdirat, unlinkat};

use super::Summary;
use crate::backend::store::tree;
use crate::client::uuid;
use crate::mount::{NfsMount, mount_detached, negotiate};
use crate::volume::{Export, MountOptions, SecretOptions};

/// How often each is done.
const TIMES: usize = 100;

/// About the size of a volume's record, in bytes.
const RECORD: usize = 900;

/// Measures on `export`, in a directory that is removed afterwards. Needs root, and may wait for the server.
pub async fn measure(export: &Export, options: &MountOptions) -> io::Result<Vec<Summary>> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let none = SecretOptions::default();
    let found =
        negotiate(export, export.path(), (options, &none), (false, false), deadline, |mount, _| async move {
            let mounted = tokio::task::spawn_blocking(move || mount_detached(&mount).map(|_| ())).await;
            mounted.unwrap_or_else(|error| {
                Err(crate::mount::MountError::Other { source_: "raw".to_owned(), why: error.to_string() })
            })
        });
    let found = found.await.map_err(io::Error::other)?;
    let name = format!("kuration-bench-{}", uuid());
    let base = NfsMount {
        source: export.to_string(),
        address: found.address,
        version: found.version,
        options: options.clone(),
        secret: SecretOptions::default(),
        read_only: false,
        own_superblock: false,
    };
    let volume =
        NfsMount { source: export.source(&export.path_of(&name)), own_superblock: true, ..base.clone() };
    tokio::task::spawn_blocking(move || on(&base, &volume, &name)).await.map_err(io::Error::other)?
}

fn on(base: &NfsMount, volume: &NfsMount, name: &str) -> io::Result<Vec<Summary>> {
    let root: OwnedFd = mount_detached(base).map_err(io::Error::other)?;
    let directory = tree::make_directory(root.as_fd(), name, 0o700)?;
    let measured = calls(&directory, volume);
    drop(directory);
    tree::remove_empty(root.as_fd(), name)?;
    measured
}

fn calls(directory: &OwnedFd, volume: &NfsMount) -> io::Result<Vec<Summary>> {
    let names: Vec<String> = (0..TIMES).map(|number| number.to_string()).collect();
    let each = |call: &dyn Fn(&str) -> io::Result<()>| -> io::Result<Vec<Duration>> {
        let timed = names.iter().map(|name| {
            let start = Instant::now();
            call(name).map(|()| start.elapsed())
        });
        timed.collect()
    };
    let made = each(&|name| Ok(mkdirat(directory, name, Mode::from_raw_mode(0o777))?))?;
    let removed = each(&|name| Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?))?;
    let content = [b'x'; RECORD];
    let written = each(&|name| tree::write_new(directory.as_fd(), name, &content))?;
    for name in &names {
        tree::remove_file(directory.as_fd(), name)?;
    }
    // Closing a mount that is attached to nowhere unmounts it.
    let mounted = each(&|_| mount_detached(volume).map(drop).map_err(io::Error::other))?;
    Ok(vec![
        Summary::of("mkdir(2)", &made),
        Summary::of("rmdir(2)", &removed),
        Summary::of("a file of 900 bytes, synced", &written),
        Summary::of("mount and unmount", &mounted),
    ])
}
