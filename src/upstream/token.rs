//! Tokens, and the servers that give them.
//!
//! Always true: a token server that is not trusted gets no credentials; one that refuses them is asked once for what
//! anyone gets; what it answers is bounded, and never repeated in an error. Which servers are trusted is `auth`'s affair.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::auth::{Access, basic, bearer};
use super::authfile::Found;
use super::credentials::{Credential, Secret};
use super::error::{Result, UpstreamError};
use super::refusal::{self, Wanted};
use super::shown::{Said, ShownUrl};
use super::wire::{Ask, Wire};
use crate::json;

/// Larger than any answer of a token server.
const LIMIT: u64 = 64 << 10;

/// How long a token lasts at least, in seconds, as the specification has it.
const SHORTEST: f64 = 60.0;

/// No token is used for longer without asking anew.
const LONGEST: f64 = 24.0 * 60.0 * 60.0;

/// Where a registry says that its tokens are to be had.
pub(super) struct TokenServer<'a> {
    pub(super) wire: &'a Wire,
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scope: String,
    /// Whether it may be sent the registry's credentials.
    pub(super) trusted: bool,
    /// What the registry was asked.
    pub(super) asked: ShownUrl,
}

/// A token and how long it is good for.
pub(super) struct Token {
    pub(super) header: HeaderValue,
    pub(super) lasts: Duration,
}

impl TokenServer<'_> {
    /// A token for these credentials; if they are refused, one for anyone, since the image may be public.
    pub(super) async fn token(&self, found: Found, mut access: Access) -> Result<(Token, Access)> {
        let mut said = None;
        if let Some((credential, from)) = found {
            if self.trusted {
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
            Err(Failed::Refused(why)) => Err(access.refused(self.asked.clone(), said.or(why))),
            Err(Failed::Otherwise(e)) => Err(e),
        }
    }

    async fn ask(&self, credential: Option<&Credential>) -> std::result::Result<Token, Failed> {
        let ask = match credential {
            Some(Credential::Identity(token)) => self.exchange(token),
            Some(Credential::Basic { username, .. }) => self.query(Some(username)),
            Some(Credential::Token(_)) | None => self.query(None),
        };
        let password = match credential {
            Some(Credential::Basic { username, password }) => Some(basic(username, password).ok_or(Failed::Refused(None))?),
            _ => None,
        };
        let mut answer = self.wire.send(&ask, password.as_ref()).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Failed::Refused(refusal::said(&mut answer).await));
            }
            _ => return Err(refusal::of_answer(answer, Wanted::Token, Access::Anyone).await.into()),
        }
        let mut answer = answer.plain()?;
        let body = answer.bytes(LIMIT).await?;
        let token = read(&body).and_then(|(token, lasts)| Some(Token { header: bearer(&token)?, lasts }));
        token.ok_or_else(|| UpstreamError::NotAToken { url: answer.url }.into())
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
    fn exchange(&self, identity: &Secret) -> Ask {
        let service = self.service.as_deref().unwrap_or_default();
        let fields = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "larder"),
            ("scope", &self.scope),
            ("refresh_token", identity.expose()),
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

pub(super) fn read(body: &[u8]) -> Option<(String, Duration)> {
    let reply: Reply = json::parse(body, &["token", "access_token", "expires_in"]).ok()?;
    let token = reply.token.into_iter().chain(reply.access_token).find(|t| !t.is_empty())?;
    // Nine tenths, so that no token ends on its way. A number that is none counts as none.
    let lasts = reply.expires_in.unwrap_or_default().clamp(SHORTEST, LONGEST) * 0.9;
    Some((token, Duration::from_secs_f64(lasts)))
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
