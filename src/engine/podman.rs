//! Podman.
//!
//! Owns the questions to podman's own API, libpod, and the reading of its answers. Always true: only the image ID says what an image is; the
//! digests that podman lists beside it say how it may be called, and podman lists more of them than belong to a name. A load happens whole or not
//! at all.

use serde_json::Value;
use tokio::sync::OnceCell;

use super::has::{self, Relative};
use super::send::{self, Parcel};
use super::shown::{self, Shown};
use super::wire::{Line, Wire, encoded};
use super::{About, Answer, Engine, EngineError, Kind, Storage};
use crate::archive::Layers;
use crate::event::{Event, Tell};
use crate::oci::{Image, Platform};
use crate::pin::Pin;
use crate::plan::Lacking;
use crate::reference::Name;

/// The oldest version of libpod's API that is asked for; newer services still speak it.
const LIBPOD: &str = "/v4.0.0/libpod";

pub(super) struct Podman {
    wire: Wire,
    about: About,
    platform: OnceCell<Platform>,
}

impl Podman {
    pub(super) fn new(wire: Wire, about: About) -> Podman {
        Podman { wire, about, platform: OnceCell::new() }
    }

    async fn look(&self, name: &Name) -> Result<Option<Shown>, EngineError> {
        let path = format!("{LIBPOD}/images/{}/json", encoded(&name.to_string()));
        let Some(raw) = self.wire.find::<Value>(&path).await? else { return Ok(None) };
        shown::read(Kind::Podman, name, raw).map_err(|source| self.wire.unreadable(&path, source))
    }

    async fn take(&self, parcel: Parcel<'_>, tell: &Tell<'_>) -> Result<u64, EngineError> {
        let name = parcel.name;
        let path = format!("{LIBPOD}/images/load");
        let form = send::Form { layers: Layers::AsStored, name };
        // It says nothing before the end.
        let (reply, sent) = send::send(&self.wire, &path, parcel, form, (tell, &mut |_| Line::Kept)).await?;
        if reply.status != hyper::StatusCode::OK {
            return Err(EngineError::NotLoaded { place: self.wire.place.clone(), name: name.clone(), said: reply.words() });
        }
        tell(Event::LoadFinished { engine: self.about.kind.to_string() });
        Ok(sent)
    }

    /// Whether it has this image, under whatever name or none.
    async fn knows(&self, relative: &Relative) -> Result<bool, EngineError> {
        let reply = self.wire.get(&format!("{LIBPOD}/images/{}/exists", relative.image_id.hex())).await?;
        Ok(reply.status == hyper::StatusCode::NO_CONTENT)
    }

    /// Podman finds layers by the digests of the blobs that they came in. That an image is there does not tell in which form it came; whether
    /// it was this one is for the load to find out.
    async fn has(&self, image: &Image, shown: Option<&Shown>, relatives: &[Relative]) -> Result<Lacking, EngineError> {
        let mut held = has::like_shown(image, shown);
        for relative in relatives {
            if let Some(common) = has::in_common(image, relative, &held)
                && self.knows(relative).await?
            {
                held.extend(common);
            }
        }
        Ok(Lacking::new(image, &held))
    }
}

impl Engine for Podman {
    fn about(&self) -> &About {
        &self.about
    }

    fn platform(&self) -> Answer<'_, Platform> {
        Box::pin(async { Ok(self.platform.get_or_try_init(|| super::platform(&self.wire)).await?.clone()) })
    }

    fn inspect<'a>(&'a self, name: &'a Name) -> Answer<'a, Option<Shown>> {
        Box::pin(self.look(name))
    }

    fn lacks<'a>(&'a self, image: &'a Image, shown: Option<&'a Shown>, relatives: &'a [Relative]) -> Answer<'a, Lacking> {
        Box::pin(self.has(image, shown, relatives))
    }

    fn load<'a>(&'a self, parcel: Parcel<'a>, tell: &'a Tell<'a>) -> Answer<'a, u64> {
        Box::pin(self.take(parcel, tell))
    }

    fn usable(&self, pin: &Pin, shown: &Shown) -> String {
        if shown.digests.contains(&pin.root.digest) { pin.pinned().to_string() } else { pin.name.to_string() }
    }

    fn image_store(&self) -> Answer<'_, String> {
        Box::pin(async { Ok(self.wire.ask::<Storage>("/info").await?.driver) })
    }
}
