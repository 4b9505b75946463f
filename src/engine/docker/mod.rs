//! Docker, with either of its image stores.
//!
//! Owns the questions that docker understands and the reading of its answers. Always true: an image counts as there only under exactly its
//! name, and with the containerd image store only as far as docker says that its content is there; a name is never moved to an image
//! of which something is missing.
//!
//! The containerd image store would do just that: it names what it was sent, whether or not all of it came or could be unpacked. There an
//! image is loaded under a name of larder's own, looked at, and then given its name. A crash in between leaves larder's name, which
//! the next load of the same image takes away, or whoever finds it beside the image's own.

mod answer;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::has::{self, Relative};
use super::inside::{self, Inside, Keepers, OutOfReach, Unpacked};
use super::send::{self, Form, Parcel};
use super::shown::{self, IdOf, Shown};
use super::wire::{Line, Wire, encoded};
use super::{About, Answer, Engine, EngineError, Kind, Place, Storage, containerd, proof};
use crate::archive::Layers;
use crate::digest::Digest;
use crate::event::{Event, Tell};
use crate::oci::{Image, Platform};
use crate::pin::Pin;
use crate::plan::Lacking;
use crate::reference::Name;

/// The API of docker 23, the first that unpacks zstd.
const ZSTD: (u32, u32) = (1, 42);
/// The API of the first docker that may have the containerd image store.
const CONTAINERD: (u32, u32) = ZSTD;
/// The API of docker 28: an image's manifests and whether they are there; loads of one platform.
const MANIFESTS: (u32, u32) = (1, 48);
/// How many images the classic image store is asked about at most, and how many at once: each takes it about half a millisecond.
const IMAGES: (usize, usize) = (1000, 8);
/// How long the classic image store takes to answer one question at most, where nothing else keeps the machine busy. The containerd image
/// store takes ten times as long.
const CLASSIC: Duration = Duration::from_millis(2);
/// Where docker keeps its files if nobody says otherwise.
const USUAL_ROOT: &str = "/var/lib/docker";
/// Where images are named that are being loaded. No registry can have this host: RFC 2606, section 2.
const ASIDE: &str = "larder.invalid/loading";

pub(super) struct Docker {
    wire: Wire,
    about: About,
    platform: OnceCell<Platform>,
    containerd: OnceCell<bool>,
    /// Sockets of containerds that may be the one behind the containerd image store, and whether somebody said so.
    containerds: Vec<(PathBuf, bool)>,
}

impl Docker {
    pub(super) fn new(wire: Wire, about: About, containerds: Vec<(PathBuf, bool)>) -> Docker {
        Docker { wire, about, platform: OnceCell::new(), containerd: OnceCell::new(), containerds }
    }

    fn has_api(&self, wanted: (u32, u32)) -> bool {
        let (major, minor) = self.about.api.split_once('.').unwrap_or((&self.about.api, "0"));
        // A version that cannot be read is taken for a new one.
        let number = |text: &str| text.parse().unwrap_or(u32::MAX);
        (number(major), number(minor)) >= wanted
    }

