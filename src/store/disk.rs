//! Files as the store needs them: written whole or not at all, on the disk before they have a name.
//!
//! Owns every rename and sync. Always true: what is named by [`replace`] was synced before, [`replace_derived`] is for what nobody believes; no link is followed
//! in the last part of a path, and nothing but a plain file is opened. What the files mean is for the others.
//!
//! After a crash there may be a file `ingest/*.tmp` that nobody has locked; `prune` removes it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustix::fs::{Advice, OFlags, StatVfs, StatVfsMountFlags};

use super::error::{Result, StoreError, reading, writing};

/// After how many bytes the kernel is told to start writing, so that the sync at the end is short.
pub(super) const FLUSH_EVERY: u64 = 8 << 20;

/// How many bytes of two files are compared at once.
const COMPARED: usize = 128 << 10;

/// Opens a plain file for reading and tells its size; `None` if nothing is there.
pub(super) fn open(path: &Path) -> Result<Option<(File, u64)>> {
    Ok(open_known(path)?.map(|(file, known)| (file, known.len())))
}

/// The same, with all that the system knows of it.
fn open_known(path: &Path) -> Result<Option<(File, Metadata)>> {
    plain(path, OpenOptions::new().read(true), reading("opening", path))
}

/// Opens a plain file for reading and writing, and makes it if nothing is there.
pub(super) fn open_or_make(path: &Path) -> Result<File> {
    let file = plain(path, OpenOptions::new().read(true).write(true).create(true).mode(0o644), writing("opening", path))?;
    // With `create` set, "nothing there" can only be the folder.
    file.map(|(file, _)| file).ok_or_else(|| writing("creating", path)(io::ErrorKind::NotFound.into()))
}

fn plain(path: &Path, options: &OpenOptions, failed: impl FnOnce(io::Error) -> StoreError) -> Result<Option<(File, Metadata)>> {
    // Without NONBLOCK, opening a FIFO would wait for its other end.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let foreign = || StoreError::Foreign { path: path.to_owned(), expected: "file" };
    let file = match options.clone().custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if rustix::io::Errno::from_io_error(&e) == Some(rustix::io::Errno::LOOP) => return Err(foreign()),
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => return Err(foreign()),
        Err(e) => return Err(failed(e)),
    };
    let found = file.metadata().map_err(reading("looking at", path))?;
    if found.is_file() { Ok(Some((file, found))) } else { Err(foreign()) }
}

/// Reads a file of at most `limit` bytes; a longer one comes out one byte longer than that.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    Ok(read_dated(path, limit)?.map(|(bytes, _)| bytes))
}

/// The same, and when it was last written or had its time set, where the system tells.
pub(super) fn read_dated(path: &Path, limit: u64) -> Result<Option<(Vec<u8>, Option<Timestamp>)>> {
    let Some((file, known)) = open_known(path)? else { return Ok(None) };
    let written = known.modified().ok().and_then(|time| time.try_into().ok());
    // What it had when it was opened is read, and not once more to see that this is its end: one call for a small file.
    let length = known.len().min(limit.saturating_add(1));
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes).map_err(reading("reading", path))?;
    Ok(Some((bytes, written)))
}

/// The size of the plain file there; `None` if nothing is there.
pub(super) fn size(path: &Path) -> Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found.len())),
        Ok(_) => Err(StoreError::Foreign { path: path.to_owned(), expected: "file" }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(reading("looking at", path)(e)),
    }
}

/// Whether two files have the same bytes. Where one of them is missing they have not.
pub(super) fn are_the_same(one: &Path, other: &Path) -> Result<bool> {
    let (Some((mut first, size)), Some((mut second, other_size))) = (open(one)?, open(other)?) else { return Ok(false) };
    let [mut left, mut right] = [vec![0; COMPARED], vec![0; COMPARED]];
    let mut rest = size;
    while rest > 0 {
        let length = usize::try_from(rest).unwrap_or(COMPARED).min(COMPARED);
        first.read_exact(&mut left[..length]).map_err(reading("reading", one))?;
        // One that cannot be read is not what it should be, whatever it has.
        if second.read_exact(&mut right[..length]).is_err() || left[..length] != right[..length] {
            return Ok(false);
        }
        rest -= length as u64;
    }
    Ok(size == other_size)
}

/// When what is there was last written, or had its time set.
pub(super) fn written(path: &Path) -> Option<Timestamp> {
    fs::symlink_metadata(path).ok()?.modified().ok()?.try_into().ok()
}

/// When what is there was last written, named or otherwise changed.
pub(super) fn changed(path: &Path) -> Option<SystemTime> {
    let found = fs::symlink_metadata(path).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(found.ctime()).ok()?))
}

