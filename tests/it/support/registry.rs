//! A registry on loopback that counts what it is asked and misbehaves on demand.
//!
//! Runs on a thread of its own and stops when it is dropped, so blocking code can use it. Always true: what it serves is
//! what was put into it, except where a [`Fault`] was asked for; every request is remembered as it came, refused
//! ones too. Blobs belong to no repository: one that was put is there in all of them.

#![allow(dead_code, unreachable_pub, reason = "it is included where not all of it is used")]

#[path = "registry/body.rs"]
mod body;
#[path = "registry/door.rs"]
mod door;
#[path = "registry/part.rs"]
mod part;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use larder::digest::Digest;
use serde_json::Value;
use tokio::sync::watch;

#[allow(unused_imports, reason = "as above")]
pub use self::door::{Connected, Wrap};

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// One byte in the middle of the body is another.
    FlipByte,
    /// The connection is cut after this many bytes of each body.
    CutAfter(u64),
    /// The connection is cut after this many bytes of the first body; later ones come whole.
    CutOnceAfter(u64),
    /// The connection is reset after this many bytes of the first body, and what is still on its way may get lost.
    ResetOnceAfter(u64),
    /// This status in place of the answer, so many times; with a `Retry-After` if there is one.
    Status(u16, Option<&'static str>, usize),
    /// An answer with this status and these headers, and this body.
    Answer(u16, Vec<(&'static str, String)>, Bytes),
    /// No answer at all, ever.
    Silent,
    /// After this many bytes of the body nothing comes, ever.
    StallAfter(u64),
    /// The same, but the first time only.
    StallOnceAfter(u64),
    /// One byte at a time, this far apart.
    Drip(Duration),
    /// `Content-Length` is off by this much, and the body ends when it ends.
    WrongLength(i64),
    /// No `Content-Length`, but a chunked body.
    Chunked,
    /// A chunked body that has this many bytes too many.
    Longer(u64),
    /// A chunked body that ends as it should, but has this many bytes too few.
    Shorter(u64),
    /// A chunked body without end.
    Endless,
    /// `Docker-Content-Digest` names something else.
    WrongDigestHeader,
    /// There is no `Docker-Content-Digest`.
    NoDigestHeader,
    /// A request for a part gets the whole, with status 200.
    IgnoreRange,
    /// A request for a part gets a part that begins this many bytes later, and says so.
    OtherRange(u64),
    /// A request for a part gets the right part with a wrong total.
    WrongTotal,
    /// A request for a part gets status 416.
    RefuseRange,
    /// A request for a part gets the beginning, said to be that part.
    LyingRange,
    /// It is not there.
    Missing,
    /// Another content type.
    ContentType(&'static str),
    /// One more header.
    Header(&'static str, &'static str),
    /// The answer is somewhere else.
    RedirectTo(String),
    /// The body is said to be in this encoding.
    Encoded(&'static str),
    /// All tokens end with this request, which is answered nevertheless.
    ExpireTokens,
}

/// Who may ask.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Anyone.
    #[default]
    Open,
    /// Who knows this user and password.
    Basic(&'static str, &'static str),
    /// Who has a token from this realm; none: from this registry's own `/token`. Tokens of a [`Tokens`] that is shared are good.
    Bearer {
        /// A URL.
        realm: Option<String>,
        /// What the token server gave.
        tokens: Tokens,
    },
}

/// The tokens that are good. Clones are the same set, so a registry and a token server elsewhere can share it.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<Mutex<HashSet<String>>>);

impl Tokens {
    /// Ends all of them.
    pub fn expire(&self) {
        lock(&self.0).clear();
    }

    fn issue(&self) -> String {
        let mut all = lock(&self.0);
        let token = format!("token-{:x}", std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), all.len()));
        all.insert(token.clone());
        token
    }

    fn has(&self, token: &str) -> bool {
        lock(&self.0).contains(token)
    }
}

/// How `/token` answers.
#[derive(Debug, Clone)]
pub struct TokenServer {
    /// The tokens it gives.
    pub tokens: Tokens,
    /// Who gets one; anyone if there is nobody.
    pub user: Option<(&'static str, &'static str)>,
    /// Whether one without credentials gets one too.
    pub anonymous: bool,
    /// What is exchanged for one by POST.
    pub identity: Option<&'static str>,
    /// What the token is called in the answer.
    pub key: &'static str,
    /// How long it is said to last.
    pub expires_in: Option<u64>,
}

impl Default for TokenServer {
    fn default() -> TokenServer {
        TokenServer { tokens: Tokens::default(), user: None, anonymous: true, identity: None, key: "token", expires_in: None }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `GET`, `HEAD`, `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// As it was written; empty if there is none.
    pub query: String,
    /// All of them.
    pub headers: HeaderMap,
    /// The body, of a POST.
    pub body: String,
    /// The status of the answer.
    pub status: u16,
}

impl Seen {
    /// The text of a header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
enum Content {
    Memory(Bytes),
    File(PathBuf, u64),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(_, size) => *size,
        }
    }
}

#[derive(Default)]
struct State {
    blobs: HashMap<Digest, Content>,
    /// By repository and tag or digest: media type and bytes.
    manifests: HashMap<(String, String), (String, Bytes)>,
    /// Part of a path or query, what goes wrong there, how many times.
    faults: Vec<(String, Fault, usize)>,
    access: Access,
    token_server: TokenServer,
    seen: Vec<Seen>,
    connections: usize,
    sent: Arc<AtomicU64>,
}

/// The registry. Dropping it stops it.
pub struct Registry {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// One on a free port of 127.0.0.1.
    pub fn start() -> Registry {
        Registry::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), None).expect("a port on loopback is free")
    }

    /// One at this address, with every connection wrapped, in TLS for instance.
    pub fn start_at(address: SocketAddr, wrap: Option<Wrap>) -> std::io::Result<Registry> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let (stop, stopped) = watch::channel(false);
        let served = state.clone();
        let thread = std::thread::spawn(move || door::serve(listener, address, served, wrap, stopped));
        Ok(Registry { state, address, stop, thread: Some(thread) })
    }

    /// Host and port, as a reference has them.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A URL of it, by plain HTTP.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Keeps a blob, in all repositories.
    pub fn put_blob(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.put_blob_as(digest, bytes);
        digest
    }

    /// Keeps a blob under a digest by whatever algorithm.
    pub fn put_blob_as(&self, digest: Digest, bytes: impl Into<Bytes>) {
        self.state().blobs.insert(digest, Content::Memory(bytes.into()));
    }

    /// Keeps a manifest or index under its digest and, if `name` is no digest, under that tag.
    pub fn put_manifest(&self, repository: &str, name: &str, media_type: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let mut state = self.state();
        for name in [name, &digest.to_string()] {
            state.manifests.insert((repository.to_owned(), name.to_owned()), (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// Serves all of an OCI image layout: manifests from memory, blobs from their files as they are asked for. What `index.json` names by
    /// `org.opencontainers.image.ref.name` is served under this tag.
    pub fn serve_layout(&self, repository: &str, folder: &Path) -> std::io::Result<()> {
        let files = folder.join("blobs/sha256");
        for entry in std::fs::read_dir(&files)? {
            let entry = entry?;
            let Ok(digest) = Digest::from_hex(&entry.file_name().to_string_lossy()) else { continue };
            self.state().blobs.insert(digest, Content::File(entry.path(), entry.metadata()?.len()));
        }
        let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json"))?)?;
        let mut open: Vec<Value> = index["manifests"].as_array().cloned().unwrap_or_default();
        while let Some(descriptor) = open.pop() {
            let (digest, media_type) =
                (descriptor["digest"].as_str().unwrap_or_default(), descriptor["mediaType"].as_str().unwrap_or_default());
            let Ok(bytes) = std::fs::read(files.join(digest.trim_start_matches("sha256:"))) else { continue };
            let tag = descriptor["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or(digest);
            if let Ok(document) = serde_json::from_slice::<Value>(&bytes) {
                open.extend(document["manifests"].as_array().cloned().unwrap_or_default());
            }
            // Some write a whole reference there.
            self.put_manifest(
                repository,
                tag.rsplit_once(':').filter(|_| tag.contains('/')).map_or(tag, |(_, tag)| tag),
                media_type,
                bytes,
            );
        }
        Ok(())
    }

    /// Goes wrong with every request whose path and query contain this, from now on.
    pub fn fault(&self, path: impl ToString, fault: Fault) {
        let times = match fault {
            Fault::CutOnceAfter(_) | Fault::ResetOnceAfter(_) | Fault::StallOnceAfter(_) | Fault::ExpireTokens => 1,
            Fault::Status(_, _, times) => times,
            _ => usize::MAX,
        };
        self.fault_times(path, fault, times);
    }

    /// Goes wrong with the next requests whose path and query contain this. Of several faults for one request the first counts.
    pub fn fault_times(&self, path: impl ToString, fault: Fault, times: usize) {
        self.state().faults.push((path.to_string(), fault, times));
    }

    /// Goes wrong no more.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Lets in only who may ask, from now on.
    pub fn require(&self, access: Access) {
        self.state().access = access;
    }

    /// Answers at `/token` like this, from now on.
    pub fn serve_tokens(&self, server: TokenServer) {
        self.state().token_server = server;
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// How many requests there were whose path and query contain this.
    pub fn count(&self, path: &str) -> usize {
        self.state().seen.iter().filter(|s| format!("{}?{}", s.path, s.query).contains(path)).count()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// How many bytes it sent in all, heads of answers too; those within TLS do not count.
    pub fn sent(&self) -> u64 {
        self.state().sent.load(Ordering::Relaxed)
    }

    /// Forgets all requests so far.
    pub fn forget(&self) {
        self.state().seen.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A test that failed while it held the lock should not hide why.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
