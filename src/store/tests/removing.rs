use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};

use super::super::{Pruned, Pruning, Sizes};
use super::verifying::found;
use super::*;

fn holds(store: &Store, pin: &Pin) -> bool {
    store.has(&pin.manifest) && store.has(&pin.config)
}

#[test]
fn blobs_that_others_need_stay() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"base", b"one"]);
    let two = pinned(&store, "app:2", &[b"base", b"two"]);
    let lock = store.exclude().unwrap();
    let freed = store.remove(std::slice::from_ref(&one), &lock).unwrap();
    assert_eq!((freed.blobs, freed.bytes), (3, one.size - 4));
    assert_eq!(store.pins().unwrap(), vec![two.clone()]);
    assert!(!holds(&store, &one) && !store.has(&blob(b"one")));
    assert!(holds(&store, &two) && store.has(&blob(b"base")) && store.has(&blob(b"two")));
    assert!(!fs::read_to_string(store.root().join("index.json")).unwrap().contains("app:1"));
    let freed = store.remove(&[two], &lock).unwrap();
    assert_eq!(freed.blobs, 4);
    assert_eq!(files(&store.root().join("blobs")), [""; 0]);
    assert_eq!(fs::read_dir(store.root().join("pins")).unwrap().count(), 0, "emptied folders went too");
}

#[test]
fn what_another_removed_meanwhile_is_removed() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let lock = store.exclude().unwrap();
    assert_eq!(store.remove(std::slice::from_ref(&pin), &lock).unwrap().blobs, 3);
    assert_eq!(store.remove(&[pin], &lock).unwrap().blobs, 0);
    assert!(found(&store).is_empty());
}

#[test]
fn two_names_of_one_image_share_all_of_it() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"a"]);
    let two = pinned(&store, "other:1", &[b"a"]);
    assert_eq!(store.remove(&[one], &store.exclude().unwrap()).unwrap().blobs, 0);
    assert!(holds(&store, &two));
}

#[test]
fn removing_leaves_what_another_run_has_begun() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let fetched = add(&store, b"fetched, and not yet pinned");
    store.ingest(&blob(b"on its way")).unwrap().unwrap().write(b"on its").unwrap();
    store.remove(&[pin], &store.exclude().unwrap()).unwrap();
    assert!(store.has(&fetched));
    assert_eq!(store.ingest(&blob(b"on its way")).unwrap().unwrap().offset(), 6);
}

#[test]
fn pruning_removes_what_no_pin_needs() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let unneeded = add(&store, b"unneeded");
    store.ingest(&blob(b"on its way")).unwrap().unwrap().write(b"on its").unwrap();
    fs::write(store.scratch().join("0123.tmp"), "left").unwrap();
    let mut busy = fs::File::create(store.scratch().join("4567.tmp")).unwrap();
    busy.lock().unwrap();
    busy.write_all(b"busy").unwrap();
    let rules = Pruning { parts_since: Some(Timestamp::now() + 1.hour()), ..Pruning::default() };
    let kept = store.to_prune(&Pruning { parts_since: Some(Timestamp::now() - 1.hour()), ..rules }).unwrap();
    assert_eq!(kept.bytes(), 8 + 4, "a young part is kept");
    let planned = store.to_prune(&rules).unwrap();
    assert!(store.has(&unneeded), "nothing was done yet");
    let gone = store.prune(&rules, &store.exclude().unwrap()).unwrap();
    assert_eq!((gone.bytes(), &gone.blobs[..]), (8 + 6 + 4, &[(unneeded.digest, 8)][..]));
    assert_eq!(gone, planned);
    assert!(!store.has(&unneeded));
    assert!(holds(&store, &pin) && store.has(&blob(b"a")));
    assert_eq!(files(&store.scratch()), ["4567.tmp"]);
}

#[test]
fn what_a_damaged_manifest_names_is_kept_all_the_same() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"a"]);
    let two = pinned(&store, "app:2", &[b"b"]);
    flip(&store, &two.manifest);
    let lock = store.exclude().unwrap();
    assert_eq!(store.remove(&[one], &lock).unwrap().blobs, 3);
    assert_eq!(store.prune(&Pruning::default(), &lock).unwrap(), Pruned::default());
    assert!(!store.has(&blob(b"a")) && store.has(&blob(b"b")));
}

#[test]
fn a_corrupt_pin_stops_all_removing() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let other = pinned(&store, "app:2", &[b"b"]);
    fs::write(store.pin_path(&pin), "").unwrap();
    let lock = store.exclude().unwrap();
    assert!(matches!(store.prune(&Pruning { keep_bytes: Some(0), ..Pruning::default() }, &lock), Err(StoreError::Pin { .. })));
    assert!(matches!(store.remove(std::slice::from_ref(&other), &lock), Err(StoreError::Pin { .. })));
    assert!(holds(&store, &other) && store.find(&reference("app:2"), None).unwrap() == [other]);
    assert!(holds(&store, &pin));
}

#[test]
fn whoever_removes_is_alone() {
    let (_folder, store) = store();
    let hurried = store.clone().with_lock_timeout(Duration::from_millis(5));
    let shared = [store.share().unwrap(), store.share().unwrap()];
    assert!(matches!(hurried.exclude(), Err(StoreError::Locked { path, .. }) if path == store.root().join("lock")));
    drop(shared);
    let _alone = store.exclude().unwrap();
    assert!(matches!(hurried.share(), Err(StoreError::Locked { .. })));
}

