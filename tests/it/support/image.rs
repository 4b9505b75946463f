//! Images made in memory: small, the same bytes on every run, with what real images have and simple ones lack.
//!
//! Every image has a few layers of files and then the odd ones: whiteouts, an opaque directory, links, names longer
//! than a tar header holds, an empty layer, and its first layer once more. Nothing in it can be run; images that
//! run come from `fixtures/make-image.py`, and small ones from [`plain::Plain`].

pub mod plain;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use flate2::GzBuilder;
use larder::digest::{Algorithm, Digest};
use larder::oci::{Descriptor, Platform};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::registry::Registry;

/// Whose media types a document and its layers bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// `application/vnd.oci.image…`
    Oci,
    /// `application/vnd.docker…`, schema 2
    Docker,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar archives.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// gzip, Zstandard and plain in turn.
    Mixed,
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Tells this image's files from those of all others.
    pub seed: &'static str,
    /// How many layers of files there are before the odd ones.
    pub layers: usize,
    /// About how many bytes a layer of files unpacks to.
    pub layer_size: usize,
    /// Whose media types.
    pub media: Media,
    /// How layers are compressed.
    pub compression: Compression,
    /// The platforms, as `os/architecture[/variant]`.
    pub platforms: Vec<&'static str>,
    /// Whether an index names the manifests; without one, the root is the first platform's manifest.
    pub index: bool,
    /// Whether the index also lists an attestation for every manifest, as buildx writes them.
    pub attestations: bool,
    /// How many more indexes stand around the index, each listing the one in it.
    pub around: usize,
    /// The algorithm that documents and layers are named by.
    pub algorithm: Algorithm,
    /// Changes the last layer of files and the config, as the next release of the same image would.
    pub revision: u32,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            seed: "",
            layers: 4,
            layer_size: 20_000,
            media: Media::Oci,
            compression: Compression::Gzip,
            platforms: vec!["linux/amd64", "linux/arm64"],
            index: true,
            attestations: false,
            around: 0,
            algorithm: Algorithm::Sha256,
            revision: 1,
        }
    }
}

/// An image as a registry would serve it.
#[derive(Debug, Clone)]
pub struct Made {
    /// The index, or the only manifest.
    pub root: Descriptor,
    /// The indexes between the root and the manifests.
    pub via: Vec<Descriptor>,
    /// The images, one for each platform, in the recipe's order.
    pub platforms: Vec<OnePlatform>,
    /// Every blob and document by its digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// The documents among the blobs that are served as manifests: the root, what it lists, attestations.
    pub documents: Vec<Descriptor>,
}

/// What one platform's image consists of.
#[derive(Debug, Clone)]
pub struct OnePlatform {
    /// The platform.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its config; the digest is the image ID.
    pub config: Descriptor,
    /// Its layers from the base up; the last is the first again.
    pub layers: Vec<Descriptor>,
    /// The digests of the unpacked layers.
    pub diff_ids: Vec<Digest>,
}

