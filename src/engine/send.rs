//! An image on its way from the store into an engine that takes archives.
//!
//! Owns the request: its body is what a [`reading`](super::reading) gives, and its progress is told. Always true: when the archive fails, the
//! request is cut off before its announced length, and the archive's error is the one that is reported.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::reading::{Chunks, Cut, Seat};
use super::wire::{Failure, Hear, Reply, Wire};
use super::{EngineError, Place};
use crate::archive::{Archive, ArchiveError, Layers, Parts};
use crate::digest::{Algorithm, Digest};
use crate::event::{Event, Tell};
use crate::oci::Image;
use crate::plan::Lacking;
use crate::reference::Name;
use crate::store::Store;

/// How long nothing is said of an engine that unpacks.
const STILL: Duration = Duration::from_secs(10);

/// An image for an engine: what is sent, under which name.
pub struct Parcel<'a> {
    /// Where it lies.
    pub store: &'a Store,
    /// The image.
    pub image: &'a Image,
    /// The name it is to bear.
    pub name: &'a Name,
    /// Layers that the engine has, so that they need not be sent, by the digests of their blobs.
    pub held: &'a BTreeSet<Digest>,
    /// The reading of the store that it comes from.
    pub seat: Seat,
}

impl<'a> Parcel<'a> {
    /// All of an image, from a reading of its own. Made within a runtime.
    pub fn whole(store: &'a Store, image: &'a Image, name: &'a Name) -> Parcel<'a> {
        const NONE: &BTreeSet<Digest> = &BTreeSet::new();
        Parcel { store, image, name, held: NONE, seat: Seat::alone() }
    }
}

/// How an engine wants an archive.
pub(super) struct Form<'a> {
    pub(super) layers: Layers,
    /// The name in it.
    pub(super) name: &'a Name,
}

/// Posts the image's archive to `path`; returns the engine's answer and the size of the archive.
pub(super) async fn send(
    wire: &Wire,
    path: &str,
    parcel: Parcel<'_>,
    form: Form<'_>,
    (tell, hear): (&Tell<'_>, &mut Hear<'_>),
) -> Result<(Reply, u64), EngineError> {
    let engine = wire.place.kind.to_string();
    let parts = Parts { layers: form.layers, without: parcel.held.clone() };
    let (store, image, name) = (parcel.store.clone(), parcel.image.clone(), form.name.clone());
    let archive = blocking(move || Archive::new(&store, &image, &name, &parts)).await.map_err(Arc::new)?;
    let size = archive.size();
    let layers = Lacking::new(parcel.image, parcel.held).layers.len();
    tell(Event::LoadStarted { engine: engine.clone(), name: parcel.name.clone(), bytes: size, layers });
    let (taken, progress) = watch::channel(0);
    let cut = Arc::new(OnceLock::new());
    let body = Upload { chunks: parcel.seat.take(archive), size, taken, cut: cut.clone() };
    let sent = watched(wire.upload(path, body, progress.clone(), hear), progress, size, (&engine, tell)).await;
    match (cut.get(), sent) {
        (Some(error), _) => Err(Arc::clone(error).into()),
        (None, (Ok(reply), _)) => Ok((reply, size)),
        (None, (Err(failure), sent)) => Err(match failure {
            Failure::Talking(source) if Failure::ended_in(&source).is_none() => {
                let source = source.into();
                EngineError::LoadBroken { place: wire.place.clone(), name: parcel.name.clone(), sent, size, source }
            }
            other => wire.failed(&Method::POST, path, other),
        }),
    }
}

/// Runs the upload and tells how far it is; returns what came of it and how many bytes the engine took.
async fn watched<T>(
    upload: impl Future<Output = T>,
    mut progress: watch::Receiver<u64>,
    size: u64,
    (engine, tell): (&str, &Tell<'_>),
) -> (T, u64) {
    let (mut upload, mut waiting) = (pin!(upload), pin!(wait(engine, tell)));
    let mut told = 0;
    let catch_up = |told: &mut u64, taken: u64| {
        if taken > *told {
            tell(Event::LoadProgress { engine: engine.to_owned(), bytes: taken - *told });
            if taken == size {
                tell(Event::LoadSent { engine: engine.to_owned() });
            }
        }
        *told = taken;
    };
    let done = loop {
        tokio::select! {
            done = &mut upload => break done,
            Ok(()) = progress.changed(), if told < size => catch_up(&mut told, *progress.borrow_and_update()),
            never = &mut waiting, if told == size => match never {},
        }
    };
    let taken = *progress.borrow();
    catch_up(&mut told, taken);
    (done, taken)
}

/// Tells again and again that all was sent, and for how long nothing came of it.
pub(super) async fn wait(engine: &str, tell: &Tell<'_>) -> Infallible {
    let sent = Instant::now();
    loop {
        tokio::time::sleep(STILL).await;
        tell(Event::LoadWaiting { engine: engine.to_owned(), since: sent.elapsed() });
    }
}

/// Fails for an engine that keeps content by SHA-256 alone, if the image has other digests.
pub(super) fn only_sha256(place: &Place, image: &Image, name: &Name) -> Result<(), EngineError> {
    match image.blobs().into_iter().find(|blob| blob.digest.algorithm() != Algorithm::Sha256) {
        Some(blob) => Err(EngineError::Algorithm { place: place.clone(), name: name.clone(), digest: blob.digest }),
        None => Ok(()),
    }
}

/// Starts the work on a thread of its own, whether or not anybody waits for it.
pub(super) fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    let thread = spawn_blocking(work);
    // Such a thread is never cancelled once it runs: what it fails with is a panic, which goes on here.
    async { thread.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic())) }
}

/// The body of the request.
struct Upload {
    chunks: Chunks,
    size: u64,
    /// How many bytes the connection took.
    taken: watch::Sender<u64>,
    /// Why the archive ended before its time, if it did.
    cut: Arc<OnceLock<Arc<ArchiveError>>>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let chunk = std::task::ready!(self.chunks.poll_recv(cx));
        if let Some(Err(Cut(why))) = &chunk {
            self.cut.get_or_init(|| why.clone());
        }
        Poll::Ready(chunk.map(|chunk| {
            let chunk = chunk?;
            self.taken.send_modify(|taken| *taken += chunk.len() as u64);
            Ok(Frame::data(chunk))
        }))
    }

    fn size_hint(&self) -> SizeHint {
        // What is left, as the trait wants it.
        SizeHint::with_exact(self.size - *self.taken.borrow())
    }
}
