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

use super::disk::{self, Hold};
use super::error::{Result, StoreError, Whereabouts, reading, writing};
use super::{Store, hash};
use crate::digest::{Digest, Hasher, Mismatch};
use crate::oci::Descriptor;

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

    fn part(&self, digest: &Digest) -> PathBuf {
        self.scratch().join(format!("{}.part", digest.hex()))
    }

    /// Locks the part of this blob, made if there is none; `None` as soon as the blob is there in this size.
    fn lock_part(&self, digest: &Digest, size: Option<u64>) -> Result<Option<(PathBuf, File)>> {
        let (part, blob, patience) = (self.part(digest), self.blob_path(digest), self.patience());
        loop {
            if size.is_some() && disk::size(&blob)? == size {
                return Ok(None);
            }
            let file = disk::open_or_make(&part)?;
            disk::lock(&file, &part, Hold::Alone, patience)?;
            if disk::is_at(&file, &part)? {
                return Ok(Some((part, file)));
            }
        }
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
        let locked = match self.lock_part(digest, None) {
            Ok(locked) => locked,
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
        let mut hasher = Hasher::new();
        hash(&mut file, &mut hasher).map_err(reading("reading", &path))?;
        let (found, found_size) = hasher.finish();
        if found != *digest {
            let aside = may_move.then(|| self.move_to_damaged(digest, &path).ok()).flatten();
            let now = aside.map_or(Whereabouts::InPlace(path), Whereabouts::Aside);
            let found = Mismatch { expected: *digest, expected_size: claimed, found, found_size };
            return Ok(Some(StoreError::Damaged { found, now }));
        }
        Ok((claimed != found_size).then_some(StoreError::WrongSize { digest: *digest, claimed, found: found_size }))
    }

    fn move_to_damaged(&self, digest: &Digest, path: &Path) -> Result<PathBuf> {
        let folder = self.root().join("damaged");
        disk::make_folder(&folder)?;
        let mut aside = folder.join(digest.hex());
        let mut earlier = 1;
        while fs::symlink_metadata(&aside).is_ok() {
            earlier += 1;
            aside.set_file_name(format!("{}.{earlier}", digest.hex()));
        }
        disk::rename(path, &aside)?;
        Ok(aside)
    }
}

impl Ingest {
    pub(super) fn begin(store: &Store, digest: Digest, size: u64) -> Result<Option<Ingest>> {
        let Some((part, mut file)) = store.lock_part(&digest, Some(size))? else { return Ok(None) };
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
        let mut hasher = Hasher::new();
        let there = file.metadata().map_err(reading("looking at", &part))?.len();
        if there > size {
            file.set_len(0).map_err(writing("emptying", &part))?;
        }
        hash(&mut file, &mut hasher).map_err(reading("reading", &part))?;
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
        self.hasher = Hasher::new();
        self.flushed = 0;
        Ok(())
    }

    /// Compares size and digest, brings the bytes to the disk and gives the blob its name.
    ///
    /// Bytes that are not what was asked for are thrown away, and so are those that the disk would not take.
    pub fn commit(self) -> Result<()> {
        let committed = self.compare().and_then(|()| self.name());
        if committed.is_err() {
            // What is to be reported is why it was not committed.
            let _ = fs::remove_file(&self.part);
        }
        committed
    }

    fn compare(&self) -> Result<()> {
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
        // A courtesy to whoever looks into the store; some file systems have no permissions.
        let _ = self.file.set_permissions(Permissions::from_mode(0o444));
        // A sync that failed once may succeed the next time without having written: the bytes are then not to be believed.
        self.file.sync_all().map_err(writing("syncing", &self.part))?;
        disk::name(&self.part, &self.store.blob_path(&self.digest))
    }
}
