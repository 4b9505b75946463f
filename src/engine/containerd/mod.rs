//! containerd, over its own services.
//!
//! Owns what is particular to it: namespaces, snapshotters, and names that are plain texts. Always true: one namespace is asked and
//! changed, no other; an image counts as there only if all that it takes to run it is there ([`look`]); a name never points
//! to what is not ([`load`]).

mod api;
mod blobs;
mod channel;
mod codec;
mod content;
pub(super) mod inside;
mod labels;
mod load;
mod look;
mod unpack;

use std::collections::HashSet;
use std::path::PathBuf;

use tokio::sync::OnceCell;
use tonic::metadata::MetadataValue;

use super::discover::Environment;
use super::send::only_sha256;
use super::{About, Answer, Engine, EngineError, Keepers, Parcel, Place, Relative, Shown, Unpacked};
use crate::digest::Digest;
use crate::event::Tell;
use crate::oci::{Image, Platform};
use crate::pin::Pin;
use crate::plan::Lacking;
use crate::reference::Name;
use api::{GetNamespace, GetVersion, ListPlugins, Plugin};
use channel::Line;

/// The snapshotter that containerd's clients use where nobody chose one.
const USUAL_SNAPSHOTTER: &str = "overlayfs";
/// Where docker keeps its images in a containerd of its own.
pub(super) const DOCKERS: &str = "moby";
/// Where Kubernetes keeps its images.
const KUBERNETES: &str = "k8s.io";
/// Where containerd's command line keeps its images.
const USUAL_NAMESPACE: &str = "default";

pub(super) struct Containerd {
    line: Line,
    about: About,
    shelf: Shelf,
    plugins: OnceCell<Vec<Plugin>>,
}

/// Asks a containerd who it is.
pub(super) async fn open(place: Place, socket: PathBuf, environment: &Environment) -> Result<Containerd, EngineError> {
    let namespace = environment.containerd_namespace.clone().unwrap_or_else(|| usual_namespace(&socket).to_owned());
    let header = MetadataValue::try_from(&namespace).ok().filter(|_| is_identifier(&namespace));
    let header = header.ok_or_else(|| EngineError::Namespace { namespace: namespace.clone() })?;
    let line = Line { place, socket, limit: environment.timeout, namespace: header };
    let channel = line.connect().await?;
    let asked = GetNamespace { name: namespace.clone() };
    let (version, labels) = tokio::try_join!(channel.call(GetVersion {}), channel.find(asked))?;
    let labels = labels.and_then(|found| found.namespace).map(|namespace| namespace.labels).unwrap_or_default();
    let chosen = environment.containerd_snapshotter.clone().or_else(|| labels.get(labels::DEFAULT_SNAPSHOTTER).cloned());
    let Place { kind, address, found_by } = line.place.clone();
    let about = About { kind, version: version.version, api: "v1".to_owned(), address, found_by, namespace: Some(namespace.clone()) };
    let snapshotter = chosen.unwrap_or_else(|| USUAL_SNAPSHOTTER.to_owned());
    Ok(Containerd { line, about, shelf: Shelf { namespace, snapshotter }, plugins: OnceCell::new() })
}

/// The namespace that whoever started this containerd uses.
fn usual_namespace(socket: &std::path::Path) -> &'static str {
    match () {
        () if socket.ends_with("docker/containerd/containerd.sock") => DOCKERS,
        () if socket.ends_with("k3s/containerd/containerd.sock") => KUBERNETES,
        () => USUAL_NAMESPACE,
    }
}

/// As containerd checks it ([identifiers/validate.go](https://github.com/containerd/containerd/blob/v1.6.20/identifiers/validate.go)).
fn is_identifier(text: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    text.len() <= 76 && text.split(['.', '_', '-']).all(word)
}

/// The name under which pinned references are found: Kubernetes drops the tag where there is a digest.
fn by_digest(name: &Name, root: &Digest) -> String {
    format!("{}@{root}", name.repository())
}

/// Where images are looked for and unpacked.
#[derive(Debug, Clone)]
struct Shelf {
    namespace: String,
    snapshotter: String,
}

impl Shelf {
    /// Whether pinned references are found by a record of their own. Docker finds them by the tag's, and would list the digest twice.
    fn has_digests(&self) -> bool {
        self.namespace != DOCKERS
    }
}

impl Containerd {
    async fn plugins(&self) -> Result<&[Plugin], EngineError> {
        let ask = async || {
            let filters = vec!["type==io.containerd.snapshotter.v1".to_owned()];
            Ok(self.line.connect().await?.call(ListPlugins { filters }).await?.plugins)
        };
        self.plugins.get_or_try_init(ask).await.map(Vec::as_slice)
    }

