//! Blobs from the network into the store: the one seam between the two.
//!
//! A blob's bytes go through a bounded channel to a blocking writer, which hashes, writes and commits. Several blobs are
//! on their way at once. What a failure leaves is a part that the next run continues; see [`crate::store`].

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::sources::{Sources, asking, passed_over, worse};
use super::{Cache, PullError, Want};
use crate::digest::{Digest, Mismatch, Verified};
use crate::event::{Event, Tell};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, DocumentError, INDEX_TYPES, MANIFEST_TYPES};
use crate::plan::Plan;
use crate::store::{Claim, Ingest, Store, StoreError};
use crate::upstream::{At, Place, Unnamed, Upstream, UpstreamError};

/// How many pieces of a blob may wait for its writer.
const WAITING: usize = 2;

type Result<T> = std::result::Result<T, PullError>;

/// How one try to fetch a blob ended.
enum Outcome {
    Kept,
    Cut(UpstreamError),
    Wrong(Mismatch),
}

/// Runs a blocking piece of the store's work beside the async main line.
pub(super) async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> std::result::Result<T, StoreError> + Send + 'static,
) -> std::result::Result<T, StoreError> {
    let store = store.clone();
    tokio::task::spawn_blocking(move || work(&store)).await.expect("the store's work does not panic and is not aborted")
}

/// Keeps the documents that were read already, what was claimed last: where that is, the others are. Returns the bytes of those that were missing.
pub(super) async fn keep(store: &Store, plan: &Plan, documents: BTreeMap<Digest, Verified>, claim: Option<Claim>) -> Result<u64> {
    let missing: Vec<Verified> = plan.missing.iter().filter_map(|blob| documents.get(&blob.digest).cloned()).collect();
    let bytes = missing.iter().map(Verified::size).sum();
    blocking(store, move |store| {
        let (claimed, others): (Vec<_>, Vec<_>) =
            missing.iter().partition(|d| claim.as_ref().is_some_and(|claim| claim.is_to(&d.digest())));
        others.into_iter().try_for_each(|document| store.put(document))?;
        match (claim, claimed.first()) {
            (Some(claim), Some(document)) => claim.keep(document),
            _ => Ok(()),
        }
    })
    .await?;
    Ok(bytes)
}

/// Fetches all that the plan says is missing and that nobody brought meanwhile. Returns the bytes that came.
pub(super) async fn all(cache: &Cache<'_>, want: &Want, plan: &Plan, sources: &Sources<'_>) -> Result<u64> {
    let mut missing: Vec<_> = plan.missing.iter().filter(|blob| !cache.store.has(blob)).collect();
    // The largest first: begun last, it would come alone at the end.
    missing.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    let at_once = sources.upstream.map_or(1, Upstream::at_once);
    let blobs = futures_util::stream::iter(missing).map(|blob| one(cache, want, blob, sources)).buffer_unordered(at_once);
    blobs.try_fold(0, async |fetched, bytes| Ok(fetched + bytes)).await
}

/// A manifest or config into memory.
pub(super) async fn document(want: &Want, of: &Descriptor, part: &'static str, sources: &Sources<'_>, tell: &Tell<'_>) -> Result<Verified> {
    let mut failed = None;
    let places = sources.places()?;
    for (n, place) in places.iter().enumerate() {
        let Some(upstream) = sources.upstream else { break };
        match whole(upstream, place, of, tell).await {
            Ok(bytes) => return compared(want, of, part, bytes, place),
            Err(error) => {
                passed_over(tell, place, At::Digest(of.digest), &error, places.get(n + 1));
                failed = worse(failed, place, error);
            }
        }
    }
    let reference = want.reference.clone();
    match failed {
        Some((_, source)) => Err(PullError::Blob { part, reference, source }),
        None => Err(PullError::Incomplete { reference, present: 0, missing: vec![of.clone()] }),
    }
}

