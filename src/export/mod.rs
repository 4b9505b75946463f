//! Images out of the store, into files that other tools read.
//!
//! Owns what a reference means when it is exported, and the files that are written. Always true: no registry is asked; a file has its name
//! only when all of it is on the disk, and a layout its index; nothing in the store is linked to, so that nobody can change it through
//! what was exported. What an archive looks like is the affair of [`archive`](crate::archive).
//!
//! Blocking. After a crash there is the old file or the new one, and perhaps one beside it with `.part` at its end, which the next export to that
//! name replaces; a layout may have blobs that its index does not name.

mod choose;
mod compress;
mod error;
mod file;
mod layout;
mod pour;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use choose::{Chosen, Scope, Wish, choose};
pub use error::ExportError;

use crate::archive::Archive;
use crate::digest::Digest;
use crate::event::Tell;
use crate::oci::Platform;
use crate::reference::Name;
use crate::store::Store;
use error::{Result, at};

/// How the whole of an archive is compressed. What is compressed in it already is passed on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrap {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// How many bytes.
    pub bytes: u64,
    /// The digest of the file; a folder has none.
    pub digest: Option<Digest>,
}

/// Writes an archive to a file, which has its name only when it is whole. What is no plain file, such as a pipe, is written as it stands.
pub fn to_file(archive: &Archive, wrap: Wrap, path: &Path, tell: &Tell<'_>) -> Result<Written> {
    let path = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(ExportError::IsAFolder { path: path.to_owned() }),
        Ok(found) if !found.is_file() => {
            let mut pipe = fs::OpenOptions::new().write(true).open(path).map_err(at("opening", path))?;
            return pour::pour(archive, wrap, &mut pipe, tell)?.map_err(at("writing", path));
        }
        // What a link leads to is replaced, not the link.
        Ok(_) => path.canonicalize().map_err(at("looking at", path))?,
        Err(_) => path.to_owned(),
    };
    let mut fresh = file::Fresh::beside(&path)?;
    if wrap == Wrap::Plain {
        fresh.room_for(archive.size())?;
    }
    let written = pour::pour(archive, wrap, fresh.file(), tell)?.map_err(|source| fresh.failed(source))?;
    fresh.commit()?;
    Ok(written)
}

/// Writes an archive into minikube's cache; `path` is where [`minikube_path`] says, and its folders are made.
pub fn to_minikube(archive: &Archive, path: &Path, tell: &Tell<'_>) -> Result<Written> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(at("making", folder))?;
    to_file(archive, Wrap::Plain, path, tell)
}

/// Writes an archive to whoever takes it. One that ends before its time has no end, and names nothing.
pub fn to_stream(archive: &Archive, wrap: Wrap, out: &mut (dyn Write + Send), tell: &Tell<'_>) -> Result<Written> {
    pour::pour(archive, wrap, out, tell)?.map_err(|source| ExportError::Stream { source })
}

/// Writes the files of an OCI layout into a folder, which is made if it is not there. Into one that is a layout already they are added.
pub fn to_layout(store: &Store, archive: &Archive, folder: &Path, tell: &Tell<'_>) -> Result<Written> {
    layout::write(store, archive, folder, tell)
}

/// Where minikube's own cache, under its home folder, has the base image with this name and pinned digest.
///
/// minikube takes `<base>:<tag>@sha256:<hex>` of the reference and writes `_` for every colon
/// ([download/image.go](https://github.com/kubernetes/minikube/blob/v1.36.0/pkg/minikube/download/image.go)).
pub fn minikube_path(home: &Path, name: &Name, root: &Digest, platform: &Platform) -> PathBuf {
    let base = name.repository().path().rsplit('/').next().unwrap_or_default();
    home.join("cache/kic").join(platform.architecture()).join(format!("{base}_{}@{}_{}.tar", name.tag(), root.algorithm(), root.hex()))
}