    /// The snapshotter that images are unpacked with, or why it cannot be used.
    async fn snapshotter(&self) -> Result<&Plugin, EngineError> {
        let plugins = self.plugins().await?;
        let why = match plugins.iter().find(|plugin| plugin.id == self.shelf.snapshotter) {
            Some(Plugin { broken: Some(broken), .. }) => super::wire::words(&broken.message),
            Some(usable) => return Ok(usable),
            None => "there is none of that name".to_owned(),
        };
        let usable = plugins.iter().filter(|plugin| plugin.broken.is_none()).map(|plugin| plugin.id.clone()).collect();
        let (place, snapshotter) = (self.line.place.clone(), self.shelf.snapshotter.clone());
        Err(EngineError::Snapshotter { place, snapshotter, why, usable })
    }
}

impl Engine for Containerd {
    fn about(&self) -> &About {
        &self.about
    }

    fn platform(&self) -> Answer<'_, Platform> {
        Box::pin(async {
            let first = self.snapshotter().await?.platforms.first();
            let named = first.and_then(|p| Platform::new(&p.os, &p.architecture, Some(&p.variant)));
            // A snapshotter that names none unpacks for any, and containers then run on the machine that the socket is on.
            Ok(named.unwrap_or_else(Platform::host))
        })
    }

    fn inspect<'a>(&'a self, name: &'a Name) -> Answer<'a, Option<Shown>> {
        Box::pin(async { look::look(&self.line.connect().await?, &self.shelf, name).await })
    }

    /// Whatever layer it has it has by its blob, so the names of others need not be asked.
    fn lacks<'a>(&'a self, image: &'a Image, _shown: Option<&'a Shown>, _relatives: &'a [Relative]) -> Answer<'a, Lacking> {
        Box::pin(async { look::lacking(&self.line.connect().await?, image).await })
    }

    fn load<'a>(&'a self, parcel: Parcel<'a>, tell: &'a Tell<'a>) -> Answer<'a, u64> {
        Box::pin(async move {
            let Parcel { store, image, name, seat, .. } = parcel;
            only_sha256(&self.line.place, image, name)?;
            self.snapshotter().await?;
            load::Load { store, image, name, shelf: &self.shelf }.run(&self.line, seat, tell).await
        })
    }

    fn usable(&self, pin: &Pin, shown: &Shown) -> String {
        if shown.digests.contains(&pin.root.digest) { by_digest(&pin.name, &pin.root.digest) } else { pin.name.to_string() }
    }

    fn unpacked<'a>(&'a self, shown: &'a Shown) -> Answer<'a, Unpacked> {
        Box::pin(async { inside::folders(&self.line.connect().await?, &self.shelf.snapshotter, &shown.diff_ids).await })
    }

    fn exported<'a>(&'a self, name: &'a Name) -> Answer<'a, HashSet<Digest>> {
        Box::pin(async { inside::reread(&self.line.connect().await?, name).await })
    }

    fn keepers<'a>(&'a self, shown: &'a Shown, up_to: usize) -> Answer<'a, Keepers> {
        Box::pin(async move { inside::keepers(&self.line.connect().await?, &self.shelf, shown, up_to).await })
    }

    fn take_out<'a>(&'a self, _shown: &'a Shown, keepers: &'a Keepers) -> Answer<'a, ()> {
        Box::pin(async { inside::take_out(&self.line.connect().await?, keepers).await })
    }

    fn give_names<'a>(&'a self, image: &'a Name, names: &'a [String]) -> Answer<'a, ()> {
        Box::pin(async { inside::give_names(&self.line.connect().await?, &image.to_string(), names).await })
    }

    fn image_store(&self) -> Answer<'_, String> {
        Box::pin(async { Ok(self.snapshotter().await?.id.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_what_containerd_takes() {
        for good in ["default", "k8s.io", "moby", "a-b_c.1"] {
            assert!(is_identifier(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a b", "a/b", "ä", &"a".repeat(77)] {
            assert!(!is_identifier(bad), "{bad}");
        }
    }

    #[test]
    fn a_containerd_of_dockers_or_of_k3s_is_asked_for_their_images() {
        let table = [
            ("/run/containerd/containerd.sock", "default"),
            ("/run/docker/containerd/containerd.sock", "moby"),
            ("/run/user/1000/docker/containerd/containerd.sock", "moby"),
            ("/run/k3s/containerd/containerd.sock", "k8s.io"),
        ];
        for (socket, namespace) in table {
            assert_eq!(usual_namespace(std::path::Path::new(socket)), namespace);
        }
    }
}
