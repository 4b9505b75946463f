//! The blobs of an image out of the store, one after the other.
//!
//! Owns the cutting of an archive into its blobs: containerd takes blob by blob, and so has a part in the one
//! [`reading`](crate::engine::reading) that all engines share. Always true: a blob's last bytes come only if the whole of it is right; one
//! whose turn in the shared reading is over, or that was left out of it, is read alone.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::archive::{Archive, ArchiveError, Layers, Parts};
use crate::digest::Digest;
use crate::engine::reading::{Chunks, Cut};
use crate::engine::send::blocking;
use crate::engine::{EngineError, Seat};
use crate::oci::{Descriptor, Image};
use crate::plan::Lacking;
use crate::reference::Name;
use crate::store::Store;

/// The blobs of one image.
pub(super) struct Blobs {
    store: Store,
    image: Image,
    name: Name,
    shared: Option<Reading>,
    alone: Option<Reading>,
}

/// An archive as it comes.
pub(super) struct Reading {
    chunks: Chunks,
    /// What is still to come: where each blob begins in the archive, and the blob.
    coming: VecDeque<(u64, Descriptor)>,
    /// The blob whose turn it is, and where what is wanted of it lies.
    blob: Option<Digest>,
    wanted: Range<u64>,
    /// What came and was not taken, and where it begins.
    chunk: Bytes,
    position: u64,
}

impl Blobs {
    /// Has a reading of the documents and of the layers that are lacking. Fails unless all of the image is in the store.
    pub(super) async fn read(store: &Store, image: &Image, name: &Name, lacking: &Lacking, seat: Seat) -> Result<Blobs, EngineError> {
        let mut blobs = Blobs { store: store.clone(), image: image.clone(), name: name.clone(), shared: None, alone: None };
        let without = lacking.without();
        blobs.shared = Some(blobs.reading(seat, |layer| !without.contains(layer)).await?);
        Ok(blobs)
    }

    /// Goes on to a blob, from the offset on.
    pub(super) async fn turn_to(&mut self, blob: &Descriptor, offset: u64) -> Result<&mut Reading, EngineError> {
        let shared = self.shared.as_mut().is_some_and(|shared| shared.turn_to(&blob.digest, offset));
        if !shared {
            let mut alone = self.reading(Seat::alone(), |layer| *layer == blob.digest).await?;
            alone.turn_to(&blob.digest, offset);
            self.alone = Some(alone);
        }
        let reading = if shared { &mut self.shared } else { &mut self.alone };
        Ok(reading.as_mut().expect("it was there or was made in the lines above"))
    }

    /// Leaves the shared reading.
    pub(super) fn end(&mut self) {
        self.shared = None;
    }

    async fn reading(&self, seat: Seat, wanted: impl Fn(&Digest) -> bool) -> Result<Reading, EngineError> {
        let without = self.image.layers.iter().map(|layer| layer.digest).filter(|layer| !wanted(layer)).collect();
        let (store, image, name) = (self.store.clone(), self.image.clone(), self.name.clone());
        let parts = Parts { layers: Layers::AsStored, without };
        let archive = blocking(move || Archive::new(&store, &image, &name, &parts)).await.map_err(Arc::new)?;
        let coming = archive.blobs().map(|(begins, blob)| (begins, blob.clone())).collect();
        Ok(Reading { chunks: seat.take(archive), coming, blob: None, wanted: 0..0, chunk: Bytes::new(), position: 0 })
    }
}

impl Reading {
    /// Goes on to a blob, from the offset on; says whether it was still to come.
    fn turn_to(&mut self, blob: &Digest, offset: u64) -> bool {
        let place = self.coming.iter().position(|(_, coming)| coming.digest == *blob);
        let Some((begins, blob)) = place.and_then(|place| self.coming.drain(..=place).next_back()) else { return false };
        self.blob = Some(blob.digest);
        self.wanted = begins + offset..begins + blob.size;
        true
    }

    /// The next bytes of the blob; `None` at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        while !self.wanted.is_empty() {
            let passed = self.wanted.start - self.position;
            self.take(passed);
            if !self.chunk.is_empty() {
                let piece = self.take(self.wanted.end - self.position);
                self.wanted.start = self.position;
                return Ok(Some(piece));
            }
            self.chunk = match self.chunks.recv().await {
                Some(chunk) => chunk.map_err(|Cut(why)| why)?,
                None => return Err(self.cut()),
            };
        }
        Ok(None)
    }

    /// What came, up to so many bytes.
    fn take(&mut self, at_most: u64) -> Bytes {
        let taken = self.chunk.split_to(usize::try_from(at_most).unwrap_or(usize::MAX).min(self.chunk.len()));
        self.position += taken.len() as u64;
        taken
    }

    fn cut(&self) -> EngineError {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, "whoever read it is gone");
        let digest = self.blob.expect("only what belongs to a blob is wanted");
        Arc::new(ArchiveError::Read { digest, source }).into()
    }
}
