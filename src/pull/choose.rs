//! Which of a root's manifests are wanted, and what to say where an image is for another platform than that.

use super::{Platforms, PullError, Result, Root, Want};
use crate::oci::{Descriptor, Document, Platform};

/// The manifests that are wanted, and the platform that each is wanted for.
pub(super) fn select(want: &Want, root: &Root) -> Result<Vec<(Option<Platform>, Descriptor)>> {
    match (&root.document, &want.platforms) {
        (Document::Index(index), Platforms::All) => Ok(index.manifests.clone()),
        (Document::Manifest(_), Platforms::All) => Ok(vec![(None, root.descriptor.clone())]),
        (Document::Index(index), Platforms::These(platforms)) => {
            let one = |wanted: &Platform| {
                let found = index.select(wanted).cloned().map(|d| (Some(wanted.clone()), d));
                found.map_err(|offered| PullError::NoSuchPlatform { reference: want.reference.clone(), wanted: wanted.clone(), offered })
            };
            platforms.iter().map(one).collect()
        }
        (Document::Manifest(_), Platforms::These(platforms)) => {
            Ok(platforms.iter().map(|wanted| (Some(wanted.clone()), root.descriptor.clone())).collect())
        }
    }
}

pub(super) fn other_platform(want: &Want, root: &Root, manifest: &Descriptor, wanted: &Platform, found: Platform) -> PullError {
    let (reference, wanted) = (want.reference.clone(), wanted.clone());
    match root.document {
        Document::Manifest(_) => PullError::NoSuchPlatform { reference, wanted, offered: vec![found] },
        Document::Index(_) => PullError::WrongPlatform { reference, manifest: manifest.digest, wanted, found },
    }
}
