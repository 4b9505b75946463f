//! What has to be done for an image: plain data, computed before anything is touched.

use serde::Serialize;

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
        let mut plan = Plan::default();
        let mut seen = std::collections::HashSet::new();
        for blob in images.iter().flat_map(Image::blobs).filter(|b| seen.insert(b.digest)) {
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
        self.missing.iter().map(|b| b.size).fold(0, u64::saturating_add)
    }
}
