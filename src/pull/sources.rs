//! The places that a pull asks, in which order, and what is told of them.

use std::fmt;
use std::sync::OnceLock;

use super::{PullError, Result, Want};
use crate::event::{Event, Tell};
use crate::upstream::{By, Place, Upstream, UpstreamError};

/// Where blobs are asked for. Settings are read only when something is asked.
pub(super) struct Sources<'a> {
    pub(super) upstream: Option<&'a Upstream>,
    want: &'a Want,
    first: Option<&'a Place>,
    known: OnceLock<Vec<Place>>,
}

impl<'a> Sources<'a> {
    /// The place that gave the manifest comes first, if it is known.
    pub(super) fn new(upstream: Option<&'a Upstream>, want: &'a Want, first: Option<&'a Place>) -> Sources<'a> {
        Sources { upstream, want, first, known: OnceLock::new() }
    }

    /// All places, each once; none where no registry may be asked. Fails if settings forbid them all.
    pub(super) fn places(&self) -> Result<&[Place]> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let Some(upstream) = self.upstream else { return Ok(&[]) };
        let (mut places, forbidden) = places(self.want, upstream, By::Digest);
        if let Some(first) = self.first {
            places.retain(|place| place != first);
            places.insert(0, first.clone());
        }
        if places.is_empty() {
            return Err(PullError::Unavailable { reference: self.want.reference.clone(), tried: forbidden });
        }
        Ok(self.known.get_or_init(|| places))
    }
}

/// Where an image is asked for: its own repository and the others, each with its mirrors before it. With those that settings forbid, and why.
pub(super) fn places(want: &Want, upstream: &Upstream, by: By) -> (Vec<Place>, Vec<(Place, UpstreamError)>) {
    let (mut places, mut forbidden) = (Vec::new(), Vec::new());
    for repository in std::iter::once(want.reference.repository()).chain(&want.from) {
        match upstream.places(repository, by) {
            Ok(more) => {
                let new: Vec<Place> = more.into_iter().filter(|place| !places.contains(place)).collect();
                places.extend(new);
            }
            Err(error) => forbidden.push((Place::from(repository), error)),
        }
    }
    (places, forbidden)
}

/// The failure that is told of several: that of an image's own place rather than a mirror's, and the first of those.
pub(super) fn worse<'p>(
    before: Option<(&'p Place, UpstreamError)>,
    place: &'p Place,
    error: UpstreamError,
) -> Option<(&'p Place, UpstreamError)> {
    before.filter(|(before, _)| !before.is_mirror() || place.is_mirror()).or(Some((place, error)))
}

/// Tells that a place is asked.
pub(super) fn asking(tell: &Tell<'_>, place: &Place, what: impl fmt::Display) {
    tell(Event::Asking { place: place.to_string(), what: what.to_string() });
}

/// Tells that the next place is asked, if there is one.
pub(super) fn passed_over(tell: &Tell<'_>, place: &Place, what: impl fmt::Display, error: &UpstreamError, next: Option<&Place>) {
    if let Some(next) = next {
        tell(Event::PassedOver { place: place.to_string(), what: what.to_string(), why: error.in_one_line(), next: next.to_string() });
    }
}
