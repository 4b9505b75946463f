//! The manifests that a pinned reference means, for who has the rest of the image from elsewhere.

use std::collections::BTreeMap;

use super::{Cache, Platforms, Result, Unpinned, Want};
use crate::digest::Verified;
use crate::oci::{Descriptor, Manifest, Platform};
use crate::reference::{Reference, Repository};

/// What a registry or the store says that an image is.
pub(crate) struct Manifests {
    /// What the reference names.
    pub(crate) root: Descriptor,
    /// The indexes between the root and the manifest.
    pub(crate) via: Vec<Descriptor>,
    /// The platform's manifest.
    pub(crate) manifest: Descriptor,
    /// The config and the layers that it names.
    pub(crate) parts: Manifest,
    /// The documents that say so.
    pub(crate) documents: Vec<Verified>,
}

impl Cache<'_> {
    /// The manifests of a pinned image for a platform: out of the store, or else from a registry. Writes nothing, and asks for nothing else.
    pub(crate) async fn manifests(&self, reference: &Reference, platform: &Platform, from: &[Repository]) -> Result<Manifests> {
        let want = Want {
            reference: reference.clone(),
            name: reference.name(),
            platforms: Platforms::These(vec![platform.clone()]),
            from: from.to_vec(),
            unpinned: Unpinned::Refuse,
            referrers: false,
        };
        let mut documents = BTreeMap::new();
        let root = self.resolve(&want, false, &mut documents).await?;
        let sources = self.sources(&want, root.from.as_ref());
        let (chosen, parts) = self.chosen(&want, &root, &sources, &mut documents).await?.remove(0);
        let documents = documents.into_values().collect();
        Ok(Manifests { root: root.descriptor, via: chosen.via, manifest: chosen.manifest, parts, documents })
    }
}
