//! A stretch of a blob on its way from a registry, over one connection at a time.
//!
//! Survives what passes: a cut, a stall, a busy server, a token that ends. Then the rest is asked for from where we are.
//! Always true: the bytes handed out follow each other without a gap or a repetition and are never more than the
//! stretch has. Whether they are the right ones is not known here: whoever takes them hashes them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::Upstream;
use super::body::Answer;
use super::error::{Result, UpstreamError};
use super::places::Place;
use super::refusal::Wanted;
use super::retry::Retry;
use super::wire::Ask;
use crate::event::Tell;
use crate::oci::Descriptor;

/// A try that brought this much brought something, however the server cuts its answers.
const GAIN: u64 = 64 << 10;

/// A blob, and where it is asked for.
pub(super) struct Errand<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) of: &'a Place,
    pub(super) blob: &'a Descriptor,
    pub(super) url: Url,
    pub(super) tell: &'a Tell<'a>,
}

/// A stretch's bytes, as they come.
pub(super) struct Stretch<'a> {
    errand: Arc<Errand<'a>>,
    /// How many bytes of the blob are here, or before this stretch.
    position: u64,
    /// Where it ends.
    end: u64,
    /// Where it was when the last answer began.
    began: u64,
    answer: Option<Answer>,
    /// Where the answer ends.
    until: u64,
    /// How many bytes of the answer are still to be passed over, since they are here.
    skip: u64,
    /// Whether the server can be asked for a part.
    ranges: bool,
    /// None for one that is given up as soon as something is wrong.
    retry: Option<Retry<'a>>,
}

