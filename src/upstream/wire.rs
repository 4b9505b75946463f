//! Requests and answers, without knowing what a registry is.
//!
//! Owns the connections, and the rules that hold for each of them: where plain HTTP is allowed, which addresses are never
//! dialled, how far one place may lead to another. Always true: credentials that were meant for one origin (scheme,
//! host, port) are sent to that origin only, and nothing goes from HTTPS to HTTP. Whom credentials are meant for is
//! `auth`'s affair, what a status means `refusal`'s.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Certificate, Client, ClientBuilder, Method, StatusCode, Url};

use super::Settings;
use super::address::{Resolver, Shut, address_of};
use super::body::Answer;
use super::error::{Result, UpstreamError};
use super::failure;
use super::hosts::{Host, Hosts, names};
use super::papers::{Papers, read_roots};
use super::proxy::Proxies;
use super::rate::Rate;
use super::shown::ShownUrl;

/// How often one place may lead to another.
const REDIRECTS: usize = 5;

/// The connections, made when they are first needed.
pub(super) struct Wire {
    pub(super) settings: Settings,
    shut: Shut,
    /// What settings say of single hosts.
    pub(super) hosts: Hosts,
    /// For each origin that was asked; those that need nothing of their own share one.
    clients: Mutex<HashMap<String, Client>>,
    limit: Option<Arc<Rate>>,
}

/// One request, as often as it has to be made.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// A form, which goes to this URL and is never sent on.
    pub(super) form: Option<String>,
}

impl Wire {
    pub(super) fn new(settings: Settings) -> Wire {
        let shut = Shut::except(&settings.allowed_addresses);
        let limit = settings.limit_rate.map(|rate| Arc::new(Rate::new(rate)));
        Wire { settings, shut, hosts: Hosts::default(), limit, clients: Mutex::default() }
    }

    /// Asks, with these credentials if any, and follows where the answer leads, without them once that is another origin.
    pub(super) async fn send(&self, ask: &Ask, mut credentials: Option<&HeaderValue>) -> Result<Answer> {
        let mut url = ask.url.clone();
        let mut own = self.hosts.headers(&url);
        for _ in 0..=REDIRECTS {
            let answer = self.send_once(ask, &url, credentials, &own).await?;
            let Some(next) = self.leads_to(ask, &answer, &url)? else { return Ok(answer) };
            // What was left once gets nothing when the way leads back: the path is then another's choice.
            if next.origin() != url.origin() {
                credentials = None;
                own.clear();
            }
            answer.drain().await;
            url = next;
        }
        Err(UpstreamError::TooManyRedirects { url: ShownUrl::from(&ask.url), times: REDIRECTS + 1 })
    }

