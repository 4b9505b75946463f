//! Manifests, indexes, configs and platforms: only what larder reads of them.
//!
//! The bytes stay as they came and are never written again from these types. Always true: a document was parsed from
//! [`Verified`] bytes, at most [`DOCUMENT_LIMIT`] of them, and says the same to every reader of JSON; a
//! layer that engines cannot unpack or that lies elsewhere is refused by name.

mod layout;
mod platform;
mod unpack;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Verified};
use crate::json;
pub use layout::{Layout, Listed};
pub use platform::{Platform, PlatformError};
pub(crate) use unpack::unpacked;

/// The most bytes a manifest, index or config may have: 4 MiB
/// ([distribution-spec, Pushing Manifests](https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests)).
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// The most layers an image may have.
const LAYER_LIMIT: usize = 4096;

/// The most manifests an index may list.
const INDEX_LIMIT: usize = 10_000;

/// Names content by what it is, what it hashes to and how long it is
/// ([image-spec, descriptor.md](https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the content.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
}

/// The manifests of one image for several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The images, in order; attestations and other entries without a platform of their own are left out.
    pub manifests: Vec<(Option<Platform>, Descriptor)>,
    /// How many entries are left out.
    pub others: usize,
}

/// The config and the layers of an image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config; its digest is the image ID.
    pub config: Descriptor,
    /// The layers from the base up.
    pub layers: Vec<Descriptor>,
    /// Whether larder made it, for an image that came without a manifest: no registry has it.
    pub unproved: bool,
}

/// What a config says that an image is identified by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The platform that the image is for.
    pub platform: Platform,
    /// The digests of the unpacked layers from the base up.
    pub diff_ids: Vec<Digest>,
}

/// What a reference can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Several platforms.
    Index(Index),
    /// One platform.
    Manifest(Manifest),
}

/// One platform's manifest, config and layers, and the root they were reached from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What the reference named: the index, or the manifest itself.
    pub root: Descriptor,
    /// The platform's manifest.
    pub manifest: Descriptor,
    /// The config; its digest is the image ID.
    pub config: Descriptor,
    /// The layers from the base up; one blob may stand there more than once.
    pub layers: Vec<Descriptor>,
    /// The platform, as the config names it.
    pub platform: Platform,
    /// The digests of the unpacked layers from the base up.
    pub diff_ids: Vec<Digest>,
    /// Whether larder made the manifest, for an image that came without one: no registry has it.
    pub unproved: bool,
}

