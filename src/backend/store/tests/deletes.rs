//! Deletes, what overtakes them, and what is left of them in the trash.

use super::*;
use crate::volume::Scratch;

impl Wanted {
    fn scratch(self) -> Self {
        let scratch = Scratch { node: "n".to_owned(), target: "/nowhere".to_owned() };
        Self { scratch: Some(scratch), ..self }
    }
}

/// A volume with a file in it.
fn made(place: &Place, wanted: Wanted) -> Record {
    let record = place.create(wanted).unwrap().record;
    std::fs::write(place.path(record.directory.as_str()).join("file"), record.name.as_bytes()).unwrap();
    record
}

fn file(place: &Place, record: &Record) -> String {
    std::fs::read_to_string(place.path(record.directory.as_str()).join("file")).unwrap_or_default()
}

fn in_use() -> Result<(), DeleteError> {
    Err(DeleteError::InUse(vec!["n".to_owned()]))
}

#[test]
fn a_volume_that_a_node_gets_in_the_middle_of_its_delete_is_brought_back_whole() {
    // On a share and in a pool.
    for place in [Place::share(), Place::with(Box::new(Small(Plain::local())), Some(1.0))] {
        std::fs::create_dir(place.path("theirs")).unwrap();
        let volumes = [
            wanted("pvc-1").sized(10),
            wanted("pvc-2").sized(10).at("a/b"),
            wanted("pvc-3").sized(10).retained(),
            wanted("pvc-4").sized(10).at("theirs").retained(),
            wanted("pvc-5").sized(10).scratch(),
        ];
        for wanted in volumes {
            let record = made(&place, wanted);
            let (notes, trees) = (place.notes(), place.trees());
            // The delete saw that no node has it; now one gets it, and is told so.
            place.store.refuse_published(&trees, record.key).unwrap();
            place.store.publish(record.key, &publication("n"), None).unwrap();
            assert_eq!(place.store.throw_away(&trees, &record), in_use(), "{}", record.name);

            let (_, found) = place.store.find(record.key).unwrap();
            assert_eq!((&found.record, found.published.len()), (&record, 1));
            assert_eq!((file(&place, &record), place.notes()), (record.name.clone(), notes));
            for shelf in ["trash", "retained", "reserved"] {
                assert_eq!(place.names(place.own(shelf)), Vec::<String>::new(), "{}", record.name);
            }
            assert_eq!(place.store.expand(record.key, 20, 0), Ok(20));

            place.store.unpublish(record.key, None).unwrap();
            place.store.delete(record.key).unwrap();
            assert_eq!(place.store.delete(record.key), Ok(()));
            assert_eq!(place.names(place.own("volumes")), Vec::<String>::new());
            let shelf = if record.on_delete == OnDelete::Retain { "retained" } else { "trash" };
            assert_ne!(place.names(place.own(shelf)), Vec::<String>::new());
            for name in place.names(place.own("retained")) {
                std::fs::remove_file(place.own("retained").join(name)).unwrap();
            }
            place.store.reap(Some(0), &|| false).unwrap();
        }
        assert_eq!(place.notes(), 0);
    }
}

#[test]
fn of_two_deletes_that_a_publication_overtakes_neither_succeeds_and_one_brings_the_volume_back() {
    let place = Place::share();
    let trees = place.trees();
    let record = made(&place, wanted("pvc-1"));
    // The other one moved it into the trash, and the note was put up just before.
    place.store.throw_away(&trees, &record).unwrap();
    let notes = tree::make_directory(trees.published.as_fd(), &record.key.to_string(), 0o700).unwrap();
    let note = serde_json::to_string(&publication("n")).unwrap();
    tree::put_note(notes.as_fd(), "note", &note).unwrap();
    assert_eq!(place.store.throw_away(&trees, &record), in_use());
    // It is the other's to bring back.
    assert!(!place.path("pvc-1").exists() && place.names(place.own("volumes")).is_empty());
    assert_eq!(place.store.bring_back(&trees, &record), Ok(()));
    assert_eq!(file(&place, &record), "pvc-1");
    assert_eq!(place.store.find(record.key).unwrap().1.record, record);
}

