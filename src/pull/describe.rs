//! From a root to the images that are wanted: indexes, manifests and configs are read, the store's before a registry's.
//!
//! Always true: an index is followed to [`INDEX_DEPTH`](crate::oci::INDEX_DEPTH) others in it at most, and all of them together list no more than one may.

use std::collections::BTreeMap;

use super::choose::{Chosen, roots, select};
use super::{Cache, PullError, Result, Root, Sources, Want};
use crate::digest::{Digest, Verified};
use crate::event::Event;
use crate::oci::{self, Config, Descriptor, Document, DocumentError, INDEX_LIMIT, Image, Manifest, Platform};

/// The images of a root, and the documents that were read on the way: they go into the store with the blobs.
pub(super) struct Described {
    pub(super) images: Vec<Image>,
    pub(super) documents: Documents,
}

/// Documents that were read, by their digests.
pub(super) type Documents = BTreeMap<Digest, Verified>;

impl Cache<'_> {
    pub(super) async fn describe(&self, want: &Want, root: &Root, sources: &Sources<'_>, mut documents: Documents) -> Result<Described> {
        let mut images: Vec<Image> = Vec::new();
        for (chosen, parts) in self.chosen(want, root, sources, &mut documents).await? {
            if !images.iter().any(|image| image.manifest.digest == chosen.manifest.digest) {
                let image = self.image(want, root, chosen, parts, sources, &mut documents).await?;
                // Nothing that can be asked for tells them apart, such as the version of Windows: neither by a person nor by the name of a pin.
                if images.iter().any(|first| first.platform == image.platform) {
                    (self.tell)(Event::SamePlatform { manifest: image.manifest.digest, platform: image.platform.to_string() });
                } else {
                    images.push(image);
                }
            }
        }
        Ok(Described { images, documents })
    }

    /// The manifests that are wanted, in the root's order.
    pub(super) async fn chosen(
        &self,
        want: &Want,
        root: &Root,
        sources: &Sources<'_>,
        documents: &mut Documents,
    ) -> Result<Vec<(Chosen, Manifest)>> {
        let mut chosen = Vec::new();
        for next in self.through_indexes(want, root, sources, documents).await? {
            let is_root = next.manifest.digest == root.descriptor.digest;
            match self.parsed(want, root, &next.manifest, sources, documents).await? {
                // What an index lists besides images is not asked for.
                Document::Manifest(parts) if parts.artifact.is_some() && !is_root => {
                    if let Some(wanted) = &next.wanted {
                        return Err(next.other_platform(want, wanted, Platform::none()));
                    }
                }
                Document::Manifest(parts) => chosen.push((next, parts)),
                // By their media types these are no indexes, and what is read agrees with that.
                Document::Index(_) => {}
            }
        }
        Ok(chosen)
    }

    /// What is wanted of the root and of the indexes in it, which are read before any manifest is.
    async fn through_indexes(&self, want: &Want, root: &Root, sources: &Sources<'_>, documents: &mut Documents) -> Result<Vec<Chosen>> {
        let (mut chosen, mut listed) = (roots(want, root), 0);
        let limit = INDEX_LIMIT.saturating_mul(chosen.len());
        while let Some(at) = chosen.iter().position(|next| next.manifest.is_index()) {
            let is_root = chosen[at].manifest.digest == root.descriptor.digest;
            let Document::Index(index) = self.parsed(want, root, &chosen[at].manifest, sources, documents).await? else { break };
            listed += index.manifests.len();
            if listed > limit {
                let source = DocumentError::TooMany { digest: chosen[at].manifest.digest, found: listed, limit: INDEX_LIMIT };
                return Err(PullError::Document { reference: want.reference.clone(), source });
            }
            let inner = select(want, &index, &chosen[at], is_root)?;
            chosen.splice(at..=at, inner);
        }
        Ok(chosen)
    }

    /// A manifest or index, the root among them.
    async fn parsed(
        &self,
        want: &Want,
        root: &Root,
        of: &Descriptor,
        sources: &Sources<'_>,
        documents: &mut Documents,
    ) -> Result<Document> {
        if of.digest == root.descriptor.digest {
            return Ok(root.document.clone());
        }
        let bytes = self.read(want, of, "manifest", sources, documents).await?;
        let parsed = Document::parse(&bytes, Some(&of.media_type));
        let (document, _) = parsed.map_err(|source| PullError::Document { reference: want.reference.clone(), source })?;
        add(documents, bytes);
        Ok(document)
    }

    async fn image(
        &self,
        want: &Want,
        root: &Root,
        chosen: Chosen,
        parts: Manifest,
        sources: &Sources<'_>,
        documents: &mut Documents,
    ) -> Result<Image> {
        if let Some(artifact) = Image::of_artifact(&root.descriptor, &parts) {
            return Ok(artifact);
        }
        let wrong = |source| PullError::Document { reference: want.reference.clone(), source };
        let config = self.read(want, &parts.config, "config", sources, documents).await?;
        let read = Config::parse(&config).map_err(wrong)?;
        documents.insert(config.digest(), config);
        if let Some(wanted) = &chosen.wanted
            && wanted.rank(&read.platform).is_none()
        {
            return Err(chosen.other_platform(want, wanted, read.platform));
        }
        let image = Image::new(root.descriptor.clone(), chosen.manifest, parts, read).map_err(wrong)?;
        Ok(Image { via: chosen.via, ..image })
    }

    /// A document that is known already, or that the store or a registry has.
    pub(super) async fn read(
        &self,
        want: &Want,
        of: &Descriptor,
        part: &'static str,
        sources: &Sources<'_>,
        documents: &Documents,
    ) -> Result<Verified> {
        match documents.get(&of.digest) {
            Some(known) if known.size() == of.size => Ok(known.clone()),
            _ => self.document(want, of, part, sources).await,
        }
    }
}

/// Adds a document, and what it brings with it.
pub(super) fn add(documents: &mut Documents, bytes: Verified) {
    for inline in oci::inline(&bytes) {
        documents.insert(inline.digest(), inline);
    }
    documents.insert(bytes.digest(), bytes);
}