/// How a layer's bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar archive.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A document is not an image that larder can keep.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is no JSON, ambiguous JSON, or lacks something.
    #[error("the document {digest} cannot be read")]
    Json {
        /// Which document.
        digest: Digest,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// Schema 1 manifests are signed texts without content digests.
    #[error("the manifest {digest} is of Docker's schema 1, which no current engine loads")]
    SchemaOne {
        /// Which document.
        digest: Digest,
    },
    /// It has the fields of an index and of a manifest, or of neither, or its media type says otherwise.
    #[error("the document {digest} is not what its media type says")]
    Confused {
        /// Which document.
        digest: Digest,
        /// What it says it is, or was said to be.
        media_type: String,
        /// What its fields are those of.
        found: &'static str,
    },
    /// A media type that larder does not know.
    #[error("{digest} is of a kind that is not a container image: {media_type}")]
    NotAnImage {
        /// Which content.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer that is not in the registry but elsewhere.
    #[error("the layer {digest} is foreign (not distributable), which larder does not fetch")]
    Foreign {
        /// Which layer.
        digest: Digest,
    },
    /// An index that lists indexes.
    #[error("the index lists another index, {digest}, which larder does not follow")]
    Nested {
        /// The inner index.
        digest: Digest,
    },
    /// More parts than any real image has.
    #[error("the document {digest} lists {found} parts, more than the {limit} that larder takes")]
    TooMany {
        /// Which document.
        digest: Digest,
        /// How many parts it lists.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// Config and manifest count the layers differently.
    #[error("the config {digest} has {diff_ids} diff IDs for {layers} layers")]
    LayerCount {
        /// The config.
        digest: Digest,
        /// How many diff IDs it lists.
        diff_ids: usize,
        /// How many layers the manifest lists.
        layers: usize,
    },
    /// An inline copy of some content is not that content.
    #[error("the inline data of {digest} is not what its digest says")]
    InlineData {
        /// The descriptor's digest.
        digest: Digest,
    },
    /// A document is longer than [`DOCUMENT_LIMIT`].
    #[error("the document {digest} is said to have {size} bytes, more than the {limit} that larder reads")]
    TooLarge {
        /// Which document.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many are allowed.
        limit: u64,
    },
}

impl Index {
    /// The manifest for this platform, or the platforms on offer when there is none.
    pub fn select(&self, platform: &Platform) -> Result<&Descriptor, Vec<Platform>> {
        let ranked = self.manifests.iter().filter_map(|(p, d)| Some((p.as_ref().and_then(|p| platform.rank(p))?, d)));
        // The first of equals, as containerd takes it.
        match ranked.min_by_key(|(rank, _)| *rank) {
            Some((_, descriptor)) => Ok(descriptor),
            None => Err(self.platforms()),
        }
    }

    /// The platforms on offer, in the index's order.
    pub fn platforms(&self) -> Vec<Platform> {
        self.manifests.iter().filter_map(|(p, _)| p.clone()).collect()
    }
}

impl Descriptor {
    /// How a layer is compressed, by its media type; `None` if this is not a layer that engines unpack.
    pub fn compression(&self) -> Option<Compression> {
        match self.media_type.as_str() {
            DOCKER_LAYER_GZIP | "application/vnd.oci.image.layer.v1.tar+gzip" => Some(Compression::Gzip),
            "application/vnd.docker.image.rootfs.diff.tar.zstd" | "application/vnd.oci.image.layer.v1.tar+zstd" => Some(Compression::Zstd),
            "application/vnd.docker.image.rootfs.diff.tar" | "application/vnd.oci.image.layer.v1.tar" => Some(Compression::None),
            _ => None,
        }
    }
}

/// Media types of an index, for the `Accept` header and to tell documents apart.
pub const INDEX_TYPES: [&str; 2] = ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
/// Media types of a manifest.
pub const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIG_TYPES: [&str; 2] = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// The annotation of a manifest that larder made, since the image came without one.
pub const UNPROVED: &str = "larder.unproved";
const KEYS: [&str; 14] = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "digest",
    "size",
    "urls",
    "data",
    "platform",
    "annotations",
    "fsLayers",
    "os.version",
    "subject",
];
const CONFIG_KEYS: [&str; 5] = ["architecture", "os", "variant", "rootfs", "diff_ids"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default, deserialize_with = "json::null_is_default")]
    schema_version: u64,
    #[serde(default, deserialize_with = "json::null_is_default")]
    media_type: String,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "json::null_is_default")]
    annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default, deserialize_with = "json::null_is_default")]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, deserialize_with = "json::null_is_default")]
    urls: Vec<String>,
    data: Option<String>,
    platform: Option<RawPlatform>,
    #[serde(default, deserialize_with = "json::null_is_default")]
    annotations: HashMap<String, String>,
}

impl RawDescriptor {
    fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
    }
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default, deserialize_with = "json::null_is_default")]
    os: String,
    #[serde(default, deserialize_with = "json::null_is_default")]
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default, deserialize_with = "json::null_is_default")]
    os: String,
    #[serde(default, deserialize_with = "json::null_is_default")]
    architecture: String,
    variant: Option<String>,
    rootfs: Option<RawRootfs>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "json::null_is_default")]
    diff_ids: Vec<Digest>,
}

impl Document {
    /// Reads an index or a manifest.
    ///
    /// `said` is the media type that a descriptor or a registry gave it; what the document says of itself and what it contains must agree with it.
    /// Returns the document and its descriptor.
    pub fn parse(bytes: &Verified, said: Option<&str>) -> Result<(Document, Descriptor), DocumentError> {
        let digest = bytes.digest();
        if said.is_some_and(|s| s.starts_with("application/vnd.docker.distribution.manifest.v1+")) {
            return Err(DocumentError::SchemaOne { digest });
        }
        let raw: RawDocument = json::parse(bytes.bytes(), &KEYS).map_err(|source| DocumentError::Json { digest, source })?;
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(DocumentError::SchemaOne { digest });
        }
        let said = said.map(|s| s.split(';').next().unwrap_or(s).trim()).filter(|s| !UNSAID.contains(s));
        let own = Some(raw.media_type.as_str()).filter(|s| !s.is_empty());
        let found = match (raw.manifests.is_some(), raw.layers.is_some() || raw.config.is_some()) {
            (true, false) => Kind::Index,
            (false, true) => Kind::Manifest,
            (true, true) => return Err(confused(digest, own.or(said), "both an index and a manifest")),
            (false, false) => return Err(confused(digest, own.or(said), "neither an index nor a manifest")),
        };
        for media_type in [said, own].into_iter().flatten() {
            match Kind::of(media_type) {
                None => return Err(DocumentError::NotAnImage { digest, media_type: media_type.to_owned() }),
                Some(kind) if kind != found => return Err(confused(digest, Some(media_type), found.words())),
                Some(_) => {}
            }
        }
        if let (Some(said), Some(own)) = (said, own)
            && said != own
        {
            return Err(confused(digest, Some(said), "a document that calls itself otherwise"));
        }
        let media_type = own.or(said).unwrap_or(found.default_type()).to_owned();
        let descriptor = Descriptor { media_type, digest, size: bytes.size() };
        let document = match found {
            Kind::Index => Document::Index(index(digest, raw.manifests.unwrap_or_default())?),
            Kind::Manifest => {
                let unproved = raw.annotations.contains_key(UNPROVED);
                Document::Manifest(Manifest { unproved, ..manifest(&descriptor, raw.config, raw.layers)? })
            }
        };
        Ok((document, descriptor))
    }
}

