//! An OCI layout in a folder.
//!
//! Owns the folder's blobs and index. Always true: a blob has its name only when it was hashed and is on the disk; the index comes last and is
//! replaced whole, with all that it listed before but for the names that are exported; one process writes a layout at a time.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Written;
use super::error::{ExportError, Result, at};
use super::file::Fresh;
use crate::archive::{Archive, ArchiveError, Part, unreadable};
use crate::digest::{Algorithm, VerifyReader};
use crate::event::{Event, Tell};
use crate::oci::Descriptor;
use crate::store::Store;

/// How many bytes are copied at once.
const STEP: usize = 256 << 10;
/// What a layout may hold before its index is there: what an export that was killed left.
const OWN: [&str; 4] = ["oci-layout", "blobs", "index.json", "index.json.part"];

pub(super) fn write(store: &Store, archive: &Archive, folder: &Path, tell: &Tell<'_>) -> Result<Written> {
    let blobs = archive.parts().filter_map(|(_, part)| if let Part::Blob(blob) = part { Some(blob.digest.algorithm()) } else { None });
    prepare(folder, &blobs.collect())?;
    let bytes = archive.parts().map(|(_, part)| size(part)).fold(0, u64::saturating_add);
    tell(Event::ExportStarted { bytes });
    // Its lock is the layout's.
    let mut index = Fresh::beside(&folder.join("index.json"))?;
    for (path, part) in archive.parts() {
        let path = folder.join(path);
        match part {
            Part::Blob(blob) => keep(store, blob, &path)?,
            Part::Text(text) if path.ends_with("index.json") => {
                let merged = merged(&path, text)?;
                index.file().write_all(&merged).map_err(|e| index.failed(e))?;
            }
            Part::Text(text) => {
                let mut fresh = Fresh::beside(&path)?;
                fresh.file().write_all(text).map_err(|e| fresh.failed(e))?;
                fresh.commit()?;
            }
        }
        tell(Event::ExportProgress { bytes: size(part) });
    }
    index.commit()?;
    tell(Event::ExportFinished);
    Ok(Written { bytes, digest: None })
}

fn size(part: Part<'_>) -> u64 {
    match part {
        Part::Text(text) => text.len() as u64,
        Part::Blob(blob) => blob.size,
    }
}

/// Makes the folder, or sees that it is one to write into.
fn prepare(folder: &Path, algorithms: &BTreeSet<Algorithm>) -> Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if folder.join("larder.json").exists() {
                return Err(ExportError::IsAStore { path: folder.to_owned() });
            }
            let names = fs::read_dir(folder).map_err(at("listing", folder))?;
            let names: Vec<_> =
                names.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<_>>().map_err(at("listing", folder))?;
            let is_layout = names.iter().any(|name| name == "oci-layout");
            if let Some(other) = names.iter().find(|name| !is_layout && !OWN.iter().any(|own| name == own)) {
                return Err(ExportError::NotALayout { path: folder.to_owned(), found: other.to_string_lossy().into_owned() });
            }
        }
        Err(e) => return Err(at("making", folder)(e)),
    }
    for algorithm in algorithms {
        let blobs = folder.join("blobs").join(algorithm.name());
        fs::create_dir_all(&blobs).map_err(at("making", &blobs))?;
    }
    Ok(())
}

/// Copies a blob, unless it is there and right.
fn keep(store: &Store, blob: &Descriptor, path: &Path) -> Result<()> {
    if fs::File::open(path).is_ok_and(|there| hashed(&mut VerifyReader::new(there, blob.digest, blob.size)).is_ok()) {
        return Ok(());
    }
    let mut fresh = Fresh::beside(path)?;
    let mut stored = store.blob(blob).map_err(ArchiveError::from)?;
    // A file system that can shares the bytes until one of the two changes; what is hashed is the copy.
    let copied = match rustix::fs::ioctl_ficlone(&*fresh.file(), stored.inner()) {
        Ok(()) => fresh.file().rewind().and_then(|()| hashed(&mut VerifyReader::new(&*fresh.file(), blob.digest, blob.size))),
        Err(_) => return copied(store, blob, &mut stored, fresh),
    };
    copied.map_err(|source| unreadable(store, blob, source))?;
    fresh.commit()
}

fn copied(store: &Store, blob: &Descriptor, stored: &mut impl Read, mut fresh: Fresh) -> Result<()> {
    let mut buffer = vec![0; STEP];
    loop {
        match stored.read(&mut buffer) {
            Ok(0) => return fresh.commit(),
            Ok(n) => fresh.file().write_all(&buffer[..n]).map_err(|e| fresh.failed(e))?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(unreadable(store, blob, source).into()),
        }
    }
}

fn hashed(content: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    while content.read(&mut buffer)? > 0 {}
    Ok(())
}

/// The index that is there with our entries in it, each in place of one with the same name.
fn merged(path: &Path, ours: &[u8]) -> Result<Vec<u8>> {
    let wrong = |source| ExportError::Index { path: path.to_owned(), source };
    let there = match fs::read(path) {
        Ok(there) => there,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ours.to_owned()),
        Err(e) => return Err(at("reading", path)(e)),
    };
    let mut index: Map<String, Value> = serde_json::from_slice(&there).map_err(wrong)?;
    let ours: Value = serde_json::from_slice(ours).map_err(wrong)?;
    let ours = ours["manifests"].as_array().cloned().unwrap_or_default();
    let others = match index.get("manifests") {
        None => Vec::new(),
        Some(listed) => serde_json::from_value::<Vec<Value>>(listed.clone()).map_err(wrong)?,
    };
    let taken = |entry: &Value| ours.iter().any(|own| same_name(own, entry));
    let mut manifests: Vec<Value> = others.into_iter().filter(|entry| !taken(entry)).collect();
    manifests.extend(ours.iter().cloned());
    index.insert("manifests".to_owned(), Value::Array(manifests));
    index.entry("schemaVersion").or_insert(json!(2));
    serde_json::to_vec(&index).map_err(wrong)
}

/// Whether two entries of an index claim one name.
fn same_name(one: &Value, other: &Value) -> bool {
    const NAME: &str = "org.opencontainers.image.ref.name";
    let name = |entry: &Value| entry["annotations"][NAME].as_str().map(str::to_owned);
    name(one).is_some_and(|own| name(other) == Some(own))
}
