//! Manifests, indexes, configs and platforms: only what larder reads of them.
//!
//! The bytes stay as they came and are never written again from these types. Always true: a document was parsed from
//! [`Verified`] bytes, at most [`DOCUMENT_LIMIT`] of them, and says the same to every reader of JSON; a
//! layer that engines cannot unpack or that lies elsewhere is refused by name.

mod error;
mod layout;
mod platform;
mod raw;
mod referrer;
mod unpack;

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest, Verified};
use crate::json;
pub use error::DocumentError;
pub use layout::{Layout, Listed};
pub use platform::{Platform, PlatformError};
use raw::{RawConfig, RawDescriptor, RawDocument};
pub use referrer::{Referrer, listed_referrers, referrers_tag};
pub(crate) use unpack::unpacked;

/// The most bytes a manifest, index or config may have: 4 MiB
/// ([distribution-spec, Pushing Manifests](https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-manifests)).
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// The most layers an image may have.
const LAYER_LIMIT: usize = 4096;

/// The most manifests an index may list, and those that it lists.
pub(crate) const INDEX_LIMIT: usize = 10_000;

/// How many indexes may stand one in the other.
pub(crate) const INDEX_DEPTH: usize = 8;

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
    /// The images, in order, and indexes of images; left out are attestations, what is no image, and what needs features of
    /// the system that nobody can ask for.
    pub manifests: Vec<(Option<Platform>, Descriptor)>,
    /// How many entries are left out.
    pub others: usize,
}

/// The config and the layers of an image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// The layers from the base up.
    pub layers: Vec<Descriptor>,
    /// What kind of artifact it is, where it is no container image: a signature, a chart, a list of what is in an image.
    pub artifact: Option<String>,
    /// Whether larder made it, for an image that came without a manifest: no registry has it.
    pub unproved: bool,
}

/// What a config says that an image is identified by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The image ID: the digest of the config by SHA-256, whatever algorithm the manifest names it by.
    pub id: Digest,
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
    /// The indexes between the root and the manifest, from the root on.
    pub via: Vec<Descriptor>,
    /// The platform's manifest.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
    /// The layers from the base up; one blob may stand there more than once.
    pub layers: Vec<Descriptor>,
    /// The image ID: the digest of the config by SHA-256, as engines compute it.
    pub id: Digest,
    /// The platform, as the config names it.
    pub platform: Platform,
    /// The digests of the unpacked layers from the base up.
    pub diff_ids: Vec<Digest>,
    /// What kind of artifact it is, where it is no container image: then config and layers may be anything, and it is for no platform.
    pub artifact: Option<String>,
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

impl Index {
    /// The manifest for this platform, or the platforms on offer when there is none.
    ///
    /// As containerd chooses: the best of those that name a platform, the first of equals; else the first that names none.
    pub fn select(&self, platform: &Platform) -> Result<&(Option<Platform>, Descriptor), Vec<Platform>> {
        let ranked = self.manifests.iter().filter_map(|listed| Some((listed.0.as_ref().and_then(|p| platform.rank(p))?, listed)));
        let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, listed)| listed);
        let nameless = || self.manifests.iter().find(|(platform, _)| platform.is_none());
        best.or_else(nameless).ok_or_else(|| self.platforms())
    }

    /// The platforms on offer, in the index's order.
    pub fn platforms(&self) -> Vec<Platform> {
        self.manifests.iter().filter_map(|(p, _)| p.clone()).collect()
    }
}

