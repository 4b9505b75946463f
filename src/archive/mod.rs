//! Images as one tar stream, out of the store.
//!
//! Owns the form of the archive: an OCI layout with the registry's own documents, and beside it the `manifest.json` that
//! docker reads, both pointing at the same blobs, so that every engine finds in it what it knows; or one of the two alone. Always true: each
//! image is in it under one name, and a blob that several of them have is in it once; its size is known before the first byte and the bytes
//! are the same every time; every byte is hashed on its way out, and what names the images comes last, so that a stream that was cut or ended on
//! damage never names anything. Layers that are left out, since whoever takes it has them, are still named in its documents.
//!
//! Blocking. Sending it is the engines' affair, and writing it to a file that of `export`.

mod error;
mod members;
mod write;

use std::collections::{BTreeSet, HashSet};

pub use error::ArchiveError;
pub(crate) use write::unreadable;
pub use write::{Outcome, Taker, write_each};

use crate::digest::Digest;
use crate::oci::{Compression, Descriptor, Image};
use crate::reference::Name;
use crate::store::Store;
use members::{Content, Member, Sent};

/// The unit of a tar archive: a header, and what content is filled up to.
const BLOCK: u64 = 512;

/// Images that are about to leave the store.
pub struct Archive {
    store: Store,
    members: Vec<Member>,
}

/// What goes into an archive under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The name that it bears in there.
    pub name: Name,
    /// What the name points to: an index, or a manifest.
    pub root: Descriptor,
    /// The images of that root that are in it, one for each platform; at least one.
    pub images: Vec<Image>,
}

/// What an archive is, and so who can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI layout and a docker archive at once, for every reader.
    Both,
    /// An OCI layout alone.
    Oci,
    /// A docker archive alone, its layers as [`Layers::WithoutZstd`] has them: for readers of old.
    Docker,
    /// As `Docker`, its members called as crane calls them.
    Crane,
}

/// Which layers go out, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// How they go out.
    pub layers: Layers,
    /// The layers that are left out, by the digests of their blobs. The archive is of use only where they are already.
    pub without: BTreeSet<Digest>,
}

impl Parts {
    /// All layers.
    pub fn all(layers: Layers) -> Parts {
        Parts { layers, without: BTreeSet::new() }
    }
}

/// How layers go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// As they are in the store.
    AsStored,
    /// Those compressed with zstd as plain tar archives, for docker before 23.
    WithoutZstd,
}

/// A file in the archive, for one who writes files instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A document of larder's own.
    Text(&'a [u8]),
    /// A blob as it is in the store.
    Blob(&'a Descriptor),
}

/// Some bytes of an archive that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How many.
    pub size: u64,
    /// Whether they are compressed already.
    pub compressed: bool,
}

impl Archive {
    /// One image for an engine. Checks that all is in the store and computes the size.
    ///
    /// With [`Layers::WithoutZstd`], zstd layers are unpacked once here, to learn their size and to compare them with their diff IDs.
    pub fn new(store: &Store, image: &Image, name: &Name, parts: &Parts) -> Result<Archive, ArchiveError> {
        let item = Item { name: name.clone(), root: image.root.clone(), images: vec![image.clone()] };
        let zstd = |layer: &Descriptor| layer.compression() == Some(Compression::Zstd);
        let form = match parts.layers {
            Layers::WithoutZstd if image.layers.iter().any(zstd) => Form::Docker,
            _ => Form::Both,
        };
        let documents: HashSet<Digest> = image.documents().map(|document| document.digest).collect();
        let sent = |blob: &Descriptor| documents.contains(&blob.digest) || !parts.without.contains(&blob.digest);
        Archive::made(store, &[item], form, &sent)
    }

    /// Whole images in one archive, in this order. Checks and computes as [`Archive::new`] does.
    ///
    /// A docker archive has one image under a name, so of several platforms it has the first.
    pub fn of(store: &Store, items: &[Item], form: Form) -> Result<Archive, ArchiveError> {
        let mut names = HashSet::new();
        if let Some(twice) = items.iter().find(|item| !names.insert(&item.name)) {
            return Err(ArchiveError::NameTwice { name: twice.name.clone() });
        }
        Archive::made(store, items, form, &|_| true)
    }

    fn made(store: &Store, items: &[Item], form: Form, sent: Sent<'_>) -> Result<Archive, ArchiveError> {
        items.iter().try_for_each(|item| complete(store, &item.images, &item.name))?;
        let artifact = items.iter().find_map(|item| Some((item, item.images.iter().find_map(|image| image.artifact.clone())?)));
        if let (Some((item, kind)), Form::Docker | Form::Crane) = (artifact, form) {
            return Err(ArchiveError::Artifact { name: item.name.clone(), kind });
        }
        Ok(Archive { store: store.clone(), members: members::of(store, items, form, sent)? })
    }

    /// The size of the archive in bytes.
    pub fn size(&self) -> u64 {
        self.spans().map(|span| span.size).fold(0, u64::saturating_add)
    }

    /// All of its bytes in order, so that what is compressed need not be compressed again.
    pub fn spans(&self) -> impl Iterator<Item = Span> {
        let plain = |size| Span { size, compressed: false };
        let of_member = move |member: &Member| {
            let compressed = member.content.is_compressed();
            [plain(write::head_size(&member.path)), Span { size: member.size, compressed }, plain(write::filling(member.size))]
        };
        self.members.iter().flat_map(of_member).chain([plain(write::END.len() as u64)])
    }

    /// Its blobs as they are in the store, and where each of them begins, in order.
    pub fn blobs(&self) -> impl Iterator<Item = (u64, &Descriptor)> {
        let mut ends = 0;
        self.members.iter().filter_map(move |member| {
            let begins = ends + write::head_size(&member.path);
            ends = begins + member.size + write::filling(member.size);
            match &member.content {
                Content::Blob(blob) => Some((begins, blob)),
                Content::Text(_) | Content::Unpacked(..) => None,
            }
        })
    }

    /// Its files with their paths, in order. Layers that would go out unpacked are none of them.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Part<'_>)> {
        self.members.iter().filter_map(|member| match &member.content {
            Content::Text(text) => Some((member.path.as_str(), Part::Text(text))),
            Content::Blob(blob) => Some((member.path.as_str(), Part::Blob(blob))),
            Content::Unpacked(..) => None,
        })
    }
}

/// Fails unless all of the images' blobs are there.
fn complete(store: &Store, images: &[Image], name: &Name) -> Result<(), ArchiveError> {
    let layers: HashSet<Digest> = images.iter().flat_map(|image| &image.layers).map(|layer| layer.digest).collect();
    let mut seen = HashSet::new();
    let blobs = images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest));
    let missing: Vec<&Descriptor> = blobs.filter(|blob| !store.has(blob)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    store.missing_not_damaged(missing.iter().copied())?;
    let missing_layers = missing.iter().filter(|d| layers.contains(&d.digest)).count();
    Err(ArchiveError::Incomplete {
        name: name.clone(),
        layers: layers.len(),
        missing_layers,
        missing_documents: missing.len() - missing_layers,
        missing_bytes: missing.iter().map(|d| d.size).fold(0, u64::saturating_add),
    })
}

#[cfg(test)]
pub(crate) mod tests;
