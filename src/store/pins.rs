//! Pins on disk: the truth about names.
//!
//! Owns `pins/<registry>/<repository>/<tag>@<root>+<platform>.json`, one small file per name, root and platform. Always true: a
//! pin is written whole, after the blobs it counts on, by one process at a time, and reached the disk when [`Store::pin`] returns; it lies where its
//! content says and carries the digest of its own text, since what it counts on is kept because it says so; one that cannot be read is an error that
//! names its file. No part of a repository has an `@`, so that a file never takes a folder's name.
//!
//! After a crash there is the pin or there is not; `index.json` may lag behind until the next command that changes or looks after the store.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{Span, Timestamp};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::de;

use super::Store;
use super::disk;
use super::error::{Result, StoreError, reading};
use super::lock::{self, Hold};
use crate::digest::{Algorithm, Digest};
use crate::json;
use crate::oci::Platform;
use crate::pin::Pin;
use crate::reference::{Name, Reference, Repository};

/// The most bytes that a pin's file may have.
const LIMIT: u64 = 4 << 20;

/// From how many files or folders on they are read by several threads.
const MANY: usize = 64;

/// How a pin's file begins, before the digest of the pin's text; what stands between the two; and its end.
const FILE: [&str; 3] = ["{\"check\":\"", "\",\"pin\":", "}\n"];

/// A pin as it lies in the store.
pub(super) struct Kept {
    pub(super) path: PathBuf,
    /// When it was pinned or used last, where the system tells.
    pub(super) used: Option<Timestamp>,
    /// The pin, or why it cannot be read. In boxes, since there may be many to sort and both are large.
    pub(super) pin: std::result::Result<Box<Pin>, Box<StoreError>>,
}

impl Store {
    /// Writes a pin; when this returns, it is on the disk. The blobs that it counts on are there, and the caller holds a [`Shared`](super::Shared).
    ///
    /// The pin that was written last answers to the bare tag, whatever the clock says: one whose time is not after all
    /// others of its name is written with a time that is. What another pin of the same image keeps of what refers to it stays. Returns
    /// the pin as it was written.
    pub fn pin(&self, pin: &Pin) -> Result<Pin> {
        let written = self.write_pin(pin)?;
        self.catch_up()?;
        Ok(written)
    }

    fn write_pin(&self, pin: &Pin) -> Result<Pin> {
        let _one_at_a_time = self.lock_pins()?;
        let folder = self.pin_folder(pin.name.repository());
        let path = folder.join(file_name(pin));
        let (same, others): (Vec<Pin>, Vec<Pin>) = self.named(&pin.name)?.into_iter().partition(|other| file_name(other) == file_name(pin));
        let mut pin = after(pin.clone(), &others);
        same.iter().for_each(|earlier| pin.and_referrers_of(earlier));
        disk::make_folder(&folder)?;
        // A blob that another process just named may not have reached the disk under its name.
        self.settle()?;
        let text = written(&pin).map_err(|source| StoreError::Pin { path: path.clone(), source })?;
        // One pin that cannot be read stops much else, so it is read before it is written.
        self.parse_pin(&path, &text)?;
        self.note_change(&pin.name)?;
        disk::replace(&self.scratch(), &path, &text)?;
        disk::sync_folder(&folder)?;
        Ok(pin)
    }

    /// All pins, newest first. One that cannot be read is an error.
    pub fn pins(&self) -> Result<Vec<Pin>> {
        Ok(self.dated_pins()?.into_iter().map(|(pin, _)| *pin).collect())
    }

    /// All pins, newest first, and when each was pinned or used last, where the system tells. One that cannot be read is an error.
    pub fn dated_pins(&self) -> Result<Vec<(Box<Pin>, Option<Timestamp>)>> {
        let mut pins = self.each_pin()?.into_iter().map(|kept| Ok((kept.pin.map_err(|e| *e)?, kept.used))).collect::<Result<Vec<_>>>()?;
        pins.sort_by(|(a, _), (b, _)| newer(a, b));
        Ok(pins)
    }

