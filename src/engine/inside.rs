//! What lies inside an engine: layers unpacked on its disk, the archive it makes of an image, and who else depends on its layers.
//!
//! Owns the questions about these that docker and podman answer in the same form. Always true: a folder is named only if its files are the image's as
//! every container sees them, with owners as they are in the layer; an image is taken out name by name, and never while the engine objects.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::wire::{Wire, encoded};
use super::{EngineError, Shown, shown};
use crate::digest::{Digest, Hasher};
use crate::json::null_is_default;
use crate::reference::Name;

/// How many pieces of an export wait to be hashed at most.
const IN_FLIGHT: usize = 8;
/// How many bytes are hashed at once.
const STEP: usize = 256 << 10;

/// Where the layers of an image lie unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unpacked {
    /// Their folders on this machine, from the base up.
    Folders(Vec<PathBuf>),
    /// Nowhere that larder can look.
    OutOfReach(OutOfReach),
}

/// Why an engine's unpacked files cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfReach {
    /// The engine is reached over a network.
    Remote {
        /// Its address.
        address: String,
    },
    /// The engine runs with numbers of users and groups of its own, so that owners on the disk are not those of the layers.
    Rootless,
    /// It keeps layers in a form that larder does not read.
    Driver {
        /// What it calls it.
        driver: String,
    },
    /// Docker keeps them in a containerd that was not found.
    Containerd,
    /// It names folders that are not on this machine, or not under that name.
    Elsewhere {
        /// The first of them.
        path: PathBuf,
    },
    /// This user may not read the folders.
    Denied {
        /// The first of them.
        path: PathBuf,
    },
    /// The layers are not in the store, so there is nothing to compare with.
    NotInStore {
        /// How many of them.
        layers: usize,
    },
}

/// What stands in the way of taking layers out of an engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keepers {
    /// The names of the image itself.
    pub names: Vec<String>,
    /// The references by digest of the image itself.
    pub digests: Vec<String>,
    /// Other images that have the layers: their names, or their IDs where they have none.
    pub images: Vec<String>,
    /// Containers that were made of the image.
    pub containers: Vec<String>,
}

/// What docker and podman name alike, behind a prefix of their own.
pub(super) struct Inside<'a> {
    pub(super) wire: &'a Wire,
    pub(super) prefix: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default, deserialize_with = "null_is_default")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default", rename = "ImageID")]
    image_id: String,
}

