//! What may be shown of a failure, and of what a server said about it.
//!
//! Always true: a text from outside is cut, and free of what a terminal would obey; a URL is free of what could be a secret.

use std::fmt;

use reqwest::Url;

use super::error::UpstreamError;

impl UpstreamError {
    /// What was asked when it happened, as far as anything was.
    pub fn url(&self) -> Option<&ShownUrl> {
        match self {
            UpstreamError::Setup { .. }
            | UpstreamError::Roots { .. }
            | UpstreamError::NoRoots { .. }
            | UpstreamError::NoIdentity { .. }
            | UpstreamError::SettingsRead { .. }
            | UpstreamError::SettingsMalformed { .. }
            | UpstreamError::Place { .. }
            | UpstreamError::Forbidden { .. }
            | UpstreamError::Address { .. } => None,
            UpstreamError::Resolve { url, .. }
            | UpstreamError::Blocked { url, .. }
            | UpstreamError::Refused { url }
            | UpstreamError::Connect { url, .. }
            | UpstreamError::Proxy { url, .. }
            | UpstreamError::Tls { url, .. }
            | UpstreamError::NotTls { url }
            | UpstreamError::TimedOut { url, .. }
            | UpstreamError::TooSlow { url, .. }
            | UpstreamError::Broken { url, .. }
            | UpstreamError::NotHttp { url, .. }
            | UpstreamError::Short { url, .. }
            | UpstreamError::NoCredentials { url, .. }
            | UpstreamError::CredentialsRefused { url, .. }
            | UpstreamError::CredentialsWithheld { url, .. }
            | UpstreamError::CredentialsUnreadable { url, .. }
            | UpstreamError::Denied { url, .. }
            | UpstreamError::Challenge { url }
            | UpstreamError::Realm { url, .. }
            | UpstreamError::NotAToken { url }
            | UpstreamError::NoManifest { url, .. }
            | UpstreamError::NoRepository { url, .. }
            | UpstreamError::NoBlob { url, .. }
            | UpstreamError::TooManyRequests { url, .. }
            | UpstreamError::Failed { url, .. }
            | UpstreamError::Status { url, .. }
            | UpstreamError::NoRange { url, .. }
            | UpstreamError::WrongRange { url, .. }
            | UpstreamError::TooManyRedirects { url, .. }
            | UpstreamError::LostRedirect { url }
            | UpstreamError::InsecureRedirect { url, .. }
            | UpstreamError::LostPage { url }
            | UpstreamError::EndlessList { url, .. }
            | UpstreamError::Encoded { url, .. }
            | UpstreamError::TooLarge { url, .. }
            | UpstreamError::WrongManifest { url, .. }
            | UpstreamError::WrongLength { url, .. }
            | UpstreamError::TooLong { url, .. } => Some(url),
        }
    }

    /// The error and its causes in one line.
    pub fn in_one_line(&self) -> String {
        line(self)
    }

    /// What the registry said about it, if it said anything.
    pub fn said(&self) -> Option<&Said> {
        match self {
            UpstreamError::NoCredentials { said, .. }
            | UpstreamError::CredentialsRefused { said, .. }
            | UpstreamError::Denied { said, .. }
            | UpstreamError::NoManifest { said, .. }
            | UpstreamError::NoRepository { said, .. }
            | UpstreamError::NoBlob { said, .. }
            | UpstreamError::TooManyRequests { said, .. }
            | UpstreamError::Failed { said, .. }
            | UpstreamError::Status { said, .. } => said.as_deref(),
            _ => None,
        }
    }
}

/// What a registry said about its refusal: the code of the specification and a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Such as `MANIFEST_UNKNOWN`; may be empty.
    pub code: String,
    /// In its own words; may be empty.
    pub message: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            (code, "") => f.write_str(code),
            ("", message) => f.write_str(message),
            (code, message) => write!(f, "{code}: {message}"),
        }
    }
}

/// A URL fit to be shown: no user, no password, and of the query only what cannot be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ShownUrl(String);

/// The keys of a query that may be shown; all others may sign the URL.
const SHOWN_KEYS: [&str; 4] = ["service", "scope", "n", "last"];

/// Longer than any URL that a person would read.
const SHOWN_LENGTH: usize = 1000;

impl From<&Url> for ShownUrl {
    fn from(url: &Url) -> ShownUrl {
        let mut text = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        if let Some(port) = url.port() {
            text.push_str(&format!(":{port}"));
        }
        text.push_str(url.path());
        let mut before = '?';
        for (key, value) in url.query_pairs().filter(|(key, _)| SHOWN_KEYS.contains(&key.as_ref())) {
            let value: String = value.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
            text.push_str(&format!("{before}{key}={value}"));
            before = '&';
        }
        ShownUrl(plain(&text, SHOWN_LENGTH))
    }
}

impl ShownUrl {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ShownUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ShownUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that a server sent, without what a terminal would obey, cut to `limit` characters.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let obeyed =
        |c: char| c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if obeyed(c) { ' ' } else { c }).take(limit).collect::<String>().trim().to_owned()
}

/// An error and its causes in one line.
pub(super) fn line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    plain(&text, SHOWN_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_holds_no_secret() {
        let cases = [
            ("https://u:p@h.io/v2/a/blobs/x#f", "https://h.io/v2/a/blobs/x"),
            ("https://h.io:444/a?X-Amz-Signature=s3&sig=1&token=2", "https://h.io:444/a"),
            (
                "https://h.io/t?scope=repository%3Aa%2Fb%3Apull&account=me&service=h.io",
                "https://h.io/t?scope=repository:a/b:pull&service=h.io",
            ),
            ("http://h.io/t?service=%1b[31m%20&n=5", "http://h.io/t?service=_[31m_&n=5"),
        ];
        for (url, shown) in cases {
            assert_eq!(ShownUrl::from(&Url::parse(url).unwrap()).as_str(), shown);
        }
    }

    #[test]
    fn what_a_server_says_is_made_harmless() {
        assert_eq!(plain("a\x1b[31mb\r\nc\u{202e}d\u{9b}", 50), "a [31mb  c d");
        assert_eq!(plain(&"x".repeat(9000), 500).len(), 500);
    }
}