impl Recipe {
    /// Makes the image.
    pub fn make(&self) -> Made {
        let mut blobs = Blobs(BTreeMap::new(), self.algorithm);
        let platforms: Vec<_> = self.platforms.iter().map(|p| self.platform(p, &mut blobs)).collect();
        let mut documents: Vec<_> = platforms.iter().map(|p| p.manifest.clone()).collect();
        let root = if self.index { self.index(&platforms, &mut documents, &mut blobs) } else { documents[0].clone() };
        if self.index {
            documents.push(root.clone());
        }
        let mut indexes = vec![root];
        for _ in 0..self.around {
            let (media_type, inner) = (self.media.index(), &indexes[0]);
            let outer = blobs.put_json(media_type, &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [inner] }));
            documents.push(outer.clone());
            indexes.insert(0, outer);
        }
        Made { root: indexes.remove(0), via: indexes, platforms, blobs: blobs.0, documents }
    }

    fn platform(&self, name: &str, blobs: &mut Blobs) -> OnePlatform {
        let platform: Platform = name.parse().expect("a recipe names real platforms");
        let mut tars: Vec<_> = (0..self.layers).map(|n| self.files(n, &platform)).collect();
        tars.extend([whiteouts(), links(), long_names(), tar_of(&[])]);
        tars.extend(tars.first().cloned());

        let mut layers = Vec::new();
        for (n, tar) in tars.iter().enumerate() {
            // The repeated layer is to be the same blob, so it is compressed as the first was.
            let how = self.compression.of(if n + 1 == tars.len() { 0 } else { n });
            layers.push(blobs.put(self.media.layer(how), how.compress(tar)));
        }
        let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let config = blobs.put_json(self.media.config(), &self.config(&platform, &diff_ids));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": self.media.manifest(), "config": config, "layers": layers,
        });
        let manifest = blobs.put_json(self.media.manifest(), &manifest);
        OnePlatform { platform, manifest, config, layers, diff_ids }
    }

    /// A layer of files; half of every file is noise, so that it compresses about as real files do.
    fn files(&self, n: usize, platform: &Platform) -> Vec<u8> {
        const FILES: usize = 4;
        let last = n + 1 == self.layers;
        let revision = if last { self.revision } else { 0 };
        // The second layer holds the same files for every platform, as data packages do.
        let seed = format!("{}{n} {revision} {}", self.seed, if n == 1 { "all".to_owned() } else { platform.to_string() });
        let mut noise = Noise::new(&seed);
        let entries: Vec<_> = (0..FILES)
            .map(|i| {
                let size = self.layer_size / FILES;
                let mut content = noise.bytes(size / 2);
                content.extend(seed.bytes().chain(*b"\n").cycle().take(size - size / 2));
                Entry::file(format!("usr/share/layer{n}/{i}"), content)
            })
            .collect();
        tar_of(&entries)
    }

    fn config(&self, platform: &Platform, diff_ids: &[Digest]) -> Value {
        let mut config = json!({
            "created": "2021-05-03T00:00:00Z",
            "architecture": platform.architecture(),
            "os": platform.os(),
            "config": {
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": ["/bin/demo"],
                "Labels": { "revision": self.revision.to_string() },
            },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().enumerate().map(|(n, _)| {
                json!({ "created": "2021-05-03T00:00:00Z", "created_by": format!("ADD layer {n}") })
            }).chain([json!({ "created": "2021-05-03T00:00:00Z", "created_by": "ENTRYPOINT", "empty_layer": true })]).collect::<Vec<_>>(),
        });
        if let Some(variant) = platform.variant() {
            config["variant"] = variant.into();
        }
        config
    }

    fn index(&self, platforms: &[OnePlatform], documents: &mut Vec<Descriptor>, blobs: &mut Blobs) -> Descriptor {
        let mut entries: Vec<_> = platforms.iter().map(|p| listed(&p.manifest, &platform_of(&p.platform), &json!({}))).collect();
        if self.attestations {
            for p in platforms {
                let attestation = attestation(&p.manifest, blobs);
                let annotations = json!({
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": p.manifest.digest,
                });
                entries.push(listed(&attestation, &json!({ "os": "unknown", "architecture": "unknown" }), &annotations));
                documents.push(attestation);
            }
        }
        let media_type = self.media.index();
        blobs.put_json(media_type, &json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries }))
    }
}

impl Made {
    /// The image for a platform of the recipe.
    pub fn platform(&self, name: &str) -> &OnePlatform {
        let wanted: Platform = name.parse().expect("a test names real platforms");
        self.platforms.iter().find(|p| p.platform == wanted).expect("the recipe made that platform")
    }

    /// The bytes of a blob or document.
    pub fn bytes(&self, of: &Descriptor) -> &[u8] {
        &self.blobs[&of.digest]
    }

    /// Puts all of it into a registry, the root under a tag.
    pub fn serve(&self, registry: &Registry, repository: &str, tag: &str) {
        for (digest, bytes) in &self.blobs {
            registry.put_blob_as(*digest, bytes.clone());
        }
        for document in &self.documents {
            let tag = (document.digest == self.root.digest).then(|| tag.to_owned());
            for name in tag.into_iter().chain([document.digest.to_string()]) {
                registry.put_manifest(repository, &name, &document.media_type, self.bytes(document).to_vec());
            }
        }
    }

