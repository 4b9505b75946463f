//! STUB of the door to the network: signatures only, replaced by the real one.
use bytes::Bytes;

use crate::digest::{Digest, Verified};
use crate::event::Tell;
use crate::oci::Descriptor;
use crate::reference::Repository;

/// The door.
pub struct Upstream;
/// How it is set up.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub insecure: Vec<String>,
    pub ca_files: Vec<std::path::PathBuf>,
    pub trusted_realms: Vec<String>,
}
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("stub")]
    Stub,
}
type Result<T> = std::result::Result<T, UpstreamError>;

/// What names a manifest in a repository.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    Tag(&'a str),
    Digest(Digest),
}
/// A manifest or index that came.
pub struct Found {
    pub bytes: Verified,
    pub media_type: Option<String>,
}

impl Upstream {
    pub fn new(_settings: Settings) -> Result<Upstream> {
        unimplemented!()
    }
    pub async fn manifest(&self, _of: &Repository, _at: At<'_>, _tell: &Tell<'_>) -> Result<Found> {
        unimplemented!()
    }
    /// What a tag points to now; None: there is no such tag.
    pub async fn head(&self, _of: &Repository, _tag: &str) -> Result<Option<Digest>> {
        unimplemented!()
    }
    /// A blob's bytes from `offset` on; survives cuts by itself.
    pub async fn blob<'a>(
        &'a self,
        _of: &'a Repository,
        _blob: &'a Descriptor,
        _offset: u64,
        _tell: &'a Tell<'a>,
    ) -> Result<BlobStream<'a>> {
        unimplemented!()
    }
}
pub struct BlobStream<'a>(std::marker::PhantomData<&'a ()>);
impl BlobStream<'_> {
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        unimplemented!()
    }
}
