//! An image as one tar stream, out of the store.
//!
//! Owns the form of the archive: an OCI layout with the registry's own documents, and beside it the `manifest.json` that
//! docker reads, both pointing at the same blobs, so that every engine finds in it what it knows. Always true: the archive holds one
//! image under one name; its size is known before the first byte and the bytes are the same every time; every byte is hashed on its way out,
//! and what names the image comes last, so that a stream that was cut or ended on damage never names anything.
//!
//! Blocking. Sending it is the engines' affair.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};

use serde::Serialize;

use crate::digest::{self, Digest, Hasher, VerifyReader};
use crate::oci::{Compression, Descriptor, Image};
use crate::reference::Name;
use crate::store::{Store, StoreError};

/// The unit of a tar archive: a header, and what content is filled up to.
const BLOCK: u64 = 512;
/// Two empty blocks end an archive.
const END: [u8; 1024] = [0; 1024];
/// How many bytes are copied at once.
const STEP: usize = 256 << 10;
/// The largest window a zstd layer may ask for, as a power of two: 128 MiB, which is what containerd and podman allow.
const WINDOW_LOG: u32 = 27;
/// The most bytes that a layer may unpack to.
const UNPACKED_LIMIT: u64 = 256 << 30;

/// An image that is about to leave the store.
pub struct Archive {
    store: Store,
    members: Vec<Member>,
}

/// How layers go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// As they are in the store.
    AsStored,
    /// Those compressed with zstd as plain tar archives, for docker before 23.
    WithoutZstd,
}

