//! Volumes with their records, as a store makes them, after a power cut.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use kuration::backend::pool::fs::probe;
use kuration::backend::store::Store;
use kuration::backend::{Answer, Ask, Job};
use kuration::volume::{
    Access, Directory, Fingerprint, Identity, Key, Mode, MountOptions, OnDelete, Owner, Publication, Volume,
    Wanted,
};

use super::every::after_a_power_cut;
use super::stand::{MIB, Pool, begin};

fn store(pool: &Pool) -> Store {
    let root: OwnedFd = pool.root.try_clone().unwrap();
    let file_system = probe(root.as_fd()).unwrap().file_system;
    Store::new(root, "pool".to_owned(), "one".to_owned(), file_system, Some(1.0))
}

fn ask(store: &Store, job: Job) -> Answer {
    store.answer(Ask { identity: None, job })
}

fn create(store: &Store, name: &str) -> (Identity, Volume) {
    let key = Key::of("one", name);
    let wanted = Wanted {
        name: name.to_owned(),
        key,
        directory: Directory::of_name(name, &key),
        chosen: false,
        required: (16 * MIB) as i64,
        limit: 0,
        owner: Owner { uid: None, gid: None, mode: 0o700 },
        on_delete: OnDelete::Delete,
        mount_options: MountOptions::default(),
        fingerprint: Fingerprint { parameters: Default::default(), capabilities: Vec::new() },
        now: 1,
        claim: None,
        scratch: None,
    };
    match ask(store, Job::Create(Box::new(wanted))) {
        Answer::Create(made) => made.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Volumes that many made at once, and deleted, are there after a power cut as they were said to be.
pub fn outlast_a_power_cut(kind: &str, options: &str) {
    let pool = Pool::new(kind, options);
    let first = store(&pool);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let store = &first;
            scope.spawn(move || {
                create(store, &format!("pvc-{n}"));
                if n % 4 == 0 {
                    let deleted = ask(store, Job::Delete { key: Key::of("one", &format!("pvc-{n}")) });
                    assert!(matches!(deleted, Answer::Delete(Ok(()))), "{deleted:?}");
                }
            });
        }
    });
    let pool = after_a_power_cut(pool, first, kind, options);
    let after = store(&pool);
    for n in 0..20 {
        let name = format!("pvc-{n}");
        let found = ask(&after, Job::Find { key: Key::of("one", &name) });
        if n % 4 == 0 {
            assert!(matches!(found, Answer::Find(Err(_))), "{name}: {found:?}");
            assert!(!pool.path().join(&name).exists(), "{name}");
            continue;
        }
        let Answer::Find(Ok((_, volume))) = found else { panic!("{name}: {found:?}") };
        let opened = pool.open(&name, volume.record.quota_id, 0);
        assert_eq!(opened.usage().total, 16 * MIB, "{name}");
        assert_eq!(fs::metadata(&opened.path).unwrap().mode() & 0o7777, 0o700, "{name}");
    }
}

#[test]
fn a_volume_whose_directory_a_power_cut_took_is_made_whole_by_the_next_try_and_not_under_a_node() {
    begin();
    let pool = Pool::btrfs();
    let store = store(&pool);
    let (_, made) = create(&store, "pvc-1");
    fs::remove_dir(pool.path().join("pvc-1")).unwrap();
    let (_, again) = create(&store, "pvc-1");
    assert_eq!(again.record, made.record);
    assert_eq!(pool.open("pvc-1", None, 0).usage().total, 16 * MIB);
    // A directory with something in it is as it was.
    fs::write(pool.path().join("pvc-1/file"), "data").unwrap();
    create(&store, "pvc-1");
    assert_eq!(fs::read(pool.path().join("pvc-1/file")).unwrap(), b"data");
    // Of one that a node has, somebody may have taken the directory away, and with it data.
    let (_, published) = create(&store, "pvc-2");
    let access = Access { mode: Mode::SingleNodeWriter, readonly: false };
    let publication = Publication { node: "n1".to_owned(), access };
    let job = Job::Publish { key: published.record.key, publication, limit: None };
    assert!(matches!(ask(&store, job), Answer::Publish(Ok(()))));
    fs::remove_dir(pool.path().join("pvc-2")).unwrap();
    create(&store, "pvc-2");
    assert!(!pool.path().join("pvc-2").exists());
}
