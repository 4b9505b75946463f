//! A file or folder read into blobs and images: one pass, whatever the size.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::blobs::{Blobs, Limits, TEXTS};
use super::error::ImportError;
use super::found::{self, Found};
use super::intake::{self, Intake};
use super::path::Names;
use super::tar::{Kind, Tar, TarError};
use super::{docker, layout, wrap};
use crate::digest::Digest;
use crate::oci::{Document, Layout};
use crate::store::{Shared, Store};

/// Where images are to be read from.
pub enum Source {
    /// A file: a tar archive, plain or compressed as a whole.
    Stream(Box<dyn Read + Send>),
    /// An OCI layout in a folder.
    Folder(PathBuf),
}

/// What was read: the images, and the blobs that wait for their names.
pub(super) struct Contents {
    pub(super) found: Vec<Found>,
    pub(super) blobs: Blobs,
}

/// Reads all of a source. Nothing has a name in the store by then.
pub(super) fn read(store: &Store, counted_on: Shared, source: Source, limits: Limits) -> Result<Contents, ImportError> {
    let (names, blobs) = intake::taking_in(store, counted_on, limits, |intake| match source {
        Source::Stream(file) => archive(file, intake),
        Source::Folder(folder) => walk(&folder, intake),
    })?;
    names.settle()?;
    let text = |name: &str| Ok::<_, ImportError>(names.find(name)?.and_then(|digest| blobs.text_of(digest)));
    let whole = match text(layout::LIST)? {
        Some(list) if text("oci-layout")?.is_some_and(|mark| Layout::is_known_version(mark.bytes())) => {
            Some(layout::images(&list, &blobs, store)?)
        }
        Some(_) => return Err(ImportError::NoLayoutMark),
        None => None,
    };
    let bare = text(docker::LIST)?.map(|list| docker::images(&list, &names, &blobs)).transpose()?;
    Ok(Contents { found: found::together(bare, whole)?, blobs })
}

fn archive(file: Box<dyn Read + Send>, intake: &mut Intake<'_>) -> Result<Names<Digest>, ImportError> {
    let unreadable = |source| ImportError::Tar(TarError::Read { source });
    let file = wrap::unwrapped(file).map_err(unreadable)?.ok_or(ImportError::Bzip2)?;
    let mut names = Names::new();
    let mut tar = Tar::new(file);
    while let Some(member) = tar.next()? {
        match member.kind {
            Kind::File => {
                let path = names.admit(&member.path)?;
                let digest = intake.take(&path, member.size, tar.content())?;
                names.add(path, digest);
            }
            Kind::Folder => names.add_folder(&member.path)?,
            Kind::Symlink(target) => names.add_symlink(&member.path, &target)?,
            Kind::Hardlink(target) => names.add_hardlink(&member.path, &target)?,
        }
    }
    Ok(names)
}

/// Reads from a layout what its index names, and nothing else that may lie there.
fn walk(folder: &Path, intake: &mut Intake<'_>) -> Result<Names<Digest>, ImportError> {
    let mut names = Names::new();
    let mut ahead: Vec<String> = TEXTS.map(str::to_owned).into();
    let mut seen: HashSet<String> = ahead.iter().cloned().collect();
    while let Some(name) = ahead.pop() {
        let path = folder.join(&name);
        let failed = |source| ImportError::Read { path: path.clone(), source };
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {
                let digest = intake.take(&name, found.len(), fs::File::open(&path).map_err(failed)?)?;
                let named = intake.text_of(&digest).map(|text| named_in(&name, text)).unwrap_or_default();
                ahead.extend(named.into_iter().filter(|name| seen.insert(name.clone())));
                let name = names.admit(&name)?;
                names.add(name, digest);
            }
            Ok(_) => return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
    }
    match names.find("oci-layout")? {
        Some(_) => Ok(names),
        None => Err(ImportError::NotALayout { path: folder.to_owned() }),
    }
}

/// The blobs that a document names. One that cannot be read names none, and is refused where it is used.
fn named_in(name: &str, text: &crate::digest::Verified) -> Vec<String> {
    let digests: Vec<Digest> = match name {
        layout::LIST => Layout::parse(text).map(|layout| layout.images.iter().map(|image| image.root.digest).collect()).unwrap_or_default(),
        _ => match Document::parse(text, None) {
            Ok((Document::Index(index), _)) => index.manifests.iter().map(|(_, manifest)| manifest.digest).collect(),
            Ok((Document::Manifest(parts), _)) => std::iter::once(&parts.config).chain(&parts.layers).map(|blob| blob.digest).collect(),
            Err(_) => Vec::new(),
        },
    };
    digests.iter().map(Digest::path).collect()
}