/// An image could not leave the store.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not all of it is in the store.
    #[error("{name} is not complete in the store: {missing_layers} of {layers} layers are missing, {missing_bytes} bytes in all")]
    Incomplete {
        /// The name it was to bear.
        name: Name,
        /// How many different layers it has.
        layers: usize,
        /// How many of them are missing.
        missing_layers: usize,
        /// How many of its index, manifest and config are missing.
        missing_documents: usize,
        /// The bytes of all that is missing.
        missing_bytes: u64,
    },
    /// The store could not give a blob, or found it damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob could not be read.
    #[error("cannot read {digest} from the store")]
    Read {
        /// Which blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The layer's bytes are what the manifest names, but they do not unpack.
    #[error("the layer {digest} cannot be unpacked")]
    Unpack {
        /// Which layer.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The layer's bytes are what the manifest names, but they unpack to more than larder handles.
    #[error("the layer {digest} unpacks to more than {limit} bytes")]
    TooLarge {
        /// Which layer.
        digest: Digest,
        /// The limit in bytes.
        limit: u64,
    },
    /// The layer's bytes are what the manifest names, but not what the config says they unpack to.
    #[error("the layer {digest} unpacks to {found}, and the image's config says {expected}")]
    DiffId {
        /// Which layer.
        digest: Digest,
        /// The diff ID in the config.
        expected: Digest,
        /// What it unpacks to.
        found: Digest,
    },
    /// Whoever takes the archive took no more.
    #[error("the archive could not be written")]
    Write {
        /// Why.
        source: io::Error,
    },
}

/// A file in the archive.
struct Member {
    path: String,
    size: u64,
    content: Content,
}

enum Content {
    Text(Vec<u8>),
    Blob(Descriptor),
    /// A layer that goes out unpacked, and its diff ID.
    Unpacked(Descriptor, Digest),
}

impl Archive {
    /// Checks that all is in the store and computes the size.
    ///
    /// With [`Layers::WithoutZstd`], zstd layers are unpacked once here, to learn their size and to compare them with their diff IDs.
    pub fn new(store: &Store, image: &Image, name: &Name, layers: Layers) -> Result<Archive, ArchiveError> {
        complete(store, image, name)?;
        let zstd = |layer: &Descriptor| layer.compression() == Some(Compression::Zstd);
        let members = match layers {
            Layers::WithoutZstd if image.layers.iter().any(zstd) => docker_members(store, image, name)?,
            _ => hybrid_members(image, name),
        };
        Ok(Archive { store: store.clone(), members })
    }

    /// The size of the archive in bytes.
    pub fn size(&self) -> u64 {
        let padded = |size: u64| size.div_ceil(BLOCK).saturating_mul(BLOCK);
        self.members.iter().map(|m| BLOCK + padded(m.size)).fold(END.len() as u64, u64::saturating_add)
    }

    /// Writes the archive, or the part of it that comes before the first damaged byte.
    pub fn write_to(&self, out: &mut dyn Write) -> Result<(), ArchiveError> {
        for member in &self.members {
            out.write_all(header(member).as_bytes()).map_err(write)?;
            match &member.content {
                Content::Text(text) => out.write_all(text).map_err(write)?,
                Content::Blob(blob) => self.copy_blob(blob, out)?,
                Content::Unpacked(layer, diff_id) => {
                    unpack(&self.store, layer, |plain| copy(&mut VerifyReader::new(plain, *diff_id, member.size), out))?;
                }
            }
            let filling = (BLOCK - member.size % BLOCK) % BLOCK;
            out.write_all(&END[..filling as usize]).map_err(write)?;
        }
        out.write_all(&END).map_err(write)?;
        out.flush().map_err(write)
    }

    fn copy_blob(&self, blob: &Descriptor, out: &mut dyn Write) -> Result<(), ArchiveError> {
        let mut stored = self.store.blob(blob)?;
        copy(&mut stored, out).map_err(|stopped| match stopped {
            Stopped::Writing(source) => write(source),
            Stopped::Reading(source) => match digest::mismatch_in(&source) {
                Some(found) => self.store.set_aside(blob, found).into(),
                None => ArchiveError::Read { digest: blob.digest, source },
            },
        })
    }
}

fn write(source: io::Error) -> ArchiveError {
    ArchiveError::Write { source }
}

/// Fails unless all of the image's blobs are there.
fn complete(store: &Store, image: &Image, name: &Name) -> Result<(), ArchiveError> {
    let layers: HashSet<Digest> = image.layers.iter().map(|l| l.digest).collect();
    let missing: Vec<&Descriptor> = image.blobs().into_iter().filter(|d| !store.has(d)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing_layers = missing.iter().filter(|d| layers.contains(&d.digest)).count();
    Err(ArchiveError::Incomplete {
        name: name.clone(),
        layers: layers.len(),
        missing_layers,
        missing_documents: missing.len() - missing_layers,
        missing_bytes: missing.iter().map(|d| d.size).fold(0, u64::saturating_add),
    })
}

/// An OCI layout that is a docker archive as well.
fn hybrid_members(image: &Image, name: &Name) -> Vec<Member> {
    let mut members = vec![text("oci-layout", &OciLayout { image_layout_version: "1.0.0" })];
    members.extend(image.blobs().into_iter().map(blob));
    let annotations = BTreeMap::from([
        // docker and containerd take the full name from the first, podman from the second or from manifest.json.
        ("io.containerd.image.name", name.to_string()),
        ("org.opencontainers.image.ref.name", name.tag().to_owned()),
    ]);
    members.push(text("index.json", &Index { schema_version: 2, manifests: [Entry { descriptor: &image.root, annotations }] }));
    let layers = image.layers.iter().map(|layer| path(&layer.digest)).collect();
    members.push(docker_manifest(image, name, layers));
    members
}

/// A docker archive whose zstd layers are plain.
///
/// It is no OCI layout, since the image's manifest does not name the layers in it. Docker before 23 reads `manifest.json` alone.
fn docker_members(store: &Store, image: &Image, name: &Name) -> Result<Vec<Member>, ArchiveError> {
    let mut members = vec![blob(&image.config)];
    let mut layers = Vec::new();
    let mut seen = HashSet::from([members[0].path.clone()]);
    for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
        let zstd = layer.compression() == Some(Compression::Zstd);
        let path = path(if zstd { diff_id } else { &layer.digest });
        if seen.insert(path.clone()) {
            members.push(if zstd { unpacked(store, layer, diff_id)? } else { blob(layer) });
        }
        layers.push(path);
    }
    members.push(docker_manifest(image, name, layers));
    Ok(members)
}

fn docker_manifest(image: &Image, name: &Name, layers: Vec<String>) -> Member {
    let entry = DockerEntry { config: path(&image.config.digest), repo_tags: [name.to_string()], layers };
    text("manifest.json", &[entry])
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(descriptor: &Descriptor) -> Member {
    Member { path: path(&descriptor.digest), size: descriptor.size, content: Content::Blob(descriptor.clone()) }
}

fn text(path: &str, document: &impl Serialize) -> Member {
    let text = serde_json::to_vec(document).expect("texts and numbers are always JSON");
    Member { path: path.to_owned(), size: text.len() as u64, content: Content::Text(text) }
}

fn unpacked(store: &Store, layer: &Descriptor, diff_id: &Digest) -> Result<Member, ArchiveError> {
    let mut hashed = Hashed(Hasher::new());
    unpack(store, layer, |plain| copy(&mut plain.take(UNPACKED_LIMIT + 1), &mut hashed))?;
    let (found, size) = hashed.0.finish();
    if size > UNPACKED_LIMIT {
        return Err(ArchiveError::TooLarge { digest: layer.digest, limit: UNPACKED_LIMIT });
    }
    if found != *diff_id {
        return Err(ArchiveError::DiffId { digest: layer.digest, expected: *diff_id, found });
    }
    Ok(Member { path: path(diff_id), size, content: Content::Unpacked(layer.clone(), *diff_id) })
}

struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `take` have what a zstd layer unpacks to.
fn unpack(store: &Store, layer: &Descriptor, take: impl FnOnce(&mut dyn Read) -> Result<(), Stopped>) -> Result<(), ArchiveError> {
    let mut stored = store.blob(layer)?;
    let source = match plain(&mut stored).map_err(Stopped::Reading).and_then(|mut plain| take(&mut plain)) {
        Ok(()) => return Ok(()),
        Err(Stopped::Writing(source)) => return Err(write(source)),
        Err(Stopped::Reading(source)) => source,
    };
    // A damaged layer rarely unpacks as far as its end, where the damage would show; it is the damage that counts.
    let rest = io::copy(&mut stored, &mut io::sink()).err();
    let damage = [Some(&source), rest.as_ref()].into_iter().flatten().filter_map(digest::mismatch_in).find(|m| m.expected == layer.digest);
    if let Some(damage) = damage {
        return Err(store.set_aside(layer, damage).into());
    }
    let digest = layer.digest;
    Err(match digest::mismatch_in(&source) {
        Some(other) => ArchiveError::DiffId { digest, expected: other.expected, found: other.found },
        None => ArchiveError::Unpack { digest, source },
    })
}

fn plain<R: Read>(stored: R) -> io::Result<impl Read> {
    let mut decoder = zstd::Decoder::new(stored)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

/// Which side of a copy failed.
enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Stopped> {
    let mut buffer = vec![0; STEP];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n]).map_err(Stopped::Writing)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Stopped::Reading(e)),
        }
    }
}

/// The same on every machine and at any time.
fn header(member: &Member) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_path(&member.path).expect("the paths are short and plain");
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(member.size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OciLayout {
    image_layout_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    manifests: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    descriptor: &'a Descriptor,
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: [String; 1],
    layers: Vec<String>,
}
