//! What a pool promises.

use super::*;
use crate::backend::store::promise::Promise;

fn pool() -> Place {
    Place::with(Box::new(Small(Plain::local())), Some(1.0))
}

#[test]
fn a_pool_promises_its_space_once_to_all_installations() {
    let place = pool();
    let other = store(place.home.path(), "two", Box::new(Small(Plain::local())), Some(1.0));
    place.create(wanted("pvc-1").sized(600_000)).unwrap();
    let refused = other.create(wanted_of("two", "pvc-2").sized(600_000)).unwrap_err();
    assert_eq!(refused, CreateError::TooLarge { bytes: 600_000, available: 400_000 });
    assert_eq!(other.capacity().unwrap().available, 400_000);
    // And nobody of the others promises in the meantime.
    let lock = match other.promise(&other.trees_made().unwrap(), Key::of("two", "pvc-9"), 1).unwrap() {
        Promise::Kept(lock) => lock,
        Promise::TooLarge { .. } => panic!("1 byte is free"),
    };
    let file =
        || tree::open_lock(std::fs::File::open(place.path(".kuration")).unwrap().as_fd(), "lock").unwrap();
    let refused = place.store.take(file(), 0, Duration::from_millis(30)).err();
    assert_eq!(refused, Some(Trouble::Locked { place: "the place".into() }));
    drop(lock);
    place.store.take(file(), 0, Duration::ZERO).unwrap();
}

#[test]
fn a_look_at_the_sizes_is_good_for_seconds_and_until_somebody_else_promises() {
    let place = pool();
    let other = store(place.home.path(), "two", Box::new(Small(Plain::local())), Some(1.0));
    let spare = || place.store.spare.lock().map(|(bytes, _)| bytes);
    place.create(wanted("pvc-1").sized(100_000)).unwrap();
    assert_eq!(spare(), Some(900_000));
    place.create(wanted("pvc-2").sized(100_000)).unwrap();
    assert_eq!(spare(), Some(800_000));
    other.create(wanted_of("two", "pvc-3").sized(500_000)).unwrap();
    assert_eq!(spare(), Some(800_000));
    let refused = place.create(wanted("pvc-4").sized(400_000)).unwrap_err();
    assert_eq!(refused, CreateError::TooLarge { bytes: 400_000, available: 300_000 });
    place.create(wanted("pvc-5").sized(100_000)).unwrap();
    assert_eq!(spare(), Some(200_000));
    // As if the pool had been larger then.
    let long_ago = Instant::now().checked_sub(Duration::from_secs(11)).unwrap();
    *place.store.spare.lock() = Some((600_000, long_ago));
    let refused = place.create(wanted("pvc-4").sized(400_000)).unwrap_err();
    assert_eq!(refused, CreateError::TooLarge { bytes: 400_000, available: 200_000 });
}

#[test]
fn what_is_being_made_is_promised_from_its_reservation_on() {
    let place = pool();
    let other = store(place.home.path(), "two", Box::new(Small(Plain::local())), Some(1.0));
    let half_made = place.died(&wanted("pvc-1").sized(600_000), true);
    let refused = other.create(wanted_of("two", "pvc-2").sized(600_000)).unwrap_err();
    assert_eq!(refused, CreateError::TooLarge { bytes: 600_000, available: 400_000 });
    assert_eq!(place.store.capacity().unwrap().available, 400_000);
    // It is no other's than its own next try's, and counts once when that is done.
    place.create(wanted("pvc-1").sized(600_000)).unwrap();
    assert_eq!(place.reserved(), 1, "{half_made:?}");
    assert_eq!(place.store.capacity().unwrap().available, 400_000);
}

#[test]
fn a_reservation_that_died_while_it_was_written_is_promised_nothing() {
    let place = pool();
    let record = place.died(&wanted("pvc-1").sized(600_000), false);
    std::fs::write(place.own(&format!("reserved/{}.{}", record.key, record.generation)), "{").unwrap();
    assert_eq!(place.store.capacity().unwrap().available, 1_000_000);
}

#[test]
fn a_reservation_counts_before_it_is_synced_and_others_promise_meanwhile() {
    let place = pool();
    let trees = place.trees();
    let wanted = wanted("pvc-1").sized(600_000);
    let record = place.died(&wanted, false);
    let content = serde_json::to_vec(&record).unwrap();
    let name = format!("{}.again", record.key);
    tree::remove_file(trees.reserved.as_fd(), &format!("{}.{}", record.key, record.generation)).unwrap();
    let mut lock = Some(place.store.lock_promises().unwrap());
    tree::write_new_and(trees.reserved.as_fd(), &name, &content, || {
        drop(lock.take());
        let refused = place.create(self::wanted("pvc-2").sized(600_000)).unwrap_err();
        assert_eq!(refused, CreateError::TooLarge { bytes: 600_000, available: 400_000 });
        place.create(self::wanted("pvc-3").sized(400_000)).unwrap();
    })
    .unwrap();
    assert!(lock.is_none());
}

#[test]
fn sizes_are_read_again_when_their_directory_has_changed_and_only_then() {
    let place = pool();
    let taken = || 1_000_000 - place.store.capacity().unwrap().available;
    let date = |time: SystemTime| {
        std::fs::File::open(place.own("volumes")).unwrap().set_modified(time).unwrap();
    };
    let old = SystemTime::now() - Duration::from_secs(3600);
    let young = SystemTime::now();
    let record = place.create(wanted("pvc-1").sized(100_000)).unwrap().record;
    let (there, aside) = (place.own(&format!("volumes/{}", record.key)), place.path("aside"));
    date(young);
    assert_eq!(taken(), 100_000);
    // The next change may have the same time, as long as that is young.
    std::fs::rename(&there, &aside).unwrap();
    date(young);
    assert_eq!(taken(), 0);
    std::fs::rename(&aside, &there).unwrap();
    date(old);
    assert_eq!(taken(), 100_000);
    // None has that of an old one: what is there is not looked at.
    std::fs::rename(&there, &aside).unwrap();
    date(old);
    assert_eq!(taken(), 100_000);
    place.create(wanted("pvc-2").sized(200_000)).unwrap();
    assert_eq!(taken(), 200_000);
}

#[test]
fn many_at_once_are_promised_no_more_than_there_is() {
    let place = pool();
    let made: Vec<bool> = std::thread::scope(|scope| {
        let make = |number: u32| place.create(wanted(&format!("pvc-{number}")).sized(90_000)).is_ok();
        let all: Vec<_> = (0..32).map(|number| scope.spawn(move || make(number))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 11);
    assert_eq!(place.store.capacity().unwrap().available, 10_000);
}

#[test]
fn trash_in_the_way_of_a_promise_goes_early_and_no_other() {
    let place = pool();
    let trashed = |name: &str, bytes| {
        let record = place.create(wanted(name).sized(bytes)).unwrap().record;
        place.store.delete(record.key).unwrap();
    };
    trashed("pvc-1", 300_000);
    trashed("pvc-2", 300_000);
    place.create(wanted("pvc-3").sized(300_000)).unwrap();
    assert_eq!(place.names(place.own("trash")).len(), 4);
    let grown = place.create(wanted("pvc-4").sized(100_000)).unwrap().record;
    assert_eq!(place.names(place.own("trash")).len(), 4);
    place.store.expand(grown.key, 100_001, 0).unwrap();
    assert_eq!(place.names(place.own("trash")).len(), 0);
}
