//! What the store holds, what nobody needs, and what is wrong with it.
//!
//! Owns removing and checking. Always true: whoever removes has the store alone; a pin goes before its blobs do; a blob goes only if every
//! remaining pin could be asked whether it needs it.
//!
//! After a crash there may be blobs that no pin needs; [`Store::collect`] finds them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Result, StoreError, Whereabouts, reading};
use super::{Exclusive, Store, disk, hash};
use crate::digest::{Digest, Hasher, Mismatch};
use crate::oci::{Descriptor, Document};
use crate::pin::Pin;

/// What removing gave back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many blobs were removed.
    pub blobs: usize,
    /// How many bytes they had, and the parts that were on their way.
    pub bytes: u64,
    /// Pins whose manifest cannot be read: as any blob may be theirs, none was removed.
    pub unclear: Vec<Pin>,
}

/// How many bytes of an image are its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The bytes of blobs that no other image has.
    pub own: u64,
    /// The bytes of blobs that other images have too.
    pub shared: u64,
}

/// What was found wrong when the store was verified.
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
    /// A pin counts on a blob that is not there.
    Missing {
        /// The pin.
        pin: Box<Pin>,
        /// The blob.
        blob: Descriptor,
    },
    /// Something cannot be read, or is not what it should be.
    Unreadable {
        /// Why.
        error: StoreError,
    },
}

impl Store {
    /// Removes pins, and of their blobs those that no other pin needs.
    pub fn remove(&self, pins: &[Pin], lock: &Exclusive) -> Result<Freed> {
        let mut candidates = HashSet::new();
        for pin in pins {
            // Of an image whose manifest is gone, the layers are found by `collect`.
            let blobs = self.needs(pin).unwrap_or_else(|_| documents(pin));
            candidates.extend(blobs.into_iter().map(|blob| blob.digest));
        }
        self.unpin(pins)?;
        self.sweep(lock, |digest| candidates.contains(digest))
    }

    /// Removes all blobs that no pin needs, and what interrupted runs left on its way.
    pub fn collect(&self, lock: &Exclusive) -> Result<Freed> {
        let mut freed = self.sweep(lock, |_| true)?;
        for path in files(&self.scratch())? {
            let Ok(Some((file, size))) = disk::open(&path) else { continue };
            if disk::is_free(&file) {
                freed.bytes += size;
                disk::remove(&path)?;
            }
        }
        Ok(freed)
    }

    /// For each of these pins, how many bytes are its own and how many it shares with others of them.
    ///
    /// Of an image whose manifest cannot be read, all is counted as its own.
    pub fn sizes(&self, pins: &[Pin]) -> Vec<Sizes> {
        let needs: Vec<_> = pins.iter().map(|pin| self.needs(pin).unwrap_or_else(|_| documents(pin))).collect();
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for blob in needs.iter().flatten() {
            *users.entry(blob.digest).or_default() += 1;
        }
        let bytes = |blobs: &[Descriptor], keep: fn(usize) -> bool| -> u64 {
            blobs.iter().filter(|b| keep(users[&b.digest])).map(|b| b.size).fold(0, u64::saturating_add)
        };
        needs.iter().map(|blobs| Sizes { own: bytes(blobs, |n| n == 1), shared: bytes(blobs, |n| n > 1) }).collect()
    }

    /// Hashes every blob, asks every pin for what it needs, and tells what is wrong. Damaged blobs are moved away.
    pub fn verify(&self, each: &mut dyn FnMut(Finding)) -> Result<()> {
        for path in files(&self.blobs())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Ok(digest) = Digest::from_hex(&name) else {
                each(Finding::Unreadable { error: StoreError::Foreign { path: path.clone(), expected: "blob" } });
                continue;
            };
            match self.check(&digest, &path) {
                Ok(None) => {}
                Ok(Some(StoreError::Damaged { found, now })) => each(Finding::Damaged { found, now }),
                Ok(Some(error)) | Err(error) => each(Finding::Unreadable { error }),
            }
        }
        for pin in self.pins()? {
            let blobs = self.needs(&pin).unwrap_or_else(|_| documents(&pin));
            for blob in blobs.into_iter().filter(|blob| !self.has(blob)) {
                each(Finding::Missing { pin: Box::new(pin.clone()), blob });
            }
        }
        Ok(())
    }

    fn check(&self, digest: &Digest, path: &Path) -> Result<Option<StoreError>> {
        let Some((mut file, _)) = disk::open(path)? else { return Ok(None) };
        let mut hasher = Hasher::new();
        hash(&mut file, &mut hasher).map_err(reading("reading", path))?;
        let (found, size) = hasher.finish();
        if found == *digest { Ok(None) } else { self.judge(digest, size) }
    }

    /// Every blob that a pin needs, once.
    fn needs(&self, pin: &Pin) -> Result<Vec<Descriptor>> {
        let mut blobs = documents(pin);
        let missing = || StoreError::Missing { digest: pin.manifest.digest };
        let manifest = self.document(&pin.manifest.digest)?.ok_or_else(missing)?;
        match Document::parse(&manifest, Some(&pin.manifest.media_type)) {
            Ok((Document::Manifest(manifest), _)) => blobs.extend(manifest.layers),
            // What larder pinned was a manifest, so this is not what it pinned.
            _ => return Err(missing()),
        }
        let mut seen = HashSet::new();
        blobs.retain(|blob| seen.insert(blob.digest));
        Ok(blobs)
    }

    fn unpin(&self, pins: &[Pin]) -> Result<()> {
        let _one_at_a_time = self.lock_pins()?;
        self.index_begins_to_change()?;
        let mut folders = HashSet::new();
        for pin in pins {
            let path = self.pin_path(pin);
            disk::remove(&path)?;
            folders.extend(path.parent().map(Path::to_owned));
        }
        for folder in folders {
            disk::sync_folder(&folder)?;
            // Up to the first that is not empty, as it is then said.
            let mut emptied = Some(folder.as_path());
            while let Some(folder) = emptied.filter(|f| *f != self.root().join("pins") && fs::remove_dir(f).is_ok()) {
                emptied = folder.parent();
            }
        }
        self.derive_index()
    }

    fn sweep(&self, _alone: &Exclusive, may_go: impl Fn(&Digest) -> bool) -> Result<Freed> {
        let mut needed = HashSet::new();
        let mut freed = Freed::default();
        for pin in self.pins()? {
            match self.needs(&pin) {
                Ok(blobs) => needed.extend(blobs.into_iter().map(|blob| blob.digest)),
                Err(_) => freed.unclear.push(pin),
            }
        }
        if !freed.unclear.is_empty() {
            return Ok(freed);
        }
        for path in files(&self.blobs())? {
            let digest = Digest::from_hex(&path.file_name().unwrap_or_default().to_string_lossy());
            let Ok(digest) = digest else { continue };
            if needed.contains(&digest) || !may_go(&digest) {
                continue;
            }
            let Ok(Some(size)) = disk::size(&path) else { continue };
            disk::remove(&path)?;
            freed.blobs += 1;
            freed.bytes += size;
        }
        disk::sync_folder(&self.blobs())?;
        Ok(freed)
    }
}

/// What a pin itself says it needs.
fn documents(pin: &Pin) -> Vec<Descriptor> {
    let mut seen = HashSet::new();
    [&pin.root, &pin.manifest, &pin.config].into_iter().filter(|d| seen.insert(d.digest)).cloned().collect()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(reading("listing", folder))?;
    entries.map(|entry| Ok(entry.map_err(reading("listing", folder))?.path())).collect()
}