impl<'a> Stretch<'a> {
    /// One that has to come, whatever it takes.
    pub(super) fn new(errand: &Arc<Errand<'a>>, first: u64, end: u64) -> Stretch<'a> {
        let retry = Retry::new(&errand.upstream.wire.settings, errand.tell).of(errand.of);
        Stretch { retry: Some(retry), ..Stretch::tried(errand, first, end) }
    }

    /// One that is tried once, in an answer of its own.
    pub(super) fn tried(errand: &Arc<Errand<'a>>, first: u64, end: u64) -> Stretch<'a> {
        let errand = errand.clone();
        Stretch { errand, position: first, end, began: first, answer: None, until: end, skip: 0, ranges: true, retry: None }
    }

    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are still to come.
    pub(super) fn left(&self) -> u64 {
        self.end - self.position
    }

    /// Ends sooner, since others bring what follows. What is on its way of that is lost.
    pub(super) fn shorten(&mut self, left: u64) {
        self.end = self.end.min(self.position + left);
    }

    /// The next bytes; none when the stretch is complete.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.position == self.end {
                return self.finish().await.map(|()| None);
            }
            match self.next().await {
                Ok(Some(bytes)) => return Ok(Some(bytes)),
                Ok(None) => {}
                Err(error) => self.broke(error).await?,
            }
        }
    }

    /// Asks for what is missing, again and again if it must be.
    pub(super) async fn open(&mut self) -> Result<()> {
        while self.answer.is_none() && self.position < self.end {
            if let Err(error) = self.ask().await {
                self.broke(error).await?;
            }
        }
        Ok(())
    }

    /// The next bytes of this answer, or of a new one; none if there were none that are not here.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(answer) = &mut self.answer else { return self.ask().await.map(|()| None) };
        let Some(mut bytes) = answer.chunk().await? else {
            return Err(UpstreamError::Short { url: answer.url.clone(), received: self.position, expected: self.errand.blob.size });
        };
        self.errand.upstream.width.came(bytes.len() as u64);
        let passed_over = self.skip.min(bytes.len() as u64);
        self.skip -= passed_over;
        let mut bytes = bytes.split_off(usize::try_from(passed_over).expect("no more than the length of a buffer"));
        if bytes.len() as u64 > self.until - self.position {
            return Err(too_long(&self.errand, answer));
        }
        bytes.truncate(usize::try_from(self.left()).unwrap_or(usize::MAX));
        self.position += bytes.len() as u64;
        Ok(Some(bytes).filter(|b| !b.is_empty()))
    }

    /// Looks whether more comes than there should be. A connection that breaks now breaks nothing.
    async fn finish(&mut self) -> Result<()> {
        let Some(mut answer) = self.answer.take().filter(|_| self.until == self.end) else { return Ok(()) };
        match answer.chunk().await {
            Ok(Some(bytes)) if !bytes.is_empty() => Err(too_long(&self.errand, &answer)),
            _ => Ok(()),
        }
    }

    async fn broke(&mut self, error: UpstreamError) -> Result<()> {
        self.answer = None;
        let Some(retry) = &mut self.retry else { return Err(error) };
        let gained = self.position - self.began;
        self.began = self.position;
        if gained > 0 && gained >= GAIN.min(self.errand.blob.size / 20) {
            retry.gained();
        }
        match error {
            // The whole can still be asked for; what is here is passed over.
            UpstreamError::NoRange { .. } | UpstreamError::WrongRange { .. } if self.ranges => self.ranges = false,
            error => retry.pause(error).await?,
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<()> {
        let size = self.errand.blob.size;
        let offset = if self.ranges { self.position } else { 0 };
        let part = self.ranges && (offset > 0 || self.end < size);
        let mut headers = HeaderMap::new();
        if part {
            let last = if self.end < size { (self.end - 1).to_string() } else { String::new() };
            let range = HeaderValue::from_str(&format!("bytes={offset}-{last}"));
            headers.insert(RANGE, range.expect("numbers are a header's text"));
        }
        let ask = Ask { method: Method::GET, url: self.errand.url.clone(), headers, form: None };
        let began = Instant::now();
        let answer = self.errand.upstream.ask(&ask, self.errand.of, Wanted::Blob).await;
        self.errand.upstream.width.answered(began.elapsed());
        let answer = match answer {
            Err(UpstreamError::Status { url, status: 416, .. }) if part => return Err(UpstreamError::NoRange { url, offset }),
            answer => answer?.plain()?,
        };
        let url = || answer.url.clone();
        let (first, until) = match answer.status() {
            // Nobody passes over all that comes before what is only tried.
            StatusCode::OK if self.retry.is_none() => return Err(UpstreamError::WrongRange { url: url(), offset }),
            StatusCode::OK => (0, size),
            StatusCode::PARTIAL_CONTENT if part => match answer.header(CONTENT_RANGE).and_then(content_range) {
                // A part of the part is a short answer like any other.
                Some((first, last, total)) if first == offset && last < self.end && total == size => (first, self.end),
                _ => return Err(UpstreamError::WrongRange { url: url(), offset }),
            },
            status => return Err(UpstreamError::Status { url: url(), status: status.as_u16(), said: None }),
        };
        let expected = until - first;
        match answer.length() {
            Some(found) if found > expected || (answer.status() == StatusCode::OK && found != expected) => {
                return Err(UpstreamError::WrongLength { url: url(), blob: self.errand.blob.digest, expected, found });
            }
            _ => {}
        }
        self.skip = self.position - first;
        self.until = until;
        self.answer = Some(answer);
        Ok(())
    }
}

fn too_long(errand: &Errand<'_>, answer: &Answer) -> UpstreamError {
    UpstreamError::TooLong { url: answer.url.clone(), blob: errand.blob.digest, expected: errand.blob.size }
}

/// First byte, last byte and total of a `Content-Range`, if it is of bytes and sound.
pub(super) fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last < total).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_strictly() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 9, 10)));
        for text in [
            "bytes 5-9/*",
            "bytes */10",
            "bytes 5-10/10",
            "bytes 9-5/10",
            "bytes=5-9/10",
            "items 5-9/10",
            "bytes 5-9",
            "bytes +5-9/10",
            "bytes -9/10",
            "",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
