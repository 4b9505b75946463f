//! From a registry into the store: resolve, describe, plan, fetch, pin.
//!
//! Joins the store, which knows no network, and the upstream, which knows no disk. Always true: a pin is written
//! only after every blob that it needs has its name in the store, and no request is made for what is there.

mod choose;
mod describe;
mod fetch;
mod mend;
mod proof;
mod referrers;
mod sources;

use crate::digest::{Digest, Verified};
use crate::event::{Event, Tell};
use crate::oci::{Descriptor, Document, DocumentError, Image, Platform};
use crate::pin::Pin;
use crate::plan::Plan;
use crate::reference::{Name, Reference, Repository};
use crate::store::{Claim, Shared, Store, StoreError};
use crate::upstream::{At, By, Found, Place, Upstream, UpstreamError};
use describe::{Described, Documents};
pub use mend::Mended;
pub(crate) use proof::Manifests;
pub use referrers::LeftOut;
use referrers::Referring;
use sources::Sources;

/// What the main line works with: where images are kept, who may be asked, who is told. Nothing else.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    /// Where images are kept.
    pub store: &'a Store,
    /// The door to the registries; `None` is offline.
    pub upstream: Option<&'a Upstream>,
    /// Who is told what happens.
    pub tell: &'a Tell<'a>,
}

/// An image that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// What it is asked for by.
    pub reference: Reference,
    /// The name it is to bear.
    pub name: Name,
    /// For which platforms.
    pub platforms: Platforms,
    /// Other repositories that may have it, asked in order when its own does not give it.
    pub from: Vec<Repository>,
    /// What to do when there is no digest, or the digest cannot be had.
    pub unpinned: Unpinned,
    /// Whether what refers to it is wanted too: signatures, lists of what is in it.
    pub referrers: bool,
}

/// The platforms an image is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Platforms {
    /// These.
    These(Vec<Platform>),
    /// All that its index lists.
    All,
}

/// What to do about references that are not pinned, or whose pin cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpinned {
    /// A tag is resolved and pinned; a digest must be met.
    Resolve,
    /// A reference without a digest is refused.
    Refuse,
    /// As `Resolve`, and when a digest cannot be had anywhere, what the tag means now is taken and marked.
    Allow,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// One pin for each platform.
    pub pins: Vec<Pin>,
    /// The images, in the order of the pins.
    pub images: Vec<Image>,
    /// What the store lacked before.
    pub plan: Plan,
    /// How many bytes came over the network for blobs.
    pub fetched: u64,
    /// What the tag points to now, where a registry was asked for a tag and a digest.
    pub tag_now: Option<TagNow>,
    /// What was listed as referring to it, and is not kept.
    pub left_out: Vec<LeftOut>,
}

/// What a registry says of a tag whose image was asked for by digest. A fact, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagNow {
    /// It still points to that digest.
    Same,
    /// It points to another one.
    Moved(Digest),
    /// It is gone.
    Gone,
}

