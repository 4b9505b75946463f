//! Why an image did not leave the store.

use std::io;

use crate::digest::Digest;
use crate::reference::Name;
use crate::store::StoreError;

/// An image could not leave the store.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not all of it is in the store.
    #[error("{name} is not complete in the store: {missing_layers} of {layers} layers are missing, {missing_bytes} bytes in all")]
    Incomplete {
        /// The name it was to bear.
        name: Name,
        /// How many different layers it has.
        layers: usize,
        /// How many of them are missing.
        missing_layers: usize,
        /// How many of its index, manifest and config are missing.
        missing_documents: usize,
        /// The bytes of all that is missing.
        missing_bytes: u64,
    },
    /// A docker archive is for container images alone.
    #[error("{name} is no container image but an artifact of the kind {kind}")]
    Artifact {
        /// Its name.
        name: Name,
        /// What kind of artifact it is: a media type.
        kind: String,
    },
    /// Two different images cannot bear one name in an archive.
    #[error("two images would bear the name {name} in one archive")]
    NameTwice {
        /// The name.
        name: Name,
    },
    /// The store could not give a blob, or found it damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob could not be read.
    #[error("cannot read {digest} from the store")]
    Read {
        /// Which blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The layer's bytes are what the manifest names, but they do not unpack.
    #[error("the layer {digest} cannot be unpacked")]
    Unpack {
        /// Which layer.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The layer's bytes are what the manifest names, but they unpack to more than larder handles.
    #[error("the layer {digest} unpacks to more than {limit} bytes")]
    TooLarge {
        /// Which layer.
        digest: Digest,
        /// The limit in bytes.
        limit: u64,
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
    /// Whoever takes the archive took no more.
    #[error("the archive could not be written")]
    Write {
        /// Why.
        source: io::Error,
    },
}
