//! The store on real files in a temporary folder.

mod blobs;
mod hostile;
mod names;
mod removing;
mod verifying;

use std::path::Path;

use tempfile::TempDir;

use super::{Store, StoreError, Whereabouts};
use crate::digest::{Algorithm, Digest, Verified};
use crate::oci::{Config, Descriptor, Document, Image};
use crate::pin::Pin;
use crate::reference::Reference;

/// A store that is gone when this is dropped.
fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    (folder, store)
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: "application/vnd.oci.image.layer.v1.tar".into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn add(store: &Store, bytes: &[u8]) -> Descriptor {
    store.put(&Verified::hash(bytes.to_vec())).unwrap();
    blob(bytes)
}

/// Puts an image into the store, without a pin.
fn image(store: &Store, architecture: &str, layers: &[&[u8]]) -> Image {
    let diff_ids: Vec<Digest> = layers.iter().map(|l| Digest::of(l)).collect();
    let config = serde_json::json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = Verified::hash(config.to_string().into_bytes());
    store.put(&config).unwrap();
    let config_at =
        Descriptor { media_type: "application/vnd.oci.image.config.v1+json".into(), digest: config.digest(), size: config.size() };
    let layers: Vec<Descriptor> = layers.iter().map(|l| add(store, l)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config_at, "layers": layers,
    });
    let manifest = Verified::hash(manifest.to_string().into_bytes());
    store.put(&manifest).unwrap();
    let (Document::Manifest(parts), at) = Document::parse(&manifest, None).unwrap() else { panic!("a manifest") };
    Image::new(at.clone(), at, parts, Config::parse(&config).unwrap()).unwrap()
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn pin_of(image: &Image, name: &str) -> Pin {
    Pin::new(reference(name), reference(name).name(), image, None)
}

fn pinned(store: &Store, name: &str, layers: &[&[u8]]) -> Pin {
    let pin = pin_of(&image(store, "amd64", layers), name);
    store.pin(&pin).unwrap();
    pin
}

/// All files below a folder, as paths from there.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Flips a bit of a stored blob behind the store's back.
fn flip(store: &Store, blob: &Descriptor) {
    let path = store.blob_path(&blob.digest);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

/// Waits until this file is open so many times in this process: then so many wait for its lock, or have it.
fn until_open(path: &Path, times: usize) {
    let is_it = |fd: std::io::Result<std::fs::DirEntry>| std::fs::read_link(fd.ok()?.path()).ok().filter(|at| at == path);
    while std::fs::read_dir("/proc/self/fd").unwrap().filter_map(is_it).count() < times {
        std::thread::yield_now();
    }
}
