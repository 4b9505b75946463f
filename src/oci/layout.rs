//! The index of an image layout: what images it holds, and what they are called
//! ([image-spec, image-layout.md](https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md#indexjson-file)).

use serde::Deserialize;

use super::{Descriptor, DocumentError, INDEX_LIMIT, KEYS, Kind, RawDescriptor, bounded, checked, document};
use crate::digest::Verified;
use crate::json;

/// What an `index.json` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The images, in order; attestations and what is no image are left out.
    pub images: Vec<Listed>,
}

/// An image in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its index or manifest.
    pub root: Descriptor,
    /// Its full name, as docker and containerd write it (`io.containerd.image.name`).
    pub image_name: Option<String>,
    /// Its name as podman and skopeo write it (`org.opencontainers.image.ref.name`): a full name, or only a tag.
    pub ref_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLayout {
    #[serde(default, deserialize_with = "json::null_is_default")]
    schema_version: u64,
    #[serde(default, deserialize_with = "json::null_is_default")]
    media_type: String,
    #[serde(default, deserialize_with = "json::null_is_default")]
    manifests: Vec<RawDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVersion {
    image_layout_version: String,
}

impl Layout {
    /// Reads an `index.json`.
    pub fn parse(bytes: &Verified) -> Result<Layout, DocumentError> {
        let digest = bytes.digest();
        let raw: RawLayout = json::parse(bytes.bytes(), &KEYS).map_err(|source| DocumentError::Json { digest, source })?;
        let is_index = raw.media_type.is_empty() || Kind::of(&raw.media_type) == Some(Kind::Index);
        if raw.schema_version != 2 || !is_index {
            return Err(DocumentError::NotAnImage { digest, media_type: raw.media_type });
        }
        bounded(digest, raw.manifests.len(), INDEX_LIMIT)?;
        let images = raw.manifests.into_iter().filter_map(|entry| listed(entry).transpose());
        Ok(Layout { images: images.collect::<Result<_, _>>()? })
    }

    /// Whether this is the text of an `oci-layout` of a version that larder reads.
    pub fn is_known_version(text: &[u8]) -> bool {
        let version = json::parse::<RawVersion>(text, &["imageLayoutVersion"]);
        version.is_ok_and(|version| version.image_layout_version == "1.0.0")
    }
}

fn listed(entry: RawDescriptor) -> Result<Option<Listed>, DocumentError> {
    if entry.is_attestation() {
        return entry.check().map(|()| None);
    }
    let name = |key: &str| entry.annotations.get(key).filter(|name| !name.is_empty()).cloned();
    let (image_name, ref_name) = (name("io.containerd.image.name"), name("org.opencontainers.image.ref.name"));
    let root = checked(entry)?;
    // What is no image may be listed too.
    let root = Kind::of(&root.media_type).map(|_| document(root)).transpose()?;
    Ok(root.map(|root| Listed { root, image_name, ref_name }))
}
