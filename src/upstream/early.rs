//! Stretches of a blob that come before it is their turn.
//!
//! Owns the file without a name that they wait in: it has a place for each of so many stretches, and a place is used again when what was in it was handed
//! out. Always true: a stretch is written from its first byte on, and no byte is read before it was written. What does not come is not missed here: whoever
//! wants the stretch asks for the rest of it.
//!
//! It is written and read at once and not by other threads, as it goes to the system's memory and comes from there: handing it over costs more than that, and
//! every thread keeps memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::error::UpstreamError;
use super::stretch::Stretch;
use super::width::Leave;

/// How many stretches of a blob come or wait at once.
const PLACES: usize = 32;

/// How large a place is.
pub(super) const PLACE: u64 = 8 << 20;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// Opens a new file without a name, if there can be one.
pub type Unnamed<'a> = dyn Fn() -> Option<File> + Sync + 'a;

/// Where stretches of one blob wait.
pub(super) struct Waiting {
    file: Arc<File>,
    /// Whether a place is taken.
    taken: [bool; PLACES],
}

/// A stretch that comes.
pub(super) struct Early {
    /// What of the blob is not handed out.
    pub(super) bytes: Range<u64>,
    file: Arc<File>,
    place: usize,
    /// Up to where it is in the file, and from where in the file it is to be read.
    here: watch::Receiver<u64>,
    next: u64,
    /// Whether it comes over the connection that every blob may have.
    own: bool,
}

/// Why a stretch did not come.
pub(super) enum Failed {
    Coming(UpstreamError),
    Keeping,
}

/// The work of bringing one.
pub(super) type Coming<'a> = Pin<Box<dyn Future<Output = Result<(), Failed>> + Send + 'a>>;

impl Waiting {
    pub(super) fn new(file: File) -> Waiting {
        Waiting { file: Arc::new(file), taken: [false; PLACES] }
    }

    /// Whether there is a place.
    pub(super) fn has_place(&self) -> bool {
        self.taken.contains(&false)
    }

    /// Gives these bytes a place, which there has to be; they come as the work goes on.
    pub(super) fn begin<'a>(&mut self, bytes: Range<u64>, stretch: Stretch<'a>, leave: Leave<'a>) -> (Early, Coming<'a>) {
        let place = self.taken.iter().position(|taken| !taken).expect("it was asked whether there is a place");
        self.taken[place] = true;
        let first = place as u64 * PLACE;
        let (came, here) = watch::channel(first);
        let own = leave.is_own();
        let coming = bring(stretch, self.file.clone(), came, leave);
        (Early { bytes, file: self.file.clone(), place, here, next: first, own }, Box::pin(coming))
    }

    /// Its place is free again.
    pub(super) fn end(&mut self, early: &Early) {
        self.taken[early.place] = false;
    }
}

/// Brings a stretch into its place. What it held is free again when it ends.
async fn bring(mut stretch: Stretch<'_>, file: Arc<File>, came: watch::Sender<u64>, leave: Leave<'_>) -> Result<(), Failed> {
    let mut at = *came.borrow();
    while let Some(bytes) = stretch.chunk().await.inspect_err(|_| leave.refused()).map_err(Failed::Coming)? {
        let length = bytes.len() as u64;
        file.write_all_at(&bytes, at).map_err(|_| Failed::Keeping)?;
        at += length;
        came.send_replace(at);
    }
    Ok(())
}

impl Early {
    /// Whether it comes over the connection that every blob may have, and still comes.
    pub(super) fn is_own(&self) -> bool {
        self.own && self.here.has_changed().is_ok()
    }

    /// The next bytes; none when no more come.
    pub(super) async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        // Who brings it is gone when it has ended; what came before that is still to be seen.
        let mut ended = false;
        loop {
            let here = *self.here.borrow_and_update();
            if here > self.next {
                break;
            }
            if ended {
                return Ok(None);
            }
            ended = self.here.changed().await.is_err();
        }
        let length = usize::try_from(*self.here.borrow() - self.next).unwrap_or(CHUNK).min(CHUNK);
        let mut bytes = BytesMut::zeroed(length);
        self.file.read_exact_at(&mut bytes, self.next)?;
        let bytes = bytes.freeze();
        self.next += bytes.len() as u64;
        self.bytes.start += bytes.len() as u64;
        Ok(Some(bytes))
    }
}