    /// Writes an OCI image layout whose only entry is the root, under a tag.
    pub fn write_layout(&self, dir: &Path, tag: &str) -> io::Result<()> {
        for (digest, bytes) in &self.blobs {
            let path = dir.join(digest.path());
            fs::create_dir_all(path.parent().expect("it is in a folder"))?;
            fs::write(path, bytes)?;
        }
        let mut entry = json!(self.root);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        fs::write(dir.join("index.json"), pretty(&json!({ "schemaVersion": 2, "manifests": [entry] })))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}

impl Media {
    fn index(self) -> &'static str {
        match self {
            Media::Oci => "application/vnd.oci.image.index.v1+json",
            Media::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn manifest(self) -> &'static str {
        match self {
            Media::Oci => "application/vnd.oci.image.manifest.v1+json",
            Media::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Media::Oci => "application/vnd.oci.image.config.v1+json",
            Media::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self, how: Compression) -> &'static str {
        match (self, how) {
            (Media::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Media::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Media::Oci, _) => "application/vnd.oci.image.layer.v1.tar",
            (Media::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Media::Docker, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            (Media::Docker, _) => "application/vnd.docker.image.rootfs.diff.tar",
        }
    }
}

impl Compression {
    /// How the layer at this place is compressed.
    fn of(self, n: usize) -> Compression {
        match self {
            Compression::Mixed => [Compression::Gzip, Compression::Zstd, Compression::None][n % 3],
            same => same,
        }
    }

    fn compress(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Compression::None | Compression::Mixed => tar.to_vec(),
            Compression::Gzip => {
                let mut out = GzBuilder::new().write(Vec::new(), flate2::Compression::new(6));
                out.write_all(tar).and_then(|()| out.finish()).expect("a Vec takes all bytes")
            }
            Compression::Zstd => zstd::bulk::compress(tar, 3).expect("zstd compresses what fits into memory"),
        }
    }
}

/// Blobs, and the algorithm that they are named by.
#[derive(Default)]
struct Blobs(BTreeMap<Digest, Vec<u8>>, Algorithm);

impl Blobs {
    fn put(&mut self, media_type: &str, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor { media_type: media_type.to_owned(), digest: Digest::by(self.1, &bytes), size: bytes.len() as u64 };
        self.0.insert(descriptor.digest, bytes);
        descriptor
    }

    fn put_json(&mut self, media_type: &str, document: &Value) -> Descriptor {
        self.put(media_type, pretty(document))
    }
}

/// Indented, as builders write it: a reader that writes it again would change the digest.
fn pretty(document: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(document).expect("a JSON value can be written")
}

fn platform_of(platform: &Platform) -> Value {
    let mut value = json!({ "os": platform.os(), "architecture": platform.architecture() });
    if let Some(variant) = platform.variant() {
        value["variant"] = variant.into();
    }
    value
}

fn listed(manifest: &Descriptor, platform: &Value, annotations: &Value) -> Value {
    let mut entry = json!(manifest);
    entry["platform"] = platform.clone();
    if annotations.as_object().is_some_and(|a| !a.is_empty()) {
        entry["annotations"] = annotations.clone();
    }
    entry
}

fn attestation(of: &Descriptor, blobs: &mut Blobs) -> Descriptor {
    let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "subject": [{ "digest": { "sha256": of.digest.hex() } }] });
    let statement = blobs.put_json("application/vnd.in-toto+json", &statement);
    let config =
        json!({ "architecture": "unknown", "os": "unknown", "config": {}, "rootfs": { "type": "layers", "diff_ids": [statement.digest] } });
    let config = blobs.put_json(Media::Oci.config(), &config);
    let manifest = json!({ "schemaVersion": 2, "mediaType": Media::Oci.manifest(), "config": config, "layers": [statement] });
    blobs.put_json(Media::Oci.manifest(), &manifest)
}

