//! Which of a root's manifests are wanted, and what to say where an image is for another platform than that.

use super::{Platforms, PullError, Result, Root, Want};
use crate::oci::{Descriptor, DocumentError, INDEX_DEPTH, Index, Platform};

/// A manifest that is wanted, and how it was come by.
pub(super) struct Chosen {
    /// The platform that it is wanted for; `None` where all are.
    pub(super) wanted: Option<Platform>,
    /// Whether an index says that it is for such a platform.
    promised: bool,
    /// The indexes between the root and the manifest.
    pub(super) via: Vec<Descriptor>,
    pub(super) manifest: Descriptor,
}

impl Chosen {
    /// What to say where the config names another platform than was wanted.
    pub(super) fn other_platform(&self, want: &Want, wanted: &Platform, found: Platform) -> PullError {
        let (reference, wanted) = (want.reference.clone(), wanted.clone());
        match self.promised {
            true => PullError::WrongPlatform { reference, manifest: self.manifest.digest, wanted, found },
            false => PullError::NoSuchPlatform { reference, wanted, offered: vec![found] },
        }
    }
}

/// The root, once for each platform that is wanted.
pub(super) fn roots(want: &Want, root: &Root) -> Vec<Chosen> {
    let chosen = |wanted| Chosen { wanted, promised: false, via: Vec::new(), manifest: root.descriptor.clone() };
    match &want.platforms {
        Platforms::All => vec![chosen(None)],
        Platforms::These(platforms) => platforms.iter().cloned().map(|wanted| chosen(Some(wanted))).collect(),
    }
}

/// What is wanted of an index: manifests, and indexes in which to choose again. `within` is that index, and whether it is the root.
pub(super) fn select(want: &Want, index: &Index, within: &Chosen, is_root: bool) -> Result<Vec<Chosen>> {
    let via: Vec<Descriptor> = within.via.iter().chain((!is_root).then_some(&within.manifest)).cloned().collect();
    if via.len() >= INDEX_DEPTH {
        let source = DocumentError::Nested { digest: within.manifest.digest };
        return Err(PullError::Document { reference: want.reference.clone(), source });
    }
    let chosen = |listed: &(Option<Platform>, Descriptor), wanted: Option<Platform>| Chosen {
        wanted,
        promised: listed.0.is_some(),
        via: via.clone(),
        manifest: listed.1.clone(),
    };
    let Some(wanted) = &within.wanted else { return Ok(index.manifests.iter().map(|listed| chosen(listed, None)).collect()) };
    match index.select(wanted) {
        Ok(listed) => Ok(vec![chosen(listed, Some(wanted.clone()))]),
        Err(offered) => Err(PullError::NoSuchPlatform { reference: want.reference.clone(), wanted: wanted.clone(), offered }),
    }
}
