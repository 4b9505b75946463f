//! Podman.
//!
//! Owns the questions to podman's own API, libpod, and the reading of its answers. Always true: only the image ID says what an image is; the
//! digests that podman lists beside it say how it may be called, and podman lists more of them than belong to a name. A load happens whole or not
//! at all.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::has::{self, Relative};
use super::inside::{self, Inside, Keepers, OutOfReach, Unpacked};
use super::listener;
use super::send::{self, Parcel};
use super::shown::{self, Shown};
use super::wire::{Line, Wire, encoded};
use super::{About, Answer, Engine, EngineError, Kind, Storage};
use crate::archive::Layers;
use crate::digest::Digest;
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

/// The answer to libpod's `GET /info`, as far as it tells whose files podman's are.
#[derive(Deserialize)]
struct Surroundings {
    host: Host,
}

#[derive(Deserialize)]
struct Host {
    security: Security,
}

#[derive(Deserialize)]
struct Security {
    rootless: bool,
}

impl Podman {
    fn inside(&self) -> Inside<'_> {
        Inside { wire: &self.wire, prefix: LIBPOD }
    }

    pub(super) fn new(wire: Wire, about: About) -> Podman {
        Podman { wire, about, platform: OnceCell::new() }
    }

    async fn look(&self, name: &Name) -> Result<Option<Shown>, EngineError> {
        let path = format!("{LIBPOD}/images/{}/json", encoded(&name.to_string()));
        let Some(raw) = self.wire.find::<Value>(&path).await? else { return Ok(None) };
        shown::read(Kind::Podman, name, raw).map_err(|source| self.wire.unreadable(&path, source))
    }

    /// The platform of its containers is that of its program. It tells a fifth of a second after it was asked, since it gathers all that it knows
    /// of the machine for that answer; where the program can be seen, it is looked at instead.
    async fn ask_for_platform(&self) -> Result<Platform, EngineError> {
        if let Some(socket) = self.wire.socket()
            && let Some(architecture) = listener::architecture(socket, "podman").await
            && let Some(platform) = Platform::new("linux", architecture, None)
        {
            return Ok(platform);
        }
        super::platform(&self.wire).await
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
        Box::pin(async { Ok(self.platform.get_or_try_init(|| self.ask_for_platform()).await?.clone()) })
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

    fn unpacked<'a>(&'a self, shown: &'a Shown) -> Answer<'a, Unpacked> {
        Box::pin(async {
            if let Some(address) = self.wire.remote() {
                return Ok(Unpacked::OutOfReach(OutOfReach::Remote { address }));
            }
            let rootless = self.wire.ask::<Surroundings>(&format!("{LIBPOD}/info")).await?.host.security.rootless;
            Ok(if rootless { Unpacked::OutOfReach(OutOfReach::Rootless) } else { inside::folders(shown) })
        })
    }

    fn exported<'a>(&'a self, name: &'a Name) -> Answer<'a, HashSet<Digest>> {
        let path = format!("{LIBPOD}/images/{}/get?format=docker-archive", encoded(&name.to_string()));
        Box::pin(async move { self.inside().exported(&path).await })
    }

    fn keepers<'a>(&'a self, shown: &'a Shown, up_to: usize) -> Answer<'a, Keepers> {
        Box::pin(async move { self.inside().keepers(shown, up_to).await })
    }

    fn take_out<'a>(&'a self, shown: &'a Shown, keepers: &'a Keepers) -> Answer<'a, ()> {
        Box::pin(async move { self.inside().take_out(shown, keepers).await })
    }

    fn give_names<'a>(&'a self, image: &'a Name, names: &'a [String]) -> Answer<'a, ()> {
        Box::pin(async move { self.inside().give_names(&image.to_string(), names).await })
    }

    fn image_store(&self) -> Answer<'_, String> {
        Box::pin(async { Ok(self.wire.ask::<Storage>("/info").await?.driver) })
    }
}
