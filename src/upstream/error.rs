//! What can go wrong on the way to a registry, and what of it may be shown.
//!
//! Always true: no error holds a password, a token, what a helper said, or a query that signs a URL. A text that a server
//! sent is cut and freed of control characters before it gets in here. Hints and exit codes are the tool's affair.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::credentials::{CredentialsError, Source};
use crate::digest::{Digest, Mismatch};

pub(super) type Result<T> = std::result::Result<T, UpstreamError>;

/// A registry could not be asked, or its answer could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The machinery under the requests could not be set up.
    #[error("the network client cannot be set up")]
    Setup {
        /// Why.
        source: reqwest::Error,
    },
    /// A file with certificate authorities could not be read.
    #[error("the certificates in {path} cannot be read")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that should hold certificate authorities holds none.
    #[error("{path} holds no certificate in PEM form")]
    NoRoots {
        /// The file.
        path: PathBuf,
    },
    /// The registry's name cannot be made into a URL.
    #[error("`{registry}` cannot be the address of a registry")]
    Address {
        /// The registry as the reference has it.
        registry: String,
    },
    /// The host name has no address, or nobody could be asked for it.
    #[error("the host name in {url} could not be resolved")]
    Resolve {
        /// What was asked.
        url: ShownUrl,
        /// Why.
        source: std::io::Error,
    },
    /// The host leads to an address that no registry has: link-local, or a cloud's metadata service.
    #[error("{url} leads to {address}, where no registry may be")]
    Blocked {
        /// What was asked.
        url: ShownUrl,
        /// The address.
        address: IpAddr,
    },
    /// Nothing listens there.
    #[error("the connection to {url} was refused")]
    Refused {
        /// What was asked.
        url: ShownUrl,
    },
    /// No connection came about.
    #[error("no connection to {url}")]
    Connect {
        /// What was asked.
        url: ShownUrl,
        /// Why.
        source: reqwest::Error,
    },
    /// The proxy did not let the request through.
    #[error("the proxy did not let the request for {url} through")]
    Proxy {
        /// What was asked.
        url: ShownUrl,
        /// What it did; none if it asked for credentials in a plain answer.
        source: Option<reqwest::Error>,
    },
    /// No secure connection came about; mostly a certificate that is not trusted.
    #[error("no secure connection to {url}")]
    Tls {
        /// What was asked.
        url: ShownUrl,
        /// Why.
        source: rustls::Error,
    },
    /// The other side answered a TLS greeting with something else, as a registry that speaks plain HTTP does.
    #[error("the server of {url} does not speak TLS")]
    NotTls {
        /// What was asked.
        url: ShownUrl,
    },
    /// Nothing came for too long.
    #[error("{url} gave nothing for {after:?}")]
    TimedOut {
        /// What was asked.
        url: ShownUrl,
        /// How long was waited.
        after: Duration,
    },
    /// Something came, but so little that it would never end.
    #[error("{url} gave only {bytes} bytes in {after:?}")]
    TooSlow {
        /// What was asked.
        url: ShownUrl,
        /// How many bytes came.
        bytes: u64,
        /// How long was waited for them.
        after: Duration,
    },
    /// The connection broke.
    #[error("the connection to {url} broke")]
    Broken {
        /// What was asked.
        url: ShownUrl,
        /// How.
        source: reqwest::Error,
    },
    /// The other side does not speak HTTP as it should.
    #[error("the answer to {url} is not HTTP")]
    NotHttp {
        /// What was asked.
        url: ShownUrl,
        /// What is wrong with it.
        source: reqwest::Error,
    },
    /// The answer ended before the blob did.
    #[error("{url} ended after {received} of {expected} bytes")]
    Short {
        /// What was asked.
        url: ShownUrl,
        /// How many bytes are here.
        received: u64,
        /// How many the blob has.
        expected: u64,
    },
    /// The registry wants credentials, and there are none for it; or there is no such repository.
    #[error("{url} is not open to everyone, and there are no credentials for it")]
    NoCredentials {
        /// What was asked.
        url: ShownUrl,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// The credentials for this registry are wrong or out of date.
    #[error("the credentials for {url} from {from} were refused")]
    CredentialsRefused {
        /// What was asked.
        url: ShownUrl,
        /// Where they were found.
        from: Box<Source>,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// The credentials were not sent, since the registry wanted them sent to a host that is not its own.
    #[error("the credentials from {from} were not sent to {realm}, and {url} is not open to everyone")]
    CredentialsWithheld {
        /// What was asked.
        url: ShownUrl,
        /// Where they were found.
        from: Box<Source>,
        /// The host that wanted them; `trusted_realms` can name it.
        realm: String,
    },
    /// Credentials could not be read, and the registry does not do without.
    #[error("the credentials for {url} cannot be had, and it is not open to everyone")]
    CredentialsUnreadable {
        /// What was asked.
        url: ShownUrl,
        /// Why.
        source: Arc<CredentialsError>,
    },
    /// The registry knows who asks, and says no.
    #[error("access to {url} is denied")]
    Denied {
        /// What was asked.
        url: ShownUrl,
        /// Where the credentials that were sent were found, if any were.
        from: Option<Box<Source>>,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// The registry wants to know who asks, in no way that larder knows.
    #[error("{url} asks for credentials in an unknown way")]
    Challenge {
        /// What was asked.
        url: ShownUrl,
    },
    /// The registry wants a token from a place that no token may come from.
    #[error("{url} wants a token from {realm}, which is not a secure address")]
    Realm {
        /// What was asked.
        url: ShownUrl,
        /// Where the token should come from.
        realm: String,
    },
    /// What a token server answered is not a token.
    #[error("the answer of {url} is not a token")]
    NotAToken {
        /// The token server.
        url: ShownUrl,
    },
    /// There is no such manifest in the repository.
    #[error("there is no manifest at {url}")]
    NoManifest {
        /// What was asked.
        url: ShownUrl,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// There is no such repository.
    #[error("there is no repository at {url}")]
    NoRepository {
        /// What was asked.
        url: ShownUrl,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// There is no such blob in the repository.
    #[error("there is no blob at {url}")]
    NoBlob {
        /// What was asked.
        url: ShownUrl,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// The registry wants to be asked less often.
    #[error("{url} was asked too often")]
    TooManyRequests {
        /// What was asked.
        url: ShownUrl,
        /// How long the registry wants to be left alone.
        after: Option<Duration>,
        /// How much it grants and how much of that is left, as it says it, such as `100;w=21600`.
        limits: Option<Box<Limits>>,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// The registry failed.
    #[error("{url} failed with status {status}")]
    Failed {
        /// What was asked.
        url: ShownUrl,
        /// The HTTP status.
        status: u16,
        /// How long the registry wants to be left alone.
        after: Option<Duration>,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// The registry gave an answer that fits no question.
    #[error("{url} answered with status {status}")]
    Status {
        /// What was asked.
        url: ShownUrl,
        /// The HTTP status.
        status: u16,
        /// What the registry said.
        said: Option<Box<Said>>,
    },
    /// Asked for the rest of a blob, the registry said that there is none.
    #[error("{url} has nothing from byte {offset} on")]
    NoRange {
        /// What was asked.
        url: ShownUrl,
        /// Where the rest should begin.
        offset: u64,
    },
    /// Asked for the rest of a blob, the registry gave another part of it, or of something else.
    #[error("{url} gave another part than that from byte {offset} on")]
    WrongRange {
        /// What was asked.
        url: ShownUrl,
        /// Where the rest should begin.
        offset: u64,
    },
    /// One place led to another too often.
    #[error("{url} led elsewhere {times} times")]
    TooManyRedirects {
        /// What was asked.
        url: ShownUrl,
        /// How often.
        times: usize,
    },
    /// A place led to nowhere.
    #[error("{url} leads elsewhere but does not say where")]
    LostRedirect {
        /// Which place.
        url: ShownUrl,
    },
    /// A secure place led to one that is not.
    #[error("{url} leads to {to}, which is not secure")]
    InsecureRedirect {
        /// Which place.
        url: ShownUrl,
        /// Where it leads.
        to: ShownUrl,
    },
    /// The content is not as it was stored: its digest could not be compared.
    #[error("{url} gave its content in the encoding `{encoding}`")]
    Encoded {
        /// What was asked.
        url: ShownUrl,
        /// The encoding.
        encoding: String,
    },
    /// A document is larger than any manifest.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: ShownUrl,
        /// What is allowed.
        limit: u64,
    },
    /// The manifest that came is not the one that was asked for.
    #[error("the manifest from {url} failed verification and was thrown away")]
    WrongManifest {
        /// What was asked.
        url: ShownUrl,
        /// What was expected and what came.
        source: Mismatch,
    },
    /// The registry says of a blob that it has another size than its descriptor has.
    #[error("{url} should have {expected} bytes but announces {found}")]
    WrongLength {
        /// What was asked.
        url: ShownUrl,
        /// The blob.
        blob: Digest,
        /// Its size in bytes.
        expected: u64,
        /// What the registry says.
        found: u64,
    },
    /// More came than the blob has.
    #[error("{url} gave more than {expected} bytes")]
    TooLong {
        /// What was asked.
        url: ShownUrl,
        /// The blob.
        blob: Digest,
        /// Its size in bytes.
        expected: u64,
    },
}

impl UpstreamError {
    /// What was asked when it happened, as far as anything was.
    pub fn url(&self) -> Option<&ShownUrl> {
        match self {
            UpstreamError::Setup { .. } | UpstreamError::Roots { .. } | UpstreamError::NoRoots { .. } | UpstreamError::Address { .. } => {
                None
            }
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
            | UpstreamError::Encoded { url, .. }
            | UpstreamError::TooLarge { url, .. }
            | UpstreamError::WrongManifest { url, .. }
            | UpstreamError::WrongLength { url, .. }
            | UpstreamError::TooLong { url, .. } => Some(url),
        }
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

/// What a registry grants, as it says it itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How much, such as `100;w=21600`: a hundred in six hours.
    pub limit: Option<String>,
    /// How much of that is left.
    pub remaining: Option<String>,
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
