//! `index.json` of an OCI layout: images by the digests of their manifests.

use super::blobs::Blobs;
use super::error::ImportError;
use super::found;
use crate::digest::{Digest, Verified};
use crate::oci::{Config, Descriptor, Document, DocumentError, INDEX_DEPTH, INDEX_LIMIT, Image, Index, Layout, Manifest, Platform};
use crate::store::Store;

pub(super) const LIST: &str = "index.json";

/// An image of an `index.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) names: Vec<String>,
    pub(super) root: Descriptor,
    /// Those platforms of it that are all there.
    pub(super) images: Vec<Image>,
}

/// The images that are listed; each is checked against its manifest and config.
pub(super) fn images(list: &Verified, blobs: &Blobs, store: &Store) -> Result<Vec<Listed>, ImportError> {
    let layout = Layout::parse(list)?;
    if layout.images.is_empty() {
        return Err(ImportError::EmptyList { list: LIST });
    }
    let mut listed: Vec<Listed> = Vec::new();
    for entry in layout.images {
        let name = entry.image_name.or(entry.ref_name);
        match listed.iter_mut().find(|known| known.root.digest == entry.root.digest) {
            Some(known) if known.root == entry.root => known.names.extend(name),
            Some(known) => return Err(wrong_size(&entry.root, known.root.size)),
            None => {
                let images = Reading { blobs, store }.images(&entry.root)?;
                listed.push(Listed { names: name.into_iter().collect(), root: entry.root, images });
            }
        }
    }
    Ok(listed)
}

struct Reading<'a> {
    blobs: &'a Blobs,
    store: &'a Store,
}

/// A manifest with all its parts, or what is missing of it first.
type Part = Result<Image, Digest>;

impl Reading<'_> {
    fn images(&self, root: &Descriptor) -> Result<Vec<Image>, ImportError> {
        let incomplete = |missing| ImportError::Incomplete { root: root.digest, missing };
        let text = self.document(root)?.ok_or_else(|| incomplete(root.digest))?;
        match Document::parse(&text, Some(&root.media_type))?.0 {
            Document::Manifest(parts) => match Image::of_artifact(root, &parts) {
                Some(artifact) => Ok(vec![self.artifact(artifact)?.map_err(incomplete)?]),
                None => Ok(vec![self.image(root, root, parts)?.map_err(incomplete)?]),
            },
            Document::Index(index) => self.of_index(root, index),
        }
    }

    /// Those images of an index, and of the indexes in it, that are all there: an archive may hold one platform of many, with the index of all.
    fn of_index(&self, root: &Descriptor, index: Index) -> Result<Vec<Image>, ImportError> {
        let (mut images, mut missing, mut listed) = (Vec::<Image>::new(), None, index.manifests.len());
        let entries =
            |index: Index, via: &[Descriptor]| index.manifests.into_iter().rev().map(|entry| (via.to_vec(), entry)).collect::<Vec<_>>();
        let mut ahead = entries(index, &[]);
        while let Some((via, (platform, entry))) = ahead.pop() {
            if images.iter().any(|image| image.manifest.digest == entry.digest) {
                continue;
            }
            let Some(text) = self.document(&entry)? else {
                missing = missing.or(Some(entry.digest));
                continue;
            };
            match Document::parse(&text, Some(&entry.media_type))?.0 {
                Document::Index(inner) => {
                    listed += inner.manifests.len();
                    if listed > INDEX_LIMIT {
                        return Err(DocumentError::TooMany { digest: entry.digest, found: listed, limit: INDEX_LIMIT }.into());
                    }
                    if via.len() + 1 >= INDEX_DEPTH {
                        return Err(DocumentError::Nested { digest: entry.digest }.into());
                    }
                    ahead.extend(entries(inner, &[via, vec![entry]].concat()));
                }
                Document::Manifest(parts) if parts.artifact.is_some() => {}
                Document::Manifest(parts) => match self.of_entry(root, platform.as_ref(), &entry, parts)? {
                    Ok(image) => images.push(Image { via, ..image }),
                    Err(digest) => missing = missing.or(Some(digest)),
                },
            }
        }
        match images.is_empty() {
            true => Err(ImportError::Incomplete { root: root.digest, missing: missing.unwrap_or(root.digest) }),
            false => Ok(images),
        }
    }

    fn of_entry(
        &self,
        root: &Descriptor,
        platform: Option<&Platform>,
        manifest: &Descriptor,
        parts: Manifest,
    ) -> Result<Part, ImportError> {
        let image = self.image(root, manifest, parts)?;
        if let (Some(expected), Ok(image)) = (platform, &image)
            && expected.rank(&image.platform).is_none()
        {
            let (expected, found) = (expected.clone(), image.platform.clone());
            return Err(ImportError::WrongPlatform { manifest: manifest.digest, expected, found });
        }
        Ok(image)
    }

    fn image(&self, root: &Descriptor, manifest: &Descriptor, parts: Manifest) -> Result<Part, ImportError> {
        let Some(config) = self.document(&parts.config)? else { return Ok(Err(parts.config.digest)) };
        let image = Image::new(root.clone(), manifest.clone(), parts, Config::parse(&config)?)?;
        for (number, (layer, diff_id)) in (1..).zip(image.layers.iter().zip(&image.diff_ids)) {
            let unpacked = match self.blobs.get(&layer.digest) {
                Some(blob) if blob.size != layer.size => return Err(wrong_size(layer, blob.size)),
                Some(blob) => blob.layer.clone(),
                None if self.store.has(layer) => self.blobs.layer_in_store(layer)?,
                None => return Ok(Err(layer.digest)),
            };
            found::compare(&unpacked, &layer.digest, (number, image.config.digest, *diff_id))?;
        }
        Ok(Ok(image))
    }

    /// An artifact, whose parts are whatever they are.
    fn artifact(&self, artifact: Image) -> Result<Part, ImportError> {
        for part in [&artifact.config].into_iter().chain(&artifact.layers) {
            match self.blobs.get(&part.digest) {
                Some(blob) if blob.size != part.size => return Err(wrong_size(part, blob.size)),
                Some(_) => {}
                None if self.store.has(part) => {}
                None => return Ok(Err(part.digest)),
            }
        }
        Ok(Ok(artifact))
    }

    /// A document out of the file, or else out of the store.
    fn document(&self, of: &Descriptor) -> Result<Option<Verified>, ImportError> {
        let text = match self.blobs.get(&of.digest) {
            Some(blob) if blob.size != of.size => return Err(wrong_size(of, blob.size)),
            Some(_) => self.blobs.text_of(&of.digest),
            None => None,
        };
        match text {
            Some(text) => Ok(Some(text)),
            None if self.store.has(of) => Ok(self.store.document(&of.digest)?),
            None => Ok(None),
        }
    }
}

fn wrong_size(blob: &Descriptor, found: u64) -> ImportError {
    ImportError::WrongSize { digest: blob.digest, claimed: blob.size, found }
}
