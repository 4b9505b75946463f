//! What settings say of single hosts, gathered as the settings are read.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::papers::Papers;

/// What is known of one origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Whether it may be asked by plain HTTP.
    pub(super) insecure: bool,
    /// Its certificates.
    pub(super) papers: Papers,
    /// Headers that it is sent, and nobody else.
    pub(super) headers: HeaderMap,
}

/// What is known of hosts.
#[derive(Default)]
pub(super) struct Hosts(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By scheme, host and port.
    hosts: HashMap<String, Host>,
    /// Hosts that may be asked by plain HTTP, as settings write them.
    insecure: Vec<String>,
}

impl Hosts {
    /// Whether this was news.
    pub(super) fn learn(&self, url: &Url, host: Host) -> bool {
        let before = self.lock().hosts.insert(key(url), host.clone());
        before.unwrap_or_default() != host
    }

    pub(super) fn insecure(&self, url: &Url) -> bool {
        self.of(url).insecure || names(&self.lock().insecure, url)
    }

    /// These may be asked by plain HTTP, too.
    pub(super) fn name_insecure(&self, hosts: impl Iterator<Item = String>) {
        self.lock().insecure.extend(hosts);
    }

    pub(super) fn papers(&self, url: &Url) -> Papers {
        self.of(url).papers
    }

    pub(super) fn headers(&self, url: &Url) -> HeaderMap {
        self.of(url).headers
    }

    pub(super) fn of(&self, url: &Url) -> Host {
        self.lock().hosts.get(&key(url)).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the list has this host, either for every port or with just this one; `*.example.com` is every host under that.
pub(super) fn names(list: &[String], url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default();
    list.iter().any(|entry| match (entry.strip_prefix('*'), entry.strip_prefix(host)) {
        (Some(under), _) => under.starts_with('.') && host.ends_with(under),
        (None, Some("")) => true,
        (None, Some(rest)) => rest.strip_prefix(':').and_then(|p| p.parse().ok()).is_some_and(|p: u16| Some(p) == port),
        (None, None) => false,
    })
}

fn key(url: &Url) -> String {
    url.origin().ascii_serialization()
}
