//! Paths at which a volume can't be, and volumes that can't be at a path.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;
#[path = "common/refusal.rs"]
mod refusal;

use std::path::{Path, PathBuf};

use asks::{Asker, Staged, node_expand, node_unpublish, stats, text, unstage};
use common::{Driver, MIB, Mode, capability, mounts_beneath, node_publish, stage};
use refusal::{case, long, refused};
use tonic::Code::{self, FailedPrecondition, InvalidArgument, NotFound};

/// Paths that no RPC takes, and a word about each.
fn bad_paths() -> [(String, &'static str); 9] {
    [
        (String::new(), "missing"),
        ("relative/path".into(), "absolute"),
        ("./x".into(), "absolute"),
        ("/".into(), "below /"),
        ("/tmp/../etc".into(), "\"..\""),
        ("/tmp/a\nb".into(), "newline"),
        ("/tmp/a\0b".into(), "NUL"),
        (format!("/{}", long(4096)), "longer"),
        (format!("/{}", long(1 << 20)), "longer"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_cant_be_is_refused() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let staged = Staged::new(&asker, &driver, "first", Mode::MultiNodeMultiWriter).await;
    let (id, mode) = (staged.volume.volume_id.as_str(), Mode::MultiNodeMultiWriter);
    let mut cases = Vec::new();
    for (path, word) in bad_paths() {
        let what = format!("the path {path:.20?}");
        let path = Path::new(&path);
        let target = staged.target("target");
        cases.push(case(&what, stage(&staged.volume, path, mode), InvalidArgument, word));
        cases.push(case(&what, unstage(id, path), InvalidArgument, word));
        cases.push(case(&what, staged.at(path, false), InvalidArgument, word));
        cases.push(case(&what, node_unpublish(id, path), InvalidArgument, word));
        // Without a staging path the volume is not staged, as the specification has it.
        let unstaged = path.as_os_str().is_empty();
        let code = if unstaged { FailedPrecondition } else { InvalidArgument };
        cases.push(case(&what, node_publish(&staged.volume, path, &target, mode), code, word));
        // Where it is asked for at a place that can't be, a volume is not found.
        let (code, word) = if unstaged { (InvalidArgument, word) } else { (NotFound, "is not at") };
        cases.push(case(&what, stats(id, path), code, word));
        cases.push(case(&what, node_expand(id, path, MIB), code, word));
    }
    refused(&asker, &driver, cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_where_a_volume_would_hide_or_follow_something_is_refused_and_kept() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let staged = Staged::new(&asker, &driver, "first", Mode::MultiNodeMultiWriter).await;
    let second = asker.made("second").await;
    let places = driver.home.path().join("places");
    std::fs::create_dir_all(places.join("full")).unwrap();
    std::fs::create_dir_all(places.join("empty")).unwrap();
    std::fs::write(places.join("full/file"), "precious").unwrap();
    std::fs::write(places.join("file"), "precious").unwrap();
    std::os::unix::fs::symlink("empty", places.join("link")).unwrap();
    std::os::unix::fs::symlink("/nowhere", places.join("dangling")).unwrap();
    std::os::unix::net::UnixListener::bind(places.join("socket")).unwrap();
    let mut cases = Vec::new();
    for (name, word) in [
        ("full", "not empty"),
        ("file", "is a file"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("socket", "is a file"),
        ("missing/target", "does not exist"),
        ("file/target", ""),
    ] {
        let place = places.join(name);
        cases.push(case(name, staged.at(&place, false), InvalidArgument, word));
        cases.push(case(name, stage(&second, &place, Mode::MultiNodeMultiWriter), InvalidArgument, word));
    }
    // A target is made; a staging directory is the orchestrator's own.
    let missing = places.join("missing");
    cases.push(case(
        "no staging directory",
        stage(&second, &missing, Mode::SingleNodeWriter),
        InvalidArgument,
        "exist",
    ));
    // What is not a volume's is never taken away.
    for name in ["full", "file", "socket"] {
        let ask = node_unpublish(&second.volume_id, &places.join(name));
        cases.push(case(name, ask, Code::Internal, "can't be removed"));
    }
    refused(&asker, &driver, cases).await;
    // A link on the way is followed, as the kubelet's root directory may be one; a link at the end is not.
    std::os::unix::fs::symlink(&places, driver.home.path().join("way")).unwrap();
    let through = driver.home.path().join("way/target");
    asker.done(staged.at(&through, false)).await;
    asker.done(staged.at(&through, false)).await;
    assert_eq!(mounts_beneath(&places), [places.join("target")]);
    asker.done(node_unpublish(&staged.volume.volume_id, &through)).await;
    assert_eq!(mounts_beneath(&places), Vec::<PathBuf>::new());
    assert_eq!(std::fs::read_to_string(places.join("full/file")).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_published_from_its_own_stage_alone() {
    let driver = Driver::pool(&[]);
    let asker = Asker::of(&driver).await;
    let staged = Staged::new(&asker, &driver, "first", Mode::MultiNodeMultiWriter).await;
    let second = asker.made("second").await;
    let (mode, target) = (Mode::MultiNodeMultiWriter, staged.target("target"));
    let empty = driver.home.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let ask = |staging: &Path| node_publish(&second, staging, &target, mode);
    let cases = vec![
        case("nothing is staged there", ask(&empty), FailedPrecondition, "not staged"),
        case("the directory is missing", ask(&empty.join("missing")), FailedPrecondition, "not staged"),
        case("another volume is staged there", ask(&staged.staging), FailedPrecondition, "not staged"),
        case(
            "another volume is staged there",
            stage(&second, &staged.staging, mode),
            Code::AlreadyExists,
            "mounted",
        ),
        case(
            "it is staged, and not for this mode",
            {
                let mut other = staged.at(&target, false);
                other.volume_capability = Some(capability(Mode::SingleNodeWriter));
                other
            },
            FailedPrecondition,
            "SINGLE_NODE_WRITER",
        ),
        case("another volume's mount", stats(&second.volume_id, &staged.staging), NotFound, "is not at"),
        case(
            "another volume's mount",
            node_expand(&second.volume_id, &staged.staging, MIB),
            NotFound,
            "is not at",
        ),
    ];
    refused(&asker, &driver, cases).await;
    assert_eq!(text(&staged.staging), text(&mounts_beneath(driver.home.path())[0]));
}