    fn inside(&self) -> Inside<'_> {
        Inside { wire: &self.wire, prefix: "" }
    }

    /// Where the containerd behind the containerd image store has the image's snapshots.
    ///
    /// Docker says since release 27 which containerd that is. Before, it is one at a usual place, if what it names is docker's.
    async fn snapshots(&self, storage: &Storage, shown: &Shown) -> Result<Unpacked, EngineError> {
        let usual = self.containerds.iter().cloned();
        let named = storage.containerd.as_ref().map(|containerd| (PathBuf::from(&containerd.address), true));
        for (socket, sure) in named.into_iter().chain(usual).filter(|(socket, _)| socket.exists()) {
            let place = Place {
                kind: Kind::Containerd,
                address: format!("unix://{}", socket.display()),
                found_by: "docker's image store".to_owned(),
            };
            let asked = containerd::inside::docker_folders((place, socket, self.wire.limit()), &storage.driver, &shown.diff_ids).await;
            match asked {
                Ok(Some(Unpacked::Folders(folders))) => {
                    let docker = |folder: &PathBuf| folder.starts_with(&storage.docker_root_dir);
                    if sure || storage.docker_root_dir == Path::new(USUAL_ROOT) || folders.iter().all(docker) {
                        return Ok(Unpacked::Folders(folders));
                    }
                }
                Ok(Some(out_of_reach)) => return Ok(out_of_reach),
                Err(EngineError::Unreachable { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                    return Ok(Unpacked::OutOfReach(OutOfReach::Denied { path: storage.docker_root_dir.clone() }));
                }
                Ok(None) | Err(_) => {}
            }
        }
        Ok(Unpacked::OutOfReach(OutOfReach::Containerd))
    }

    async fn storage(&self) -> Result<Storage, EngineError> {
        self.wire.ask("/info").await
    }

    /// Whether it has the containerd image store.
    async fn has_containerd(&self) -> Result<bool, EngineError> {
        let ask = async || Ok(self.has_api(CONTAINERD) && self.storage().await?.containerd());
        self.containerd.get_or_try_init(ask).await.copied()
    }

    async fn look(&self, name: &Name) -> Result<Option<Shown>, EngineError> {
        let path = format!("/images/{}/json?manifests=1", encoded(&name.to_string()));
        let mut inspected = pin!(self.wire.find::<Value>(&path));
        let asks_more = self.has_api(CONTAINERD) && !self.has_api(MANIFESTS);
        // Who takes long to answer has the image store that is asked for more, and need not be waited for to ask it.
        let (raw, whole) = match tokio::time::timeout(CLASSIC, &mut inspected).await {
            Ok(inspected) => (inspected?, None),
            Err(_) if asks_more => {
                let (raw, whole) = tokio::try_join!(inspected, self.whole(name))?;
                (raw, Some(whole))
            }
            Err(_) => (inspected.await?, None),
        };
        let Some(raw) = raw else { return Ok(None) };
        let shown = shown::read(Kind::Docker, name, raw).map_err(|source| self.wire.unreadable(&path, source))?;
        match shown {
            Some(shown) if shown.id_of == IdOf::Target && !self.has_api(MANIFESTS) => {
                let whole = match whole {
                    Some(whole) => whole,
                    None => self.whole(name).await?,
                };
                Ok(Some(Shown { complete: whole.contains(&shown.id), ..shown }))
            }
            shown => Ok(shown),
        }
    }

    /// The images of this name of which all is there, as far as docker tells before API 1.48.
    async fn whole(&self, name: &Name) -> Result<Vec<Digest>, EngineError> {
        let (listed, unpacked) = tokio::try_join!(self.listed(name), self.has_unpacked(name))?;
        Ok(if unpacked { listed } else { Vec::new() })
    }

    /// The images of this name in docker's list: before API 1.48, one that lacks layers can be inspected but is not listed.
    async fn listed(&self, name: &Name) -> Result<Vec<Digest>, EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: Digest,
        }
        // The filter is a glob pattern, and an IPv6 address has brackets.
        let pattern = name.familiar().replace('[', "\\[");
        let filters = serde_json::json!({ "reference": [pattern] }).to_string();
        let listed: Vec<Listed> = self.wire.ask(&format!("/images/json?filters={}", encoded(&filters))).await?;
        Ok(listed.into_iter().map(|image| image.id).collect())
    }

    /// Whether the image's layers were unpacked: its history goes by them, and is not found without them.
    async fn has_unpacked(&self, name: &Name) -> Result<bool, EngineError> {
        let history: Option<IgnoredAny> = self.wire.find(&format!("/images/{}/history", encoded(&name.to_string()))).await?;
        Ok(history.is_some())
    }

    async fn take(&self, parcel: Parcel<'_>, tell: &Tell<'_>) -> Result<u64, EngineError> {
        let sent = match self.has_containerd().await? {
            true => self.take_aside(parcel, tell).await?,
            false => {
                let name = parcel.name;
                self.post("/images/load?quiet=0", parcel, name, tell).await?
            }
        };
        tell(Event::LoadFinished { engine: self.about.kind.to_string() });
        Ok(sent)
    }

    async fn take_aside(&self, parcel: Parcel<'_>, tell: &Tell<'_>) -> Result<u64, EngineError> {
        let (image, name) = (parcel.image, parcel.name);
        send::only_sha256(&self.wire.place, image, name)?;
        let aside = aside(name, &image.root.digest);
        let mut path = "/images/load?quiet=0".to_owned();
        if self.must_name_platform(image).await? {
            path = format!("{path}&platform={}", encoded(&platform(&image.platform)));
        }
        let named = match self.post(&path, parcel, &aside, tell).await {
            Ok(sent) => self.rename(&aside, name, image).await.map(|()| sent),
            Err(error) => Err(error),
        };
        // What cannot be taken away now, the next run takes away.
        let _ = self.take_away(&aside).await;
        named
    }

    async fn take_away(&self, aside: &Name) -> Result<(), EngineError> {
        self.wire.must(Method::DELETE, &format!("/images/{}?noprune=1", encoded(&aside.to_string())), StatusCode::OK).await
    }

    /// Whether docker is to be told the platform. It unpacks its own without; another one it unpacks only if told, but then it lets go of what
    /// it has of the same index for other platforms.
    async fn must_name_platform(&self, image: &Image) -> Result<bool, EngineError> {
        let own = self.platform.get_or_try_init(|| super::platform(&self.wire)).await?;
        if !self.has_api(MANIFESTS) || own.rank(&image.platform).is_some() {
            return Ok(false);
        }
        let ready = self.ready(&image.root.digest).await?;
        Ok(!ready.iter().any(|manifest| *manifest != image.manifest.digest))
    }

    async fn post(&self, path: &str, parcel: Parcel<'_>, name: &Name, tell: &Tell<'_>) -> Result<u64, EngineError> {
        let (asked, engine) = (parcel.name, self.about.kind.to_string());
        let layers = if self.has_api(ZSTD) { Layers::AsStored } else { Layers::WithoutZstd };
        let mut hear = |line: &str| match answer::progress(line) {
            Some((layer, bytes, of)) => {
                tell(Event::LoadUnpacking { engine: engine.clone(), layer, bytes, of });
                Line::Dropped
            }
            None => Line::Kept,
        };
        let (reply, sent) = send::send(&self.wire, path, parcel, Form { layers, name }, (tell, &mut hear)).await?;
        match answer::refusal(&reply) {
            Some(said) => Err(self.not_loaded(asked, said)),
            None => Ok(sent),
        }
    }

    /// Gives an image that was loaded aside its name, if all of it is there.
    async fn rename(&self, aside: &Name, name: &Name, image: &Image) -> Result<(), EngineError> {
        let whole = |shown: &Option<Shown>| {
            shown.as_ref().is_some_and(|s| s.id == image.root.digest && proof::has_content(&image.manifest.digest, s))
        };
        if whole(&self.look(aside).await?) {
            let (repository, tag) = (encoded(&name.repository().to_string()), encoded(name.tag()));
            let path = format!("/images/{}/tag?repo={repository}&tag={tag}", encoded(&aside.to_string()));
            return self.wire.must(Method::POST, &path, StatusCode::CREATED).await;
        }
        // Another load of the same image may have been faster, and have taken the name away.
        match whole(&self.look(name).await?) {
            true => Ok(()),
            false => Err(self.not_loaded(name, "it took the image, but not all of its content is there".to_owned())),
        }
    }

    fn not_loaded(&self, name: &Name, said: String) -> EngineError {
        EngineError::NotLoaded { place: self.wire.place.clone(), name: name.clone(), said }
    }

    async fn has(&self, image: &Image, shown: Option<&Shown>, relatives: &[Relative]) -> Result<Lacking, EngineError> {
        let held = if self.has_containerd().await? {
            let mut held = has::like_shown(image, shown);
            for relative in relatives {
                if let Some(common) = has::in_common(image, relative, &held)
                    && self.has_all_of(relative).await?
                {
                    held.extend(common);
                }
            }
            held
        } else {
            has::below(image, self.base(image).await?)
        };
        Ok(Lacking::new(image, &held))
    }

    /// How many layers the classic image store has from the base up: it finds a layer by the chain of diff IDs below it, whichever
    /// images brought them. Listing them costs it next to nothing.
    async fn base(&self, image: &Image) -> Result<usize, EngineError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: Digest,
        }
        let images: Vec<Listed> = self.wire.ask("/images/json").await?;
        let (most, at_once) = IMAGES;
        let asked = stream::iter(images.into_iter().take(most)).map(async |listed: Listed| {
            let path = format!("/images/{}/json", listed.id);
            let Some(raw) = self.wire.find::<Value>(&path).await? else { return Ok(0) };
            let diff_ids = shown::diff_ids(&raw).map_err(|source| self.wire.unreadable(&path, source))?;
            Ok(has::common_base(image, &diff_ids))
        });
        asked.buffer_unordered(at_once).try_fold(0, async |most, base| Ok(most.max(base))).await
    }

    /// Whether the containerd image store has all blobs of an image, under whatever name.
    async fn has_all_of(&self, relative: &Relative) -> Result<bool, EngineError> {
        if !self.has_api(MANIFESTS) {
            // Before, it tells no more than that the layers were unpacked.
            let history: Option<IgnoredAny> = self.wire.find(&format!("/images/{}/history", relative.root)).await?;
            return Ok(history.is_some());
        }
        Ok(self.ready(&relative.root).await?.contains(&relative.manifest))
    }

    /// The manifests of an index, or the only one, of which it has all, under whatever name.
    async fn ready(&self, root: &Digest) -> Result<Vec<Digest>, EngineError> {
        let path = format!("/images/{root}/json?manifests=1");
        let Some(raw) = self.wire.find::<Value>(&path).await? else { return Ok(Vec::new()) };
        shown::ready(&raw).map_err(|source| self.wire.unreadable(&path, source))
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

    fn lacks<'a>(&'a self, image: &'a Image, shown: Option<&'a Shown>, relatives: &'a [Relative]) -> Answer<'a, Lacking> {
        Box::pin(self.has(image, shown, relatives))
    }

    fn load<'a>(&'a self, parcel: Parcel<'a>, tell: &'a Tell<'a>) -> Answer<'a, u64> {
        Box::pin(self.take(parcel, tell))
    }

    fn tidy<'a>(&'a self, name: &'a Name, shown: &'a Shown) -> Answer<'a, ()> {
        Box::pin(async {
            let aside = aside(name, &shown.id);
            let left = shown.id_of == IdOf::Target && shown.is_called(&aside);
            if left { self.take_away(&aside).await } else { Ok(()) }
        })
    }

    fn usable(&self, pin: &Pin, shown: &Shown) -> String {
        // The classic image store learns of a manifest's digest by pulling alone, and after a load it knows none.
        match shown.id_of {
            IdOf::Target if shown.digests.contains(&pin.root.digest) => pin.pinned().to_string(),
            _ => pin.name.to_string(),
        }
    }

    fn unpacked<'a>(&'a self, shown: &'a Shown) -> Answer<'a, Unpacked> {
        Box::pin(async {
            if let Some(address) = self.wire.remote() {
                return Ok(Unpacked::OutOfReach(OutOfReach::Remote { address }));
            }
            let storage = self.storage().await?;
            if storage.shifts_owners() {
                return Ok(Unpacked::OutOfReach(OutOfReach::Rootless));
            }
            if storage.containerd() { self.snapshots(&storage, shown).await } else { Ok(inside::folders(shown)) }
        })
    }

    fn exported<'a>(&'a self, name: &'a Name) -> Answer<'a, HashSet<Digest>> {
        Box::pin(async move { self.inside().exported(&format!("/images/{}/get", encoded(&name.to_string()))).await })
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
        Box::pin(async {
            let storage = self.storage().await?;
            let kind = if storage.containerd() { "containerd" } else { "classic" };
            Ok(format!("{kind} ({})", storage.driver))
        })
    }
}

impl Storage {
    /// Whether users have other numbers in containers than on the machine: `userns-remap`, or a docker that is not root's.
    fn shifts_owners(&self) -> bool {
        self.security_options.iter().any(|option| matches!(option.as_str(), "name=userns" | "name=rootless"))
    }

    fn containerd(&self) -> bool {
        self.driver_status.iter().any(|(key, value)| key == "driver-type" && value.starts_with("io.containerd.snapshotter."))
    }
}

/// What an image is called while it is loaded to bear this name. Others who load it under another one have another one here.
fn aside(name: &Name, root: &Digest) -> Name {
    let tag = Digest::of(format!("{name}@{root}").as_bytes()).hex();
    format!("{ASIDE}:{}", &tag[..32]).parse().expect("this is a name")
}

/// The platform as docker wants it in a query.
fn platform(platform: &Platform) -> String {
    let mut json = serde_json::json!({ "os": platform.os(), "architecture": platform.architecture() });
    if let Some(variant) = platform.variant() {
        json["variant"] = variant.into();
    }
    json.to_string()
}
