//! Removing: images that are named, and by [`Store::prune`] what nobody needs or has used for long.
//!
//! Always true: whoever removes has the store alone; nothing is removed while a pin cannot be read, as any blob may be its own; a pin's removal
//! reached the disk before a blob of it goes; what is computed as plain data ([`Pruned`]) is what is done. Nothing has to be written before
//! something was removed, so that all of it works on a disk that is full.
//!
//! After a crash there may be blobs that no pin needs; [`Store::prune`] finds them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::error::{Result, StoreError, reading};
use super::{Exclusive, Store, disk, lock};
use crate::digest::Digest;
use crate::oci::{self, Descriptor};
use crate::pin::Pin;

/// What removing gave back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// How many blobs were removed.
    pub blobs: usize,
    /// How many bytes they had.
    pub bytes: u64,
}

/// How many bytes of an image are its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The bytes of blobs that no other image has.
    pub own: u64,
    /// The bytes of blobs that other images have too.
    pub shared: u64,
}

/// What is to go. Blobs that no pin needs, and files that a killed process left and that nothing can continue, go in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruning {
    /// Images that were last used before this go.
    pub unused_since: Option<Timestamp>,
    /// Of those used longest ago, as many go as it takes for the others to have no more bytes than this.
    pub keep_bytes: Option<u64>,
    /// Parts of blobs that were last written before this go. A part that somebody has locked stays.
    pub parts_since: Option<Timestamp>,
    /// What was found damaged and set aside goes.
    pub damaged: bool,
}

/// What went by pruning, or would go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images, those used longest ago first.
    pub pins: Vec<Pin>,
    /// Blobs that no remaining pin needs, and their sizes in bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// Parts, other files that a killed process left, and damaged blobs; their sizes in bytes.
    pub files: Vec<(PathBuf, u64)>,
}

impl Pruned {
    /// The bytes of all blobs and files.
    pub fn bytes(&self) -> u64 {
        let (blobs, files) = (self.blobs.iter().map(|(_, size)| size), self.files.iter().map(|(_, size)| size));
        blobs.chain(files).fold(0, |sum, size| sum.saturating_add(*size))
    }
}

impl Store {
    /// Removes pins, and of their blobs those that no other pin needs.
    pub fn remove(&self, pins: &[Pin], lock: &Exclusive) -> Result<Freed> {
        let gone: HashSet<PathBuf> = pins.iter().map(|pin| self.pin_path(pin)).collect();
        let remaining: Vec<Pin> = self.pins()?.into_iter().filter(|pin| !gone.contains(&self.pin_path(pin))).collect();
        let needed = needed(&remaining);
        let blobs = oci::each_once(pins.iter().flat_map(Pin::blobs)).into_iter().map(|blob| blob.digest);
        let blobs = self.with_sizes(blobs.filter(|digest| !needed.contains(digest)))?;
        self.take_out(pins, &blobs, remaining, lock)?;
        Ok(Freed { blobs: blobs.len(), bytes: blobs.iter().map(|(_, size)| size).sum() })
    }

    /// What [`Store::prune`] would remove now.
    pub fn to_prune(&self, what: &Pruning) -> Result<Pruned> {
        Ok(self.divide(what)?.0)
    }

    /// Removes what nobody needs, and what the rules say.
    pub fn prune(&self, what: &Pruning, lock: &Exclusive) -> Result<Pruned> {
        let (going, remaining) = self.divide(what)?;
        for (path, _) in &going.files {
            disk::remove(path)?;
        }
        self.take_out(&going.pins, &going.blobs, remaining, lock)?;
        Ok(going)
    }