impl Image {
    /// Puts an image together from its parts; config and manifest must count the same layers.
    pub fn new(root: Descriptor, manifest: Descriptor, parts: Manifest, config: Config) -> Result<Image, DocumentError> {
        let (diff_ids, layers) = (config.diff_ids.len(), parts.layers.len());
        if diff_ids != layers {
            return Err(DocumentError::LayerCount { digest: parts.config.digest, diff_ids, layers });
        }
        let unproved = parts.unproved;
        Ok(Image {
            root,
            manifest,
            config: parts.config,
            layers: parts.layers,
            platform: config.platform,
            diff_ids: config.diff_ids,
            unproved,
        })
    }

    /// Every blob of the image once: root, manifest, config, layers.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        each_once([&self.root, &self.manifest, &self.config].into_iter().chain(&self.layers))
    }

    /// The size of all its blobs in bytes, each counted once.
    pub fn size(&self) -> u64 {
        self.blobs().iter().map(|d| d.size).fold(0, u64::saturating_add)
    }
}

/// Of blobs that are named more than once, the first of each.
pub(crate) fn each_once<'a>(blobs: impl Iterator<Item = &'a Descriptor>) -> Vec<&'a Descriptor> {
    let mut seen = std::collections::HashSet::new();
    blobs.filter(|blob| seen.insert(blob.digest)).collect()
}

impl Config {
    /// Reads an image's config.
    pub fn parse(bytes: &Verified) -> Result<Config, DocumentError> {
        let digest = bytes.digest();
        let raw: RawConfig = json::parse(bytes.bytes(), &CONFIG_KEYS).map_err(|source| DocumentError::Json { digest, source })?;
        let platform = Platform::new(&raw.os, &raw.architecture, raw.variant.as_deref());
        let platform = platform.ok_or_else(|| DocumentError::NotAnImage { digest, media_type: "a config without a platform".into() })?;
        Ok(Config { platform, diff_ids: raw.rootfs.map(|r| r.diff_ids).unwrap_or_default() })
    }
}

/// Media types that say nothing: servers send them for any file.
const UNSAID: [&str; 4] = ["", "application/octet-stream", "application/json", "text/plain"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Index,
    Manifest,
}

impl Kind {
    fn of(media_type: &str) -> Option<Kind> {
        if INDEX_TYPES.contains(&media_type) {
            return Some(Kind::Index);
        }
        MANIFEST_TYPES.contains(&media_type).then_some(Kind::Manifest)
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Index => "an index",
            Kind::Manifest => "a manifest",
        }
    }

    fn default_type(self) -> &'static str {
        match self {
            Kind::Index => INDEX_TYPES[0],
            Kind::Manifest => MANIFEST_TYPES[0],
        }
    }
}

fn confused(digest: Digest, media_type: Option<&str>, found: &'static str) -> DocumentError {
    DocumentError::Confused { digest, media_type: media_type.unwrap_or("nothing").to_owned(), found }
}

fn index(digest: Digest, entries: Vec<RawDescriptor>) -> Result<Index, DocumentError> {
    bounded(digest, entries.len(), INDEX_LIMIT)?;
    let listed = entries.len();
    let mut manifests = Vec::new();
    for entry in entries {
        let platform = entry.platform.as_ref().and_then(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref()));
        if entry.is_attestation() {
            continue;
        }
        let entry = checked(entry)?;
        match Kind::of(&entry.media_type) {
            Some(Kind::Manifest) => manifests.push((platform, document(entry)?)),
            Some(Kind::Index) => return Err(DocumentError::Nested { digest: entry.digest }),
            // OCI 1.1 lets an index list anything; what is no image is passed over.
            None => {}
        }
    }
    let others = listed - manifests.len();
    Ok(Index { manifests, others })
}

