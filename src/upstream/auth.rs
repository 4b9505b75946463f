//! Who is asking: passes for repositories.
//!
//! A pass is the header that opens one repository: a token or a password. Always true: it is asked for only after the
//! registry wanted one, once for all who wait for it, and used until it ends or is refused; a password goes to the registry
//! that it is for, or to a token server that belongs to it, and never to one that somebody else named. The protocol is
//! that of [distribution's token specification](https://distribution.github.io/distribution/spec/auth/token/).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::{self, Credential, CredentialsError, Source};
use super::error::{Result, UpstreamError};
use super::refusal::{self, Wanted};
use super::shown::{Said, ShownUrl};
use super::wire::{Ask, Wire};
use crate::json;
use crate::reference::Repository;

/// Token servers on another host than their registry, which are known to belong to it.
const REALMS: [(&str, &str); 4] = [
    ("docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
    ("docker.elastic.co", "docker-auth.elastic.co"),
    ("registry.digitalocean.com", "api.digitalocean.com"),
];

/// Larger than any answer of a token server.
const TOKEN_LIMIT: u64 = 64 << 10;

/// How long a token lasts at least, as the specification has it.
const SHORTEST: u64 = 60;

/// No token is used for longer without asking anew.
const LONGEST: u64 = 24 * 60 * 60;

/// All passes that are held.
#[derive(Default)]
pub(super) struct Auth {
    sessions: Mutex<HashMap<Repository, Arc<tokio::sync::Mutex<Session>>>>,
}

/// What is known of one repository.
#[derive(Default)]
struct Session {
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
    pub(super) async fn pass(&self, of: &Repository) -> Pass {
        self.session(of).lock().await.pass()
    }

    /// Another pass in the place of one that was refused with these headers.
    pub(super) async fn renew(&self, wire: &Wire, of: &Repository, asked: &Url, used: &Pass, headers: &HeaderMap) -> Result<Pass> {
        let session = self.session(of);
        let mut session = session.lock().await;
        if session.round == used.round {
            let challenge = Challenge::choose(headers).ok_or_else(|| UpstreamError::Challenge { url: ShownUrl::from(asked) })?;
            *session = Request { wire, of, asked }.answer(challenge, used).await?;
        }
        Ok(session.pass())
    }

    /// Gives up a pass that was refused without a word about what would do.
    pub(super) async fn forget(&self, of: &Repository, used: &Pass) -> Pass {
        let session = self.session(of);
        let mut session = session.lock().await;
        if session.round == used.round {
            *session = Session { round: used.round + 1, ..Session::default() };
        }
        session.pass()
    }

    fn session(&self, of: &Repository) -> Arc<tokio::sync::Mutex<Session>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.entry(of.clone()).or_default().clone()
    }
}

impl Session {
    fn pass(&self) -> Pass {
        let fresh = self.until.is_none_or(|until| Instant::now() < until);
        Pass { header: self.header.clone().filter(|_| fresh), access: self.access.clone(), round: self.round }
    }
}

/// One registry's wish to know who asks.
struct Request<'a> {
    wire: &'a Wire,
    of: &'a Repository,
    /// What the registry was asked.
    asked: &'a Url,
}

/// A token and how long it is good for.
type Token = (HeaderValue, Duration);

impl Request<'_> {
    async fn answer(&self, challenge: Challenge, used: &Pass) -> Result<Session> {
        let found = credentials::find(&self.wire.settings, self.of).await;
        let (found, access) = match found {
            Ok(found) => (found, Access::Anyone),
            Err(e) => (None, Access::Unreadable(Arc::new(e))),
        };
        let round = used.round + 1;
        let straight = |header, from| Session { header: Some(header), until: None, round, access: Access::Sent(from) };
        match (challenge, found) {
            (_, Some((Credential::Token(token), from))) => Ok(straight(self.header(&format!("Bearer {}", token.expose()))?, from)),
            (Challenge::Basic, Some((Credential::Basic { username, password }, from))) => {
                Ok(straight(self.header(&basic(&username, password.expose()))?, from))
            }
            // An identity token is of no use where no token server is named.
            (Challenge::Basic, Some((Credential::Identity(_), from))) => Err(Access::Refused(from).refused(self.shown(), None)),
            (Challenge::Basic, None) => Err(access.refused(self.shown(), None)),
            (Challenge::Bearer { realm, service, scope }, found) => {
                let realm = self.realm(&realm)?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.of.path()));
                let server = TokenServer { request: self, realm, service, scope };
                let (token, access) = server.token(found, access).await?;
                let (header, lasts) = token;
                Ok(Session { header: Some(header), until: Some(Instant::now() + lasts), round, access })
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
            || REALMS.contains(&(self.of.registry(), host))
            || self.wire.settings.trusted_realms.iter().any(|trusted| trusted == host)
    }

    fn header(&self, text: &str) -> Result<HeaderValue> {
        // Only a token or a password with control characters cannot be a header.
        let mut header = HeaderValue::from_str(text).map_err(|_| UpstreamError::Challenge { url: self.shown() })?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn shown(&self) -> ShownUrl {
        ShownUrl::from(self.asked)
    }
}

