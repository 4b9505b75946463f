//! Archives changed at random: whatever comes, nothing panics, and what is accepted is the image that it was.

use larder::digest::Digest;
use larder::import::Wish;
use larder::store::Store;
use serde_json::{Value, json};

use super::{everything, import};
use crate::support::image::{Compression, Recipe};
use crate::support::tarball::{Tarball, archive, config, docker_files};

const ROUNDS: usize = 500;

/// Numbers that look random and are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// An archive that is a layout and a docker archive.
fn both_in_one() -> (Vec<(String, Vec<u8>)>, Digest) {
    let made =
        Recipe { layers: 1, layer_size: 400, platforms: vec!["linux/amd64"], compression: Compression::Mixed, ..Recipe::default() }.make();
    let image = &made.platforms[0];
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let mut files: Vec<(String, Vec<u8>)> = made.blobs.iter().map(|(digest, bytes)| (path(digest), bytes.clone())).collect();
    let mut entry = json!(made.root);
    entry["annotations"] = json!({ "io.containerd.image.name": "r.example.com/a:1", "org.opencontainers.image.ref.name": "1" });
    let layers: Vec<String> = image.layers.iter().map(|layer| path(&layer.digest)).collect();
    let list = json!([{ "Config": path(&image.config.digest), "RepoTags": ["r.example.com/a:1"], "Layers": layers }]);
    let text = |name: &str, value: Value| (name.to_owned(), value.to_string().into_bytes());
    files.push(text("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })));
    files.push(text("index.json", json!({ "schemaVersion": 2, "manifests": [entry] })));
    files.push(text("manifest.json", list));
    (files, image.config.digest)
}

/// Changes a few bytes, or leaves some out, or has some twice.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let length = random.below(40).min(bytes.len() - at);
        match random.below(5) {
            0 => drop(bytes.drain(at..at + length)),
            1 => {
                let again = bytes[at..at + length].to_vec();
                bytes.splice(at..at, again);
            }
            2 => bytes.truncate(at),
            _ if bytes.is_empty() => {}
            _ => bytes[at] = [b'0', b'"', b'}', b',', 0, 0xff, b'/', b'.', b'A'][random.below(9)],
        }
    }
}

#[test]
fn nothing_panics_and_nothing_else_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let layer: &[u8] = b"a layer";
    let docker = docker_files(&config(&[layer, layer]), &[layer, layer], "r.example.com/b:1");
    let docker_id = Digest::of(&docker[0].1);
    let (both, both_id) = both_in_one();
    let empty = everything(folder.path());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let (files, id) = if round % 2 == 0 { (&docker, docker_id) } else { (&both, both_id) };
        let mut files = files.clone();
        let archive = match random.below(3) {
            // Bytes of the archive, wherever.
            0 => {
                let mut bytes = archive(&files);
                change(&mut bytes, &mut random);
                bytes
            }
            // A text or a blob, under a right header.
            1 => {
                let texts: Vec<usize> = (0..files.len()).filter(|n| !files[*n].0.starts_with("blobs/")).collect();
                let which = texts[random.below(texts.len())];
                change(&mut files[which].1, &mut random);
                archive(&files)
            }
            // The members in another order, one of them left out or twice.
            _ => {
                let (a, b) = (random.below(files.len()), random.below(files.len()));
                files.swap(a, b);
                match random.below(3) {
                    0 => drop(files.remove(a)),
                    1 => files.push(files[b].clone()),
                    _ => {}
                }
                Tarball::of(files.iter().map(|(name, content)| (name, content.as_slice()))).end()
            }
        };
        match import(&store, archive, &Wish::default()) {
            Ok(images) => {
                accepted += 1;
                assert!(images.iter().all(|image| image.pin.image_id() == id), "round {round}: {images:?}");
                let pins = store.pins().unwrap();
                store.remove(&pins, &store.exclude().unwrap()).unwrap();
            }
            Err(_) => refused += 1,
        }
        let left =
            everything(folder.path()).into_iter().filter(|(path, _)| !path.ends_with("index.json") && !path.ends_with("index.current"));
        assert!(left.eq(empty.clone()), "round {round} left something");
    }
    assert!(accepted > 20 && refused > 200, "{accepted} accepted, {refused} refused");
}
