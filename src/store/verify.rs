//! What is wrong with a store.
//!
//! Owns looking at everything: hashing blobs, asking pins for what they count on, finding what nobody needs. Always true: a blob that is
//! reported as right was hashed; one that is not what its name says is moved to `damaged/`; one that cannot be read is left where it is, since
//! a disk that fails today may give it tomorrow. Mending is for others: this knows no network.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::error::{Result, StoreError, Whereabouts, reading};
use super::{Store, disk, hash_telling, sweep};
use crate::digest::{Digest, Hasher, Mismatch};
use crate::oci::{self, Descriptor};
use crate::pin::Pin;

/// What was found wrong, or merely lying about, when a store was verified.
#[derive(Debug)]
#[non_exhaustive]
pub enum Finding {
    /// A blob is not what its name says.
    Damaged {
        /// What was expected and what was found.
        found: Mismatch,
        /// Where it is now.
        now: Whereabouts,
    },
    /// An image counts on a blob that is not there.
    Missing {
        /// The pin.
        pin: Box<Pin>,
        /// The blob.
        blob: Descriptor,
    },
    /// A blob cannot be read. It stays where it is.
    Unreadable {
        /// The blob.
        digest: Digest,
        /// Why.
        error: StoreError,
    },
    /// A pin cannot be read, so nobody knows which blobs it counts on. Until it is mended, nothing is removed from the store.
    BadPin {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: StoreError,
    },
    /// Something lies among the blobs that is no blob.
    Foreign {
        /// What it is.
        path: PathBuf,
    },
    /// A process that was cut off left this; a part is continued by the next pull of its blob.
    Leftover {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
    },
    /// No pin needs this blob.
    Unreferenced {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        bytes: u64,
    },
    /// This was found damaged and set aside by an earlier run.
    SetAside {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
    },
}

/// What is to be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkup<'a> {
    /// Only what these pins count on; the whole store if `None`.
    pub of: Option<&'a [Pin]>,
    /// Whether blobs are hashed. If not, only names and sizes are looked at, and nothing is said of content.
    pub hash: bool,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// The pins whose blobs these are: those that were asked for, or all that can be read.
    pub pins: Vec<Pin>,
    /// How many blobs.
    pub blobs: usize,
    /// How many bytes were hashed.
    pub bytes: u64,
}

/// Who is told what comes out, from several threads.
pub trait Watch: Sync {
    /// Something was found.
    fn found(&self, finding: Finding);
    /// So many more bytes were hashed.
    fn hashed(&self, bytes: u64);
}

impl Store {
    /// Hashes blobs, several at once, asks pins for what they count on, and tells what is wrong. Damaged blobs are moved away.
    pub fn verify(&self, checkup: Checkup<'_>, watch: &dyn Watch) -> Result<Tally> {
        let (pins, all_readable) = match checkup.of {
            Some(pins) => (pins.to_vec(), true),
            None => self.look_at_pins(watch)?,
        };
        let needed = oci::each_once(pins.iter().flat_map(Pin::blobs));
        let there = match checkup.of {
            Some(_) => needed.iter().map(|blob| blob.digest).collect(),
            None => self.blobs_there()?,
        };
        let (blobs, bytes) = self.look_at_blobs(there, &needed, checkup.hash, watch)?;
        for pin in &pins {
            for blob in pin.blobs().into_iter().filter(|blob| !self.has(blob)) {
                watch.found(Finding::Missing { pin: Box::new(pin.clone()), blob: blob.clone() });
            }
        }
        if checkup.of.is_none() {
            // As long as a pin cannot be read, any blob may be its own.
            self.look_about(all_readable.then_some(&needed[..]), watch)?;
            self.mend_index();
        }
        Ok(Tally { pins, blobs, bytes })
    }

    /// Moves a blob away that cannot be read, so that it can be fetched again.
    pub fn set_unreadable_aside(&self, digest: &Digest) -> Result<()> {
        self.move_to_damaged(&digest.hex(), &self.blob_path(digest)).map(drop)
    }

    /// Moves a pin's file away that cannot be read, so that the image can be pinned again. Returns where it is now.
    pub fn set_pin_aside(&self, path: &Path) -> Result<PathBuf> {
        let _one_at_a_time = self.lock_pins()?;
        self.index_begins_to_change()?;
        self.move_to_damaged(&path.file_name().unwrap_or_default().to_string_lossy(), path)
    }

