//! A blob on its way into the store, and one found wrong on its way out.
//!
//! Owns the files `ingest/<hex>.part` and `damaged/`. Always true: only who has the part locked writes it, names the blob or moves it away, and after
//! locking it looks again whether the part still is that file and whether the blob came meanwhile; nothing under `blobs/` has a name
//! before its size and digest were compared and its bytes reached the disk. Which blobs are wanted is `pull`'s affair.
//!
//! After a crash there is either a part, which the next ingest hashes and continues, or a whole blob.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::disk;
use super::error::{Result, StoreError, Whereabouts, reading, writing};
use super::lock::{self, Hold};
use super::{Store, hash};
use crate::digest::{Digest, Hasher, Mismatch, Verified};
use crate::oci::{DOCUMENT_LIMIT, Descriptor};

/// The right to bring a blob that does not come through an [`Ingest`]: a manifest, index or config whose size is not known before it came,
/// or one that is staged. While it is held, nobody else brings it.
pub struct Claim {
    store: Store,
    digest: Digest,
    part: PathBuf,
    /// Its lock is held for as long as the file is open.
    file: File,
}

/// A blob on its way into the store. Dropped without [`commit`](Ingest::commit), what came of it is kept for the next run.
pub struct Ingest {
    store: Store,
    digest: Digest,
    size: u64,
    part: PathBuf,
    /// Its lock is held for as long as the file is open.
    file: File,
    hasher: Hasher,
    /// Up to where the kernel was told to write.
    flushed: u64,
}

impl Store {
    /// Begins a blob, or resumes it where an earlier run or a process that died left it; `None`: it is there.
    ///
    /// Waits while another process or thread is bringing the same blob.
    pub fn ingest(&self, blob: &Descriptor) -> Result<Option<Ingest>> {
        Ingest::begin(self, blob.digest, blob.size)
    }

    /// Waits until nobody else brings this document, so that it is fetched once: whoever has the claim looks whether it is there by now,
    /// and if not brings it.
    pub fn claim(&self, digest: &Digest) -> Result<Claim> {
        let (part, file) = self.lock_part(digest)?;
        Ok(Claim { store: self.clone(), digest: *digest, part, file })
    }

    /// The right to name a blob of this digest that came in another way; `None`: it is there. One of another size that is damaged is moved away.
    pub(super) fn claim_blob(&self, digest: &Digest, size: u64) -> Result<Option<Claim>> {
        let Some((part, file)) = self.lock_part_unless_there(digest, size)? else { return Ok(None) };
        let claim = Claim { store: self.clone(), digest: *digest, part, file };
        if disk::size(&self.blob_path(digest))? == Some(size) {
            return Ok(None);
        }
        match self.judge_locked(digest, size, true)? {
            Some(StoreError::Damaged { now: Whereabouts::Aside(_), .. }) | None => Ok(Some(claim)),
            Some(wrong) => Err(wrong),
        }
    }

    /// How many bytes of a blob an earlier run left.
    pub(super) fn begun(&self, blob: &Descriptor) -> u64 {
        // Only an estimate is made of it.
        disk::size(&self.part(&blob.digest)).ok().flatten().unwrap_or(0)
    }

    pub(super) fn part(&self, digest: &Digest) -> PathBuf {
        self.scratch().join(format!("{}.part", digest.hex()))
    }

    /// Locks the part of this blob, made if there is none; `None` as soon as the blob is there in this size.
    fn lock_part_unless_there(&self, digest: &Digest, size: u64) -> Result<Option<(PathBuf, File)>> {
        let (part, blob, patience) = (self.part(digest), self.blob_path(digest), self.patience());
        while disk::size(&blob)? != Some(size) {
            let file = disk::open_or_make(&part)?;
            lock::lock(&file, &part, Hold::Alone, &patience)?;
            if lock::is_at(&file, &part)? {
                return Ok(Some((part, file)));
            }
        }
        Ok(None)
    }

    /// Locks the part of this blob, made if there is none.
    fn lock_part(&self, digest: &Digest) -> Result<(PathBuf, File)> {
        let part = self.part(digest);
        let file = lock::lock_path(&part, Hold::Alone, &self.patience())?;
        Ok((part, file))
    }

    /// Hashes a blob that was found wrong once more, moves it away if it is, and gives the error to report.
    pub(super) fn put_aside(&self, found: &Mismatch) -> StoreError {
        match self.judge(&found.expected, found.expected_size) {
            Ok(Some(wrong)) | Err(wrong) => wrong,
            // Healed or removed by another process since it was read.
            Ok(None) => StoreError::Damaged { found: found.clone(), now: Whereabouts::InPlace(self.blob_path(&found.expected)) },
        }
    }