/// Makes a folder and those above it, each on the disk when this returns.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match path.is_dir() {
            true => Ok(()),
            false => Err(StoreError::Foreign { path: path.to_owned(), expected: "folder" }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let Some(parent) = parent else { return Err(writing("creating", path)(e)) };
            make_folder(parent)?;
            make_folder(path)
        }
        Err(e) => Err(writing("creating", path)(e)),
    }
}

/// Brings a file's bytes to the disk.
pub(super) fn sync(file: &File) -> io::Result<()> {
    sabotaged!(NoFileSync => Ok(()));
    file.sync_all()
}

/// Brings the names in a folder to the disk.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    sabotaged!(NoFolderSync => Ok(()));
    match File::open(path).and_then(|folder| folder.sync_all()) {
        // Some file systems have no such thing as syncing a folder, and say so by this.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        done => done.map_err(writing("syncing", path)),
    }
}

/// Writes a file whole under another name in `scratch`, and then gives it its own. The name is on the disk once its folder is synced.
pub(super) fn replace(scratch: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    put_in_place(scratch, path, bytes, sync)
}

/// The same for what can be derived anew at any time: others never see half of it, but after a crash it may be empty or an earlier one.
pub(super) fn replace_derived(scratch: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    put_in_place(scratch, path, bytes, |_| Ok(()))
}

fn put_in_place(scratch: &Path, path: &Path, bytes: &[u8], settle: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
    let (temporary, mut file) = scratch_file(scratch)?;
    let written = file.write_all(bytes).and_then(|()| settle(&file)).map_err(writing("writing", &temporary));
    let written = written.map_err(|e| e.needing(bytes.len() as u64));
    let named = written.and_then(|()| rename(&temporary, path));
    if named.is_err() {
        // What failed is reported; the file is nobody's and `prune` would find it too.
        let _ = fs::remove_file(&temporary);
    }
    named
}

/// Writes a file that may be lost or half after a crash, and says nothing then that would be believed.
pub(super) fn note(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = open_or_make(path)?;
    file.set_len(0).and_then(|()| file.write_all(bytes)).map_err(writing("writing", path))
}

/// Adds to the end of a file, which is made if nothing is there. After a crash that may be lost, or half there.
pub(super) fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = open_or_make(path)?;
    file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(bytes)).map_err(writing("writing", path))
}

/// What tells one run of the system from the next, as Linux names it; what was written in this one and not removed has its content in memory
/// at least. Nothing where the system does not tell.
pub(super) fn run_of_the_system() -> Option<Vec<u8>> {
    fs::read("/proc/sys/kernel/random/boot_id").ok()
}

/// Makes a new file under a name that nobody knows, locked for as long as it is open.
pub(super) fn scratch_file(folder: &Path) -> Result<(std::path::PathBuf, File)> {
    loop {
        let path = folder.join(format!("{:016x}.tmp", RandomState::new().build_hasher().finish()));
        match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
            Ok(file) => {
                // Held until the file is dropped, so that `prune` leaves it alone.
                file.lock().map_err(reading("locking", &path))?;
                return Ok((path, file));
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(writing("creating", &path)(e)),
        }
    }
}

/// Makes a new file without a name, which is gone when it is closed. Not every file system has such files.
pub(super) fn unnamed_file(folder: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o600).open(folder).map_err(writing("making a file in", folder))
}

/// Gives a file another name. The only rename in the store: whoever names content so has synced it before.
#[expect(clippy::disallowed_methods, reason = "this is its one home")]
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(writing("naming", to))
}

/// Removes a file; that there is none is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(writing("removing", path)),
    }
}

/// Tells the kernel to start writing these bytes out, and goes on.
///
/// Linux starts the write when it is told that the bytes are not needed; what is not yet written stays in memory.
pub(super) fn flush_ahead(file: &File, from: u64, length: u64) {
    if let Some(length) = std::num::NonZeroU64::new(length) {
        let _ = rustix::fs::fadvise(file, from, Some(length), Advice::DontNeed);
    }
}

/// What a file system still has room for.
pub(super) struct Free {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// What can still be written there. A file system that does not count its files has room for any number; one that is mounted read-only is an
/// error, since some of those count no free space.
pub(super) fn room(path: &Path) -> Result<Free> {
    let found = rustix::fs::statvfs(path).map_err(|e| reading("asking for the free space of", path)(e.into()))?;
    match found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        true => Err(writing("writing to", path)(io::ErrorKind::ReadOnlyFilesystem.into())),
        false => Ok(counted(&found)),
    }
}

/// What a file system has free, whether or not it can be written.
pub(super) fn free(path: &Path) -> Result<Free> {
    let found = rustix::fs::statvfs(path).map_err(|e| reading("asking for the free space of", path)(e.into()))?;
    Ok(counted(&found))
}

fn counted(found: &StatVfs) -> Free {
    let files = if found.f_files == 0 { u64::MAX } else { found.f_favail };
    Free { bytes: found.f_bavail.saturating_mul(found.f_frsize), files }
}
