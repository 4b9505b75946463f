//! STUB: an image as one tar stream, out of the store.
use std::io::Write;

use crate::oci::Image;
use crate::reference::Name;
use crate::store::{Store, StoreError};

/// An image that is about to leave the store.
pub struct Archive;
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("stub")]
    Stub,
    #[error(transparent)]
    Store(#[from] StoreError),
}
/// How layers go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    AsStored,
    /// zstd layers as plain tar archives, for docker before 23
    WithoutZstd,
}
impl Archive {
    /// Checks that all is in the store and computes the size.
    pub fn new(_store: &Store, _image: &Image, _name: &Name, _layers: Layers) -> Result<Archive, ArchiveError> {
        unimplemented!()
    }
    pub fn size(&self) -> u64 {
        unimplemented!()
    }
    pub fn write_to(&self, _out: &mut dyn Write) -> Result<(), ArchiveError> {
        unimplemented!()
    }
}
