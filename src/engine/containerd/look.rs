//! What containerd holds under a name.
//!
//! Owns the reading of image records and of what they point to. Always true: documents that containerd gives are hashed before they
//! are read; a manifest counts as there only with its config, all of its layers and the snapshot that they unpack to.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::Shelf;
use super::api::{GetContent, GetImage, Image as Record, ReadContent, SnapshotKind, StatSnapshot};
use super::channel::Channel;
use super::unpack;
use crate::digest::{Digest, Verified};
use crate::engine::{EngineError, IdOf, Shown};
use crate::oci::{Config, DOCUMENT_LIMIT, Descriptor, Document, INDEX_DEPTH, INDEX_LIMIT, Image, Manifest};
use crate::plan::Lacking;
use crate::reference::Name;

/// One platform's image, as far as it is there.
struct Part {
    manifest: Digest,
    config: Option<(Config, Bytes)>,
    complete: bool,
}

/// What is under the name. A few questions, most of them at once.
pub(super) async fn look(channel: &Channel, shelf: &Shelf, name: &Name) -> Result<Option<Shown>, EngineError> {
    let Some(target) = target(channel, &name.to_string()).await? else { return Ok(None) };
    let pinned = async {
        let found = self::target(channel, &super::by_digest(name, &target.digest)).await?;
        Ok(!shelf.has_digests() || found.is_some_and(|pinned| pinned.digest == target.digest))
    };
    let (pinned, parts) = tokio::try_join!(pinned, parts(channel, &shelf.snapshotter, &target))?;
    let first = parts.iter().find(|part| part.complete).or(parts.first()).and_then(|part| part.config.as_ref());
    let manifests: Vec<Digest> = parts.iter().filter(|part| part.complete).map(|part| part.manifest).collect();
    Ok(Some(Shown {
        id: target.digest,
        id_of: IdOf::Target,
        digests: if pinned { vec![target.digest] } else { Vec::new() },
        diff_ids: first.map(|(config, _)| config.diff_ids.clone()).unwrap_or_default(),
        platform: first.map(|(config, _)| config.platform.clone()),
        complete: !manifests.is_empty(),
        manifests,
        raw: first.map(|(_, text)| as_docker_shows(text)).unwrap_or_default(),
    }))
}

/// The record of this name.
pub(super) async fn record(channel: &Channel, name: &str) -> Result<Option<Record>, EngineError> {
    Ok(channel.find(GetImage { name: name.to_owned() }).await?.and_then(|found| found.image))
}

/// The layers of the images that a record points to, as far as their configs are there.
pub(super) async fn diff_ids(channel: &Channel, snapshotter: &str, record: &Record) -> Result<Vec<Vec<Digest>>, EngineError> {
    let Some(target) = points_to(channel, record)? else { return Ok(Vec::new()) };
    let parts = parts(channel, snapshotter, &target).await?;
    Ok(parts.into_iter().filter_map(|part| part.config).map(|(config, _)| config.diff_ids).collect())
}

/// The blobs of the image with this name, the documents among them; of an index the images whose manifests are there.
pub(super) async fn blobs(channel: &Channel, name: &Name) -> Result<Vec<Digest>, EngineError> {
    let Some(target) = target(channel, &name.to_string()).await? else { return Ok(Vec::new()) };
    let (manifests, indexes) = manifests(channel, &target).await?;
    let mut blobs: Vec<Digest> = [target.digest].into_iter().chain(indexes).chain(manifests.iter().map(|(digest, _)| *digest)).collect();
    blobs.extend(manifests.iter().flat_map(|(_, image)| image.layers.iter().chain([&image.config])).map(|blob| blob.digest));
    Ok(blobs)
}

/// What an image record points to.
async fn target(channel: &Channel, name: &str) -> Result<Option<Descriptor>, EngineError> {
    match record(channel, name).await? {
        Some(record) => points_to(channel, &record),
        None => Ok(None),
    }
}

fn points_to(channel: &Channel, record: &Record) -> Result<Option<Descriptor>, EngineError> {
    let Some(target) = record.target.clone() else { return Ok(None) };
    let digest = target.digest.parse().map_err(|e| channel.unreadable::<GetImage>(e))?;
    Ok(Some(Descriptor { media_type: target.media_type, digest, size: target.size.try_into().unwrap_or_default() }))
}