#[test]
fn pruning_beside_pulls_takes_nothing_that_is_needed() {
    let (_folder, store) = store();
    // Layers that every image has: unreferenced between two pulls, and then counted on again.
    let pull = |name: &str, layer: &[u8]| {
        let _counted_on = store.share().unwrap();
        pinned(&store, name, &[b"base", layer])
    };
    let take = |pins: &[Pin]| store.remove(pins, &store.exclude().unwrap()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            scope.spawn(move || {
                for round in 0..8 {
                    let name = format!("app{writer}:{round}");
                    let pin = pull(&name, name.as_bytes());
                    if round % 2 == 0 {
                        take(&[pin]);
                    }
                }
            });
        }
        scope.spawn(|| (0..16).for_each(|_| drop(store.prune(&Pruning::default(), &store.exclude().unwrap()).unwrap())));
    });
    let pins = store.pins().unwrap();
    assert_eq!(pins.len(), 16);
    let needed: usize = 1 + 3 * pins.len();
    store.prune(&Pruning::default(), &store.exclude().unwrap()).unwrap();
    assert!(found(&store).is_empty());
    assert_eq!(files(&store.root().join("blobs")).len(), needed);
    let index = fs::read_to_string(store.root().join("index.json")).unwrap();
    assert!(pins.iter().all(|pin| index.contains(&format!("\"{}\"", pin.name))));
}

#[test]
fn sizes_tell_own_from_shared() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"base", b"one"]);
    let two = pinned(&store, "app:2", &[b"base", b"more"]);
    let sizes = store.sizes([&one, &two]);
    assert_eq!(sizes, [Sizes { own: one.size - 4, shared: 4 }, Sizes { own: two.size - 4, shared: 4 }]);
    assert_eq!(store.sizes([&one]), [Sizes { own: one.size, shared: 0 }]);
}

#[test]
fn pruning_by_age_and_by_size_takes_what_was_used_longest_ago() {
    let (_folder, store) = store();
    let hours_ago = |pin: &Pin, hours: u64| {
        let file = fs::File::open(store.pin_path(pin)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    let pins = ["app:1", "app:2", "app:3"].map(|name| pinned(&store, name, &[b"base", name.as_bytes()]));
    (1..).zip(&pins).for_each(|(age, pin)| hours_ago(pin, 10 * age));
    store.used(&pins[2]);
    let going = |rules: Pruning| store.to_prune(&rules).unwrap().pins;
    let unused = |hours: i64| Pruning { unused_since: Some(Timestamp::now() - hours.hours()), ..Pruning::default() };
    assert_eq!(going(unused(15)), [pins[1].clone()]);
    assert_eq!(going(unused(5)), [pins[1].clone(), pins[0].clone()]);
    assert_eq!(going(unused(25)), []);
    let at_most = |bytes| Pruning { keep_bytes: Some(bytes), ..Pruning::default() };
    let all = 4 + pins.iter().map(|pin| pin.size - 4).sum::<u64>();
    assert_eq!(going(at_most(all)), []);
    assert_eq!(going(at_most(all - 1)), [pins[1].clone()]);
    assert_eq!(going(at_most(pins[2].size)), [pins[1].clone(), pins[0].clone()]);
    assert_eq!(going(at_most(0)).len(), 3);
    let gone = store.prune(&at_most(pins[2].size), &store.exclude().unwrap()).unwrap();
    assert_eq!(gone.blobs.len(), 6);
    assert_eq!(store.pins().unwrap(), [pins[2].clone()]);
    assert!(holds(&store, &pins[2]) && store.has(&blob(b"base")));
    assert!(found(&store).is_empty());
}

#[test]
fn whoever_removes_has_a_turn_among_many_who_add() {
    let (_folder, store) = store();
    let patient = store.clone().with_lock_timeout(Duration::from_secs(10));
    let done = AtomicBool::new(false);
    let add = || {
        while !done.load(Ordering::Relaxed) {
            let _counted_on = patient.share().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::scope(|scope| {
        (0..8).for_each(|_| drop(scope.spawn(add)));
        let turns: Vec<_> = (0..3).map(|_| patient.exclude().map(drop)).collect();
        done.store(true, Ordering::Relaxed);
        assert!(turns.iter().all(Result::is_ok), "{turns:?}");
    });
}

#[test]
fn who_waits_for_long_is_told_for_whom() {
    let (_folder, store) = store();
    let (send, receive) = mpsc::channel();
    let send = std::sync::Mutex::new(send);
    let waiting = store.clone().with_waiting(move |path, holder| send.lock().unwrap().send((path.to_owned(), holder)).unwrap());
    let held = store.ingest(&blob(b"slow")).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| drop(waiting.ingest(&blob(b"slow")).unwrap()));
        assert_eq!(receive.recv().unwrap(), (store.part(&Digest::of(b"slow")), Some(std::process::id())));
        drop(held);
        waiter.join().unwrap();
    });
    assert!(receive.try_recv().is_err(), "told once");
}
