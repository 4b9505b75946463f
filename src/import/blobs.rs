//! The content of an archive's members, on its way into the store.
//!
//! Owns what came, by digest. Always true: every byte was hashed as it came; small texts stay in memory, of which there is a limit, all else is
//! staged on the disk without a name; a layer was unpacked and hashed in the same pass. Dropped, all of it is gone, and the store is as it was.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};

use super::error::ImportError;
use super::tar::of_content;
use super::wrap::{self, Form, STEP};
use crate::digest::{Digest, Hasher, Verified, VerifyReader};
use crate::oci::{Compression, DOCUMENT_LIMIT, Descriptor};
use crate::store::{Shared, Stage, Staged, Store};

type Result<T> = std::result::Result<T, ImportError>;

/// What may come of an archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The bytes of all texts that are kept in memory.
    pub(super) texts: u64,
    /// The bytes that a layer may unpack to.
    pub(super) unpacked: u64,
}

/// 32 MiB of texts, 256 GiB in a layer.
pub(super) const LIMITS: Limits = Limits { texts: 32 << 20, unpacked: 256 << 30 };

/// The texts that tell what is in an archive.
pub(super) const TEXTS: [&str; 3] = ["manifest.json", "index.json", "oci-layout"];

/// What came, by digest. While it is there nothing is removed from the store.
pub(super) struct Blobs {
    came: HashMap<Digest, Blob>,
    texts: u64,
    limits: Limits,
    store: Store,
    counted_on: Shared,
}

/// A member's content.
pub(super) struct Blob {
    pub(super) size: u64,
    pub(super) layer: Layer,
    place: Place,
}

enum Place {
    Memory(Verified),
    Staged(Staged),
    /// The store had it before.
    Store,
}

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

impl Blobs {
    pub(super) fn new(store: &Store, counted_on: Shared, limits: Limits) -> Blobs {
        Blobs { came: HashMap::new(), texts: 0, limits, store: store.clone(), counted_on }
    }

    /// Takes in a file of the archive, and gives its digest. A file that is named after its digest has to have it.
    pub(super) fn take(&mut self, path: &str, size: u64, mut content: impl Read + Send) -> Result<Digest> {
        let named = digest_in(path)?;
        let start = wrap::beginning(&mut content, 512).map_err(reading)?;
        let is_text = TEXTS.contains(&path) || looks_like_json(&start);
        let whole = Cursor::new(start.clone()).chain(content);
        let (digest, blob) = match size {
            size if is_text && size <= DOCUMENT_LIMIT => self.text(whole)?,
            size if TEXTS.contains(&path) => {
                return Err(ImportError::TextTooLarge { path: path.to_owned(), size, limit: DOCUMENT_LIMIT });
            }
            size => self.blob(named, size, Form::of(&start), whole)?,
        };
        if let Some(named) = named
            && named != digest
        {
            return Err(ImportError::WrongBlob { expected: named, found: digest, size: blob.size });
        }
        self.came.entry(digest).or_insert(blob);
        Ok(digest)
    }

