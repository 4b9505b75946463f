//! An image as one tar stream, out of the store.
//!
//! Owns the form of the archive: an OCI layout with the registry's own documents, and beside it the `manifest.json` that
//! docker reads, both pointing at the same blobs, so that every engine finds in it what it knows. Always true: the archive holds one
//! image under one name; its size is known before the first byte and the bytes are the same every time; every byte is hashed on its way out,
//! and what names the image comes last, so that a stream that was cut or ended on damage never names anything. Layers that are left out, since
//! whoever takes it has them, are still named in its documents.
//!
//! Blocking. Sending it is the engines' affair.

pub mod donor;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use serde::Serialize;

pub(crate) use write::unreadable;
pub use write::{Outcome, Taker, write_each};

use crate::digest::Digest;
use crate::oci::{Compression, Descriptor, Image};
use crate::reference::Name;
use crate::store::{Store, StoreError};

/// The unit of a tar archive: a header, and what content is filled up to.
const BLOCK: u64 = 512;
/// The most bytes that a layer may unpack to.
const UNPACKED_LIMIT: u64 = 256 << 30;

/// An image that is about to leave the store.
pub struct Archive {
    store: Store,
    members: Vec<Member>,
}

/// Which layers go out, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// How they go out.
    pub layers: Layers,
    /// The layers that are left out, by the digests of their blobs. The archive is of use only where they are already.
    pub without: BTreeSet<Digest>,
}

impl Parts {
    /// All layers.
    pub fn all(layers: Layers) -> Parts {
        Parts { layers, without: BTreeSet::new() }
    }
}

/// How layers go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// As they are in the store.
    AsStored,
    /// Those compressed with zstd as plain tar archives, for docker before 23.
    WithoutZstd,
}