    /// Hashes a blob, and moves it to `damaged/` if it is not what its name says: then, and if it has not the size that is
    /// claimed, this is the error to report. `None`: nothing is wrong with it, or it is not there.
    pub(super) fn judge(&self, digest: &Digest, claimed: u64) -> Result<Option<StoreError>> {
        let locked = match self.lock_part(digest) {
            Ok(locked) => Some(locked),
            // A store that cannot be written: the blob stays where it is, and is no better for it.
            Err(StoreError::ReadOnly { .. }) => None,
            Err(e) => return Err(e),
        };
        let verdict = self.judge_locked(digest, claimed, locked.is_some());
        if let Some((part, file)) = locked
            && file.metadata().is_ok_and(|m| m.len() == 0)
        {
            let _ = fs::remove_file(part);
        }
        verdict
    }

    fn judge_locked(&self, digest: &Digest, claimed: u64, may_move: bool) -> Result<Option<StoreError>> {
        let path = self.blob_path(digest);
        let Some((mut file, _)) = disk::open(&path)? else { return Ok(None) };
        let mut hasher = Hasher::by(digest.algorithm());
        hash(&mut file, &mut hasher).map_err(reading("reading", &path))?;
        let (found, found_size) = hasher.finish();
        if found != *digest {
            let aside = may_move.then(|| self.move_to_damaged(&digest.hex(), &path).ok()).flatten();
            let now = aside.map_or(Whereabouts::InPlace(path), Whereabouts::Aside);
            let found = Mismatch { expected: *digest, expected_size: claimed, found, found_size };
            return Ok(Some(StoreError::Damaged { found, now }));
        }
        Ok((claimed != found_size).then_some(StoreError::WrongSize { digest: *digest, claimed, found: found_size }))
    }

    /// Moves something that was found wrong out of the way, under this name or one like it.
    pub(super) fn move_to_damaged(&self, name: &str, path: &Path) -> Result<PathBuf> {
        let folder = self.root().join("damaged");
        disk::make_folder(&folder)?;
        let mut aside = folder.join(name);
        let mut earlier = 1;
        while fs::symlink_metadata(&aside).is_ok() {
            earlier += 1;
            aside.set_file_name(format!("{name}.{earlier}"));
        }
        disk::rename(path, &aside)?;
        Ok(aside)
    }
}

impl Ingest {
    pub(super) fn begin(store: &Store, digest: Digest, size: u64) -> Result<Option<Ingest>> {
        let Some((part, file)) = store.lock_part_unless_there(&digest, size)? else { return Ok(None) };
        Ingest::begin_locked(store, digest, size, part, file)
    }

    fn begin_locked(store: &Store, digest: Digest, size: u64, part: PathBuf, mut file: File) -> Result<Option<Ingest>> {
        match disk::size(&store.blob_path(&digest))? {
            Some(there) if there == size => {
                disk::remove(&part)?;
                return Ok(None);
            }
            // Hashed before it is moved: a wrong descriptor must not cost the store a good blob.
            Some(_) => match store.judge_locked(&digest, size, true)? {
                Some(StoreError::Damaged { now: Whereabouts::Aside(_), .. }) | None => {}
                Some(wrong) => return Err(wrong),
            },
            None => {}
        }
        let mut hasher = Hasher::by(digest.algorithm());
        let there = file.metadata().map_err(reading("looking at", &part))?.len();
        if there > size {
            file.set_len(0).map_err(writing("emptying", &part))?;
        }
        if there > 0 {
            hash(&mut file, &mut hasher).map_err(reading("reading", &part))?;
        }
        let flushed = hasher.length();
        Ok(Some(Ingest { store: store.clone(), digest, size, part, file, hasher, flushed }))
    }

    /// How many bytes are there: from an earlier run, and written since.
    pub fn offset(&self) -> u64 {
        self.hasher.length()
    }

