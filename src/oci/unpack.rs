//! Layers unpacked as they are read.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::Compression;

/// The largest window that zstd content may ask for, as a power of two: 128 MiB, which is what containerd and podman allow.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How many packed bytes are read at once.
const STEP: usize = 128 << 10;

/// What packed bytes unpack to. Members and frames that follow each other are one; what is behind the last is an error, and so is a larger
/// window than engines allow.
pub(crate) fn unpacked<'a>(packed: impl Read + Send + 'a, compression: Compression) -> io::Result<Box<dyn Read + Send + 'a>> {
    let packed = BufReader::with_capacity(STEP, packed);
    Ok(match compression {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}
