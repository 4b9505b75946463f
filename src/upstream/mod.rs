//! The only door to the network: registries.
//!
//! Asks a registry for manifests and blobs, by the rules of the
//! [distribution specification](https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md). Always true: a
//! manifest that was asked for by digest is the one that has this digest; what a registry says of its content, in
//! headers, is believed of nothing. Knows nothing of the disk: a blob's bytes are handed out as they come, to be hashed by whoever takes
//! them. Nothing is read from the environment here but what the TLS library reads for itself: where the system keeps its certificates.

mod address;
mod auth;
mod authfile;
mod blob;
mod body;
mod challenge;
mod credentials;
mod early;
mod error;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod helper;
mod hosts;
mod limits;
mod link;
mod papers;
mod places;
mod proxy;
mod rate;
mod referrers;
mod refusal;
mod retry;
mod route;
mod shown;
mod stretch;
mod token;
mod width;
mod wire;

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};

pub use self::blob::BlobStream;
pub use self::credentials::{CredentialsError, Given, Login, Secret, Source};
pub use self::early::Unnamed;
pub use self::error::UpstreamError;
pub use self::limits::Limits;
pub use self::places::{By, Mirror, Mirrored, Place};
pub use self::proxy::{Proxies, ProxyError};
pub use self::route::Route;
pub use self::shown::{Said, ShownUrl};

use self::auth::{Access, Auth};
use self::body::Answer;
use self::error::Result;
use self::places::Places;
use self::refusal::Wanted;
use self::retry::Retry;
use self::stretch::Errand;
use self::width::Width;
use self::wire::{Ask, Wire};
use crate::digest::{Digest, Verified};
use crate::event::Tell;
use crate::oci::{DOCUMENT_LIMIT, Descriptor, INDEX_TYPES, MANIFEST_TYPES};
use crate::reference::Repository;

/// The door.
pub struct Upstream {
    wire: Wire,
    auth: Auth,
    places: Places,
    width: Width,
}

/// How registries are to be asked. The default asks all by HTTPS but those on loopback, without credentials.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Credentials that go before all that is found in files.
    pub logins: Vec<Login>,
    /// The text of a file of credentials, which goes before all files.
    pub credentials: Option<Given>,
    /// Files of credentials, docker's or podman's, the first before the others; those that are not there are passed over. The usual
    /// order: what `--authfile` or `REGISTRY_AUTH_FILE` says and nothing else; or `$XDG_RUNTIME_DIR/containers/auth.json`,
    /// `$XDG_CONFIG_HOME/containers/auth.json`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
    pub credential_files: Vec<PathBuf>,
    /// Folders in which credential helpers are looked for before the search path.
    pub helper_folders: Vec<PathBuf>,
    /// Hosts, with a port or for all ports, that are asked by plain HTTP.
    pub insecure: Vec<String>,
    /// Hosts on loopback, with a port or for all ports, that are asked by HTTPS all the same.
    pub https: Vec<String>,
    /// Hosts of token servers that may be sent credentials although they are not their registry's own.
    pub trusted_realms: Vec<String>,
    /// Addresses that are dialled although they are link-local or a cloud's metadata service.
    pub allowed_addresses: Vec<IpAddr>,
    /// Files of certificate authorities, in PEM form, that are trusted besides the system's.
    pub roots: Vec<PathBuf>,
    /// Folders in which `HOST:PORT/` holds certificates for that host: `*.crt`, `*.cert`, `*.key`.
    pub certificate_folders: Vec<PathBuf>,
    /// The way through proxies.
    pub proxies: Proxies,
    /// Mirrors that larder's own settings name.
    pub mirrors: Vec<Mirrored>,
    /// Files in the form of `registries.conf`, the last before the others; those that are not there are passed over.
    pub registries_files: Vec<PathBuf>,
    /// Files in the form of docker's `daemon.json`; the first that is there names mirrors of Docker Hub.
    pub daemon_files: Vec<PathBuf>,
    /// Folders in which `HOST/hosts.toml` names the mirrors of a registry, as containerd reads them; the first that has one decides.
    pub hosts_folders: Vec<PathBuf>,
    /// What larder calls itself.
    pub user_agent: String,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long nothing may come.
    pub read_timeout: Duration,
    /// How long a credential helper may take.
    pub helper_timeout: Duration,
    /// How many blobs are fetched at once.
    pub at_once: NonZeroUsize,
    /// Up to how many connections bring blobs where each gives little and more bring more; no more than one for each blob if there is a
    /// [`limit_rate`](Settings::limit_rate).
    pub connections: NonZeroUsize,
    /// The most bytes a second that are taken from all registries together.
    pub limit_rate: Option<NonZeroU64>,
    /// How often something is tried in all, as long as nothing comes of it.
    pub tries: u32,
    /// The time to the second try; doubled for each that follows.
    pub backoff: Duration,
    /// The longest wait that a registry may ask for; if it asks for more, this is a failure.
    pub longest_wait: Duration,
    /// When all has to be done: what would be tried again later than that has failed.
    pub deadline: Option<Instant>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            logins: Vec::new(),
            credentials: None,
            credential_files: Vec::new(),
            helper_folders: Vec::new(),
            insecure: Vec::new(),
            https: Vec::new(),
            trusted_realms: Vec::new(),
            allowed_addresses: Vec::new(),
            roots: Vec::new(),
            certificate_folders: Vec::new(),
            proxies: Proxies::default(),
            mirrors: Vec::new(),
            registries_files: Vec::new(),
            daemon_files: Vec::new(),
            hosts_folders: Vec::new(),
            user_agent: concat!("larder/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            helper_timeout: Duration::from_secs(30),
            at_once: NonZeroUsize::new(5).expect("it is not zero"),
            connections: NonZeroUsize::new(20).expect("it is not zero"),
            limit_rate: None,
            tries: 5,
            backoff: Duration::from_millis(500),
            longest_wait: Duration::from_secs(60),
            deadline: None,
        }
    }
}

