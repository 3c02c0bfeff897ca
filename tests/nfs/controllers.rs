//! Two controllers on one export.

use std::os::fd::AsFd;

use kuration::backend::store::tree;
use kuration::mount::{NfsMount, mount_detached};
use kuration::volume::{MountOptions, SecretOptions, Version};
use rustix::io::Errno;
use tonic::Code;

use crate::common::MIB;
use crate::host::{HERE, OtherHost};
use crate::server::{ADDRESS, Share};
use crate::site::{Order, Site};

/// What two controllers that take turns must see of each other.
async fn take_turns(a: &Site, b: &Site, share: &Share, order: &Order) {
    // Asked for what isn't there yet, `b` must not go on believing so.
    let volume = a.create(order).await.unwrap();
    a.delete(&volume).await.unwrap();
    assert_eq!(b.attach(&volume, order).await.unwrap_err().code(), Code::NotFound);
    b.delete(&volume).await.unwrap();
    assert_eq!(b.list().await.unwrap(), Vec::<String>::new());
    assert_eq!(a.create(order).await.unwrap().volume_id, volume.volume_id);
    assert_eq!(b.list().await.unwrap(), std::slice::from_ref(&volume.volume_id));
    b.attach(&volume, order).await.unwrap();
    assert_eq!(a.nodes(&volume).await.unwrap(), b.nodes(&volume).await.unwrap());

    // Who has it, both know at once, and neither deletes it.
    a.attach_to(&volume, order, "node-7").await.unwrap();
    let mut nodes = b.nodes(&volume).await.unwrap();
    nodes.retain(|node| node == "node-7");
    assert_eq!(nodes, ["node-7"]);
    b.detach(&volume).await.unwrap();
    assert_eq!(b.nodes(&volume).await.unwrap(), ["node-7"]);
    assert_eq!(b.delete(&volume).await.unwrap_err().code(), Code::FailedPrecondition);
    b.detach_from(&volume, "node-7").await.unwrap();
    assert_eq!(a.nodes(&volume).await.unwrap(), Vec::<String>::new());
    a.attach_to(&volume, order, "node-8").await.unwrap();
    assert_eq!(b.delete(&volume).await.unwrap_err().code(), Code::FailedPrecondition);
    b.detach_from(&volume, "node-8").await.unwrap();

    // The size that one set is the size for the other.
    assert_eq!(a.expand(&volume, 128 * MIB, 0).await.unwrap(), 128 * MIB);
    assert_eq!(b.expand(&volume, 64 * MIB, 96 * MIB).await.unwrap_err().code(), Code::OutOfRange);
    assert_eq!(b.expand(&volume, 192 * MIB, 0).await.unwrap(), 192 * MIB);
    assert_eq!(a.expand(&volume, 1, 256 * MIB).await.unwrap(), 192 * MIB);
    let again = a.create(&order.clone().bytes(192 * MIB)).await.unwrap();
    assert_eq!((again.volume_id, again.capacity_bytes), (volume.volume_id.clone(), 192 * MIB));

    b.delete(&volume).await.unwrap();
    assert_eq!(a.attach(&volume, order).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(a.list().await.unwrap(), Vec::<String>::new());
    a.delete(&volume).await.unwrap();
    // And around again, from the other side.
    assert_eq!(b.create(order).await.unwrap().volume_id, volume.volume_id);
    assert_eq!(a.create(order).await.unwrap().volume_id, volume.volume_id);
    a.delete(&volume).await.unwrap();
    assert_eq!(share.directories(), Vec::<String>::new());
    assert_eq!(share.volumes().len(), 0);
}

/// The same request to both at the same moment, again and again: one volume each time.
async fn race(a: &Site, b: &Site, share: &Share, order: &Order) {
    let trash = share.trash().len();
    for round in 0..10 {
        let order = Order { name: format!("race-{round}"), ..order.clone() };
        let (one, two) = tokio::join!(a.create(&order), b.create(&order));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.volume_id, two.volume_id);
        assert_eq!(share.directories(), std::slice::from_ref(&order.name));
        assert_eq!(share.part("default", "reserved"), Vec::<String>::new());

        let (first, second) = tokio::join!(a.expand(&one, 96 * MIB, 0), b.expand(&one, 128 * MIB, 0));
        second.unwrap();
        first.unwrap();
        assert_eq!(a.expand(&one, 1, 1 << 40).await.unwrap(), 128 * MIB);
        let nodes = tokio::join!(a.attach_to(&one, &order, "one"), b.attach_to(&one, &order, "two"));
        nodes.0.and(nodes.1).unwrap();
        assert_eq!(a.nodes(&one).await.unwrap(), ["one", "two"]);
        let nodes = tokio::join!(b.detach_from(&one, "one"), a.detach_from(&one, "two"));
        nodes.0.and(nodes.1).unwrap();

        let gone = tokio::join!(a.delete(&one), b.delete(&one));
        gone.0.and(gone.1).unwrap();
        assert_eq!((share.directories().len(), share.volumes().len()), (0, 0));
        assert_eq!(share.trash().len(), trash + 2 * (round + 1));
    }
}