/// An image did not get into the store.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A reference has no digest, and only pinned ones are allowed.
    #[error("{reference} has no digest, and only pinned references are allowed")]
    NotPinned {
        /// The reference.
        reference: Reference,
    },
    /// Nothing of it is in the store, and no registry may be asked.
    #[error("{reference} is not in the store, and the network is off")]
    NotInStore {
        /// The reference.
        reference: Reference,
        /// Platforms of it that are in the store.
        offered: Vec<Platform>,
    },
    /// A part of it is in the store, and no registry may be asked.
    #[error("{reference} is not complete in the store, and the network is off")]
    Incomplete {
        /// The reference.
        reference: Reference,
        /// How many of its blobs are there.
        present: usize,
        /// The blobs that are not.
        missing: Vec<Descriptor>,
    },
    /// No source gave it.
    #[error("{reference} could not be had from {}", places(.tried))]
    Unavailable {
        /// The reference.
        reference: Reference,
        /// Who was asked, in order, and what came of it; never empty.
        tried: Vec<(Place, UpstreamError)>,
    },
    /// It is not offered for the platform that was asked for.
    #[error("{reference} is not offered for {wanted}")]
    NoSuchPlatform {
        /// The reference.
        reference: Reference,
        /// The platform that was asked for.
        wanted: Platform,
        /// The platforms on offer.
        offered: Vec<Platform>,
    },
    /// Its config names another platform than its index, or than was asked for.
    #[error("an image of {reference} is for another platform than its index says")]
    WrongPlatform {
        /// The reference.
        reference: Reference,
        /// The manifest.
        manifest: Digest,
        /// The platform that was asked for.
        wanted: Platform,
        /// The platform in the config.
        found: Platform,
    },
    /// One of its documents is not what larder can keep.
    #[error("{reference} is not an image that larder can keep")]
    Document {
        /// The reference.
        reference: Reference,
        /// What is wrong.
        source: DocumentError,
    },
    /// What refers to it could not be asked.
    #[error("what refers to {reference} could not be had from {}", places(.tried))]
    Unlisted {
        /// The reference.
        reference: Reference,
        /// Who was asked, in order, and what came of it; never empty.
        tried: Vec<(Place, UpstreamError)>,
    },
    /// What refers to it was never asked for, and no registry may be asked.
    #[error("it is not known what refers to {reference}, and the network is off")]
    ReferrersNotAsked {
        /// The reference.
        reference: Reference,
    },
    /// More refers to it than to any real image.
    #[error("more than {limit} manifests refer to {reference}")]
    TooManyReferrers {
        /// The reference.
        reference: Reference,
        /// How many may.
        limit: usize,
    },
    /// What refers to it is larger than any signature or list.
    #[error("what refers to {reference} has more than {blobs} blobs or {bytes} bytes")]
    ReferrersTooLarge {
        /// The reference.
        reference: Reference,
        /// How many blobs it may have.
        blobs: usize,
        /// How many bytes it may have.
        bytes: u64,
    },
    /// A blob did not come.
    #[error("a {part} of {reference} could not be fetched")]
    Blob {
        /// Config or layer.
        part: &'static str,
        /// The reference.
        reference: Reference,
        /// What happened.
        source: UpstreamError,
    },
    /// A blob came, but not with the content that was asked for.
    #[error("a {part} of {reference} failed verification and was thrown away")]
    Mismatch {
        /// Config or layer.
        part: &'static str,
        /// The reference.
        reference: Reference,
        /// What came.
        source: crate::digest::Mismatch,
        /// The place it came from.
        from: Place,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn places(tried: &[(Place, UpstreamError)]) -> String {
    tried.iter().map(|(place, _)| place.to_string()).collect::<Vec<_>>().join(", ")
}

type Result<T> = std::result::Result<T, PullError>;

/// What a reference turned out to mean.
struct Root {
    document: Document,
    descriptor: Descriptor,
    /// The place that gave it; `None` when it was in the store.
    from: Option<Place>,
    pin_not_met: bool,
    /// The right to bring it and what it names; `None` when it was in the store, or is not to be kept.
    claim: Option<Claim>,
}

impl Cache<'_> {
    /// Brings an image into the store and pins it. Asks no registry for what is there, if the reference has a digest.
    pub async fn pull(&self, want: &Want) -> Result<Pulled> {
        self.pull_under(&self.count_on().await?, want).await
    }

    /// While this is held, nothing is removed from the store.
    pub(crate) async fn count_on(&self) -> Result<Shared> {
        Ok(fetch::blocking(self.store, Store::share).await?)
    }

    /// As [`Cache::pull`], for who counts on what it brings also afterwards.
    pub(crate) async fn pull_under(&self, _counted_on: &Shared, want: &Want) -> Result<Pulled> {
        let mut documents = Documents::new();
        let mut root = self.resolve(want, true, &mut documents).await?;
        let claim = root.claim.take();
        let sources = self.sources(want, root.from.as_ref());
        let (Described { images, documents }, referring, plan) = self.look_up(want, &root, &sources, documents).await?;
        self.complete_or_online(want, &plan)?;
        self.store.room_for(&plan.missing)?;
        (self.tell)(Event::Fetching { reference: want.reference.clone(), blobs: plan.missing.len(), bytes: plan.missing_bytes() });
        let kept = fetch::keep(self.store, &plan, documents, claim).await?;
        // Where the documents were there and layers are not, an earlier run was cut off: its own repository is asked now.
        let asked = match &root.from {
            None if !plan.missing.is_empty() => sources.places()?.first().cloned(),
            from => from.clone(),
        };
        let fetching = fetch::all(self, want, &plan, &sources);
        let (fetched, tag_now) = futures_util::future::try_join(fetching, self.tag_now(want, asked.as_ref())).await?;
        let (pins, fetched) = (self.pin(want, &root, asked.as_ref(), &images, &referring, &plan).await?, kept + fetched);
        Ok(Pulled { pins, images, plan, fetched, tag_now, left_out: referring.left_out })
    }

    /// What [`Cache::pull`] would do: the images and what the store lacks of them. Asks registries for manifests and
    /// configs that the store lacks, and writes nothing.
    pub async fn plan(&self, want: &Want) -> Result<(Vec<Image>, Plan)> {
        let mut documents = Documents::new();
        let root = self.resolve(want, false, &mut documents).await?;
        let sources = self.sources(want, root.from.as_ref());
        let (described, _, plan) = self.look_up(want, &root, &sources, documents).await?;
        Ok((described.images, plan))
    }

    /// What a root leads to: the images, what refers to them, and what the store lacks of all that.
    async fn look_up(&self, want: &Want, root: &Root, sources: &Sources<'_>, documents: Documents) -> Result<(Described, Referring, Plan)> {
        let mut described = self.describe(want, root, sources, documents).await?;
        let referring = self.referring(want, &described.images, sources, &mut described.documents).await?;
        let plan = Plan::of(described.images.iter().flat_map(Image::blobs).chain(referring.blobs()), self.store);
        Ok((described, referring, plan))
    }

    /// The newest pin that answers to a reference for a platform. Only the store is asked.
    pub fn known(&self, reference: &Reference, name: &Name, platform: &Platform) -> Result<Option<Pin>> {
        let pins = self.store.find(&named(reference, name), None)?;
        let ranked = pins.into_iter().filter_map(|pin| Some((platform.rank(&pin.platform)?, pin)));
        Ok(ranked.min_by_key(|(rank, _)| *rank).map(|(_, pin)| pin))
    }

    /// The newest pin that answers to a reference, if all that do are for one platform.
    pub fn known_for_one_platform(&self, reference: &Reference, name: &Name) -> Result<Option<Pin>> {
        let mut pins = self.store.find(&named(reference, name), None)?.into_iter();
        let newest = pins.next();
        Ok(newest.filter(|newest| pins.all(|pin| pin.platform == newest.platform)))
    }

    /// Finds out what the reference means. Who is going to `keep` what comes has the claim to it, so that of several processes one asks.
    async fn resolve(&self, want: &Want, keep: bool, documents: &mut Documents) -> Result<Root> {
        let reference = &want.reference;
        if let Some(digest) = reference.digest() {
            if let Some(bytes) = self.kept(&digest)? {
                let root = root(reference, bytes, None, None, documents)?;
                // Nobody can have the digest of a manifest that larder made from a registry, or mean it.
                if !matches!(&root.document, Document::Manifest(parts) if parts.unproved) {
                    return Ok(root);
                }
            }
        } else if want.unpinned == Unpinned::Refuse {
            return Err(PullError::NotPinned { reference: reference.clone() });
        }
        let Some(upstream) = self.upstream else { return self.newest(want, documents) };
        let mut claim = self.claim(reference.digest().filter(|_| keep)).await?;
        if let Some(bytes) = claim.as_ref().map(Claim::there).transpose()?.flatten() {
            return root(reference, bytes, None, None, documents);
        }
        (self.tell)(Event::Resolving { reference: reference.clone() });
        let at = reference.digest().map_or(At::Tag(reference.tag_or_latest()), At::Digest);
        let by = reference.digest().map_or(By::Tag, |_| By::Digest);
        let (places, mut tried) = sources::places(want, upstream, by);
        for (n, place) in places.iter().enumerate() {
            sources::asking(self.tell, place, at);
            match upstream.manifest(place, at, self.tell).await {
                Ok(found) => {
                    if keep && claim.is_none() {
                        claim = self.claim(Some(found.bytes.digest())).await?;
                    }
                    let root = root(reference, found.bytes, found.media_type, Some(place), documents)?;
                    return Ok(Root { claim, ..root });
                }
                Err(error) => {
                    sources::passed_over(self.tell, place, at, &error, places.get(n + 1));
                    tried.push((place.clone(), error));
                }
            }
        }
        match self.unmet(want, upstream).await {
            Some((place, found)) => {
                let root = root(reference, found.bytes, found.media_type, Some(&place), documents)?;
                Ok(Root { pin_not_met: true, ..root })
            }
            None => Err(PullError::Unavailable { reference: reference.clone(), tried }),
        }
    }

    async fn claim(&self, digest: Option<Digest>) -> Result<Option<Claim>> {
        let Some(digest) = digest else { return Ok(None) };
        Ok(Some(fetch::blocking(self.store, move |store| store.claim(&digest)).await?))
    }

    /// What the tag meant when it was pinned last: where no registry may be asked, that is all there is to know.
    fn newest(&self, want: &Want, documents: &mut Documents) -> Result<Root> {
        let newest = match want.reference.digest() {
            Some(_) => None,
            None => self.store.find(&want.name.to_reference(), None)?.into_iter().next(),
        };
        let Some(pin) = newest else { return Err(self.not_in_store(want)?) };
        match self.kept(&pin.root.digest)? {
            Some(bytes) => root(&want.reference, bytes, Some(pin.root.media_type), None, documents),
            None => Err(self.not_in_store(want)?),
        }
    }

    /// What the tag means now, where the digest could not be had and that is allowed.
    async fn unmet(&self, want: &Want, upstream: &Upstream) -> Option<(Place, Found)> {
        let (Unpinned::Allow, Some(_), Some(tag)) = (want.unpinned, want.reference.digest(), want.reference.tag()) else { return None };
        for place in upstream.places(want.reference.repository(), By::Tag).ok()? {
            sources::asking(self.tell, &place, At::Tag(tag));
            if let Ok(found) = upstream.manifest(&place, At::Tag(tag), self.tell).await {
                return Some((place, found));
            }
        }
        None
    }

    /// Where blobs are asked for: who gave the root first, then all other places, each once.
    fn sources<'w>(&'w self, want: &'w Want, first: Option<&'w Place>) -> Sources<'w> {
        Sources::new(self.upstream, want, first)
    }

    /// A manifest or config, from the store or else from a registry.
    async fn document(&self, want: &Want, of: &Descriptor, part: &'static str, sources: &Sources<'_>) -> Result<Verified> {
        if let Some(bytes) = self.kept(&of.digest)? {
            return Ok(bytes);
        }
        if self.upstream.is_none() {
            return Err(PullError::Incomplete { reference: want.reference.clone(), present: 0, missing: vec![of.clone()] });
        }
        fetch::document(want, of, part, sources, self.tell).await
    }

    /// A document in the store. One that is damaged is as good as missing when it can be fetched again.
    fn kept(&self, digest: &Digest) -> Result<Option<Verified>> {
        match self.store.document(digest) {
            Err(StoreError::Damaged { .. }) if self.upstream.is_some() => Ok(None),
            other => Ok(other?),
        }
    }

    fn complete_or_online(&self, want: &Want, plan: &Plan) -> Result<()> {
        if plan.missing.is_empty() || self.upstream.is_some() {
            return Ok(());
        }
        self.store.missing_not_damaged(&plan.missing)?;
        Err(PullError::Incomplete { reference: want.reference.clone(), present: plan.present, missing: plan.missing.clone() })
    }

    fn not_in_store(&self, want: &Want) -> Result<PullError> {
        let pins = self.store.find(&want.reference, None)?;
        Ok(PullError::NotInStore { reference: want.reference.clone(), offered: pins.into_iter().map(|p| p.platform).collect() })
    }

    /// What the tag points to now, asked only where a registry was asked for the digest anyway. No answer is no news.
    async fn tag_now(&self, want: &Want, asked: Option<&Place>) -> Result<Option<TagNow>> {
        let (Some(upstream), Some(from), Some(digest), Some(tag)) = (self.upstream, asked, want.reference.digest(), want.reference.tag())
        else {
            return Ok(None);
        };
        // A mirror that may not say what tags mean is not asked for it, and neither is a repository of another name.
        if !upstream.places(want.reference.repository(), By::Tag).is_ok_and(|places| places.contains(from)) {
            return Ok(None);
        }
        Ok(upstream.head(from, tag).await.ok().map(|now| match now {
            None => TagNow::Gone,
            Some(now) if now == digest => TagNow::Same,
            Some(now) => TagNow::Moved(now),
        }))
    }

    /// Pins the images, unless the newest pins of the name say the same. A pull that was cut off behind its pin left the index to the next.
    async fn pin(
        &self,
        want: &Want,
        root: &Root,
        asked: Option<&Place>,
        images: &[Image],
        referring: &Referring,
        plan: &Plan,
    ) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        for image in images {
            let from = asked.map(ToString::to_string);
            let referrers = want.referrers.then(|| referring.to(image));
            let pin = Pin { pin_not_met: root.pin_not_met, referrers, ..Pin::new(want.reference.clone(), want.name.clone(), image, from) };
            let newest = self.store.find(&want.name.to_reference(), Some(&pin.platform))?.into_iter().next();
            match newest {
                Some(known) if known.says_the_same(&pin) && known.keeps_referrers_of(&pin) => {
                    let (brought, kept) = (!plan.missing.is_empty(), known.clone());
                    fetch::blocking(self.store, move |store| {
                        store.mend_index();
                        // No new pin brings the names to the disk of what was brought, by this process or another.
                        if brought { store.settle() } else { store.settle_new(&kept.blobs()) }
                    })
                    .await?;
                    pins.push(known);
                }
                _ => {
                    pins.push(fetch::blocking(self.store, move |store| store.pin(&pin)).await?);
                }
            }
        }
        Ok(pins)
    }
}

/// The reference under the name that its image bears.
fn named(reference: &Reference, name: &Name) -> Reference {
    match reference.digest() {
        Some(digest) => name.pinned_to(digest),
        None => name.to_reference(),
    }
}

fn root(
    reference: &Reference,
    bytes: Verified,
    media_type: Option<String>,
    from: Option<&Place>,
    documents: &mut Documents,
) -> Result<Root> {
    let parsed = Document::parse(&bytes, media_type.as_deref());
    let (document, descriptor) = parsed.map_err(|source| PullError::Document { reference: reference.clone(), source })?;
    describe::add(documents, bytes);
    Ok(Root { document, descriptor, from: from.cloned(), pin_not_met: false, claim: None })
}
