//! STUB of the store: signatures only, replaced by the real one.
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Mismatch, Verified, VerifyReader};
use crate::oci::{Descriptor, Platform};
use crate::pin::Pin;
use crate::reference::Reference;

/// The store.
#[derive(Clone)]
pub struct Store;
/// On its way.
pub struct Ingest;
/// Held while pulling.
pub struct Shared;
/// Held while removing.
pub struct Exclusive;
/// What removing gave back.
pub struct Freed {
    pub blobs: usize,
    pub bytes: u64,
}
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("stub")]
    Stub,
    #[error("damaged")]
    Damaged { digest: Digest, path: PathBuf, source: Mismatch },
    #[error("mismatch")]
    Mismatch { blob: Digest, source: Mismatch },
}
pub struct Sizes {
    pub own: u64,
    pub shared: u64,
}
type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    pub fn open(_root: impl Into<PathBuf>) -> Result<Store> {
        unimplemented!()
    }
    pub fn root(&self) -> &Path {
        unimplemented!()
    }
    /// Whether a blob of this digest and size has its name. Existing is not valid.
    pub fn has(&self, _blob: &Descriptor) -> bool {
        unimplemented!()
    }
    /// A whole document (at most DOCUMENT_LIMIT), hashed; None if it is not there; Damaged (and set aside) if wrong.
    pub fn document(&self, _digest: &Digest) -> Result<Option<Verified>> {
        unimplemented!()
    }
    /// Content to be read out; the reader hashes. Missing if not there.
    pub fn blob(&self, _blob: &Descriptor) -> Result<VerifyReader<File>> {
        unimplemented!()
    }
    /// Moves a blob found wrong to damaged/ and gives the error to report.
    pub fn set_aside(&self, _blob: &Descriptor, _found: &Mismatch) -> StoreError {
        unimplemented!()
    }
    /// Begins or resumes a blob; waits while another writer has its part; None: it is there.
    pub fn ingest(&self, _blob: &Descriptor) -> Result<Option<Ingest>> {
        unimplemented!()
    }
    /// Keeps a small verified document.
    pub fn put(&self, _document: &Verified) -> Result<()> {
        unimplemented!()
    }
    /// Taken by whoever adds, for as long as it counts on blobs that no pin names yet.
    pub fn share(&self) -> Result<Shared> {
        unimplemented!()
    }
    /// Taken by whoever removes.
    pub fn exclude(&self) -> Result<Exclusive> {
        unimplemented!()
    }
    pub fn sizes(&self, _pins: &[Pin]) -> Result<Vec<Sizes>> {
        unimplemented!()
    }
    pub fn last_used(&self, _pin: &Pin) -> Option<jiff::Timestamp> {
        None
    }
    pub fn room_for(&self, _bytes: u64) -> Result<()> {
        unimplemented!()
    }
    pub fn pin(&self, _pin: &Pin) -> Result<()> {
        unimplemented!()
    }
    /// All pins, newest first.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        unimplemented!()
    }
    /// Pins that answer to this reference (bare tag: all with that tag; digest: root or manifest), newest first.
    pub fn find(&self, _reference: &Reference, _platform: Option<&Platform>) -> Result<Vec<Pin>> {
        unimplemented!()
    }
    /// Removes pins and the blobs that no other pin needs.
    pub fn remove(&self, _pins: &[Pin], _lock: &Exclusive) -> Result<Freed> {
        unimplemented!()
    }
}
impl Ingest {
    /// How many bytes are there from an earlier run.
    pub fn offset(&self) -> u64 {
        unimplemented!()
    }
    pub fn write(&mut self, _bytes: &[u8]) -> Result<()> {
        unimplemented!()
    }
    /// Throws away what is there; the next byte is the first.
    pub fn restart(&mut self) -> Result<()> {
        unimplemented!()
    }
    /// Syncs, compares, names.
    pub fn commit(self) -> Result<()> {
        unimplemented!()
    }
}