impl Descriptor {
    /// Whether this is an index, by its media type.
    pub fn is_index(&self) -> bool {
        INDEX_TYPES.contains(&self.media_type.as_str())
    }

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
const KEYS: [&str; 16] = [
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
    "os.features",
    "subject",
    "artifactType",
];
const CONFIG_KEYS: [&str; 5] = ["architecture", "os", "variant", "rootfs", "diff_ids"];

impl Document {
    /// Reads an index or a manifest.
    ///
    /// `said` is the media type that a descriptor or a registry gave it; what the document says of itself and what it contains must agree with it.
    /// Returns the document and its descriptor.
    pub fn parse(bytes: &Verified, said: Option<&str>) -> Result<(Document, Descriptor), DocumentError> {
        let (raw, found, descriptor) = read(bytes, said)?;
        let digest = descriptor.digest;
        let document = match found {
            Kind::Index => Document::Index(index(digest, raw.manifests.unwrap_or_default())?),
            Kind::Manifest => {
                let unproved = raw.annotations.contains_key(UNPROVED);
                Document::Manifest(Manifest { unproved, ..manifest(&descriptor, raw.config, raw.layers, raw.artifact_type)? })
            }
        };
        Ok((document, descriptor))
    }
}

/// Reads a document as far as its kind is concerned: what it says, which of the two it is, and its descriptor.
fn read(bytes: &Verified, said: Option<&str>) -> Result<(RawDocument, Kind, Descriptor), DocumentError> {
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
    raw.subject.as_ref().map_or(Ok(()), RawDescriptor::check)?;
    let found = match (raw.manifests.is_some(), raw.layers.is_some() || raw.config.is_some()) {
        (true, false) => Kind::Index,
        (false, true) => Kind::Manifest,
        (true, true) => return Err(confused(digest, own.or(said), "both an index and a manifest")),
        (false, false) => return Err(confused(digest, own.or(said), "neither an index nor a manifest")),
    };
    for media_type in [said, own].into_iter().flatten() {
        match Kind::of(media_type) {
            None => return Err(DocumentError::not_an_image(digest, media_type)),
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
    Ok((raw, found, descriptor))
}

/// The content that a manifest or index brings with it, in the field `data` of its descriptors: nothing of it has to be fetched.
///
/// Of a document that cannot be read, nothing: [`Document::parse`] says what is wrong with it.
pub fn inline(bytes: &Verified) -> Vec<Verified> {
    const FIELD: &[u8] = b"\"data\"";
    if !bytes.bytes().windows(FIELD.len()).any(|window| window == FIELD) {
        return Vec::new();
    }
    let Ok(raw) = json::parse::<RawDocument>(bytes.bytes(), &KEYS) else { return Vec::new() };
    let listed = raw.config.iter().chain(raw.layers.iter().flatten()).chain(raw.manifests.iter().flatten());
    listed.filter_map(|raw| raw.inline().ok().flatten()).collect()
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
            via: Vec::new(),
            manifest,
            config: parts.config,
            layers: parts.layers,
            id: config.id,
            platform: config.platform,
            diff_ids: config.diff_ids,
            artifact: None,
            unproved,
        })
    }

    /// An artifact, of which there is nothing to know but its parts; `None` if this is a container image.
    pub fn of_artifact(root: &Descriptor, parts: &Manifest) -> Option<Image> {
        let artifact = Some(parts.artifact.clone()?);
        Some(Image {
            root: root.clone(),
            via: Vec::new(),
            manifest: root.clone(),
            id: parts.config.digest,
            config: parts.config.clone(),
            layers: parts.layers.clone(),
            platform: Platform::none(),
            diff_ids: Vec::new(),
            artifact,
            unproved: false,
        })
    }

    /// Every blob of the image once: root, indexes on the way, manifest, config, layers.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        each_once(self.documents().chain(&self.layers))
    }

    /// Its documents: root, indexes on the way, manifest, config.
    pub fn documents(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.root].into_iter().chain(&self.via).chain([&self.manifest, &self.config])
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
        let diff_ids = raw.rootfs.map(|r| r.diff_ids).unwrap_or_default();
        if let Some(found) = diff_ids.iter().find(|diff_id| diff_id.algorithm() != Algorithm::Sha256) {
            return Err(DocumentError::DiffId { digest, found: *found });
        }
        Ok(Config { id: Digest::of(bytes.bytes()), platform, diff_ids })
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
    DocumentError::Confused { digest, media_type: error::shown(media_type.unwrap_or("nothing")), found }
}

