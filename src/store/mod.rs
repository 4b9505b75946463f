//! Where images are kept: an OCI image layout on disk, and the pins that say which names mean what.
//!
//! Owns everything under the store's root; `docs/store.md` tells users what is there. Always true: what has a name under `blobs/`
//! was compared with that name and reached the disk before; every byte that leaves is hashed again, since existing is
//! not valid; a pin is written after everything it needs. Any number of processes may use a store at once: readers
//! take no lock, who needs several blobs to stay holds the store beside others ([`Shared`]), writers lock the part they write, and whoever removes takes
//! the whole store ([`Exclusive`]). Locks are kernel locks on files, taken in the order `lock.turn`, `lock`, a part, `index.lock`, `pins.lock`; a dead holder has none.
//!
//! Which blobs are wanted, and where they come from, is for others. Blocking code: it knows no runtime.
//!
//! After a crash there are parts and temporary files in `ingest/`, perhaps blobs that no pin names yet; nothing half
//! has a name. The next ingest continues the parts, [`Store::prune`] removes what nobody needs.

/// Goes wrong here instead, if that fault was chosen; without the feature `sabotage` this is nothing.
macro_rules! sabotaged {
    ($fault:ident => $instead:expr) => {
        #[cfg(feature = "sabotage")]
        if crate::store::sabotage::is(crate::store::sabotage::Fault::$fault) {
            return $instead;
        }
    };
}

mod disk;
mod error;
mod index;
mod ingest;
mod lock;
mod open;
mod pins;
#[cfg(feature = "sabotage")]
pub mod sabotage;
mod stage;
mod sweep;
mod verify;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::digest::{Algorithm, Digest, Hasher, Mismatch, Verified, VerifyReader};
use crate::oci::{DOCUMENT_LIMIT, Descriptor};

use error::Result;
pub use error::{StoreError, Whereabouts};
pub use ingest::{Claim, Ingest};
use lock::{Hold, Patience};
pub use stage::{Stage, Staged};
pub use sweep::{Freed, Pruned, Pruning, Sizes};
pub use verify::{Checkup, Finding, Tally, Watch};

/// How much of a file is read at once.
const CHUNK: usize = 128 << 10;

/// A store of images. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct Store {
    place: Arc<Place>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.place.root).field("lock_timeout", &self.place.lock_timeout).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Place {
    root: PathBuf,
    lock_timeout: Duration,
    waiting: Option<lock::Waiting>,
}

/// After how long what was written has reached the disk, whether or not anybody asked for it; systems write within half a minute.
const SETTLED: Duration = Duration::from_secs(600);

/// For how long whoever removes lets nobody begin, and for how long it then lets others go first.
const TURN: Duration = Duration::from_millis(500);

/// The right to count on what is in the store: while it is held, nothing is removed.
///
/// Taken before the first question "is this blob there?" and held until the pin is written, or the image is in the engine.
#[derive(Debug)]
pub struct Shared {
    /// None where nobody can remove.
    _lock: Option<File>,
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

    /// The same store, telling when another process is waited for: the file that is locked, and the process that has it, where the system
    /// tells. It is told once for each lock, after a second.
    pub fn with_waiting(self, tell: impl Fn(&Path, Option<u32>) + Send + Sync + 'static) -> Store {
        Store { place: Arc::new(Place { waiting: Some(Arc::new(tell)), ..Place::clone(&self.place) }) }
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
        #[cfg(feature = "sabotage")]
        let blob = &sabotage::expected(blob, &path)?;
        if size != blob.size {
            // Damaged, or misdescribed; if neither, it was healed or removed meanwhile.
            return Err(self.judge(&blob.digest, blob.size)?.unwrap_or(StoreError::Missing { digest: blob.digest }));
        }
        Ok(VerifyReader::new(file, blob.digest, blob.size))
    }

