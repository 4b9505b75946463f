//! Where images are kept: an OCI image layout on disk, and the pins that say which names mean what.
//!
//! Owns everything under the store's root; `docs/store.md` tells users what is there. Always true: what has a name under `blobs/`
//! was compared with that name and reached the disk before; every byte that leaves is hashed again, since existing is
//! not valid; a pin is written after everything it needs. Any number of processes may use a store at once: readers
//! take no lock, writers lock the part they write, and whoever removes takes the whole store ([`Exclusive`]).
//! Locks are kernel locks on files, taken in the order `lock`, a part, `pins.lock`; a dead holder has none.
//!
//! Which blobs are wanted, and where they come from, is for others. Blocking code: it knows no runtime.
//!
//! After a crash there are parts and temporary files in `ingest/`, perhaps blobs that no pin names yet; nothing half
//! has a name. The next ingest continues the parts, [`Store::collect`] removes what nobody needs.

mod disk;
mod error;
mod index;
mod ingest;
mod open;
mod pins;
mod sweep;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::digest::{Digest, Hasher, Mismatch, Verified, VerifyReader};
use crate::oci::{DOCUMENT_LIMIT, Descriptor};

use disk::{Hold, Patience};
use error::{Result, reading};
pub use error::{StoreError, Whereabouts};
pub use ingest::Ingest;
pub use sweep::{Finding, Freed, Sizes};

/// How much of a file is read at once.
const CHUNK: usize = 1 << 20;

/// A store of images. Cheap to clone; clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    place: Arc<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    root: PathBuf,
    lock_timeout: Duration,
}

/// The right to add to the store: while it is held, nothing is collected.
///
/// Taken before the first question "is this blob there?" and held until the pin is written.
#[derive(Debug)]
pub struct Shared {
    _lock: File,
}

/// The right to remove from the store: while it is held, nobody adds.
#[derive(Debug)]
pub struct Exclusive {
    _lock: File,
}

impl Store {
    /// The folder that it is in.
    pub fn root(&self) -> &Path {
        &self.place.root
    }

    /// The same store, waiting no longer than this for a lock that another process holds. Ten minutes if this is not called.
    pub fn with_lock_timeout(self, lock_timeout: Duration) -> Store {
        Store { place: Arc::new(Place { lock_timeout, ..Place::clone(&self.place) }) }
    }

    /// Whether a blob of this digest and size has its name. Existing is not valid: it says what need not be fetched.
    pub fn has(&self, blob: &Descriptor) -> bool {
        matches!(disk::size(&self.blob_path(&blob.digest)), Ok(Some(size)) if size == blob.size)
    }

    /// A whole manifest, index or config, hashed; `None` if it is not there. One that is damaged is set aside.
    pub fn document(&self, digest: &Digest) -> Result<Option<Verified>> {
        let path = self.blob_path(digest);
        let Some(bytes) = disk::read(&path, DOCUMENT_LIMIT)? else { return Ok(None) };
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            let size = disk::size(&path)?.unwrap_or(bytes.len() as u64);
            return Err(StoreError::NotADocument { digest: *digest, size });
        }
        match Verified::compare(bytes, digest) {
            Ok(document) => Ok(Some(document)),
            Err(found) => Err(self.put_aside(&found)),
        }
    }

    /// A blob's content, hashed as it is read: the last bytes come only if the whole is right.
    ///
    /// When reading fails with a [`Mismatch`], [`set_aside`](Store::set_aside) is to be called.
    pub fn blob(&self, blob: &Descriptor) -> Result<VerifyReader<File>> {
        let path = self.blob_path(&blob.digest);
        let (file, size) = disk::open(&path)?.ok_or(StoreError::Missing { digest: blob.digest })?;
        if size != blob.size {
            // Damaged, or misdescribed; if neither, it was healed or removed meanwhile.
            return Err(self.judge(&blob.digest, blob.size)?.unwrap_or(StoreError::Missing { digest: blob.digest }));
        }
        Ok(VerifyReader::new(file, blob.digest, blob.size))
    }

    /// Moves a blob that was found wrong to `damaged/`, and gives the error to report.
    ///
    /// It is hashed once more before, so that a blob that was healed meanwhile, or whose descriptor was wrong, stays.
    pub fn set_aside(&self, blob: &Descriptor, found: &Mismatch) -> StoreError {
        self.put_aside(&Mismatch { expected: blob.digest, expected_size: blob.size, ..found.clone() })
    }

    /// Keeps a small document.
    pub fn put(&self, document: &Verified) -> Result<()> {
        let Some(mut ingest) = Ingest::begin(self, document.digest(), document.size())? else { return Ok(()) };
        let rest = usize::try_from(ingest.offset()).unwrap_or(usize::MAX);
        ingest.write(document.bytes().get(rest..).unwrap_or_default())?;
        ingest.commit()
    }

    /// Refuses if so many bytes cannot be written.
    pub fn room_for(&self, bytes: u64) -> Result<()> {
        match disk::free(self.root())? {
            free if free < bytes => Err(StoreError::NoSpace { path: self.root().to_owned(), needed: bytes, free }),
            _ => Ok(()),
        }
    }

    /// Taken by whoever adds, for as long as it counts on blobs that no pin names yet. Waits while someone removes.
    pub fn share(&self) -> Result<Shared> {
        let path = self.root().join("lock");
        // On a store that cannot be written nobody removes either, but one that another user owns can be locked for reading.
        match disk::lock_path(&path, Hold::Shared, self.patience()) {
            Err(StoreError::ReadOnly { .. }) => {}
            taken => return taken.map(|lock| Shared { _lock: lock }),
        }
        let (file, _) = disk::open(&path)?.ok_or_else(|| reading("opening", &path)(io::ErrorKind::NotFound.into()))?;
        disk::lock(&file, &path, Hold::Shared, self.patience())?;
        Ok(Shared { _lock: file })
    }

    /// Taken by whoever removes. Waits until nobody adds; never taken by one who holds a [`Shared`].
    pub fn exclude(&self) -> Result<Exclusive> {
        disk::lock_path(&self.root().join("lock"), Hold::Alone, self.patience()).map(|lock| Exclusive { _lock: lock })
    }

    fn patience(&self) -> Patience {
        Patience::starting_now(self.place.lock_timeout)
    }

    fn blobs(&self) -> PathBuf {
        self.root().join("blobs/sha256")
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn scratch(&self) -> PathBuf {
        self.root().join("ingest")
    }
}

/// Hashes a file from where it stands to its end, in chunks.
fn hash(file: &mut impl io::Read, hasher: &mut Hasher) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => hasher.update(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
