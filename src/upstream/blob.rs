//! A blob on its way from a registry, over as many connections as help.
//!
//! It is asked for in one, and comes over one connection. Where more connections bring more, that one ends sooner, and what follows comes in stretches beside
//! each other. Always true: the bytes handed out follow each other without a gap or a repetition, so what is kept of them is always the
//! blob's beginning; a stretch that did not come before it was its turn is asked for again, as the whole would be. Whether they are the right ones is
//! not known here: whoever takes them hashes them.

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::early::{Coming, Early, Failed, PLACE, PLACES, Unnamed};
use super::error::{Result, UpstreamError};
use super::stretch::{Errand, Stretch};
use super::width::OnItsWay;

/// A smaller blob comes in one.
const SMALL: u64 = 8 << 20;

/// A blob's bytes, as they come.
pub struct BlobStream<'a> {
    errand: Arc<Errand<'a>>,
    on_its_way: OnItsWay<'a>,
    /// What comes in its turn; none while what is next comes early.
    line: Option<Stretch<'a>>,
    /// The first byte that nobody brings.
    asked: u64,
    beside: Beside<'a>,
}

/// What comes before it is its turn.
struct Beside<'a> {
    /// Where it waits can be made here; none if nothing is to come early, or no more.
    unnamed: Option<&'a Unnamed<'a>>,
    file: Option<Arc<File>>,
    /// How many stretches were begun.
    begun: usize,
    queue: VecDeque<Early>,
    coming: FuturesUnordered<Coming<'a>>,
}

impl<'a> BlobStream<'a> {
    /// The blob from `offset` on; stretches may wait for their turn in a file that is opened here.
    pub(super) async fn open(errand: Errand<'a>, offset: u64, unnamed: Option<&'a Unnamed<'a>>) -> Result<BlobStream<'a>> {
        let size = errand.blob.size;
        let on_its_way = errand.upstream.width.enter();
        let errand = Arc::new(errand);
        let mut line = Stretch::new(&errand, offset, size);
        line.open().await?;
        let beside = Beside {
            unnamed: unnamed.filter(|_| size >= SMALL),
            file: None,
            begun: 0,
            queue: VecDeque::new(),
            coming: FuturesUnordered::new(),
        };
        Ok(BlobStream { errand, on_its_way, line: Some(line), asked: size, beside })
    }

    /// The next bytes; none when the blob is complete.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let began = Instant::now();
        let next = self.next().await;
        self.on_its_way.waited(began.elapsed());
        next
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            self.look_ahead();
            if let Some(line) = &mut self.line {
                match self.beside.meanwhile(line.chunk()).await? {
                    Some(bytes) => return Ok(Some(bytes)),
                    None => self.line = None,
                }
            } else if let Some(mut first) = self.beside.queue.pop_front() {
                match self.beside.meanwhile(first.chunk()).await {
                    Ok(Some(bytes)) => {
                        self.beside.queue.push_front(first);
                        return Ok(Some(bytes));
                    }
                    Ok(None) => {}
                    Err(_) => self.beside.note(&Failed::Keeping),
                }
                self.take_over(first.bytes);
            } else if self.asked < self.errand.blob.size {
                self.line = Some(Stretch::new(&self.errand, self.asked, self.errand.blob.size));
                self.asked = self.errand.blob.size;
            } else {
                return Ok(None);
            }
        }
    }

    /// Goes on where a stretch that came early ended, in its turn if there is a rest of it.
    fn take_over(&mut self, mut rest: Range<u64>) {
        if rest.is_empty() {
            return;
        }
        if self.beside.unnamed.is_none() {
            // The server gives no stretches, or there is no room for them: all that is left comes in one.
            self.beside.queue.clear();
            self.beside.coming.clear();
            rest.end = self.errand.blob.size;
            self.asked = rest.end;
        }
        self.line = Some(Stretch::new(&self.errand, rest.start, rest.end));
    }

    /// Asks for what follows beside what is on its way, where that brings more.
    fn look_ahead(&mut self) {
        let (size, width) = (self.errand.blob.size, &self.errand.upstream.width);
        if self.beside.unnamed.is_none() || !width.is_wide() {
            return;
        }
        let (stretch, lost) = (width.stretch().min(PLACE), width.meanwhile());
        while self.beside.queue.len() < PLACES {
            // What comes in one ends a little ahead of where it is, if much is left.
            let all_asked = self.asked == size;
            let much_left = |line: &Stretch<'_>| line.left() >= 2 * (stretch + lost);
            if all_asked && !(self.beside.queue.is_empty() && self.line.as_ref().is_some_and(much_left)) {
                return;
            }
            let own = self.line.is_none() && !self.beside.queue.iter().any(Early::is_own);
            let Some(leave) = width.take(own) else { return };
            let Some(file) = self.beside.file() else { return };
            if let Some(line) = self.line.as_mut().filter(|_| all_asked) {
                line.shorten(stretch + lost);
                self.asked = line.end();
            }
            let bytes = self.asked..size.min(self.asked + stretch);
            self.asked = bytes.end;
            let tried = Stretch::tried(&self.errand, bytes.start, bytes.end);
            let (early, coming) = Early::begin(bytes, tried, leave, (&file, self.beside.begun));
            self.beside.begun += 1;
            self.beside.queue.push_back(early);
            self.beside.coming.push(coming);
        }
    }
}

impl Beside<'_> {
    /// The file that stretches wait in, opened when it is first wanted; none if there can be none.
    fn file(&mut self) -> Option<Arc<File>> {
        if self.file.is_none() {
            self.file = self.unnamed.and_then(|unnamed| unnamed()).map(Arc::new);
            // Where there is none now, none is asked for again.
            self.unnamed = self.unnamed.filter(|_| self.file.is_some());
        }
        self.file.clone()
    }

    /// Nothing comes early any more where that cannot be; what failed for another reason is asked for again when it is its turn.
    fn note(&mut self, failed: &Failed) {
        if matches!(failed, Failed::Keeping | Failed::Coming(UpstreamError::NoRange { .. } | UpstreamError::WrongRange { .. })) {
            self.unnamed = None;
        }
    }

    /// Waits for this, while what comes early goes on.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            while let Poll::Ready(Some(ended)) = self.coming.poll_next_unpin(cx) {
                ended.err().inspect(|failed| self.note(failed));
            }
            work.as_mut().poll(cx)
        })
        .await
    }
}