fn manifest(own: &Descriptor, config: Option<RawDescriptor>, layers: Option<Vec<RawDescriptor>>) -> Result<Manifest, DocumentError> {
    let digest = own.digest;
    let (Some(config), Some(layers)) = (config, layers) else {
        return Err(confused(digest, Some(&own.media_type), "a manifest without a config or layers"));
    };
    bounded(digest, layers.len(), LAYER_LIMIT)?;
    let config = document(checked(config)?)?;
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        return Err(DocumentError::NotAnImage { digest, media_type: config.media_type });
    }
    let layers = layers.into_iter().map(layer).collect::<Result<_, _>>()?;
    Ok(Manifest { config, layers, unproved: false })
}

fn layer(raw: RawDescriptor) -> Result<Descriptor, DocumentError> {
    let foreign = raw.media_type.contains("nondistributable") || raw.media_type.contains(".foreign.") || !raw.urls.is_empty();
    if foreign {
        return Err(DocumentError::Foreign { digest: raw.digest });
    }
    let layer = checked(raw)?;
    match layer.compression() {
        Some(_) => Ok(layer),
        None => Err(DocumentError::NotAnImage { digest: layer.digest, media_type: layer.media_type }),
    }
}

fn checked(raw: RawDescriptor) -> Result<Descriptor, DocumentError> {
    if let Some(data) = &raw.data {
        use base64::Engine;
        let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
        if Digest::of(&data) != raw.digest || data.len() as u64 != raw.size {
            return Err(DocumentError::InlineData { digest: raw.digest });
        }
    }
    Ok(Descriptor { media_type: raw.media_type, digest: raw.digest, size: raw.size })
}

fn document(d: Descriptor) -> Result<Descriptor, DocumentError> {
    match d.size {
        size if size > DOCUMENT_LIMIT => Err(DocumentError::TooLarge { digest: d.digest, size, limit: DOCUMENT_LIMIT }),
        _ => Ok(d),
    }
}

