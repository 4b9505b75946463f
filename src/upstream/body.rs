//! An answer and its body.
//!
//! Always true: a body that gives next to nothing fails as surely as one that gives nothing, and one that is read
//! whole is read up to a limit, whatever its headers say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use reqwest::header::{AsHeaderName, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};

use super::error::{Result, UpstreamError};
use super::failure;
use super::rate::Rate;
use super::shown::{ShownUrl, plain};

/// The least that a body has to give, in bytes a second: a fraction of what the slowest line gives.
const LEAST: u64 = 128;

/// The largest answer that is read for what it says of a failure, or to keep its connection.
pub(super) const NOTE_LIMIT: u64 = 64 << 10;

/// What came back, its body still to be read.
pub(super) struct Answer {
    response: reqwest::Response,
    pub(super) url: ShownUrl,
    /// Whether it is from the origin that was asked, or from where that led.
    pub(super) home: bool,
    patience: Duration,
    limit: Option<Arc<Rate>>,
    /// Time spent waiting, and what came in it.
    waited: Duration,
    came: u64,
}

impl Answer {
    pub(super) fn new(response: reqwest::Response, url: ShownUrl, home: bool, patience: Duration) -> Answer {
        Answer { response, url, home, patience, limit: None, waited: Duration::ZERO, came: 0 }
    }

    /// The same, but its body is taken no faster than the limit allows.
    pub(super) fn limited(self, limit: Option<Arc<Rate>>) -> Answer {
        Answer { limit, ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The length of the body as announced.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// Fails if the body is not as it was stored.
    pub(super) fn plain(self) -> Result<Answer> {
        let encoding = self.headers().get(CONTENT_ENCODING).map(|e| String::from_utf8_lossy(e.as_bytes()));
        match encoding.filter(|e| !e.trim().is_empty() && !e.trim().eq_ignore_ascii_case("identity")) {
            Some(encoding) => Err(UpstreamError::Encoded { encoding: plain(&encoding, 50), url: self.url }),
            None => Ok(self),
        }
    }

    /// The next bytes, as they come; none at the end.
    ///
    /// Only the time spent waiting here counts against the other side, not what the caller takes to store the bytes. The HTTP library's own
    /// time limit on reads goes on between calls, and is not used.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let began = Instant::now();
        let chunk = match tokio::time::timeout(self.patience, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| failure::of_request(self.url.clone(), e))?,
            Err(_) => return Err(UpstreamError::TimedOut { url: self.url.clone(), after: self.patience }),
        };
        self.waited += began.elapsed();
        self.came += chunk.as_ref().map_or(0, |c| c.len() as u64);
        if self.waited >= self.patience && chunk.is_some() {
            let (bytes, after) = (self.came, self.waited);
            if (bytes as u128) * 1000 < u128::from(LEAST) * after.as_millis() {
                return Err(UpstreamError::TooSlow { url: self.url.clone(), bytes, after });
            }
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        if let (Some(limit), Some(chunk)) = (&self.limit, &chunk) {
            limit.spend(chunk.len() as u64).await;
        }
        Ok(chunk)
    }

    /// The whole body if it is no longer than `limit`.
    pub(super) async fn bytes(&mut self, limit: u64) -> Result<Bytes> {
        let too_large = || UpstreamError::TooLarge { url: self.url.clone(), limit };
        if self.length().is_some_and(|l| l > limit) {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if (whole.len() + chunk.len()) as u64 > limit {
                return Err(UpstreamError::TooLarge { url: self.url.clone(), limit });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Reads a short rest, so that the connection can be used again.
    pub(super) async fn drain(mut self) {
        let _ = self.bytes(NOTE_LIMIT).await;
    }
}
