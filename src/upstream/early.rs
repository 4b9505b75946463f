//! Stretches of a blob that come before it is their turn.
//!
//! Knows the file without a name that they wait in: it has a place for each of so many stretches, which are handed out in the order in which they were
//! begun, so that places are used in turn. Always true: a stretch is written from its first byte on, and no byte is read before it was written. What does not come is not missed here: whoever
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
pub(super) const PLACES: usize = 32;

/// How large a place is.
pub(super) const PLACE: u64 = 8 << 20;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// Opens a new file without a name, if there can be one.
pub type Unnamed<'a> = dyn Fn() -> Option<File> + Sync + 'a;

/// A stretch that comes.
pub(super) struct Early {
    /// What of the blob is not handed out.
    pub(super) bytes: Range<u64>,
    file: Arc<File>,
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
    /// The stretch of these bytes, and the work that brings it; so many were begun in this file before, and no more than [`PLACES`] wait.
    pub(super) fn begin<'a>(
        bytes: Range<u64>,
        stretch: Stretch<'a>,
        leave: Leave<'a>,
        (file, before): (&Arc<File>, usize),
    ) -> (Early, Coming<'a>) {
        let first = (before % PLACES) as u64 * PLACE;
        let (came, here) = watch::channel(first);
        let own = leave.is_own();
        let coming = bring(stretch, file.clone(), came, leave);
        (Early { bytes, file: file.clone(), here, next: first, own }, Box::pin(coming))
    }

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