#[test]
fn a_volume_that_a_dead_delete_left_in_the_trash_with_a_node_on_it_is_brought_back_by_the_next_try() {
    for wanted in [|| wanted("pvc-1"), || wanted("pvc-1").retained()] {
        let place = Place::share();
        let trees = place.trees();
        // One of that name was deleted before, and is nobody's business.
        let former = made(&place, wanted());
        place.store.delete(former.key).unwrap();
        let shelf = if former.on_delete == OnDelete::Retain { "retained" } else { "trash" };
        let lies = place.names(place.own(shelf));
        for name in &lies {
            place.age(&format!("{shelf}/{name}"), 60);
        }
        let record = made(&place, wanted());
        place.store.throw_away(&trees, &record).unwrap();
        // Nobody has it: there is nothing to delete.
        assert_eq!(place.store.delete(record.key), Ok(()));
        let notes = tree::make_directory(trees.published.as_fd(), &record.key.to_string(), 0o700).unwrap();
        let note = serde_json::to_string(&publication("n")).unwrap();
        tree::put_note(notes.as_fd(), "note", &note).unwrap();
        assert_eq!(place.store.delete(record.key), in_use());
        assert_eq!(place.store.find(record.key).unwrap().1.record, record);
        assert_eq!((file(&place, &record), place.names(place.own(shelf))), ("pvc-1".to_owned(), lies));
        // The one that was thought dead, and a third.
        assert_eq!(place.store.bring_back(&trees, &record), Ok(()));
        assert_eq!(place.store.delete(record.key), in_use());
    }
}

#[test]
fn what_was_made_in_a_volumes_place_is_not_replaced_by_it() {
    let place = Place::share();
    let trees = place.trees();
    let record = made(&place, wanted("pvc-1"));
    place.store.throw_away(&trees, &record).unwrap();
    let new = made(&place, wanted("pvc-1"));
    std::fs::write(place.path("pvc-1/file"), "new").unwrap();
    let trouble = place.store.bring_back(&trees, &record).unwrap_err().to_string();
    assert!(trouble.contains("bringing back the volume"), "{trouble}");
    assert_eq!(file(&place, &new), "new");
    assert_eq!(place.store.find(new.key).unwrap().1.record, new);
    assert_eq!(place.names(place.own("trash")).len(), 2);
}

#[test]
fn a_name_is_moved_only_where_none_is() {
    let place = Place::share();
    let root = std::fs::File::open(place.home.path()).unwrap();
    let moved = |name, new| tree::move_where_none_is(root.as_fd(), name, root.as_fd(), new);
    std::fs::create_dir(place.path("empty")).unwrap();
    for name in ["a", "b"] {
        std::fs::write(place.path(name), name).unwrap();
    }
    assert_eq!(moved("a", "b"), Err(Errno::EXIST));
    assert_eq!(moved("a", "empty"), Err(Errno::EXIST));
    assert_eq!(moved("none", "c"), Err(Errno::NOENT));
    assert_eq!(moved("a", "c"), Ok(()));
    assert_eq!(place.names(place.path(".")), ["b", "c", "empty"]);
}

#[test]
fn scratch_goes_at_once_and_alone_where_only_that_is_asked() {
    let place = Place::share();
    let kept = made(&place, wanted("pvc-1"));
    place.store.delete(kept.key).unwrap();
    let others = place.names(place.own("trash"));
    // Nobody so much as reads what is no scratch, nor undoes what a dead creation left.
    std::fs::write(place.own("trash/0.json"), "{").unwrap();
    place.died(&wanted("pvc-2"), true);
    for name in place.names(place.own("reserved")) {
        place.age(&format!("reserved/{name}"), 4000);
    }
    let scratch = made(&place, wanted("inline").scratch());
    let thrown = place.own(&format!("trash/{}.{}.scratch", scratch.key, scratch.generation));
    place.store.delete(scratch.key).unwrap();
    assert_eq!(std::fs::read_to_string(thrown.join("file")).unwrap(), "inline");

    let reaped = place.store.reap(None, &|| false).unwrap();
    assert_eq!((reaped.removed, reaped.waiting, reaped.trouble), (1, 2, None));
    assert_eq!(place.names(place.own("trash")), [vec!["0.json".to_owned()], others].concat());
    assert_eq!(place.reserved(), 1);
    assert_eq!(place.store.reap(None, &|| false).unwrap().removed, 0);
}

#[test]
fn scratch_waits_for_no_lifetime_in_a_round_for_all() {
    let place = Place::share();
    for wanted in [wanted("pvc-1"), wanted("inline").scratch()] {
        let record = made(&place, wanted);
        place.store.delete(record.key).unwrap();
    }
    let reaped = place.store.reap(Some(1000), &|| false).unwrap();
    assert_eq!((reaped.removed, reaped.waiting, reaped.trouble), (1, 1, None));
    assert!(place.names(place.own("trash")).iter().all(|name| !name.contains("scratch")));
}

#[test]
fn scratch_that_one_stops_in_the_middle_of_is_left_for_the_next_round() {
    let place = Place::share();
    let record = made(&place, wanted("inline").scratch());
    place.store.delete(record.key).unwrap();
    assert_eq!(place.store.reap(None, &|| true).unwrap().waiting, 1);
    assert_eq!(place.store.reap(None, &|| false).unwrap().removed, 1);
}
