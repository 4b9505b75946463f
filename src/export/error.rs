//! Why nothing was exported.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::ArchiveError;
use crate::digest::Digest;
use crate::oci::{DocumentError, Platform};
use crate::reference::{Name, Reference};
use crate::store::StoreError;

pub(super) type Result<T> = std::result::Result<T, ExportError>;

/// An image did not get out of the store and into a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store has no such image.
    #[error("{reference} is not in the store{}", .wanted.as_ref().map(|p| format!(" for {p}")).unwrap_or_default())]
    NotInStore {
        /// What was asked for.
        reference: Reference,
        /// The platform it was asked for, if one was.
        wanted: Option<Platform>,
        /// The platforms that are there.
        offered: Vec<Platform>,
    },
    /// One of its documents is not what larder can read.
    #[error("{name} cannot be read in the store")]
    Document {
        /// The image.
        name: Name,
        /// What is wrong.
        source: DocumentError,
    },
    /// It could not leave the store.
    #[error(transparent)]
    Archive(#[from] Arc<ArchiveError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder stands where a file is to be written.
    #[error("{path} is a folder, and an archive is a file", path = path.display())]
    IsAFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds other things than an image layout.
    #[error("{path} is no image layout, and not empty: it holds `{found}`", path = path.display())]
    NotALayout {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The folder is a store; only its own commands change it.
    #[error("{path} is a store of larder's", path = path.display())]
    IsAStore {
        /// The folder.
        path: PathBuf,
    },
    /// The index of a layout that is there is not one.
    #[error("{path} is not the index of an image layout", path = path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another process writes the same file.
    #[error("another process writes {path}", path = path.display())]
    Busy {
        /// The file on its way.
        path: PathBuf,
    },
    /// There is no room for it.
    #[error("no space left for {path}", path = path.display())]
    NoSpace {
        /// What was to be written.
        path: PathBuf,
        /// How many bytes it needs, if that is known.
        needed: Option<u64>,
        /// How many bytes are free.
        free: u64,
    },
    /// A file or folder could not be written.
    #[error("{doing} {path} failed", path = path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Whoever takes the archive took no more.
    #[error("the archive could not be written to its end")]
    Stream {
        /// What the system said.
        source: io::Error,
    },
}

impl ExportError {
    /// The blob of the store that is at fault, if one is.
    pub fn blob(&self) -> Option<Digest> {
        let of_store = |error: &StoreError| match error {
            StoreError::Damaged { found, .. } => Some(found.expected),
            StoreError::Missing { digest } => Some(*digest),
            _ => None,
        };
        match self {
            ExportError::Store(error) => of_store(error),
            ExportError::Archive(error) => match &**error {
                ArchiveError::Store(error) => of_store(error),
                ArchiveError::Read { digest, .. }
                | ArchiveError::Unpack { digest, .. }
                | ArchiveError::TooLarge { digest, .. }
                | ArchiveError::DiffId { digest, .. } => Some(*digest),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<ArchiveError> for ExportError {
    fn from(error: ArchiveError) -> ExportError {
        Arc::new(error).into()
    }
}

/// An error of the system, with what was being done to which file.
pub(super) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    move |source| ExportError::File { doing, path: path.to_owned(), source }
}
