//! Digests, and the bytes that were compared with one.
//!
//! Owns what "verified" means. Always true: a [`Verified`] holds bytes whose digest was computed here, and a
//! [`VerifyReader`] never hands out the last byte of content that is not what was expected. What is
//! expected, and what happens to bytes that are wrong, is the caller's affair.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The digest of some content, written `sha256:` and 64 or `sha512:` and 128 lower-case hexadecimal digits.
///
/// Made by parsing or by hashing only, so it can be used as a file name
/// ([image-spec, descriptor.md, Digests](https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Value);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// How a digest is computed: one of the two algorithms that the image specification registers for everybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which nearly everything uses.
    #[default]
    Sha256,
    /// SHA-512, which registries and layouts may use, and of engines next to none.
    Sha512,
}

/// A text is not a digest that larder can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The algorithm before the colon is neither `sha256` nor `sha512`.
    #[error("the digest algorithm `{algorithm}` is not supported, expected sha256 or sha512")]
    Algorithm {
        /// What stood before the colon, cut to 32 characters.
        algorithm: String,
    },
    /// There is no colon, so no algorithm.
    #[error("not a digest, expected `sha256:` and 64 hexadecimal digits")]
    NoAlgorithm,
    /// The part after the colon has the wrong length.
    #[error("a {algorithm} digest has {} hexadecimal digits, found {found}", .algorithm.digits())]
    Length {
        /// What stood before the colon.
        algorithm: Algorithm,
        /// How many characters there are.
        found: usize,
    },
    /// The part after the colon has a character that no digest has.
    #[error("a {algorithm} digest has digits and the letters a to f, found `{found}` at position {position}")]
    Character {
        /// What stood before the colon.
        algorithm: Algorithm,
        /// The character.
        found: char,
        /// Its position behind the colon, from 1.
        position: usize,
    },
}

impl Algorithm {
    /// All that larder knows.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// As it stands before the colon of a digest, and as the folder of its blobs is called.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits its digests have.
    pub fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }

    /// That of a digest which content is to have; SHA-256 where none is known before.
    pub(crate) fn of(expected: Option<Digest>) -> Algorithm {
        expected.map_or(Algorithm::Sha256, |digest| digest.algorithm())
    }

    fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Digest {
    /// The SHA-256 digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::by(Algorithm::Sha256, bytes)
    }

    /// The digest of these bytes by this algorithm.
    pub fn by(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::by(algorithm);
        hasher.update(bytes);
        hasher.finish().0
    }

    /// How it was computed.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        let bytes: &[u8] = match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes,
        };
        let mut hex = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        hex
    }

    /// Where an image layout keeps the blob: `blobs/sha256/<hex>`.
    pub fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm(), self.hex())
    }

    /// The SHA-256 digest with these 64 hexadecimal digits.
    pub fn from_hex(hex: &str) -> Result<Digest, DigestError> {
        Digest::with_hex(Algorithm::Sha256, hex)
    }

    /// The digest by this algorithm with these hexadecimal digits.
    pub fn with_hex(algorithm: Algorithm, hex: &str) -> Result<Digest, DigestError> {
        let value = match algorithm {
            Algorithm::Sha256 => bytes(hex).map(Value::Sha256),
            Algorithm::Sha512 => bytes(hex).map(Value::Sha512),
        };
        if let Some(value) = value {
            return Ok(Digest(value));
        }
        let wrong = hex.chars().enumerate().find(|(_, c)| !matches!(c, '0'..='9' | 'a'..='f'));
        Err(match wrong {
            Some((position, found)) => DigestError::Character { algorithm, found, position: position + 1 },
            None => DigestError::Length { algorithm, found: hex.len() },
        })
    }
}

/// So many bytes from twice as many hexadecimal digits.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let (mut bytes, mut seen) = ([0; N], 0);
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (hex.len() == 2 * N && seen < 16).then_some(bytes)
}

