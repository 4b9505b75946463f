//! A file that is there whole or not at all.
//!
//! Owns the name that it has on its way, `.part` behind its own, and the rename at the end. Always true: one process writes it, which holds a lock; what
//! an earlier one left there is thrown away and never written on; it has its own name only after it reached the disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::error::{ExportError, Result, at};

/// A file on its way. Dropped, it is gone.
pub(super) struct Fresh {
    file: File,
    part: PathBuf,
    path: PathBuf,
    named: bool,
}

impl Fresh {
    /// Begins a file that will have this name, in the same folder.
    pub(super) fn beside(path: &Path) -> Result<Fresh> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        loop {
            let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(&part);
            let file = match created {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    remove_left_over(&part)?;
                    continue;
                }
                Err(e) => return Err(failed(&part, path, e)),
            };
            if file.try_lock().is_err() {
                return Err(ExportError::Busy { path: part });
            }
            // Between the two calls another process may have taken it for left over.
            if is_at(&file, &part)? {
                return Ok(Fresh { file, part, path: path.to_owned(), named: false });
            }
        }
    }

    /// What is written to.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Refuses if so many bytes cannot be written.
    pub(super) fn room_for(&self, bytes: u64) -> Result<()> {
        let free = free(&self.part)?;
        if free < bytes {
            return Err(ExportError::NoSpace { path: self.path.clone(), needed: Some(bytes), free });
        }
        Ok(())
    }

    /// What a failed write means.
    pub(super) fn failed(&self, source: io::Error) -> ExportError {
        failed(&self.part, &self.path, source)
    }

    /// Brings it to the disk and gives it its name, in place of what has that now.
    #[expect(clippy::disallowed_methods, reason = "what is exported lies outside the store, and was synced just before")]
    pub(super) fn commit(mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| self.failed(e))?;
        fs::rename(&self.part, &self.path).map_err(at("naming", &self.path))?;
        self.named = true;
        sync_folder(folder_of(&self.path))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.named {
            // What failed is reported; the next export to this name removes it too.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Removes what a process left that is not there any more.
fn remove_left_over(part: &Path) -> Result<()> {
    // Neither a link is followed nor a pipe waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match OpenOptions::new().read(true).write(true).custom_flags(flags).open(part) {
        Ok(file) if file.try_lock().is_err() => Err(ExportError::Busy { path: part.to_owned() }),
        Ok(file) if !is_at(&file, part)? => Ok(()),
        Ok(_) => fs::remove_file(part).map_err(at("removing", part)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(at("opening", part)(e)),
    }
}

/// Whether the open file is the one that has this name.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().map_err(at("looking at", path))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at("looking at", path)(e)),
    }
}

fn failed(part: &Path, path: &Path, source: io::Error) -> ExportError {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return ExportError::NoSpace { path: path.to_owned(), needed: None, free: free(part).unwrap_or(0) };
    }
    at("writing", part)(source)
}

fn free(part: &Path) -> Result<u64> {
    let folder = folder_of(part);
    let found = rustix::fs::statvfs(folder).map_err(|e| at("asking for the free space of", folder)(e.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Brings the names in a folder to the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems have no such thing as syncing a folder, and say so by this.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        done => done.map_err(at("syncing", folder)),
    }
}
