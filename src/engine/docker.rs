//! Docker, with either of its image stores.
//!
//! Owns the questions that docker understands and the reading of its answers. Always true: an image counts as there only under exactly its
//! name, and with the containerd image store only as far as docker says that its content is there.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::send::{self, Parcel};
use super::shown::{self, IdOf, Shown};
use super::wire::{self, Reply, Wire, encoded};
use super::{About, Answer, Engine, EngineError, Kind, Storage};
use crate::archive::Layers;
use crate::digest::Digest;
use crate::event::{Event, Tell};
use crate::oci::{Image, Platform};
use crate::pin::Pin;
use crate::reference::Name;
use crate::store::Store;

/// The API of docker 23, the first that unpacks zstd.
const ZSTD: (u32, u32) = (1, 42);
/// The API of docker 28: an image's manifests and whether they are there; loads of one platform.
const MANIFESTS: (u32, u32) = (1, 48);

pub(super) struct Docker {
    wire: Wire,
    about: About,
    platform: OnceCell<Platform>,
}

impl Docker {
    pub(super) fn new(wire: Wire, about: About) -> Docker {
        Docker { wire, about, platform: OnceCell::new() }
    }

    fn has_api(&self, wanted: (u32, u32)) -> bool {
        let (major, minor) = self.about.api.split_once('.').unwrap_or((&self.about.api, "0"));
        // A version that cannot be read is taken for a new one.
        let number = |text: &str| text.parse().unwrap_or(u32::MAX);
        (number(major), number(minor)) >= wanted
    }

    async fn storage(&self) -> Result<Storage, EngineError> {
        self.wire.ask("/info").await
    }

    async fn look(&self, name: &Name) -> Result<Option<Shown>, EngineError> {
        let path = format!("/images/{}/json?manifests=1", encoded(&name.to_string()));
        let Some(raw) = self.wire.find::<Value>(&path).await? else { return Ok(None) };
        let shown = shown::read(Kind::Docker, name, raw).map_err(|source| self.wire.unreadable(&path, source))?;
        match shown {
            Some(shown) if shown.id_of == IdOf::Target && !self.has_api(MANIFESTS) => {
                let (listed, unpacked) = tokio::try_join!(self.lists(name, &shown.id), self.has_unpacked(name))?;
                Ok(Some(Shown { complete: listed && unpacked, ..shown }))
            }
            shown => Ok(shown),
        }
    }

    /// Whether the image is in docker's list: before API 1.48, one that lacks layers can be inspected but is not listed.
    async fn lists(&self, name: &Name, id: &Digest) -> Result<bool, EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: Digest,
        }
        // The filter is a glob pattern, and an IPv6 address has brackets.
        let pattern = name.familiar().replace('[', "\\[");
        let filters = serde_json::json!({ "reference": [pattern] }).to_string();
        let listed: Vec<Listed> = self.wire.ask(&format!("/images/json?filters={}", encoded(&filters))).await?;
        Ok(listed.iter().any(|image| image.id == *id))
    }

    /// Whether the image's layers were unpacked: its history goes by them, and is not found without them.
    async fn has_unpacked(&self, name: &Name) -> Result<bool, EngineError> {
        let history: Option<IgnoredAny> = self.wire.find(&format!("/images/{}/history", encoded(&name.to_string()))).await?;
        Ok(history.is_some())
    }

    async fn take(&self, parcel: Parcel<'_>, tell: &Tell<'_>) -> Result<u64, EngineError> {
        let mut path = "/images/load?quiet=1".to_owned();
        // With it, the containerd image store reports what it otherwise keeps to itself; the classic one answers nothing at all.
        if self.has_api(MANIFESTS) && self.storage().await?.containerd() {
            path = format!("{path}&platform={}", encoded(&platform(&parcel.image.platform)));
        }
        let name = parcel.name;
        let (reply, sent) = send::send(&self.wire, &path, parcel, tell).await?;
        match refusal(&reply) {
            Some(said) => Err(EngineError::NotLoaded { place: self.wire.place.clone(), name: name.clone(), said }),
            None => {
                tell(Event::LoadFinished);
                Ok(sent)
            }
        }
    }
}

impl Engine for Docker {
    fn about(&self) -> &About {
        &self.about
    }

