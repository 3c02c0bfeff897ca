//! Labels, in a kernel that enforces a policy of SELinux (`tests/guest/selinux`).

use std::fs;
use std::path::Path;
use std::process::Command;

use kuration::mount::table;
use tonic::Code;

use crate::common::{Mode, capability_with};
use crate::inline::Pod;
use crate::inline_volumes::node;
use crate::server::Share;
use crate::site::{Order, Site, home, until};

/// A label of files.
fn files(level: &str) -> String {
    format!("system_u:object_r:container_file_t:{level}")
}

/// The mount option that a kubelet adds for a pod with this level.
fn option(level: &str) -> String {
    format!("context=\"{}\"", files(level))
}

/// The label that SELinux knows a file by.
fn label_of(path: &Path) -> String {
    let mut label = [0; 256];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut label).unwrap();
    String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned()
}

/// What a container's process of this level reads from a file, or its complaint.
fn read_at(level: &str, file: &Path) -> Result<String, String> {
    let script = "printf %s \"$0\" >/proc/self/attr/exec && exec cat \"$1\"";
    let label = format!("system_u:system_r:container_t:{level}");
    let done = Command::new("sh").args(["-c", script, &label]).arg(file).env("LC_ALL", "C").output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(said(&done.stdout)) } else { Err(said(&done.stderr)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_a_volume_has_the_label_of_its_pod_and_no_other_pods_process_reads_it() {
    for version in [&[][..], &["vers=3", "nolock"]] {
        let share = Share::on("xfs");
        let site = Site::new(&[]).await;
        let order = Order::on(&share, "pvc-1").flags(version);
        let volume = site.create(&order).await.unwrap();
        site.attach(&volume, &order).await.unwrap();
        let before = share.path.join("pvc-1/before");
        fs::write(&before, "x").unwrap();

        let label = option("s0:c1,c2");
        let labelled = order.flags(&[version, &[&label]].concat());
        let staging = site.stage(&volume, &labelled).await.unwrap();
        let target = site.publish(&volume, &labelled, "pod").await.unwrap();
        for path in [&staging, &target] {
            let mount = site.mount_at(path);
            assert_eq!(mount.label(), Some(&*files("s0:c1,c2")), "{}", mount.options);
        }
        fs::write(target.join("file"), "data").unwrap();
        for path in [&target, &target.join("file"), &target.join("before")] {
            assert_eq!(label_of(path), files("s0:c1,c2"), "{}", path.display());
        }
        // The server's file system keeps a label of its own.
        assert_ne!(label_of(&before), files("s0:c1,c2"));
        assert_ne!(label_of(&share.path.join("pvc-1/file")), files("s0:c1,c2"));

        assert_eq!(read_at("s0:c1,c2", &target.join("file")).unwrap(), "data");
        let refused = read_at("s0:c1,c3", &target.join("file")).unwrap_err();
        assert!(refused.contains("Permission denied"), "{refused}");
        site.down(&volume).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_one_export_have_labels_of_their_own_at_once() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    // Also those that a class lets have one superblock: the kernel does not, for two labels.
    for sharing in [&[][..], &["sharecache"]] {
        let mut up = Vec::new();
        for (name, level) in [("pvc-a", Some("s0:c1,c2")), ("pvc-b", Some("s0:c3,c4")), ("pvc-c", None)] {
            let order = Order::on(&share, name).flags(sharing);
            let volume = site.create(&order).await.unwrap();
            site.attach(&volume, &order).await.unwrap();
            let label = level.map(option);
            let labelled =
                order.flags(&[sharing, &label.as_deref().into_iter().collect::<Vec<_>>()].concat());
            site.stage(&volume, &labelled).await.unwrap();
            up.push((site.publish(&volume, &labelled, "pod").await.unwrap(), volume, level));
        }
        for (target, _, level) in &up {
            fs::write(target.join("file"), "x").unwrap();
            let expected = level.map_or("system_u:object_r:nfs_t:s0".to_owned(), files);
            assert_eq!(label_of(&target.join("file")), expected);
        }
        for (_, volume, _) in &up {
            site.down(volume).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_staged_has_the_label_that_it_was_staged_with_until_it_is_unstaged() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let volume = site.create(&order).await.unwrap();
    site.attach(&volume, &order).await.unwrap();
    // As OpenShift writes levels; the kernel shows "s0:c5,c26".
    let (first, other) = (option("s0:c26,c5"), option("s0:c27,c5"));
    let (first, other) = (order.clone().flags(&[&first]), order.clone().flags(&[&other]));
    for _ in 0..2 {
        site.stage(&volume, &first).await.unwrap();
        site.publish(&volume, &first, "pod").await.unwrap();
    }
    for (asked, words) in [(&other, "s0:c27,c5"), (&order, "not without a label")] {
        let refusal = site.stage(&volume, asked).await.unwrap_err();
        assert_eq!(refusal.code(), Code::AlreadyExists, "{refusal}");
        for word in ["s0:c5,c26", words] {
            assert!(refusal.message().contains(word), "{word} is not in {refusal}");
        }
    }
    let refusal = site.publish(&volume, &other, "pod-2").await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
    assert!(refusal.message().contains("s0:c5,c26") && refusal.message().contains("s0:c27,c5"), "{refusal}");
    assert_eq!(site.mount_at(&site.staging(&volume)).label(), Some(&*files("s0:c5,c26")));

    site.unpublish(&volume, "pod").await.unwrap();
    site.unstage(&volume).await.unwrap();
    site.stage(&volume, &other).await.unwrap();
    let target = site.publish(&volume, &other, "pod").await.unwrap();
    assert_eq!(label_of(&target), files("s0:c5,c27"));
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_label_of_a_pod_comes_before_that_of_its_class() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let (class, pod) = (option("s0"), option("s0:c1,c2"));
    let order = Order::on(&share, "pvc-1").flags(&[&class]);
    let (volume, target) = site.up(&order).await;
    assert_eq!(label_of(&target), files("s0"));
    assert!(!volume.volume_id.contains("context"), "how a node mounts it: {}", volume.volume_id);
    site.unpublish(&volume, "pod").await.unwrap();
    site.unstage(&volume).await.unwrap();
    let order = order.flags(&[&class, &pod]);
    site.stage(&volume, &order).await.unwrap();
    let target = site.publish(&volume, &order, "pod").await.unwrap();
    assert_eq!(label_of(&target), files("s0:c1,c2"));
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_the_policy_does_not_know_is_refused_by_its_name() {
    let share = Share::on("xfs");
    let site = Site::new(&[]).await;
    let order = Order::on(&share, "pvc-1");
    let volume = site.create(&order).await.unwrap();
    site.attach(&volume, &order).await.unwrap();
    let unknown = order.clone().flags(&["context=system_u:object_r:nobodys_t:s0"]);
    let refusal = site.stage(&volume, &unknown).await.unwrap_err();
    println!("NodeStageVolume with an unknown label: {refusal}");
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
    assert!(refusal.message().contains("nobodys_t"), "{refusal}");
    site.stage(&volume, &order).await.unwrap();
    site.publish(&volume, &order, "pod").await.unwrap();
    site.down(&volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_volumes_have_the_labels_of_their_pods() {
    let share = Share::on("xfs");
    let (driver, mut node) = node(home(), &share).await;
    let pods = [("one", "s0:c1,c2"), ("other", "s0:c3,c4")]
        .map(|(name, level)| (Pod::new(driver.home.path(), name), level));
    let asked = |pod: &Pod, level: &str| {
        let mut publish = pod.publish(&[]);
        publish.volume_capability = Some(capability_with(Mode::SingleNodeWriter, &[&option(level)]));
        publish
    };
    for (pod, level) in &pods {
        for _ in 0..2 {
            node.node_publish_volume(asked(pod, level)).await.unwrap();
        }
        fs::write(pod.target.join("file"), "x").unwrap();
    }
    for (pod, level) in &pods {
        let table = table::read().unwrap();
        assert_eq!(table::at(&table, &pod.target).unwrap().label(), Some(&*files(level)));
        assert_eq!(label_of(&pod.target.join("file")), files(level));
        let refusal = node.node_publish_volume(asked(pod, "s0:c5,c6")).await.unwrap_err();
        assert_eq!(refusal.code(), Code::AlreadyExists, "{refusal}");
        assert!(refusal.message().contains(level) && refusal.message().contains("s0:c5,c6"), "{refusal}");
        node.node_unpublish_volume(pod.unpublish()).await.unwrap();
    }
    until("all is gone", || share.directories().is_empty() && share.trash().is_empty());
}
