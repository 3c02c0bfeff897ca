//! What others do at the same moment, or what a crash left, at the points where it matters: each state is put together by
//! hand from the steps of `create`, `delete` and the rest.

mod deletes;
mod file_systems;
mod promises;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use file_systems::{Replayed, Small};

use super::*;
use crate::backend::pool::fs::Plain;
use crate::backend::{CreateError, DeleteError, ExpandError, PublishError, Reaped};
use crate::volume::{
    Access, Claim, Fingerprint, Mode, MountOptions, OnDelete, Owner, Publication, Volume, Wanted,
};

struct Place {
    home: tempfile::TempDir,
    store: Store,
}

const ONE: &str = "one";

impl Place {
    fn share() -> Self {
        Self::with(Box::new(Plain::nfs()), None)
    }

    fn with(file_system: Box<dyn FileSystem>, overcommit: Option<f64>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path(), ONE, file_system, overcommit);
        Self { home, store }
    }

    /// The same place as another installation has it.
    fn other(&self) -> Store {
        store(self.home.path(), "two", Box::new(Plain::nfs()), None)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn own(&self, path: &str) -> PathBuf {
        self.path(&format!("{INSTALLATIONS}/{ONE}/{path}"))
    }

    fn names(&self, path: PathBuf) -> Vec<String> {
        let names = std::fs::read_dir(path).into_iter().flatten();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn notes(&self) -> usize {
        self.names(self.path(".kuration/directories")).len()
    }

    fn reserved(&self) -> usize {
        self.names(self.own("reserved")).len()
    }

    fn create(&self, wanted: Wanted) -> Result<Volume, CreateError> {
        self.store.create(wanted).map(|(_, volume)| volume)
    }

    fn trees(&self) -> Arc<Trees> {
        self.store.trees_made().unwrap()
    }

    /// A creation that died behind its reservation, and behind the directory where `made`.
    fn died(&self, wanted: &Wanted, made: bool) -> Record {
        let trees = self.trees();
        let mut record = self.store.reserve(&trees, wanted, wanted.capacity().bytes(), true, None).unwrap();
        if made {
            self.store.place(&trees, &mut record).unwrap();
        }
        record
    }

    fn age(&self, path: &str, seconds: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        std::fs::File::open(self.own(path)).unwrap().set_modified(time).unwrap();
    }

    /// Reaps what is reserved as if it were hours old.
    fn reap_abandoned(&self) -> Reaped {
        for name in self.names(self.own("reserved")) {
            self.age(&format!("reserved/{name}"), 4000);
        }
        self.store.reap(Some(1000), &|| false).unwrap()
    }
}

fn store(
    root: &std::path::Path,
    installation: &str,
    file_system: Box<dyn FileSystem>,
    overcommit: Option<f64>,
) -> Store {
    let root: OwnedFd = std::fs::File::open(root).unwrap().into();
    Store::new(root, "the place".into(), installation.into(), file_system, overcommit)
}

fn wanted(name: &str) -> Wanted {
    wanted_of(ONE, name)
}

fn wanted_of(installation: &str, name: &str) -> Wanted {
    let key = Key::of(installation, name);
    Wanted {
        name: name.to_owned(),
        key,
        directory: Directory::of_name(name, &key),
        chosen: false,
        required: 1000,
        limit: 0,
        owner: Owner { uid: None, gid: None, mode: 0o755 },
        on_delete: OnDelete::Delete,
        mount_options: MountOptions::default(),
        fingerprint: Fingerprint { parameters: Default::default(), capabilities: Vec::new() },
        now: 1,
        claim: None,
        scratch: None,
    }
}

impl Wanted {
    fn at(self, directory: &str) -> Self {
        Self { directory: Directory::parse(directory).unwrap(), chosen: true, ..self }
    }

    fn retained(self) -> Self {
        Self { on_delete: OnDelete::Retain, ..self }
    }

    fn sized(self, required: i64) -> Self {
        Self { required, ..self }
    }
}

fn publication(node: &str) -> Publication {
    let access = Access { mode: Mode::MultiNodeMultiWriter, readonly: false };
    Publication { node: node.to_owned(), access }
}

#[test]
fn a_directory_that_was_there_is_neither_taken_nor_removed_however_the_try_ended() {
    let place = Place::share();
    std::fs::create_dir(place.path("pvc-1")).unwrap();
    assert!(matches!(place.create(wanted("pvc-1")), Err(CreateError::Occupied { .. })));
    // Not even a reservation says that it was to be ours.
    assert_eq!(place.reserved(), 0);
    place.reap_abandoned();
    assert!(place.path("pvc-1").exists());
}

#[test]
fn a_directory_that_a_dead_try_made_is_taken_over_or_removed() {
    let place = Place::share();
    place.died(&wanted("pvc-1"), true);
    assert!(place.create(wanted("pvc-1")).unwrap().record.owns_directory);
    place.died(&wanted("pvc-2").at("a/b"), true);
    place.died(&wanted("pvc-3").at("gone/c"), false);
    assert!(!place.path("gone").exists());
    assert_eq!(place.reap_abandoned().trouble, None);
    assert_eq!((place.reserved(), place.notes()), (0, 0));
    assert!(place.path("pvc-1").exists() && !place.path("a/b").exists());
    assert!(!place.path("gone").exists(), "the reaper made a directory");
}

#[test]
fn a_directory_that_another_volume_uses_is_not_what_a_dead_try_left() {
    let place = Place::share();
    let other = place.other();
    // By a note, and by its name; ours was reserved before either was there.
    place.died(&wanted("pvc-1").at("noted"), false);
    other.create(wanted_of("two", "x").at("noted")).unwrap();
    place.died(&wanted("pvc-2").at("named"), false);
    other.create(wanted_of("two", "named")).unwrap();
    for (name, directory) in [("pvc-1", "noted"), ("pvc-2", "named")] {
        let refused = place.create(wanted(name).at(directory));
        assert!(matches!(refused, Err(CreateError::Occupied { .. })), "{refused:?}");
        place.died(&wanted(name).at(directory), false);
    }
    assert_eq!(place.reap_abandoned().trouble, None);
    assert!(place.path("noted").exists() && place.path("named").exists());
    assert_eq!((place.reserved(), place.notes()), (0, 1));
}

#[test]
fn a_record_that_waits_to_replace_another_is_no_reservation() {
    let place = Place::share();
    let record = place.create(wanted("pvc-1")).unwrap().record;
    let trees = place.trees();
    place.store.write_beside(&trees, &record).unwrap();
    assert_eq!(place.store.reservations(&trees, record.key).unwrap(), Vec::<String>::new());
    place.store.delete(record.key).unwrap();
    std::fs::create_dir(place.path("pvc-1")).unwrap();
    assert!(matches!(place.create(wanted("pvc-1")), Err(CreateError::Occupied { .. })));
    place.reap_abandoned();
    assert!(place.path("pvc-1").exists());
    assert_eq!(place.reserved(), 0);
}

#[test]
fn a_directory_whose_making_was_answered_twice_is_ours() {
    let place = Place::with(Box::new(Replayed(Plain::nfs())), None);
    let volume = place.create(wanted("pvc-1")).unwrap();
    assert!(volume.record.owns_directory && place.path("pvc-1").exists());
    assert_eq!(place.reserved(), 0);
}

#[test]
fn a_server_without_hard_links_is_not_said_to_squash_root() {
    let place = Place::share();
    for errno in [Errno::PERM, Errno::OPNOTSUPP, Errno::MLINK] {
        assert!(place.store.not_linked(errno).to_string().contains("no hard links"));
    }
    assert!(matches!(place.store.not_linked(Errno::ACCESS), Trouble::Denied { .. }));
}

#[test]
fn a_directory_that_is_used_as_it_is_stays_for_its_user_when_its_owner_goes() {
    let place = Place::share();
    let owner = place.create(wanted("shared")).unwrap().record;
    let other = place.other();
    // The same name elsewhere: the directory follows from the name, and was there.
    let user = other.create(wanted_of("two", "shared").retained()).unwrap().1.record;
    assert!(owner.owns_directory && !user.owns_directory);
    assert_eq!(place.notes(), 1);
    std::fs::write(place.path("shared/file"), "precious").unwrap();
    place.store.delete(owner.key).unwrap();
    assert!(place.path("shared/file").exists());
    other.delete(user.key).unwrap();
    assert!(place.path("shared/file").exists());
    assert_eq!(place.notes(), 0);
}

#[test]
fn a_directory_that_somebody_made_and_filled_meanwhile_is_used_with_a_note_where_it_may_be() {
    let place = Place::share();
    let trees = place.trees();
    for (wanted, used) in [(wanted("pvc-1").retained(), true), (wanted("pvc-2"), false)] {
        let mut record = place.store.reserve(&trees, &wanted, 1, true, None).unwrap();
        std::fs::create_dir_all(place.path(&format!("{}/theirs", wanted.name))).unwrap();
        assert_eq!(place.store.place(&trees, &mut record).is_ok(), used);
        assert_eq!((record.owns_directory, place.notes()), (!used, usize::from(used)));
        place.store.undo(&trees, &record).unwrap();
        assert_eq!((place.reserved(), place.notes()), (0, 0));
        assert!(place.path(&format!("{}/theirs", wanted.name)).exists());
    }
}

#[test]
fn a_chosen_directory_that_is_the_volumes_name_leaves_no_note() {
    let place = Place::share();
    let made = place.create(wanted("pvc-1").at("pvc-1")).unwrap();
    place.store.delete(made.record.key).unwrap();
    assert_eq!(place.notes(), 0);
}

#[test]
fn of_two_directories_within_each_other_at_once_one_is_refused() {
    let place = Place::share();
    let trees = place.trees();
    // The outer one is noted, or reserved by its name, between our first look and the making of ours.
    for outer in [wanted("pvc-1").at("a"), wanted("b")] {
        let inner = wanted("pvc-2").at(&format!("{}/inner", outer.directory));
        let mut record = place.store.reserve(&trees, &inner, 1, true, None).unwrap();
        place.died(&outer, true);
        let refused = place.store.place(&trees, &mut record);
        assert!(matches!(refused, Err(CreateError::Nested { .. })), "{refused:?}");
        place.store.undo(&trees, &record).unwrap();
        assert!(
            !place.path(inner.directory.as_str()).exists() && place.path(outer.directory.as_str()).exists()
        );
    }
    place.reap_abandoned();
    assert_eq!((place.reserved(), place.notes()), (0, 0));
}

#[test]
fn a_directory_with_a_volume_beneath_is_not_used_as_it_is() {
    let place = Place::share();
    place.create(wanted("pvc-1").at("a/b")).unwrap();
    for outer in [wanted("pvc-2").at("a").retained(), wanted("a").retained()] {
        let refused = place.create(outer);
        assert!(matches!(refused, Err(CreateError::Nested { .. })), "{refused:?}");
    }
    assert_eq!((place.reserved(), place.notes()), (0, 1));
    std::fs::create_dir(place.path("ab")).unwrap();
    place.create(wanted("pvc-3").at("ab").retained()).unwrap();
}

#[test]
fn an_expansion_does_not_bring_a_deleted_volume_back() {
    let place = Place::share();
    for wanted in [wanted("pvc-1"), wanted("pvc-2").retained()] {
        let record = place.create(wanted.clone()).unwrap().record;
        place.store.delete(record.key).unwrap();
        assert_eq!(place.store.replace(&place.trees(), &record), Err(ExpandError::NotFound));
        assert_eq!(place.names(place.own("volumes")), Vec::<String>::new());
    }
    let record = place.create(wanted("pvc-3")).unwrap().record;
    assert_eq!(place.store.replace(&place.trees(), &record), Ok(()));
}

#[test]
fn one_bad_piece_of_trash_keeps_nothing_else_there() {
    let place = Place::share();
    for name in ["pvc-1", "pvc-2"] {
        let record = place.create(wanted(name)).unwrap().record;
        place.store.delete(record.key).unwrap();
    }
    std::fs::write(place.own("trash/0.json"), "{").unwrap();
    std::fs::write(place.own("trash/z.json"), "{").unwrap();
    place.died(&wanted("pvc-3"), true);
    for name in place.names(place.own("trash")) {
        place.age(&format!("trash/{name}"), 2000);
    }
    let reaped = place.reap_abandoned();
    assert_eq!((reaped.removed, reaped.waiting), (2, 2));
    let trouble = reaped.trouble.unwrap().to_string();
    assert!(trouble.contains("installations/one/trash/"), "{trouble}");
    assert_eq!(
        (place.names(place.own("trash")), place.reserved()),
        (vec!["0.json".into(), "z.json".into()], 0)
    );
}

#[test]
fn trash_is_as_old_as_its_delete() {
    let place = Place::share();
    let record = place.create(wanted("pvc-1")).unwrap().record;
    place.age(&format!("volumes/{}", record.key), 5000);
    place.store.delete(record.key).unwrap();
    assert_eq!(place.store.reap(Some(1000), &|| false).unwrap().waiting, 1);
    place.age(&format!("trash/{}.{}.json", record.key, record.generation), 1100);
    let reaped = place.store.reap(Some(1000), &|| false).unwrap();
    assert_eq!((reaped.removed, reaped.waiting), (1, 0));
}

#[test]
fn a_record_that_could_not_be_read_again_is_not_written() {
    let place = Place::share();
    let mut large = wanted("pvc-1");
    large.fingerprint.parameters.insert("k".into(), "x".repeat(1 << 20));
    let refused = place.create(large).unwrap_err();
    assert!(refused.to_string().contains("may have 1048575"), "{refused}");
    assert_eq!((place.reserved(), place.path("pvc-1").exists()), (0, false));
}

#[test]
fn a_record_that_cant_be_read_is_named_by_the_list_and_by_the_next_look_at_a_pools_sizes() {
    let place = Place::with(Box::new(Small(Plain::local())), Some(1.0));
    let key = place.create(wanted("pvc-1")).unwrap().record.key;
    let file = format!("volumes/{key}");
    std::fs::write(place.own(&file), "{").unwrap();
    // A record that changes is a new file; this one was changed by hand.
    place.store.sizes.lock().clear();
    *place.store.spare.lock() = None;
    let listed = place.store.list(None, 10).unwrap_err().to_string();
    let made = place.create(wanted("pvc-2")).unwrap_err().to_string();
    assert!(listed.contains(&file) && made.contains(&file), "{listed}; {made}");
}

#[test]
fn a_lock_that_another_host_holds_for_ever_is_said_to_be_held() {
    let place = Place::share();
    let key = place.create(wanted("pvc-1")).unwrap().record.key;
    let held = place.store.lock(&place.trees(), key).unwrap();
    let at = i64::from_str_radix(&key.to_string()[..15], 16).unwrap() + 1;
    let again = || {
        let file = tree::open_file(place.trees().lock.as_fd()).unwrap();
        place.store.take(file, at, Duration::from_millis(30)).map(drop)
    };
    assert_eq!(again(), Err(Trouble::Locked { place: "the place".into() }));
    drop(held);
    assert_eq!(again(), Ok(()));
}

#[test]
fn a_chosen_directory_on_another_file_system_is_refused_where_a_delete_would_move_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::share();
    std::fs::create_dir_all(place.path("a/other")).unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &place.path("a/other"), Some("tmpfs"), none, None::<&str>).unwrap();
    let refused = place.create(wanted("pvc-1").at("a/other/b/c"));
    let kept = place.create(wanted("pvc-2").at("a/other/d").retained());
    let beside = place.create(wanted("pvc-3").at("a/b/c"));
    let there = place.names(place.path("a/other"));
    nix::mount::umount(&place.path("a/other")).unwrap();
    assert_eq!(refused, Err(CreateError::OtherFileSystem { directory: "a/other/b/c".into() }));
    assert!(kept.is_ok() && beside.is_ok(), "{kept:?} {beside:?}");
    assert_eq!(there, ["d"]);
}