    /// Every pin's file, and the pin or why it cannot be read; in no order.
    pub(super) fn each_pin(&self) -> Result<Vec<Kept>> {
        let (mut paths, mut folders) = (Vec::new(), vec![self.root().join("pins")]);
        while !folders.is_empty() {
            let listed = across_threads(&folders, |folder| list(folder));
            folders.clear();
            for (path, is_folder) in listed.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
                if is_folder {
                    folders.push(path);
                } else if path.extension() == Some(OsStr::new("json")) {
                    paths.push(path);
                }
            }
        }
        Ok(across_threads(&paths, |path| self.read_dated(path)).into_iter().flatten().collect())
    }

    /// The pins that answer to this reference, newest first.
    ///
    /// Without a digest: those of that name, the tag being `latest` if none is written. With a digest: those of that name
    /// whose root or manifest has it; if no tag is written, of any tag in that repository. Asked for a platform, those that run on
    /// it; of one root, what suits it best first.
    pub fn find(&self, reference: &Reference, platform: Option<&Platform>) -> Result<Vec<Pin>> {
        let mut pins = match (reference.tag(), reference.digest()) {
            (None, Some(_)) => self.pins_in(reference.repository(), "")?,
            _ => self.named(&reference.name())?,
        };
        if let Some(digest) = reference.digest() {
            // A digest is asked for that somebody can have from a registry.
            pins.retain(|pin| !pin.unproved && [pin.root.digest, pin.manifest.digest].contains(&digest));
        }
        if let Some(platform) = platform {
            pins.retain(|pin| platform.rank(&pin.platform).is_some());
        }
        newest_first(&mut pins);
        if let Some(platform) = platform {
            let roots: Vec<Digest> = pins.iter().map(|pin| pin.root.digest).collect();
            pins.sort_by_key(|pin| (roots.iter().position(|root| *root == pin.root.digest), platform.rank(&pin.platform)));
        }
        Ok(pins)
    }

    /// The image that the pin in this file is for, as far as its name tells, whatever is in it.
    pub fn meant_by(&self, file: &Path) -> Option<(Reference, Platform)> {
        let repository = file.strip_prefix(self.root().join("pins")).ok()?.parent()?.to_str()?;
        let (tag, rest) = file.file_name()?.to_str()?.strip_suffix(".json")?.split_once('@')?;
        let (root, platform) = rest.split_once('+')?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.digits() == root.len())?;
        let reference = format!("{repository}:{tag}@{algorithm}:{root}").parse().ok()?;
        Some((reference, platform.replace('_', "/").parse().ok()?))
    }

    /// Notes that an image was used just now, as well as the store lets it.
    pub fn used(&self, pin: &Pin) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: now };
        // A store that cannot be written does not know when it was read.
        let _ = rustix::fs::utimensat(CWD, self.pin_path(pin), &times, AtFlags::SYMLINK_NOFOLLOW);
    }

    /// When an image was pinned or used last; `None` if there is no such pin.
    pub fn last_used(&self, pin: &Pin) -> Option<Timestamp> {
        disk::written(&self.pin_path(pin))
    }

    pub(super) fn lock_pins(&self) -> Result<fs::File> {
        sabotaged!(NoPinLock => disk::open_or_make(&self.root().join("pins.lock")));
        lock::lock_path(&self.root().join("pins.lock"), Hold::Alone, &self.patience())
    }

    pub(super) fn pin_path(&self, pin: &Pin) -> PathBuf {
        self.pin_folder(pin.name.repository()).join(file_name(pin))
    }

    fn pin_folder(&self, repository: &Repository) -> PathBuf {
        [self.root(), "pins".as_ref(), repository.registry().as_ref(), repository.path().as_ref()].iter().collect()
    }

    fn named(&self, name: &Name) -> Result<Vec<Pin>> {
        self.pins_in(name.repository(), &format!("{}@", name.tag()))
    }

    /// The pins in this repository whose file name begins so. No other folder is read.
    fn pins_in(&self, repository: &Repository, start: &str) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        for (path, is_folder) in list(&self.pin_folder(repository))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !is_folder && name.starts_with(start) && name.ends_with(".json") {
                pins.extend(self.read_pin(&path)?);
            }
        }
        Ok(pins)
    }

    /// Reads a pin; `None` if it was removed meanwhile.
    fn read_pin(&self, path: &Path) -> Result<Option<Pin>> {
        disk::read(path, LIMIT)?.map(|bytes| self.parse_pin(path, &bytes)).transpose()
    }

    /// Reads a pin and when it was used; `None` if it was removed meanwhile.
    fn read_dated(&self, path: &Path) -> Option<Kept> {
        let (used, pin) = match disk::read_dated(path, LIMIT) {
            Ok(None) => return None,
            Ok(Some((bytes, used))) => (used, self.parse_pin(path, &bytes)),
            Err(error) => (None, Err(error)),
        };
        Some(Kept { path: path.to_owned(), used, pin: pin.map(Box::new).map_err(Box::new) })
    }

    fn parse_pin(&self, path: &Path, bytes: &[u8]) -> Result<Pin> {
        if bytes.len() as u64 > LIMIT {
            return Err(StoreError::PinTooLarge { path: path.to_owned(), limit: LIMIT });
        }
        let unreadable = |source| StoreError::Pin { path: path.to_owned(), source };
        let (check, pin) = parts(bytes).map_err(unreadable)?;
        let found = Digest::of(pin);
        if found != check {
            return Err(StoreError::PinDamaged { path: path.to_owned(), expected: check, found });
        }
        let mut pin: Pin = json::read(pin).map_err(unreadable)?;
        // There may be many pins, and lists grow by more than they need.
        pin.layers.shrink_to_fit();
        pin.diff_ids.shrink_to_fit();
        if self.pin_path(&pin) != path {
            return Err(StoreError::PinMisplaced { path: path.to_owned(), name: pin.name });
        }
        Ok(pin)
    }
}

