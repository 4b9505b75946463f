//! Targets for what registries and token servers answer.

use std::str;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, LINK, WWW_AUTHENTICATE};

use super::challenge::Challenge;
use super::stretch::content_range;
use super::{link, token};

/// As `fuzzing` has them, which stands below this room.
type Target = (&'static str, fn(&[u8]));

pub(crate) const TARGETS: &[Target] = &[("challenge", challenge), ("content_range", range), ("token", reply), ("link", link)];

/// What was read, written down plainly, is read as the same.
fn challenge(input: &[u8]) {
    let Some(read) = choose(input) else { return };
    let again = match &read {
        Challenge::Basic => "Basic".to_owned(),
        Challenge::Bearer { realm, service, scope } => {
            let quoted = |name: &str, value: &str| format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let more = [("service", service), ("scope", scope)].map(|(name, value)| value.as_ref().map(|v| quoted(name, v)));
            let parameters: Vec<_> = [quoted("realm", realm)].into_iter().chain(more.into_iter().flatten()).collect();
            format!("Bearer {}", parameters.join(", "))
        }
    };
    // Quoting can make it longer than what is read at all.
    if again.len() < 8192 {
        assert_eq!(choose(again.as_bytes()), Some(read), "{again}");
    }
}

fn choose(text: &[u8]) -> Option<Challenge> {
    let mut headers = HeaderMap::new();
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(text).ok()?);
    Challenge::choose(&headers)
}

/// What is accepted is the specification's form, and nothing else.
fn range(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Some((first, last, total)) = content_range(text) else { return };
    assert!((first..total).contains(&last));
    assert_eq!(content_range(&format!("bytes {first}-{last}/{total}")), Some((first, last, total)));
}

/// A token that another reader of JSON sees too, for a sensible time.
fn reply(input: &[u8]) {
    let Some((token, lasts)) = token::read(input) else { return };
    assert!((Duration::from_secs(54)..=Duration::from_secs(24 * 60 * 60)).contains(&lasts));
    let value: serde_json::Value = serde_json::from_slice(input).expect("what was accepted is JSON");
    let named = |name: &str| value[name].as_str().filter(|t| !t.is_empty());
    assert_eq!(named("token").or(named("access_token")), Some(token.as_str()));
}

/// A list goes on where it came from, or nowhere; each line is a header.
fn link(input: &[u8]) {
    let from = Url::parse("https://r.example/v2/team/app/referrers/sha256:aa?ns=docker.io").expect("a URL");
    let Some(Ok(Some(next))) = follow(input, &from) else { return };
    assert_eq!(next.origin(), from.origin());
    assert!(next.username().is_empty() && next.password().is_none() && next.fragment().is_none());
    // Written down plainly, it is the same.
    if next.as_str().len() < 8192 {
        let again = format!("<{next}>; rel=\"next\"");
        assert_eq!(follow(again.as_bytes(), &from), Some(Ok(Some(next))), "{again}");
    }
}

fn follow(input: &[u8], from: &Url) -> Option<Result<Option<Url>, link::Lost>> {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(32) {
        headers.append(LINK, HeaderValue::from_bytes(line).ok()?);
    }
    Some(link::next(&headers, from))
}