    /// Asks one place; `own` are the headers that settings want for it.
    async fn send_once(&self, ask: &Ask, url: &Url, credentials: Option<&HeaderValue>, own: &HeaderMap) -> Result<Answer> {
        let shown = ShownUrl::from(url);
        if let Some(address) = address_of(url).filter(|a| self.shut.has(*a)) {
            return Err(UpstreamError::Blocked { url: shown, address });
        }
        let mut headers = own.clone();
        headers.extend(ask.headers.clone());
        if let Some(credentials) = credentials {
            headers.insert(AUTHORIZATION, credentials.clone());
        }
        let mut request = self.client(url)?.request(ask.method.clone(), url.clone()).headers(headers);
        if let Some(form) = &ask.form {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.clone());
        }
        let home = url.origin() == ask.url.origin();
        let patience = self.settings.read_timeout;
        match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => Ok(Answer::new(response, shown, home, patience).limited(self.limit.clone())),
            Ok(Err(error)) => Err(failure::of_request(shown, error)),
            Err(_) => Err(UpstreamError::TimedOut { url: shown, after: patience }),
        }
    }

    fn leads_to(&self, ask: &Ask, answer: &Answer, from: &Url) -> Result<Option<Url>> {
        let follow = [
            StatusCode::MOVED_PERMANENTLY,
            StatusCode::FOUND,
            StatusCode::SEE_OTHER,
            StatusCode::TEMPORARY_REDIRECT,
            StatusCode::PERMANENT_REDIRECT,
        ];
        if ask.form.is_some() || !follow.contains(&answer.status()) {
            return Ok(None);
        }
        let url = || ShownUrl::from(from);
        let next = answer.header(LOCATION).and_then(|l| from.join(l).ok());
        let next = next.filter(|n| matches!(n.scheme(), "http" | "https") && n.username().is_empty() && n.password().is_none());
        let mut next = next.ok_or_else(|| UpstreamError::LostRedirect { url: url() })?;
        next.set_fragment(None);
        if !self.may_lead(from, &next) {
            return Err(UpstreamError::InsecureRedirect { url: url(), to: ShownUrl::from(&next) });
        }
        Ok(Some(next))
    }

    /// Whether one place may lead to the other: by plain HTTP only where that is allowed, and never from HTTPS, nor from
    /// elsewhere to what this machine keeps to itself.
    fn may_lead(&self, from: &Url, to: &Url) -> bool {
        let inward = is_loopback(to) && !is_loopback(from);
        to.scheme() == "https" || (from.scheme() == "http" && !inward && self.plain_allowed(to))
    }

    /// Whether this place may be asked by plain HTTP.
    pub(super) fn plain_allowed(&self, url: &Url) -> bool {
        if names(&self.settings.https, url) {
            return false;
        }
        if names(&self.settings.insecure, url) || self.hosts.insecure(url) {
            return true;
        }
        // Certificates for a host say that it speaks TLS, on loopback too.
        is_loopback(url) && !Papers::in_folders(&self.settings.certificate_folders, url).is_ok_and(|papers| papers != Papers::default())
    }

    fn client(&self, url: &Url) -> Result<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = url.origin().ascii_serialization();
        if let Some(client) = clients.get(&origin) {
            return Ok(client.clone());
        }
        let (tls, near) = (url.scheme() == "https", is_loopback(url));
        let papers = if tls { self.papers(url)? } else { Papers::default() };
        let shared = (papers == Papers::default()).then(|| format!("tls {tls} near {near}"));
        let client = match shared.as_ref().and_then(|shared| clients.get(shared)) {
            Some(client) => client.clone(),
            None => self.make(tls, near, &papers)?,
        };
        clients.extend(shared.into_iter().chain([origin]).map(|key| (key, client.clone())));
        Ok(client)
    }

    /// What there is for this host in settings of every kind.
    pub(super) fn papers(&self, url: &Url) -> Result<Papers> {
        let mut papers = self.hosts.papers(url);
        papers.and(Papers::in_folders(&self.settings.certificate_folders, url)?);
        Ok(papers)
    }

    /// The settings name this host; what was known of it before is looked at anew.
    pub(super) fn learn(&self, url: &Url, host: Host) {
        if self.hosts.learn(url, host) {
            self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(&url.origin().ascii_serialization());
        }
    }

    fn make(&self, tls: bool, near: bool, papers: &Papers) -> Result<Client> {
        let setup = |source| UpstreamError::Setup { source };
        if !tls {
            return self.configured(near).tls_certs_only([]).build().map_err(setup);
        }
        let identity = papers.identity()?;
        let client = || {
            let client = self.configured(near).tls_danger_accept_invalid_certs(papers.unverified);
            identity.iter().fold(client, |client, identity| client.identity(identity.clone()))
        };
        let mut own = papers.roots()?;
        for path in &self.settings.roots {
            own.extend(read_roots(path)?);
        }
        // The platform's verifier is content with our own roots alone, so it is asked without them whether it has any.
        let without = client().build();
        match without {
            Ok(client) if own.is_empty() => Ok(client),
            Ok(_) => client().tls_certs_merge(own).build().map_err(setup),
            Err(_) => client().tls_certs_only(own.into_iter().chain(bundled_roots())).build().map_err(setup),
        }
    }

    fn configured(&self, near: bool) -> ClientBuilder {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let client = Client::builder()
            .http1_only()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.settings.connect_timeout)
            .dns_resolver(Arc::new(Resolver { shut: self.shut.clone() }))
            .user_agent(self.settings.user_agent.as_str());
        // As Go's programs do it, whatever the settings say.
        let proxies = if near { Proxies::default() } else { self.settings.proxies.clone() };
        client.no_proxy().proxy(reqwest::Proxy::custom(move |url| proxies.of(url).cloned()))
    }
}

/// What browsers trust, for systems that trust nothing, as small container images do.
fn bundled_roots() -> impl Iterator<Item = Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|c| Certificate::from_der(c).ok())
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match address_of(url) {
        Some(IpAddr::V4(v4)) => v4.is_loopback(),
        Some(IpAddr::V6(v6)) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
        None => url.host_str() == Some("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_way_leads_neither_out_of_https_nor_inward() {
        let wire = Wire::new(Settings { insecure: vec!["lan.example".into()], ..Settings::default() });
        let open = [
            ("https://a.io", "https://b.io"),
            ("http://lan.example", "https://b.io"),
            ("http://lan.example", "http://lan.example:81"),
            ("http://127.0.0.1:1", "http://127.0.0.1:2"),
            ("http://127.0.0.1:1", "http://lan.example"),
        ];
        let shut = [
            ("https://a.io", "http://a.io"),
            ("https://a.io", "http://lan.example"),
            ("https://a.io", "http://127.0.0.1"),
            ("http://lan.example", "http://b.io"),
            ("http://lan.example", "http://127.0.0.1:2375"),
            ("http://lan.example", "http://[::1]:80"),
            ("http://lan.example", "http://localhost"),
        ];
        for (cases, expected) in [(&open[..], true), (&shut[..], false)] {
            for (from, to) in cases {
                assert_eq!(wire.may_lead(&url(from), &url(to)), expected, "{from} {to}");
            }
        }
    }

    #[test]
    fn plain_http_is_for_loopback_and_for_hosts_that_are_named() {
        let settings = Settings {
            insecure: vec!["lan.example".into(), "box:5000".into(), "[2001:db8::1]:80".into()],
            https: vec!["localhost:8443".into()],
            ..Settings::default()
        };
        let wire = Wire::new(settings);
        for text in [
            "127.0.0.1:5000",
            "127.8.9.1",
            "[::1]:5000",
            "localhost",
            "localhost:5000",
            "lan.example",
            "lan.example:8080",
            "box:5000",
            "[2001:db8::1]",
        ] {
            assert!(wire.plain_allowed(&url(&format!("http://{text}/"))), "{text}");
        }
        for text in [
            "localhost:8443",
            "128.0.0.1",
            "localhost.evil.io",
            "box",
            "box:5001",
            "box:50000",
            "xlan.example",
            "lan.example.io",
            "127.0.0.1.evil.io",
            "docker.io",
        ] {
            assert!(!wire.plain_allowed(&url(&format!("http://{text}/"))), "{text}");
        }
    }
}