fn written(pin: &Pin) -> serde_json::Result<Vec<u8>> {
    let [start, middle, end] = FILE;
    let pin = serde_json::to_string(pin)?;
    Ok([start, &Digest::of(pin.as_bytes()).to_string(), middle, &pin, end].concat().into_bytes())
}

/// The digest in a pin's file, and the pin's text, which is to have it.
fn parts(file: &[u8]) -> serde_json::Result<(Digest, &[u8])> {
    let [start, middle, end] = FILE.map(str::as_bytes);
    let split = || {
        let rest = file.strip_prefix(start)?.strip_suffix(end)?;
        let (check, rest) = rest.split_at(rest.iter().position(|byte| *byte == b'"')?);
        Some((str::from_utf8(check).ok()?, rest.strip_prefix(middle)?))
    };
    let (check, pin) = split().ok_or_else(|| de::Error::custom("it is not as larder writes it"))?;
    Ok((check.parse().map_err(de::Error::custom)?, pin))
}

/// Does the same with each, in several threads where there are many; the results in the order of the items.
fn across_threads<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < MANY {
        return items.iter().map(each).collect();
    }
    let share = items.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from));
    let (own, others) = items.split_at(share);
    let of_share = |items: &[T]| items.iter().map(&each).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let others: Vec<_> = others.chunks(share).map(|items| scope.spawn(|| of_share(items))).collect();
        let mut results = of_share(own);
        results.extend(others.into_iter().flat_map(|other| other.join().expect("reading does not panic")));
        results
    })
}

/// What is in a folder of pins, and whether it is a folder; nothing if there is no such folder.
fn list(folder: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(reading("listing", folder)(e)),
    };
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.map_err(reading("listing", folder))?;
        let kind = entry.file_type().map_err(reading("looking at", folder))?;
        match kind.is_dir() || kind.is_file() {
            true => Ok((entry.path(), kind.is_dir())),
            false => Err(StoreError::Foreign { path: entry.path(), expected: "file or folder" }),
        }
    };
    entries.map(entry).collect()
}

/// The file that this pin lies in: another one for another tag, root or platform.
fn file_name(pin: &Pin) -> String {
    let mut platform = pin.platform.to_string().replace('/', "_");
    // A file name has at most 255 bytes, of which the tag may take 128 and the root's digest as many.
    if platform.len() > 50 {
        platform = Digest::of(platform.as_bytes()).hex()[..32].to_owned();
    }
    let (tag, mut root) = (pin.name.tag(), pin.root.digest.hex());
    if tag.len() + root.len() + platform.len() + "@+.json".len() > 255 {
        // Nobody takes this for a digest.
        root = format!("{}~", &root[..63]);
    }
    format!("{tag}@{root}+{platform}.json")
}

fn after(mut pin: Pin, others: &[Pin]) -> Pin {
    let latest = others.iter().map(|other| other.pinned_at).max();
    if let Some(latest) = latest
        && latest >= pin.pinned_at
    {
        pin.pinned_at = latest.checked_add(Span::new().nanoseconds(1)).unwrap_or(latest);
    }
    pin
}

pub(super) fn newest_first(pins: &mut [Pin]) {
    pins.sort_by(newer);
}

/// Those of the same moment, which no store writes for one name, come in an order that is always the same.
fn newer(a: &Pin, b: &Pin) -> Ordering {
    let when = b.pinned_at.cmp(&a.pinned_at);
    when.then_with(|| (&a.name, a.root.digest, &a.platform).cmp(&(&b.name, b.root.digest, &b.platform)))
}
