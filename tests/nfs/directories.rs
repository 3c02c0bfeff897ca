//! Directories that a class chooses.

use std::fs;

use tonic::Code;

use crate::server::Share;
use crate::site::{Order, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_directory_may_be_nested_and_named_after_the_claim() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let plain = Order::on(&share, "pvc-1").with("subDir", "/teams//a/");
    let (volume, target) = site.up(&plain).await;
    assert_eq!(volume.volume_context["subDir"], "teams/a");
    fs::write(target.join("file"), "data").unwrap();
    assert_eq!(fs::read_to_string(share.path.join("teams/a/file")).unwrap(), "data");

    let named = Order::on(&share, "pvc-2")
        .with("subDir", "teams/${pvc.metadata.namespace}/${pvc.metadata.name}-${pv.metadata.name}")
        .with("csi.storage.k8s.io/pvc/name", "claim")
        .with("csi.storage.k8s.io/pvc/namespace", "team")
        .with("csi.storage.k8s.io/pv/name", "pv");
    let (second, _) = site.up(&named).await;
    assert!(share.path.join("teams/team/claim-pv").is_dir());
    site.down(&volume).await;
    assert!(!share.path.join("teams/a").exists() && share.path.join("teams/team/claim-pv").is_dir());
    site.down(&second).await;
    assert!(!share.path.join("teams/team/claim-pv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_somebody_else_is_never_taken_nor_deleted() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    fs::create_dir_all(share.path.join("theirs/deep")).unwrap();
    fs::write(share.path.join("theirs/deep/file"), "precious").unwrap();
    fs::create_dir(share.path.join("empty")).unwrap();
    fs::create_dir(share.path.join("pvc-9")).unwrap();
    let by_class = ["theirs", "theirs/deep", "empty"].map(|d| Order::on(&share, "pvc-1").with("subDir", d));
    for order in by_class.iter().chain([&Order::on(&share, "pvc-9")]) {
        let refused = site.create(order).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("was not made by Kuration"), "{refused}");
    }
    let file = order_of_a_file(&share);
    assert!(site.create(&file).await.is_err());
    assert_eq!(share.directories(), ["a-file", "empty", "pvc-9", "theirs"]);
    assert_eq!(fs::read_to_string(share.path.join("theirs/deep/file")).unwrap(), "precious");
    assert_eq!((share.volumes().len(), share.part("default", "reserved").len()), (0, 0));
}

fn order_of_a_file(share: &Share) -> Order {
    fs::write(share.path.join("a-file"), "precious").unwrap();
    Order::on(share, "pvc-1").with("subDir", "a-file").with("onDelete", "retain")
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_data_stays_also_where_two_volumes_have_it() {
    let share = Share::on("xfs");
    let site = Site::new(&["--trash-lifetime", "0s", "--reap-interval", "1s"]).await;
    fs::create_dir(share.path.join("theirs")).unwrap();
    fs::write(share.path.join("theirs/file"), "precious").unwrap();
    let retain = |name| Order::on(&share, name).with("subDir", "theirs").with("onDelete", "retain");
    let (one, target) = site.up(&retain("pvc-1")).await;
    let (two, other) = site.up(&retain("pvc-2")).await;
    assert_ne!(one.volume_id, two.volume_id);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    fs::write(other.join("new"), "theirs too").unwrap();
    site.down(&one).await;
    assert_eq!(fs::read_to_string(other.join("new")).unwrap(), "theirs too");
    site.down(&two).await;

    // Made by us and retained: the data outlives the volume as well.
    let (own, target) = site.up(&Order::on(&share, "pvc-3").with("onDelete", "retain")).await;
    fs::write(target.join("file"), "kept").unwrap();
    site.down(&own).await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(share.directories(), ["pvc-3", "theirs"]);
    assert_eq!(fs::read_to_string(share.path.join("theirs/file")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(share.path.join("pvc-3/file")).unwrap(), "kept");
    assert_eq!((share.volumes().len(), share.trash().len()), (0, 0));
    assert_eq!(share.part("default", "retained").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_volumes_on_one_directory_the_maker_leaves_it_to_the_other() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    // The first makes the directory and would delete it; the second only uses it.
    let maker = Order::on(&share, "pvc-1").with("subDir", "shared");
    let user = Order::on(&share, "pvc-2").with("subDir", "shared").with("onDelete", "retain");
    let (one, _) = site.up(&maker).await;
    let (two, target) = site.up(&user).await;
    fs::write(target.join("file"), "in use").unwrap();
    site.down(&one).await;
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "in use");
    site.down(&two).await;
    assert_eq!(fs::read_to_string(share.path.join("shared/file")).unwrap(), "in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_within_another_volumes_is_refused() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let outer = Order::on(&share, "pvc-1").with("subDir", "a/b");
    let (outer, target) = site.up(&outer).await;
    fs::write(target.join("file"), "data").unwrap();
    let (named, _) = site.up(&Order::on(&share, "pvc-named")).await;
    for inner in ["a/b/c", "a/b/c/d", "pvc-named/x"] {
        let order = Order::on(&share, "pvc-2").with("subDir", inner).with("onDelete", "retain");
        let refused = site.create(&order).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{inner}: {refused}");
        assert!(refused.message().contains("lies within"), "{inner}: {refused}");
    }
    assert!(!share.path.join("a/b/c").exists() && !share.path.join("pvc-named/x").exists());
    // Around it: a delete of the outer one would take the inner along.
    let around = Order::on(&share, "pvc-3").with("subDir", "a");
    let refused = site.create(&around).await.unwrap_err();
    assert!(matches!(refused.code(), Code::InvalidArgument | Code::FailedPrecondition), "{refused}");
    site.down(&outer).await;
    site.down(&named).await;
}
