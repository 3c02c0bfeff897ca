//! Pools in a file.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kuration::backend::pool::fs::probe;
use kuration::backend::pool::image::{Image, ImageError, Kind};
use kuration::volume::Key;

use super::stand::{ANYBODY, MIB, begin, directory, own_namespace, run};

const IMAGE: u64 = 512 * MIB;

/// Loop devices that have the image of this pool.
fn loops(pool: &Path) -> Vec<String> {
    let files = fs::read_dir("/sys/block").unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        Path::new(file.trim_end()).starts_with(pool).then(|| entry.file_name().into_string().unwrap())
    });
    files.collect()
}

fn no_loop_is_left(pool: &Path) {
    let begun = Instant::now();
    while !loops(pool).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", loops(pool));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn is_kept_over_a_restart() {
    begin();
    let pool = directory();
    let begun = Instant::now();
    let image = Image::open(pool.path(), IMAGE).unwrap();
    let made = begun.elapsed();
    let number = loops(pool.path()).pop().unwrap();
    let direct = fs::read_to_string(format!("/sys/block/{number}/loop/dio")).unwrap();
    println!("{:?} made in {made:?}, direct I/O {}", image.kind, direct.trim());
    let root = OwnedFd::from(File::open(&image.root).unwrap());
    let probed = probe(root.as_fd()).unwrap();
    assert_eq!(
        (probed.file_system.name(), probed.file_system.enforces()),
        (image.kind.name(), true),
        "{}",
        probed.why
    );
    probed.file_system.make(root.as_fd(), "v", &Key::of("i", "v"), ANYBODY, 16 * MIB).unwrap();
    fs::write(image.root.join("v/file"), "kept").unwrap();
    // Still mounted, as after a crash; another size changes nothing.
    let begun = Instant::now();
    assert_eq!(Image::open(pool.path(), 2 * IMAGE).unwrap(), image);
    println!("found mounted in {:?}", begun.elapsed());
    assert_eq!(loops(pool.path()), [number]);
    drop((probed, root));
    image.clone().close().unwrap();
    no_loop_is_left(pool.path());
    // Not mounted, as after a boot. What an interrupted making left doesn't matter.
    fs::write(pool.path().join("pool.img.new"), "half").unwrap();
    assert_eq!(Image::open(pool.path(), IMAGE).unwrap(), image);
    assert_eq!(fs::read_to_string(image.root.join("v/file")).unwrap(), "kept");
    let root = OwnedFd::from(File::open(&image.root).unwrap());
    let why = probe(root.as_fd()).unwrap().why;
    assert!(why.ends_with("sizes are enforced"), "{why}");
    drop(root);
    image.close().unwrap();
    no_loop_is_left(pool.path());
}

#[test]
fn is_mounted_once_by_many_starters() {
    begin();
    let pool = directory();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = pool.path();
            scope.spawn(move || {
                let image = Image::open(path, IMAGE).unwrap();
                fs::write(image.root.join(n.to_string()), "x").unwrap();
            });
        }
    });
    assert_eq!(loops(pool.path()).len(), 1);
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert_eq!(mounts.lines().filter(|line| line.contains(pool.path().to_str().unwrap())).count(), 1);
    // Starters in mount namespaces of their own, as containers are: each mounts it, all by the one device.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let path = pool.path();
            scope.spawn(move || {
                own_namespace();
                rustix::mount::unmount(path.join("fs"), rustix::mount::UnmountFlags::empty()).unwrap();
                let image = Image::open(path, IMAGE).unwrap();
                assert_eq!(
                    fs::read_dir(&image.root)
                        .unwrap()
                        .filter(|e| e.as_ref().unwrap().path().is_file())
                        .count(),
                    8
                );
                assert_eq!(loops(path).len(), 1);
            });
        }
    });
    let image = Image::open(pool.path(), IMAGE).unwrap();
    image.close().unwrap();
    no_loop_is_left(pool.path());
}

#[test]
fn of_something_else_is_left_as_it_is() {
    begin();
    let pool = directory();
    let path = pool.path().join("pool.img");
    fs::write(&path, vec![7; 200_000]).unwrap();
    assert!(matches!(Image::open(pool.path(), IMAGE), Err(ImageError::Unknown(_))));
    // One that is damaged behind its magic can't be mounted, and is not made anew either.
    File::options().write(true).open(&path).unwrap().write_at(b"_BHRfS_M", 0x1_0040).unwrap();
    let error = Image::open(pool.path(), IMAGE).unwrap_err();
    assert!(matches!(error, ImageError::Io { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap().len(), 200_000);
    no_loop_is_left(pool.path());
    fs::remove_file(&path).unwrap();
    fs::create_dir(pool.path().join(".kuration")).unwrap();
    assert!(matches!(Image::open(pool.path(), IMAGE), Err(ImageError::Occupied(_))));
    fs::remove_dir(pool.path().join(".kuration")).unwrap();
    run("mount", &["-t", "tmpfs", "stranger", pool.path().join("fs").to_str().unwrap()]);
    assert!(matches!(Image::open(pool.path(), IMAGE), Err(ImageError::Mounted(..))));
}

#[test]
fn is_of_the_kind_asked_for() {
    begin();
    let pool = directory();
    let image = Image::open_as(pool.path(), IMAGE, Some(Kind::Btrfs)).unwrap();
    assert_eq!(image.kind, Kind::Btrfs);
    assert_eq!(Image::open_as(pool.path(), IMAGE, None).unwrap(), image);
    let error = Image::open_as(pool.path(), IMAGE, Some(Kind::Xfs)).unwrap_err();
    assert!(matches!(error, ImageError::Another { .. }), "{error}");
    image.close().unwrap();
    no_loop_is_left(pool.path());
}

#[test]
fn that_cant_be_says_why() {
    begin();
    let pool = directory();
    assert!(matches!(Image::open(pool.path(), u64::MAX), Err(ImageError::TooLarge { .. })));
    let error = Image::open(pool.path(), MIB).unwrap_err().to_string();
    assert!(error.contains("xfs: ") && error.contains("btrfs: "), "{error}");
    println!("{error}");
    assert!(!pool.path().join("pool.img").exists() && !pool.path().join("pool.img.new").exists());
    no_loop_is_left(pool.path());
}

#[test]
#[ignore = "needs project quota: tests/run's stage 'xfs quota'"]
fn xfs_is_what_an_image_gets() {
    begin();
    let pool = directory();
    let image = Image::open(pool.path(), IMAGE).unwrap();
    assert_eq!(image.kind, Kind::Xfs);
    image.close().unwrap();
    no_loop_is_left(pool.path());
}
