//! Why a document is not one that larder can keep.

use super::INDEX_DEPTH;
use crate::digest::Digest;

/// A document is not an image that larder can keep.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is no JSON, ambiguous JSON, or lacks something.
    #[error("the document {digest} cannot be read")]
    Json {
        /// Which document.
        digest: Digest,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// Schema 1 manifests are signed texts without content digests.
    #[error("the manifest {digest} is of Docker's schema 1, which no current engine loads")]
    SchemaOne {
        /// Which document.
        digest: Digest,
    },
    /// It has the fields of an index and of a manifest, or of neither, or its media type says otherwise.
    #[error("the document {digest} is not what its media type says")]
    Confused {
        /// Which document.
        digest: Digest,
        /// What it says it is, or was said to be.
        media_type: String,
        /// What its fields are those of.
        found: &'static str,
    },
    /// A media type that larder does not know.
    #[error("{digest} is of a kind that is not a container image: {media_type}")]
    NotAnImage {
        /// Which content.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// What was listed as referring to something refers to nothing.
    #[error("the manifest {digest} names no subject")]
    NoSubject {
        /// Which manifest.
        digest: Digest,
    },
    /// A layer that is not in the registry but elsewhere.
    #[error("the layer {digest} is foreign (not distributable), which larder does not fetch")]
    Foreign {
        /// Which layer.
        digest: Digest,
    },
    /// Indexes stand in each other deeper than in any real image.
    #[error("indexes stand more than {INDEX_DEPTH} deep in each other, the last of them {digest}")]
    Nested {
        /// The innermost index that was looked at.
        digest: Digest,
    },
    /// More parts than any real image has.
    #[error("the document {digest} lists {found} parts, more than the {limit} that larder takes")]
    TooMany {
        /// Which document.
        digest: Digest,
        /// How many parts it lists.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Config and manifest count the layers differently.
    #[error("the config {digest} has {diff_ids} diff IDs for {layers} layers")]
    LayerCount {
        /// The config.
        digest: Digest,
        /// How many diff IDs it lists.
        diff_ids: usize,
        /// How many layers the manifest lists.
        layers: usize,
    },
    /// A diff ID by another algorithm than engines hash what they unpack with.
    #[error("the config {digest} has a diff ID that no engine compares, expected sha256, found {found}")]
    DiffId {
        /// The config.
        digest: Digest,
        /// The first such diff ID.
        found: Digest,
    },
    /// An inline copy of some content is not that content.
    #[error("the inline data of {digest} is not what its digest says")]
    InlineData {
        /// The descriptor's digest.
        digest: Digest,
    },
    /// A document is longer than [`DOCUMENT_LIMIT`](super::DOCUMENT_LIMIT).
    #[error("the document {digest} is said to have {size} bytes, more than the {limit} that larder reads")]
    TooLarge {
        /// Which document.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many are allowed.
        limit: u64,
    },
}

impl DocumentError {
    /// What has a media type that larder does not know.
    pub(crate) fn not_an_image(digest: Digest, media_type: &str) -> DocumentError {
        DocumentError::NotAnImage { digest, media_type: shown(media_type) }
    }
}

/// A media type that may be none, fit to be shown.
pub(super) fn shown(media_type: &str) -> String {
    media_type.chars().take(100).flat_map(char::escape_debug).collect()
}
