//! What was found in a file: images, checked, and what the file calls them.
//!
//! Always true: no two images have one name, however it is written; where a file has two lists of images, both say the same.

use std::collections::HashMap;

use super::error::ImportError;
use super::unpack::Layer;
use super::{docker, layout};
use crate::digest::Digest;
use crate::oci::{Compression, Descriptor, Image, Platform};
use crate::reference::{Name, Reference};

/// An image in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What the file calls it, as it is written there.
    pub(super) names: Vec<String>,
    pub(super) what: What,
}

/// How much of an image a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// With its manifests: one root, and those platforms of it that are all there.
    Whole(Descriptor, Vec<Image>),
    /// A config and layers.
    Bare(Bare),
}

/// An image without a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bare {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    pub(super) platform: Platform,
    pub(super) diff_ids: Vec<Digest>,
}

impl Found {
    /// What it is called in messages where it has no name.
    pub(super) fn digest(&self) -> Digest {
        match &self.what {
            What::Whole(root, _) => root.digest,
            What::Bare(bare) => bare.config.digest,
        }
    }

    /// Whether the file calls it so, in whichever way.
    pub(super) fn is_called(&self, name: &Name) -> bool {
        self.names.iter().any(|own| full_name(own).as_ref() == Some(name))
    }
}

/// The images of the lists that a file has.
pub(super) fn together(bare: Option<Vec<docker::Listed>>, whole: Option<Vec<layout::Listed>>) -> Result<Vec<Found>, ImportError> {
    let found = match (bare, whole) {
        (None, None) => return Err(ImportError::NoImages),
        (Some(bare), None) => without_repeats(bare),
        (None, Some(whole)) => of_layout(whole),
        (Some(bare), Some(whole)) => {
            let mut found = of_layout(whole);
            for listed in &bare {
                agree(listed, &mut found)?;
            }
            found
        }
    };
    let mut owners: HashMap<Name, Digest> = HashMap::new();
    for image in &found {
        for name in image.names.iter().filter_map(|name| full_name(name)) {
            let digest = image.digest();
            if *owners.entry(name.clone()).or_insert(digest) != digest {
                return Err(ImportError::NameTwice { name: name.to_string() });
            }
        }
    }
    Ok(found)
}

/// An image whose manifest larder made once has none that counts.
fn of_layout(whole: Vec<layout::Listed>) -> Vec<Found> {
    let what = |listed: &layout::Listed| match &listed.images[..] {
        [image] if image.unproved => What::Bare(Bare::of(image)),
        images => What::Whole(listed.root.clone(), images.to_vec()),
    };
    whole.into_iter().map(|listed| Found { what: what(&listed), names: listed.names }).collect()
}

impl Bare {
    fn of(image: &Image) -> Bare {
        let Image { config, layers, platform, diff_ids, .. } = image.clone();
        Bare { config, layers, platform, diff_ids }
    }
}

/// Images that are listed once for each name are one.
fn without_repeats(bare: Vec<docker::Listed>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for listed in bare {
        let what = What::Bare(listed.image);
        match found.iter_mut().find(|known| known.what == what) {
            Some(known) => known.names.extend(listed.names),
            None => found.push(Found { names: listed.names, what }),
        }
    }
    found
}

/// Checks that an image of `manifest.json` is one of `index.json`, with the same layers, and that no name means another image there.
fn agree(listed: &docker::Listed, found: &mut [Found]) -> Result<(), ImportError> {
    let layers = |layers: &[Descriptor]| layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
    let same = |image: &Image| image.config.digest == listed.image.config.digest && layers(&image.layers) == layers(&listed.image.layers);
    let has_it = |found: &Found| match &found.what {
        What::Whole(_, images) => images.iter().any(same),
        What::Bare(bare) => bare.config.digest == listed.image.config.digest && layers(&bare.layers) == layers(&listed.image.layers),
    };
    for name in &listed.names {
        let called_so = |found: &&Found| full_name(name).is_some_and(|name| found.is_called(&name));
        if found.iter().find(called_so).is_some_and(|found| !has_it(found)) {
            return Err(ImportError::Disagreement { what: name.chars().take(200).flat_map(char::escape_debug).collect() });
        }
    }
    let Some(image) = found.iter_mut().find(|found| has_it(found)) else {
        return Err(ImportError::Disagreement { what: listed.image.config.digest.to_string() });
    };
    for name in &listed.names {
        let known = full_name(name);
        if !image.names.contains(name) && known.is_none_or(|known| !image.is_called(&known)) {
            image.names.push(name.clone());
        }
    }
    Ok(())
}

/// A name as docker reads it: with a repository and a tag, and no digest. A tag alone, as layouts have it, is none.
pub(super) fn full_name(text: &str) -> Option<Name> {
    let reference: Reference = text.parse().ok()?;
    let is_full = reference.tag().is_some() && reference.digest().is_none();
    is_full.then(|| reference.name())
}

/// Compares a layer with its diff ID: its number, the image's config, the diff ID there. Returns how it is compressed.
pub(super) fn compare(
    layer: &Layer,
    digest: &Digest,
    (number, config, expected): (usize, Digest, Digest),
) -> Result<Compression, ImportError> {
    let digest = *digest;
    match layer {
        Layer::Of(compression, found) if *found == expected => Ok(*compression),
        Layer::Of(_, found) => Err(ImportError::WrongLayer { number, config, expected, found: *found }),
        Layer::Other(with) => Err(ImportError::OtherCompression { digest, with }),
        Layer::Broken(why) => Err(ImportError::BrokenLayer { digest, why: why.clone() }),
        Layer::TooLarge(limit) => Err(ImportError::Bomb { digest, limit: *limit }),
    }
}