async fn whole(upstream: &Upstream, place: &Place, of: &Descriptor, tell: &Tell<'_>) -> std::result::Result<Bytes, UpstreamError> {
    asking(tell, place, At::Digest(of.digest));
    if MANIFEST_TYPES.iter().chain(&INDEX_TYPES).any(|known| *known == of.media_type) {
        let found = upstream.manifest(place, At::Digest(of.digest), tell).await?;
        return Ok(found.bytes.bytes().clone());
    }
    let mut bytes = Vec::new();
    let mut stream = upstream.blob(place, of, 0, None, tell).await?;
    while let Some(chunk) = stream.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

fn compared(want: &Want, of: &Descriptor, part: &'static str, bytes: Bytes, from: &Place) -> Result<Verified> {
    let reference = want.reference.clone();
    if of.size > DOCUMENT_LIMIT {
        let source = DocumentError::TooLarge { digest: of.digest, size: of.size, limit: DOCUMENT_LIMIT };
        return Err(PullError::Document { reference, source });
    }
    let found_size = bytes.len() as u64;
    let wrong = match Verified::compare(bytes, &of.digest) {
        Ok(document) if document.size() == of.size => return Ok(document),
        Ok(document) => Mismatch { expected: of.digest, expected_size: of.size, found: document.digest(), found_size },
        Err(wrong) => Mismatch { expected_size: of.size, ..wrong },
    };
    Err(PullError::Mismatch { part, reference, source: wrong, from: from.clone() })
}

/// One blob, from the first source that gives it. Content that turns out wrong is fetched once more from its beginning:
/// it may have been continued from a part, or flipped on the way.
async fn one(cache: &Cache<'_>, want: &Want, blob: &Descriptor, sources: &Sources<'_>) -> Result<u64> {
    let (mut fetched, mut failed, mut mismatched) = (0, None, false);
    let mut places = sources.places()?.iter();
    let mut place = places.next();
    while let (Some(upstream), Some(from)) = (sources.upstream, place) {
        let attempt = Attempt { cache, upstream, from, blob, in_one: mismatched };
        match attempt.run(&mut fetched).await? {
            Outcome::Kept => {
                (cache.tell)(Event::BlobFinished { digest: blob.digest });
                return Ok(fetched);
            }
            Outcome::Wrong(_) if !mismatched => {
                mismatched = true;
                (cache.tell)(Event::BlobRestarted { digest: blob.digest });
            }
            Outcome::Wrong(source) => {
                let reference = want.reference.clone();
                return Err(PullError::Mismatch { part: "layer", reference, source, from: from.clone() });
            }
            Outcome::Cut(error) => {
                place = places.next();
                passed_over(cache.tell, from, At::Digest(blob.digest), &error, place);
                failed = worse(failed, from, error);
            }
        }
    }
    let reference = want.reference.clone();
    match failed {
        Some((_, source)) => Err(PullError::Blob { part: "layer", reference, source }),
        None => Err(PullError::Incomplete { reference, present: 0, missing: vec![blob.clone()] }),
    }
}

/// One try to fetch a blob from one source.
struct Attempt<'a> {
    cache: &'a Cache<'a>,
    upstream: &'a Upstream,
    from: &'a Place,
    blob: &'a Descriptor,
    /// Whether it has to come in one, since what came was wrong.
    in_one: bool,
}

impl Attempt<'_> {
    async fn run(&self, fetched: &mut u64) -> Result<Outcome> {
        let (cache, blob) = (self.cache, self.blob.clone());
        let Some(ingest) = blocking(cache.store, move |store| store.ingest(&blob)).await? else { return Ok(Outcome::Kept) };
        let resumed = ingest.offset();
        (cache.tell)(Event::BlobStarted { digest: self.blob.digest, size: self.blob.size, resumed });
        let (send, receive) = mpsc::channel(WAITING);
        let writer = tokio::task::spawn_blocking(move || write(ingest, receive));
        let came = self.transfer(resumed, send, fetched).await;
        // The sender is gone by now, so the writer ends; its own error is the reason if it ended first.
        let ingest = writer.await.expect("the writer does not panic and is not aborted")?;
        if let Err(error) = came {
            return Ok(Outcome::Cut(error));
        }
        match blocking(cache.store, move |_| ingest.commit()).await {
            Ok(()) => Ok(Outcome::Kept),
            Err(StoreError::Mismatch { found }) => Ok(Outcome::Wrong(found)),
            Err(other) => Err(other.into()),
        }
    }

    /// Moves the bytes from the network to the writer; ends early, and well, when the writer has ended.
    async fn transfer(&self, offset: u64, send: mpsc::Sender<Bytes>, fetched: &mut u64) -> std::result::Result<(), UpstreamError> {
        let (store, blob, tell) = (self.cache.store, self.blob, self.cache.tell);
        if offset == blob.size {
            return Ok(());
        }
        asking(tell, self.from, At::Digest(blob.digest));
        // Where there can be no such file, it comes in one too.
        let unnamed: &Unnamed<'_> = &|| store.unnamed_file().ok();
        let mut stream = self.upstream.blob(self.from, blob, offset, Some(unnamed).filter(|_| !self.in_one), tell).await?;
        while let Some(chunk) = stream.chunk().await? {
            let bytes = chunk.len() as u64;
            *fetched += bytes;
            tell(Event::BlobProgress { digest: blob.digest, bytes });
            if send.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn write(mut ingest: Ingest, mut receive: mpsc::Receiver<Bytes>) -> std::result::Result<Ingest, StoreError> {
    while let Some(bytes) = receive.blocking_recv() {
        ingest.write(&bytes)?;
    }
    Ok(ingest)
}
