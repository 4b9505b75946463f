use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

#[test]
fn opening_makes_a_store_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep/er");
    assert!(Store::open_existing(&root).unwrap().is_none());
    assert!(!root.exists());
    Store::open(&root).unwrap();
    assert_eq!(files(&root), ["index.lock", "larder.json", "lock", "lock.turn", "oci-layout", "pins.lock"]);
    assert_eq!(fs::read_to_string(root.join("larder.json")).unwrap(), r#"{"format":1}"#);
    assert_eq!(fs::read_to_string(root.join("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert!(Store::open_existing(&root).unwrap().unwrap().pins().unwrap().is_empty());
    Store::open(&root).unwrap();
}

#[test]
fn many_make_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    std::thread::scope(|scope| {
        for n in 0..16u8 {
            let root = &root;
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                let _shared = store.share().unwrap();
                pinned(&store, &format!("app:{n}"), &[&[n]]);
            });
        }
    });
    assert_eq!(Store::open(&root).unwrap().pins().unwrap().len(), 16);
}

#[test]
fn a_store_that_was_begun_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("blobs")).unwrap();
    fs::create_dir_all(folder.path().join("ingest")).unwrap();
    fs::write(folder.path().join("lock"), "").unwrap();
    let store = Store::open(folder.path()).unwrap();
    add(&store, b"a layer");
}

#[test]
fn a_folder_with_other_things_never_becomes_a_store() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.json"), "{}").unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::NotAStore { found, .. }) if found == "index.json"));
    assert_eq!(files(folder.path()), ["index.json"]);
}

#[test]
fn a_newer_format_is_refused() {
    let (_folder, store) = store();
    fs::write(store.root().join("larder.json"), r#"{"format":2,"more":[]}"#).unwrap();
    assert!(matches!(Store::open(store.root()), Err(StoreError::NewerFormat { found: 2, known: 1, .. })));
    for text in ["", "{}", r#"{"format":"1"}"#, r#"{"format":1,"Format":2}"#] {
        fs::write(store.root().join("larder.json"), text).unwrap();
        assert!(matches!(Store::open(store.root()), Err(StoreError::Format { .. })), "{text}");
    }
}

#[test]
fn a_store_that_everybody_can_write_is_refused() {
    let (_folder, store) = store();
    for folder in [store.root().to_owned(), store.root().join("pins")] {
        let before = fs::metadata(&folder).unwrap().permissions();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Store::open(store.root()), Err(StoreError::Unsafe { path, mode: 0o777 }) if path == folder));
        fs::set_permissions(&folder, before).unwrap();
    }
    Store::open(store.root()).unwrap();
}

#[test]
fn nothing_but_a_plain_file_is_a_blob() {
    let (folder, store) = store();
    let layer = blob(b"layer");
    let outside = folder.path().join("outside");
    fs::write(&outside, b"layer").unwrap();
    let at = store.blob_path(&layer.digest);
    let fifo = |path: &Path| rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    let put: [&dyn Fn(); 3] = [&|| fs::create_dir(&at).unwrap(), &|| symlink(&outside, &at).unwrap(), &|| fifo(&at)];
    for put in put {
        put();
        assert!(!store.has(&layer));
        assert!(matches!(store.blob(&layer), Err(StoreError::Foreign { path, .. }) if path == at));
        assert!(matches!(store.document(&layer.digest), Err(StoreError::Foreign { path, .. }) if path == at));
        assert!(matches!(store.ingest(&layer), Err(StoreError::Foreign { path, .. }) if path == at));
        if fs::remove_file(&at).is_err() {
            fs::remove_dir(&at).unwrap();
        }
    }
    assert_eq!(files(&store.scratch()), [""; 0]);
}

#[test]
fn nothing_but_a_plain_file_is_a_part() {
    let (folder, store) = store();
    let layer = blob(b"layer");
    let outside = folder.path().join("outside");
    fs::write(&outside, b"precious").unwrap();
    let part = store.scratch().join(format!("{}.part", layer.digest.hex()));
    symlink(&outside, &part).unwrap();
    assert!(matches!(store.ingest(&layer), Err(StoreError::Foreign { path, .. }) if path == part));
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    fs::remove_file(&part).unwrap();
    fs::create_dir(&part).unwrap();
    assert!(matches!(store.ingest(&layer), Err(StoreError::Foreign { path, .. }) if path == part));
}

#[test]
fn a_pin_that_cannot_be_read_is_an_error_that_names_it() {
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let path = store.pin_path(&pin);
    let text = fs::read_to_string(&path).unwrap();
    let twice = text.replacen("\"size\"", "\"size\": 1, \"size\"", 1);
    let traversal = text.replace("sha256:", "sha256:../../");
    let checked = |text: &str| {
        let (_, inner) = text.split_once("\"pin\":").unwrap();
        let check = Digest::of(inner.trim_end().strip_suffix('}').unwrap().as_bytes());
        format!("{{\"check\":\"{check}\",\"pin\":{inner}")
    };
    assert_eq!(checked(&text), text);
    fs::write(&path, text.replace("\"size\":", "\"size\":1")).unwrap();
    assert!(matches!(store.pins(), Err(StoreError::PinDamaged { path: at, .. }) if at == path));
    let changes = [&twice, &traversal, &text.replace("\"name\"", "\"Name\""), &text.replace("docker.io/library/app:1", "app:.")];
    let changed = changes.map(|text| checked(text));
    for bad in ["", "{}", &text[1..]].into_iter().chain(changed.iter().map(String::as_str)) {
        fs::write(&path, bad).unwrap();
        assert!(matches!(store.pins(), Err(StoreError::Pin { path: at, .. }) if at == path), "{bad}");
        assert!(matches!(store.find(&reference("app:1"), None), Err(StoreError::Pin { path: at, .. }) if at == path), "{bad}");
    }
    // One image's broken pin is not another's.
    assert!(store.find(&reference("app:2"), None).unwrap().is_empty());
    fs::write(&path, checked(&text.replace("library/app:1", "library/app:2"))).unwrap();
    assert!(matches!(store.pins(), Err(StoreError::PinMisplaced { path: at, .. }) if at == path));
    fs::write(&path, vec![b' '; (4 << 20) + 1]).unwrap();
    assert!(matches!(store.pins(), Err(StoreError::PinTooLarge { path: at, .. }) if at == path));
    fs::remove_file(&path).unwrap();
    symlink("/dev/null", &path).unwrap();
    assert!(matches!(store.pins(), Err(StoreError::Foreign { path: at, .. }) if at == path));
}

#[test]
fn a_read_only_store_is_read() {
    // Root may write everywhere, so only another user is kept out by permissions.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let (_folder, store) = store();
    let pin = pinned(&store, "app:1", &[b"a"]);
    let closed = ["", "blobs/sha256", "ingest", "pins"].map(|f| store.root().join(f));
    let mode = |mode| closed.iter().for_each(|f| fs::set_permissions(f, fs::Permissions::from_mode(mode)).unwrap());
    mode(0o555);
    let store = Store::open(store.root()).unwrap();
    let _shared = store.share().unwrap();
    assert_eq!(store.find(&reference("app:1"), None).unwrap(), [pin]);
    assert!(matches!(store.ingest(&blob(b"b")), Err(StoreError::ReadOnly { .. })));
    mode(0o755);
}
