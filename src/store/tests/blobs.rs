use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use super::super::disk;
use super::super::error::writing;
use super::super::lock::{self, Hold, Patience};
use super::*;
use crate::digest::mismatch_in;

fn part(store: &Store, blob: &Descriptor) -> std::path::PathBuf {
    store.scratch().join(format!("{}.part", blob.digest.hex()))
}

fn read(store: &Store, blob: &Descriptor) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.blob(blob).unwrap().read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_blob_has_its_name_only_after_commit() {
    let (_folder, store) = store();
    let layer = blob(b"a layer");
    let mut ingest = store.ingest(&layer).unwrap().unwrap();
    ingest.write(b"a la").unwrap();
    ingest.write(b"yer").unwrap();
    assert!(!store.has(&layer));
    assert!(matches!(store.blob(&layer), Err(StoreError::Missing { digest }) if digest == layer.digest));
    ingest.commit().unwrap();
    assert!(store.has(&layer));
    assert_eq!(read(&store, &layer).unwrap(), b"a layer");
    assert!(!part(&store, &layer).exists());
    assert!(std::fs::metadata(store.blob_path(&layer.digest)).unwrap().permissions().readonly());
    assert!(store.ingest(&layer).unwrap().is_none());
    assert!(!part(&store, &layer).exists());
}

#[test]
fn the_empty_blob_is_a_blob() {
    let (_folder, store) = store();
    store.ingest(&blob(b"")).unwrap().unwrap().commit().unwrap();
    assert!(store.has(&blob(b"")));
}

#[test]
fn what_was_dropped_is_resumed() {
    let (_folder, store) = store();
    let layer = blob(b"0123456789");
    store.ingest(&layer).unwrap().unwrap().write(b"01234").unwrap();
    let mut ingest = store.ingest(&layer).unwrap().unwrap();
    assert_eq!(ingest.offset(), 5);
    ingest.write(b"56789").unwrap();
    assert_eq!(ingest.offset(), 10);
    ingest.commit().unwrap();
    assert_eq!(read(&store, &layer).unwrap(), b"0123456789");
}

#[test]
fn a_part_that_is_too_long_is_thrown_away() {
    let (_folder, store) = store();
    let layer = blob(b"0123456789");
    std::fs::write(part(&store, &layer), b"0123456789 and more").unwrap();
    assert_eq!(store.ingest(&layer).unwrap().unwrap().offset(), 0);
}

#[test]
fn wrong_content_is_never_named() {
    let (_folder, store) = store();
    let layer = blob(b"right");
    for wrong in [&b"wrong"[..], b"rig"] {
        let mut ingest = store.ingest(&layer).unwrap().unwrap();
        ingest.write(wrong).unwrap();
        let Err(StoreError::Mismatch { found }) = ingest.commit() else { panic!("committed") };
        assert_eq!((found.expected, found.found, found.found_size), (layer.digest, Digest::of(wrong), wrong.len() as u64));
        assert_eq!(files(&store.root().join("blobs")), [""; 0]);
        assert!(!part(&store, &layer).exists());
    }
}

#[test]
fn more_than_the_blob_has_is_refused_at_once() {
    let (_folder, store) = store();
    let layer = blob(b"right");
    let mut ingest = store.ingest(&layer).unwrap().unwrap();
    ingest.write(b"rig").unwrap();
    assert!(matches!(ingest.write(b"htx"), Err(StoreError::TooLong { size: 5, .. })));
    ingest.write(b"ht").unwrap();
    ingest.commit().unwrap();
}

#[test]
fn restart_begins_anew() {
    let (_folder, store) = store();
    let layer = blob(b"right");
    let mut ingest = store.ingest(&layer).unwrap().unwrap();
    ingest.write(b"wron").unwrap();
    ingest.restart().unwrap();
    assert_eq!(ingest.offset(), 0);
    ingest.write(b"ri").unwrap();
    drop(ingest);
    let mut ingest = store.ingest(&layer).unwrap().unwrap();
    assert_eq!(ingest.offset(), 2);
    ingest.write(b"ght").unwrap();
    ingest.commit().unwrap();
    assert_eq!(read(&store, &layer).unwrap(), b"right");
}

#[test]
fn the_second_writer_waits_and_finds_the_blob() {
    let (_folder, store) = store();
    let layer = blob(b"layer");
    let mut first = store.ingest(&layer).unwrap().unwrap();
    let (other, wanted) = (store.clone(), layer.clone());
    let (done, answer) = mpsc::channel();
    let second = std::thread::spawn(move || done.send(other.ingest(&wanted).unwrap().is_none()).unwrap());
    first.write(b"layer").unwrap();
    until_open(&part(&store, &layer), 2);
    assert!(answer.try_recv().is_err(), "the second writer did not wait");
    first.commit().unwrap();
    assert!(answer.recv().unwrap());
    second.join().unwrap();
    assert_eq!(files(&store.scratch()), [""; 0]);
}

