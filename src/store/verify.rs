//! What is wrong with a store.
//!
//! Owns looking at everything: hashing blobs, asking pins for what they count on, finding what nobody needs. Always true: a blob that is
//! reported as right was hashed; one that is not what its name says is moved to `damaged/`; one that cannot be read is left where it is, since
//! a disk that fails today may give it tomorrow. Mending is for others: this knows no network.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::{Result, StoreError, Whereabouts, reading};
use super::pins::Kept;
use super::{Store, disk, hash_telling, sweep};
use crate::digest::{Digest, Hasher, Mismatch};
use crate::oci::Descriptor;
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
        let needed: HashMap<Digest, u64> = pins.iter().flat_map(Pin::blobs).map(|blob| (blob.digest, blob.size)).collect();
        let there: HashMap<Digest, u64> = match checkup.of {
            Some(_) => self.with_sizes(needed.keys().copied())?.into_iter().collect(),
            None => self.all_blobs(watch)?,
        };
        // Without hashing, one whose size is not the needed one is looked into all the same.
        let suspect = |(digest, size): (&Digest, &u64)| checkup.hash || needed.get(digest).is_some_and(|needed| needed != size);
        let mut suspects: Vec<(Digest, u64)> = there.iter().filter(|blob| suspect(*blob)).map(|(digest, size)| (*digest, *size)).collect();
        let (bytes, wrong) = self.hash_blobs(&mut suspects, watch)?;
        let right = |digest: &Digest, size: &u64| there.get(digest) == Some(size) && !wrong.contains(digest);
        for pin in &pins {
            // What was not there before may have come meanwhile.
            for blob in pin.blobs().into_iter().filter(|blob| !right(&blob.digest, &blob.size) && !self.has(blob)) {
                watch.found(Finding::Missing { pin: Box::new(pin.clone()), blob: blob.clone() });
            }
        }
        if checkup.of.is_none() {
            // As long as a pin cannot be read, any blob may be its own.
            for (digest, bytes) in
                there.iter().filter(|(digest, _)| all_readable && !needed.contains_key(digest) && !wrong.contains(digest))
            {
                watch.found(Finding::Unreferenced { digest: *digest, bytes: *bytes });
            }
            self.look_about(watch)?;
            self.mend_index();
        }
        Ok(Tally { pins, blobs: there.len(), bytes })
    }

    /// Moves a blob away that cannot be read, so that it can be fetched again.
    pub fn set_unreadable_aside(&self, digest: &Digest) -> Result<()> {
        self.move_to_damaged(&digest.hex(), &self.blob_path(digest)).map(drop)
    }

    /// Moves a pin's file away that cannot be read, so that the image can be pinned again. Returns where it is now.
    pub fn set_pin_aside(&self, path: &Path) -> Result<PathBuf> {
        let _locks = self.lock_all_pins()?;
        self.move_to_damaged(&path.file_name().unwrap_or_default().to_string_lossy(), path)
    }

    /// Moves a pin's file back that was set aside, since the image could not be pinned again.
    pub fn put_pin_back(&self, aside: &Path, path: &Path) -> Result<()> {
        let _locks = self.lock_all_pins()?;
        disk::rename(aside, path)
    }

    /// The pins that can be read, and whether these are all.
    fn look_at_pins(&self, watch: &dyn Watch) -> Result<(Vec<Pin>, bool)> {
        let (mut pins, mut all) = (Vec::new(), true);
        for Kept { path, pin, .. } in self.each_pin()? {
            match pin {
                Ok(pin) => pins.push(*pin),
                Err(error) => {
                    all = false;
                    watch.found(Finding::BadPin { path, error: *error });
                }
            }
        }
        Ok((pins, all))
    }

    /// Every blob that has a name, and its size. What lies among them and is none is told.
    fn all_blobs(&self, watch: &dyn Watch) -> Result<HashMap<Digest, u64>> {
        let mut blobs = HashMap::new();
        for (algorithm, folder) in self.blob_folders() {
            for path in sweep::list(&folder)? {
                let digest = Digest::with_hex(algorithm, &path.file_name().unwrap_or_default().to_string_lossy());
                match (digest, disk::size(&path)) {
                    (Ok(digest), Ok(Some(size))) => drop(blobs.insert(digest, size)),
                    // It was removed meanwhile.
                    (Ok(_), Ok(None)) => {}
                    _ => watch.found(Finding::Foreign { path }),
                }
            }
        }
        Ok(blobs)
    }

    /// Hashes blobs on all cores, the largest first so that none is left alone at the end; returns the bytes hashed, and which were wrong.
    fn hash_blobs(&self, blobs: &mut [(Digest, u64)], watch: &dyn Watch) -> Result<(u64, HashSet<Digest>)> {
        blobs.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut bytes, mut wrong) = (0, HashSet::new());
            while let Some((digest, _)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (hashed, right) = self.look_at(digest, watch)?;
                bytes += hashed;
                if !right {
                    wrong.insert(*digest);
                }
            }
            Ok((bytes, wrong))
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(blobs.len());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("hashing does not panic")).try_fold(
                (0, HashSet::new()),
                |(sum, mut all), done| {
                    let (bytes, wrong): (u64, HashSet<Digest>) = done?;
                    all.extend(wrong);
                    Ok((sum + bytes, all))
                },
            )
        })
    }

    /// Hashes one blob and tells if it is wrong; returns how many bytes it has, and whether it is right.
    fn look_at(&self, digest: &Digest, watch: &dyn Watch) -> Result<(u64, bool)> {
        let path = self.blob_path(digest);
        let mut hasher = Hasher::by(digest.algorithm());
        let hashed = match disk::open(&path) {
            Ok(None) => return Ok((0, false)),
            Ok(Some((mut file, _))) => {
                hash_telling(&mut file, &mut hasher, &mut |bytes| watch.hashed(bytes)).map_err(reading("reading", &path))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = hashed {
            watch.found(Finding::Unreadable { digest: *digest, error });
            return Ok((0, false));
        }
        let (found, size) = hasher.finish();
        if found == *digest {
            return Ok((size, true));
        }
        match self.judge(digest, size) {
            Ok(Some(StoreError::Damaged { found, now })) => watch.found(Finding::Damaged { found, now }),
            // It was healed or removed meanwhile.
            Ok(_) => {}
            Err(error @ StoreError::Io { .. }) => watch.found(Finding::Unreadable { digest: *digest, error }),
            Err(error) => return Err(error),
        }
        Ok((size, false))
    }

    /// What lies about besides blobs: it is no fault.
    fn look_about(&self, watch: &dyn Watch) -> Result<()> {
        for (path, bytes) in self.leftovers()? {
            watch.found(Finding::Leftover { path, bytes });
        }
        for (path, bytes) in self.set_aside_before()? {
            watch.found(Finding::SetAside { path, bytes });
        }
        Ok(())
    }
}
