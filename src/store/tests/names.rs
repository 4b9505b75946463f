use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};

use super::super::lock::{self, Hold};
use super::*;
use crate::oci::Platform;

fn roots(pins: &[Pin]) -> Vec<Digest> {
    pins.iter().map(|pin| pin.root.digest).collect()
}

/// The names and digests in `index.json`, in its order.
fn index(store: &Store) -> Vec<(String, Digest)> {
    let text = fs::read(store.root().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    let entry = |e: &serde_json::Value| {
        let annotations = &e["annotations"];
        assert_eq!(annotations["org.opencontainers.image.ref.name"], annotations["io.containerd.image.name"]);
        (annotations["io.containerd.image.name"].as_str().unwrap().to_owned(), e["digest"].as_str().unwrap().parse().unwrap())
    };
    index["manifests"].as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn pins_of_one_name_lie_side_by_side_and_the_newest_answers() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"a"]);
    let two = pinned(&store, "app:1", &[b"b"]);
    let other = pinned(&store, "app:2", &[b"c"]);
    assert_eq!(store.find(&reference("app:1"), None).unwrap(), [two.clone(), one.clone()]);
    assert_eq!(store.find(&one.pinned(), None).unwrap(), vec![one.clone()]);
    assert_eq!(store.find(&reference("app"), None).unwrap(), []);
    assert_eq!(store.find(&reference(&format!("app@{}", one.root.digest)), None).unwrap(), vec![one.clone()]);
    assert_eq!(store.find(&reference(&format!("app:2@{}", one.root.digest)), None).unwrap(), []);
    assert_eq!(store.pins().unwrap(), [other, two, one]);
}

#[test]
fn a_tag_is_not_the_beginning_of_another() {
    let (_folder, store) = store();
    pinned(&store, "app:v0.0.22", &[b"a"]);
    assert_eq!(store.find(&reference("app:v0.0.2"), None).unwrap(), []);
}

#[test]
fn what_was_pinned_last_answers_whatever_the_clock_says() {
    let (_folder, store) = store();
    let mut future = pin_of(&image(&store, "amd64", &[b"a"]), "app:1");
    future.pinned_at = Timestamp::now() + 100_000.hours();
    store.pin(&future).unwrap();
    let now = pinned(&store, "app:1", &[b"b"]);
    assert_eq!(roots(&store.find(&reference("app:1"), None).unwrap()), [now.root.digest, future.root.digest]);
    store.pin(&future).unwrap();
    assert_eq!(roots(&store.find(&reference("app:1"), None).unwrap()), [future.root.digest, now.root.digest]);
    assert_eq!(store.pins().unwrap().len(), 2);
}

#[test]
fn platforms_of_one_root_lie_side_by_side() {
    let (_folder, store) = store();
    let root = add(&store, b"an index");
    let pin = |architecture: &str, layer: &[u8]| {
        let image = Image { root: root.clone(), ..image(&store, architecture, &[layer]) };
        let pin = pin_of(&image, "app:1");
        store.pin(&pin).unwrap();
        pin
    };
    let (v6, amd64, v7) = (pin("armel", b"6"), pin("amd64", b"x"), pin("armhf", b"7"));
    let v6_again = Pin { pinned_at: Timestamp::now(), ..v6.clone() };
    store.pin(&v6_again).unwrap();
    let find = |platform: &str| store.find(&reference("app:1"), Some(&platform.parse::<Platform>().unwrap())).unwrap();
    assert_eq!(find("linux/arm/v7"), [v7.clone(), v6_again.clone()]);
    assert_eq!(find("linux/arm/v6"), [v6_again]);
    assert_eq!(find("linux/amd64"), vec![amd64.clone()]);
    assert_eq!(find("linux/s390x"), []);
    assert_eq!(store.find(&amd64.pinned(), None).unwrap().len(), 3);
    assert_eq!(store.find(&amd64.name.pinned_to(amd64.manifest.digest), None).unwrap(), [amd64]);
    assert_eq!(index(&store), [("docker.io/library/app:1".to_owned(), root.digest)]);
}

#[test]
fn every_name_has_a_place_of_its_own() {
    let (_folder, store) = store();
    let long = "a".repeat(247);
    let tag = "t".repeat(128);
    let names =
        ["app:1", "app/app:1", "app/app/app:1", "localhost:5000/app:1", "[::1]:5000/app:1", &format!("{long}:1"), &format!("app:{tag}")];
    for name in names {
        pinned(&store, name, &[b"a"]);
    }
    let mut image = image(&store, "amd64", &[b"a"]);
    let word = "x".repeat(64);
    image.platform = Platform::new(&word, &word, Some(&word)).unwrap();
    store.pin(&pin_of(&image, &format!("app:{tag}"))).unwrap();
    assert_eq!(store.pins().unwrap().len(), names.len() + 1);
    for name in names {
        assert_eq!(store.find(&reference(name), None).unwrap()[0].name, reference(name).name());
    }
}

