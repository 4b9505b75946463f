//! The cache that minikube keeps of its base image: `cache/kic/<architecture>/<name>_<tag>@sha256_<hex>.tar`.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ImportError;
use crate::digest::Digest;

/// How many folders deep a cache is looked through: `cache/kic/amd64`.
const DEPTH: usize = 4;

/// The pin that a file of minikube's cache is named after.
pub fn told_by(file: &Path) -> Option<Digest> {
    let (_, hex) = file.file_name()?.to_str()?.strip_suffix(".tar")?.rsplit_once("@sha256_")?;
    Digest::from_hex(hex).ok()
}

/// The files of minikube's cache in this folder and those below it, in order.
pub fn cached_in(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let mut files = Vec::new();
    look(folder, DEPTH, &mut files)?;
    match files.is_empty() {
        true => Err(ImportError::NotALayout { path: folder.to_owned() }),
        false => {
            files.sort();
            Ok(files)
        }
    }
}

fn look(folder: &Path, deep: usize, files: &mut Vec<PathBuf>) -> Result<(), ImportError> {
    let failed = |source| ImportError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Of the entry itself: no link is followed.
        let kind = entry.file_type().map_err(failed)?;
        match entry.path() {
            path if kind.is_dir() && deep > 1 => look(&path, deep - 1, files)?,
            path if kind.is_file() && told_by(&path).is_some() => files.push(path),
            _ => {}
        }
    }
    Ok(())
}