    /// Moves a pin's file back that was set aside, since the image could not be pinned again.
    pub fn put_pin_back(&self, aside: &Path, path: &Path) -> Result<()> {
        let _one_at_a_time = self.lock_pins()?;
        disk::rename(aside, path)
    }

    /// The pins that can be read, and whether these are all.
    fn look_at_pins(&self, watch: &dyn Watch) -> Result<(Vec<Pin>, bool)> {
        let (mut pins, mut all) = (Vec::new(), true);
        for (path, pin) in self.each_pin()? {
            match pin {
                Ok(pin) => pins.push(pin),
                Err(error) => {
                    all = false;
                    watch.found(Finding::BadPin { path, error });
                }
            }
        }
        Ok((pins, all))
    }

    /// Looks at blobs on all cores, the largest first so that none is left alone at the end; returns how many there were, and the bytes hashed.
    fn look_at_blobs(&self, there: Vec<Digest>, needed: &[&Descriptor], hash: bool, watch: &dyn Watch) -> Result<(usize, u64)> {
        let mut blobs = Vec::new();
        for digest in there {
            if let Ok(Some(size)) = disk::size(&self.blob_path(&digest)) {
                blobs.push((digest, size));
            }
        }
        if !hash {
            // A size that is not the needed one is looked into all the same.
            let right: HashSet<_> = needed.iter().map(|blob| (blob.digest, blob.size)).collect();
            let known: HashSet<_> = needed.iter().map(|blob| blob.digest).collect();
            let looked_at = blobs.len();
            blobs.retain(|blob| known.contains(&blob.0) && !right.contains(blob));
            return Ok((looked_at, self.hash_blobs(&mut blobs, watch)?));
        }
        let bytes = self.hash_blobs(&mut blobs, watch)?;
        Ok((blobs.len(), bytes))
    }

    fn hash_blobs(&self, blobs: &mut [(Digest, u64)], watch: &dyn Watch) -> Result<u64> {
        blobs.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let (next, bytes, failed) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(Ok(())));
        let work = || {
            while let Some((digest, _)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.look_at(digest, watch) {
                    Ok(hashed) => bytes.fetch_add(hashed, Ordering::Relaxed),
                    Err(error) => {
                        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Err(error);
                        return;
                    }
                };
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(blobs.len());
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
        Ok(bytes.into_inner())
    }

    /// Hashes one blob and tells if it is wrong; returns how many bytes it had.
    fn look_at(&self, digest: &Digest, watch: &dyn Watch) -> Result<u64> {
        let path = self.blob_path(digest);
        let mut hasher = Hasher::new();
        let hashed = match disk::open(&path) {
            Ok(None) => return Ok(0),
            Ok(Some((mut file, _))) => {
                hash_telling(&mut file, &mut hasher, &mut |bytes| watch.hashed(bytes)).map_err(reading("reading", &path))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = hashed {
            watch.found(Finding::Unreadable { digest: *digest, error });
            return Ok(0);
        }
        let (found, size) = hasher.finish();
        if found != *digest {
            match self.judge(digest, size) {
                Ok(Some(StoreError::Damaged { found, now })) => watch.found(Finding::Damaged { found, now }),
                // It was healed or removed meanwhile.
                Ok(_) => {}
                Err(error @ StoreError::Io { .. }) => watch.found(Finding::Unreadable { digest: *digest, error }),
                Err(error) => return Err(error),
            }
        }
        Ok(size)
    }

    /// What lies about: it is no fault.
    fn look_about(&self, needed: Option<&[&Descriptor]>, watch: &dyn Watch) -> Result<()> {
        let needed: Option<HashSet<Digest>> = needed.map(|needed| needed.iter().map(|blob| blob.digest).collect());
        for path in sweep::list(&self.blobs())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match (Digest::from_hex(&name), disk::size(&path)) {
                (Ok(digest), Ok(Some(bytes))) if needed.as_ref().is_some_and(|needed| !needed.contains(&digest)) => {
                    watch.found(Finding::Unreferenced { digest, bytes })
                }
                (Ok(_), Ok(_)) => {}
                _ => watch.found(Finding::Foreign { path }),
            }
        }
        for (path, bytes) in self.leftovers()? {
            watch.found(Finding::Leftover { path, bytes });
        }
        for (path, bytes) in self.set_aside_before()? {
            watch.found(Finding::SetAside { path, bytes });
        }
        Ok(())
    }
}
