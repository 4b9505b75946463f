//! `manifest.json`, as docker, podman, skopeo, crane and kaniko write it: configs and layers by their names in the archive
//! ([docker image specification v1.2](https://github.com/moby/docker-image-spec/blob/v1.2.0/v1.2.md#combined-image-json--filesystem-changeset-format)).

use serde::Deserialize;

use super::blobs::Blobs;
use super::error::ImportError;
use super::found::{self, Bare};
use super::path::{Names, plain};
use crate::digest::{Digest, Verified};
use crate::json;
use crate::oci::{Compression, Config, Descriptor};

pub(super) const LIST: &str = "manifest.json";
const KEYS: [&str; 5] = ["Config", "RepoTags", "Layers", "Parent", "LayerSources"];

/// The most images in one archive, and names of one.
const IMAGES: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) config: String,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) layers: Vec<String>,
}

/// An image of a `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) names: Vec<String>,
    pub(super) image: Bare,
}

/// The images that are listed; each is checked against its config.
pub(super) fn images(list: &Verified, names: &Names<Digest>, blobs: &Blobs) -> Result<Vec<Listed>, ImportError> {
    entries(list.bytes())?.into_iter().map(|entry| image(entry, names, blobs)).collect()
}

/// What the list says; at least one image.
pub(super) fn entries(list: &[u8]) -> Result<Vec<Entry>, ImportError> {
    let entries: Vec<Entry> = json::parse(list, &KEYS).map_err(|source| ImportError::List { list: LIST, source })?;
    if entries.is_empty() {
        return Err(ImportError::EmptyList { list: LIST });
    }
    if entries.len() > IMAGES || entries.iter().any(|entry| entry.repo_tags.len() > IMAGES) {
        return Err(ImportError::TooMuchText { limit: IMAGES as u64 });
    }
    Ok(entries)
}

fn image(entry: Entry, names: &Names<Digest>, blobs: &Blobs) -> Result<Listed, ImportError> {
    let config = config(&entry.config, names, blobs)?;
    let read = Config::parse(&config)?;
    if read.diff_ids.len() != entry.layers.len() {
        let (diff_ids, layers) = (read.diff_ids.len(), entry.layers.len());
        return Err(ImportError::LayerCount { config: config.digest(), diff_ids, layers });
    }
    let mut layers = Vec::new();
    for (number, (path, diff_id)) in (1..).zip(entry.layers.iter().zip(&read.diff_ids)) {
        let digest = *names.find(path)?.ok_or_else(|| missing("the layer", path))?;
        let blob = blobs.get(&digest).ok_or_else(|| missing("the layer", path))?;
        let compression = found::compare(&blob.layer, &digest, (number, config.digest(), *diff_id))?;
        layers.push(Descriptor { media_type: layer_type(compression).to_owned(), digest, size: blob.size });
    }
    let config = Descriptor { media_type: CONFIG.to_owned(), digest: config.digest(), size: config.size() };
    Ok(Listed { names: entry.repo_tags, image: Bare { config, layers, platform: read.platform, diff_ids: read.diff_ids } })
}

/// The config; where its name is a digest, as docker gives it, it has to be its own.
fn config(path: &str, names: &Names<Digest>, blobs: &Blobs) -> Result<Verified, ImportError> {
    let found = *names.find(path)?.ok_or_else(|| missing("the config", path))?;
    let plain = plain(path)?;
    let name = plain.rsplit('/').next().unwrap_or(&plain);
    let name = name.strip_suffix(".json").unwrap_or(name);
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if let Ok(expected) = Digest::from_hex(hex)
        && expected != found
    {
        return Err(ImportError::WrongConfig { path: path.to_owned(), expected, found });
    }
    blobs.text_of(&found).ok_or_else(|| ImportError::NotAConfig { path: path.to_owned() })
}

fn missing(what: &'static str, path: &str) -> ImportError {
    ImportError::NoSuchMember { what, path: path.chars().take(200).flat_map(char::escape_debug).collect() }
}

pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What the registries' manifests call a layer that is compressed so.
pub(super) fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_an_object() {
        assert_eq!(entries(br#"[{"Config":"c"}]"#).unwrap().len(), 1);
        // By their places, serde would take these for the values of one.
        for list in [r#"[["c"]]"#, r#"[["c",[],[]]]"#, r#"[["c",["a:1"],["l"]]]"#] {
            assert!(matches!(entries(list.as_bytes()), Err(ImportError::List { .. })), "{list}");
        }
    }
}
