//! An archive into whatever takes bytes, hashed as a whole.
//!
//! Two threads share the work: one reads, hashes and compresses blobs, the other hashes the file that comes of it and writes it. Few chunks are
//! between them, however large the archive.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::compress::Compressor;
use super::error::Result;
use super::{Wrap, Written};
use crate::archive::{Archive, ArchiveError, Outcome};
use crate::digest::{Digest, Hasher};
use crate::event::{Event, Tell};

/// How many bytes are handed over at once.
const CHUNK: usize = 256 << 10;
/// How many chunks wait to be written at most.
const IN_FLIGHT: usize = 4;

/// Writes the archive. The outer error is of the archive, the inner one of whoever takes it, which outweighs the other.
pub(super) fn pour(archive: &Archive, wrap: Wrap, out: &mut (dyn Write + Send), tell: &Tell<'_>) -> Result<io::Result<Written>> {
    let (chunks, coming) = sync_channel::<Vec<u8>>(IN_FLIGHT);
    thread::scope(|scope| {
        let writer = scope.spawn(move || -> io::Result<(Digest, u64)> {
            let mut hasher = Hasher::new();
            for chunk in coming {
                hasher.update(&chunk);
                out.write_all(&chunk)?;
            }
            out.flush()?;
            Ok(hasher.finish())
        });
        tell(Event::ExportStarted { bytes: archive.size() });
        let read = read(archive, wrap, Chunks { next: Vec::with_capacity(CHUNK), chunks, shut: false }, tell);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        tell(Event::ExportFinished);
        match (written, read) {
            (Err(source), _) => Ok(Err(source)),
            (Ok(_), Err(why)) => Err(why),
            (Ok((digest, bytes)), Ok(())) => Ok(Ok(Written { bytes, digest: Some(digest) })),
        }
    })
}

fn read(archive: &Archive, wrap: Wrap, chunks: Chunks, tell: &Tell<'_>) -> Result<()> {
    let mut compressor = Compressor::new(wrap, archive.spans(), chunks)?;
    let outcome: Outcome = archive.write_to(&mut Metered { inner: &mut compressor, tell });
    match outcome {
        Ok(()) => compressor.finish().and_then(|mut chunks| chunks.flush()).map_err(|source| ArchiveError::Write { source }.into()),
        Err(why) => {
            // What is cut must not look finished, not even to an unpacker.
            if let Some(chunks) = compressor.inner() {
                chunks.shut = true;
            }
            Err(why.into())
        }
    }
}

/// Tells how much of the archive went through.
struct Metered<'a> {
    inner: &'a mut dyn Write,
    tell: &'a Tell<'a>,
}

impl Write for Metered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        (self.tell)(Event::ExportProgress { bytes: taken as u64 });
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Gathers bytes and hands them to the thread that writes.
pub(super) struct Chunks {
    next: Vec<u8>,
    chunks: SyncSender<Vec<u8>>,
    /// Whether nothing more is taken.
    shut: bool,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(CHUNK - self.next.len());
        self.next.extend_from_slice(&bytes[..taken]);
        if self.next.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.next.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.next, Vec::with_capacity(CHUNK));
        self.chunks.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A compressor that is dropped ends what it wrote. Where that end is also the end of a chunk, only what is shut keeps it back.
    #[test]
    fn what_is_shut_hands_nothing_over() {
        let none = flate2::Compression::none();
        let size = flate2::write::GzEncoder::new(Vec::new(), none).finish().unwrap().len();
        for shut in [false, true] {
            let (chunks, coming) = sync_channel(IN_FLIGHT);
            let chunks = Chunks { next: vec![0; CHUNK - size], chunks, shut: false };
            let mut encoder = flate2::write::GzEncoder::new(chunks, none);
            encoder.get_mut().shut = shut;
            drop(encoder);
            assert_eq!(coming.into_iter().count(), usize::from(!shut));
        }
    }
}