/// An image could not leave the store.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not all of it is in the store.
    #[error("{name} is not complete in the store: {missing_layers} of {layers} layers are missing, {missing_bytes} bytes in all")]
    Incomplete {
        /// The name it was to bear.
        name: Name,
        /// How many different layers it has.
        layers: usize,
        /// How many of them are missing.
        missing_layers: usize,
        /// How many of its index, manifest and config are missing.
        missing_documents: usize,
        /// The bytes of all that is missing.
        missing_bytes: u64,
    },
    /// The store could not give a blob, or found it damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob could not be read.
    #[error("cannot read {digest} from the store")]
    Read {
        /// Which blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The layer's bytes are what the manifest names, but they do not unpack.
    #[error("the layer {digest} cannot be unpacked")]
    Unpack {
        /// Which layer.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The layer's bytes are what the manifest names, but they unpack to more than larder handles.
    #[error("the layer {digest} unpacks to more than {limit} bytes")]
    TooLarge {
        /// Which layer.
        digest: Digest,
        /// The limit in bytes.
        limit: u64,
    },
    /// The layer's bytes are what the manifest names, but not what the config says they unpack to.
    #[error("the layer {digest} unpacks to {found}, and the image's config says {expected}")]
    DiffId {
        /// Which layer.
        digest: Digest,
        /// The diff ID in the config.
        expected: Digest,
        /// What it unpacks to.
        found: Digest,
    },
    /// Whoever takes the archive took no more.
    #[error("the archive could not be written")]
    Write {
        /// Why.
        source: io::Error,
    },
}

/// A file in the archive.
struct Member {
    path: String,
    size: u64,
    content: Content,
    /// Where the blob stands among the image's blobs.
    place: usize,
}

enum Content {
    Text(Vec<u8>),
    Blob(Descriptor),
    /// A layer that goes out unpacked, and its diff ID.
    Unpacked(Descriptor, Digest),
}

impl Archive {
    /// Checks that all is in the store and computes the size.
    ///
    /// With [`Layers::WithoutZstd`], zstd layers are unpacked once here, to learn their size and to compare them with their diff IDs.
    pub fn new(store: &Store, image: &Image, name: &Name, parts: &Parts) -> Result<Archive, ArchiveError> {
        complete(store, image, name)?;
        let documents = [image.root.digest, image.manifest.digest, image.config.digest];
        let sent = |blob: &&Descriptor| documents.contains(&blob.digest) || !parts.without.contains(&blob.digest);
        let zstd = |layer: &Descriptor| layer.compression() == Some(Compression::Zstd);
        let mut members = match parts.layers {
            Layers::WithoutZstd if image.layers.iter().any(zstd) => docker_members(store, image, name, &sent)?,
            _ => hybrid_members(image, name, &sent),
        };
        let places: HashMap<Digest, usize> = image.blobs().into_iter().enumerate().map(|(place, blob)| (blob.digest, place)).collect();
        for member in &mut members {
            member.place = match &member.content {
                Content::Text(_) => 0,
                Content::Blob(blob) | Content::Unpacked(blob, _) => places[&blob.digest],
            };
        }
        Ok(Archive { store: store.clone(), members })
    }

    /// The size of the archive in bytes.
    pub fn size(&self) -> u64 {
        let padded = |size: u64| size.div_ceil(BLOCK).saturating_mul(BLOCK);
        self.members.iter().map(|m| BLOCK + padded(m.size)).fold(write::END.len() as u64, u64::saturating_add)
    }
}

/// Fails unless all of the image's blobs are there.
pub(crate) fn complete(store: &Store, image: &Image, name: &Name) -> Result<(), ArchiveError> {
    let layers: HashSet<Digest> = image.layers.iter().map(|l| l.digest).collect();
    let missing: Vec<&Descriptor> = image.blobs().into_iter().filter(|d| !store.has(d)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for blob in &missing {
        // One that is there with another size is damaged, which is not the same as missing.
        match store.blob(blob) {
            Ok(_) | Err(StoreError::Missing { .. }) => {}
            Err(damaged) => return Err(damaged.into()),
        }
    }
    let missing_layers = missing.iter().filter(|d| layers.contains(&d.digest)).count();
    Err(ArchiveError::Incomplete {
        name: name.clone(),
        layers: layers.len(),
        missing_layers,
        missing_documents: missing.len() - missing_layers,
        missing_bytes: missing.iter().map(|d| d.size).fold(0, u64::saturating_add),
    })
}

/// An OCI layout that is a docker archive as well.
fn hybrid_members(image: &Image, name: &Name, sent: &dyn Fn(&&Descriptor) -> bool) -> Vec<Member> {
    let mut members = vec![text("oci-layout", &OciLayout { image_layout_version: "1.0.0" })];
    members.extend(image.blobs().into_iter().filter(sent).map(blob));
    let annotations = BTreeMap::from([
        // docker and containerd take the full name from the first, podman from the second or from manifest.json.
        ("io.containerd.image.name", name.to_string()),
        ("org.opencontainers.image.ref.name", name.tag().to_owned()),
    ]);
    members.push(text("index.json", &Index { schema_version: 2, manifests: [Entry { descriptor: &image.root, annotations }] }));
    let layers = image.layers.iter().map(|layer| path(&layer.digest)).collect();
    members.push(docker_manifest(image, name, layers));
    members
}

/// A docker archive whose zstd layers are plain.
///
/// It is no OCI layout, since the image's manifest does not name the layers in it. Docker before 23 reads `manifest.json` alone.
fn docker_members(store: &Store, image: &Image, name: &Name, sent: &dyn Fn(&&Descriptor) -> bool) -> Result<Vec<Member>, ArchiveError> {
    let mut members = vec![blob(&image.config)];
    let mut layers = Vec::new();
    let mut seen = HashSet::from([members[0].path.clone()]);
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        let zstd = layer.compression() == Some(Compression::Zstd);
        let path = path(if zstd { diff_id } else { &layer.digest });
        if sent(&layer) && seen.insert(path.clone()) {
            members.push(if zstd { unpacked(store, layer, diff_id)? } else { blob(layer) });
        }
        layers.push(path);
    }
    members.push(docker_manifest(image, name, layers));
    Ok(members)
}

fn docker_manifest(image: &Image, name: &Name, layers: Vec<String>) -> Member {
    let entry = DockerEntry { config: path(&image.config.digest), repo_tags: [name.to_string()], layers };
    text("manifest.json", &[entry])
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(descriptor: &Descriptor) -> Member {
    Member { path: path(&descriptor.digest), size: descriptor.size, content: Content::Blob(descriptor.clone()), place: 0 }
}

fn text(path: &str, document: &impl Serialize) -> Member {
    let text = serde_json::to_vec(document).expect("texts and numbers are always JSON");
    Member { path: path.to_owned(), size: text.len() as u64, content: Content::Text(text), place: 0 }
}

fn unpacked(store: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<Member, ArchiveError> {
    let (found, size) = write::measure(store, layer, UNPACKED_LIMIT)?;
    if size > UNPACKED_LIMIT {
        return Err(ArchiveError::TooLarge { digest: layer.digest, limit: UNPACKED_LIMIT });
    }
    if found != *diff_id {
        return Err(ArchiveError::DiffId { digest: layer.digest, expected: *diff_id, found });
    }
    Ok(Member { path: path(diff_id), size, content: Content::Unpacked(layer.clone(), *diff_id), place: 0 })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OciLayout {
    image_layout_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    manifests: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    descriptor: &'a Descriptor,
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: [String; 1],
    layers: Vec<String>,
}

#[cfg(test)]
pub(crate) mod tests;
