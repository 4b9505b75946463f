//! Who is asking: passes for repositories.
//!
//! A pass is the header that opens one repository: a token or a password. Always true: it is asked for only after the
//! registry wanted one, once for all who wait for it, and used until it ends or is refused; a password goes to the registry
//! that it is for, or to a token server that belongs to it, and never to one that somebody else named. The protocol is
//! that of [distribution's token specification](https://distribution.github.io/distribution/spec/auth/token/).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue};

use super::authfile;
use super::challenge::Challenge;
use super::credentials::{Credential, CredentialsError, Secret, Source};
use super::error::{Result, UpstreamError};
use super::places::Place;
use super::shown::{Said, ShownUrl};
use super::token::TokenServer;
use super::wire::Wire;

/// Token servers on another host than their registry, which are known to belong to it.
const REALMS: [(&str, &str); 4] = [
    ("docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
    ("docker.elastic.co", "docker-auth.elastic.co"),
    ("registry.digitalocean.com", "api.digitalocean.com"),
];

/// All passes that are held.
#[derive(Default)]
pub(super) struct Auth {
    standings: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<Standing>>>>,
}

/// What is known of one repository.
#[derive(Default)]
struct Standing {
    header: Option<HeaderValue>,
    until: Option<Instant>,
    /// How often the pass was changed, so that of many who were refused with one pass only the first asks for another.
    round: u64,
    access: Access,
}

/// What a request may show, and what came of asking for it.
pub(super) struct Pass {
    pub(super) header: Option<HeaderValue>,
    pub(super) access: Access,
    round: u64,
}

/// What a registry knows of who asks.
#[derive(Debug, Clone, Default)]
pub(super) enum Access {
    /// Nothing: there are no credentials for it, or it wanted none.
    #[default]
    Anyone,
    /// It is sent these credentials themselves.
    Sent(Box<Source>),
    /// Its token server took these credentials.
    Taken(Box<Source>),
    /// Its token server did not take these.
    Refused(Box<Source>),
    /// Its token server is not one that these may be sent to.
    Withheld(Box<Source>, String),
    /// There may be credentials.
    Unreadable(Arc<CredentialsError>),
}

impl Access {
    /// The registry wants to know who asks, although it was told what there is to tell.
    pub(super) fn refused(self, url: ShownUrl, said: Option<Box<Said>>) -> UpstreamError {
        match self {
            Access::Anyone => UpstreamError::NoCredentials { url, said },
            Access::Taken(from) => UpstreamError::Denied { url, from: Some(from), said },
            Access::Sent(from) | Access::Refused(from) => UpstreamError::CredentialsRefused { url, from, said },
            Access::Withheld(from, realm) => UpstreamError::CredentialsWithheld { url, from, realm },
            Access::Unreadable(source) => UpstreamError::CredentialsUnreadable { url, source },
        }
    }

    /// The registry does not allow it to who asks.
    pub(super) fn denied(self, url: ShownUrl, said: Option<Box<Said>>) -> UpstreamError {
        match self {
            Access::Anyone => UpstreamError::Denied { url, from: None, said },
            Access::Sent(from) | Access::Taken(from) => UpstreamError::Denied { url, from: Some(from), said },
            other => other.refused(url, said),
        }
    }
}

impl Auth {
    /// The pass that is held for this repository; waits for one that is being asked for.
    pub(super) async fn pass(&self, of: &Place) -> Pass {
        self.standing(of).lock().await.pass()
    }

    /// Another pass in the place of one that was refused with these headers.
    pub(super) async fn renew(&self, wire: &Wire, of: &Place, asked: &Url, used: &Pass, headers: &HeaderMap) -> Result<Pass> {
        let standing = self.standing(of);
        let mut standing = standing.lock().await;
        if standing.round == used.round {
            let challenge = Challenge::choose(headers).ok_or_else(|| UpstreamError::Challenge { url: ShownUrl::from(asked) })?;
            *standing = Request { wire, of, asked }.answer(challenge, used).await?;
        }
        Ok(standing.pass())
    }

    /// Gives up a pass that was refused without a word about what would do.
    pub(super) async fn forget(&self, of: &Place, used: &Pass) -> Pass {
        let standing = self.standing(of);
        let mut standing = standing.lock().await;
        if standing.round == used.round {
            *standing = Standing { round: used.round + 1, ..Standing::default() };
        }
        standing.pass()
    }

    fn standing(&self, of: &Place) -> Arc<tokio::sync::Mutex<Standing>> {
        let mut standings = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        standings.entry(of.clone()).or_default().clone()
    }
}

impl Standing {
    fn pass(&self) -> Pass {
        let fresh = self.until.is_none_or(|until| Instant::now() < until);
        Pass { header: self.header.clone().filter(|_| fresh), access: self.access.clone(), round: self.round }
    }
}

/// One registry's wish to know who asks.
struct Request<'a> {
    wire: &'a Wire,
    of: &'a Place,
    /// What the registry was asked.
    asked: &'a Url,
}

