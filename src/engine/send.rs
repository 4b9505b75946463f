//! An image on its way from the store into an engine.
//!
//! Owns the seam between the two: a blocking thread reads, hashes and writes the archive into a bounded channel, and the channel is the
//! body of the request. Always true: few chunks are in flight, however large the image; when the archive fails, the request is cut off
//! before its announced length and the archive's error is the one that is reported.

use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::EngineError;
use super::wire::{Failure, Reply, Wire};
use crate::archive::{Archive, ArchiveError, Layers};
use crate::event::{Event, Tell};
use crate::oci::Image;
use crate::reference::Name;
use crate::store::Store;

/// How many bytes are handed over at once.
const CHUNK: usize = 256 << 10;
/// How many chunks wait for the engine at most.
const IN_FLIGHT: usize = 4;

/// What is sent, and under which name.
pub(super) struct Parcel<'a> {
    pub(super) store: &'a Store,
    pub(super) image: &'a Image,
    pub(super) name: &'a Name,
    pub(super) layers: Layers,
}

/// Posts the image's archive to `path`; returns the engine's answer and the size of the archive.
pub(super) async fn send(wire: &Wire, path: &str, parcel: Parcel<'_>, tell: &Tell<'_>) -> Result<(Reply, u64), EngineError> {
    let (store, image, name, layers) = (parcel.store.clone(), parcel.image.clone(), parcel.name.clone(), parcel.layers);
    let archive = blocking(move || Archive::new(&store, &image, &name, layers)).await?;
    let size = archive.size();
    tell(Event::LoadStarted { engine: wire.place.kind.to_string(), name: parcel.name.clone(), bytes: size });
    let (chunks, body) = mpsc::channel(IN_FLIGHT);
    let (taken, progress) = watch::channel(0);
    let writing = blocking(move || write(&archive, chunks));
    let sent = watched(wire.upload(path, Upload { chunks: body, size, taken }), progress, size, tell).await;
    // The body is gone by now, so the thread ends at its next chunk, if it has not ended.
    match (writing.await, sent) {
        // The thread could write no more because the engine took no more: what the engine said or did tells why.
        (Ok(()) | Err(ArchiveError::Write { .. }), (Ok(reply), _)) => Ok((reply, size)),
        (Ok(()) | Err(ArchiveError::Write { .. }), (Err(failure), sent)) => Err(match failure {
            Failure::Connecting(source) => wire.unreachable(source),
            Failure::Talking(source) => {
                EngineError::LoadBroken { place: wire.place.clone(), name: parcel.name.clone(), sent, size, source }
            }
            Failure::TooLong => wire.too_long(path),
        }),
        (Err(error), _) => Err(error.into()),
    }
}

/// Runs the upload and tells how far it is; returns what came of it and how many bytes the engine took.
async fn watched<T>(upload: impl Future<Output = T>, mut progress: watch::Receiver<u64>, size: u64, tell: &Tell<'_>) -> (T, u64) {
    let mut upload = pin!(upload);
    let mut told = 0;
    let mut catch_up = |taken: u64| {
        if taken > told {
            tell(Event::LoadProgress { bytes: taken - told });
            if taken == size {
                tell(Event::LoadSent);
            }
        }
        told = taken;
    };
    let done = loop {
        tokio::select! {
            done = &mut upload => break done,
            Ok(()) = progress.changed() => catch_up(*progress.borrow_and_update()),
        }
    };
    let taken = *progress.borrow();
    catch_up(taken);
    (done, taken)
}

/// Starts the work on a thread of its own, whether or not anybody waits for it.
fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    let thread = spawn_blocking(work);
    // Such a thread is never cancelled once it runs: what it fails with is a panic, which goes on here.
    async { thread.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())) }
}

fn write(archive: &Archive, chunks: mpsc::Sender<Result<Bytes, Cut>>) -> Result<(), ArchiveError> {
    let mut out = Chunks { chunks, next: Vec::with_capacity(CHUNK) };
    let written = archive.write_to(&mut out);
    if written.is_err() {
        let _ = out.chunks.blocking_send(Err(Cut));
    }
    written
}

/// The archive ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("the archive could not be read to its end")]
struct Cut;

/// Gathers what is written into chunks.
struct Chunks {
    chunks: mpsc::Sender<Result<Bytes, Cut>>,
    next: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
        let chunk = std::mem::replace(&mut self.next, Vec::with_capacity(CHUNK)).into();
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The body of the request.
struct Upload {
    chunks: mpsc::Receiver<Result<Bytes, Cut>>,
    size: u64,
    /// How many bytes the connection took.
    taken: watch::Sender<u64>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.chunks.poll_recv(cx).map_ok(|chunk| {
            self.taken.send_modify(|taken| *taken += chunk.len() as u64);
            Frame::data(chunk)
        })
    }

    fn size_hint(&self) -> SizeHint {
        // What is left, as the trait wants it.
        SizeHint::with_exact(self.size - *self.taken.borrow())
    }
}
