//! What proves that an image of a file is the one that was asked for.
//!
//! Always true: a pin has the digest of a manifest that names exactly the config and the layers that are kept with it; where there is none, it says so.

use super::choose::Choice;
use super::error::ImportError;
use super::found::{Bare, What};
use super::{Doubt, Proof, likely};
use crate::digest::{Digest, Verified};
use crate::oci::{Config, Descriptor, Image, Manifest};
use crate::pin::Pin;
use crate::plan::Plan;
use crate::pull::{Cache, Manifests, PullError};
use crate::reference::{Reference, Repository};

/// An image with its pins, one for each platform, and the documents that are to be kept with it.
pub(super) struct Proved {
    pub(super) names: Vec<String>,
    pub(super) pins: Vec<Pin>,
    pub(super) proof: Proof,
    pub(super) documents: Vec<Verified>,
}

impl Cache<'_> {
    /// Finds out what is proved of an image. Registries are asked for manifests, where there is a digest to ask for.
    pub(super) async fn prove(&self, choice: Choice, from: &[Repository]) -> Result<Proved, ImportError> {
        let Choice { names, what, asked } = choice;
        let pin = |image: &Image| Pin::new(asked.clone(), asked.name(), image, None);
        let bare = match what {
            What::Whole(_, images) => {
                return Ok(Proved { names, pins: images.iter().map(pin).collect(), proof: Proof::InFile, documents: Vec::new() });
            }
            What::Bare(bare) => bare,
        };
        if let Some(known) = self.pinned_already(&bare, &asked)? {
            return Ok(Proved { names, pins: vec![known], proof: Proof::Known, documents: Vec::new() });
        }
        let (image, proof, documents) = match asked.digest() {
            Some(digest) => self.of_digest(&bare, &asked, &digest, from).await?,
            None => own(&bare, Doubt::NotAsked)?,
        };
        Ok(Proved { names, pins: vec![pin(&image)], proof, documents })
    }

    /// The pin of that name for this very image, if all of it is there and proved.
    fn pinned_already(&self, bare: &Bare, asked: &Reference) -> Result<Option<Pin>, ImportError> {
        let reference = asked.digest().map_or(asked.name().to_reference(), |digest| asked.name().pinned_to(digest));
        let pins = self.store.find(&reference, None)?;
        let same = |pin: &Pin| !pin.unproved && pin.image_id() == bare.config.digest;
        Ok(pins.into_iter().find(|pin| same(pin) && Plan::new(&[pin.image()], self.store).missing.is_empty()))
    }

    async fn of_digest(&self, bare: &Bare, asked: &Reference, digest: &Digest, from: &[Repository]) -> Result<Kept, ImportError> {
        let doubt = match self.manifests(asked, &bare.platform, from).await {
            Ok(Manifests { root, via, manifest, parts, documents }) => {
                let (expected, found) = (parts.config.digest, bare.config.digest);
                if expected != found {
                    return Err(ImportError::AnotherImage { wanted: asked.clone(), expected, found });
                }
                return match self.has_layers(&parts, bare) {
                    true => Ok((Image { via, ..whole(root, manifest, parts, bare)? }, Proof::Registry, documents)),
                    false => own(bare, Doubt::OtherBlobs),
                };
            }
            Err(PullError::NotInStore { .. } | PullError::Incomplete { .. }) => Doubt::Offline,
            Err(error @ (PullError::Unavailable { .. } | PullError::Blob { .. })) => Doubt::NotAnswered(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        match likely::manifest(bare, digest) {
            Some((manifest, text)) => {
                let parts = Manifest { config: bare.config.clone(), layers: bare.layers.clone(), artifact: None, unproved: false };
                Ok((whole(manifest.clone(), manifest, parts, bare)?, Proof::Rebuilt, vec![text]))
            }
            None => own(bare, doubt),
        }
    }

    /// Whether all the layers of a manifest are there: in the file, or in the store.
    fn has_layers(&self, parts: &Manifest, bare: &Bare) -> bool {
        let came = |layer: &Descriptor| bare.layers.iter().any(|own| (own.digest, own.size) == (layer.digest, layer.size));
        parts.layers.iter().all(|layer| came(layer) || self.store.has(layer))
    }
}

/// An image, what is proved of it, and the documents that belong to it.
type Kept = (Image, Proof, Vec<Verified>);

fn whole(root: Descriptor, manifest: Descriptor, parts: Manifest, bare: &Bare) -> Result<Image, ImportError> {
    let config = Config { id: bare.config.digest, platform: bare.platform.clone(), diff_ids: bare.diff_ids.clone() };
    Ok(Image::new(root, manifest, parts, config)?)
}

/// The image under a manifest that larder makes.
fn own(bare: &Bare, doubt: Doubt) -> Result<Kept, ImportError> {
    let (manifest, text) = likely::own(bare);
    let parts = Manifest { config: bare.config.clone(), layers: bare.layers.clone(), artifact: None, unproved: true };
    Ok((whole(manifest.clone(), manifest, parts, bare)?, Proof::ImageId(doubt), vec![text]))
}