struct TokenServer<'a> {
    request: &'a Request<'a>,
    realm: Url,
    service: Option<String>,
    scope: String,
}

impl TokenServer<'_> {
    /// A token for these credentials; if they are refused, one for anyone, since the image may be public.
    async fn token(&self, found: credentials::Found, mut access: Access) -> Result<(Token, Access)> {
        let mut said = None;
        if let Some((credential, from)) = found {
            if self.request.trusts(&self.realm) {
                match self.ask(Some(&credential)).await {
                    Ok(token) => return Ok((token, Access::Taken(from))),
                    Err(Failed::Refused(why)) => (said, access) = (why, Access::Refused(from)),
                    Err(Failed::Otherwise(e)) => return Err(e),
                }
            } else {
                access = Access::Withheld(from, self.realm.host_str().unwrap_or_default().to_owned());
            }
        }
        match self.ask(None).await {
            Ok(token) => Ok((token, access)),
            Err(Failed::Refused(why)) => Err(access.refused(self.request.shown(), said.or(why))),
            Err(Failed::Otherwise(e)) => Err(e),
        }
    }

    async fn ask(&self, credential: Option<&Credential>) -> std::result::Result<Token, Failed> {
        let (ask, password) = match credential {
            Some(Credential::Identity(token)) => (self.exchange(token.expose()), None),
            Some(Credential::Basic { username, password }) => {
                (self.query(Some(username)), Some(self.request.header(&basic(username, password.expose()))?))
            }
            Some(Credential::Token(_)) | None => (self.query(None), None),
        };
        let mut answer = self.request.wire.send(&ask, password.as_ref()).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Failed::Refused(refusal::said(&mut answer).await));
            }
            _ => return Err(refusal::of_answer(answer, Wanted::Token, Access::Anyone).await.into()),
        }
        let mut answer = answer.plain()?;
        let body = answer.bytes(TOKEN_LIMIT).await?;
        let reply = read(&body).and_then(|(token, lasts)| Some((self.request.header(&format!("Bearer {token}")).ok()?, lasts)));
        reply.ok_or_else(|| UpstreamError::NotAToken { url: answer.url }.into())
    }

    fn query(&self, account: Option<&str>) -> Ask {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.iter().map(|s| ("service", s)));
            query.extend_pairs(self.scope.split(' ').filter(|s| !s.is_empty()).map(|s| ("scope", s)));
            query.extend_pairs(account.map(|a| ("account", a)));
        }
        Ask { method: Method::GET, url, headers: HeaderMap::new(), form: None }
    }

    /// The exchange of an identity token, as OAuth 2 has it; docker logs in to Azure and others that way.
    fn exchange(&self, identity: &str) -> Ask {
        let service = self.service.as_deref().unwrap_or_default();
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "larder"),
            ("scope", &self.scope),
            ("refresh_token", identity),
        ];
        let mut url = self.realm.clone();
        url.query_pairs_mut().clear().extend_pairs(fields);
        let form = url.query().unwrap_or_default().to_owned();
        Ask { method: Method::POST, url: self.realm.clone(), headers: HeaderMap::new(), form: Some(form) }
    }
}

/// Why there is no token.
enum Failed {
    /// Not for these credentials.
    Refused(Option<Box<Said>>),
    Otherwise(UpstreamError),
}

impl From<UpstreamError> for Failed {
    fn from(error: UpstreamError) -> Failed {
        Failed::Otherwise(error)
    }
}

#[derive(Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

fn read(body: &[u8]) -> Option<(String, Duration)> {
    let reply: Reply = json::parse(body, &["token", "access_token", "expires_in"]).ok()?;
    let token = reply.token.into_iter().chain(reply.access_token).find(|t| !t.is_empty())?;
    // Nine tenths, so that no token ends on its way. A number that is none counts as none.
    let lasts = reply.expires_in.unwrap_or_default().clamp(SHORTEST as f64, LONGEST as f64) * 0.9;
    Some((token, Duration::from_secs_f64(lasts)))
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_by_both_names_and_kept_for_a_sensible_time() {
        let cases = [
            (r#"{"token":"a"}"#, Some(("a", 54))),
            (r#"{"access_token":"b","expires_in":300}"#, Some(("b", 270))),
            (r#"{"token":"a","access_token":"b","expires_in":1}"#, Some(("a", 54))),
            (r#"{"token":"","access_token":"b","expires_in":null}"#, Some(("b", 54))),
            (r#"{"token":"a","expires_in":1e300}"#, Some(("a", 77760))),
            (r#"{"token":"a","expires_in":-5}"#, Some(("a", 54))),
            (r#"{"token":"a","Token":"b"}"#, None),
            (r#"{"token":""}"#, None),
            (r#"{"token":7}"#, None),
            (r#"{}"#, None),
            ("", None),
        ];
        for (body, expected) in cases {
            let found = read(body.as_bytes());
            assert_eq!(found, expected.map(|(t, s)| (t.to_owned(), Duration::from_secs(s))), "{body}");
        }
    }
}