fn bounded(digest: Digest, found: usize, limit: usize) -> Result<(), DocumentError> {
    if found > limit { Err(DocumentError::TooMany { digest, found, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        Digest::of(&[n]).to_string()
    }

    fn manifest_with(fields: &str) -> String {
        let (config, layer) = (digest(1), digest(2));
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{layer}","size":7}}]{fields}}}"#
        )
    }

    fn layer_with(fields: &str) -> String {
        let (config, layer) = (digest(1), digest(2));
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{layer}"{fields}}}]}}"#
        )
    }

    fn parse(text: &str, said: Option<&str>) -> Result<Document, DocumentError> {
        Document::parse(&Verified::hash(text.to_owned()), said).map(|(document, _)| document)
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn media_type_and_content_must_agree() {
        let [oci, docker] = MANIFEST_TYPES;
        let [oci_index, docker_list] = INDEX_TYPES;
        let plain = manifest_with("");
        let typed = manifest_with(&format!(r#","mediaType":"{oci}""#));
        for said in [None, Some(oci), Some(docker), Some(""), Some("application/json; charset=utf-8")] {
            assert!(matches!(parse(&plain, said), Ok(Document::Manifest(_))), "{said:?}");
        }
        for said in [Some(oci_index), Some(docker_list)] {
            assert!(matches!(parse(&plain, said), Err(DocumentError::Confused { .. })), "{said:?}");
        }
        assert!(matches!(parse(&typed, Some(docker)), Err(DocumentError::Confused { .. })));
        assert!(matches!(parse(&typed, Some("text/html")), Err(DocumentError::NotAnImage { .. })));
        let both = manifest_with(r#","manifests":[]"#);
        assert!(matches!(parse(&both, None), Err(DocumentError::Confused { .. })));
        assert!(matches!(parse(r#"{"schemaVersion":2}"#, None), Err(DocumentError::Confused { .. })));
        let (_, descriptor) = Document::parse(&Verified::hash(plain), Some(docker)).unwrap();
        assert_eq!(descriptor.media_type, docker);
    }

    #[test]
    fn schema_one_and_foreign_layers_are_refused_by_name() {
        let said = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(parse("{}", Some(said)), Err(DocumentError::SchemaOne { .. })));
        assert!(matches!(parse(r#"{"schemaVersion":1,"fsLayers":[]}"#, None), Err(DocumentError::SchemaOne { .. })));
        assert!(matches!(parse(&layer_with(r#","size":7,"urls":["https://example.com"]"#), None), Err(DocumentError::Foreign { .. })));
        let foreign = manifest_with("").replace("layer.v1.tar+gzip", "layer.nondistributable.v1.tar+gzip");
        assert!(matches!(parse(&foreign, None), Err(DocumentError::Foreign { .. })));
        let odd = manifest_with("").replace("application/vnd.oci.image.config.v1+json", "application/vnd.cncf.helm.config.v1+json");
        assert!(matches!(parse(&odd, None), Err(DocumentError::NotAnImage { .. })));
    }

    #[test]
    fn descriptors_are_checked() {
        let good = layer_with(r#","size":7,"annotations":{"a":"b"}"#);
        assert!(parse(&good, None).is_ok());
        for bad in [
            r#","size":-1"#,
            r#","size":18446744073709551616"#,
            r#","size":1e3"#,
            r#","size":"12""#,
            "",
            r#","size":1,"size":1"#,
            r#","Size":7"#,
        ] {
            assert!(matches!(parse(&layer_with(bad), None), Err(DocumentError::Json { .. })), "{bad}");
        }
        assert!(matches!(parse(&layer_with(r#","size":1,"data":"Ag==""#), None), Ok(Document::Manifest(_))));
        assert!(matches!(parse(&layer_with(r#","size":1,"data":"Aw==""#), None), Err(DocumentError::InlineData { .. })));
        assert!(parse(&manifest_with("").replace(&digest(2), "sha256:../../etc/passwd"), None).is_err());
        let huge = manifest_with("").replace("\"size\":2", "\"size\":4194305");
        assert!(matches!(parse(&huge, None), Err(DocumentError::TooLarge { .. })));
    }

    #[test]
    fn an_index_offers_platforms_and_leaves_attestations_out() {
        let entry = |n: u8, rest: &str| format!(r#"{{"mediaType":"{}","digest":"{}","size":9{rest}}}"#, MANIFEST_TYPES[0], digest(n));
        let at = |p: &str| format!(r#","platform":{p}"#);
        let entries = [
            entry(1, &at(r#"{"os":"linux","architecture":"amd64"}"#)),
            entry(2, &at(r#"{"os":"linux","architecture":"arm","variant":"v6"}"#)),
            entry(3, &at(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#)),
            entry(4, &at(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#)),
            entry(5, &at(r#"{"os":"unknown","architecture":"unknown"}"#)),
            entry(
                6,
                &format!(
                    r#"{},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}"#,
                    at(r#"{"os":"linux","architecture":"amd64"}"#)
                ),
            ),
        ];
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        let Document::Index(index) = parse(&text, Some(INDEX_TYPES[0])).unwrap() else { panic!("no index") };
        let chosen = |p: &str| index.select(&platform(p)).ok().map(|d| d.digest.to_string());
        assert_eq!(chosen("linux/x86_64"), Some(digest(1)));
        assert_eq!(chosen("linux/arm/v7"), Some(digest(3)));
        assert_eq!(chosen("linux/arm/v6"), Some(digest(2)));
        assert_eq!(chosen("linux/arm/v8"), Some(digest(3)));
        assert_eq!(chosen("linux/arm/v5"), None);
        assert_eq!(chosen("linux/aarch64"), Some(digest(4)));
        assert_eq!(chosen("linux/s390x"), None);
        assert_eq!(index.platforms().len(), 4);
        let nested = text.replace(MANIFEST_TYPES[0], INDEX_TYPES[0]);
        assert!(matches!(parse(&nested, None), Err(DocumentError::Nested { .. })));
    }

    #[test]
    fn config_and_manifest_count_the_same_layers() {
        let Document::Manifest(parts) = parse(&manifest_with(""), None).unwrap() else { panic!("no manifest") };
        let config =
            |ids: &str| Config::parse(&Verified::hash(format!(r#"{{"os":"linux","architecture":"arm64","rootfs":{{"diff_ids":{ids}}}}}"#)));
        let root = parts.config.clone();
        let image = |ids: &str| Image::new(root.clone(), root.clone(), parts.clone(), config(ids).unwrap());
        assert!(image(&format!(r#"["{}"]"#, digest(9))).is_ok());
        assert!(matches!(image("null"), Err(DocumentError::LayerCount { .. })));
        assert!(matches!(image(&format!(r#"["{0}","{0}"]"#, digest(9))), Err(DocumentError::LayerCount { .. })));
        assert!(Config::parse(&Verified::hash("{}")).is_err());
        assert!(config(r#"["sha256:zz"]"#).is_err());
    }
}
