//! A whole archive compressed, without compressing anything twice.
//!
//! gzip members and zstd frames may follow each other, and readers take them for one file
//! ([RFC 1952, 2.2](https://www.rfc-editor.org/rfc/rfc1952#section-2.2), [RFC 8878, 3.1](https://www.rfc-editor.org/rfc/rfc8878#section-3.1)).
//! Each run of bytes is one of them: at the usual level what is plain, stored what is compressed already. Nothing in them tells the time or the machine.

use std::io::{self, Write};

use flate2::write::GzEncoder;

use super::Wrap;
use crate::archive::{ArchiveError, Span};

/// The level of gzip and zstd for what is plain: their own defaults.
const GZIP: flate2::Compression = flate2::Compression::new(6);
const ZSTD: i32 = 3;
/// The level of zstd at which it gives up on a block soonest.
const ZSTD_STORED: i32 = -7;

/// Compresses an archive whose spans are known.
pub(super) struct Compressor<W: Write> {
    wrap: Wrap,
    /// Those that are still to come, the last one first.
    spans: Vec<Span>,
    /// How many bytes of the present one are still to come.
    left: u64,
    /// None once it failed.
    now: Option<Encoder<W>>,
}

enum Encoder<W: Write> {
    Plain(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    pub(super) fn new(wrap: Wrap, spans: impl Iterator<Item = Span>, out: W) -> Result<Compressor<W>, ArchiveError> {
        let mut spans = match wrap {
            Wrap::Plain => vec![Span { size: u64::MAX, compressed: false }],
            Wrap::Gzip | Wrap::Zstd => joined(spans),
        };
        spans.reverse();
        let mut compressor = Compressor { wrap, spans, left: 0, now: Some(Encoder::Plain(out)) };
        compressor.turn().map_err(|source| ArchiveError::Write { source })?;
        Ok(compressor)
    }

    /// Whoever takes what comes of it, unless that failed.
    pub(super) fn inner(&mut self) -> Option<&mut W> {
        self.now.as_mut().map(|now| match now {
            Encoder::Plain(out) => out,
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// Ends the last member or frame.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.now.take().ok_or(io::ErrorKind::BrokenPipe)?.finish()
    }

    /// Ends a member or frame, and begins the next.
    fn turn(&mut self) -> io::Result<()> {
        let Some(span) = self.spans.pop() else { return Ok(()) };
        let out = self.now.take().ok_or(io::ErrorKind::BrokenPipe)?.finish()?;
        self.left = span.size;
        self.now = Some(match (self.wrap, span.compressed) {
            (Wrap::Plain, _) => Encoder::Plain(out),
            (Wrap::Gzip, false) => Encoder::Gzip(GzEncoder::new(out, GZIP)),
            (Wrap::Gzip, true) => Encoder::Gzip(GzEncoder::new(out, flate2::Compression::none())),
            (Wrap::Zstd, false) => Encoder::Zstd(zstd::stream::write::Encoder::new(out, ZSTD)?),
            (Wrap::Zstd, true) => Encoder::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_STORED)?),
        });
        Ok(())
    }
}

impl<W: Write> Encoder<W> {
    fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Plain(out) => Ok(out),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 && !bytes.is_empty() {
            self.turn()?;
        }
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let taken = match self.now.as_mut().ok_or(io::ErrorKind::BrokenPipe)? {
            Encoder::Plain(out) => out.write(&bytes[..taken])?,
            Encoder::Gzip(encoder) => encoder.write(&bytes[..taken])?,
            Encoder::Zstd(encoder) => encoder.write(&bytes[..taken])?,
        };
        self.left -= taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush in the middle would only make it larger; `finish` ends it.
        Ok(())
    }
}

/// Neighbours of one kind as one.
fn joined(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut all: Vec<Span> = Vec::new();
    for span in spans.filter(|span| span.size > 0) {
        match all.last_mut() {
            Some(last) if last.compressed == span.compressed => last.size += span.size,
            _ => all.push(span),
        }
    }
    all
}
