//! The `hosts.toml` of containerd
//! ([Registry Configuration](https://github.com/containerd/containerd/blob/main/docs/hosts.md)), one for each registry in `certs.d/HOST`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::{By, Place, base, without_user};
use crate::upstream::error::{Result, UpstreamError};
use crate::upstream::hosts::Host;
use crate::upstream::papers::Papers;
use crate::upstream::wire::Wire;

/// The folder for registries that have none of their own.
const DEFAULT: &str = "_default";

/// One registry's file.
pub(super) struct HostsToml {
    path: Arc<PathBuf>,
    registry: String,
    /// In the order of the file; the server last, without a URL if the file names none.
    hosts: Vec<(Option<Url>, Said)>,
}

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<Spanned<String>, Said>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    skip_verify: bool,
    override_path: bool,
    header: BTreeMap<String, OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A file of certificate and key, several of them, or pairs.
#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(String),
    Many(Vec<OneOrMany>),
}

/// The file for a registry, out of the first folder that has one.
pub(super) fn read(folders: &[PathBuf], registry: &str) -> Result<Option<HostsToml>> {
    let (host, port) = registry.rsplit_once(':').map_or((registry, None), |(host, port)| (host, Some(port)));
    // Windows has no colons, and whoever shares the folders with it writes them so.
    let other = port.map(|port| format!("{host}_{port}_"));
    for folder in folders {
        for name in [Some(registry), other.as_deref(), Some(DEFAULT)].into_iter().flatten() {
            let path = folder.join(name).join("hosts.toml");
            match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => return HostsToml::parse(&text, path, registry).map(Some),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(source) => return Err(UpstreamError::SettingsRead { path, source }),
            }
        }
    }
    Ok(None)
}

impl HostsToml {
    fn parse(text: &str, path: PathBuf, registry: &str) -> Result<HostsToml> {
        let wrong = |why: String| UpstreamError::SettingsMalformed { path: path.clone(), why };
        // The message quotes the line, which may hold a header's secret.
        let malformed = |e: toml::de::Error| wrong(e.message().to_owned());
        let file: File = toml::from_str(text).map_err(malformed)?;
        // What stands at the top is said of the server.
        let own: Said = toml::from_str(text).map_err(malformed)?;
        let mut named: Vec<_> = file.host.into_iter().collect();
        named.sort_by_key(|(name, _)| name.span().start);
        let mut hosts = Vec::new();
        for (name, said) in named {
            let url =
                base(name.get_ref(), said.override_path).ok_or_else(|| wrong(format!("`{}` is no host", without_user(name.get_ref()))))?;
            hosts.push((Some(url), said));
        }
        let server = file.server.filter(|server| !server.is_empty());
        let server = server.map(|s| base(&s, own.override_path).ok_or_else(|| wrong(format!("`{}` is no server", without_user(&s)))));
        hosts.push((server.transpose()?, own));
        for (_, said) in &hosts {
            said.headers().ok_or_else(|| wrong("a header is none".to_owned()))?;
        }
        Ok(HostsToml { path: Arc::new(path), registry: registry.to_owned(), hosts })
    }

    /// The places that the file names for a repository; what it says of their hosts is told to the wire.
    pub(super) fn places(&self, wire: &Wire, origin: &Place, by: By) -> Vec<Place> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut places = Vec::new();
        let server = self.hosts.len() - 1;
        for (n, (base, said)) in self.hosts.iter().enumerate().filter(|(_, (base, said))| base.is_none() || said.may_be_asked(by)) {
            let place = match base {
                Some(base) => Place::through(base, origin, Some(&self.registry), self.path.clone())
                    .map(|place| Place { mirror: n != server, ..place }),
                None => Some(origin.clone()),
            };
            let Some(place) = place else { continue };
            let Ok(url) = place.url(wire, "manifests", "latest") else { continue };
            let insecure = base.is_some() && url.scheme() == "http";
            let host = Host { insecure, papers: said.papers(folder), headers: said.headers().unwrap_or_default() };
            if host != Host::default() {
                wire.learn(&url, host);
            }
            places.push(place);
        }
        places
    }
}

impl Said {
    fn may_be_asked(&self, by: By) -> bool {
        let can = |what: &str| self.capabilities.as_ref().is_none_or(|c| c.is_empty() || c.iter().any(|c| c.eq_ignore_ascii_case(what)));
        can("pull") && (by == By::Digest || can("resolve"))
    }

