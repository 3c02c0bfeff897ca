//! Two drivers on one pool at the same time: each sidecar holds a lease of its own, so this is the usual case.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/asks.rs"]
mod asks;
mod common;

use asks::{Ask, Asker, delete, expand, get, publish, text, unpublish};
use common::{Driver, MIB, Mode, create, listing};
use kuration::csi::proto;
use tonic::Code::{self, FailedPrecondition, NotFound};
use tonic::Status;

/// A second driver on the pool of `first`.
fn beside(first: &Driver, arguments: &[&str]) -> Driver {
    let pool = text(&first.home.path().join("pool"));
    let home = tempfile::tempdir().expect("a directory");
    Driver::start(home, "all", &[&["--node-id", "node-2", "--pool", &pool], arguments].concat(), &[])
}

/// Two drivers that know each other's nodes, and the names of what lies at the top of their pool.
async fn two() -> (Driver, Driver, Asker, Asker) {
    let first = Driver::pool(&["--known-node", "node-2"]);
    let second = beside(&first, &["--known-node", "node-1"]);
    let (a, b) = (Asker::of(&first).await, Asker::of(&second).await);
    (first, second, a, b)
}

/// What both answer, asked in the same moment.
async fn both(
    a: &Asker,
    b: &Asker,
    first: impl Into<Ask>,
    second: impl Into<Ask>,
) -> [Result<String, Status>; 2] {
    let (a, b, first, second) = (a.clone(), b.clone(), first.into(), second.into());
    let first = tokio::spawn(async move { a.ask(first).await });
    let second = tokio::spawn(async move { b.ask(second).await });
    [first.await.unwrap(), second.await.unwrap()]
}

