//! A blob on its way from a registry.
//!
//! Survives what passes: a cut, a stall, a busy server, a token that ends. Then the rest is asked for from where we are.
//! Always true: the bytes handed out follow each other without a gap or a repetition and are never more than the
//! descriptor has. Whether they are the right ones is not known here: whoever takes them hashes them.

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
use crate::digest::Digest;
use crate::oci::Descriptor;

/// A try that brought this much brought something, however the server cuts its answers.
const GAIN: u64 = 64 << 10;

/// A blob's bytes, as they come.
pub struct BlobStream<'a> {
    upstream: &'a Upstream,
    of: &'a Place,
    digest: Digest,
    size: u64,
    url: Url,
    /// How many bytes of the blob the caller has.
    position: u64,
    /// How many of those the caller had when the last answer began.
    began: u64,
    answer: Option<Answer>,
    /// How many bytes of the answer are still to be passed over, since the caller has them.
    skip: u64,
    /// Whether the server can be asked for a part.
    ranges: bool,
    retry: Retry<'a>,
}

impl<'a> BlobStream<'a> {
    pub(super) fn new(upstream: &'a Upstream, of: &'a Place, blob: &Descriptor, offset: u64, url: Url, retry: Retry<'a>) -> BlobStream<'a> {
        BlobStream {
            upstream,
            of,
            digest: blob.digest,
            size: blob.size,
            url,
            position: offset,
            began: offset,
            answer: None,
            skip: 0,
            ranges: true,
            retry,
        }
    }

    /// The next bytes; none when the blob is complete.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.position == self.size {
                return self.end().await.map(|()| None);
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
        while self.answer.is_none() && self.position < self.size {
            if let Err(error) = self.ask().await {
                self.broke(error).await?;
            }
        }
        Ok(())
    }

    /// The next bytes of this answer, or of a new one; none if there were none that the caller lacks.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(answer) = &mut self.answer else { return self.ask().await.map(|()| None) };
        let Some(mut bytes) = answer.chunk().await? else {
            return Err(UpstreamError::Short { url: answer.url.clone(), received: self.position, expected: self.size });
        };
        let passed_over = self.skip.min(bytes.len() as u64);
        self.skip -= passed_over;
        let bytes = bytes.split_off(usize::try_from(passed_over).expect("no more than the length of a buffer"));
        if bytes.len() as u64 > self.size - self.position {
            return Err(UpstreamError::TooLong { url: answer.url.clone(), blob: self.digest, expected: self.size });
        }
        self.position += bytes.len() as u64;
        Ok(Some(bytes).filter(|b| !b.is_empty()))
    }

    /// Looks whether more comes than there should be. A connection that breaks now breaks nothing.
    async fn end(&mut self) -> Result<()> {
        let Some(mut answer) = self.answer.take() else { return Ok(()) };
        match answer.chunk().await {
            Ok(Some(bytes)) if !bytes.is_empty() => Err(UpstreamError::TooLong { url: answer.url, blob: self.digest, expected: self.size }),
            _ => Ok(()),
        }
    }

    async fn broke(&mut self, error: UpstreamError) -> Result<()> {
        self.answer = None;
        let gained = self.position - self.began;
        self.began = self.position;
        if gained > 0 && gained >= GAIN.min(self.size / 20) {
            self.retry.gained();
        }
        match error {
            // The whole can still be asked for; what the caller has is passed over.
            UpstreamError::NoRange { .. } | UpstreamError::WrongRange { .. } if self.ranges => self.ranges = false,
            error => self.retry.pause(error).await?,
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<()> {
        let offset = if self.ranges { self.position } else { 0 };
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            headers.insert(RANGE, range.expect("a number is a header's text"));
        }
        let ask = Ask { method: Method::GET, url: self.url.clone(), headers, form: None };
        let answer = self.upstream.ask(&ask, self.of, Wanted::Blob).await;
        let answer = match answer {
            Err(UpstreamError::Status { url, status: 416, .. }) if offset > 0 => return Err(UpstreamError::NoRange { url, offset }),
            answer => answer?.plain()?,
        };
        let url = || answer.url.clone();
        let first = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if offset > 0 => match answer.header(CONTENT_RANGE).and_then(content_range) {
                Some((first, total)) if (first, total) == (offset, self.size) => first,
                _ => return Err(UpstreamError::WrongRange { url: url(), offset }),
            },
            status => return Err(UpstreamError::Status { url: url(), status: status.as_u16(), said: None }),
        };
        let expected = self.size - first;
        match answer.length() {
            // A part of a part is a short answer like any other.
            Some(found) if found > expected || (first == 0 && found != expected) => {
                return Err(UpstreamError::WrongLength { url: url(), blob: self.digest, expected, found });
            }
            _ => {}
        }
        self.skip = self.position - first;
        self.answer = Some(answer);
        Ok(())
    }
}

/// First byte and total of a `Content-Range`, if it is of bytes and sound.
pub(super) fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last < total).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_strictly() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
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
