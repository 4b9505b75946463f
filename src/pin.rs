//! Pins: what a reference meant when a registry was last asked, with every identity the image can have in an engine.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::oci::{self, Descriptor, Image, Platform, Referrer};
use crate::reference::{Name, Reference};

/// The most manifests that are kept because they refer to an image.
pub const REFERRERS: usize = 256;

/// What one reference meant for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The name that the image is to bear in engines.
    pub name: Name,
    /// The platform of the image.
    pub platform: Platform,
    /// What the reference named: an index or a manifest.
    pub root: Descriptor,
    /// The indexes between the root and the manifest, from the root on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Descriptor>,
    /// The platform's manifest.
    pub manifest: Descriptor,
    /// The config; its digest by SHA-256 is the image ID.
    pub config: Descriptor,
    /// The image ID, where that is not the digest that the manifest names the config by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Digest>,
    /// The layers from the base up. They stand in the manifest too; here they say what the pin counts on when the manifest is damaged.
    pub layers: Vec<Descriptor>,
    /// The digests of the unpacked layers from the base up.
    pub diff_ids: Vec<Digest>,
    /// What kind of artifact it is, where it is no container image. Then it is for no platform, and no engine takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// What refers to it and is kept with it, what was listed last before the others; `None` where nobody asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrers: Option<Vec<Referrer>>,
    /// The bytes of all blobs of the image, each counted once.
    pub size: u64,
    /// The reference as it was asked for, canonically.
    pub asked: Reference,
    /// The repository that it was pulled from; `None` when all of it was in the store already.
    pub from: Option<String>,
    /// When it was pinned.
    pub pinned_at: Timestamp,
    /// Whether the digest that was asked for could not be had, and this is what the tag meant instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin_not_met: bool,
    /// Whether the image came without a manifest and larder made one: its image ID and content are known, and no registry's digest is.
    /// Then root and manifest are that manifest, and no reference with a digest means this pin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproved: bool,
}

/// Which of an image's identities a digest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The digest of the index, or of the manifest when there is no index.
    Root,
    /// The digest of the platform's manifest.
    Manifest,
    /// The digest of the config.
    ImageId,
}

impl Pin {
    /// Records what was asked for and what it meant.
    pub fn new(asked: Reference, name: Name, image: &Image, from: Option<String>) -> Pin {
        Pin {
            name,
            platform: image.platform.clone(),
            root: image.root.clone(),
            via: image.via.clone(),
            manifest: image.manifest.clone(),
            config: image.config.clone(),
            id: Some(image.id).filter(|id| *id != image.config.digest),
            layers: image.layers.clone(),
            diff_ids: image.diff_ids.clone(),
            artifact: image.artifact.clone(),
            referrers: None,
            size: image.size(),
            asked,
            from,
            pinned_at: Timestamp::now(),
            pin_not_met: false,
            unproved: image.unproved,
        }
    }

    /// The image ID: the digest of the config by SHA-256.
    pub fn image_id(&self) -> Digest {
        self.id.unwrap_or(self.config.digest)
    }

    /// The image that is pinned.
    pub fn image(&self) -> Image {
        Image {
            root: self.root.clone(),
            via: self.via.clone(),
            manifest: self.manifest.clone(),
            config: self.config.clone(),
            layers: self.layers.clone(),
            id: self.image_id(),
            platform: self.platform.clone(),
            diff_ids: self.diff_ids.clone(),
            artifact: self.artifact.clone(),
            unproved: self.unproved,
        }
    }

    /// Every blob that it counts on, once: root, indexes on the way, manifest, config, layers, and what refers to it.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let image = [&self.root].into_iter().chain(&self.via).chain([&self.manifest, &self.config]).chain(&self.layers);
        oci::each_once(image.chain(self.referrers.iter().flatten().flat_map(Referrer::blobs)))
    }

    /// Whether it keeps all that another keeps of what refers to the image.
    pub fn keeps_referrers_of(&self, other: &Pin) -> bool {
        let kept = self.referrers.as_deref();
        other.referrers.as_ref().is_none_or(|all| kept.is_some_and(|kept| all.iter().all(|one| kept.contains(one))))
    }

    /// Keeps also what an earlier pin of the same image keeps of what refers to it.
    pub fn and_referrers_of(&mut self, earlier: &Pin) {
        if let Some(known) = &earlier.referrers {
            let own = self.referrers.get_or_insert_default();
            let more: Vec<_> = known.iter().filter(|one| !own.contains(one)).cloned().collect();
            own.extend(more);
            own.truncate(REFERRERS);
        }
    }

    /// The name pinned to the root: the reference that means this image everywhere. Of an image that is not proved, the name alone.
    pub fn pinned(&self) -> Reference {
        if self.unproved { self.name.to_reference() } else { self.name.pinned_to(self.root.digest) }
    }

    /// Whether another pin means the same image under the same name, whenever and wherever it was asked for.
    pub fn says_the_same(&self, other: &Pin) -> bool {
        let what = |p: &Pin| (p.name.clone(), p.platform.clone(), p.root.digest, p.manifest.digest, p.pin_not_met);
        what(self) == what(other)
    }

    /// Which of the image's identities this digest is, if any.
    pub fn answers_to(&self, digest: &Digest) -> Option<Identity> {
        if *digest == self.root.digest {
            return Some(Identity::Root);
        }
        if *digest == self.manifest.digest {
            return Some(Identity::Manifest);
        }
        (*digest == self.image_id()).then_some(Identity::ImageId)
    }
}