struct Entry {
    path: String,
    kind: EntryType,
    link: &'static str,
    content: Vec<u8>,
}

impl Entry {
    fn file(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Entry {
        Entry { path: path.into(), kind: EntryType::Regular, link: "", content: content.into() }
    }

    fn link(path: &str, kind: EntryType, link: &'static str) -> Entry {
        Entry { path: path.to_owned(), kind, link, content: Vec::new() }
    }
}

fn whiteouts() -> Vec<u8> {
    tar_of(&[Entry::file("usr/share/layer0/.wh.0", ""), Entry::file("usr/share/layer1/.wh..wh..opq", "")])
}

fn links() -> Vec<u8> {
    tar_of(&[
        Entry::file("opt/a", "one file\n".repeat(200)),
        Entry::link("opt/hard", EntryType::Link, "opt/a"),
        Entry::link("opt/up", EntryType::Symlink, "../../etc/passwd"),
        Entry::link("opt/absolute", EntryType::Symlink, "/usr/share"),
    ])
}

fn long_names() -> Vec<u8> {
    let entries: Vec<_> =
        (0..5).map(|n| Entry::file(format!("srv/{}/{}/{}{n}", "d".repeat(90), "e".repeat(90), "ü".repeat(40)), "x".repeat(n))).collect();
    tar_of(&entries)
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(0o644);
        header.set_mtime(1_620_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(entry.content.len() as u64);
        let added = match entry.kind {
            EntryType::Regular => tar.append_data(&mut header, &entry.path, entry.content.as_slice()),
            _ => tar.append_link(&mut header, &entry.path, entry.link),
        };
        added.expect("a Vec takes all bytes, and the names can be written");
    }
    tar.into_inner().expect("a Vec takes all bytes")
}

/// Bytes that look random and are the same on every run.
struct Noise(u64);

impl Noise {
    fn new(seed: &str) -> Noise {
        // FNV-1a: any function will do that is fixed, unlike the standard library's.
        Noise(seed.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) | 1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(count + 8);
        while out.len() < count {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            out.extend_from_slice(&self.0.to_le_bytes());
        }
        out.truncate(count);
        out
    }
}

#[cfg(test)]
mod tests {
    use larder::digest::Verified;
    use larder::oci::{Config, Document};

    use super::*;

    #[test]
    fn images_are_the_same_on_every_run_and_differ_between_revisions() {
        let one = Recipe::default().make();
        let again = Recipe::default().make();
        let next = Recipe { revision: 2, ..Recipe::default() }.make();
        assert_eq!(one.blobs, again.blobs);
        let (old, new) = (one.platform("linux/amd64"), next.platform("linux/amd64"));
        let changed: Vec<_> = (0..old.layers.len()).filter(|n| old.layers[*n] != new.layers[*n]).collect();
        assert_eq!(changed, [3], "only the last layer of files");
        assert_ne!(one.root.digest, next.root.digest);
    }

    #[test]
    fn larder_reads_every_kind_of_image_that_is_made_here() {
        for media in [Media::Oci, Media::Docker] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Mixed] {
                let made = Recipe { media, compression, attestations: true, ..Recipe::default() }.make();
                let verified = |of: &Descriptor| Verified::compare(made.bytes(of).to_vec(), &of.digest).unwrap();
                let Document::Index(index) = Document::parse(&verified(&made.root), None).unwrap().0 else { panic!("no index") };
                assert_eq!(index.manifests.len(), 2, "attestations are no images");
                for p in &made.platforms {
                    assert_eq!(index.select(&p.platform).unwrap().1, p.manifest);
                    let Document::Manifest(manifest) = Document::parse(&verified(&p.manifest), None).unwrap().0 else {
                        panic!("no manifest")
                    };
                    assert_eq!(manifest.layers, p.layers);
                    assert_eq!(manifest.layers.first(), manifest.layers.last());
                    assert_eq!(Config::parse(&verified(&manifest.config)).unwrap().diff_ids, p.diff_ids);
                }
            }
        }
    }
}
