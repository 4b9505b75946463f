//! Images that were found right, into the store: blobs, documents, pins, in this order.

use super::Imported;
use super::blobs::{self, Blobs};
use super::error::ImportError;
use super::prove::Proved;
use crate::pin::Pin;
use crate::store::{Store, StoreError};

/// Keeps all images of a file. What of it no image needs is gone when this returns.
pub(super) fn keep(store: &Store, mut came: Blobs, proved: Vec<Proved>) -> Result<Vec<Imported>, ImportError> {
    let mut added = 0;
    for image in &proved {
        for document in &image.documents {
            blobs::put(store, document)?;
        }
        for pin in &image.pins {
            added += came.keep(pin.blobs().into_iter().map(|blob| &blob.digest))?;
            if let Some(missing) = pin.blobs().into_iter().find(|blob| !store.has(blob)) {
                return Err(StoreError::Missing { digest: missing.digest }.into());
            }
        }
    }
    let mut imported = Vec::new();
    for Proved { names, pins, proof, .. } in proved {
        for pin in pins {
            let pin = write(store, pin)?;
            imported.push(Imported { pin, names: names.clone(), proof: proof.clone(), added });
        }
    }
    Ok(imported)
}

/// Pins an image, unless the newest pin of its name says the same.
fn write(store: &Store, pin: Pin) -> Result<Pin, StoreError> {
    let newest = store.find(&pin.name.to_reference(), Some(&pin.platform))?.into_iter().next();
    match newest {
        Some(known) if known.says_the_same(&pin) => {
            store.settle()?;
            store.mend_index();
            Ok(known)
        }
        _ => {
            store.pin(&pin)?;
            Ok(pin)
        }
    }
}
