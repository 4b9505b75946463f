//! What a reference means when it is exported: which of the images in the store, under which name and root.

use std::collections::{BTreeSet, HashSet};

use super::error::{ExportError, Result};
use crate::archive::Item;
use crate::digest::Digest;
use crate::oci::{Descriptor, Document, INDEX_DEPTH, INDEX_LIMIT, Image, Index, Platform};
use crate::pin::Pin;
use crate::reference::{Name, Reference};
use crate::store::{Store, StoreError};

/// What is to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// What it is asked for by. Several digests may be pinned under one tag; the newest is meant.
    pub reference: Reference,
    /// The name that it is to bear; `None` for its own.
    pub name: Option<Name>,
    /// For which platforms.
    pub scope: Scope,
}

/// Which platforms of an image are exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All that the store has.
    Kept,
    /// These. One alone goes by its own manifest, unless the index lists nothing else.
    These(Vec<Platform>),
    /// The one that suits this platform; the only one that there is, if there is one only.
    One(Platform),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// What goes into an archive.
    pub item: Item,
    /// The pins of its images, in their order.
    pub pins: Vec<Pin>,
    /// How many of those that the item's root lists are not in it. Readers that want all of them refuse it then.
    pub lacks: usize,
}

/// Looks in the store for what is wished. Nothing is asked of any registry.
pub fn choose(store: &Store, wish: &Wish) -> Result<Chosen> {
    let mut pins = pins(store, wish)?;
    let root = pins[0].root.clone();
    let name = wish.name.clone().unwrap_or_else(|| pins[0].name.clone());
    let Some(index) = index(store, &pins[0])? else {
        let images = pins.iter().map(Pin::image).collect();
        return Ok(Chosen { item: Item { name, root, images }, pins, lacks: 0 });
    };
    // The order of the index is the same on every machine.
    let (listed, others) = listed(store, &name, index)?;
    pins.sort_by_key(|pin| listed.iter().position(|listed| *listed == pin.manifest.digest));
    let mut images: Vec<Image> = pins.iter().map(Pin::image).collect();
    let held: HashSet<_> = images.iter().map(|image| image.manifest.digest).collect();
    let lacking: HashSet<_> = listed.iter().filter(|listed| !held.contains(listed)).collect();
    let lacks = lacking.len() + others;
    match (&wish.scope, &mut images[..]) {
        (Scope::These(_), [alone]) if lacks > 0 => {
            alone.root = alone.manifest.clone();
            alone.via.clear();
            let root = alone.root.clone();
            Ok(Chosen { item: Item { name, root, images }, pins, lacks: 0 })
        }
        _ => Ok(Chosen { item: Item { name, root, images }, pins, lacks }),
    }
}

/// The pins that are meant: of one name and root, one for each platform; at least one.
fn pins(store: &Store, wish: &Wish) -> Result<Vec<Pin>> {
    let all = store.find(&wish.reference, None)?;
    let missing = |wanted: Option<&Platform>| {
        let offered: BTreeSet<Platform> = all.iter().map(|pin| pin.platform.clone()).collect();
        ExportError::NotInStore { reference: wish.reference.clone(), wanted: wanted.cloned(), offered: offered.into_iter().collect() }
    };
    let of = |platform: &Platform, like: Option<&Pin>| {
        let found = store.find(&wish.reference, Some(platform))?;
        let alike = found.into_iter().find(|pin| like.is_none_or(|like| (&like.name, like.root.digest) == (&pin.name, pin.root.digest)));
        alike.ok_or_else(|| missing(Some(platform)))
    };
    let newest = all.first().ok_or_else(|| missing(None))?;
    let siblings: Vec<Pin> = all.iter().filter(|p| (&p.name, p.root.digest) == (&newest.name, newest.root.digest)).cloned().collect();
    match &wish.scope {
        Scope::Kept => Ok(siblings),
        Scope::One(_) if siblings.len() == 1 => Ok(siblings),
        Scope::One(platform) => Ok(vec![of(platform, Some(newest))?]),
        Scope::These(platforms) => {
            let mut chosen: Vec<Pin> = Vec::new();
            for platform in platforms {
                let pin = of(platform, chosen.first())?;
                if !chosen.iter().any(|known| known.manifest.digest == pin.manifest.digest) {
                    chosen.push(pin);
                }
            }
            Ok(chosen)
        }
    }
}

/// The index that a pin's root is, if it is one.
fn index(store: &Store, pin: &Pin) -> Result<Option<Index>> {
    if pin.root.digest == pin.manifest.digest {
        return Ok(None);
    }
    let bytes = store.document(&pin.root.digest)?.ok_or(StoreError::Missing { digest: pin.root.digest })?;
    match Document::parse(&bytes, Some(&pin.root.media_type)) {
        Ok((Document::Index(index), _)) => Ok(Some(index)),
        Ok((Document::Manifest(_), _)) => Ok(None),
        Err(source) => Err(ExportError::Document { name: pin.name.clone(), source }),
    }
}

/// All that an index and those in it list, in order, and how many entries of them are left out. What of them the store lacks
/// stands for itself.
fn listed(store: &Store, name: &Name, root: Index) -> Result<(Vec<Digest>, usize)> {
    let (mut listed, mut others, mut entries) = (Vec::new(), root.others, root.manifests.len());
    let mut ahead: Vec<(Descriptor, usize)> = root.manifests.into_iter().rev().map(|(_, entry)| (entry, 1)).collect();
    while let Some((next, depth)) = ahead.pop() {
        let inner = if next.is_index() && depth <= INDEX_DEPTH && entries <= INDEX_LIMIT { store.document(&next.digest)? } else { None };
        let Some(bytes) = inner else {
            listed.push(next.digest);
            continue;
        };
        match Document::parse(&bytes, Some(&next.media_type)) {
            Ok((Document::Index(inner), _)) => {
                others += inner.others;
                entries += inner.manifests.len();
                ahead.extend(inner.manifests.into_iter().rev().map(|(_, entry)| (entry, depth + 1)));
            }
            Ok((Document::Manifest(_), _)) => listed.push(next.digest),
            Err(source) => return Err(ExportError::Document { name: name.clone(), source }),
        }
    }
    Ok((listed, others))
}
