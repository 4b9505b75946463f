//! One reading of the store for all engines that are sent an image at the same time.
//!
//! Owns the seam between the blocking reader and the uploads: a thread reads, hashes and writes the archives into bounded channels, and
//! each channel is the body of one request, or is cut into the blobs that containerd takes. Always true: few chunks are in flight, however
//! large the image; what is damaged ends the streams that need it, before their announced length and with its error; nobody waits for long
//! for a slow one: an engine that takes nothing while others would is given a reading of its own from where it stands, and one that comes
//! late begins its own.

use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_blocking;

use crate::archive::{Archive, ArchiveError, Outcome, Taker, write_each};

/// How many bytes are handed over at once.
const CHUNK: usize = 256 << 10;
/// How many chunks wait for the engine at most.
const IN_FLIGHT: usize = 4;
/// How long an engine is waited for where others are ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// The archive ended before its time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the archive could not be read to its end")]
pub(super) struct Cut(#[source] pub(super) Arc<ArchiveError>);

/// What comes of an archive, chunk by chunk.
pub(super) type Chunks = mpsc::Receiver<Result<Bytes, Cut>>;

/// A place at a reading. Whoever needs no reading drops it, so that the others do not wait.
#[derive(Debug)]
pub struct Seat {
    door: UnboundedSender<Stream>,
    /// How long one is waited for where others are ready.
    patience: Duration,
}

impl Seat {
    /// So many places at one reading. It begins when all of them were taken or dropped. Called within a runtime.
    pub fn at_one_reading(count: usize) -> Vec<Seat> {
        Seat::at_a_reading_of(count, PATIENCE)
    }

    fn at_a_reading_of(count: usize, patience: Duration) -> Vec<Seat> {
        let (door, coming) = mpsc::unbounded_channel();
        tokio::spawn(gather(coming, patience));
        (0..count).map(|_| Seat { door: door.clone(), patience }).collect()
    }

    /// A reading of one's own.
    pub fn alone() -> Seat {
        let (door, coming) = mpsc::unbounded_channel();
        tokio::spawn(gather(coming, PATIENCE));
        Seat { door, patience: PATIENCE }
    }

    /// Takes the place; the archive comes through what is returned.
    pub(super) fn take(self, archive: Archive) -> Chunks {
        let (chunks, body) = mpsc::channel(IN_FLIGHT);
        // Whoever gathers is there for as long as a seat is.
        let _ = self.door.send(Stream::new(Arc::new(archive), chunks, 0, self.patience));
        body
    }
}

/// Lets those who are there in time read together, and everybody else alone.
async fn gather(mut coming: UnboundedReceiver<Stream>, patience: Duration) {
    let Some(first) = coming.recv().await else { return };
    let mut together = vec![first];
    let mut patience = pin!(tokio::time::sleep(patience));
    loop {
        tokio::select! {
            next = coming.recv() => match next {
                Some(stream) => together.push(stream),
                None => break,
            },
            () = &mut patience => break,
        }
    }
    spawn_blocking(move || read(together));
    while let Some(late) = coming.recv().await {
        spawn_blocking(move || read(vec![late]));
    }
}

/// Writes the archives into their streams.
fn read(mut streams: Vec<Stream>) {
    let company = Arc::new(());
    let archives: Vec<_> = streams.iter().map(|stream| stream.archive.clone()).collect();
    streams.iter_mut().for_each(|stream| stream.company = Some(company.clone()));
    drop(company);
    let mut pairs: Vec<_> = archives.iter().zip(&mut streams).map(|(archive, stream)| (&**archive, stream as &mut dyn Taker)).collect();
    write_each(&mut pairs);
}

/// An archive on its way to one engine.
struct Stream {
    archive: Arc<Archive>,
    chunks: mpsc::Sender<Result<Bytes, Cut>>,
    next: Vec<u8>,
    /// How many bytes were handed over.
    given: u64,
    /// How many bytes an earlier reading handed over.
    skip: u64,
    /// Shared with those who read together and have not ended.
    company: Option<Arc<()>>,
    /// How long it is waited for.
    patience: Duration,
}

impl Stream {
    fn new(archive: Arc<Archive>, chunks: mpsc::Sender<Result<Bytes, Cut>>, skip: u64, patience: Duration) -> Stream {
        Stream { archive, chunks, next: Vec::with_capacity(CHUNK), given: skip, skip, company: None, patience }
    }

    fn alone(&self) -> bool {
        self.company.as_ref().is_none_or(|company| Arc::strong_count(company) == 1)
    }

    /// Hands a chunk over. One who keeps others waiting goes on alone.
    fn hand_over(&mut self, chunk: Bytes) -> io::Result<()> {
        let size = chunk.len() as u64;
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        if self.alone() {
            self.chunks.blocking_send(Ok(chunk)).map_err(gone)?;
        } else {
            let sending = self.chunks.send_timeout(Ok(chunk), self.patience);
            match Handle::current().block_on(sending) {
                Ok(()) => {}
                Err(mpsc::error::SendTimeoutError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                    let rest = Stream::new(self.archive.clone(), self.chunks.clone(), self.given, self.patience);
                    spawn_blocking(move || read(vec![rest]));
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        self.given += size;
        Ok(())
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.skip > 0 {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            return Ok(skipped);
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
        let chunk = std::mem::replace(&mut self.next, Vec::with_capacity(CHUNK)).into();
        self.hand_over(chunk)
    }
}

impl Taker for Stream {
    fn end(&mut self, outcome: Outcome) {
        self.company = None;
        // One that takes no more has its reasons, and its own reading where it was only slow.
        if let Err(error) = outcome.as_ref()
            && !matches!(**error, ArchiveError::Write { .. })
        {
            let _ = self.chunks.blocking_send(Err(Cut(error.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Layers;
    use crate::archive::tests::{Made, made_with, written};
    use crate::digest::Digest;
    use crate::store::StoreError;

    /// An image of more bytes than are in flight, which cannot be compressed.
    fn made() -> Made {
        let mut noise = Vec::new();
        for n in 0_u32..70_000 {
            noise.extend_from_slice(Digest::of(&n.to_le_bytes()).hex().as_bytes());
        }
        made_with(noise)
    }

    const SHORT: Duration = Duration::from_millis(30);

    fn archive(made: &Made) -> Archive {
        made.archive(Layers::AsStored).unwrap()
    }

    async fn all(mut chunks: Chunks) -> Result<Vec<u8>, Cut> {
        let mut taken = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            taken.extend_from_slice(&chunk?);
        }
        Ok(taken)
    }

    #[tokio::test]
    async fn all_who_come_get_the_whole_and_who_does_not_come_is_not_waited_for() {
        let made = made();
        let expected = written(&archive(&made));
        let mut seats = Seat::at_one_reading(4).into_iter();
        let [first, second, third, fourth] = std::array::from_fn(|_| seats.next().unwrap());
        drop(third);
        let (first, second) = (first.take(archive(&made)), second.take(archive(&made)));
        // One that takes nothing and goes away.
        drop(fourth.take(archive(&made)));
        let (first, second) = tokio::join!(all(first), all(second));
        assert!(first.unwrap() == expected && second.unwrap() == expected);
        assert!(all(Seat::alone().take(archive(&made))).await.unwrap() == expected);
    }

    #[tokio::test]
    async fn one_that_is_slow_or_late_reads_alone_and_gets_the_same() {
        let made = made();
        let expected = written(&archive(&made));
        let mut seats = Seat::at_a_reading_of(3, SHORT).into_iter();
        let [quick, slow, late] = std::array::from_fn(|_| seats.next().unwrap());
        let (quick, mut slow) = (quick.take(archive(&made)), slow.take(archive(&made)));
        let begun = slow.recv().await.unwrap().unwrap();
        assert!(all(quick).await.unwrap() == expected, "it waited neither for the slow nor for the late one");
        let rest = all(slow).await.unwrap();
        assert!([&begun[..], &rest].concat() == expected);
        assert!(all(late.take(archive(&made))).await.unwrap() == expected);
    }

    #[tokio::test]
    async fn damage_is_told_to_everybody() {
        let made = made();
        let archives = [archive(&made), archive(&made)];
        made.flip(&made.image.layers[1], 7);
        let seats = Seat::at_one_reading(2);
        let mut taken = seats.into_iter().zip(archives).map(|(seat, archive)| seat.take(archive));
        let [first, second] = std::array::from_fn(|_| taken.next().unwrap());
        let (first, second) = tokio::join!(all(first), all(second));
        for Cut(why) in [first.unwrap_err(), second.unwrap_err()] {
            assert!(matches!(&*why, ArchiveError::Store(StoreError::Damaged { .. })), "{why:?}");
        }
    }
}