/// A delete by one and a publication by the other at the same moment, again and again: never both.
async fn overtake(a: &Site, b: &Site, share: &Share, order: &Order) {
    for round in 0..20 {
        let order = Order { name: format!("overtaken-{round}"), ..order.clone() };
        let volume = a.create(&order).await.unwrap();
        let file = share.path.join(&order.name).join("file");
        std::fs::write(&file, "data").unwrap();
        let (gone, got) = tokio::join!(a.delete(&volume), b.attach_to(&volume, &order, "one"));
        if gone.is_ok() {
            assert!(got.is_err() && !file.exists(), "round {round}: {got:?}");
            continue;
        }
        assert_eq!(gone.unwrap_err().code(), Code::FailedPrecondition, "round {round}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "data", "round {round}: {got:?}");
        a.detach_from(&volume, "one").await.unwrap();
        b.delete(&volume).await.unwrap();
    }
    assert_eq!((share.directories().len(), share.volumes().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_export_too_a_name_is_moved_only_where_none_is() {
    let share = Share::on("xfs");
    let mount = NfsMount {
        source: share.flag(),
        address: ADDRESS.parse().unwrap(),
        version: Version::V4_2,
        options: MountOptions::default(),
        secret: SecretOptions::default(),
        read_only: false,
        own_superblock: false,
    };
    let root = mount_detached(&mount).unwrap();
    let moved = |name, new| tree::move_where_none_is(root.as_fd(), name, root.as_fd(), new);
    for name in ["a", "b"] {
        std::fs::write(share.path.join(name), name).unwrap();
    }
    std::fs::create_dir(share.path.join("empty")).unwrap();
    std::fs::create_dir(share.path.join("directory")).unwrap();
    assert_eq!(moved("a", "b"), Err(Errno::EXIST));
    assert_eq!(moved("directory", "empty"), Err(Errno::EXIST));
    assert_eq!(moved("none", "c"), Err(Errno::NOENT));
    assert_eq!((moved("a", "c"), moved("directory", "d")), (Ok(()), Ok(())));
    assert_eq!(share.directories(), ["b", "c", "d", "empty"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_of_one_host_take_turns_and_race() {
    let share = Share::on("xfs");
    let known = ["--share", &share.flag()];
    let (a, b) = (Site::controller(&known).await, Site::controller(&known).await);
    let order = Order::on(&share, "pvc-1");
    take_turns(&a, &b, &share, &order).await;
    race(&a, &b, &share, &order).await;
    overtake(&a, &b, &share, &order).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_of_two_hosts_take_turns_and_race() {
    let share = Share::on("xfs");
    let flag = format!("{HERE}:{}", share.share);
    let known = ["--share", &flag];
    let b = OtherHost::controller(&known).await;
    let a = Site::controller(&known).await;
    let order = Order::new("pvc-1", &[("server", HERE), ("share", &share.share)]);
    take_turns(&a, b.site(), &share, &order).await;
    take_turns(b.site(), &a, &share, &order).await;
    race(&a, b.site(), &share, &order).await;
    overtake(&a, b.site(), &share, &order).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn installations_do_not_see_each_others_volumes() {
    let share = Share::on("xfs");
    let flag = share.flag();
    let arguments = |name| {
        ["--share", &flag, "--installation", name, "--trash-lifetime", "0s", "--reap-interval", "1s"]
            .map(str::to_owned)
    };
    let (red, blue) = (arguments("red"), arguments("blue"));
    let slow = ["--share", &flag, "--installation", "red", "--trash-lifetime", "1h"];
    let red = (Site::new(&slow).await, red);
    let blue = Site::new(&blue.each_ref().map(String::as_str)).await;
    let order = Order::on(&share, "pvc-1");
    let volume = red.0.create(&order).await.unwrap();
    let named = red.0.create(&order.clone().with("subDir", "red").clone()).await.unwrap_err();
    assert_eq!(named.code(), Code::AlreadyExists);

    // The same name is another volume, whose directory is taken; with a directory of its own it can be had.
    let refused = blue.create(&order).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let other = blue.create(&order.clone().with("subDir", "blue")).await.unwrap();
    assert_ne!(volume.volume_id, other.volume_id);
    assert_eq!(red.0.list().await.unwrap(), std::slice::from_ref(&volume.volume_id));
    assert_eq!(blue.list().await.unwrap(), std::slice::from_ref(&other.volume_id));
    // Nor does a delete of the other's volume delete it.
    blue.delete(&volume).await.unwrap();
    assert_eq!(blue.attach(&volume, &order).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(share.directories(), ["blue", "pvc-1"]);
    assert_eq!(red.0.list().await.unwrap(), std::slice::from_ref(&volume.volume_id));

    // Trash is emptied by its own installation alone.
    red.0.delete(&volume).await.unwrap();
    blue.delete(&other).await.unwrap();
    crate::site::until("the trash of blue is empty", || share.part("blue", "trash").is_empty());
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(share.part("red", "trash").len(), 2);
    let _red = Site::again(red.0.driver.kill(), "node-1", &red.1.each_ref().map(String::as_str)).await;
    crate::site::until("the trash of red is empty", || share.part("red", "trash").is_empty());
}
