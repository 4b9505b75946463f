//! What has to be done for an image: plain data, computed before anything is touched.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use crate::digest::Digest;
use crate::oci::{Descriptor, Image};
use crate::store::Store;

/// What the store lacks of some images.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// The blobs to fetch, each once, the largest first.
    pub missing: Vec<Descriptor>,
    /// How many blobs the store has already.
    pub present: usize,
    /// The size of the blobs that the store has already, in bytes.
    pub present_bytes: u64,
}

impl Plan {
    /// Compares the images with the store. Nothing is read but names and sizes.
    pub fn new(images: &[Image], store: &Store) -> Plan {
        Plan::of(images.iter().flat_map(Image::blobs), store)
    }

    /// As [`Plan::new`], of these blobs.
    pub fn of<'a>(blobs: impl IntoIterator<Item = &'a Descriptor>, store: &Store) -> Plan {
        let mut plan = Plan::default();
        let mut seen = HashSet::new();
        for blob in blobs.into_iter().filter(|b| seen.insert(b.digest)) {
            if store.has(blob) {
                plan.present += 1;
                plan.present_bytes = plan.present_bytes.saturating_add(blob.size);
            } else {
                plan.missing.push(blob.clone());
            }
        }
        plan.missing.sort_by_key(|b| std::cmp::Reverse(b.size));
        plan
    }

    /// How many bytes have to be fetched.
    pub fn missing_bytes(&self) -> u64 {
        sum(&self.missing)
    }
}

/// What an engine lacks of an image's layers, as far as it told.
///
/// Another may remove from the engine what it had when it was asked, so this is what is worth trying, never a promise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Lacking {
    /// The layers to send, each once, from the base up.
    pub layers: Vec<Descriptor>,
    /// The layers that it has, each once, from the base up.
    pub held: Vec<Descriptor>,
}

impl Lacking {
    /// Divides the image's layers into those whose blobs the engine has no need of, and the others.
    pub fn new(image: &Image, held: &BTreeSet<Digest>) -> Lacking {
        let mut seen = HashSet::new();
        let layers = image.layers.iter().filter(|layer| seen.insert(layer.digest)).cloned();
        let (held, layers) = layers.partition(|layer| held.contains(&layer.digest));
        Lacking { layers, held }
    }

    /// How many bytes of layers have to be sent.
    pub fn bytes(&self) -> u64 {
        sum(&self.layers)
    }

    /// How many bytes of layers it has.
    pub fn held_bytes(&self) -> u64 {
        sum(&self.held)
    }

    /// The digests of the layers that it has.
    pub fn without(&self) -> BTreeSet<Digest> {
        self.held.iter().map(|layer| layer.digest).collect()
    }
}

fn sum(blobs: &[Descriptor]) -> u64 {
    blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add)
}