#[test]
fn the_second_writer_takes_over() {
    let (_folder, store) = store();
    let layer = blob(b"layer");
    let mut first = store.ingest(&layer).unwrap().unwrap();
    let (other, wanted) = (store.clone(), layer.clone());
    let second = std::thread::spawn(move || {
        let mut ingest = other.ingest(&wanted).unwrap().unwrap();
        assert_eq!(ingest.offset(), 3);
        ingest.write(b"er").unwrap();
        ingest.commit().unwrap();
    });
    first.write(b"lay").unwrap();
    until_open(&part(&store, &layer), 2);
    drop(first);
    second.join().unwrap();
    assert_eq!(read(&store, &layer).unwrap(), b"layer");
}

#[test]
fn after_a_mismatch_the_second_writer_begins_anew() {
    let (_folder, store) = store();
    let layer = blob(b"layer");
    let mut first = store.ingest(&layer).unwrap().unwrap();
    let (other, wanted) = (store.clone(), layer.clone());
    let second = std::thread::spawn(move || {
        let mut ingest = other.ingest(&wanted).unwrap().unwrap();
        assert_eq!(ingest.offset(), 0);
        ingest.write(b"layer").unwrap();
        ingest.commit().unwrap();
    });
    first.write(b"wrong").unwrap();
    until_open(&part(&store, &layer), 2);
    assert!(first.commit().is_err());
    second.join().unwrap();
    assert!(store.has(&layer));
}

#[test]
fn a_blob_that_came_by_another_way_needs_no_part() {
    let (_folder, store) = store();
    let layer = blob(b"layer");
    let other = std::fs::File::create(part(&store, &layer)).unwrap();
    other.lock().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| store.ingest(&layer).unwrap().is_none());
        until_open(&part(&store, &layer), 2);
        std::fs::write(store.blob_path(&layer.digest), b"layer").unwrap();
        drop(other);
        assert!(waiter.join().unwrap());
    });
    assert_eq!(files(&store.scratch()), [""; 0]);
}

#[test]
fn a_lock_on_a_file_that_lost_its_name_is_none() {
    let (_folder, store) = store();
    let lock = store.root().join("lock");
    let first = store.exclude().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| store.exclude().unwrap());
        until_open(&lock, 2);
        std::fs::remove_file(&lock).unwrap();
        drop(first);
        let _second = waiter.join().unwrap();
        assert!(matches!(store.clone().with_lock_timeout(Duration::ZERO).exclude(), Err(StoreError::Locked { .. })));
    });
}

#[test]
fn many_writers_name_a_blob_once() {
    let (_folder, store) = store();
    let layer = blob(&[7; 100_000]);
    let wrote = std::thread::scope(|scope| {
        let writer = || {
            let Some(mut ingest) = store.ingest(&layer).unwrap() else { return 0 };
            let rest = 100_000 - ingest.offset();
            ingest.write(&vec![7; usize::try_from(rest).unwrap()]).unwrap();
            ingest.commit().unwrap();
            1
        };
        let writers: Vec<_> = (0..16).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum::<u32>()
    });
    assert_eq!(wrote, 1);
    assert_eq!(files(&store.scratch()), [""; 0]);
}

#[test]
fn waiting_ends() {
    let (_folder, store) = store();
    let layer = blob(b"layer");
    let _first = store.ingest(&layer).unwrap().unwrap();
    let hurried = store.clone().with_lock_timeout(Duration::from_millis(5));
    let Err(StoreError::Locked { path, holder, .. }) = hurried.ingest(&layer) else { panic!("not locked") };
    assert_eq!(path, part(&store, &layer));
    assert!(holder.is_none_or(|pid| pid == std::process::id()));
}

#[test]
fn who_waited_in_vain_does_not_get_the_lock_later() {
    let (folder, _store) = store();
    let path = folder.path().join("a lock");
    let patience = |limit| Patience::starting_now(limit, None);
    let held = lock::lock_path(&path, Hold::Alone, &patience(Duration::ZERO)).unwrap();
    let late = disk::open_or_make(&path).unwrap();
    // Longer than what is waited for by trying again and again.
    let in_vain = lock::lock(&late, &path, Hold::Alone, &patience(Duration::from_millis(1_010)));
    assert!(matches!(in_vain, Err(StoreError::Locked { .. })));
    drop(held);
    // Its file is still open; the thread that waited gets the lock and gives it back.
    let next = lock::lock_path(&path, Hold::Alone, &patience(Duration::from_secs(60))).unwrap();
    assert!(!lock::is_free(&late));
    drop(next);
    assert!(lock::is_free(&late));
}

#[test]
fn documents_are_hashed_and_bounded() {
    let (_folder, store) = store();
    let document = Verified::hash(&b"{}"[..]);
    assert!(store.document(&document.digest()).unwrap().is_none());
    store.put(&document).unwrap();
    store.put(&document).unwrap();
    assert_eq!(store.document(&document.digest()).unwrap().unwrap(), document);
    let large = add(&store, &vec![b' '; 4 << 20]);
    assert!(store.document(&large.digest).unwrap().is_some());
    let larger = add(&store, &vec![b' '; (4 << 20) + 1]);
    assert!(matches!(store.document(&larger.digest), Err(StoreError::NotADocument { size: 4_194_305, .. })));
}

