//! Archives on their way out, for one taker or for several at once.
//!
//! Owns the bytes of a tar archive and the reading of blobs into it. Always true: a blob is read and hashed once for all who take it at
//! the same place; one who takes no more, or whose blob is damaged, is left, and the others go on.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::members::{Content, Member};
use super::{Archive, ArchiveError, BLOCK};
use crate::digest::{self, Digest, Hasher, VerifyReader};
use crate::oci::{Compression, Descriptor, unpacked};
use crate::store::Store;

/// Two empty blocks end an archive.
pub(super) const END: [u8; 1024] = [0; 1024];
/// How many bytes are copied at once.
pub(super) const STEP: usize = 256 << 10;

/// What became of an archive; several may end on the same damage.
pub type Outcome = Result<(), Arc<ArchiveError>>;

/// Whoever takes an archive. A write that fails means that no more is taken.
pub trait Taker: Write {
    /// Called once, when all was written or no more will be.
    fn end(&mut self, outcome: Outcome);
}

impl Archive {
    /// Writes the archive, or the part of it that comes before the first damaged byte.
    pub fn write_to(&self, out: &mut dyn Write) -> Outcome {
        let mut sole = Sole { out, outcome: Ok(()) };
        write_each(&mut [(self, &mut sole)]);
        sole.outcome
    }
}

/// Writes archives out of one store, each to its own taker, and reads what several of them have at the same place once.
pub fn write_each(archives: &mut [(&Archive, &mut dyn Taker)]) {
    let mut lines: Vec<Line<'_>> =
        archives.iter_mut().map(|(archive, taker)| Line { archive, taker: Some(&mut **taker), next: 0 }).collect();
    loop {
        lines.iter_mut().for_each(Line::write_texts);
        let Some(next) = lines.iter().filter_map(Line::wants).min() else { return };
        let mut takers: Vec<_> = lines.iter_mut().filter(|line| line.wants() == Some(next)).collect();
        let (archive, member) = (takers[0].archive, takers[0].member());
        let Some(member) = member else { return };
        takers.iter_mut().for_each(|line| line.write(|out| out.write_all(&head(member))));
        let mut all = All(takers);
        match archive.copy(member, &mut all) {
            Ok(()) => all.0.iter_mut().for_each(|line| line.close()),
            Err(error) => {
                let error = Arc::new(error);
                all.0.iter_mut().for_each(|line| line.end(Err(error.clone())));
            }
        }
    }
}

/// An archive, and how far it is.
struct Line<'a> {
    archive: &'a Archive,
    /// Nobody, once it has ended.
    taker: Option<&'a mut dyn Taker>,
    next: usize,
}

impl<'a> Line<'a> {
    /// The blob that comes next, by its place in the image: members lie in that order in every archive.
    fn wants(&self) -> Option<(usize, Digest, bool)> {
        self.taker.as_ref()?;
        let member = self.member()?;
        match &member.content {
            Content::Text(_) => None,
            Content::Blob(blob) => Some((member.place, blob.digest, false)),
            Content::Unpacked(layer, _) => Some((member.place, layer.digest, true)),
        }
    }

    fn member(&self) -> Option<&'a Member> {
        self.archive.members.get(self.next)
    }

    /// Writes what needs no reading: documents of our own, and the end.
    fn write_texts(&mut self) {
        while let Some(member) = self.member().filter(|_| self.taker.is_some()) {
            let Content::Text(text) = &member.content else { return };
            self.write(|out| out.write_all(&head(member)).and_then(|()| out.write_all(text)));
            self.close();
        }
        self.write(|out| out.write_all(&END).and_then(|()| out.flush()));
        self.end(Ok(()));
    }

    fn write(&mut self, write: impl FnOnce(&mut dyn Taker) -> io::Result<()>) {
        if let Some(taker) = &mut self.taker
            && let Err(source) = write(*taker)
        {
            self.end(Err(Arc::new(ArchiveError::Write { source })));
        }
    }

    /// Fills a member up to whole blocks.
    fn close(&mut self) {
        let size = self.member().map_or(0, |member| member.size);
        self.write(|out| out.write_all(&END[..filling(size) as usize]));
        self.next += 1;
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(taker) = self.taker.take() {
            taker.end(outcome);
        }
    }
}