    /// Takes in the next bytes. More than the blob has are refused at once.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (at, length) = (self.offset(), bytes.len() as u64);
        if length > self.size - at {
            return Err(StoreError::TooLong { digest: self.digest, size: self.size });
        }
        // At a position, so that what a failed write left is written over and never counted.
        let written = self.file.write_all_at(bytes, at).map_err(writing("writing", &self.part));
        written.map_err(|e| e.needing(self.size - at))?;
        self.hasher.update(bytes);
        let ready = self.offset() - self.flushed;
        if ready >= disk::FLUSH_EVERY {
            disk::flush_ahead(&self.file, self.flushed, ready);
            self.flushed = self.offset();
        }
        Ok(())
    }

    /// Throws away what is there; the next byte is the first.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(writing("emptying", &self.part))?;
        self.hasher = Hasher::by(self.digest.algorithm());
        self.flushed = 0;
        Ok(())
    }

    /// Compares size and digest, brings the bytes to the disk and gives the blob its name.
    ///
    /// Bytes that are not what was asked for are thrown away, and so are those that the disk would not take.
    pub fn commit(self) -> Result<()> {
        let blobs = self.store.blobs(self.digest.algorithm());
        self.commit_unsettled()?;
        disk::sync_folder(&blobs)
    }

    /// Takes in what is not there yet of a document, and commits it; its name reaches the disk with the next pin or [`Store::settle`].
    pub(super) fn take_whole(mut self, document: &Verified) -> Result<()> {
        let rest = usize::try_from(self.offset()).unwrap_or(usize::MAX);
        self.write(document.bytes().get(rest..).unwrap_or_default())?;
        self.commit_unsettled()
    }

    /// As [`commit`](Ingest::commit), but the name may not have reached the disk.
    pub(super) fn commit_unsettled(self) -> Result<()> {
        let committed = self.compare().and_then(|()| self.name());
        if committed.is_err() {
            // What is to be reported is why it was not committed.
            let _ = fs::remove_file(&self.part);
        }
        committed
    }

    fn compare(&self) -> Result<()> {
        sabotaged!(NoHash => Ok(()));
        let (found, hashed) = self.hasher.clone().finish();
        let written = self.file.metadata().map_err(reading("looking at", &self.part))?.len();
        let found_size = if hashed == self.size { written } else { hashed };
        if found == self.digest && found_size == self.size {
            return Ok(());
        }
        let found = Mismatch { expected: self.digest, expected_size: self.size, found, found_size };
        Err(StoreError::Mismatch { found })
    }

    fn name(&self) -> Result<()> {
        // A sync that failed once may succeed the next time without having written: the bytes are then not to be believed.
        disk::sync(&self.file).map_err(writing("syncing", &self.part))?;
        self.store.make_blob_folder(self.digest.algorithm())?;
        disk::rename(&self.part, &self.store.blob_path(&self.digest))?;
        // A courtesy to whoever looks into the store; some file systems have no permissions. Not before it has its name: nobody
        // could take over a part that is read-only.
        let _ = self.file.set_permissions(Permissions::from_mode(0o444));
        Ok(())
    }
}

impl Claim {
    /// The document, if it is there by now. One that is damaged is moved away, so that it is brought again.
    pub fn there(&self) -> Result<Option<Verified>> {
        let path = self.store.blob_path(&self.digest);
        let Some(bytes) = disk::read(&path, DOCUMENT_LIMIT)? else { return Ok(None) };
        let size = bytes.len() as u64;
        match Verified::compare(bytes, &self.digest) {
            Ok(document) => Ok(Some(document)),
            Err(_) => match self.store.judge_locked(&self.digest, size, true)? {
                Some(StoreError::Damaged { now: Whereabouts::Aside(_), .. }) | None => Ok(None),
                Some(wrong) => Err(wrong),
            },
        }
    }

    /// Ends the claim to a blob that has its name by now. What an earlier run left of it goes.
    pub(super) fn fulfilled(self) {
        // `prune` finds what cannot be removed now.
        let _ = self.file.set_len(0);
    }

    /// Whether this is the document that is claimed.
    pub fn is_to(&self, digest: &Digest) -> bool {
        self.digest == *digest
    }

    /// Keeps the document that was claimed. Its bytes reach the disk now, its name with the next pin or [`Store::settle`].
    pub fn keep(self, document: &Verified) -> Result<()> {
        debug_assert_eq!(document.digest(), self.digest, "another document was claimed");
        // The lock is held until both are closed.
        let file = self.file.try_clone().map_err(reading("opening", &self.part))?;
        match Ingest::begin_locked(&self.store, document.digest(), document.size(), self.part.clone(), file)? {
            Some(ingest) => ingest.take_whole(document),
            None => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Where nothing was brought, nothing is left. As long as it is there it is ours, since we have it locked.
        if self.file.metadata().is_ok_and(|m| m.len() == 0) && lock::is_at(&self.file, &self.part).unwrap_or(false) {
            let _ = fs::remove_file(&self.part);
        }
    }
}