fn index(digest: Digest, entries: Vec<RawDescriptor>) -> Result<Index, DocumentError> {
    bounded(digest, entries.len(), INDEX_LIMIT)?;
    let listed = entries.len();
    let mut manifests = Vec::new();
    for entry in entries {
        let named = entry.platform.as_ref().filter(|p| !(p.os.is_empty() && p.architecture.is_empty()));
        let platform = named.map(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref()).filter(|_| p.features.is_empty()));
        // OCI 1.1 lets an index list anything; what is no image is passed over.
        let other = entry.is_attestation() || entry.artifact_type.is_some();
        let entry = checked(entry)?;
        if other {
            continue;
        }
        match (Kind::of(&entry.media_type), platform) {
            (Some(_), None) => manifests.push((None, document(entry)?)),
            (Some(_), Some(Some(platform))) => manifests.push((Some(platform), document(entry)?)),
            (None, _) | (_, Some(None)) => {}
        }
    }
    let others = listed - manifests.len();
    Ok(Index { manifests, others })
}

fn manifest(
    own: &Descriptor,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    artifact_type: Option<String>,
) -> Result<Manifest, DocumentError> {
    let digest = own.digest;
    let (Some(config), Some(layers)) = (config, layers) else {
        return Err(confused(digest, Some(&own.media_type), "a manifest without a config or layers"));
    };
    bounded(digest, layers.len(), LAYER_LIMIT)?;
    let config = document(checked(config)?)?;
    let artifact = if CONFIG_TYPES.contains(&config.media_type.as_str()) { None } else { Some(kind_of_artifact(&config, artifact_type)?) };
    let layers = layers.into_iter().map(|raw| layer(raw, artifact.is_some())).collect::<Result<_, _>>()?;
    Ok(Manifest { config, layers, artifact, unproved: false })
}

/// What an artifact is called: what its manifest says, or the media type of its config, as
/// [image-spec, manifest.md](https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md#guidelines-for-artifact-usage) has it.
fn kind_of_artifact(config: &Descriptor, said: Option<String>) -> Result<String, DocumentError> {
    let kind = said.filter(|kind| !kind.is_empty()).unwrap_or_else(|| config.media_type.clone());
    let is_media_type = kind.len() <= 255 && kind.contains('/') && kind.bytes().all(|byte| byte.is_ascii_graphic());
    if is_media_type { Ok(kind) } else { Err(DocumentError::not_an_image(config.digest, &kind)) }
}

fn layer(raw: RawDescriptor, of_artifact: bool) -> Result<Descriptor, DocumentError> {
    let foreign = raw.media_type.contains("nondistributable") || raw.media_type.contains(".foreign.") || !raw.urls.is_empty();
    if foreign {
        return Err(DocumentError::Foreign { digest: raw.digest });
    }
    let layer = checked(raw)?;
    match layer.compression() {
        Some(_) => Ok(layer),
        None if of_artifact => Ok(layer),
        None => Err(DocumentError::not_an_image(layer.digest, &layer.media_type)),
    }
}