/// The images that a target names, as far as containerd has their manifests.
async fn parts(channel: &Channel, snapshotter: &str, target: &Descriptor) -> Result<Vec<Part>, EngineError> {
    let (manifests, _) = manifests(channel, target).await?;
    try_join_all(manifests.into_iter().map(|(manifest, parts)| part(channel, snapshotter, manifest, parts))).await
}

/// The manifests that a target is or leads to, and the indexes on the way, as far as they are there.
async fn manifests(channel: &Channel, target: &Descriptor) -> Result<(Vec<(Digest, Manifest)>, Vec<Digest>), EngineError> {
    let (mut manifests, mut indexes) = (Vec::new(), Vec::new());
    let mut level = vec![target.clone()];
    for _ in 0..=INDEX_DEPTH {
        let documents = try_join_all(level.iter().map(|of| parsed(channel, of))).await?;
        let mut below = Vec::new();
        for (of, document) in level.iter().zip(documents) {
            match document {
                Some(Document::Manifest(parts)) => manifests.push((of.digest, parts)),
                Some(Document::Index(index)) => {
                    indexes.push(of.digest);
                    below.extend(index.manifests.into_iter().map(|(_, listed)| listed));
                }
                None => {}
            }
        }
        below.truncate(INDEX_LIMIT);
        level = below;
    }
    Ok((manifests, indexes))
}

/// A document that the pinned image could have; one that is damaged or of another kind is as good as missing.
async fn parsed(channel: &Channel, of: &Descriptor) -> Result<Option<Document>, EngineError> {
    let document = document(channel, &of.digest).await?;
    Ok(document.and_then(|document| Document::parse(&document, Some(&of.media_type)).ok()).map(|(document, _)| document))
}

async fn document(channel: &Channel, digest: &Digest) -> Result<Option<Verified>, EngineError> {
    let bytes = channel.read(ReadContent { digest: digest.to_string() }, DOCUMENT_LIMIT).await?;
    Ok(bytes.and_then(|bytes| Verified::compare(bytes, digest).ok()))
}

async fn part(channel: &Channel, snapshotter: &str, manifest: Digest, parts: Manifest) -> Result<Part, EngineError> {
    let text = document(channel, &parts.config.digest).await?;
    let Some((config, text)) = text.and_then(|text| Some((Config::parse(&text).ok()?, text.bytes().clone()))) else {
        return Ok(Part { manifest, config: None, complete: false });
    };
    let mut seen = HashSet::new();
    let layers = parts.layers.iter().filter(|layer| seen.insert(layer.digest)).map(|layer| has(channel, layer));
    let unpacked = async {
        match unpack::chains(&config.diff_ids).last() {
            Some(chain) => has_snapshot(channel, snapshotter, chain).await,
            None => Ok(true),
        }
    };
    let (layers, unpacked) = tokio::try_join!(try_join_all(layers), unpacked)?;
    let complete = unpacked && layers.into_iter().all(|there| there) && config.diff_ids.len() == parts.layers.len();
    Ok(Part { manifest, config: Some((config, text)), complete })
}

/// Whether a blob of this digest and size is there.
pub(super) async fn has(channel: &Channel, blob: &Descriptor) -> Result<bool, EngineError> {
    let found = channel.find(GetContent { digest: blob.digest.to_string() }).await?;
    Ok(found.and_then(|found| found.content).is_some_and(|content| u64::try_from(content.size) == Ok(blob.size)))
}

/// What containerd lacks of an image's layers.
pub(super) async fn lacking(channel: &Channel, image: &Image) -> Result<Lacking, EngineError> {
    let there = try_join_all(image.layers.iter().map(|layer| has(channel, layer))).await?;
    let held = image.layers.iter().zip(there).filter(|(_, there)| *there).map(|(layer, _)| layer.digest).collect();
    Ok(Lacking::new(image, &held))
}

/// Whether the layers of this chain were unpacked, to their end.
pub(super) async fn has_snapshot(channel: &Channel, snapshotter: &str, chain: &Digest) -> Result<bool, EngineError> {
    let found = channel.find(StatSnapshot { snapshotter: snapshotter.to_owned(), key: chain.to_string() }).await?;
    Ok(found.and_then(|found| found.snapshot).is_some_and(|snapshot| snapshot.kind() == SnapshotKind::Committed))
}

/// A config in the form in which docker shows one, which is the form that contents are compared in.
fn as_docker_shows(config: &[u8]) -> Value {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    json!({
        "Created": config["created"], "Author": config["author"], "Architecture": config["architecture"], "Os": config["os"],
        "Variant": config["variant"], "Config": config["config"],
    })
}
