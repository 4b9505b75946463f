//! Images of the layers that a test lays out itself: as few as it likes, and of files that can be run.

use std::fs;
use std::process::Command;

use larder::digest::Digest;
use larder::oci::Platform;
use serde_json::{Value, json};

use super::{Blobs, Compression, Entry, Made, Media, OnePlatform, tar_of};

/// An image for this machine: one manifest, and layers that are not compressed.
#[derive(Debug, Clone, Default)]
pub struct Plain {
    /// The layers from the base up, as tar archives.
    pub layers: Vec<Vec<u8>>,
    /// The part of the config that says how a container is run.
    pub run: Value,
}

impl Plain {
    /// A layer of these files.
    pub fn files(files: &[(&str, &[u8])]) -> Vec<u8> {
        let entries: Vec<_> = files.iter().map(|(path, content)| Entry::file(*path, *content)).collect();
        tar_of(&entries)
    }

    /// A layer with this machine's `cat` and what that needs.
    pub fn cat() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let linked = Command::new("ldd").arg("/bin/cat").output().expect("ldd comes with the C library");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        for path in linked.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/cat"]) {
            let file = fs::canonicalize(path).expect("what is linked is there");
            tar.append_path_with_name(file, path.trim_start_matches('/')).expect("a Vec takes all bytes");
        }
        tar.into_inner().expect("a Vec takes all bytes")
    }

    /// Makes the image.
    pub fn make(&self) -> Made {
        let mut blobs = Blobs::default();
        let platform = Platform::host();
        let layers: Vec<_> = self.layers.iter().map(|tar| blobs.put(Media::Oci.layer(Compression::None), tar.clone())).collect();
        let diff_ids: Vec<_> = self.layers.iter().map(|tar| Digest::of(tar)).collect();
        let config = json!({
            "os": platform.os(), "architecture": platform.architecture(), "config": self.run,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = blobs.put_json(Media::Oci.config(), &config);
        let manifest = json!({ "schemaVersion": 2, "mediaType": Media::Oci.manifest(), "config": config, "layers": layers });
        let manifest = blobs.put_json(Media::Oci.manifest(), &manifest);
        let one = OnePlatform { platform, manifest: manifest.clone(), config, layers, diff_ids };
        Made { root: manifest.clone(), via: Vec::new(), platforms: vec![one], blobs: blobs.0, documents: vec![manifest] }
    }
}
