//! What happens on the way, told to whoever watches. Values only: nothing here prints.

use std::time::Duration;

use crate::digest::Digest;
use crate::reference::{Name, Reference};

/// Something that happened while an image was pulled, loaded or exported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A registry is asked what a reference means.
    Resolving {
        /// The reference.
        reference: Reference,
    },
    /// A place is asked for a manifest or a blob.
    Asking {
        /// The repository, its own or a mirror's.
        place: String,
        /// The tag or digest.
        what: String,
    },
    /// An index lists two images for one platform; the first is kept.
    SamePlatform {
        /// The manifest of the one that is left out.
        manifest: Digest,
        /// What both are for.
        platform: String,
    },
    /// A place did not give what it was asked for, and another is asked for it.
    PassedOver {
        /// The repository, its own or a mirror's.
        place: String,
        /// The tag or digest.
        what: String,
        /// Why it did not come.
        why: String,
        /// Who is asked next.
        next: String,
    },
    /// The blobs that the store lacks are known.
    Fetching {
        /// The reference.
        reference: Reference,
        /// How many blobs.
        blobs: usize,
        /// Their bytes in all.
        bytes: u64,
    },
    /// A blob is on its way.
    BlobStarted {
        /// Which blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many of them an earlier run left.
        resumed: u64,
    },
    /// More bytes of a blob were taken in.
    BlobProgress {
        /// Which blob.
        digest: Digest,
        /// How many bytes came since the last event.
        bytes: u64,
    },
    /// A blob has its name in the store, fetched here or by another process meanwhile.
    BlobFinished {
        /// Which blob.
        digest: Digest,
    },
    /// What had come of a blob was wrong and was thrown away; it is fetched from its beginning.
    BlobRestarted {
        /// Which blob.
        digest: Digest,
    },
    /// A request failed in a way that may pass; it is made again.
    Retrying {
        /// What was asked, as a URL fit to be shown.
        what: String,
        /// Why it failed.
        why: String,
        /// How long until the next try.
        after: Duration,
    },
    /// An image is being sent to an engine.
    LoadStarted {
        /// The engine.
        engine: String,
        /// The name it is to bear.
        name: Name,
        /// How many bytes will be sent.
        bytes: u64,
        /// How many layers are in them.
        layers: usize,
    },
    /// More bytes were sent to an engine.
    LoadProgress {
        /// The engine.
        engine: String,
        /// How many since the last event.
        bytes: u64,
    },
    /// All was sent; the engine unpacks.
    LoadSent {
        /// The engine.
        engine: String,
    },
    /// All was sent some time ago, and the engine has not answered. Whether it lives is asked beside.
    LoadWaiting {
        /// The engine.
        engine: String,
        /// How long ago all was sent.
        since: Duration,
    },
    /// An engine told how far it is with a layer. Docker's classic image store and containerd do.
    LoadUnpacking {
        /// The engine.
        engine: String,
        /// What it calls the layer.
        layer: String,
        /// How many of the layer's bytes it has unpacked.
        bytes: u64,
        /// How many there are.
        of: u64,
    },
    /// An engine did not take what it was thought to lack, without the rest; it is sent all.
    LoadRefused {
        /// The engine.
        engine: String,
        /// The name it was to bear.
        name: Name,
        /// Why, in the engine's own words.
        why: String,
    },
    /// An archive is being written.
    ExportStarted {
        /// How many bytes there are before any compression.
        bytes: u64,
    },
    /// More bytes of an archive were written.
    ExportProgress {
        /// How many since the last event.
        bytes: u64,
    },
    /// An archive is written, or no more of it will be.
    ExportFinished,
    /// An engine answered; what it holds is asked next.
    LoadFinished {
        /// The engine.
        engine: String,
    },
}

/// Whoever is told.
pub type Tell<'a> = dyn Fn(Event) + Sync + 'a;

/// Tells nobody.
pub fn silent(_: Event) {}
