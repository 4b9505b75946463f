//! The manifests that a pinned reference means, for who has the rest of the image from elsewhere.

use std::collections::BTreeMap;

use super::{Cache, Platforms, PullError, Result, Unpinned, Want, one_manifest, select};
use crate::digest::Verified;
use crate::oci::{Descriptor, Document, Manifest, Platform};
use crate::reference::{Reference, Repository};

impl Cache<'_> {
    /// Root, manifest and parts of a pinned image for a platform, and the documents that say so: out of the store, or else from a registry.
    /// Writes nothing, and asks for nothing but manifests.
    pub(crate) async fn manifests(
        &self,
        reference: &Reference,
        platform: &Platform,
        from: &[Repository],
    ) -> Result<(Descriptor, Descriptor, Manifest, Vec<Verified>)> {
        let want = Want {
            reference: reference.clone(),
            name: reference.name(),
            platforms: Platforms::These(vec![platform.clone()]),
            from: from.to_vec(),
            unpinned: Unpinned::Refuse,
        };
        let mut documents = BTreeMap::new();
        let root = self.resolve(&want, false, &mut documents).await?;
        let sources = self.sources(&want, root.from.as_ref());
        let wrong = |source| PullError::Document { reference: reference.clone(), source };
        let (_, manifest) = select(&want, &root)?.remove(0);
        let parts = match &root.document {
            Document::Manifest(parts) => parts.clone(),
            Document::Index(_) => {
                let text = self.document(&want, &manifest, "manifest", &sources).await?;
                let parsed = Document::parse(&text, Some(&manifest.media_type)).map_err(wrong)?;
                documents.insert(text.digest(), text);
                one_manifest(parsed).map_err(wrong)?
            }
        };
        Ok((root.descriptor, manifest, parts, documents.into_values().collect()))
    }
}
