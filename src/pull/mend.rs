//! Mending: what a pinned image counts on and the store lacks, fetched again.
//!
//! Always true: nothing is resolved and nothing is pinned, since the pin says all that is wanted; exactly what is missing is asked for.

use std::collections::BTreeMap;

use super::{Cache, Platforms, Result, Unpinned, Want, fetch};
use crate::event::Event;
use crate::oci::Descriptor;
use crate::pin::Pin;
use crate::plan::Plan;
use crate::reference::{Reference, Repository};

/// What mending brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// The blobs that were missing.
    pub blobs: Vec<Descriptor>,
    /// How many bytes came over the network.
    pub fetched: u64,
}

impl Cache<'_> {
    /// Fetches again what the store lacks of a pinned image: from where it was pulled, or from any other repository that has it.
    ///
    /// Blobs that are damaged and still have their names are not looked for: that is [`Store::verify`](crate::store::Store::verify)'s work.
    pub async fn mend(&self, pin: &Pin, from: &[Repository]) -> Result<Mended> {
        let _counted_on = self.count_on().await?;
        let want = Want {
            reference: pin.asked.pinned_to(pin.root.digest),
            name: pin.name.clone(),
            platforms: Platforms::These(vec![pin.platform.clone()]),
            from: known_sources(pin).chain(from.iter().cloned()).collect(),
            unpinned: Unpinned::Refuse,
            referrers: false,
        };
        let plan = Plan::of(pin.blobs(), self.store);
        self.complete_or_online(&want, &plan)?;
        self.store.room_for(&plan.missing)?;
        (self.tell)(Event::Fetching { reference: want.reference.clone(), blobs: plan.missing.len(), bytes: plan.missing_bytes() });
        let sources = self.sources(&want, None);
        let mut documents = BTreeMap::new();
        let image = pin.image();
        let referring = || pin.referrers.iter().flatten().map(|referrer| &referrer.manifest);
        for blob in plan.missing.iter().filter(|blob| image.documents().chain(referring()).any(|document| document == *blob)) {
            let part = if *blob == pin.config { "config" } else { "manifest" };
            documents.insert(blob.digest, fetch::document(&want, blob, part, &sources, self.tell).await?);
        }
        let kept = fetch::keep(self.store, &plan, documents, None).await?;
        let fetched = fetch::all(self, &want, &plan, &sources).await?;
        fetch::blocking(self.store, |store| store.settle()).await?;
        Ok(Mended { blobs: plan.missing, fetched: kept + fetched })
    }
}

/// Where the image came from, and what it is called.
fn known_sources(pin: &Pin) -> impl Iterator<Item = Repository> {
    let from = pin.from.as_ref().and_then(|from| from.parse::<Reference>().ok()).map(|from| from.repository().clone());
    from.into_iter().chain([pin.name.repository().clone()])
}
