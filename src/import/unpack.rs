//! What a blob is as a layer.
//!
//! Always true: what is said of a layer was found by unpacking and hashing all of it, to its end and not beyond a limit.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use super::wrap::{Form, STEP};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::oci::{self, Compression};

/// What content is as a layer.
#[derive(Debug, Clone)]
pub(super) enum Layer {
    /// It unpacks to this.
    Of(Compression, Digest),
    /// Compressed in a way that not all engines read.
    Other(&'static str),
    /// It does not unpack.
    Broken(String),
    /// It unpacks to more than is allowed.
    TooLarge(u64),
}

/// How far to unpack.
#[derive(Clone, Copy)]
pub(super) struct Unpacking<'a> {
    /// The bytes that a layer may unpack to.
    pub(super) limit: u64,
    /// Set when nobody wants to know any more.
    pub(super) stop: &'a AtomicBool,
}

impl Unpacking<'_> {
    /// What a blob of this digest and form is. The outer error is of the disk.
    pub(super) fn layer(self, content: impl Read + Send, digest: Digest, form: Form) -> io::Result<Layer> {
        let compression = match form {
            // What is plain unpacks to itself, and the digest of that is always by SHA-256.
            Form::Layer(Compression::None) if digest.algorithm() == Algorithm::Sha256 => return Ok(Layer::Of(Compression::None, digest)),
            Form::Layer(compression) => compression,
            Form::Xz => return Ok(Layer::Other("xz")),
            Form::Bzip2 => return Ok(Layer::Other("bzip2")),
        };
        let mut content = Noting { from: content, failed: None };
        let unpacked = self.unpacked(&mut content, compression);
        let more = unpacked.is_ok() && content.read(&mut [0]).is_ok_and(|n| n > 0);
        match (content.failed, unpacked) {
            (Some(failed), _) => Err(failed),
            (None, Ok((_, size))) if size > self.limit => Ok(Layer::TooLarge(self.limit)),
            (None, Ok(_)) if more => Ok(Layer::Broken("it has something behind its end".to_owned())),
            (None, Ok((diff_id, _))) => Ok(Layer::Of(compression, diff_id)),
            (None, Err(error)) => Ok(Layer::Broken(error.to_string())),
        }
    }

    fn unpacked(self, layer: impl Read + Send, compression: Compression) -> io::Result<(Digest, u64)> {
        let mut plain = oci::unpacked(layer, compression)?.take(self.limit.saturating_add(1));
        let (mut hasher, mut step) = (Hasher::new(), vec![0; STEP]);
        while !self.stop.load(Ordering::Relaxed) {
            match plain.read(&mut step) {
                Ok(0) => break,
                Ok(n) => hasher.update(&step[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(hasher.finish())
    }
}

/// Remembers what went wrong with what a decoder reads, which is not the decoder's.
struct Noting<R> {
    from: R,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.from.read(into).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => {
                self.failed = Some(error);
                kind.into()
            }
        })
    }
}
