//! Where a repository is asked for: at mirrors first, as settings name them, then at its own registry.
//!
//! Settings are larder's own, podman's `registries.conf`, docker's `daemon.json` and containerd's `hosts.toml`, in this order. Always true: a digest may be
//! asked of every place, since it decides what comes; a tag only of those that settings let say what it means. What an image is
//! called is not changed by where it comes from, and no registry is guessed for a short name.

mod daemon_json;
mod hosts_toml;
mod registries_conf;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use reqwest::Url;

use self::registries_conf::Registries;
use super::error::{Result, UpstreamError};
use super::wire::Wire;
use crate::reference::{Reference, Repository};

/// Where a repository is asked for: its name at a registry, its own or a mirror, and the way there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    repository: Repository,
    way: Option<Arc<Way>>,
    named: Option<Arc<PathBuf>>,
    mirror: bool,
}

/// The way to a place that is not the usual one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Way {
    /// Where the paths of the protocol begin, without a slash at the end.
    base: Url,
    /// The registry that is meant, for mirrors of several.
    ns: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A tag, which means what the place says.
    Tag,
    /// A digest, which means the same everywhere.
    Digest,
}

/// Mirrors of what lies under a prefix, as larder's own settings have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// A registry, or a namespace in it.
    pub prefix: String,
    /// The mirrors, in the order in which they are asked.
    pub mirrors: Vec<Mirror>,
    /// The file that says so.
    pub path: PathBuf,
}

/// A mirror, as larder's own settings have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `host[:port][/path]`, which stands for the prefix.
    pub location: String,
    /// Whether it may say what a tag means.
    pub tags: bool,
}

/// What was read of settings that name places, once something was asked.
#[derive(Default)]
pub(super) struct Places {
    registries: OnceLock<Registries>,
}

impl Place {
    /// The repository's name there, which is not that of the image if it is a mirror.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The path in the registry there.
    pub fn path(&self) -> &str {
        self.repository.path()
    }

    /// Whether others are asked when it fails, since it is not the image's own registry or what stands for that.
    pub fn is_mirror(&self) -> bool {
        self.mirror
    }

    /// The file of settings that names it, if one does.
    pub fn named(&self) -> Option<&Path> {
        self.named.as_deref().map(PathBuf::as_path)
    }

    /// A mirror that a file of settings names by `host[:port][/path]`.
    fn mirror(location: &str, rest: &str, path: &Path) -> Result<Place> {
        let wrong = || UpstreamError::Place { path: path.to_owned(), location: location.to_owned() };
        let text = format!("{}{rest}", location.trim_end_matches('/'));
        let reference: Reference = text.parse().map_err(|_| wrong())?;
        let repository = reference.repository().clone();
        // What has no dot and no port is a name at Docker Hub, and was not meant.
        let host = text.split('/').next().unwrap_or_default();
        let meant = repository.registry() == host || matches!(host, "index.docker.io" | "registry-1.docker.io");
        let bare = reference.tag().is_none() && reference.digest().is_none();
        if meant && bare {
            Ok(Place { named: Some(Arc::new(path.to_owned())), mirror: true, ..Place::from(&repository) })
        } else {
            Err(wrong())
        }
    }

    /// A mirror that settings name by the server's URL; `registry` is the one that is meant, if the server is to be told where it is another.
    fn through(base: &Url, origin: &Place, registry: Option<&str>, named: Arc<PathBuf>) -> Option<Place> {
        let host = base.host_str()?;
        let port = base.port().or_else(|| (!host.contains('.')).then(|| base.port_or_known_default()).flatten());
        let authority = port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
        let usual = |registry: &str| authority == if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let ns = registry.filter(|registry| !usual(registry)).map(str::to_owned);
        let reference: Reference = format!("{authority}/{}", origin.repository.path()).parse().ok()?;
        let way = Some(Arc::new(Way { base: base.clone(), ns }));
        Some(Place { repository: reference.repository().clone(), way, named: Some(named), mirror: true })
    }

    /// The URL of something there.
    pub(super) fn url(&self, wire: &Wire, kind: &str, name: &str) -> Result<Url> {
        let path = self.repository.path();
        if let Some(way) = &self.way {
            let mut url = way.base.clone();
            url.set_path(&format!("{}/{path}/{kind}/{name}", way.base.path().trim_end_matches('/')));
            url.query_pairs_mut().extend_pairs(way.ns.iter().map(|ns| ("ns", ns)));
            url.set_query(url.query().filter(|q| !q.is_empty()).map(str::to_owned).as_deref());
            return Ok(url);
        }
        let registry = self.repository.registry();
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let url = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{host}/v2/{path}/{kind}/{name}"));
            url.map_err(|_| UpstreamError::Address { registry: registry.to_owned() })
        };
        let plain = url("http")?;
        if wire.plain_allowed(&plain) { Ok(plain) } else { url("https") }
    }
}