    fn text(&mut self, mut content: impl Read + Send) -> Result<(Digest, Blob)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(reading)?;
        self.texts += bytes.len() as u64;
        if self.texts > self.limits.texts {
            return Err(ImportError::TooMuchText { limit: self.limits.texts });
        }
        let text = Verified::hash(bytes);
        let digest = text.digest();
        let layer = Layer::Of(Compression::None, digest);
        Ok((digest, Blob { size: text.size(), layer, place: Place::Memory(text) }))
    }

    fn blob(&self, named: Option<Digest>, size: u64, form: Form, content: impl Read + Send) -> Result<(Digest, Blob)> {
        let descriptor = |digest| Descriptor { media_type: String::new(), digest, size };
        let there = named.is_some_and(|digest| self.store.has(&descriptor(digest)));
        let stage = if there { None } else { Some(self.store.stage(size, &self.counted_on)?) };
        let mut tee = Tee { from: content, hasher: Hasher::new(), stage, failed: None };
        let layer = self.unpack(&mut tee, form)?;
        let (found, size) = tee.hasher.finish();
        let layer = layer.unwrap_or(Layer::Of(Compression::None, found));
        let place = match tee.stage {
            Some(stage) => Place::Staged(stage.finish(&self.store)?),
            None => Place::Store,
        };
        Ok((found, Blob { size, layer, place }))
    }

    /// Unpacks what is read and reads on to its end. What is plain unpacks to itself.
    fn unpack(&self, tee: &mut Tee<impl Read + Send>, form: Form) -> Result<Option<Layer>> {
        let layer = match form {
            Form::Layer(Compression::None) => None,
            Form::Layer(compression) => Some(unpacks_to(&mut *tee, compression, self.limits.unpacked)),
            Form::Xz => Some(Layer::Other("xz")),
            Form::Bzip2 => Some(Layer::Other("bzip2")),
        };
        let rest = if tee.failed.is_none() { drain(tee) } else { 0 };
        match (tee.failed.take(), layer) {
            (Some(error), _) => Err(error),
            (None, Some(Layer::Of(..))) if rest > 0 => Ok(Some(Layer::Broken("it has something behind its end".to_owned()))),
            (None, layer) => Ok(layer),
        }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<&Blob> {
        self.came.get(digest)
    }

    /// A text that came; `None` if it did not, or is none.
    pub(super) fn text_of(&self, digest: &Digest) -> Option<Verified> {
        match &self.came.get(digest)?.place {
            Place::Memory(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// What the store's blob is as a layer. It is read and unpacked, as if it had come.
    pub(super) fn layer_in_store(&self, blob: &Descriptor) -> Result<Layer> {
        let mut start = Vec::new();
        let stored: VerifyReader<File> = self.store.blob(blob)?;
        let mut tee = Tee { from: stored, hasher: Hasher::new(), stage: None, failed: None };
        (&mut tee).take(512).read_to_end(&mut start).map_err(reading)?;
        let form = Form::of(&start);
        let mut tee = Tee { from: Cursor::new(start).chain(tee), hasher: Hasher::new(), stage: None, failed: None };
        let layer = self.unpack(&mut tee, form)?;
        Ok(layer.unwrap_or(Layer::Of(Compression::None, blob.digest)))
    }

    /// Gives these blobs their names, and returns how many bytes the store lacked.
    pub(super) fn keep<'d>(&mut self, wanted: impl IntoIterator<Item = &'d Digest>) -> Result<u64> {
        let mut lacked = 0;
        for digest in wanted {
            let Some(blob) = self.came.get_mut(digest) else { continue };
            let size = blob.size;
            match std::mem::replace(&mut blob.place, Place::Store) {
                Place::Staged(staged) => lacked += if staged.name()? { size } else { 0 },
                Place::Memory(text) => {
                    let there = self.store.has(&Descriptor { media_type: String::new(), digest: *digest, size });
                    self.store.put(&text)?;
                    lacked += if there { 0 } else { size };
                }
                Place::Store => {}
            }
        }
        Ok(lacked)
    }
}

/// Reads, hashes and stages in one.
struct Tee<R> {
    from: R,
    hasher: Hasher,
    stage: Option<Stage>,
    /// What went wrong, other than with the decoder that reads this.
    failed: Option<ImportError>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let done = match self.from.read(into) {
            Ok(n) => {
                self.hasher.update(&into[..n]);
                self.stage.as_mut().map_or(Ok(()), |stage| stage.write(&into[..n])).map(|()| n).map_err(ImportError::from)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Err(e) => Err(reading(e)),
        };
        done.map_err(|error| {
            self.failed = Some(error);
            io::ErrorKind::Other.into()
        })
    }
}

fn reading(error: io::Error) -> ImportError {
    ImportError::Tar(of_content(error))
}

/// Reads to the end, or to what fails: a [`Tee`] remembers that.
fn drain(from: &mut impl Read) -> u64 {
    let (mut read, mut step) = (0, vec![0; STEP]);
    loop {
        match from.read(&mut step) {
            Ok(n) if n > 0 => read += n as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return read,
        }
    }
}

/// What a compressed layer unpacks to.
fn unpacks_to(layer: impl Read + Send, compression: Compression, limit: u64) -> Layer {
    let unpacked = || {
        let mut plain = wrap::unpacked(layer, compression)?.take(limit.saturating_add(1));
        let (mut hasher, mut step) = (Hasher::new(), vec![0; STEP]);
        loop {
            match plain.read(&mut step) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => hasher.update(&step[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    };
    match unpacked() {
        Ok((_, size)) if size > limit => Layer::TooLarge(limit),
        Ok((diff_id, _)) => Layer::Of(compression, diff_id),
        Err(error) => Layer::Broken(error.to_string()),
    }
}

/// The digest that a file is named after, where readers go by that: `blobs/sha256/<hex>`.
fn digest_in(path: &str) -> Result<Option<Digest>> {
    let Some(hex) = path.strip_prefix("blobs/sha256/") else { return Ok(None) };
    match Digest::from_hex(hex) {
        Ok(digest) => Ok(Some(digest)),
        Err(source) => Err(ImportError::BlobName { path: path.to_owned(), source }),
    }
}

fn looks_like_json(start: &[u8]) -> bool {
    matches!(start.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['))
}
