//! Blobs whose digests are known only when all of them came: what an archive holds under names of its own.
//!
//! Owns files `ingest/*.tmp` while they are staged. Always true: a staged blob has no name, and nobody is told of it, before
//! [`Staged::name`], which is called when all that belongs to it was found right; one that is dropped before is gone. Of what the store has
//! already nothing is written: what comes is compared with it byte by byte, and where that differs one of the two is wrong, which the digest
//! tells. Which blobs are wanted is `import`'s affair.
//!
//! After a crash there are files that nobody has locked; [`Store::prune`] removes them.

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::disk;
use super::error::{Result, StoreError, Whereabouts, reading, writing};
use super::{CHUNK, Shared, Store};
use crate::digest::{Algorithm, Digest, Hasher, Mismatch};

/// A blob that is coming. Dropped, it is gone.
pub struct Stage {
    store: Store,
    hasher: Hasher,
    size: u64,
    place: Coming,
}

enum Coming {
    Fresh(Fresh),
    /// The store's blob of that name, and what was read of it last.
    There {
        expected: Digest,
        stored: File,
        buffer: Vec<u8>,
    },
}

/// A file that is written.
struct Fresh {
    scratch: Scratch,
    file: File,
    written: u64,
    /// Up to where the kernel was told to write.
    flushed: u64,
}

/// A blob that came and is on the disk, and that has no name yet, unless the store had it before. Dropped, it is gone.
pub struct Staged {
    store: Store,
    digest: Digest,
    size: u64,
    /// None: the store has these very bytes.
    scratch: Option<Scratch>,
}

/// A file that is removed when it is dropped, unless it was given a name.
struct Scratch {
    path: PathBuf,
    named: bool,
}

impl Store {
    /// Begins a blob of about this size, and perhaps of this digest. As long as the store is shared nobody takes it for something that a killed
    /// process left.
    pub fn stage(&self, named: Option<Digest>, size: u64, _counted_on: &Shared) -> Result<Stage> {
        let there = named.and_then(|digest| Some((digest, disk::open(&self.blob_path(&digest)).ok()??)));
        let place = match there {
            Some((expected, (stored, found))) if found == size => Coming::There { expected, stored, buffer: Vec::new() },
            _ => Coming::Fresh(Fresh::new(self, size)?),
        };
        let algorithm = Algorithm::of(named);
        Ok(Stage { store: self.clone(), hasher: Hasher::by(algorithm), size, place })
    }
}

impl Stage {
    /// Takes in the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Coming::There { stored, buffer, .. } = &mut self.place {
            buffer.resize(bytes.len(), 0);
            if stored.read_exact(buffer).is_ok() && buffer == bytes {
                self.hasher.update(bytes);
                return Ok(());
            }
            self.place = Coming::Fresh(self.so_far()?);
        }
        if let Coming::Fresh(fresh) = &mut self.place {
            fresh.write(bytes)?;
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// A file with what was the same so far.
    fn so_far(&mut self) -> Result<Fresh> {
        let mut fresh = Fresh::new(&self.store, self.size)?;
        let Coming::There { expected, stored, .. } = &mut self.place else { return Ok(fresh) };
        let path = self.store.blob_path(expected);
        let mut chunk = vec![0; CHUNK];
        stored.rewind().map_err(reading("reading", &path))?;
        while fresh.written < self.hasher.length() {
            let length = usize::try_from(self.hasher.length() - fresh.written).unwrap_or(CHUNK).min(CHUNK);
            stored.read_exact(&mut chunk[..length]).map_err(reading("reading", &path))?;
            fresh.write(&chunk[..length])?;
        }
        Ok(fresh)
    }

    /// What came so far hashes to this, and how many bytes it has.
    pub fn hashed(&self) -> (Digest, u64) {
        self.hasher.clone().finish()
    }

    /// Brings the bytes to the disk. What they hash to is the blob's digest.
    pub fn finish(self) -> Result<Staged> {
        let (digest, size) = self.hashed();
        let scratch = match self.place {
            Coming::Fresh(Fresh { scratch, file, .. }) => {
                disk::sync(&file).map_err(writing("syncing", &scratch.path))?;
                Some(scratch)
            }
            Coming::There { expected, .. } if (expected, self.size) == (digest, size) => None,
            Coming::There { expected, .. } => {
                let found = Mismatch { expected, expected_size: self.size, found: digest, found_size: size };
                return Err(StoreError::Mismatch { found });
            }
        };
        Ok(Staged { store: self.store, digest, size, scratch })
    }
}

impl Fresh {
    fn new(store: &Store, size: u64) -> Result<Fresh> {
        let free = disk::room(store.root())?;
        if free.bytes < size {
            return Err(StoreError::NoSpace { path: store.root().to_owned(), needed: size, free: free.bytes });
        }
        let (path, file) = disk::scratch_file(&store.scratch())?;
        Ok(Fresh { scratch: Scratch { path, named: false }, file, written: 0, flushed: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(writing("writing", &self.scratch.path))?;
        self.written += bytes.len() as u64;
        let ready = self.written - self.flushed;
        if ready >= disk::FLUSH_EVERY {
            disk::flush_ahead(&self.file, self.flushed, ready);
            self.flushed = self.written;
        }
        Ok(())
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

    /// Its content, to be looked into. It was hashed as it came, and is not hashed again.
    pub fn content(&self) -> Result<File> {
        let path = self.scratch.as_ref().map_or_else(|| self.store.blob_path(&self.digest), |scratch| scratch.path.clone());
        disk::open(&path)?.map(|(file, _)| file).ok_or(StoreError::Missing { digest: self.digest })
    }

    /// Gives it its name. That reaches the disk with the next pin or [`Store::settle`]. Returns whether the store lacked it.
    ///
    /// Where the store has other bytes under that name, these are hashed and moved to `damaged/`.
    pub fn name(mut self) -> Result<bool> {
        let Some(scratch) = &mut self.scratch else { return Ok(false) };
        let path = self.store.blob_path(&self.digest);
        // Only who has the part locked names the blob. What an earlier download left of it is of no use any more.
        let mut claim = self.store.claim_blob(&self.digest, self.size)?;
        if claim.is_none() && !disk::are_the_same(&scratch.path, &path)? {
            match self.store.judge(&self.digest, self.size)? {
                Some(StoreError::Damaged { now: Whereabouts::Aside(_), .. }) | None => {}
                Some(wrong) => return Err(wrong),
            }
            claim = self.store.claim_blob(&self.digest, self.size)?;
        }
        let Some(claim) = claim else { return Ok(false) };
        self.store.make_blob_folder(self.digest.algorithm())?;
        disk::rename(&scratch.path, &path)?;
        scratch.named = true;
        claim.fulfilled();
        // As in an ingest: a courtesy.
        let _ = fs::set_permissions(path, Permissions::from_mode(0o444));
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
