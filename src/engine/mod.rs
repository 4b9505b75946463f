//! Engines: the places that keep and run images under names.
//!
//! Owns finding them, asking what they hold and sending them images. Always true: nothing that an engine says
//! about a load counts as proof; what counts is what it shows under the name afterwards ([`proof`]). Engines are
//! asked over their sockets, never through their command lines, and never over a network that nobody named; where a setting says `ssh://`, the
//! system's ssh leads to the socket.
//!
//! Which image goes where is the main line's affair; what an archive looks like is [`crate::archive`]'s.

mod containerd;
mod discover;
mod docker;
mod error;
mod has;
mod inside;
mod listener;
mod podman;
mod process;
pub mod proof;
mod reading;
mod send;
mod shown;
mod tls;
mod wire;

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin as Pinned;

pub use discover::Environment;
pub use error::EngineError;
pub use has::Relative;
pub use inside::{Keepers, OutOfReach, Unpacked, within_reach};
pub use process::Ended;
pub use reading::Seat;
pub use send::Parcel;
pub use shown::{IdOf, Shown};

use crate::digest::Digest;
use crate::event::Tell;
use crate::oci::{Image, Platform};
use crate::pin::Pin;
use crate::plan::Lacking;
use crate::reference::Name;
use discover::Address;
use wire::Wire;

/// What an engine's method returns: a future that can be sent to another thread.
pub type Answer<'a, T> = Pinned<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// Which engine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Docker, with either image store.
    Docker,
    /// Podman.
    Podman,
    /// containerd itself.
    Containerd,
}

/// Where an engine may be, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which engine is expected there.
    pub kind: Kind,
    /// The address, as `unix:///…` or `tcp://…`.
    pub address: String,
    /// The setting that names it, or `the usual place`.
    pub found_by: String,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct About {
    /// Which engine it is.
    pub kind: Kind,
    /// Its version.
    pub version: String,
    /// The version of its programming interface.
    pub api: String,
    /// The address, as `unix:///…` or `tcp://…`.
    pub address: String,
    /// The setting that names the address, or `the usual place`.
    pub found_by: String,
    /// The namespace that names are looked up in; `None` where an engine has no such thing.
    pub namespace: Option<String>,
}

/// A place that keeps and runs images under names.
pub trait Engine: Send + Sync {
    /// What it said of itself when it was connected to.
    fn about(&self) -> &About;

    /// The platform that its containers run on. Asked for once; some engines take long to tell.
    fn platform(&self) -> Answer<'_, Platform>;

    /// What it shows under a name; `None` if it knows nothing under exactly that name.
    fn inspect<'a>(&'a self, name: &'a Name) -> Answer<'a, Option<Shown>>;

    /// What it lacks of an image's layers, as far as it tells quickly: it is asked about the image that it shows under the name, about
    /// relatives, and about all its images only where that is cheap.
    fn lacks<'a>(&'a self, image: &'a Image, shown: Option<&'a Shown>, relatives: &'a [Relative]) -> Answer<'a, Lacking>;

    /// Sends an image, or the part of it that it lacks, and returns how many bytes that took, when the engine has answered. Never a
    /// proof; but where it fails, the name is what it was.
    fn load<'a>(&'a self, parcel: Parcel<'a>, tell: &'a Tell<'a>) -> Answer<'a, u64>;

    /// Takes away what an earlier run, which did not come to its end, left beside an image that is held under this name.
    fn tidy<'a>(&'a self, _name: &'a Name, _shown: &'a Shown) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// The reference that means the image in this very engine and works without a network.
    fn usable(&self, pin: &Pin, shown: &Shown) -> String;

    /// Where it says that the layers of an image that it showed lie unpacked, if they are files that can be compared with layers.
    fn unpacked<'a>(&'a self, shown: &'a Shown) -> Answer<'a, Unpacked>;

    /// Has it make an archive of the image with this name, for which it reads its own files again; returns the digests of all
    /// that is in the archive.
    fn exported<'a>(&'a self, name: &'a Name) -> Answer<'a, HashSet<Digest>>;

    /// Who else has layers, up to this place from the base, of an image that it showed.
    fn keepers<'a>(&'a self, shown: &'a Shown, up_to: usize) -> Answer<'a, Keepers>;

    /// Takes an image out, all its names and what only it needs. Where that fails halfway, it has its names again as far as possible.
    fn take_out<'a>(&'a self, shown: &'a Shown, keepers: &'a Keepers) -> Answer<'a, ()>;

    /// Gives an image more names.
    fn give_names<'a>(&'a self, image: &'a Name, names: &'a [String]) -> Answer<'a, ()>;

    /// How it keeps images, in words: `containerd (overlayfs)`, `classic (overlay2)`, `overlay`, `overlayfs`.
    fn image_store(&self) -> Answer<'_, String>;
}

/// Which engine is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The first that answers: docker, then podman, then containerd.
    Auto,
    /// Docker, or whatever answers where docker is looked for.
    Docker,
    /// Podman.
    Podman,
    /// containerd itself.
    Containerd,
}

/// A place where an engine may be, and what came of asking it.
pub struct Candidate {
    /// Which engine is expected there; what answered may be another.
    pub kind: Kind,
    /// The address, as `unix:///…` or `tcp://…`.
    pub address: String,
    /// The setting that names it, or `the usual place`.
    pub found_by: String,
    /// Whether nobody named it: an engine may be there or not.
    pub usual: bool,
    /// The engine, or why it cannot be used.
    pub answer: Result<Box<dyn Engine>, EngineError>,
}