/// How many bytes fill so many up to whole blocks.
pub(super) fn filling(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// All who take the same member. A write fails when nobody is left.
struct All<'l, 'a>(Vec<&'l mut Line<'a>>);

impl Write for All<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.iter_mut().for_each(|line| line.write(|out| out.write_all(bytes)));
        let left = self.0.iter().any(|line| line.taker.is_some());
        if left { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Sole<'a> {
    out: &'a mut dyn Write,
    outcome: Outcome,
}

impl Write for Sole<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Taker for Sole<'_> {
    fn end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Archive {
    fn copy(&self, member: &Member, out: &mut dyn Write) -> Result<(), ArchiveError> {
        match &member.content {
            Content::Text(_) => Ok(()),
            Content::Blob(blob) => self.copy_blob(blob, out),
            Content::Unpacked(layer, diff_id) => {
                unpack(&self.store, layer, |plain| copy(&mut VerifyReader::new(plain, *diff_id, member.size), out))
            }
        }
    }

    fn copy_blob(&self, blob: &Descriptor, out: &mut dyn Write) -> Result<(), ArchiveError> {
        let mut stored = self.store.blob(blob)?;
        copy(&mut stored, out).map_err(|stopped| match stopped {
            Stopped::Writing(source) => ArchiveError::Write { source },
            Stopped::Reading(source) => unreadable(&self.store, blob, source),
        })
    }
}

/// What became of a blob that could not be read to its end; one that is damaged is set aside.
pub(crate) fn unreadable(store: &Store, blob: &Descriptor, source: io::Error) -> ArchiveError {
    match digest::mismatch_in(&source) {
        Some(found) => store.set_aside(blob, found).into(),
        None => ArchiveError::Read { digest: blob.digest, source },
    }
}

/// What a zstd layer unpacks to: its digest and size, of which no more than one byte above the limit is read.
pub(super) fn measure(store: &Store, layer: &Descriptor, limit: u64) -> Result<(Digest, u64), ArchiveError> {
    let mut hashed = Hashed(Hasher::new());
    unpack(store, layer, |plain| copy(&mut plain.take(limit + 1), &mut hashed))?;
    Ok(hashed.0.finish())
}

struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `take` have what a zstd layer unpacks to.
fn unpack(store: &Store, layer: &Descriptor, take: impl FnOnce(&mut dyn Read) -> Result<(), Stopped>) -> Result<(), ArchiveError> {
    let mut stored = store.blob(layer)?;
    let source = match unpacked(&mut stored, Compression::Zstd).map_err(Stopped::Reading).and_then(|mut plain| take(&mut plain)) {
        Ok(()) => return Ok(()),
        Err(Stopped::Writing(source)) => return Err(ArchiveError::Write { source }),
        Err(Stopped::Reading(source)) => source,
    };
    // A damaged layer rarely unpacks as far as its end, where the damage would show; it is the damage that counts.
    let rest = io::copy(&mut stored, &mut io::sink()).err();
    let damage = [Some(&source), rest.as_ref()].into_iter().flatten().filter_map(digest::mismatch_in).find(|m| m.expected == layer.digest);
    if let Some(damage) = damage {
        return Err(store.set_aside(layer, damage).into());
    }
    let digest = layer.digest;
    Err(match digest::mismatch_in(&source) {
        Some(other) => ArchiveError::DiffId { digest, expected: other.expected, found: other.found },
        None => ArchiveError::Unpack { digest, source },
    })
}

/// Which side of a copy failed.
enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Stopped> {
    let mut buffer = vec![0; STEP];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n]).map_err(Stopped::Writing)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Stopped::Reading(e)),
        }
    }
}

/// What stands before a member's content: a header, and before it the whole path where that does not fit into one, as GNU tar writes it and
/// every reader knows it. The same on every machine and at any time.
fn head(member: &Member) -> Vec<u8> {
    let path = member.path.as_bytes();
    if path.len() <= SHORT_PATH {
        return header(tar::EntryType::Regular, &member.path, member.size).as_bytes().to_vec();
    }
    let mut head = header(tar::EntryType::GNULongName, "././@LongLink", path.len() as u64 + 1).as_bytes().to_vec();
    head.extend_from_slice(path);
    head.resize(head_size(&member.path) as usize - BLOCK as usize, 0);
    head.extend_from_slice(header(tar::EntryType::Regular, &member.path[..SHORT_PATH], member.size).as_bytes());
    head
}

/// How many bytes that is.
pub(super) fn head_size(path: &str) -> u64 {
    let length = path.len() as u64;
    if path.len() <= SHORT_PATH { BLOCK } else { 2 * BLOCK + length + 1 + filling(length + 1) }
}

/// The longest path that fits into a header.
const SHORT_PATH: usize = 100;

fn header(kind: tar::EntryType, path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).expect("the paths are short and plain");
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}
