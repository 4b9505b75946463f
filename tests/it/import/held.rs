//! What the store has already: believed only as far as the file has the same bytes.

use std::os::unix::fs::PermissionsExt;

use larder::digest::Digest;
use larder::oci::Descriptor;

use super::*;
use crate::support::image::{Compression, Recipe};
use crate::support::tarball::{archive, config, docker_files};

/// Changes one byte of a blob at a place, and leaves its size.
fn flip(store: &Store, digest: &Digest, at: usize) {
    let path = store.root().join("blobs/sha256").join(digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
}

fn is_right(store: &Store, blob: &Descriptor) -> bool {
    Digest::of(&fs::read(store.root().join("blobs/sha256").join(blob.digest.hex())).unwrap()) == blob.digest
}

/// The archive of a layout that holds an image.
fn layout(recipe: &Recipe) -> (crate::support::image::Made, Vec<u8>) {
    let (made, folder) = (recipe.make(), tempfile::tempdir().unwrap());
    made.write_layout(folder.path(), "v1").unwrap();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(folder.path()).unwrap().display().to_string();
        (name, fs::read(path).unwrap())
    };
    let files = everything(folder.path()).into_keys().filter(|path| path.is_file()).map(read).collect::<Vec<_>>();
    (made, archive(&files))
}

#[test]
fn a_good_blob_in_a_file_takes_the_place_of_a_damaged_one_in_the_store() {
    let recipe = Recipe { platforms: vec!["linux/amd64"], compression: Compression::Mixed, layer_size: 600_000, ..Recipe::default() };
    let (made, file) = layout(&recipe);
    let image = &made.platforms[0];
    let plain = docker_files(&config(&[b"a layer", b"another"]), &[b"a layer", b"another"], "r.example.com/b:1");
    let bare = Descriptor { media_type: String::new(), digest: Digest::of(b"another"), size: 7 };
    let last = |blob: &Descriptor| blob.size as usize - 1;
    let cases = [
        (file.clone(), &image.layers[0], 0),
        (file.clone(), &image.layers[1], 300_000),
        (file.clone(), &image.layers[2], last(&image.layers[2])),
        (file.clone(), &image.config, 9),
        (file, &image.manifest, 9),
        // A member whose name tells nothing.
        (archive(&plain), &bare, 3),
    ];
    for (file, blob, at) in cases {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let first = import(&store, file.clone(), &Wish::default()).unwrap();
        flip(&store, &blob.digest, at);
        let again = import(&store, file.clone(), &Wish::default()).unwrap();
        assert_eq!((&first[0].pin, again[0].added), (&again[0].pin, blob.size), "byte {at} of {}", blob.digest);
        assert!(is_right(&store, blob) && store.root().join("damaged").join(blob.digest.hex()).exists());
        assert!(fs::read_dir(store.root().join("ingest")).unwrap().next().is_none());
        assert_eq!(import(&store, file, &Wish::default()).unwrap()[0].added, 0);
    }
}

#[test]
fn a_file_that_is_as_wrong_as_the_store_is_refused() {
    let (made, file) = layout(&Recipe { platforms: vec!["linux/amd64"], ..Recipe::default() });
    let layer = &made.platforms[0].layers[1];
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    import(&store, file.clone(), &Wish::default()).unwrap();
    flip(&store, &layer.digest, 50);
    let bytes = made.bytes(layer);
    let at = file.windows(bytes.len()).position(|part| part == bytes).unwrap();
    let mut same = file.clone();
    same[at + 50] ^= 1;
    // And one that is wrong where the store is right.
    let mut other = file;
    other[at + 60] ^= 1;
    for wrong in [same, other] {
        let refused = import(&store, wrong, &Wish::default()).unwrap_err();
        assert!(matches!(refused, ImportError::WrongBlob { expected, .. } if expected == layer.digest), "{refused}");
    }
    assert!(fs::read_dir(store.root().join("ingest")).unwrap().next().is_none());
}

/// An index may name a layer that only the store has: it is hashed and unpacked, and what is damaged is said to be.
#[test]
fn what_only_the_store_has_is_looked_into() {
    let recipe = Recipe { platforms: vec!["linux/amd64"], ..Recipe::default() };
    let (made, file) = layout(&recipe);
    let layer = &made.platforms[0].layers[1];
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    import(&store, file, &Wish::default()).unwrap();
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let mut files: Vec<(String, Vec<u8>)> =
        made.blobs.iter().filter(|(digest, _)| **digest != layer.digest).map(|(digest, bytes)| (path(digest), bytes.clone())).collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [made.root] });
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    assert_eq!(import(&store, archive(&files), &Wish::default()).unwrap()[0].added, 0);
    flip(&store, &layer.digest, 50);
    let refused = import(&store, archive(&files), &Wish::default()).unwrap_err();
    assert!(matches!(refused, ImportError::Store(larder::store::StoreError::Damaged { .. })), "{refused:?}");
    assert!(store.root().join("damaged").join(layer.digest.hex()).exists());
}
