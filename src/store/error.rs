//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk;
use crate::digest::{Digest, Mismatch};
use crate::reference::Name;

/// Something in the store went wrong; nothing was named that was not verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A later version of larder made this store.
    #[error("the store at {path} has format {found}, and this larder knows formats up to {known}", path = path.display())]
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// The store's format.
        found: u64,
        /// The newest format that is known here.
        known: u64,
    },
    /// The file that says which format the store has cannot be read as such.
    #[error("{path} does not say which format the store has", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The folder holds other things, so no store is made of it.
    #[error("{path} is no store, and not empty: it holds `{found}`", path = path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// Everybody on this machine could change what the store's names mean.
    #[error("{path} can be written by everybody on this machine (mode {mode:o})", path = path.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The store can be read but not written.
    #[error("the store cannot be written: {doing} {path}", path = path.display())]
    ReadOnly {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room for what is to be written.
    #[error("no space left at {path}: {needed} bytes needed, {free} bytes free", path = path.display())]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// How many bytes were still to be written.
        needed: u64,
        /// How many bytes are free.
        free: u64,
    },
    /// There is room for bytes, but not for one more file.
    #[error("no more files can be made at {path}: the file system has none left (inodes)", path = path.display())]
    NoFiles {
        /// Where.
        path: PathBuf,
    },
    /// Another process held a lock for all the time that was to be waited.
    #[error("{path} is held by another process{who}, waited {waited:?}", path = path.display(), who = holder.map(|h| format!(" ({h})")).unwrap_or_default())]
    Locked {
        /// The file that is locked.
        path: PathBuf,
        /// How long it was waited.
        waited: Duration,
        /// The process that holds it, where the system tells.
        holder: Option<u32>,
    },
    /// The store does not have this blob.
    #[error("the store has no blob {digest}")]
    Missing {
        /// Which blob.
        digest: Digest,
    },
    /// A blob in the store is not what its name says.
    #[error("stored blob is damaged: {}", found.expected)]
    Damaged {
        /// What was expected and what was found.
        found: Mismatch,
        /// Where the damaged blob is now.
        now: Whereabouts,
    },
    /// A blob in the store is right, but whoever asked for it has its size wrong.
    #[error("the blob {digest} has {found} bytes, and is said to have {claimed}")]
    WrongSize {
        /// Which blob.
        digest: Digest,
        /// The size that was said.
        claimed: u64,
        /// The size that it has.
        found: u64,
    },
    /// What came in is not what was asked for; it was thrown away.
    #[error("the content for {} failed verification and was thrown away", found.expected)]
    Mismatch {
        /// What was expected and what came.
        found: Mismatch,
    },
    /// More came in than was asked for.
    #[error("more than the {size} bytes came that {digest} has")]
    TooLong {
        /// Which blob.
        digest: Digest,
        /// The size that it should have.
        size: u64,
    },
    /// A blob that is to be read as a manifest, index or config is larger than any.
    #[error("the blob {digest} has {size} bytes, too many for a manifest, index or config")]
    NotADocument {
        /// Which blob.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// There is something else where a plain file or folder should be: it is not followed, read or replaced.
    #[error("{path} is not a plain {expected}", path = path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// A pin cannot be read.
    #[error("the pin {path} cannot be read", path = path.display())]
    Pin {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A pin's text is not what was written.
    #[error("the pin {path} is damaged", path = path.display())]
    PinDamaged {
        /// The file.
        path: PathBuf,
        /// The digest that it says its text has.
        expected: Digest,
        /// The digest that its text has.
        found: Digest,
    },
    /// A pin's file is larger than any pin.
    #[error("the pin {path} has more than {limit} bytes", path = path.display())]
    PinTooLarge {
        /// The file.
        path: PathBuf,
        /// The most it may have.
        limit: u64,
    },
    /// A pin lies where another one should, so it was not written there by larder.
    #[error("the pin {path} is for {name}, which does not belong there", path = path.display())]
    PinMisplaced {
        /// The file.
        path: PathBuf,
        /// The name that the pin is for.
        name: Name,
    },
    /// The system refused something.
    #[error("{doing} {path} failed", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where a damaged blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// It was moved to this file, and its name is free for a good one.
    Aside(PathBuf),
    /// It is still here: the store cannot be written, or another process was faster.
    InPlace(PathBuf),
}

impl StoreError {
    /// Says how many bytes were to be written, if that is what there was no room for.
    pub(super) fn needing(self, bytes: u64) -> StoreError {
        match self {
            StoreError::NoSpace { path, needed, free } => StoreError::NoSpace { path, needed: needed.max(bytes), free },
            other => other,
        }
    }
}

/// What the store's functions return.
pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// The error for something that only reads.
pub(super) fn reading(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { doing, path: path.to_owned(), source }
}

/// What a small file or a folder takes at least.
const BLOCK: u64 = 4096;

/// The error for something that writes: a store that cannot be written is told apart.
pub(super) fn writing(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => StoreError::ReadOnly { doing, path, source },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => match path.ancestors().find_map(|p| disk::free(p).ok()) {
                Some(free) if free.files == 0 => StoreError::NoFiles { path },
                free => StoreError::NoSpace { path, needed: BLOCK, free: free.map_or(0, |f| f.bytes) },
            },
            _ => StoreError::Io { doing, path, source },
        }
    }
}
