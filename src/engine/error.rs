//! What can go wrong between larder and an engine.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Ended, Kind, Place};
use crate::archive::ArchiveError;
use crate::digest::Digest;
use crate::reference::Name;
use crate::store::StoreError;

/// An engine could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No engine answered at any of the places where one may be.
    #[error("no engine answered at any of {} places", asked.len())]
    NoneAnswered {
        /// The places and why each failed, in the order they were asked.
        asked: Vec<(Place, EngineError)>,
    },
    /// There is nothing to connect to, or it may not be connected to.
    #[error("cannot connect to {place}")]
    Unreachable {
        /// Where.
        place: Place,
        /// Why: no such file, refused, permission denied.
        source: io::Error,
    },
    /// The program that leads to the engine could not be started, or ended before its time.
    #[error("{place} cannot be reached: {source}")]
    Tunnel {
        /// Where.
        place: Place,
        /// Which program, how it ended and what it said.
        source: Ended,
    },
    /// No answer came in time.
    #[error("{place} did not answer {request} within {} s", after.as_secs_f32())]
    TimedOut {
        /// Where.
        place: Place,
        /// What was asked.
        request: String,
        /// The time limit.
        after: Duration,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("{place} broke off while it was asked {request}")]
    Broken {
        /// Where.
        place: Place,
        /// What was asked.
        request: String,
        /// What happened to the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The engine answered with an error.
    #[error("{place} answered {request} with status {status}: {said}")]
    Refused {
        /// Where.
        place: Place,
        /// What was asked.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The engine's own words.
        said: String,
    },
    /// containerd answered a call with an error.
    #[error("{place} answered {request} with {code:?}: {said}")]
    Denied {
        /// Where.
        place: Place,
        /// What was called, as `Images/Get`.
        request: String,
        /// What kind of error.
        code: tonic::Code,
        /// The engine's own words.
        said: String,
    },
    /// containerd has no such snapshotter, or cannot use it.
    #[error("{place} cannot use the snapshotter {snapshotter}: {why}")]
    Snapshotter {
        /// Where.
        place: Place,
        /// Its name.
        snapshotter: String,
        /// containerd's own words, or that it is not there.
        why: String,
        /// The ones that can be used.
        usable: Vec<String>,
    },
    /// A namespace of containerd cannot have this name.
    #[error("`{namespace}` cannot be a namespace of containerd")]
    Namespace {
        /// What was written.
        namespace: String,
    },
    /// The engine's answer is not what its API says.
    #[error("the answer of {place} to {request} cannot be read")]
    Unreadable {
        /// Where.
        place: Place,
        /// What was asked.
        request: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The engine's answer is longer than any answer should be.
    #[error("the answer of {place} to {request} is longer than {limit} bytes")]
    TooLong {
        /// Where.
        place: Place,
        /// What was asked.
        request: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// Another engine answered than the one that was asked for.
    #[error("{found} answered instead of {place}")]
    WrongEngine {
        /// What was asked for, and where.
        place: Place,
        /// What answered.
        found: Kind,
    },
    /// The engine keeps content by SHA-256 alone.
    #[error("{place} keeps nothing by sha512, and {name} has {digest}")]
    Algorithm {
        /// Where.
        place: Place,
        /// The name the image was to bear.
        name: Name,
        /// The first such digest in it.
        digest: Digest,
    },
    /// The engine took the image and said that it did not load it.
    #[error("{place} did not load {name}: {said}")]
    NotLoaded {
        /// Where.
        place: Place,
        /// The name it was to bear.
        name: Name,
        /// The engine's own words.
        said: String,
    },
    /// The engine went away while the image was sent to it, or before it said what became of it.
    #[error("{place} broke off while it loaded {name}, after {sent} of {size} bytes")]
    LoadBroken {
        /// Where.
        place: Place,
        /// The name it was to bear.
        name: Name,
        /// How many bytes were sent.
        sent: u64,
        /// How many bytes were to be sent.
        size: u64,
        /// What happened to the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The image could not leave the store whole; the engine was cut off and has not loaded it.
    #[error(transparent)]
    Archive(#[from] Arc<ArchiveError>),
    /// An address is not one that engines have.
    #[error("`{address}` is not the address of an engine")]
    Address {
        /// Where it was written.
        setting: String,
        /// What was written.
        address: String,
        /// What an address looks like.
        expected: &'static str,
    },
    /// A way to reach an engine that larder does not know yet.
    #[error("larder cannot reach an engine over {transport} yet, and that is what {setting} asks for: {address}")]
    Transport {
        /// Where it was written.
        setting: String,
        /// What was written.
        address: String,
        /// `a named pipe`.
        transport: &'static str,
    },
    /// The docker context that was named does not exist.
    #[error("there is no docker context `{context}`, and {setting} names it")]
    NoContext {
        /// Its name.
        context: String,
        /// Where it was named.
        setting: String,
        /// The file that would describe it.
        path: PathBuf,
    },
    /// The podman connection that was named does not exist.
    #[error("there is no podman connection `{connection}`, and {setting} names it")]
    NoConnection {
        /// Its name.
        connection: String,
        /// Where it was named.
        setting: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A file with settings could not be opened.
    #[error("cannot read {}", path.display())]
    Settings {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with podman's settings is not what it should be.
    #[error("cannot make sense of {}", path.display())]
    BadToml {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// A file with settings is not what it should be.
    #[error("cannot make sense of {}", path.display())]
    BadSettings {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl EngineError {
    /// Whether there simply is no socket at the place.
    pub fn nothing_there(&self) -> bool {
        matches!(self, EngineError::Unreachable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The blob that turned out damaged on its way out, if that ended the load. It was set aside.
    pub fn damaged(&self) -> Option<Digest> {
        match self {
            EngineError::Archive(error) => match &**error {
                ArchiveError::Store(StoreError::Damaged { found, .. }) => Some(found.expected),
                _ => None,
            },
            _ => None,
        }
    }
}
