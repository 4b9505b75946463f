//! What can be wrong with a file of images.

use std::io;
use std::path::PathBuf;

use super::path::PathError;
use super::tar::TarError;
use crate::digest::{Digest, DigestError};
use crate::oci::{DocumentError, Platform};
use crate::pull::PullError;
use crate::reference::Reference;
use crate::store::StoreError;

/// A file of images was refused, or could not be read. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is not a tar archive that every reader would read alike.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name in it is not one that every reader would understand alike.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry was asked for manifests and did not give them as they should be.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The file cannot be read.
    #[error("{path} cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is compressed in a way that larder does not unpack.
    #[error("the file as a whole is compressed with bzip2, which larder does not unpack")]
    Bzip2,
    /// A folder that is no image layout, and has no cached images in it.
    #[error("{path} is neither an OCI layout nor a folder of image files", path = path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
    },
    /// Nothing in it says what images it holds.
    #[error("it holds no image: it has neither a manifest.json nor an index.json")]
    NoImages,
    /// It lists images, and there are none.
    #[error("{list} lists no image")]
    EmptyList {
        /// The file that lists them.
        list: &'static str,
    },
    /// It looks like an image layout, and does not say so, or not in a version that larder reads.
    #[error("it has an index.json without an oci-layout of version 1.0.0, so readers differ in what they see in it")]
    NoLayoutMark,
    /// One of the texts that tell what is in it is larger than any.
    #[error("`{path}` has {size} bytes, more than the {limit} that larder reads")]
    TextTooLarge {
        /// Which text.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// It has more text than any archive of images.
    #[error("it has more than {limit} bytes of JSON")]
    TooMuchText {
        /// How many are allowed.
        limit: u64,
    },
    /// A list of images that cannot be read, or that is ambiguous JSON.
    #[error("`{list}` cannot be read")]
    List {
        /// Which list.
        list: &'static str,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A document in it is not what larder can keep.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A blob's name is no digest.
    #[error("`{path}` is not named after a SHA-256 digest")]
    BlobName {
        /// The name.
        path: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// A blob is not what its name says.
    #[error("the blob {expected} is not what its name says")]
    WrongBlob {
        /// The digest that it is named after.
        expected: Digest,
        /// Its own.
        found: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A blob has another size than the document says that names it.
    #[error("the blob {digest} has {found} bytes, and is said to have {claimed}")]
    WrongSize {
        /// Which blob.
        digest: Digest,
        /// The size that is said.
        claimed: u64,
        /// Its size in bytes.
        found: u64,
    },
    /// A config's name is a digest, and not its own.
    #[error("the config `{path}` is not what its name says")]
    WrongConfig {
        /// Its name in the archive.
        path: String,
        /// The digest in the name.
        expected: Digest,
        /// Its own.
        found: Digest,
    },
    /// Something that an image needs is not there.
    #[error("{what} `{path}` is not in the archive")]
    NoSuchMember {
        /// Config or layer.
        what: &'static str,
        /// Its name.
        path: String,
    },
    /// A config that is none.
    #[error("the config `{path}` is no JSON, or too large")]
    NotAConfig {
        /// Its name.
        path: String,
    },
    /// There are more or fewer layers than diff IDs.
    #[error("the config {config} has {diff_ids} diff IDs for {layers} layers")]
    LayerCount {
        /// The config.
        config: Digest,
        /// How many diff IDs it lists.
        diff_ids: usize,
        /// How many layers there are.
        layers: usize,
    },
    /// A layer is not the one that the config names.
    #[error("layer {number} of the image {config} is not what its config says")]
    WrongLayer {
        /// Which layer, from 1.
        number: usize,
        /// The config; its digest is the image ID.
        config: Digest,
        /// The diff ID in the config.
        expected: Digest,
        /// What the layer unpacks to.
        found: Digest,
    },
    /// A layer is compressed in a way that not all engines unpack.
    #[error("the layer {digest} is compressed with {with}, which not all engines read as a layer")]
    OtherCompression {
        /// Which layer.
        digest: Digest,
        /// How it is compressed.
        with: &'static str,
    },
    /// A layer does not unpack.
    #[error("the layer {digest} cannot be unpacked")]
    BrokenLayer {
        /// Which layer.
        digest: Digest,
        /// Why.
        why: String,
    },
    /// A layer unpacks to more than larder handles.
    #[error("the layer {digest} unpacks to more than {limit} bytes")]
    Bomb {
        /// Which layer.
        digest: Digest,
        /// The limit in bytes.
        limit: u64,
    },
    /// An image in it lacks a part.
    #[error("the image {root} is not complete: {missing} is not in the file")]
    Incomplete {
        /// The image's index or manifest.
        root: Digest,
        /// What is missing first.
        missing: Digest,
    },
    /// An image is for another platform than its index says.
    #[error("the image {manifest} is for another platform than its index says")]
    WrongPlatform {
        /// The image's manifest.
        manifest: Digest,
        /// The platform in the index.
        expected: Platform,
        /// The platform in the config.
        found: Platform,
    },
    /// Two images in it have one name.
    #[error("two images in the file are called {name}, and engines differ in which of them they take")]
    NameTwice {
        /// The name.
        name: String,
    },
    /// Its two lists of images say different things.
    #[error("manifest.json and index.json do not agree about {what}, and engines differ in which of them they read")]
    Disagreement {
        /// An image ID or a name.
        what: String,
    },
    /// A name in it is not one that engines take.
    #[error("the file calls an image `{name}`, which is no name that engines take")]
    BadName {
        /// The name.
        name: String,
    },
    /// It holds several images, and one was to be named.
    #[error("the file holds {} images, and one name was given", .names.len())]
    Several {
        /// What the file calls them, or their digests.
        names: Vec<String>,
    },
    /// What was asked for is not in it.
    #[error("{wanted} is not in the file")]
    NotThePin {
        /// What was asked for.
        wanted: Reference,
        /// What is in it.
        offered: Vec<String>,
    },
    /// The registry's image of that digest is another one.
    #[error("the image in the file is not {wanted}")]
    AnotherImage {
        /// What was asked for.
        wanted: Reference,
        /// The image ID of what was asked for.
        expected: Digest,
        /// The image ID in the file.
        found: Digest,
    },
    /// It is not there for the platform that was asked for.
    #[error("the file has no image for {wanted}")]
    NoSuchPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        offered: Vec<Platform>,
    },
}