impl Request<'_> {
    async fn answer(&self, challenge: Challenge, used: &Pass) -> Result<Standing> {
        let found = authfile::find(&self.wire.settings, self.of.repository()).await;
        let (found, access) = match found {
            Ok(found) => (found, Access::Anyone),
            Err(e) => (None, Access::Unreadable(Arc::new(e))),
        };
        let round = used.round + 1;
        let straight = |header, from| Standing { header: Some(header), until: None, round, access: Access::Sent(from) };
        match (challenge, found) {
            (_, Some((Credential::Token(token), from))) => Ok(straight(self.header(bearer(token.expose()))?, from)),
            (Challenge::Basic, Some((Credential::Basic { username, password }, from))) => {
                Ok(straight(self.header(basic(&username, &password))?, from))
            }
            // An identity token is of no use where no token server is named.
            (Challenge::Basic, Some((Credential::Identity(_), from))) => Err(Access::Refused(from).refused(self.shown(), None)),
            (Challenge::Basic, None) => Err(access.refused(self.shown(), None)),
            (Challenge::Bearer { realm, service, scope }, found) => {
                let realm = self.realm(&realm)?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.of.path()));
                let server = TokenServer { wire: self.wire, trusted: self.trusts(&realm), realm, service, scope, asked: self.shown() };
                let (token, access) = server.token(found, access).await?;
                Ok(Standing { header: Some(token.header), until: Some(Instant::now() + token.lasts), round, access })
            }
        }
    }

    fn realm(&self, text: &str) -> Result<Url> {
        let realm = Url::parse(text).ok().filter(|r| r.has_host() && r.username().is_empty() && r.password().is_none());
        let Some(realm) = realm else { return Err(UpstreamError::Challenge { url: self.shown() }) };
        let secure = match realm.scheme() {
            "https" => true,
            "http" => self.asked.scheme() == "http" && self.wire.plain_allowed(&realm),
            _ => false,
        };
        if secure { Ok(realm) } else { Err(UpstreamError::Realm { url: self.shown(), realm: ShownUrl::from(&realm).to_string() }) }
    }

    /// Whether a token server may be sent this registry's credentials.
    fn trusts(&self, realm: &Url) -> bool {
        let Some(host) = realm.host_str() else { return false };
        self.asked.host_str() == Some(host)
            || REALMS.contains(&(self.of.repository().registry(), host))
            || self.wire.settings.trusted_realms.iter().any(|trusted| trusted == host)
    }

    /// Only what has control characters in it cannot be sent.
    fn header(&self, header: Option<HeaderValue>) -> Result<HeaderValue> {
        header.ok_or_else(|| UpstreamError::Challenge { url: self.shown() })
    }

    fn shown(&self) -> ShownUrl {
        ShownUrl::from(self.asked)
    }
}

/// The header that shows user and password, if they can be sent.
pub(super) fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{}", password.expose()));
    secret(&format!("Basic {text}"))
}

/// The header that shows a token, if it can be sent.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
