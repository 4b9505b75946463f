//! What refers to the images of a pull: listed by a registry, read, and kept beside them.
//!
//! Always true: what a list says is not believed. Each manifest has the digest that it is listed by and says itself that it refers to the image;
//! what is kept is bounded in number and size. What those manifests refer to, and what refers to them, is not asked for.

use std::collections::BTreeSet;

use serde::Serialize;

use super::describe::{Documents, add};
use super::{Cache, PullError, Result, Sources, Want, sources};
use crate::digest::Digest;
use crate::oci::{self, DOCUMENT_LIMIT, Descriptor, DocumentError, Image, MANIFEST_TYPES, Referrer};
use crate::pin;
use crate::upstream::{By, Place, Upstream, UpstreamError};

/// The most blobs that all of them may have.
const BLOBS: usize = 1024;
/// The most bytes that all of them may have.
const BYTES: u64 = 256 << 20;

/// What was listed as referring to an image, and is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The digest that it is listed by.
    pub digest: Digest,
    /// Why.
    pub why: String,
}

/// What refers to the images of a pull.
#[derive(Default)]
pub(super) struct Referring {
    all: Vec<Referrer>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Referring {
    /// What refers to this image: to its manifest, or to an index that it was reached by.
    pub(super) fn to(&self, image: &Image) -> Vec<Referrer> {
        let subjects = subjects(image);
        self.all.iter().filter(|referrer| subjects.contains(&referrer.subject)).cloned().collect()
    }

    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.all.iter().flat_map(Referrer::blobs)
    }

    fn add(&mut self, want: &Want, referrer: Referrer) -> Result<()> {
        self.all.push(referrer);
        let bytes = self.all.iter().map(Referrer::size).fold(0, u64::saturating_add);
        if self.blobs().count() > BLOBS || bytes > BYTES {
            let reference = want.reference.clone();
            return Err(PullError::ReferrersTooLarge { reference, blobs: BLOBS, bytes: BYTES });
        }
        Ok(())
    }
}

impl Cache<'_> {
    /// What refers to these images, if it is wanted. The manifests are among the documents then; what they name is still to be fetched.
    pub(super) async fn referring(
        &self,
        want: &Want,
        images: &[Image],
        sources: &Sources<'_>,
        documents: &mut Documents,
    ) -> Result<Referring> {
        if !want.referrers {
            return Ok(Referring::default());
        }
        let Some(upstream) = self.upstream else { return self.referring_as_known(want, images) };
        let (mut referring, mut seen) = (Referring::default(), BTreeSet::new());
        for subject in images.iter().flat_map(subjects).collect::<BTreeSet<_>>() {
            for listed in self.listed(want, upstream, &subject).await? {
                if !seen.insert((subject, listed.digest)) {
                    continue;
                }
                if seen.len() > pin::REFERRERS {
                    return Err(PullError::TooManyReferrers { reference: want.reference.clone(), limit: pin::REFERRERS });
                }
                match self.referrer(want, &subject, &listed, sources, documents).await? {
                    Ok(referrer) => referring.add(want, referrer)?,
                    Err(why) => referring.left_out.push(LeftOut { digest: listed.digest, why }),
                }
            }
        }
        Ok(referring)
    }

    /// What is listed by the first place that lists anything. A mirror that has nothing says little; the image's own registry decides.
    async fn listed(&self, want: &Want, upstream: &Upstream, subject: &Digest) -> Result<Vec<Descriptor>> {
        let what = format!("what refers to {subject}");
        let (places, mut tried) = sources::places(want, upstream, By::Tag);
        for (n, place) in places.iter().enumerate() {
            sources::asking(self.tell, place, &what);
            match upstream.referrers(place, subject, self.tell).await {
                Ok(pages) => {
                    let mut listed = Vec::new();
                    for page in pages {
                        let entries = oci::listed_referrers(&page.bytes, page.media_type.as_deref());
                        listed.extend(entries.map_err(|source| PullError::Document { reference: want.reference.clone(), source })?);
                    }
                    if !listed.is_empty() {
                        return Ok(listed);
                    }
                }
                Err(error) => {
                    sources::passed_over(self.tell, place, &what, &error, places.get(n + 1));
                    tried.push((place.clone(), error));
                }
            }
        }
        match tried.iter().any(|(place, _): &(Place, _)| !place.is_mirror()) {
            true => Err(PullError::Unlisted { reference: want.reference.clone(), tried }),
            false => Ok(Vec::new()),
        }
    }

    /// One of those that are listed, or why it is not kept.
    async fn referrer(
        &self,
        want: &Want,
        subject: &Digest,
        listed: &Descriptor,
        sources: &Sources<'_>,
        documents: &mut Documents,
    ) -> Result<std::result::Result<Referrer, String>> {
        let digest = listed.digest;
        if !MANIFEST_TYPES.contains(&listed.media_type.as_str()) {
            return Ok(Err(DocumentError::not_an_image(digest, &listed.media_type).to_string()));
        }
        if listed.size > DOCUMENT_LIMIT {
            return Ok(Err(DocumentError::TooLarge { digest, size: listed.size, limit: DOCUMENT_LIMIT }.to_string()));
        }
        let bytes = match self.read(want, listed, "manifest", sources, documents).await {
            Ok(bytes) => bytes,
            // It was removed, and the list was not told.
            Err(PullError::Blob { source: source @ (UpstreamError::NoManifest { .. } | UpstreamError::NoRepository { .. }), .. }) => {
                return Ok(Err(source.to_string()));
            }
            Err(error) => return Err(error),
        };
        match Referrer::parse(&bytes, &listed.media_type) {
            Ok(referrer) if referrer.subject == *subject => {
                add(documents, bytes);
                Ok(Ok(referrer))
            }
            Ok(referrer) => Ok(Err(format!("it refers to {} and not to {subject}", referrer.subject))),
            Err(DocumentError::Json { source, .. }) => Ok(Err(source.to_string())),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// What was kept before: where no registry may be asked, that is all there is to know.
    fn referring_as_known(&self, want: &Want, images: &[Image]) -> Result<Referring> {
        let mut referring = Referring::default();
        for image in images {
            let pins = self.store.find(&want.name.pinned_to(image.root.digest), None)?;
            let known = pins.into_iter().filter(|pin| pin.manifest == image.manifest).find_map(|pin| pin.referrers);
            let known = known.ok_or_else(|| PullError::ReferrersNotAsked { reference: want.reference.clone() })?;
            let new: Vec<_> = known.into_iter().filter(|referrer| !referring.all.contains(referrer)).collect();
            referring.all.extend(new);
        }
        Ok(referring)
    }
}

/// What may be referred to of an image.
fn subjects(image: &Image) -> BTreeSet<Digest> {
    [&image.root, &image.manifest].into_iter().chain(&image.via).map(|of| of.digest).collect()
}
