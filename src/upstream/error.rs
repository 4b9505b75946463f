//! What can go wrong on the way to a registry.
//!
//! Always true: no error holds a password, a token, what a helper said, or a URL but as [`ShownUrl`]. Hints and exit
//! codes are the tool's affair.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::credentials::{CredentialsError, Source};
use super::limits::{Limits, too_many};
use super::shown::{Said, ShownUrl};
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
    /// A client certificate cannot be used. What the files hold is not repeated.
    #[error("{path} and its key are no client certificate in PEM form")]
    NoIdentity {
        /// The certificate's file.
        path: PathBuf,
    },
    /// A file of settings could not be read.
    #[error("the settings in {path} cannot be read")]
    SettingsRead {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of settings is not what it should be.
    #[error("{path} is not a file of settings that larder can follow")]
    SettingsMalformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Settings name a place that is none.
    #[error("{path} names `{location}`, which is no place of images; expected host[:port][/path]")]
    Place {
        /// The file.
        path: PathBuf,
        /// What it names.
        location: String,
    },
    /// Settings forbid to ask for this repository.
    #[error("{repository} is blocked by {path}")]
    Forbidden {
        /// The repository.
        repository: String,
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
    #[error("{}", too_many(url, limits.as_deref(), said.as_deref()))]
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
    /// A list goes on, and it cannot be told where, or at a place that is another's.
    #[error("the list at {url} goes on at no place of the same registry")]
    LostPage {
        /// The page that was read last.
        url: ShownUrl,
    },
    /// A list goes on in a circle, or for longer than any list of a registry.
    #[error("the list at {url} has no end after {pages} pages")]
    EndlessList {
        /// The page that was read last.
        url: ShownUrl,
        /// How many pages came.
        pages: usize,
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
