//! The labels that containerd and its clients go by.
//!
//! Owns which blob bears which. Always true: labels that others gave stay as they are. What they mean is written in containerd's
//! [garbage-collection.md](https://github.com/containerd/containerd/blob/v1.6.20/docs/garbage-collection.md) and
//! [labels package](https://github.com/containerd/containerd/blob/v1.6.20/labels/labels.go).

use super::api::Labels;
use crate::digest::Digest;
use crate::oci::{Descriptor, Image};
use crate::reference::Name;

/// When a lease ends by itself.
pub(super) const EXPIRES: &str = "containerd.io/gc.expire";
/// The snapshotter of a namespace, where somebody chose one.
pub(super) const DEFAULT_SNAPSHOTTER: &str = "containerd.io/defaults/snapshotter";
/// The chain that a snapshot is unpacked for.
pub(super) const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// What a layer unpacks to: its diff ID.
pub(super) const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Content that is kept for as long as what bears the label.
const CONTENT_REF: &str = "containerd.io/gc.ref.content";
/// The repositories where content can be had, by registry. Mirrors between nodes go by it, and pushes to the same registry.
const SOURCE: &str = "containerd.io/distribution.source";
/// The most bytes that a label may have, key and value.
const LIMIT: usize = 4096;

/// Labels for the blobs of one image.
pub(super) struct For<'a> {
    pub(super) image: &'a Image,
    pub(super) name: &'a Name,
}

impl For<'_> {
    /// For an index: of what it lists the one that this image has. The others may not be there.
    pub(super) fn index(&self, listed: &Descriptor) -> Labels {
        self.with([(format!("{CONTENT_REF}.m.0"), listed.digest)])
    }

    /// For the manifest: its config and layers.
    pub(super) fn manifest(&self) -> Labels {
        let layers = self.image.layers.iter().enumerate().map(|(n, layer)| (format!("{CONTENT_REF}.l.{n}"), layer.digest));
        self.with(layers.chain([(format!("{CONTENT_REF}.config"), self.image.config.digest)]))
    }

    /// For the config: the snapshot that all layers unpack to.
    pub(super) fn config(&self, snapshotter: &str, chain: Option<&Digest>) -> Labels {
        self.with(chain.map(|chain| (format!("containerd.io/gc.ref.snapshot.{snapshotter}"), *chain)))
    }

    /// For a layer.
    pub(super) fn layer(&self) -> Labels {
        self.with([])
    }

    fn with(&self, references: impl IntoIterator<Item = (String, Digest)>) -> Labels {
        let repository = self.name.repository();
        let source = (format!("{SOURCE}.{}", repository.registry()), repository.path().to_owned());
        references.into_iter().map(|(key, digest)| (key, digest.to_string())).chain([source]).collect()
    }
}

/// What has to be set so that content with some labels has the wanted ones too.
pub(super) fn missing(there: &Labels, wanted: &Labels) -> Labels {
    let mut missing = Labels::new();
    for (key, value) in wanted {
        if there.get(key) == Some(value) {
            continue;
        }
        if key.starts_with(CONTENT_REF) {
            if !refers_to(there, value) {
                missing.insert(free(there, wanted, key), value.clone());
            }
        } else if key.starts_with(SOURCE) {
            missing.extend(with_source(there, key, value));
        } else {
            missing.insert(key.clone(), value.clone());
        }
    }
    missing
}

/// Whether some content is kept already, under whatever key.
fn refers_to(there: &Labels, digest: &str) -> bool {
    there.iter().any(|(key, value)| key.starts_with(CONTENT_REF) && value == digest)
}

/// The key, or one like it that refers to nothing yet: another platform of the same index may have been there first.
fn free(there: &Labels, wanted: &Labels, key: &str) -> String {
    if !there.contains_key(key) {
        return key.to_owned();
    }
    let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let mut keys = (0..).map(|n: u32| format!("{stem}{n}"));
    keys.find(|key| !there.contains_key(key) && !wanted.contains_key(key)).expect("there are more numbers than labels")
}

/// The repositories of a registry, with one more; nothing where it is among them or does not fit.
fn with_source(there: &Labels, key: &str, repository: &str) -> Option<(String, String)> {
    let Some(known) = there.get(key) else { return Some((key.to_owned(), repository.to_owned())) };
    let mut all: Vec<&str> = known.split(',').collect();
    if all.contains(&repository) {
        return None;
    }
    all.push(repository);
    all.sort_unstable();
    let all = all.join(",");
    (key.len() + all.len() <= LIMIT).then(|| (key.to_owned(), all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(of: [(&str, &str); N]) -> Labels {
        of.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn what_others_labelled_stays() {
        let (m0, m1) = ("containerd.io/gc.ref.content.m.0", "containerd.io/gc.ref.content.m.1");
        let (source, snapshot) = ("containerd.io/distribution.source.docker.io", "containerd.io/gc.ref.snapshot.overlayfs");
        let table = [
            (labels([]), labels([(m0, "a")]), labels([(m0, "a")])),
            (labels([(m0, "a")]), labels([(m0, "a")]), labels([])),
            (labels([("containerd.io/gc.ref.content.7", "a")]), labels([(m0, "a")]), labels([])),
            (labels([(m0, "b")]), labels([(m0, "a")]), labels([(m1, "a")])),
            (labels([(m0, "b"), (m1, "a")]), labels([(m0, "a")]), labels([])),
            (labels([]), labels([(source, "library/a")]), labels([(source, "library/a")])),
            (labels([(source, "library/b")]), labels([(source, "library/a")]), labels([(source, "library/a,library/b")])),
            (labels([(source, "library/a,library/b")]), labels([(source, "library/a")]), labels([])),
            (labels([(source, &"x".repeat(4090))]), labels([(source, "library/a")]), labels([])),
            (labels([(snapshot, "b"), ("mine", "1")]), labels([(snapshot, "a")]), labels([(snapshot, "a")])),
        ];
        for (there, wanted, expected) in table {
            assert_eq!(missing(&there, &wanted), expected, "{there:?} {wanted:?}");
        }
    }
}