#[test]
fn a_flipped_bit_in_a_document_is_found_and_set_aside() {
    let (_folder, store) = store();
    let document = add(&store, b"{}");
    for aside in ["", ".2", ".3"] {
        flip(&store, &document);
        let aside = store.root().join(format!("damaged/{}{aside}", document.digest.hex()));
        let Err(StoreError::Damaged { found, now }) = store.document(&document.digest) else { panic!("believed") };
        assert_eq!((found.expected, found.found), (document.digest, Digest::of(b"z}")));
        assert_eq!(now, Whereabouts::Aside(aside.clone()));
        assert_eq!(std::fs::read(aside).unwrap(), b"z}");
        assert_eq!(files(&store.scratch()), [""; 0]);
        assert!(store.document(&document.digest).unwrap().is_none());
        add(&store, b"{}");
        assert!(store.document(&document.digest).unwrap().is_some());
    }
}

#[test]
fn a_flipped_bit_in_a_blob_is_found_and_set_aside() {
    let (_folder, store) = store();
    let layer = add(&store, b"a layer");
    flip(&store, &layer);
    assert!(store.has(&layer), "existing is not valid");
    let failed = read(&store, &layer).unwrap_err();
    let found = mismatch_in(&failed).unwrap();
    let StoreError::Damaged { now, .. } = store.set_aside(&layer, found) else { panic!("believed") };
    assert_eq!(now, Whereabouts::Aside(store.root().join("damaged").join(layer.digest.hex())));
    assert!(!store.has(&layer));
}

#[test]
fn a_blob_that_is_right_is_not_set_aside() {
    let (_folder, store) = store();
    let layer = add(&store, b"a layer");
    let misdescribed = Descriptor { size: 6, ..layer.clone() };
    let wrong = crate::digest::Mismatch { expected: layer.digest, expected_size: 6, found: layer.digest, found_size: 7 };
    assert!(matches!(store.set_aside(&misdescribed, &wrong), StoreError::WrongSize { claimed: 6, found: 7, .. }));
    assert!(matches!(store.blob(&misdescribed), Err(StoreError::WrongSize { claimed: 6, found: 7, .. })));
    assert!(matches!(store.ingest(&misdescribed), Err(StoreError::WrongSize { claimed: 6, found: 7, .. })));
    assert!(matches!(store.set_aside(&layer, &wrong), StoreError::Damaged { now: Whereabouts::InPlace(_), .. }));
    assert_eq!(read(&store, &layer).unwrap(), b"a layer");
}

#[test]
fn a_truncated_blob_is_set_aside_and_fetched_again() {
    let (_folder, store) = store();
    let layer = add(&store, b"a layer");
    std::fs::remove_file(store.blob_path(&layer.digest)).unwrap();
    std::fs::write(store.blob_path(&layer.digest), b"a lay").unwrap();
    assert!(!store.has(&layer));
    let mut ingest = store.ingest(&layer).unwrap().unwrap();
    assert_eq!(ingest.offset(), 0);
    assert!(store.root().join("damaged").join(layer.digest.hex()).exists());
    ingest.write(b"a layer").unwrap();
    ingest.commit().unwrap();
    std::fs::remove_file(store.blob_path(&layer.digest)).unwrap();
    std::fs::write(store.blob_path(&layer.digest), b"a layer and more").unwrap();
    assert!(matches!(store.blob(&layer), Err(StoreError::Damaged { now: Whereabouts::Aside(_), .. })));
}

#[test]
fn what_cannot_fit_is_refused() {
    let (_folder, store) = store();
    let sized = |size| Descriptor { size, ..blob(b"a blob") };
    store.room_for(&[sized(10)]).unwrap();
    let needed = |blobs: &[Descriptor]| match store.room_for(blobs) {
        Err(StoreError::NoSpace { needed, free, .. }) if free > 0 => needed,
        other => panic!("{other:?}"),
    };
    assert_eq!(needed(&[sized(u64::MAX)]), u64::MAX);
    // What an earlier run left need not be written again.
    store.ingest(&blob(b"a blob")).unwrap().unwrap().write(b"a b").unwrap();
    assert_eq!(needed(&[sized(u64::MAX)]), u64::MAX - 3);
}

#[test]
fn no_room_says_how_much_is_needed() {
    let (_folder, store) = store();
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let at = store.scratch().join("not there yet");
    let Err::<(), _>(StoreError::NoSpace { path, needed, free }) = Err(writing("writing", &at)(full()).needing(u64::MAX)) else { panic!() };
    assert_eq!((path, needed), (at, u64::MAX));
    assert!(free > 0, "the free space is that of the folder above");
}
