//! What a status other than success means.
//!
//! Reads the little that the specification lets a registry say about it
//! ([distribution-spec, Error Codes](https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes)).

use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Deserialize;

use super::auth::Access;
use super::body::{Answer, NOTE_LIMIT};
use super::error::UpstreamError;
use super::limits::Limits;
use super::shown::{Said, ShownUrl, plain};
use crate::json;

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Manifest,
    Blob,
    /// From a token server.
    Token,
}

/// Names the refusal; `access` is what the registry knew of who asked.
pub(super) async fn of_answer(mut answer: Answer, wanted: Wanted, access: Access) -> UpstreamError {
    let said = said(&mut answer).await;
    let after = answer.header(RETRY_AFTER).and_then(|text| retry_after(text, Timestamp::now()));
    let limits = Limits::of(&answer);
    let status = answer.status().as_u16();
    let url = answer.url;
    match status {
        401 => access.refused(url, said),
        403 => access.denied(url, said),
        404 => absent(url, wanted, said),
        407 => UpstreamError::Proxy { url, source: None },
        429 => UpstreamError::TooManyRequests { url, after, limits, said },
        408 | 500..=599 => UpstreamError::Failed { url, status, after, said },
        _ => UpstreamError::Status { url, status, said },
    }
}

fn absent(url: ShownUrl, wanted: Wanted, said: Option<Box<Said>>) -> UpstreamError {
    let code = said.as_ref().map_or("", |s| s.code.as_str());
    match (code, wanted) {
        ("NAME_UNKNOWN", _) => UpstreamError::NoRepository { url, said },
        ("MANIFEST_UNKNOWN", _) | (_, Wanted::Manifest) => UpstreamError::NoManifest { url, said },
        ("BLOB_UNKNOWN", _) | (_, Wanted::Blob) => UpstreamError::NoBlob { url, said },
        (_, Wanted::Token) => UpstreamError::Status { url, status: StatusCode::NOT_FOUND.as_u16(), said },
    }
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the registry says about it, if it says anything that can be shown.
pub(super) async fn said(answer: &mut Answer) -> Option<Box<Said>> {
    // Go's servers give no type when they say that this port speaks HTTPS.
    let in_words = match answer.header(CONTENT_TYPE) {
        Some(kind) => kind.starts_with("text/plain"),
        None => answer.status() == StatusCode::BAD_REQUEST,
    };
    let is_page = answer.header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    let body = answer.bytes(NOTE_LIMIT).await.ok()?;
    let said = match json::read::<Errors>(&body) {
        Ok(errors) => {
            let first = errors.errors.into_iter().next()?;
            Said { code: plain(&first.code, 60), message: plain(&first.message, 400) }
        }
        Err(_) if is_page => Said { code: String::new(), message: page(&String::from_utf8_lossy(&body)) },
        // Not as the specification has it, but it may be what a person needs to know.
        Err(_) if in_words => Said { code: String::new(), message: plain(&String::from_utf8_lossy(&body), 200) },
        Err(_) => return None,
    };
    (said != Said { code: String::new(), message: String::new() }).then(|| Box::new(said))
}

/// What a page for people is: what it calls itself, and that it is one, since registries send none.
fn page(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let begin = at + lower[at..].find('>')? + 1;
        Some(plain(&text[begin..begin + lower[begin..].find('<')?], 200))
    });
    match title.filter(|title| !title.is_empty()) {
        Some(title) => format!("{title} (a web page, as no registry sends one)"),
        None => "a web page, as no registry sends one".to_owned(),
    }
}

/// Seconds, or a date ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#field.retry-after)).
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Duration::try_from(date.timestamp().duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_called_by_its_title() {
        let bare = "a web page, as no registry sends one";
        for (text, title) in [
            ("<html>\r\n<head><title>502 Bad Gateway</title></head>", Some("502 Bad Gateway")),
            ("<!DOCTYPE html><TITLE lang=en>\n a\u{1b}[2Jb \u{202e}c</TITLE>", Some("a [2Jb  c")),
            ("\u{130}<title>x</title>", Some("x")),
            ("<title></title>", None),
            ("<title>no end", None),
            ("<title", None),
            ("", None),
        ] {
            assert_eq!(page(text), title.map_or(bare.to_owned(), |title| format!("{title} ({bare})")), "{text}");
        }
        assert!(page(&format!("<title>{}</title>", "x".repeat(10_000))).len() < 300);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = Timestamp::from_second(1_445_412_440).unwrap();
        let cases = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(40)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