impl Inside<'_> {
    /// Who has layers up to this place, counted from the base, of the image that was shown.
    pub(super) async fn keepers(&self, shown: &Shown, up_to: usize) -> Result<Keepers, EngineError> {
        let layers = &shown.diff_ids[..shown.diff_ids.len().min(up_to + 1)];
        let list = |field: &str| texts(&shown.raw[field]);
        let mut keepers = Keepers { names: list("RepoTags"), digests: list("RepoDigests"), ..Keepers::default() };
        let images: Vec<Listed> = self.wire.ask(&format!("{}/images/json?all=1", self.prefix)).await?;
        for image in images.iter().filter(|image| bare(&image.id) != shown.id.hex()) {
            let path = format!("{}/images/{}/json", self.prefix, encoded(&image.id));
            let Some(raw) = self.wire.find::<Value>(&path).await? else { continue };
            let diff_ids = shown::diff_ids(&raw).map_err(|source| self.wire.unreadable(&path, source))?;
            if diff_ids.starts_with(layers) {
                let mut names: Vec<String> = image.repo_tags.iter().chain(&image.names).filter(|n| is_name(n)).cloned().collect();
                names.dedup();
                keepers.images.extend(if names.is_empty() { vec![image.id.clone()] } else { names });
            }
        }
        let containers: Vec<Listed> = self.wire.ask(&format!("{}/containers/json?all=1", self.prefix)).await?;
        let ours = containers.iter().filter(|container| bare(&container.image_id) == shown.id.hex());
        keepers.containers = ours.map(|c| c.names.first().map_or(c.id.clone(), |name| name.trim_start_matches('/').to_owned())).collect();
        Ok(keepers)
    }

    /// Takes an image out, name by name.
    pub(super) async fn take_out(&self, shown: &Shown, keepers: &Keepers) -> Result<(), EngineError> {
        let id = shown.id.hex();
        let rest = keepers.digests.iter().chain([&id]);
        for (gone, name) in keepers.names.iter().chain(rest).enumerate() {
            let tagged = gone < keepers.names.len();
            if !tagged && !self.knows(&id).await? {
                return Ok(());
            }
            if let Err(error) = self.delete(name).await {
                // What objects is what counts, whether or not the names come back.
                let _ = self.give_names(&id, &keepers.names[..gone.min(keepers.names.len())]).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Gives an image more names.
    pub(super) async fn give_names(&self, image: &str, names: &[String]) -> Result<(), EngineError> {
        for name in names.iter().filter_map(|name| name.parse::<Name>().ok()) {
            let (repository, tag) = (encoded(&name.repository().to_string()), encoded(name.tag()));
            let path = format!("{}/images/{}/tag?repo={repository}&tag={tag}", self.prefix, encoded(image));
            self.wire.must(Method::POST, &path, StatusCode::CREATED).await?;
        }
        Ok(())
    }

    /// The digests of all files in the archive that the engine makes of an image.
    pub(super) async fn exported(&self, path: &str) -> Result<HashSet<Digest>, EngineError> {
        let (pieces, taken) = mpsc::channel(IN_FLIGHT);
        let hashing = tokio::task::spawn_blocking(move || hash_members(Pieces { taken, piece: Bytes::new() }));
        let came = self.wire.stream(path, pieces).await;
        let hashed = hashing.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        came?;
        Ok(hashed)
    }

    async fn knows(&self, id: &str) -> Result<bool, EngineError> {
        let found: Option<serde::de::IgnoredAny> = self.wire.find(&format!("{}/images/{id}/json", self.prefix)).await?;
        Ok(found.is_some())
    }

    /// One that is gone already is as good.
    async fn delete(&self, name: &str) -> Result<(), EngineError> {
        // Images that this one was built from stay.
        let path = format!("{}/images/{}?noprune=1", self.prefix, encoded(name));
        match self.wire.must(Method::DELETE, &path, StatusCode::OK).await {
            Err(EngineError::Refused { status: 404, .. }) => Ok(()),
            done => done,
        }
    }
}

/// The folders that an engine with an overlay driver shows for an image, from the base up.
pub(super) fn folders(shown: &Shown) -> Unpacked {
    let driver = &shown.raw["GraphDriver"];
    let name = driver["Name"].as_str().unwrap_or("an unknown driver");
    let unknown = || Unpacked::OutOfReach(OutOfReach::Driver { driver: name.to_owned() });
    if !matches!(name, "overlay" | "overlay2") {
        return unknown();
    }
    // The topmost comes first.
    let lower = driver["Data"]["LowerDir"].as_str().into_iter().flat_map(|all| all.split(':'));
    let folders: Vec<PathBuf> = driver["Data"]["UpperDir"].as_str().into_iter().chain(lower).map(PathBuf::from).collect();
    if folders.len() != shown.diff_ids.len() {
        return unknown();
    }
    Unpacked::Folders(folders.into_iter().rev().collect())
}

/// Says whether folders can be read here; one that alone is missing is damage, and not out of reach.
pub fn within_reach(folders: &[PathBuf]) -> Option<OutOfReach> {
    folders.iter().find_map(|folder| {
        let error = std::fs::read_dir(folder).err()?;
        match error.kind() {
            io::ErrorKind::PermissionDenied => Some(OutOfReach::Denied { path: folder.clone() }),
            // The folder of all layers is there if any is.
            _ if folder.ancestors().nth(2).is_some_and(Path::is_dir) => None,
            _ => Some(OutOfReach::Elsewhere { path: folder.clone() }),
        }
    })
}

fn hash_members(archive: Pieces) -> HashSet<Digest> {
    let mut found = HashSet::new();
    let mut archive = tar::Archive::new(archive);
    let mut buffer = vec![0; STEP];
    // An archive that ends early lacks what it lacks; that is seen from what is there.
    for entry in archive.entries().into_iter().flatten() {
        let Ok(mut entry) = entry else { break };
        let mut hasher = Hasher::new();
        while let Ok(length @ 1..) = entry.read(&mut buffer) {
            hasher.update(&buffer[..length]);
        }
        let (size, (digest, length)) = (entry.size(), hasher.finish());
        if size == length {
            found.insert(digest);
        }
    }
    let mut rest = archive.into_inner();
    // Whoever sends is not to wait for somebody who has gone.
    while rest.taken.blocking_recv().is_some() {}
    found
}

/// An answer as it comes, for whoever reads it on another thread.
struct Pieces {
    taken: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.taken.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.filter(|text| is_name(text)).map(str::to_owned).collect()
}

/// Old dockers write something in place of a name that is not there.
fn is_name(text: &str) -> bool {
    !text.contains("<none>")
}

fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutOfReach::Remote { address } => write!(f, "the engine is reached over {address}, and its files are on its own machine"),
            OutOfReach::Rootless => f.write_str("the engine runs with user numbers of its own, so its files have other owners"),
            OutOfReach::Driver { driver } => write!(f, "the engine keeps them with {driver}, which larder does not read"),
            OutOfReach::Containerd => {
                f.write_str("docker keeps them in a containerd that was not found; CONTAINERD_ADDRESS can name its socket")
            }
            OutOfReach::Elsewhere { path } => write!(f, "{} is not on this machine", path.display()),
            OutOfReach::Denied { path } => write!(f, "only root may read {}", path.display()),
            OutOfReach::NotInStore { layers } => write!(f, "the store lacks {layers} of the layers to compare them with"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::IdOf;

    fn shown(layers: usize, driver: Value) -> Shown {
        let digest = Digest::of(b"some");
        let raw = json!({ "GraphDriver": driver });
        let diff_ids = vec![digest; layers];
        Shown { id: digest, id_of: IdOf::Config, digests: vec![], diff_ids, platform: None, complete: true, manifests: vec![], raw }
    }

    #[test]
    fn folders_come_from_the_base_up() {
        let three = json!({ "Name": "overlay2", "Data": { "LowerDir": "/l/b/diff:/l/a/diff", "UpperDir": "/l/c/diff" } });
        let wanted = ["/l/a/diff", "/l/b/diff", "/l/c/diff"].map(PathBuf::from).to_vec();
        assert_eq!(folders(&shown(3, three.clone())), Unpacked::Folders(wanted));
        let one = json!({ "Name": "overlay", "Data": { "UpperDir": "/l/a/diff" } });
        assert_eq!(folders(&shown(1, one)), Unpacked::Folders(vec!["/l/a/diff".into()]));
        assert_eq!(folders(&shown(0, json!({ "Name": "overlay", "Data": {} }))), Unpacked::Folders(vec![]));
        for (layers, driver) in [(2, three), (3, json!({ "Name": "btrfs", "Data": null })), (1, json!(null))] {
            assert!(matches!(folders(&shown(layers, driver)), Unpacked::OutOfReach(OutOfReach::Driver { .. })));
        }
    }

    #[test]
    fn a_folder_that_alone_is_missing_is_within_reach() {
        let root = tempfile::tempdir().unwrap();
        let at = |layer: &str| root.path().join("overlay2").join(layer).join("diff");
        let elsewhere = within_reach(&[at("a")]);
        assert_eq!(elsewhere, Some(OutOfReach::Elsewhere { path: at("a") }));
        std::fs::create_dir_all(at("b")).unwrap();
        assert_eq!(within_reach(&[at("b"), at("a")]), None);
    }

    #[test]
    fn what_an_archive_has_whole_is_hashed() {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in [("one", vec![1; 3000]), ("none", vec![]), ("two", vec![2; 3000])] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let hashed = |tar: &[u8]| {
            let (pieces, taken) = mpsc::channel(100);
            for piece in tar.chunks(700) {
                pieces.try_send(Bytes::copy_from_slice(piece)).unwrap();
            }
            drop(pieces);
            hash_members(Pieces { taken, piece: Bytes::new() })
        };
        let (one, two) = (Digest::of(&[1; 3000]), Digest::of(&[2; 3000]));
        assert_eq!(hashed(&tar), HashSet::from([one, two, Digest::of(b"")]));
        // Docker writes an error behind what it had written when it noticed.
        let cut = [&tar[..6500], br#"{"errorDetail":{"message":"file integrity checksum failed"}}"#].concat();
        assert_eq!(hashed(&cut), HashSet::from([one, Digest::of(b"")]));
    }
}