/// What each character is worth as a hexadecimal digit; those that are none have a bit that no digit has.
const VALUES: [u8; 256] = {
    let (mut values, mut n) = ([16; 256], 0);
    while n < 16 {
        values[DIGITS[n] as usize] = n as u8;
        n += 1;
    }
    values
};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        match Algorithm::named(algorithm) {
            Some(algorithm) => Digest::with_hex(algorithm, hex),
            None => Err(DigestError::Algorithm { algorithm: algorithm.chars().take(32).collect() }),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Digest, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes content as it passes and counts it.
#[derive(Clone)]
pub struct Hasher {
    context: Context,
    length: u64,
}

impl Hasher {
    /// A hasher for SHA-256 that has seen nothing.
    pub fn new() -> Hasher {
        Hasher::by(Algorithm::Sha256)
    }

    /// A hasher for this algorithm that has seen nothing.
    pub fn by(algorithm: Algorithm) -> Hasher {
        let context = match algorithm {
            Algorithm::Sha256 => Context::new(&SHA256),
            Algorithm::Sha512 => Context::new(&SHA512),
        };
        Hasher { context, length: 0 }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// How it hashes.
    pub fn algorithm(&self) -> Algorithm {
        match self.context.algorithm() {
            known if *known == SHA512 => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        }
    }

    /// How many bytes were taken in.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes, and how many they were.
    pub fn finish(self) -> (Digest, u64) {
        let hash = self.context.finish();
        let value = match hash.as_ref().try_into() {
            Ok(bytes) => Value::Sha256(bytes),
            Err(_) => Value::Sha512(hash.as_ref().try_into().expect("a hash that is not SHA-256 is SHA-512")),
        };
        (Digest(value), self.length)
    }
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher::new()
    }
}

/// The bytes that came are not the bytes that were expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} over {expected_size} bytes, found {found} over {found_size} bytes")]
pub struct Mismatch {
    /// The digest that was asked for.
    pub expected: Digest,
    /// The size in bytes that was asked for.
    pub expected_size: u64,
    /// The digest of what was read; when there is more than was expected, of that much and one byte.
    pub found: Digest,
    /// How many bytes were read; when there is more than was expected, one more than that.
    pub found_size: u64,
}

/// A whole document in memory whose digest is known to be that of its bytes.
///
/// The parsers of manifests, indexes and configs take nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    bytes: Bytes,
    digest: Digest,
}

impl Verified {
    /// Compares the bytes with the digest they were asked for by.
    pub fn compare(bytes: impl Into<Bytes>, expected: &Digest) -> Result<Verified, Mismatch> {
        let seen = Verified::by(expected.algorithm(), bytes);
        if seen.digest == *expected {
            return Ok(seen);
        }
        Err(Mismatch { expected: *expected, expected_size: seen.size(), found: seen.digest, found_size: seen.size() })
    }

    /// Hashes bytes that were asked for by a tag: the digest is what these bytes have by SHA-256.
    pub fn hash(bytes: impl Into<Bytes>) -> Verified {
        Verified::by(Algorithm::Sha256, bytes)
    }

    /// Hashes bytes by this algorithm.
    pub fn by(algorithm: Algorithm, bytes: impl Into<Bytes>) -> Verified {
        let bytes = bytes.into();
        let digest = Digest::by(algorithm, &bytes);
        Verified { bytes, digest }
    }

    /// The bytes, as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes there are.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Reads content and fails before its last bytes are handed out if the whole is not what was expected.
///
/// The failure is an [`io::Error`] of kind `InvalidData` that carries a [`Mismatch`]; see [`mismatch_in`].
pub struct VerifyReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: u64,
}

impl<R: Read> VerifyReader<R> {
    /// Reads from `inner`, which should yield exactly `size` bytes with the digest `expected`.
    pub fn new(inner: R, expected: Digest, size: u64) -> VerifyReader<R> {
        VerifyReader { inner, hasher: Some(Hasher::by(expected.algorithm())), expected, size }
    }

