use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Mutex;

use super::super::{Checkup, Finding, Tally, Watch};
use super::*;

/// Keeps what is told.
#[derive(Default)]
struct Listener {
    findings: Mutex<Vec<Finding>>,
    hashed: Mutex<u64>,
}

impl Watch for Listener {
    fn found(&self, finding: Finding) {
        self.findings.lock().unwrap().push(finding);
    }

    fn hashed(&self, bytes: u64) {
        *self.hashed.lock().unwrap() += bytes;
    }
}

const ALL: Checkup<'_> = Checkup { of: None, hash: true };

fn looked(store: &Store, checkup: Checkup<'_>) -> (Vec<Finding>, Tally) {
    let listener = Listener::default();
    let tally = store.verify(checkup, &listener).unwrap();
    assert_eq!(*listener.hashed.lock().unwrap(), tally.bytes);
    (listener.findings.into_inner().unwrap(), tally)
}

/// What a verification of all finds.
pub(super) fn found(store: &Store) -> Vec<Finding> {
    looked(store, ALL).0
}

/// A finding in few words.
fn word(finding: &Finding) -> String {
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    match finding {
        Finding::Damaged { found, now: Whereabouts::Aside(at) } if at.exists() => format!("damaged {}", found.expected),
        Finding::Missing { pin, blob } => format!("missing {} of {}", blob.digest, pin.name.tag()),
        Finding::Unreadable { digest, .. } => format!("unreadable {digest}"),
        Finding::BadPin { path, .. } => format!("bad pin {}", name(path).split_once('@').unwrap().0),
        Finding::Foreign { path } => format!("foreign {}", name(path)),
        Finding::Leftover { path, bytes } => format!("leftover {} {bytes}", name(path)),
        Finding::Unreferenced { digest, bytes } => format!("unreferenced {digest} {bytes}"),
        Finding::SetAside { bytes, .. } => format!("set aside {bytes}"),
        other => panic!("{other:?}"),
    }
}

fn words(findings: &[Finding]) -> BTreeSet<String> {
    findings.iter().map(word).collect()
}

fn set<const N: usize>(words: [String; N]) -> BTreeSet<String> {
    words.into()
}

#[test]
fn all_that_is_wrong_is_found() {
    let (_folder, store) = store();
    let good = pinned(&store, "good:1", &[b"good"]);
    pinned(&store, "app:1", &[b"flipped", b"gone", b"cut"]);
    let stray = add(&store, b"stray");
    flip(&store, &blob(b"flipped"));
    fs::remove_file(store.blob_path(&Digest::of(b"gone"))).unwrap();
    let cut = store.blob_path(&Digest::of(b"cut"));
    fs::remove_file(&cut).unwrap();
    fs::write(&cut, b"cu").unwrap();
    fs::write(store.blobs(Algorithm::Sha256).join("note.txt"), b"").unwrap();
    symlink("/dev/null", store.blob_path(&Digest::of(b"link"))).unwrap();
    store.ingest(&blob(b"on its way")).unwrap().unwrap().write(b"on its").unwrap();
    let (findings, tally) = looked(&store, ALL);
    let of = Digest::of;
    assert_eq!(
        words(&findings),
        set([
            format!("damaged {}", of(b"flipped")),
            format!("damaged {}", of(b"cut")),
            format!("missing {} of 1", of(b"flipped")),
            format!("missing {} of 1", of(b"gone")),
            format!("missing {} of 1", of(b"cut")),
            format!("foreign {}", of(b"link").hex()),
            "foreign note.txt".to_owned(),
            "set aside 7".to_owned(),
            "set aside 2".to_owned(),
            format!("unreferenced {} 5", stray.digest),
            format!("leftover {}.part 6", of(b"on its way").hex()),
        ])
    );
    assert_eq!((tally.pins.len(), tally.blobs), (2, 3 + 4 + 1));
    assert!(good.blobs().iter().all(|blob| store.has(blob)));
}

#[test]
fn only_what_some_pins_count_on_is_looked_at_if_asked() {
    let (_folder, store) = store();
    let one = pinned(&store, "app:1", &[b"one"]);
    let two = pinned(&store, "app:2", &[b"two"]);
    flip(&store, &blob(b"two"));
    assert!(looked(&store, Checkup { of: Some(std::slice::from_ref(&one)), hash: true }).0.is_empty());
    let (findings, tally) = looked(&store, Checkup { of: Some(std::slice::from_ref(&two)), hash: true });
    assert_eq!(words(&findings), set([format!("damaged {}", Digest::of(b"two")), format!("missing {} of 2", Digest::of(b"two"))]));
    assert_eq!((tally.pins.len(), tally.blobs), (1, 3));
}

#[test]
fn names_and_sizes_are_looked_at_quickly() {
    let (_folder, store) = store();
    pinned(&store, "app:1", &[b"flipped", b"cut", b"gone"]);
    flip(&store, &blob(b"flipped"));
    for (blob, now) in [(blob(b"cut"), Some("cu")), (blob(b"gone"), None)] {
        fs::remove_file(store.blob_path(&blob.digest)).unwrap();
        now.into_iter().for_each(|text| fs::write(store.blob_path(&blob.digest), text).unwrap());
    }
    let (findings, tally) = looked(&store, Checkup { of: None, hash: false });
    let missing = |bytes: &[u8]| format!("missing {} of 1", Digest::of(bytes));
    assert_eq!(
        words(&findings),
        set([format!("damaged {}", Digest::of(b"cut")), missing(b"cut"), missing(b"gone"), "set aside 2".to_owned()]),
        "a flipped bit is not seen without hashing"
    );
    assert_eq!((tally.blobs, tally.bytes), (4, 2));
}

#[test]
fn a_pin_in_which_a_bit_was_flipped_is_found() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let path = store.pin_path(&pin);
    let text = fs::read(&path).unwrap();
    for bit in (0..text.len()).map(|byte| 8 * byte + byte % 8) {
        let mut flipped = text.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        // White space of another kind at the line's end says the same.
        let same = serde_json::from_slice::<serde_json::Value>(&flipped).ok() == serde_json::from_slice(&text).ok();
        assert_eq!(store.pins().is_err(), !same, "bit {bit}");
    }
    assert_eq!(words(&found(&store)), set(["bad pin 1".to_owned()]));
    fs::write(&path, &text).unwrap();
    assert!(found(&store).is_empty());
}

#[test]
fn what_was_set_aside_can_be_brought_again() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    fs::write(store.pin_path(&pin), "half").unwrap();
    let aside = store.set_pin_aside(&store.pin_path(&pin)).unwrap();
    assert_eq!(fs::read(aside).unwrap(), b"half");
    assert_eq!(store.pins().unwrap(), []);
    store.pin(&pin).unwrap();
    store.set_unreadable_aside(&Digest::of(b"a")).unwrap();
    assert_eq!(words(&found(&store)), set([format!("missing {} of 1", Digest::of(b"a")), "set aside 4".into(), "set aside 1".into()]));
    add(&store, b"a");
    assert_eq!(found(&store).len(), 2);
}
