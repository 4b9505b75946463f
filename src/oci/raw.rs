//! Documents as they are written, before anything of them is believed.

use std::collections::HashMap;

use serde::Deserialize;

use super::DocumentError;
use crate::digest::{Digest, Verified};
use crate::json;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDocument {
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) schema_version: u64,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) media_type: String,
    pub(super) config: Option<RawDescriptor>,
    pub(super) layers: Option<Vec<RawDescriptor>>,
    pub(super) manifests: Option<Vec<RawDescriptor>>,
    pub(super) fs_layers: Option<serde::de::IgnoredAny>,
    pub(super) artifact_type: Option<String>,
    pub(super) subject: Option<RawDescriptor>,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) annotations: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) urls: Vec<String>,
    pub(super) data: Option<String>,
    pub(super) platform: Option<RawPlatform>,
    pub(super) artifact_type: Option<String>,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) annotations: HashMap<String, String>,
}

impl RawDescriptor {
    /// Fails if its inline data is not what its digest and size say, whether or not anybody uses it.
    pub(super) fn check(&self) -> Result<(), DocumentError> {
        self.inline().map(drop)
    }

    pub(super) fn inline(&self) -> Result<Option<Verified>, DocumentError> {
        use base64::Engine;
        let Some(data) = &self.data else { return Ok(None) };
        let wrong = || DocumentError::InlineData { digest: self.digest };
        let data = base64::engine::general_purpose::STANDARD.decode(data).map_err(|_| wrong())?;
        let data = Verified::compare(data, &self.digest).map_err(|_| wrong())?;
        if data.size() == self.size { Ok(Some(data)) } else { Err(wrong()) }
    }

    pub(super) fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
    }
}

#[derive(Deserialize)]
pub(super) struct RawPlatform {
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) os: String,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
    #[serde(default, rename = "os.features", deserialize_with = "json::null_is_default")]
    pub(super) features: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct RawConfig {
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) os: String,
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
    pub(super) rootfs: Option<RawRootfs>,
}

#[derive(Deserialize)]
pub(super) struct RawRootfs {
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub(super) diff_ids: Vec<Digest>,
}
