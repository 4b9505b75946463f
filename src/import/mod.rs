//! Files of images into the store, whatever tool wrote them.
//!
//! Owns what an image file means: archives of docker, podman, skopeo, crane, buildkit, containerd and others, OCI layouts, compressed as a whole or not. Always true: nothing has a name
//! in the store before all of the file was read and found right, so that a file that is refused leaves the store as it was; what two readers would understand
//! differently is refused by name, so that larder never accepts one image where an engine would load another; every layer was unpacked and compared with its
//! config. A name in a file is applied only where that was asked for.
//!
//! What is proved is said: the manifests that a file has; or manifests from a registry, or from the store, that name exactly this config and these layers; or one that a usual
//! writer would have made of them. Else the image ID is known and no pin is proved: see [`Pin::unproved`].
//!
//! After a crash there are files in `ingest/` that nobody has locked, perhaps blobs that no pin names; [`Store::prune`](crate::store::Store::prune) removes both.

mod blobs;
mod choose;
mod docker;
pub mod donor;
mod error;
mod found;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod header;
mod intake;
mod keep;
mod layout;
mod likely;
mod minikube;
mod path;
mod prove;
mod read;
mod tar;
mod unpack;
mod wrap;

use crate::digest::Digest;
use crate::oci::Platform;
use crate::pin::Pin;
use crate::pull::Cache;
use crate::reference::{Reference, Repository};

use blobs::LIMITS;
pub use error::ImportError;
pub use minikube::{cached_in, told_by};
pub use path::PathError;
use read::Contents;
pub use read::Source;
pub use tar::TarError;

/// What is to be made of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// What the image in it is: its name, and with a digest the pin that it has to be.
    pub reference: Option<Reference>,
    /// Whether the images get the names that the file gives them.
    pub accept_names: bool,
    /// The only platform that is wanted.
    pub platform: Option<Platform>,
    /// The pin that the file's name tells, as the names in minikube's cache do.
    pub told: Option<Digest>,
    /// Other repositories that may have the manifests of what is to be proved.
    pub from: Vec<Repository>,
}

/// An image that is in the store by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// How it is pinned.
    pub pin: Pin,
    /// What the file calls it, as it is written there.
    pub names: Vec<String>,
    /// What is proved of it.
    pub proof: Proof,
    /// How many bytes the store lacked of all the file's images.
    pub added: u64,
}

/// What proves that an image is the one that its pin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The file has its manifests.
    InFile,
    /// A registry's manifests, asked for by their digest or in the store already, name this config and these layers.
    Registry,
    /// One of the usual writers makes exactly the manifest that was asked for of this config and these layers.
    Rebuilt,
    /// The same image is pinned under that name already, with all its blobs.
    Known,
    /// Nothing: its image ID is known.
    ImageId(Doubt),
}

/// Why an image's pin is not proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody said what it is to be.
    NotAsked,
    /// The registry's image has this very config, but other blobs: the layers in the file were unpacked, or compressed in another way.
    OtherBlobs,
    /// Its registry could not be asked.
    NotAnswered(String),
    /// No registry may be asked.
    Offline,
}

impl Cache<'_> {
    /// Reads a file of images, and pins what it holds.
    ///
    /// A registry is asked for manifests only: where a pin is to be proved, and the file has none.
    pub async fn import(&self, source: Source, wish: &Wish) -> Result<Vec<Imported>, ImportError> {
        let counted_on = self.count_on().await?;
        let store = self.store.clone();
        let Contents { found, blobs } = blocking(move || read::read(&store, counted_on, source, LIMITS)).await?;
        let mut proved = Vec::new();
        for choice in choose::choose(&found, wish)? {
            proved.push(self.prove(choice, &wish.from).await?);
        }
        let store = self.store.clone();
        blocking(move || keep::keep(&store, blobs, proved)).await
    }
}

/// Runs a blocking piece of work beside the async main line.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ImportError> + Send + 'static) -> Result<T, ImportError> {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic and is not aborted")
}
