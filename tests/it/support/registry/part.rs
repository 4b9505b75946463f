//! Content on its way out, whole or in part, as it is or spoiled.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use hyper::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use hyper::{HeaderMap, Response, StatusCode};
use larder::digest::Digest;

use super::body::{Script, Step};
use super::door::{Answer, header, refusal};
use super::{Content, Fault, Seen};

const DIGEST: &str = "docker-content-digest";

/// What is asked for of some content, and what goes wrong with it.
pub(super) struct Part<'a> {
    content: &'a Content,
    /// The first byte if a part was asked for and is to be given.
    asked: Option<u64>,
    /// The byte behind the last one that was asked for.
    until: u64,
    fault: Option<Fault>,
}

impl<'a> Part<'a> {
    pub(super) fn of(content: &'a Content, seen: &Seen, fault: Option<Fault>) -> Part<'a> {
        let range = seen.header(RANGE.as_str()).strip_prefix("bytes=").and_then(|r| r.split_once('-'));
        let range = range.filter(|_| fault != Some(Fault::IgnoreRange));
        let last = range.and_then(|(_, last)| last.parse::<u64>().ok());
        let until = last.map_or(content.size(), |last| content.size().min(last + 1));
        Part { content, asked: range.and_then(|(first, _)| first.parse().ok()), until, fault }
    }

    pub(super) fn answer(self, media_type: Option<&str>, digest: Digest, hard: &Arc<AtomicBool>) -> io::Result<Answer> {
        let size = self.content.size();
        let refused = self.asked.is_some() && self.fault == Some(Fault::RefuseRange);
        if refused || self.asked.is_some_and(|first| first >= size) {
            return Ok(refusal(StatusCode::RANGE_NOT_SATISFIABLE, "", ""));
        }
        let later = match self.fault {
            Some(Fault::OtherRange(later)) if self.asked.is_some() => later,
            _ => 0,
        };
        let said = self.asked.unwrap_or(0) + later;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CONTENT_TYPE, header(media_type.unwrap_or("application/octet-stream")));
        headers.insert(CONTENT_LENGTH, (self.until - said).into());
        headers.insert(DIGEST, header(&digest.to_string()));
        if self.asked.is_some() {
            let total = if self.fault == Some(Fault::WrongTotal) { size + 1 } else { size };
            headers.insert(CONTENT_RANGE, header(&format!("bytes {said}-{}/{total}", self.until - 1)));
        }
        let status = if self.asked.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let first = if self.fault == Some(Fault::LyingRange) { 0 } else { said };
        self.spoil(&mut headers);
        let mut answer = Response::new(self.body(first, self.until - said, hard)?);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }

    fn spoil(&self, headers: &mut HeaderMap) {
        match self.fault {
            Some(Fault::WrongLength(off)) => {
                let size = self.until - self.asked.unwrap_or(0);
                headers.insert(CONTENT_LENGTH, size.saturating_add_signed(off).into());
            }
            Some(Fault::Chunked | Fault::Longer(_) | Fault::Shorter(_) | Fault::Endless) => drop(headers.remove(CONTENT_LENGTH)),
            Some(Fault::WrongDigestHeader) => drop(headers.insert(DIGEST, header(&Digest::of(b"something else").to_string()))),
            Some(Fault::NoDigestHeader) => drop(headers.remove(DIGEST)),
            Some(Fault::ContentType(other)) => drop(headers.insert(CONTENT_TYPE, HeaderValue::from_static(other))),
            Some(Fault::Header(name, value)) => drop(headers.insert(name, HeaderValue::from_static(value))),
            Some(Fault::Encoded(encoding)) => drop(headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding))),
            _ => {}
        }
    }

    fn body(&self, first: u64, length: u64, hard: &Arc<AtomicBool>) -> io::Result<Script> {
        let part = |length| Script::content(self.content, first, length);
        let many = |n| Bytes::from(vec![b'x'; n]);
        match self.fault {
            Some(Fault::FlipByte) => {
                let mut bytes = self.bytes(first, length)?;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                Ok(Script::bytes(bytes))
            }
            Some(Fault::CutAfter(n) | Fault::CutOnceAfter(n)) if n < length => Ok(part(n)?.then_cut()),
            Some(Fault::ResetOnceAfter(n)) if n < length => Ok(part(n)?.then_reset(hard)),
            Some(Fault::StallAfter(n) | Fault::StallOnceAfter(n)) => Ok(part(n.min(length))?.then(Step::Stall)),
            Some(Fault::Drip(apart)) => Ok(Script::drip(self.bytes(first, length)?.into(), apart)),
            Some(Fault::WrongLength(_)) => Ok(part(length)?.then_cut()),
            // In one piece, so that the end does not fall between two.
            Some(Fault::Longer(n)) => Ok(Script::bytes([self.bytes(first, length)?, many(n as usize).to_vec()].concat())),
            Some(Fault::Shorter(n)) => part(length.saturating_sub(n)),
            Some(Fault::Endless) => Ok(part(length)?.then(Step::Repeat(many(64 << 10)))),
            _ => part(length),
        }
    }

    fn bytes(&self, first: u64, length: u64) -> io::Result<Vec<u8>> {
        let all = match self.content {
            Content::Memory(bytes) => bytes.clone(),
            Content::File(path, _) => std::fs::read(path)?.into(),
        };
        Ok(all[first as usize..(first + length) as usize].to_vec())
    }
}