impl From<&Repository> for Place {
    fn from(repository: &Repository) -> Place {
        Place::from(repository.clone())
    }
}

impl From<Repository> for Place {
    fn from(repository: Repository) -> Place {
        Place { repository, way: None, named: None, mirror: false }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.way {
            Some(way) if way.base.path() != "/v2" => {
                write!(f, "{}/{}", super::ShownUrl::from(&way.base), self.repository.path())
            }
            _ => write!(f, "{}", self.repository),
        }
    }
}

impl Places {
    /// Where a repository is asked for, each place once, its own registry last.
    pub(super) fn of(&self, wire: &Wire, repository: &Repository, by: By) -> Result<Vec<Place>> {
        let whole = repository.to_string();
        let mut places = Vec::new();
        let own = wire.settings.mirrors.iter().filter_map(|m| Some((covers(&m.prefix, &whole)?, m))).max_by_key(|(length, _)| *length);
        if let Some((length, mirrored)) = own {
            for mirror in mirrored.mirrors.iter().filter(|m| m.tags || by == By::Digest) {
                places.push(Place::mirror(&mirror.location, &whole[length..], &mirrored.path)?);
            }
        }
        let origin = self.registries(wire)?.of(&whole, by, &mut places)?.unwrap_or_else(|| Place::from(repository));
        places.extend(daemon_json::places(wire, &origin)?);
        let hosts = hosts_toml::read(&wire.settings.hosts_folders, origin.repository.registry())?;
        match hosts {
            Some(hosts) => places.extend(hosts.places(wire, &origin, by)),
            None => places.push(origin),
        }
        let mut seen = HashSet::new();
        places.retain(|place| seen.insert((place.repository.clone(), place.way.clone())));
        Ok(places)
    }

    fn registries(&self, wire: &Wire) -> Result<&Registries> {
        if let Some(registries) = self.registries.get() {
            return Ok(registries);
        }
        let registries = Registries::read(&wire.settings.registries_files)?;
        wire.hosts.name_insecure(registries.insecure());
        Ok(self.registries.get_or_init(|| registries))
    }
}

/// Where the protocol's paths begin at a server; `/v2` stands at the end unless the path is said to be the whole.
fn base(server: &str, whole: bool) -> Option<Url> {
    let url = if server.contains("://") { Url::parse(server) } else { Url::parse(&format!("https://{server}")) };
    let mut url = url.ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.username().is_empty() && u.password().is_none())?;
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if whole || path.ends_with("/v2") { path } else { format!("{path}/v2") };
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

/// A server as it may be shown: it may have been written with a password.
fn without_user(server: &str) -> &str {
    server.rsplit('@').next().unwrap_or_default()
}

/// How much of a repository's name a prefix covers: `*.example.com` is every registry under that.
fn covers(prefix: &str, whole: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*') {
        Some(under) => {
            let host = whole.split('/').next().unwrap_or_default();
            let name = host.split(':').next().unwrap_or_default();
            (under.starts_with('.') && name.ends_with(under)).then_some(name.len())?
        }
        None => whole.starts_with(prefix).then_some(prefix.len())?,
    };
    let rest = &whole[length..];
    (rest.is_empty() || rest.starts_with('/') || prefix.starts_with('*') && rest.starts_with(':')).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_whole_names() {
        for (prefix, whole, covered) in [
            ("h.io", "h.io/a/b", Some(4)),
            ("h.io/a", "h.io/a/b", Some(6)),
            ("h.io/a/b", "h.io/a/b", Some(8)),
            ("h.io/a", "h.io/ab", None),
            ("h.io", "h.io:5000/a", None),
            ("*.h.io", "x.h.io/a", Some(6)),
            ("*.h.io", "x.y.h.io:5000/a", Some(8)),
            ("*.h.io", "h.io/a", None),
            ("*.h.io", "xh.io/a", None),
            ("*.h.io", "evil.io/x.h.io/a", None),
            ("*h.io", "xh.io/a", None),
        ] {
            assert_eq!(covers(prefix, whole), covered, "{prefix} {whole}");
        }
    }

    #[test]
    fn a_location_is_a_place_and_nothing_else() {
        let at = |location| Place::mirror(location, "/library/redis", Path::new("f")).map(|p| p.to_string()).ok();
        assert_eq!(at("mirror.io").as_deref(), Some("mirror.io/library/redis"));
        assert_eq!(at("mirror.io:5000/docker/").as_deref(), Some("mirror.io:5000/docker/library/redis"));
        assert_eq!(at("localhost/x").as_deref(), Some("localhost/x/library/redis"));
        for wrong in ["mirror", "mirror/x", "https://mirror.io", "u:p@mirror.io", "mirror.io/../x", "mirror.io/x?y", ""] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
