//! Blobs whose digests are known only when all of them came: what an archive holds under names of its own.
//!
//! Owns files `ingest/*.tmp` while they are staged. Always true: a staged blob has no name, and nobody is told of it, before
//! [`Staged::name`], which is called when all that belongs to it was found right; one that is dropped before is gone. Which blobs are wanted is
//! `import`'s affair.
//!
//! After a crash there are files that nobody has locked; [`Store::prune`] removes them.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::disk;
use super::error::{Result, StoreError, writing};
use super::{Shared, Store};
use crate::digest::{Digest, Hasher, VerifyReader};

/// A blob that is coming. Dropped, it is gone.
pub struct Stage {
    scratch: Scratch,
    file: File,
    hasher: Hasher,
    /// Up to where the kernel was told to write.
    flushed: u64,
}

/// A blob that came and is on the disk, and that has no name yet. Dropped, it is gone.
pub struct Staged {
    store: Store,
    scratch: Scratch,
    digest: Digest,
    size: u64,
}

/// A file that is removed when it is dropped, unless it was given a name.
struct Scratch {
    path: PathBuf,
    named: bool,
}

impl Store {
    /// Begins a blob of about this size. As long as the store is shared nobody takes it for something that a killed process left.
    pub fn stage(&self, size: u64, _counted_on: &Shared) -> Result<Stage> {
        let free = disk::room(self.root())?;
        if free.bytes < size {
            return Err(StoreError::NoSpace { path: self.root().to_owned(), needed: size, free: free.bytes });
        }
        let (path, file) = disk::scratch_file(&self.scratch())?;
        Ok(Stage { scratch: Scratch { path, named: false }, file, hasher: Hasher::new(), flushed: 0 })
    }
}

impl Stage {
    /// Takes in the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(writing("writing", &self.scratch.path))?;
        self.hasher.update(bytes);
        let ready = self.hasher.length() - self.flushed;
        if ready >= disk::FLUSH_EVERY {
            disk::flush_ahead(&self.file, self.flushed, ready);
            self.flushed = self.hasher.length();
        }
        Ok(())
    }

    /// Brings the bytes to the disk. What they hash to is the blob's digest.
    pub fn finish(self, store: &Store) -> Result<Staged> {
        disk::sync(&self.file).map_err(writing("syncing", &self.scratch.path))?;
        let (digest, size) = self.hasher.finish();
        Ok(Staged { store: store.clone(), scratch: self.scratch, digest, size })
    }
}

impl Staged {
    /// What it hashes to.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its content, hashed as it is read.
    pub fn content(&self) -> Result<VerifyReader<File>> {
        let (file, _) = disk::open(&self.scratch.path)?.ok_or(StoreError::Missing { digest: self.digest })?;
        Ok(VerifyReader::new(file, self.digest, self.size))
    }

    /// Gives it its name. That reaches the disk with the next pin or [`Store::settle`]. Returns whether the store lacked it.
    pub fn name(mut self) -> Result<bool> {
        // Only who has the part locked names the blob. What an earlier download left of it is of no use any more.
        let Some(claim) = self.store.claim_blob(&self.digest, self.size)? else { return Ok(false) };
        disk::rename(&self.scratch.path, &self.store.blob_path(&self.digest))?;
        self.scratch.named = true;
        claim.fulfilled();
        // As in an ingest: a courtesy.
        let _ = fs::set_permissions(self.store.blob_path(&self.digest), Permissions::from_mode(0o444));
        Ok(true)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.named {
            // `prune` finds what cannot be removed now.
            let _ = fs::remove_file(&self.path);
        }
    }
}
