//! A layer on its way from the store into the comparison.
//!
//! Always true: a comparison counts only after the whole layer was read and had its digest and its diff ID.

use std::io::{self, Read};
use std::path::Path;

use super::{ExamineError, Examined, compare};
use crate::digest::{self, Digest, Hasher};
use crate::oci::{Compression, Descriptor, unpacked};
use crate::store::{Store, StoreError};

/// A layer could not be compared with what an engine made of it.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The store could not give the layer, or found it damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layer or the folder cannot be read.
    #[error("cannot compare the layer {digest}")]
    Examine {
        /// Which layer.
        digest: Digest,
        /// Why.
        source: ExamineError,
    },
    /// The layer's bytes are what the manifest names, but not what the config says they unpack to.
    #[error("the layer {digest} unpacks to {found}, and the image's config says {expected}")]
    DiffId {
        /// Which layer.
        digest: Digest,
        /// The diff ID in the config.
        expected: Digest,
        /// What it unpacks to.
        found: Digest,
    },
}

/// Compares a layer in the store with the folder that an engine unpacked it into.
pub fn compare_layer(store: &Store, layer: &Descriptor, diff_id: &Digest, folder: &Path) -> Result<Examined, LayerError> {
    let digest = layer.digest;
    let mut stored = store.blob(layer)?;
    let read = |source| LayerError::Examine { digest, source: ExamineError::Archive { source } };
    let (compared, found) = {
        let mut plain =
            Hashing { from: unpacked(&mut stored, layer.compression().unwrap_or(Compression::None)).map_err(read)?, hasher: Hasher::new() };
        let compared = compare(&mut plain, folder);
        // An archive ends before its file does.
        let rest = io::copy(&mut plain, &mut io::sink());
        (rest.map_err(read).and_then(|_| compared.map_err(|source| LayerError::Examine { digest, source })), plain.hasher.finish().0)
    };
    // Damage in the store is the store's, whatever else it made of the comparison.
    let rest = io::copy(&mut stored, &mut io::sink()).err();
    if let Some(damage) = rest.as_ref().or(cause(&compared)).and_then(digest::mismatch_in) {
        return Err(store.set_aside(layer, damage).into());
    }
    let examined = compared?;
    if found != *diff_id {
        return Err(LayerError::DiffId { digest, expected: *diff_id, found });
    }
    Ok(examined)
}

fn cause(compared: &Result<Examined, LayerError>) -> Option<&io::Error> {
    match compared {
        Err(LayerError::Examine { source: ExamineError::Archive { source }, .. }) => Some(source),
        _ => None,
    }
}

struct Hashing<R> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}