    fn papers(&self, folder: &Path) -> Papers {
        let file = |name: &String| folder.join(name);
        let pair = |clients: &Clients| match clients {
            Clients::One(both) => Some((file(both), None)),
            Clients::Many(many) => match many.first()? {
                OneOrMany::One(both) => Some((file(both), None)),
                OneOrMany::Many(pair) => Some((file(pair.first()?), pair.get(1).map(file))),
            },
        };
        Papers {
            authorities: self.ca.iter().flat_map(OneOrMany::all).map(file).collect(),
            client: self.client.as_ref().and_then(pair),
            unverified: self.skip_verify,
        }
    }

    fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, values) in &self.header {
            for value in values.all() {
                let mut value = HeaderValue::from_str(value).ok()?;
                value.set_sensitive(true);
                headers.append(HeaderName::try_from(name).ok()?, value);
            }
        }
        Some(headers)
    }
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Reference, Repository};
    use crate::upstream::Settings;

    fn places(text: &str, by: By) -> Vec<(String, String)> {
        let wire = Wire::new(Settings::default());
        let repository: Repository = "redis".parse::<Reference>().unwrap().repository().clone();
        let hosts = HostsToml::parse(text, "/etc/containerd/certs.d/docker.io/hosts.toml".into(), "docker.io").unwrap();
        let places = hosts.places(&wire, &Place::from(&repository), by);
        places.iter().map(|p| (p.to_string(), p.url(&wire, "manifests", "7").unwrap().to_string())).collect()
    }

    #[test]
    fn hosts_come_in_the_order_of_the_file_and_the_server_last() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example:5000"]
              capabilities = ["pull", "resolve"]
              [host."https://z.example:5000".header]
                x-key = ["a", "b"]
            [host."http://a/some/where"]
              capabilities = ["pull"]
            [host."https://art.example/api/docker/remote/v2"]
              override_path = true
            [host."push.example"]
              capabilities = ["push"]
            "#;
        let all = [
            ("z.example:5000/library/redis", "https://z.example:5000/v2/library/redis/manifests/7?ns=docker.io"),
            ("http://a/some/where/v2/library/redis", "http://a/some/where/v2/library/redis/manifests/7?ns=docker.io"),
            (
                "https://art.example/api/docker/remote/v2/library/redis",
                "https://art.example/api/docker/remote/v2/library/redis/manifests/7?ns=docker.io",
            ),
            ("docker.io/library/redis", "https://registry-1.docker.io/v2/library/redis/manifests/7"),
        ];
        let expected = |which: &[usize]| which.iter().map(|n| (all[*n].0.to_owned(), all[*n].1.to_owned())).collect::<Vec<_>>();
        assert_eq!(places(text, By::Digest), expected(&[0, 1, 2, 3]));
        assert_eq!(places(text, By::Tag), expected(&[0, 2, 3]));
        // Without a server the registry itself is the last.
        assert_eq!(places("[host.\"https://z.example:5000\"]", By::Tag), expected(&[0, 3]));
        assert_eq!(places("ca = \"x.crt\"", By::Tag), expected(&[3]));
    }

    #[test]
    fn what_a_host_is_shown_is_read_in_all_forms() {
        let text = r#"
            ca = ["a.pem", "/b.pem"]
            client = [["c.pem", "c.key"]]
            skip_verify = true
            header = { x-key = "s3cret" }
            "#;
        let said: Said = toml::from_str(text).unwrap();
        let papers = said.papers(Path::new("/dir"));
        assert_eq!(papers.authorities, [PathBuf::from("/dir/a.pem"), "/b.pem".into()]);
        assert_eq!(papers.client, Some(("/dir/c.pem".into(), Some("/dir/c.key".into()))));
        assert!(papers.unverified && !format!("{:?}", said.headers()).contains("s3cret"));
        for (text, client) in [("client = \"x\"", "/dir/x"), ("client = [\"x\", \"y\"]", "/dir/x")] {
            let said: Said = toml::from_str(text).unwrap();
            assert_eq!(said.papers(Path::new("/dir")).client, Some((client.into(), None)));
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_its_secrets() {
        for text in [
            "[host.\"ftp://h.io\"]",
            "[host.\"https://u:s3cret@h.io\"]",
            "server = 5",
            "header = { x = \"s3cret\\n\" }",
            "header = { s3cret = 5 }",
        ] {
            let error = HostsToml::parse(text, "f".into(), "h.io").err().unwrap();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