    /// For each of these pins, how many bytes are its own and how many it shares with others of them.
    pub fn sizes<'a>(&self, pins: impl IntoIterator<Item = &'a Pin>) -> Vec<Sizes> {
        let blobs: Vec<_> = pins.into_iter().map(Pin::blobs).collect();
        let users = users(blobs.iter().flatten().copied());
        let sizes = |blobs: Vec<&Descriptor>| {
            blobs.into_iter().fold(Sizes::default(), |sizes, blob| match users[&blob.digest] {
                1 => Sizes { own: sizes.own.saturating_add(blob.size), ..sizes },
                _ => Sizes { shared: sizes.shared.saturating_add(blob.size), ..sizes },
            })
        };
        blobs.into_iter().map(sizes).collect()
    }

    /// What goes by these rules, and the pins that remain.
    fn divide(&self, what: &Pruning) -> Result<(Pruned, Vec<Pin>)> {
        // Where it cannot be told when an image was used, it may have been used just now.
        let mut pins: Vec<_> = self.dated_pins()?.into_iter().map(|(pin, used)| (used.unwrap_or(Timestamp::MAX), pin)).collect();
        pins.sort_by_key(|(used, _)| *used);
        let unused = pins.iter().take_while(|(used, _)| what.unused_since.is_some_and(|since| *used < since)).count();
        let pins: Vec<Pin> = pins.into_iter().map(|(_, pin)| *pin).collect();
        let large = what.keep_bytes.map_or(0, |keep| too_many(&pins, keep));
        let (going, remaining) = pins.split_at(unused.max(large));
        let needed = needed(remaining);
        let blobs = self.blobs_there()?.into_iter().filter(|digest| !needed.contains(digest));
        let (pins, blobs, files) = (going.to_vec(), self.with_sizes(blobs)?, self.left_over(what)?);
        Ok((Pruned { pins, blobs, files }, remaining.to_vec()))
    }

    /// Files that are none of the store's content: parts, what a killed process was writing, what was set aside.
    fn left_over(&self, what: &Pruning) -> Result<Vec<(PathBuf, u64)>> {
        let mut files = self.leftovers()?;
        files.retain(|(path, _)| match path.extension() == Some(OsStr::new("part")) {
            true => what.parts_since.is_some_and(|since| disk::written(path).is_some_and(|written| written < since)),
            false => true,
        });
        if what.damaged {
            files.extend(self.set_aside_before()?);
        }
        Ok(files)
    }

    /// Parts and other files in `ingest/` that no process has locked, and their sizes.
    pub(super) fn leftovers(&self) -> Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for path in list(&self.scratch())? {
            if let Ok(Some((file, size))) = disk::open(&path)
                && lock::is_free(&file)
            {
                files.push((path, size));
            }
        }
        Ok(files)
    }

    /// What was set aside because it was damaged, and the sizes.
    pub(super) fn set_aside_before(&self) -> Result<Vec<(PathBuf, u64)>> {
        let folder = self.root().join("damaged");
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        Ok(list(&folder)?.into_iter().filter_map(|path| Some((disk::size(&path).ok()??, path))).map(|(size, path)| (path, size)).collect())
    }

    /// The blobs that have a name.
    fn blobs_there(&self) -> Result<Vec<Digest>> {
        let mut blobs = Vec::new();
        for (algorithm, folder) in self.blob_folders() {
            let named = |path: PathBuf| Digest::with_hex(algorithm, &path.file_name()?.to_string_lossy()).ok();
            blobs.extend(list(&folder)?.into_iter().filter_map(named));
        }
        Ok(blobs)
    }

    pub(super) fn with_sizes(&self, digests: impl Iterator<Item = Digest>) -> Result<Vec<(Digest, u64)>> {
        let sized = |digest: Digest| Ok(disk::size(&self.blob_path(&digest))?.map(|size| (digest, size)));
        digests.filter_map(|digest| sized(digest).transpose()).collect()
    }

    /// Removes the pins, and when that reached the disk the blobs.
    fn take_out(&self, pins: &[Pin], blobs: &[(Digest, u64)], remaining: Vec<Pin>, _alone: &Exclusive) -> Result<()> {
        if pins.is_empty() {
            self.remove_blobs(blobs)?;
            self.mend_index();
            return Ok(());
        }
        let _locks = self.lock_all_pins()?;
        self.unpin(pins)?;
        self.remove_blobs(blobs)?;
        match self.derive_index(remaining) {
            // The next change that there is room for derives it anew.
            Err(StoreError::NoSpace { .. } | StoreError::NoFiles { .. }) => Ok(()),
            done => done,
        }
    }

    fn remove_blobs(&self, blobs: &[(Digest, u64)]) -> Result<()> {
        for (digest, _) in blobs {
            disk::remove(&self.blob_path(digest))?;
        }
        if blobs.is_empty() { Ok(()) } else { self.settle() }
    }

    fn unpin(&self, pins: &[Pin]) -> Result<()> {
        let mut folders = HashSet::new();
        for pin in pins {
            let path = self.pin_path(pin);
            disk::remove(&path)?;
            folders.extend(path.parent().map(Path::to_owned));
        }
        // One that is not there went with the last pin in it, by another who removed these between the look and the lock.
        for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
            disk::sync_folder(&folder)?;
            // Up to the first that is not empty, as it is then said.
            let mut emptied = Some(folder.as_path());
            while let Some(folder) = emptied.filter(|f| *f != self.root().join("pins") && fs::remove_dir(f).is_ok()) {
                emptied = folder.parent();
            }
        }
        Ok(())
    }
}

/// How many of these pins have to go, from the first on, for the others to have no more bytes than this.
fn too_many(pins: &[Pin], keep: u64) -> usize {
    let mut users = users(pins.iter().flat_map(Pin::blobs));
    let sizes: HashMap<Digest, u64> = pins.iter().flat_map(Pin::blobs).map(|blob| (blob.digest, blob.size)).collect();
    let mut bytes: u64 = sizes.values().fold(0, |sum, size| sum.saturating_add(*size));
    let mut going = 0;
    for pin in pins {
        if bytes <= keep {
            break;
        }
        going += 1;
        for blob in pin.blobs() {
            let left = users.entry(&blob.digest).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                bytes = bytes.saturating_sub(sizes[&blob.digest]);
            }
        }
    }
    going
}

/// How many pins have each of these blobs, each pin naming it once.
fn users<'a>(blobs: impl Iterator<Item = &'a Descriptor>) -> HashMap<&'a Digest, usize> {
    let mut users = HashMap::new();
    for blob in blobs {
        *users.entry(&blob.digest).or_default() += 1;
    }
    users
}

fn needed(pins: &[Pin]) -> HashSet<Digest> {
    pins.iter().flat_map(Pin::blobs).map(|blob: &Descriptor| blob.digest).collect()
}

pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(reading("listing", folder))?;
    entries.map(|entry| Ok(entry.map_err(reading("listing", folder))?.path())).collect()
}