    /// Of blobs that [`has`](Store::has) denies, fails with the first that is there all the same: one with another size is damaged, which is not
    /// the same as missing.
    pub(crate) fn missing_not_damaged<'a>(&self, blobs: impl IntoIterator<Item = &'a Descriptor>) -> Result<()> {
        blobs.into_iter().try_for_each(|blob| match self.blob(blob) {
            Ok(_) | Err(StoreError::Missing { .. }) => Ok(()),
            Err(damaged) => Err(damaged),
        })
    }

    /// Moves a blob that was found wrong to `damaged/`, and gives the error to report.
    ///
    /// It is hashed once more before, so that a blob that was healed meanwhile, or whose descriptor was wrong, stays.
    pub fn set_aside(&self, blob: &Descriptor, found: &Mismatch) -> StoreError {
        self.put_aside(&Mismatch { expected: blob.digest, expected_size: blob.size, ..found.clone() })
    }

    /// Keeps a small document. Its bytes reach the disk now, its name with the next pin or [`settle`](Store::settle).
    pub fn put(&self, document: &Verified) -> Result<()> {
        match Ingest::begin(self, document.digest(), document.size())? {
            Some(ingest) => ingest.take_whole(document),
            None => Ok(()),
        }
    }

    /// Brings the names of blobs to the disk that were put there without a pin.
    pub fn settle(&self) -> Result<()> {
        self.blob_folders().iter().try_for_each(|(_, folder)| disk::sync_folder(folder))
    }

    /// Does so if one of these is so new that its name may not be there yet: another process gives it one and syncs the folder after.
    pub fn settle_new(&self, blobs: &[&Descriptor]) -> Result<()> {
        let now = SystemTime::now();
        let old = |blob: &&Descriptor| disk::changed(&self.blob_path(&blob.digest)).is_some_and(|then| then + SETTLED < now);
        if blobs.iter().all(old) { Ok(()) } else { self.settle() }
    }

    /// Refuses if these blobs cannot all be written; what an earlier run left of them counts.
    pub fn room_for(&self, blobs: &[Descriptor]) -> Result<()> {
        if blobs.is_empty() {
            // A store that cannot be written has room for nothing, which is enough.
            return Ok(());
        }
        let needed = blobs.iter().map(|blob| blob.size.saturating_sub(self.begun(blob))).fold(0, u64::saturating_add);
        let free = disk::room(self.root())?;
        if free.bytes < needed {
            return Err(StoreError::NoSpace { path: self.root().to_owned(), needed, free: free.bytes });
        }
        if free.files < blobs.len() as u64 {
            return Err(StoreError::NoFiles { path: self.root().to_owned() });
        }
        Ok(())
    }

    /// Taken by whoever counts on blobs that are to stay, whether or not a pin names them. Waits while someone removes.
    pub fn share(&self) -> Result<Shared> {
        let turn = self.lock_for_reading("lock.turn")?;
        let lock = self.lock_for_reading("lock")?;
        drop(turn);
        Ok(Shared { _lock: lock })
    }

    /// Taken by whoever removes. Waits until nobody adds; never taken by one who holds a [`Shared`].
    ///
    /// Where others add all the time it has its turn too: for a moment now and then it lets nobody begin.
    pub fn exclude(&self) -> Result<Exclusive> {
        let (lock, turn) = (self.root().join("lock"), self.root().join("lock.turn"));
        let patience = self.patience();
        loop {
            let nobody_begins = lock::lock_path(&turn, Hold::Alone, &patience)?;
            match lock::lock_path(&lock, Hold::Alone, &patience.at_most(TURN)) {
                Err(StoreError::Locked { .. }) if !patience.is_over() => {}
                taken => return taken.map(|lock| Exclusive { _lock: lock }),
            }
            drop(nobody_begins);
            std::thread::sleep(TURN);
        }
    }

    /// A new file without a name on the store's disk, for what has to wait somewhere; gone when it is closed. Not every file system has such files.
    pub fn unnamed_file(&self) -> Result<File> {
        disk::unnamed_file(&self.scratch())
    }

    /// Locks a file of ours beside others. A store that another user owns, or that cannot be written, is locked for reading; where such a
    /// store has no such file, nobody removes.
    fn lock_for_reading(&self, name: &str) -> Result<Option<File>> {
        let (path, patience) = (self.root().join(name), self.patience());
        match lock::lock_path(&path, Hold::Shared, &patience) {
            Err(StoreError::ReadOnly { .. }) => {}
            taken => return taken.map(Some),
        }
        let Some((file, _)) = disk::open(&path)? else { return Ok(None) };
        lock::lock(&file, &path, Hold::Shared, &patience)?;
        Ok(Some(file))
    }

    fn patience(&self) -> Patience {
        Patience::starting_now(self.place.lock_timeout, self.place.waiting.clone())
    }

    /// The folder of the blobs whose digests are of this algorithm.
    fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root().join("blobs").join(algorithm.name())
    }

    /// The folders of blobs that are there. The one for sha256 is in every store.
    fn blob_folders(&self) -> Vec<(Algorithm, PathBuf)> {
        let folders = Algorithm::ALL.map(|algorithm| (algorithm, self.blobs(algorithm)));
        folders.into_iter().filter(|(algorithm, folder)| *algorithm == Algorithm::Sha256 || folder.is_dir()).collect()
    }

    /// Makes the folder that a blob is to lie in, if it is one that a store has only when it is needed.
    fn make_blob_folder(&self, algorithm: Algorithm) -> Result<()> {
        if algorithm == Algorithm::Sha256 { Ok(()) } else { disk::make_folder(&self.blobs(algorithm)) }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join(digest.path())
    }

    fn scratch(&self) -> PathBuf {
        self.root().join("ingest")
    }
}

/// Hashes a file from where it stands to its end, in chunks.
fn hash(file: &mut impl io::Read, hasher: &mut Hasher) -> io::Result<()> {
    hash_telling(file, hasher, &mut |_| {})
}

/// The same, telling how many bytes were hashed, chunk by chunk.
fn hash_telling(file: &mut impl io::Read, hasher: &mut Hasher, tell: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                hasher.update(&chunk[..n]);
                tell(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
