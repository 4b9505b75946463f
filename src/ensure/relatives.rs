//! Images of the store that have layers in common with one that is to be loaded.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::digest::Digest;
use crate::engine::Relative;
use crate::oci::Image;
use crate::pin::Pin;
use crate::store::{Store, StoreError};

/// How many relatives an engine is asked about: some take a while to answer about one, and the nearest ones tell most.
const MOST: usize = 8;

/// The relatives that share most bytes with the image, the nearest first; the image itself is one, under whatever name.
pub(super) fn relatives(store: &Store, image: &Image) -> Result<Vec<Relative>, StoreError> {
    let sizes: HashMap<Digest, u64> = image.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
    let shared = |pin: &Pin| {
        let layers: BTreeSet<Digest> = pin.layers.iter().map(|layer| layer.digest).collect();
        layers.iter().filter_map(|layer| sizes.get(layer)).fold(0_u64, |all, size| all.saturating_add(*size))
    };
    let mut pins: Vec<(u64, Pin)> = store.pins()?.into_iter().map(|pin| (shared(&pin), pin)).filter(|(shared, _)| *shared > 0).collect();
    pins.sort_by_key(|(shared, _)| Reverse(*shared));
    let mut seen = HashSet::new();
    let different = pins.into_iter().map(|(_, pin)| pin).filter(|pin| seen.insert(pin.manifest.digest));
    Ok(different.map(|pin| relative(&pin)).take(MOST).collect())
}

fn relative(pin: &Pin) -> Relative {
    let layers: BTreeSet<Digest> = pin.layers.iter().map(|layer| layer.digest).collect();
    Relative { root: pin.root.digest, manifest: pin.manifest.digest, image_id: pin.image_id(), layers }
}