    fn platform(&self) -> Answer<'_, Platform> {
        Box::pin(async { Ok(self.platform.get_or_try_init(|| super::platform(&self.wire)).await?.clone()) })
    }

    fn inspect<'a>(&'a self, name: &'a Name) -> Answer<'a, Option<Shown>> {
        Box::pin(self.look(name))
    }

    fn load<'a>(&'a self, store: &'a Store, image: &'a Image, name: &'a Name, tell: &'a Tell<'a>) -> Answer<'a, u64> {
        let layers = if self.has_api(ZSTD) { Layers::AsStored } else { Layers::WithoutZstd };
        Box::pin(self.take(Parcel { store, image, name, layers }, tell))
    }

    fn usable(&self, pin: &Pin, shown: &Shown) -> String {
        // The classic image store learns of a manifest's digest by pulling alone, and after a load it knows none.
        match shown.id_of {
            IdOf::Target if shown.digests.contains(&pin.root.digest) => pin.pinned().to_string(),
            _ => pin.name.to_string(),
        }
    }

    fn image_store(&self) -> Answer<'_, String> {
        Box::pin(async {
            let storage = self.storage().await?;
            let kind = if storage.containerd() { "containerd" } else { "classic" };
            Ok(format!("{kind} ({})", storage.driver))
        })
    }
}

impl Storage {
    fn containerd(&self) -> bool {
        self.driver_status.iter().any(|(key, value)| key == "driver-type" && value.starts_with("io.containerd.snapshotter."))
    }
}

/// The platform as docker wants it in a query.
fn platform(platform: &Platform) -> String {
    let mut json = serde_json::json!({ "os": platform.os(), "architecture": platform.architecture() });
    if let Some(variant) = platform.variant() {
        json["variant"] = variant.into();
    }
    json.to_string()
}

/// Why docker did not load an image, if it says so: its status is 200 whatever happened, and its answer a stream of JSON objects.
fn refusal(reply: &Reply) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line {
        error: Option<String>,
        error_detail: Option<Detail>,
        stream: Option<String>,
    }
    #[derive(Deserialize)]
    struct Detail {
        message: Option<String>,
    }
    if reply.status != hyper::StatusCode::OK {
        return Some(format!("{}: {}", reply.status, reply.words()));
    }
    let mut answered = false;
    for line in serde_json::Deserializer::from_slice(&reply.body).into_iter::<Line>() {
        let Ok(line) = line else { return Some(reply.words()) };
        answered = true;
        let detail = line.error_detail.and_then(|d| d.message);
        // Docker 28 and later report a layer that could not be unpacked as if it were progress.
        let unpacking = line.stream.filter(|text| text.starts_with("Error unpacking image"));
        if let Some(said) = detail.or(line.error).or(unpacking) {
            return Some(wire::words(&said));
        }
    }
    (!answered).then(|| "its answer is empty".to_owned())
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    #[test]
    fn failures_are_read_out_of_the_stream() {
        let table = [
            (200, "{\"stream\":\"Loaded image: redis:7\\n\"}\r\n", None),
            (
                200,
                "{\"status\":\"Loading layer\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"a\"}\r\n{\"stream\":\"Loaded image: x\"}",
                None,
            ),
            (
                200,
                "{\"stream\":\"Loaded image: x\"}\r\n{\"stream\":\"Error unpacking image x: no space left on device\\n\"}",
                Some("Error unpacking image x: no space left on device"),
            ),
            (200, "{\"errorDetail\":{\"message\":\"unexpected EOF\"},\"error\":\"short\"}\r\n", Some("unexpected EOF")),
            (200, "{\"error\":\"invalid\\u001b[0m tag\"}", Some("invalid [0m tag")),
            (200, "{\"stream\":\"Loaded image: x\"}\r\n{\"err", Some("{\"stream\":\"Loaded image: x\"}  {\"err")),
            (200, "", Some("its answer is empty")),
            (500, "{\"message\":\"no\"}", Some("500 Internal Server Error: no")),
        ];
        for (status, body, said) in table {
            let reply = Reply { status: StatusCode::from_u16(status).unwrap(), headers: hyper::HeaderMap::new(), body: body.into() };
            assert_eq!(refusal(&reply).as_deref(), said, "{body}");
        }
    }
}
