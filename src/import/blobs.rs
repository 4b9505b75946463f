//! The content of an archive's members, waiting for their names.
//!
//! Owns what came, by digest. Always true: every byte was hashed and every layer unpacked, see [`intake`](super::intake). Dropped, all of it is gone,
//! and the store is as it was.

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::sync::atomic::AtomicBool;

use super::error::ImportError;
use super::unpack::{Layer, Unpacking};
use super::wrap::{self, Form, MAGIC};
use crate::digest::{self, Digest, Verified};
use crate::oci::{Compression, Descriptor};
use crate::store::{Shared, Staged, Store, StoreError, Whereabouts};

type Result<T> = std::result::Result<T, ImportError>;

/// What may come of an archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The bytes of all texts that are kept in memory.
    pub(super) texts: u64,
    /// The bytes that a layer may unpack to.
    pub(super) unpacked: u64,
}

/// 32 MiB of texts, 256 GiB in a layer.
pub(super) const LIMITS: Limits = Limits { texts: 32 << 20, unpacked: 256 << 30 };

/// The texts that tell what is in an archive.
pub(super) const TEXTS: [&str; 3] = ["manifest.json", "index.json", "oci-layout"];

/// What came, by digest. While it is there nothing is removed from the store.
pub(super) struct Blobs {
    came: HashMap<Digest, Blob>,
    limits: Limits,
    store: Store,
    _counted_on: Shared,
}

/// A member's content.
pub(super) struct Blob {
    pub(super) size: u64,
    pub(super) layer: Layer,
    pub(super) place: Place,
}

/// Where content is.
pub(super) enum Place {
    Memory(Verified),
    Staged(Staged),
    /// It has its name.
    Kept,
}

impl Blob {
    /// A text; as a layer it is plain.
    pub(super) fn of_text(text: Verified) -> (Digest, Blob) {
        let (digest, size) = (text.digest(), text.size());
        (digest, Blob { size, layer: Layer::Of(Compression::None, Digest::of(text.bytes())), place: Place::Memory(text) })
    }
}

impl Blobs {
    pub(super) fn new(came: HashMap<Digest, Blob>, limits: Limits, store: &Store, counted_on: Shared) -> Blobs {
        Blobs { came, limits, store: store.clone(), _counted_on: counted_on }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Blob> {
        self.came.get(digest)
    }

    /// A text that came; `None` if it did not, or is none.
    pub(super) fn text_of(&self, digest: &Digest) -> Option<Verified> {
        match &self.came.get(digest)?.place {
            Place::Memory(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// What the store's blob is as a layer. It is read and unpacked, as if it had come.
    pub(super) fn layer_in_store(&self, blob: &Descriptor) -> Result<Layer> {
        let mut stored = self.store.blob(blob)?;
        let failed = |source| match digest::mismatch_in(&source) {
            Some(found) => self.store.set_aside(blob, found),
            None => StoreError::Io { doing: "reading", path: self.store.root().to_owned(), source },
        };
        let start = wrap::beginning(&mut stored, MAGIC).map_err(failed)?;
        let form = Form::of(&start);
        let unpacking = Unpacking { limit: self.limits.unpacked, stop: &AtomicBool::new(false) };
        let layer = unpacking.layer(Cursor::new(start).chain(&mut stored), blob.digest, form).map_err(failed)?;
        // Also where it does not unpack, or is plain: what counts is whether it is what its name says.
        io::copy(&mut stored, &mut io::sink()).map_err(failed)?;
        Ok(layer)
    }

    /// Gives these blobs their names, and returns how many bytes the store lacked.
    pub(super) fn keep<'d>(&mut self, wanted: impl IntoIterator<Item = &'d Digest>) -> Result<u64> {
        let mut lacked = 0;
        for digest in wanted {
            let Some(blob) = self.came.get_mut(digest) else { continue };
            let size = blob.size;
            match std::mem::replace(&mut blob.place, Place::Kept) {
                Place::Staged(staged) => lacked += if staged.name()? { size } else { 0 },
                Place::Memory(text) => lacked += if put(&self.store, &text)? { size } else { 0 },
                Place::Kept => {}
            }
        }
        Ok(lacked)
    }
}

/// Keeps a text, in place of one of that name that is damaged. Returns whether the store lacked it.
pub(super) fn put(store: &Store, text: &Verified) -> std::result::Result<bool, StoreError> {
    let there = match store.document(&text.digest()) {
        Ok(there) => there.is_some(),
        // What is larger than any text is hashed when the right one is put there.
        Err(StoreError::Damaged { now: Whereabouts::Aside(_), .. } | StoreError::NotADocument { .. }) => false,
        Err(error) => return Err(error),
    };
    if !there {
        store.put(text)?;
    }
    Ok(!there)
}
