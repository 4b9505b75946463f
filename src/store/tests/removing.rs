use std::fs;
use std::io::Write;
use std::time::Duration;

use super::super::{Finding, Sizes};
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
    assert_eq!((freed.blobs, freed.bytes, freed.unclear.len()), (3, one.size - 4, 0));
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
fn collecting_removes_what_no_pin_needs() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let unneeded = add(&store, b"unneeded");
    store.ingest(&blob(b"on its way")).unwrap().unwrap().write(b"on its").unwrap();
    fs::write(store.scratch().join("0123.tmp"), "left").unwrap();
    let mut busy = fs::File::create(store.scratch().join("4567.tmp")).unwrap();
    busy.lock().unwrap();
    busy.write_all(b"busy").unwrap();
    let freed = store.collect(&store.exclude().unwrap()).unwrap();
    assert_eq!((freed.blobs, freed.bytes), (1, 8 + 6 + 4));
    assert!(!store.has(&unneeded));
    assert!(holds(&store, &pin) && store.has(&blob(b"a")));
    assert_eq!(files(&store.scratch()), ["4567.tmp"]);
}

#[test]
fn nothing_is_collected_while_a_pin_cannot_say_what_it_needs() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"a"]);
    let two = pinned(&store, "app:2", &[b"b"]);
    flip(&store, &two.manifest);
    let lock = store.exclude().unwrap();
    for freed in [store.remove(&[one], &lock).unwrap(), store.collect(&lock).unwrap()] {
        assert_eq!((freed.blobs, &freed.unclear[..]), (0, std::slice::from_ref(&two)));
    }
    assert!(store.has(&blob(b"a")) && store.has(&blob(b"b")));
}

#[test]
fn a_corrupt_pin_stops_collecting() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    fs::write(store.pin_path(&pin), "").unwrap();
    assert!(matches!(store.collect(&store.exclude().unwrap()), Err(StoreError::Pin { .. })));
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
fn collecting_beside_pulls_takes_nothing_that_is_needed() {
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
        scope.spawn(|| (0..16).for_each(|_| assert!(store.collect(&store.exclude().unwrap()).unwrap().unclear.is_empty())));
    });
    let pins = store.pins().unwrap();
    assert_eq!(pins.len(), 16);
    store.verify(&mut |finding| panic!("{finding:?}")).unwrap();
    let needed: usize = 1 + 3 * pins.len();
    store.collect(&store.exclude().unwrap()).unwrap();
    assert_eq!(files(&store.root().join("blobs")).len(), needed);
    let index = fs::read_to_string(store.root().join("index.json")).unwrap();
    assert!(pins.iter().all(|pin| index.contains(&format!("\"{}\"", pin.name))));
}

#[test]
fn sizes_tell_own_from_shared() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"base", b"one"]);
    let two = pinned(&store, "app:2", &[b"base", b"more"]);
    let sizes = store.sizes(&[one.clone(), two.clone()]);
    assert_eq!(sizes, [Sizes { own: one.size - 4, shared: 4 }, Sizes { own: two.size - 4, shared: 4 }]);
    assert_eq!(store.sizes(std::slice::from_ref(&one)), [Sizes { own: one.size, shared: 0 }]);
}

#[test]
fn verify_finds_all_that_is_wrong() {
    let (_folder, store) = store();
    let good = pinned(&store, "good:1", &[b"good"]);
    let pin = pinned(&store, "app:1", &[b"flipped", b"gone", b"cut"]);
    flip(&store, &blob(b"flipped"));
    fs::remove_file(store.blob_path(&Digest::of(b"gone"))).unwrap();
    let cut = store.blob_path(&Digest::of(b"cut"));
    fs::remove_file(&cut).unwrap();
    fs::write(&cut, b"cu").unwrap();
    fs::write(store.blobs().join("stray"), b"").unwrap();
    let (mut damaged, mut missing, mut unreadable) = (Vec::new(), Vec::new(), 0);
    let mut each = |finding: Finding| match finding {
        Finding::Damaged { found, now: Whereabouts::Aside(at) } => damaged.push((found.expected, at.exists())),
        Finding::Damaged { .. } => panic!("left in place"),
        Finding::Missing { pin: of, blob } => missing.push((*of, blob.digest)),
        Finding::Unreadable { .. } => unreadable += 1,
    };
    store.verify(&mut each).unwrap();
    damaged.sort();
    let mut expected = [(Digest::of(b"flipped"), true), (Digest::of(b"cut"), true)];
    expected.sort();
    assert_eq!(damaged, expected);
    assert_eq!(missing, [&b"flipped"[..], b"gone", b"cut"].map(|l| (pin.clone(), Digest::of(l))));
    assert_eq!(unreadable, 1);
    assert!(holds(&store, &good));
}
