//! A file that is compressed as a whole, unpacked as it is read.
//!
//! Always true: what a decoder may need of memory is bounded, and what stands behind the compressed content is an error.

use std::io::{self, BufReader, Cursor, Read};

use xz4rust::{XzDecoder, XzNextBlockResult};

use crate::oci::{Compression, unpacked};

/// The largest dictionary that xz content may ask for: that of `xz -9`.
const DICTIONARY: usize = 64 << 20;

/// How many bytes are read at once.
pub(super) const STEP: usize = 128 << 10;

/// How many bytes at the beginning tell how something is compressed.
pub(super) const MAGIC: usize = 8;

/// How something begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In a way that engines read as layers.
    Layer(Compression),
    Xz,
    Bzip2,
}

impl Form {
    /// What content that begins so is.
    pub(super) fn of(start: &[u8]) -> Form {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Form::Layer(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Form::Layer(Compression::Zstd),
            // A frame that is skipped, before the first that has content.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Form::Layer(Compression::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Form::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] => Form::Bzip2,
            _ => Form::Layer(Compression::None),
        }
    }
}

/// What is read when the file is unpacked; `None` if it is compressed with bzip2.
pub(super) fn unwrapped(mut file: Box<dyn Read + Send>) -> io::Result<Option<Box<dyn Read + Send>>> {
    let start = beginning(&mut file, MAGIC)?;
    let form = Form::of(&start);
    let whole = Cursor::new(start).chain(file);
    Ok(Some(match form {
        Form::Layer(Compression::None) => Box::new(BufReader::with_capacity(STEP, whole)),
        Form::Layer(compression) => unpacked(whole, compression)?,
        Form::Xz => Box::new(Xz::new(whole)),
        Form::Bzip2 => return Ok(None),
    }))
}

/// The first bytes; fewer if there are no more.
pub(super) fn beginning(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(length);
    from.take(length as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Unpacks xz, stream after stream.
struct Xz<R> {
    from: R,
    decoder: Box<XzDecoder<'static>>,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    /// Whether a stream has ended and the next has not begun.
    between: bool,
}

impl<R: Read> Xz<R> {
    fn new(from: R) -> Xz<R> {
        let decoder = XzDecoder::in_heap_with_alloc_dict_size(64 << 10, DICTIONARY);
        Xz { from, decoder, buffer: vec![0; STEP], at: 0, filled: 0, between: false }
    }

    /// Whether there is something in the buffer, filled if it was empty.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at == self.filled {
            self.filled = self.from.read(&mut self.buffer)?;
            self.at = 0;
        }
        Ok(self.at < self.filled)
    }

    /// Goes on with the next stream, if there is one. Between streams, and behind the last, there may be zeros.
    fn next_stream(&mut self) -> io::Result<bool> {
        while self.fill()? {
            if self.buffer[self.at] != 0 {
                self.decoder.reset();
                self.between = false;
                return Ok(true);
            }
            self.at += 1;
        }
        Ok(false)
    }
}

impl<R: Read> Read for Xz<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || self.between && !self.next_stream()? {
            return Ok(0);
        }
        loop {
            if !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let decoded = self.decoder.decode(&self.buffer[self.at..self.filled], into);
            let decoded = decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let (taken, given) = match decoded {
                XzNextBlockResult::NeedMoreData(taken, given) => (taken, given),
                XzNextBlockResult::EndOfStream(taken, given) => {
                    self.between = true;
                    (taken, given)
                }
            };
            self.at += taken;
            if given > 0 || self.between && !self.next_stream()? {
                return Ok(given);
            }
        }
    }
}

/// Reads to the end, and lets `take` have it step by step.
pub(super) fn in_steps<E>(
    mut from: impl Read,
    failed: impl FnOnce(io::Error) -> E,
    mut take: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut step = vec![0; STEP];
    loop {
        match from.read(&mut step) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&step[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}
