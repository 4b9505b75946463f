//! An image as one tar stream, out of the store.
//!
//! Owns the form of the archive: an OCI layout with the registry's own documents, and beside it the `manifest.json` that
//! docker reads, both pointing at the same blobs, so that every engine finds in it what it knows. Always true: the archive holds one
//! image under one name; its size is known before the first byte and the bytes are the same every time; every byte is hashed on its way out,
//! and what names the image comes last, so that a stream that was cut or ended on damage never names anything.
//!
//! Blocking. Sending it is the engines' affair.

pub mod donor;

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
    for blob in &missing {
        // One that is there with another size is damaged, which is not the same as missing.
        match store.blob(blob) {
            Ok(_) | Err(StoreError::Missing { .. }) => {}
            Err(damaged) => return Err(damaged.into()),
        }
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::digest::Verified;
    use crate::oci::{Config, Manifest};

    struct Made {
        folder: tempfile::TempDir,
        store: Store,
        image: Image,
        name: Name,
    }

    impl Made {
        fn path(&self, blob: &Descriptor) -> PathBuf {
            self.store.root().join("blobs/sha256").join(blob.digest.hex())
        }

        fn archive(&self, layers: Layers) -> Result<Archive, ArchiveError> {
            Archive::new(&self.store, &self.image, &self.name, layers)
        }

        fn flip(&self, blob: &Descriptor, at: usize) {
            let path = self.path(blob);
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1;
            fs::remove_file(&path).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    }

    /// An image of an index, with layers in gzip, zstd and gzip, the first once more at the end.
    fn made() -> Made {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let put = |media_type: &str, bytes: Vec<u8>| {
            let document = Verified::hash(bytes);
            store.put(&document).unwrap();
            Descriptor { media_type: media_type.to_owned(), digest: document.digest(), size: document.size() }
        };
        let plain = [vec![1; 700], (0..=255).cycle().take(400_000).collect(), Vec::new(), vec![1; 700]];
        let kind = |how: &str| format!("application/vnd.oci.image.layer.v1.tar+{how}");
        let layers: Vec<Descriptor> = plain
            .iter()
            .enumerate()
            .map(|(n, plain)| match n {
                1 => put(&kind("zstd"), zstd::bulk::compress(plain, 3).unwrap()),
                _ => put(&kind("gzip"), gzip(plain)),
            })
            .collect();
        let diff_ids: Vec<Digest> = plain.iter().map(|plain| Digest::of(plain)).collect();
        let text = serde_json::json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": diff_ids } }).to_string();
        let config = Config::parse(&Verified::hash(text.clone())).unwrap();
        let parts = Manifest { config: put("config", text.into_bytes()), layers };
        let image = Image::new(put("index", b"the index".to_vec()), put("manifest", b"the manifest".to_vec()), parts, config).unwrap();
        Made { folder, store, image, name: "redis:7".parse().unwrap() }
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut out = Vec::new();
        archive.write_to(&mut out).unwrap();
        assert_eq!(out.len() as u64, archive.size());
        out
    }

    fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let read = |entry: io::Result<tar::Entry<'_, _>>| {
            let mut entry: tar::Entry<'_, &[u8]> = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn one_archive_is_a_layout_and_a_docker_archive() {
        let made = made();
        let bytes = written(&made.archive(Layers::AsStored).unwrap());
        assert_eq!(bytes, written(&made.archive(Layers::AsStored).unwrap()), "the bytes are the same every time");
        let members = members(&bytes);
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let mut expected = vec!["oci-layout".to_owned()];
        expected.extend(made.image.blobs().iter().map(|blob| path(&blob.digest)));
        expected.extend(["index.json".to_owned(), "manifest.json".to_owned()]);
        assert_eq!(names, expected);
        for (name, content) in &members {
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(Digest::of(content).hex(), hex);
            }
        }
        let member: HashMap<_, _> =
            members.iter().map(|(name, content)| (name.as_str(), std::str::from_utf8(content).unwrap_or(""))).collect();
        let root = &made.image.root;
        assert_eq!(member["oci-layout"], r#"{"imageLayoutVersion":"1.0.0"}"#);
        assert_eq!(
            member["index.json"],
            format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"index","digest":"{}","size":9,"annotations":{{"io.containerd.image.name":"docker.io/library/redis:7","org.opencontainers.image.ref.name":"7"}}}}]}}"#,
                root.digest
            )
        );
        let layers: Vec<String> = made.image.layers.iter().map(|layer| format!("\"{}\"", path(&layer.digest))).collect();
        let (config, layers) = (path(&made.image.config.digest), layers.join(","));
        assert_eq!(
            member["manifest.json"],
            format!(r#"[{{"Config":"{config}","RepoTags":["docker.io/library/redis:7"],"Layers":[{layers}]}}]"#)
        );
    }

    #[test]
    fn zstd_layers_go_out_plain_and_compared() {
        let made = made();
        let bytes = written(&made.archive(Layers::WithoutZstd).unwrap());
        let members = members(&bytes);
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let plain = path(&made.image.diff_ids[1]);
        let [first, _, empty, _] = &made.image.layers[..] else { panic!("four layers") };
        assert_eq!(names, [&path(&made.image.config.digest), &path(&first.digest), &plain, &path(&empty.digest), "manifest.json"]);
        assert_eq!(Digest::of(&members[2].1), made.image.diff_ids[1]);
        let listed = [&path(&first.digest), &plain, &path(&empty.digest), &path(&first.digest)].map(|p| format!("\"{p}\"")).join(",");
        assert!(String::from_utf8_lossy(&members[4].1).contains(&listed));

        let mut wrong = made.image.clone();
        wrong.diff_ids[1] = wrong.diff_ids[0];
        let error = Archive::new(&made.store, &wrong, &made.name, Layers::WithoutZstd).err().unwrap();
        assert!(
            matches!(error, ArchiveError::DiffId { expected, found, .. } if expected == wrong.diff_ids[0] && found == made.image.diff_ids[1])
        );
    }

    #[test]
    fn damage_ends_the_archive_before_anything_is_named() {
        for layers in [Layers::AsStored, Layers::WithoutZstd] {
            for pick in 0..6 {
                for end in [false, true] {
                    let made = made();
                    let blob = made.image.blobs()[pick].clone();
                    if layers == Layers::WithoutZstd && pick < 2 {
                        continue;
                    }
                    let archive = made.archive(layers).unwrap();
                    made.flip(&blob, if end { blob.size as usize - 1 } else { 0 });
                    let mut out = Vec::new();
                    let error = archive.write_to(&mut out).unwrap_err();
                    assert!(
                        matches!(&error, ArchiveError::Store(StoreError::Damaged { found, .. }) if found.expected == blob.digest),
                        "{error:?}"
                    );
                    assert!(!out.windows(13).any(|w| w == b"manifest.json"), "{layers:?} {pick}");
                    assert!((out.len() as u64) < archive.size() && !made.store.has(&blob));
                }
            }
        }
    }

    #[test]
    fn a_layer_damaged_before_is_damage_and_not_bad_compression() {
        let made = made();
        let zstd = made.image.layers[1].clone();
        made.flip(&zstd, 0);
        let error = made.archive(Layers::WithoutZstd).err().unwrap();
        assert!(matches!(error, ArchiveError::Store(StoreError::Damaged { .. })), "{error:?}");
    }

    #[test]
    fn what_is_missing_is_counted() {
        let made = made();
        for blob in [&made.image.layers[0], &made.image.config] {
            fs::remove_file(made.path(blob)).unwrap();
        }
        let bytes = made.image.layers[0].size + made.image.config.size;
        let error = made.archive(Layers::AsStored).err().unwrap();
        assert!(
            matches!(error, ArchiveError::Incomplete { layers: 3, missing_layers: 1, missing_documents: 1, missing_bytes, .. } if missing_bytes == bytes)
        );
        fs::write(made.path(&made.image.config), "short").unwrap();
        assert!(matches!(made.archive(Layers::AsStored).err().unwrap(), ArchiveError::Store(StoreError::Damaged { .. })));
        drop(made.folder);
    }

    #[test]
    fn who_takes_no_more_ends_the_archive() {
        let made = made();
        let error = made.archive(Layers::AsStored).unwrap().write_to(&mut [0; 1000].as_mut_slice()).unwrap_err();
        assert!(matches!(error, ArchiveError::Write { .. }));
    }
}