/// Connects to the engine that was chosen; [`Choice::Auto`] takes the first that answers.
///
/// An address that somebody set is the only one that is tried for its engine, and if it does not answer, that is the error. Costs one
/// request to an engine that is there.
pub async fn connect(choice: &Choice, environment: &Environment) -> Result<Box<dyn Engine>, EngineError> {
    let mut asked = Vec::new();
    for found in discover::places(choice, environment) {
        let (place, set) = (found.place.clone(), found.set);
        match open(found, environment).await {
            Ok(engine) if *choice == Choice::Podman && engine.about().kind != Kind::Podman => {
                return Err(EngineError::WrongEngine { place, found: engine.about().kind });
            }
            Ok(engine) => return Ok(engine),
            Err(why) if set => return Err(why),
            Err(why) => asked.push((place, why)),
        }
    }
    Err(EngineError::NoneAnswered { asked })
}

/// Connects to every engine that answers, wherever settings and habit name one.
pub async fn connect_all(environment: &Environment) -> Result<Vec<Box<dyn Engine>>, EngineError> {
    let (mut engines, mut asked) = (Vec::<Box<dyn Engine>>::new(), Vec::new());
    for Candidate { kind, address, found_by, answer, .. } in survey(environment).await {
        match answer {
            Ok(engine) => engines.push(engine),
            Err(why) => asked.push((Place { kind, address, found_by }, why)),
        }
    }
    // A containerd of docker's is docker's affair where docker answers itself.
    let docker = engines.iter().any(|engine| engine.about().kind == Kind::Docker);
    engines.retain(|engine| !docker || engine.about().namespace.as_deref() != Some(containerd::DOCKERS));
    if engines.is_empty() { Err(EngineError::NoneAnswered { asked }) } else { Ok(engines) }
}

/// Asks everywhere that settings and habit name, all at once.
pub async fn survey(environment: &Environment) -> Vec<Candidate> {
    let mut places = discover::places(&Choice::Auto, environment);
    let mut seen = std::collections::HashSet::new();
    places.retain(|found| seen.insert(found.place.address.clone()));
    let asked = places.into_iter().map(async |found| {
        let Place { kind, address, found_by } = found.place.clone();
        Candidate { kind, address, found_by, usual: !found.set, answer: open(found, environment).await }
    });
    futures_util::future::join_all(asked).await
}

/// Asks an engine who it is.
async fn open(found: discover::Found, environment: &Environment) -> Result<Box<dyn Engine>, EngineError> {
    let address = match found.address? {
        Address::Unix(socket) if found.place.kind == Kind::Containerd => {
            return Ok(Box::new(containerd::open(found.place, socket, environment).await?));
        }
        address => address,
    };
    let mut wire = Wire::new(found.place, address, environment.timeout);
    let greeting = wire.get("/_ping").await?;
    let (kind, version, api) = match introduced(&greeting) {
        Some(introduced) => introduced,
        None => wire.ask::<Version>("/version").await?.introduced(),
    };
    wire.place.kind = kind;
    let Place { address, found_by, .. } = wire.place.clone();
    let about = About { kind, version, api, address, found_by, namespace: None };
    Ok(match kind {
        Kind::Podman => Box::new(podman::Podman::new(wire, about)),
        _ => Box::new(docker::Docker::new(wire, about, discover::docker_containerds(environment))),
    })
}

/// What an engine says of itself in the headers of every answer: `Server: Docker/20.10.24 (linux)`, `Libpod/4.3.1 (linux)`.
fn introduced(greeting: &wire::Reply) -> Option<(Kind, String, String)> {
    let (name, rest) = greeting.header("server").split_once('/')?;
    let (kind, api) = match name {
        "Docker" => (Kind::Docker, greeting.header("api-version")),
        "Libpod" => (Kind::Podman, greeting.header("libpod-api-version")),
        _ => return None,
    };
    let version = rest.split(' ').next().filter(|version| !version.is_empty() && !api.is_empty())?;
    Some((kind, version.to_owned(), api.to_owned()))
}

/// The platform that an engine's containers run on. Docker takes milliseconds to tell, podman a fifth of a second.
async fn platform(wire: &Wire) -> Result<Platform, EngineError> {
    let version: Version = wire.ask("/version").await?;
    let named = Platform::new(&version.os, &version.arch, None);
    named.ok_or_else(|| wire.unreadable("/version", serde::de::Error::custom("it names no platform")))
}

/// The answer to `GET /version`, of which docker and podman have the same form.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    api_version: String,
    os: String,
    arch: String,
    components: Option<Vec<Component>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    name: String,
    details: Option<Details>,
}

#[derive(serde::Deserialize)]
struct Details {
    #[serde(rename = "APIVersion")]
    api_version: Option<String>,
}

impl Version {
    fn introduced(self) -> (Kind, String, String) {
        let podman = self.components.into_iter().flatten().next().filter(|c| c.name == "Podman Engine");
        match podman {
            Some(podman) => (Kind::Podman, self.version, podman.details.and_then(|d| d.api_version).unwrap_or(self.api_version)),
            None => (Kind::Docker, self.version, self.api_version),
        }
    }
}

/// The answer to `GET /info`, as far as it tells how images are kept.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Storage {
    driver: String,
    #[serde(default, deserialize_with = "crate::json::null_is_default")]
    driver_status: Vec<(String, String)>,
    #[serde(default, deserialize_with = "crate::json::null_is_default")]
    security_options: Vec<String>,
    #[serde(default)]
    docker_root_dir: PathBuf,
    /// The containerd that docker works with; it says so since release 27.
    containerd: Option<ItsContainerd>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ItsContainerd {
    address: String,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Docker => "docker",
            Kind::Podman => "podman",
            Kind::Containerd => "containerd",
        })
    }
}

impl fmt::Display for About {
    /// The engine, and where in it names are looked up: `containerd (namespace k8s.io)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} (namespace {namespace})", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({})", self.kind, self.address, self.found_by)
    }
}
