//! Any other file system, which enforces nothing.

use std::fs;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::every;
use super::stand::{Pool, begin, run};

#[test]
fn trees_are_removed() {
    begin();
    let pool = Pool::new("ext4", "");
    assert!(pool.probed.why.starts_with("ext4: "), "{}", pool.probed.why);
    every::trees_are_removed(&pool);
}

#[test]
fn a_mount_within_is_never_crossed() {
    begin();
    let pool = Pool::new("ext4", "");
    fs::create_dir_all(pool.path().join("volume/a/mounted")).unwrap();
    let kept = pool.directory.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let at = pool.path().join("volume/a/mounted");
    run("mount", &["--bind", kept.to_str().unwrap(), at.to_str().unwrap()]);
    let removed = pool.probed.file_system.remove(pool.root.as_fd(), "volume", None);
    assert_eq!(removed, Err(Errno::XDEV));
    assert!(kept.join("file").exists());
    run("umount", &[at.to_str().unwrap()]);
    pool.remove("volume", None);
}