/// What names a manifest in a repository.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// A tag: whatever it means now.
    Tag(&'a str),
    /// A digest.
    Digest(Digest),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Tag(tag) => f.write_str(tag),
            At::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest or index that came.
pub struct Found {
    /// Its bytes: those that were asked for, or for a tag those that came.
    pub bytes: Verified,
    /// What the registry says that they are.
    pub media_type: Option<String>,
}

impl Upstream {
    /// A door that asks as the settings say. Nothing is read or opened before something is asked.
    pub fn new(settings: Settings) -> Result<Upstream> {
        let width = Width::new(if settings.limit_rate.is_some() { 1 } else { settings.connections.get() });
        Ok(Upstream { wire: Wire::new(settings), auth: Auth::default(), places: Places::default(), width })
    }

    /// Where a repository is asked for, in this order: its mirrors, then its own registry. Fails if settings forbid it.
    pub fn places(&self, of: &Repository, by: By) -> Result<Vec<Place>> {
        self.places.of(&self.wire, of, by)
    }

    /// Fetches a manifest or index.
    pub async fn manifest(&self, of: &Place, at: At<'_>, tell: &Tell<'_>) -> Result<Found> {
        let url = of.url(&self.wire, "manifests", &at.to_string())?;
        let ask = manifest_ask(Method::GET, url);
        let mut retry = Retry::new(&self.wire.settings, tell).of(of);
        loop {
            match self.manifest_once(&ask, of, at).await {
                Ok(found) => return Ok(found),
                Err(error) => retry.pause(error).await?,
            }
        }
    }

    async fn manifest_once(&self, ask: &Ask, of: &Place, at: At<'_>) -> Result<Found> {
        let mut answer = success(self.ask(ask, of, Wanted::Manifest).await?.plain()?)?;
        let media_type = answer.header(CONTENT_TYPE).map(|t| shown::plain(t, 200));
        let bytes = answer.bytes(DOCUMENT_LIMIT).await?;
        let bytes = match at {
            At::Tag(_) => Verified::hash(bytes),
            At::Digest(digest) => {
                Verified::compare(bytes, &digest).map_err(|source| UpstreamError::WrongManifest { url: answer.url, source })?
            }
        };
        Ok(Found { bytes, media_type })
    }

    /// Asks what a tag means now, without fetching it; none if there is no such tag.
    ///
    /// The registry says it in a header, so it is a hint: enough to see that a tag moved, not to pin anything.
    pub async fn head(&self, of: &Place, tag: &str) -> Result<Option<Digest>> {
        let ask = manifest_ask(Method::HEAD, of.url(&self.wire, "manifests", tag)?);
        let mut retry = Retry::new(&self.wire.settings, &crate::event::silent).of(of);
        loop {
            match self.ask(&ask, of, Wanted::Manifest).await.and_then(success) {
                Ok(answer) => match answer.header("docker-content-digest").and_then(|d| d.parse().ok()) {
                    Some(digest) => return Ok(Some(digest)),
                    None => break,
                },
                Err(UpstreamError::NoManifest { .. } | UpstreamError::NoRepository { .. }) => return Ok(None),
                Err(UpstreamError::Status { status: 405, .. }) => break,
                Err(error) => retry.pause(error).await?,
            }
        }
        // Registries need not send the header, and some know no HEAD.
        match self.manifest(of, At::Tag(tag), &crate::event::silent).await {
            Ok(found) => Ok(Some(found.bytes.digest())),
            Err(UpstreamError::NoManifest { .. } | UpstreamError::NoRepository { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many blobs are to be fetched at once.
    pub fn at_once(&self) -> usize {
        self.wire.settings.at_once.get()
    }

    /// A blob's bytes from `offset` on; survives cuts by itself.
    ///
    /// Where one connection gives little, it may come over several, if there is a way to open a file without a name: what comes before it is its turn waits
    /// there.
    pub async fn blob<'a>(
        &'a self,
        of: &'a Place,
        blob: &'a Descriptor,
        offset: u64,
        unnamed: Option<&'a Unnamed<'a>>,
        tell: &'a Tell<'a>,
    ) -> Result<BlobStream<'a>> {
        let url = of.url(&self.wire, "blobs", &blob.digest.to_string())?;
        if offset > blob.size {
            return Err(UpstreamError::NoRange { url: ShownUrl::from(&url), offset });
        }
        BlobStream::open(Errand { upstream: self, of, blob, url, tell }, offset, unnamed).await
    }

    /// Asks once, and once more with another pass if that is what the registry wants. Fails with what a refusal means.
    async fn ask(&self, ask: &Ask, of: &Place, wanted: Wanted) -> Result<Answer> {
        let mut pass = self.auth.pass(of).await;
        let (mut renewed, mut forgotten) = (false, false);
        loop {
            let answer = self.wire.send(ask, pass.header.as_ref()).await?;
            match answer.status() {
                status if status.is_success() => return Ok(answer),
                StatusCode::UNAUTHORIZED if answer.home && !renewed => {
                    renewed = true;
                    let headers = answer.headers().clone();
                    answer.drain().await;
                    pass = self.auth.renew(&self.wire, of, &ask.url, &pass, &headers).await?;
                }
                // Amazon's registries answer so to a password that has run out, without asking for another.
                StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST if answer.home && pass.header.is_some() && !renewed && !forgotten => {
                    forgotten = true;
                    answer.drain().await;
                    pass = self.auth.forget(of, &pass).await;
                }
                // Where the registry leads, nothing is known of who asks.
                _ if !answer.home => return Err(refusal::of_answer(answer, wanted, Access::Anyone).await),
                _ => return Err(refusal::of_answer(answer, wanted, pass.access).await),
            }
        }
    }
}

fn manifest_ask(method: Method, url: Url) -> Ask {
    let types = [INDEX_TYPES, MANIFEST_TYPES].concat().join(", ");
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_str(&types).expect("media types are a header's text"));
    Ask { method, url, headers, form: None }
}

/// The answer if it is the plain success that was asked for, and not an accepted or partial one.
fn success(answer: Answer) -> Result<Answer> {
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status => Err(UpstreamError::Status { url: answer.url, status: status.as_u16(), said: None }),
    }
}