    /// The size in bytes that is expected.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it reads from.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    fn conclude(&mut self, extra: &[u8]) -> io::Result<()> {
        let Some(mut hasher) = self.hasher.take() else { return Ok(()) };
        hasher.update(extra);
        let (found, found_size) = hasher.finish();
        if found == self.expected && found_size == self.size {
            return Ok(());
        }
        let wrong = Mismatch { expected: self.expected, expected_size: self.size, found, found_size };
        Err(io::Error::new(io::ErrorKind::InvalidData, wrong))
    }
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(hasher) = &mut self.hasher else { return Ok(0) };
        if buf.is_empty() {
            return Ok(0);
        }
        let left = self.size - hasher.length();
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.inner.read(&mut buf[..want])?;
        hasher.update(&buf[..n]);
        let whole = hasher.length() == self.size;
        if n == 0 && !whole {
            self.conclude(&[])?;
        }
        if whole {
            let mut more = [0; 1];
            let extra = read_one(&mut self.inner, &mut more)?;
            self.conclude(&more[..extra])?;
        }
        Ok(n)
    }
}

fn read_one(inner: &mut impl Read, buf: &mut [u8; 1]) -> io::Result<usize> {
    loop {
        match inner.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The [`Mismatch`] that a [`VerifyReader`] put into this error, if that is why it failed.
pub fn mismatch_in(error: &io::Error) -> Option<&Mismatch> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// FIPS 180-4's example of SHA-512: "abc".
    const ABC: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn parses_what_it_prints() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().to_string(), EMPTY);
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let abc = ABC.parse::<Digest>().unwrap();
        assert_eq!((abc.to_string().as_str(), abc.algorithm()), (ABC, Algorithm::Sha512));
        assert_eq!(Digest::by(Algorithm::Sha512, b"abc"), abc);
        assert_eq!(abc.path(), format!("blobs/sha512/{}", &ABC[7..]));
    }

    #[test]
    fn refuses_what_is_no_digest() {
        let hex = &EMPTY[7..];
        let upper = format!("sha256:{}", hex.to_uppercase());
        let bad = [
            String::new(),
            "sha256".into(),
            hex.into(),
            "sha256:".into(),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            upper,
            format!("SHA256:{hex}"),
            format!("sha512:{hex}"),
            format!("sha256:{}", &ABC[7..]),
            format!("{ABC}0"),
            format!("sha384:{}", &ABC[7..103]),
            format!("md5:{hex}"),
            format!("sha256+b64:{hex}"),
            format!("sha256:../../../{}", &hex[9..]),
            format!("sha256:{}\0", &hex[1..]),
            format!("sha256:{}", "٣".repeat(32)),
            format!("sha256:{}", "a".repeat(1 << 20)),
            format!(" {EMPTY}"),
        ];
        for text in bad {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn reader_withholds_the_end_of_wrong_content() {
        for algorithm in Algorithm::ALL {
            withholds_the_end_of_wrong_content(algorithm);
        }
    }

    fn withholds_the_end_of_wrong_content(algorithm: Algorithm) {
        let good = b"some content of a layer";
        let digest = Digest::by(algorithm, good);
        let read = |bytes: &[u8], size: u64| {
            let mut out = Vec::new();
            let mut reader = VerifyReader::new(bytes, digest, size);
            let mut buf = [0; 7];
            loop {
                match reader.read(&mut buf) {
                    Ok(0) => return (out, None),
                    Ok(n) => out.extend_from_slice(&buf[..n]),
                    Err(e) => return (out, Some(mismatch_in(&e).unwrap().clone())),
                }
            }
        };
        assert_eq!(read(good, 23), (good.to_vec(), None));
        let mut flipped = *good;
        flipped[3] ^= 1;
        for (bytes, size) in [(&flipped[..], 23), (&good[..22], 23), (&good[..], 22), (&[good, &b"x"[..]].concat(), 23), (b"", 23)] {
            let (out, wrong) = read(bytes, size);
            assert!((out.len() as u64) < size.max(1), "{} bytes came out", out.len());
            assert_eq!(wrong.unwrap().expected, digest);
        }
        let mut nothing = Vec::new();
        VerifyReader::new(&b""[..], Digest::of(b""), 0).read_to_end(&mut nothing).unwrap();
        assert!(VerifyReader::new(&b"x"[..], Digest::of(b""), 0).read_to_end(&mut nothing).is_err());
    }
}