#[test]
fn the_index_names_the_newest_root_by_tag_and_older_ones_by_digest() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"a"]);
    let other = pinned(&store, "app:10", &[b"c"]);
    let two = pinned(&store, "app:1", &[b"b"]);
    let named = |pin: &Pin| (pin.name.to_string(), pin.root.digest);
    let older = (one.pinned().to_string(), one.root.digest);
    assert_eq!(index(&store), [named(&other), named(&two), older.clone()]);
    store.derive_index(store.pins().unwrap()).unwrap();
    assert_eq!(index(&store), [named(&two), older, named(&other)]);
    store.pin(&one).unwrap();
    assert_eq!(index(&store), [named(&other), named(&one), (two.pinned().to_string(), two.root.digest)]);
}

#[test]
fn the_index_is_derived_anew_when_it_cannot_be_trusted() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"a"]);
    let path = store.root().join("index.json");
    let both = |two: &Pin| assert_eq!(index(&store), [one.clone(), two.clone()].map(|p| (p.name.to_string(), p.root.digest)));
    fs::write(&path, r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
    both(&pinned(&store, "app:2", &[b"b"]));
    fs::remove_file(&path).unwrap();
    both(&pinned(&store, "app:2", &[b"b"]));
    // A run that was killed after it wrote its pin, and one that the power was cut from.
    let (current, mut number) = (store.root().join("index.current"), 3);
    for left in [None, Some("another run of the system"), Some("")] {
        let text = fs::read(&path).unwrap();
        let lost = pinned(&store, &format!("app:{number}"), &[b"c"]);
        number += 1;
        fs::write(&path, text).unwrap();
        match left {
            None => fs::remove_file(&current).unwrap(),
            Some(text) => fs::write(&current, text).unwrap(),
        }
        pinned(&store, "app:2", &[b"b"]);
        assert!(index(&store).contains(&(lost.name.to_string(), lost.root.digest)), "{left:?}");
    }
}

#[test]
fn what_a_killed_process_noted_is_written_by_the_next() {
    let (_folder, store) = store();
    let [path, todo] = ["index.json", "index.todo"].map(|name| store.root().join(name));
    let _ = pinned(&store, "app:1", &[b"a"]);
    assert!(!todo.exists(), "nothing is left to do");
    let noted = |names: &[u8]| {
        let text = fs::read(&path).unwrap();
        let lost = pinned(&store, "app:2", &[&names[..names.len().min(99)]]);
        // As a run leaves them that is killed after its pin.
        fs::write(&path, text).unwrap();
        fs::write(&todo, names).unwrap();
        lost
    };
    // Whole, behind a line that was cut off, and what no run writes.
    for names in [&b"\napp:2\n"[..], b"\nap\napp:2\n", b"\n!\n", b"\xff", &[b'a'; 5 << 20]] {
        let lost = noted(names);
        pinned(&store, "app:3", &[b"c"]);
        assert!(index(&store).contains(&(lost.name.to_string(), lost.root.digest)));
        assert!(!todo.exists());
        let lost = noted(names);
        store.mend_index();
        assert!(index(&store).contains(&(lost.name.to_string(), lost.root.digest)));
        assert!(!todo.exists());
    }
}

#[test]
fn whoever_has_the_index_writes_it_for_all_who_wait() {
    let (_folder, store) = store();
    let same = image(&store, "amd64", &[b"a"]);
    let [path, todo] = ["index.json", "index.todo"].map(|name| store.root().join(name));
    let held = lock::lock_path(&store.root().join("index.lock"), Hold::Alone, &store.patience()).unwrap();
    let written = || fs::metadata(&path).unwrap().ino();
    let first = std::thread::scope(|scope| {
        for n in 0..10 {
            let (store, same) = (&store, &same);
            scope.spawn(move || store.pin(&pin_of(same, &format!("app:{n}"))).unwrap());
        }
        let wait_until = |done: &dyn Fn() -> bool| {
            while !done() {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        wait_until(&|| store.pins().unwrap().len() == 10);
        assert!(!path.exists());
        drop(held);
        wait_until(&|| !todo.exists());
        written()
    });
    assert_eq!(index(&store).len(), 10);
    assert_eq!(written(), first, "written once");
}

#[test]
fn parallel_pins_lose_no_name() {
    let (_folder, store) = store();
    let same = image(&store, "amd64", &[b"a"]);
    std::thread::scope(|scope| {
        for n in 0..20 {
            let (store, same) = (&store, &same);
            scope.spawn(move || store.pin(&pin_of(same, &format!("app:{n}"))).unwrap());
        }
    });
    assert_eq!(store.pins().unwrap().len(), 20);
    assert_eq!(index(&store).len(), 20);
}

#[test]
fn last_use_is_noted() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1);
    fs::File::open(store.pin_path(&pin)).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(store.last_used(&pin).unwrap().as_second(), 1);
    store.used(&pin);
    assert!(store.last_used(&pin).unwrap() >= pin.pinned_at - 1.second());
    assert_eq!(store.last_used(&pin_of(&image(&store, "amd64", &[b"b"]), "app:1")), None);
}