fn volumes(driver: &Driver) -> Vec<String> {
    let mut names = listing(&driver.home.path().join("pool"));
    names.retain(|name| name != ".kuration");
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_creations_at_once_comes_one_volume() {
    let (first, _second, a, b) = two().await;
    for round in 0..20 {
        let request = || create(&format!("pvc-{round}"), 8 * MIB, &[]);
        let [one, other] = both(&a, &b, request(), request()).await.map(|answer| answer.expect("a volume"));
        assert_eq!(one, other, "round {round}");
        assert_eq!(volumes(&first).len(), round + 1, "round {round}: {:?}", volumes(&first));
    }
    assert_eq!(a.ids().await.len(), 20);
    assert_eq!(a.ids().await, b.ids().await);
    let tree = first.home.path().join("pool/.kuration/installations/default");
    assert_eq!(listing(&tree.join("reserved")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_creations_in_other_words_at_once_one_is_refused() {
    let (first, _second, a, b) = two().await;
    for round in 0..20 {
        let request = |bytes| create(&format!("pvc-{round}"), bytes, &[]);
        let answers = both(&a, &b, request(8 * MIB), request(16 * MIB)).await;
        let codes = answers.map(|answer| answer.map_or_else(|status| status.code(), |_| Code::Ok));
        // 16 MiB are good enough for who asks for 8; 8 are not for who asks for 16.
        assert!(codes.contains(&Code::Ok), "round {round}: {codes:?}");
        assert!(matches!(codes, [Code::Ok, Code::Ok | Code::AlreadyExists]), "round {round}: {codes:?}");
        assert_eq!(volumes(&first).len(), round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_goes_on_by_whichever_of_the_two_is_asked() {
    let (first, _second, a, b) = two().await;
    for (round, (a, b)) in [(&a, &b), (&b, &a), (&a, &b)].into_iter().enumerate() {
        let name = format!("pvc-{round}");
        let volume = a.made(&name).await;
        let id = volume.volume_id.as_str();
        assert_eq!(b.made(&name).await, volume);
        std::fs::write(first.home.path().join("pool").join(&name).join("file"), "data").unwrap();
        b.done(publish(id, "node-2", Mode::SingleNodeWriter, false)).await;
        let other = publish(id, "node-1", Mode::SingleNodeWriter, false);
        assert_eq!(a.code(other.clone()).await, FailedPrecondition);
        assert_eq!(a.code(delete(id)).await, FailedPrecondition);
        a.done(expand(id, 16 * MIB, 0)).await;
        for asker in [a, b] {
            let seen = asker.done(get(id)).await;
            assert!(seen.contains("16777216") && seen.contains("\"node-2\""), "{seen}");
        }
        a.done(unpublish(id, "node-2")).await;
        b.done(other).await;
        a.done(unpublish(id, "")).await;
        b.done(delete(id)).await;
        assert_eq!(a.code(get(id)).await, NotFound);
        a.done(delete(id)).await;
        // A new volume of that name may be made at once, and is empty.
        assert_eq!(a.made(&name).await.volume_id, id);
        assert_eq!(listing(&first.home.path().join("pool").join(&name)), Vec::<String>::new());
        b.done(delete(id)).await;
    }
    assert_eq!(volumes(&first), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_exclude_each_other_at_most_one_gets_the_volume() {
    let (_first, _second, a, b) = two().await;
    let volume = a.made("pvc-1").await;
    let id = volume.volume_id.as_str();
    let mode = Mode::SingleNodeWriter;
    for round in 0..20 {
        let answers =
            both(&a, &b, publish(id, "node-1", mode, false), publish(id, "node-2", mode, false)).await;
        let won: Vec<usize> = (0..2).filter(|&at| answers[at].is_ok()).collect();
        assert!(won.len() <= 1, "round {round}: both have it");
        for answer in &answers {
            assert!(
                answer.as_ref().err().is_none_or(|status| status.code() == FailedPrecondition),
                "{answer:?}"
            );
        }
        // Who lost left nothing, so who is listed is who won; and if neither did, the next try does.
        let listed = a.page("", 0).await.unwrap().0.remove(0).1;
        assert_eq!(listed.len(), won.len(), "round {round}: {listed:?}");
        if won.is_empty() {
            a.done(publish(id, "node-1", mode, false)).await;
        }
        let [one, other] = both(&a, &b, unpublish(id, ""), unpublish(id, "")).await;
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_not_deleted_by_one_while_the_other_gives_it_to_a_node() {
    let (first, _second, a, b) = two().await;
    for round in 0..100 {
        let volume = a.made("pvc-1").await;
        let id = volume.volume_id.as_str();
        let file = first.home.path().join("pool/pvc-1/file");
        std::fs::write(&file, "data").unwrap();
        let [gone, got] =
            both(&a, &b, delete(id), publish(id, "node-2", Mode::SingleNodeWriter, false)).await;
        match (&gone, &got) {
            (Ok(_), Err(status)) => {
                // Also in the middle, where the note has no place left and the record is still there.
                assert!(matches!(status.code(), NotFound | Code::Internal), "round {round}: {status:?}");
                assert!(!file.exists());
            }
            (Err(status), _) => {
                assert_eq!(status.code(), FailedPrecondition, "round {round}: {status:?}");
                assert_eq!(std::fs::read_to_string(&file).unwrap(), "data", "round {round}: {got:?}");
                assert_eq!(a.done(get(id)).await.contains("\"node-2\""), got.is_ok(), "round {round}");
                a.done(unpublish(id, "")).await;
                b.done(delete(id)).await;
            }
            (Ok(_), Ok(_)) => panic!("round {round}: it was deleted and given to a node"),
        }
        assert_eq!((volumes(&first), a.ids().await), (vec![], vec![]), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_expansions_and_two_deletions_at_once_are_one() {
    let (first, _second, a, b) = two().await;
    for round in 1..=10 {
        let volume = a.made("pvc-1").await;
        let id = volume.volume_id.as_str();
        let [one, other] = both(&a, &b, expand(id, 16 * MIB, 0), expand(id, 32 * MIB, 0)).await;
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        assert!(a.done(get(id)).await.contains("33554432"), "an expansion was lost");
        let [one, other] = both(&a, &b, delete(id), delete(id)).await;
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        let trash = first.home.path().join("pool/.kuration/installations/default/trash");
        assert_eq!(listing(&trash).len(), 2 * round);
        assert_eq!(volumes(&first), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_never_promise_the_same_space() {
    // A file system of its own, so that nobody else fills it meanwhile.
    let home = tempfile::tempdir().unwrap();
    let pool = home.path().join("pool");
    std::fs::create_dir(&pool).unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &pool, Some("tmpfs"), none, Some("size=64m")).unwrap();
    let first = Driver::pool_in(home, &[], &[]);
    let second = beside(&first, &[]);
    let (a, b) = (Asker::of(&first).await, Asker::of(&second).await);
    let answer = a.done(proto::GetCapacityRequest::default()).await;
    let digits: String =
        answer.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let most = digits.parse::<i64>().unwrap() / 10 * 6;
    for round in 0..5 {
        let answers = both(&a, &b, create("pvc-1", most, &[]), create("pvc-2", most, &[])).await;
        let codes = answers.map(|answer| answer.map_or_else(|status| status.code(), |_| Code::Ok));
        assert!(
            matches!(codes, [Code::Ok, Code::OutOfRange] | [Code::OutOfRange, Code::Ok]),
            "round {round}: {codes:?}"
        );
        for id in a.ids().await {
            b.done(delete(&id)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_do_not_see_each_other() {
    let first = Driver::pool(&["--installation", "a"]);
    let second = beside(&first, &["--installation", "b"]);
    let (a, b) = (Asker::of(&first).await, Asker::of(&second).await);
    let volume = a.made("pvc-1").await;
    let id = volume.volume_id.as_str();
    assert_eq!(b.ids().await, Vec::<String>::new());
    assert_eq!(b.code(get(id)).await, NotFound);
    assert_eq!(b.code(expand(id, 16 * MIB, 0)).await, NotFound);
    assert_eq!(b.code(publish(id, "node-2", Mode::SingleNodeWriter, false)).await, NotFound);
    b.done(delete(id)).await;
    b.done(unpublish(id, "")).await;
    assert_eq!(volumes(&first), ["pvc-1"]);
    // The same name has the same directory, which is taken: nobody shares it, and nobody deletes it.
    let refused = b.volume(create("pvc-1", 8 * MIB, &[])).await.unwrap_err();
    assert_eq!(refused.code(), FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("pvc-1"), "{refused:?}");
    let other = b.made("pvc-2").await;
    assert_eq!((a.ids().await, b.ids().await), (vec![id.to_owned()], vec![other.volume_id.clone()]));
    a.done(delete(id)).await;
    a.done(delete(&other.volume_id)).await;
    assert_eq!(volumes(&first), ["pvc-2"]);
    let trees = first.home.path().join("pool/.kuration/installations");
    assert_eq!(listing(&trees), ["a", "b"]);
    assert_eq!((listing(&trees.join("a/trash")).len(), listing(&trees.join("b/trash")).len()), (2, 0));
}