#[test]
fn a_volume_that_is_gone_gets_no_nodes() {
    let place = Place::share();
    let record = place.create(wanted("pvc-1")).unwrap().record;
    place.store.publish(record.key, &publication("n"), None).unwrap();
    assert_eq!(place.store.delete(record.key), Err(DeleteError::InUse(vec!["n".into()])));
    place.store.unpublish(record.key, None).unwrap();
    place.store.delete(record.key).unwrap();
    assert_eq!(place.store.publish(record.key, &publication("n"), None), Err(PublishError::NotFound));
    assert_eq!(place.names(place.own("published")), Vec::<String>::new());
}

#[test]
fn a_lost_race_leaves_what_lies_in_its_directory() {
    let place = Place::share();
    let trees = place.trees();
    let mine = wanted("pvc-1").at("mine");
    let late = place.died(&mine, true);
    place.create(wanted("pvc-1").at("theirs")).unwrap();
    std::fs::write(place.path("mine/file"), "precious").unwrap();
    let lost = place.store.commit(&trees, &mine, late);
    assert!(matches!(lost, Err(CreateError::Differs(_))), "{lost:?}");
    assert!(place.path("mine/file").exists());
    assert_eq!((place.reserved(), place.notes()), (0, 1));
}

#[test]
fn a_claim_is_recorded_once_and_stays_through_an_expansion() {
    let place = Place::share();
    let claim =
        |namespace: &str| Claim { namespace: namespace.into(), name: "data".into(), volume: "pvc-1".into() };
    let mut wanted = wanted("pvc-1");
    wanted.claim = Some(claim("one"));
    let key = place.create(wanted).unwrap().record.key;
    let (tell, recorded) = (
        |namespace| place.store.claim(key, claim(namespace)),
        || place.store.find(key).unwrap().1.record.claim,
    );
    assert_eq!((tell("one"), recorded()), (Ok(false), Some(claim("one"))));
    assert_eq!((tell("two"), tell("two")), (Ok(true), Ok(false)));
    place.store.expand(key, 5000, 0).unwrap();
    assert_eq!(recorded(), Some(claim("two")));
    place.store.delete(key).unwrap();
    assert_eq!(tell("one"), Err(ExpandError::NotFound));
}