fn checked(raw: RawDescriptor) -> Result<Descriptor, DocumentError> {
    raw.check()?;
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
        let Ok(Document::Manifest(chart)) = parse(&odd, None) else { panic!("no manifest") };
        assert_eq!(chart.artifact.as_deref(), Some("application/vnd.cncf.helm.config.v1+json"));
        for kind in ["", "helm", "text/\\u0007", "a/b c"] {
            let odd = manifest_with("").replace("application/vnd.oci.image.config.v1+json", kind);
            assert!(matches!(parse(&odd, None), Err(DocumentError::NotAnImage { .. })), "{kind}");
        }
    }

    #[test]
    fn inline_data_is_compared_wherever_it_stands_and_used() {
        let entry = |n: u8, rest: &str| format!(r#"{{"mediaType":"{}","digest":"{}","size":1{rest}}}"#, MANIFEST_TYPES[0], digest(n));
        let index = |entry: String| format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
        let attestation = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
        for (data, right) in [("Ag==", true), ("Aw==", false), ("Ag", false), ("", false), ("!", false), ("AgA=", false)] {
            let field = format!(r#","data":"{data}""#);
            let subject = manifest_with(&format!(r#","subject":{}"#, entry(2, &field)));
            for text in [index(entry(2, &field)), index(entry(2, &format!("{attestation}{field}"))), subject] {
                match parse(&text, None) {
                    Ok(_) => assert!(right, "{text}"),
                    Err(error) => assert!(!right && matches!(error, DocumentError::InlineData { .. }), "{text}: {error}"),
                }
            }
        }
        let found = inline(&Verified::hash(layer_with(r#","size":1,"data":"Ag==""#)));
        assert_eq!(found, [Verified::hash(vec![2])]);
        assert!(inline(&Verified::hash(manifest_with(""))).is_empty());
        let long = Digest::by(Algorithm::Sha512, &[2]).to_string();
        let found = inline(&Verified::hash(layer_with(r#","size":1,"data":"Ag==""#).replace(&digest(2), &long)));
        assert_eq!(found[0].digest().to_string(), long);
    }

    #[test]
    fn an_index_is_chosen_from_as_containerd_does() {
        let entry = |n: u8, rest: &str| format!(r#"{{"mediaType":"{}","digest":"{}","size":9{rest}}}"#, MANIFEST_TYPES[0], digest(n));
        let at = |p: &str| format!(r#","platform":{{"os":"linux",{p}}}"#);
        let chosen = |entries: &[String], wanted: &str| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            let Document::Index(index) = parse(&text, None).unwrap() else { panic!("no index") };
            index.select(&platform(wanted)).ok().map(|(_, d)| d.digest.to_string())
        };
        let (old, plain) = (entry(1, &at(r#""architecture":"386""#)), entry(2, &at(r#""architecture":"amd64""#)));
        let special = entry(3, &at(r#""architecture":"amd64","os.features":["x"]"#));
        let (v3, nameless) = (entry(4, &at(r#""architecture":"amd64","variant":"v3""#)), entry(5, ""));
        let artifact = entry(6, r#","artifactType":"application/spdx+json""#);
        let all = [artifact, nameless, special, old, v3, plain];
        assert_eq!(chosen(&all, "linux/amd64"), Some(digest(2)));
        assert_eq!(chosen(&all, "linux/amd64/v4"), Some(digest(4)));
        assert_eq!(chosen(&all[..4], "linux/amd64"), Some(digest(1)));
        assert_eq!(chosen(&all[..3], "linux/amd64"), Some(digest(5)), "what names no platform may be for any");
        assert_eq!(chosen(&all[..1], "linux/amd64"), None, "an artifact is for none");
        let windows =
            |n, version: &str| entry(n, &format!(r#","platform":{{"os":"windows","architecture":"amd64","os.version":"{version}"}}"#));
        assert_eq!(chosen(&[windows(7, "10.0.17763.1"), windows(8, "10.0.20348.1")], "windows/amd64"), Some(digest(7)));
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
        let chosen = |p: &str| index.select(&platform(p)).ok().map(|(_, d)| d.digest.to_string());
        assert_eq!(chosen("linux/x86_64"), Some(digest(1)));
        assert_eq!(chosen("linux/arm/v7"), Some(digest(3)));
        assert_eq!(chosen("linux/arm/v6"), Some(digest(2)));
        assert_eq!(chosen("linux/arm/v8"), Some(digest(3)));
        assert_eq!(chosen("linux/arm/v5"), None);
        assert_eq!(chosen("linux/aarch64"), Some(digest(4)));
        assert_eq!(chosen("linux/s390x"), None);
        assert_eq!(index.platforms().len(), 4);
        let nested = text.replace(MANIFEST_TYPES[0], INDEX_TYPES[0]);
        let Document::Index(nested) = parse(&nested, None).unwrap() else { panic!("no index") };
        assert!(nested.manifests.iter().all(|(_, listed)| listed.is_index()));
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
