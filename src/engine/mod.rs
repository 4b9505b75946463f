//! STUB of the engines: signatures only, replaced by the real ones.
pub mod proof;
use std::future::Future;
use std::pin::Pin as Pinned;

use crate::digest::Digest;
use crate::event::Tell;
use crate::oci::{Image, Platform};
use crate::reference::Name;
use crate::store::Store;

/// A future of a trait object.
pub type Answer<'a, T> = Pinned<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("stub")]
    Stub,
}
impl EngineError {
    /// The blob that turned out damaged on its way out, if that ended the load.
    pub fn damaged(&self) -> Option<Digest> {
        None
    }
}
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Docker,
    Podman,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct About {
    pub kind: Kind,
    pub version: String,
    pub api: String,
    pub platform: Platform,
    /// address, as unix:///…
    pub address: String,
    /// how it was found, in words
    pub found_by: String,
}

/// What an engine shows under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The engine's image ID field.
    pub id: Digest,
    /// The digests behind the `@` in RepoDigests for this repository.
    pub digests: Vec<Digest>,
    pub diff_ids: Vec<Digest>,
    pub platform: Option<Platform>,
    /// All it takes to run is there, by platform manifest where the engine lists them (c8d).
    pub complete: bool,
    /// The engine's whole answer, for comparing the config's content.
    pub raw: serde_json::Value,
}

/// A place that keeps and runs images under names.
pub trait Engine: Send + Sync {
    fn image_store<'a>(&'a self) -> Answer<'a, String>;
    fn about(&self) -> &About;
    fn inspect<'a>(&'a self, name: &'a Name) -> Answer<'a, Option<Shown>>;
    /// Sends the image; returns when the engine answered. Never a proof.
    fn load<'a>(&'a self, store: &'a Store, image: &'a Image, name: &'a Name, tell: &'a Tell<'a>) -> Answer<'a, u64>;
    /// The reference that works offline in this very engine.
    fn usable(&self, pin: &crate::pin::Pin, shown: &Shown) -> String;
}
/// Which engine is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Auto,
    Docker,
    Podman,
}
/// What people's settings say, read once by the caller.
#[derive(Debug, Clone, Default)]
pub struct Environment;
/// Connects to the engine that was chosen; Auto takes the first that answers.
pub async fn connect(_choice: &Choice, _environment: &Environment) -> Result<Box<dyn Engine>, EngineError> {
    unimplemented!()
}
/// A place where an engine may be, and what came of asking it.
pub struct Candidate {
    pub kind: Kind,
    pub address: String,
    pub found_by: String,
    pub answer: Result<Box<dyn Engine>, EngineError>,
}
/// All engines that settings and habit name.
pub async fn survey(_environment: &Environment) -> Vec<Candidate> {
    unimplemented!()
}
