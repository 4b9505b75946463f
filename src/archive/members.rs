//! What is in an archive: its files, in order, with their paths and sizes.
//!
//! Owns the layout of each form and the documents that larder writes into it. Always true: no path is there twice; a blob lies before
//! whatever names it for the reader.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::{ArchiveError, Form, Item, write};
use crate::digest::Digest;
use crate::oci::{Compression, Descriptor, Image};
use crate::store::Store;

/// The name of an image, for docker and containerd.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The name in an OCI layout, for podman and skopeo.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The most bytes that a layer may unpack to.
const UNPACKED_LIMIT: u64 = 256 << 30;

/// Whether a blob goes out, or is left out.
pub(super) type Sent<'a> = &'a dyn Fn(&Descriptor) -> bool;

/// A file in the archive.
pub(super) struct Member {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) content: Content,
    /// Where the blob stands among all blobs of the images, whatever is left out.
    pub(super) place: usize,
}

pub(super) enum Content {
    Text(Vec<u8>),
    Blob(Descriptor),
    /// A layer that goes out unpacked, and its diff ID.
    Unpacked(Descriptor, Digest),
}

impl Content {
    pub(super) fn is_compressed(&self) -> bool {
        match self {
            Content::Blob(blob) => matches!(blob.compression(), Some(Compression::Gzip | Compression::Zstd)),
            Content::Text(_) | Content::Unpacked(..) => false,
        }
    }
}

pub(super) fn of(store: &Store, items: &[Item], form: Form, sent: Sent<'_>) -> Result<Vec<Member>, ArchiveError> {
    let mut members = match form {
        Form::Both | Form::Oci => layout(items, form, sent),
        Form::Docker | Form::Crane => docker(store, items, form, sent)?,
    };
    let mut places = HashMap::new();
    for blob in items.iter().flat_map(|item| &item.images).flat_map(Image::blobs) {
        let next = places.len();
        places.entry(blob.digest).or_insert(next);
    }
    for member in &mut members {
        member.place = match &member.content {
            Content::Text(_) => 0,
            Content::Blob(blob) | Content::Unpacked(blob, _) => places[&blob.digest],
        };
    }
    Ok(members)
}

/// An OCI layout, and perhaps a docker archive as well.
fn layout(items: &[Item], form: Form, sent: Sent<'_>) -> Vec<Member> {
    let mut members = vec![text("oci-layout", &OciLayout { image_layout_version: "1.0.0" })];
    let mut seen = HashSet::new();
    let blobs = items.iter().flat_map(|item| &item.images).flat_map(Image::blobs);
    members.extend(blobs.filter(|of| seen.insert(of.digest) && sent(of)).map(|of| blob(of.digest.path(), of)));
    members.push(text("index.json", &Index { schema_version: 2, manifests: items.iter().map(Entry::new).collect() }));
    if form == Form::Both {
        let mut list = DockerList::default();
        let images = items.iter().filter_map(|item| Some((item, item.images.first()?))).filter(|(_, image)| image.artifact.is_none());
        for (item, image) in images {
            list.add(item, image.config.digest.path(), image.layers.iter().map(|layer| layer.digest.path()).collect());
        }
        // Of artifacts alone it is a layout alone.
        if !list.0.is_empty() {
            members.push(text("manifest.json", &list));
        }
    }
    members
}

/// A docker archive whose zstd layers are plain.
///
/// It is no OCI layout, since the image's manifest does not name the layers in it. Docker before 23 reads `manifest.json` alone.
fn docker(store: &Store, items: &[Item], form: Form, sent: Sent<'_>) -> Result<Vec<Member>, ArchiveError> {
    let mut members = Vec::new();
    let mut seen = HashSet::new();
    let mut list = DockerList::default();
    for (item, image) in items.iter().filter_map(|item| Some((item, item.images.first()?))) {
        let config = match form {
            Form::Crane => image.config.digest.to_string(),
            _ => image.config.digest.path(),
        };
        if seen.insert(config.clone()) {
            members.push(blob(config.clone(), &image.config));
        }
        let mut layers = Vec::new();
        for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            let zstd = layer.compression() == Some(Compression::Zstd);
            let path = layer_path(form, layer, diff_id);
            if sent(layer) && seen.insert(path.clone()) {
                members.push(if zstd { unpacked(store, path.clone(), layer, diff_id)? } else { blob(path.clone(), layer) });
            }
            layers.push(path);
        }
        list.add(item, config, layers);
    }
    members.push(text("manifest.json", &list));
    Ok(members)
}

/// Where a layer lies in a docker archive.
fn layer_path(form: Form, layer: &Descriptor, diff_id: &Digest) -> String {
    let (digest, ending) = match layer.compression() {
        Some(Compression::Zstd) => (diff_id, "tar"),
        Some(Compression::Gzip) => (&layer.digest, "tar.gz"),
        _ => (&layer.digest, "tar"),
    };
    match form {
        Form::Crane => format!("{}.{ending}", digest.hex()),
        _ => digest.path(),
    }
}

fn blob(path: String, descriptor: &Descriptor) -> Member {
    Member { path, size: descriptor.size, content: Content::Blob(descriptor.clone()), place: 0 }
}

fn text(path: &str, document: &impl Serialize) -> Member {
    let text = serde_json::to_vec(document).expect("texts and numbers are always JSON");
    Member { path: path.to_owned(), size: text.len() as u64, content: Content::Text(text), place: 0 }
}

fn unpacked(store: &Store, path: String, layer: &Descriptor, diff_id: &Digest) -> Result<Member, ArchiveError> {
    let (found, size) = write::measure(store, layer, UNPACKED_LIMIT)?;
    if size > UNPACKED_LIMIT {
        return Err(ArchiveError::TooLarge { digest: layer.digest, limit: UNPACKED_LIMIT });
    }
    if found != *diff_id {
        return Err(ArchiveError::DiffId { digest: layer.digest, expected: *diff_id, found });
    }
    Ok(Member { path, size, content: Content::Unpacked(layer.clone(), *diff_id), place: 0 })
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
    manifests: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    root: &'a Descriptor,
    annotations: BTreeMap<&'static str, String>,
}

impl Entry<'_> {
    fn new(item: &Item) -> Entry<'_> {
        // docker and containerd take the name from the first, podman and skopeo from the second. A tag alone would not tell images apart.
        let annotations = [IMAGE_NAME, REF_NAME].map(|key| (key, item.name.to_string()));
        Entry { root: &item.root, annotations: annotations.into() }
    }
}

/// What docker reads: [the list of images](https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md#combined-image-json--filesystem-changeset-format).
#[derive(Serialize, Default)]
#[serde(transparent)]
struct DockerList(Vec<DockerEntry>);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl DockerList {
    /// One image has one entry, however many names it bears.
    fn add(&mut self, item: &Item, config: String, layers: Vec<String>) {
        let name = item.name.to_string();
        match self.0.iter_mut().find(|entry| entry.config == config && entry.layers == layers) {
            Some(entry) => entry.repo_tags.push(name),
            None => self.0.push(DockerEntry { config, repo_tags: vec![name], layers }),
        }
    }
}
