//! Opening a store, and making one.
//!
//! Owns `oci-layout` and `larder.json`. Always true: `larder.json` is written last, so where it is, all of the store is; a folder
//! with other things in it never becomes a store; one that everybody can write is refused, since whoever changes a pin changes what a name
//! means (blobs are hashed on use anyway). Another owner, or a group that may write, is somebody's choice and is accepted.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use serde::{Deserialize, Serialize};

use super::error::{Result, StoreError, reading, writing};
use super::{Place, Store, disk};
use crate::json;

/// The format that this code reads and writes.
const FORMAT: u64 = 1;

/// How long a lock is waited for if nothing else is said.
const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// What may lie in a folder where the making of a store was cut short; `lost+found` is at the top of a file system.
const BEGUN: [&str; 9] = ["oci-layout", "blobs", "ingest", "pins", "lock", "lock.turn", "index.lock", "pins.lock", "lost+found"];

/// What `larder.json` says. Fields that a later version adds without raising the format are passed over.
#[derive(Serialize, Deserialize)]
struct Format {
    format: u64,
}

impl Store {
    /// Opens the store in this folder, and makes one if there is none.
    ///
    /// A store that cannot be written is opened all the same; adding to it fails then.
    pub fn open(root: impl Into<PathBuf>) -> Result<Store> {
        let root = absolute(root.into())?;
        match Store::at(&root)? {
            Some(store) => Ok(store),
            None => {
                make(&root)?;
                Ok(Store::in_folder(root))
            }
        }
    }

    /// Opens the store in this folder; `None`, and nothing is made, if there is none.
    pub fn open_existing(root: impl Into<PathBuf>) -> Result<Option<Store>> {
        Store::at(&absolute(root.into())?)
    }

    fn at(root: &Path) -> Result<Option<Store>> {
        let path = root.join("larder.json");
        let Some(bytes) = disk::read(&path, 64 << 10)? else { return Ok(None) };
        let format: Format = json::parse(&bytes, &["format"]).map_err(|source| StoreError::Format { path, source })?;
        if format.format > FORMAT {
            return Err(StoreError::NewerFormat { path: root.to_owned(), found: format.format, known: FORMAT });
        }
        for folder in [root.to_owned(), root.join("pins")] {
            refuse_if_everybody_writes(&folder)?;
        }
        Ok(Some(Store::in_folder(root.to_owned())))
    }

    fn in_folder(root: PathBuf) -> Store {
        Store { place: Arc::new(Place { root, lock_timeout: LOCK_TIMEOUT, waiting: None }) }
    }
}

fn absolute(root: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&root).map_err(reading("finding", &root))
}

fn refuse_if_everybody_writes(folder: &Path) -> Result<()> {
    let mode = match fs::metadata(folder) {
        Ok(found) => found.mode() & 0o7777,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(reading("looking at", folder)(e)),
    };
    // Some file systems show every folder so; one that is mounted read-only cannot be written by anybody.
    let read_only = || rustix::fs::statvfs(folder).is_ok_and(|s| s.f_flag.contains(StatVfsMountFlags::RDONLY));
    if mode & 0o002 != 0 && !read_only() {
        return Err(StoreError::Unsafe { path: folder.to_owned(), mode });
    }
    Ok(())
}

fn make(root: &Path) -> Result<()> {
    if let Some(found) = foreign(root)? {
        // Another process may have made the store, and more in it, since it was looked for.
        return match Store::at(root)? {
            Some(_) => Ok(()),
            None => Err(StoreError::NotAStore { path: root.to_owned(), found }),
        };
    }
    for folder in ["blobs/sha256", "ingest", "pins"] {
        disk::make_folder(&root.join(folder))?;
    }
    refuse_if_everybody_writes(root)?;
    for lock in ["lock", "lock.turn", "index.lock", "pins.lock"] {
        disk::open_or_make(&root.join(lock))?;
    }
    let scratch = root.join("ingest");
    disk::replace(&scratch, &root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    disk::sync_folder(root)?;
    let format = serde_json::to_vec(&Format { format: FORMAT }).map_err(|e| writing("writing", root)(e.into()))?;
    disk::replace(&scratch, &root.join("larder.json"), &format)?;
    disk::sync_folder(root)
}

/// The name of something in the folder that no store begins with.
fn foreign(root: &Path) -> Result<Option<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(reading("listing", root)(e)),
    };
    for entry in entries {
        let name = entry.map_err(reading("listing", root))?.file_name();
        if !BEGUN.iter().any(|known| name == *known) {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}
