//! Keeps container images so that they are there when the network is not.
//!
//! An image is pulled by digest once, every byte compared; from then on it goes from the store into docker, podman or containerd
//! under its name, and what the engine holds is proved to be what was pinned, without a registry.
//!
//! An image has three identities: the digest of its index, which people pin; the digest of one platform's manifest; and the
//! image ID, which is the digest of its config and all that docker and podman show. The verified manifest
//! ties them together, once; a [`pin::Pin`] records it; and whatever an engine shows later is compared with it.
//!
//! # The flow
//!
//! ```text
//! parse     text         -> Reference     reference
//! resolve   Reference    -> Descriptor    pull: the pin; or the registry, and then pinned
//! describe  Descriptor   -> Image         pull: manifests first, they name the rest
//! ask       Engine       -> held?         ensure, engine: then report, done in milliseconds
//! plan      Image        -> Plan          plan: what the store lacks
//! fetch     Plan         -> blobs         pull: stream, hash, compare, sync, name
//! ask       Engine       -> Lacking       plan, engine: which layers it lacks
//! load      Lacking      -> the engine    archive, engine: hashed again on the way out
//! prove     Engine, Pin  -> proof         engine::proof
//! ```
//!
//! # The map
//!
//! [`digest`], [`mod@reference`], [`oci`] and [`pin`] are plain values. [`store`] is blocking code that knows no
//! network; [`upstream`] is async code that knows no disk; [`pull`] joins them. [`import`] brings images from files, [`archive`] is an image as one stream;
//! [`engine`] is where it goes, and [`export`] writes it to files for other tools. [`ensure`] is the main line. The library prints nothing, reads no environment and never
//! exits: it returns values, and tells [`event::Event`]s to whoever listens. Where [`pull::Cache::upstream`] is
//! `None`, no connection to a registry can be opened.
//!
//! ```no_run
//! use larder::engine::{self, Choice, Environment};
//! use larder::ensure::Wish;
//! use larder::event::silent;
//! use larder::pull::{Cache, Unpinned};
//! use larder::reference::Reference;
//! use larder::store::Store;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let reference: Reference = "redis:7@sha256:4c0e8a1ae5b1ef1f2b1d3f2a2a5b3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b".parse()?;
//! let store = Store::open("/var/lib/larder")?;
//! let cache = Cache { store: &store, upstream: None, tell: &silent };
//! let engine = engine::connect(&Choice::Auto, &Environment::default()).await?;
//! let wish = Wish { name: reference.name(), reference, platform: None, from: vec![], unpinned: Unpinned::Refuse };
//! let report = cache.ensure(&wish, engine.as_ref()).await?;
//! println!("use {}", report.usable);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests damage files by hand"))]

pub mod archive;
pub mod deep;
pub mod digest;
pub mod engine;
pub mod ensure;
pub mod event;
pub mod examine;
pub mod export;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
mod json;
pub mod oci;
pub mod pin;
pub mod plan;
pub mod pull;
pub mod reference;
pub mod store;
pub mod upstream;
