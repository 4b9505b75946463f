//! What an engine may have of an image's layers.
//!
//! Owns the comparison of an image's layers with those of other images. What an engine needs in order to do without a layer is known
//! by the engines themselves: the same chain of layers for one, the same blobs for another.

use std::collections::BTreeSet;

use super::Shown;
use crate::digest::Digest;
use crate::oci::Image;

/// Another image that has layers in common with one that is to be loaded, and that the engine may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative {
    /// What its reference named.
    pub root: Digest,
    /// Its manifest.
    pub manifest: Digest,
    /// Its config.
    pub image_id: Digest,
    /// The digests of its layers' blobs.
    pub layers: BTreeSet<Digest>,
}

/// The layers that are not needed where an image with these diff IDs is: those of the base that both share.
///
/// A layer that occurs again above the base is needed for that.
pub(super) fn below(image: &Image, base: usize) -> BTreeSet<Digest> {
    let (below, above) = image.layers.split_at(base.min(image.layers.len()));
    let needed: BTreeSet<Digest> = above.iter().map(|layer| layer.digest).collect();
    below.iter().map(|layer| layer.digest).filter(|digest| !needed.contains(digest)).collect()
}

/// How many layers from the base up an image has in common with these diff IDs.
pub(super) fn common_base(image: &Image, diff_ids: &[Digest]) -> usize {
    image.diff_ids.iter().zip(diff_ids).take_while(|(one, other)| one == other).count()
}

/// The layers that unpack to what the image under the same name has, wherever it has it.
pub(super) fn like_shown(image: &Image, shown: Option<&Shown>) -> BTreeSet<Digest> {
    let there: BTreeSet<&Digest> = shown.filter(|shown| shown.complete).iter().flat_map(|shown| &shown.diff_ids).collect();
    let pairs = image.layers.iter().zip(&image.diff_ids);
    pairs.filter(|(_, diff_id)| there.contains(diff_id)).map(|(layer, _)| layer.digest).collect()
}

/// The layers that the image has in common with a relative, if they are not all known to be held already.
pub(super) fn in_common(image: &Image, relative: &Relative, held: &BTreeSet<Digest>) -> Option<BTreeSet<Digest>> {
    let layers = image.layers.iter().map(|layer| layer.digest);
    let common: BTreeSet<Digest> = layers.filter(|digest| relative.layers.contains(digest)).collect();
    (!common.is_subset(held)).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Verified;
    use crate::oci::{Config, Descriptor, Manifest};

    fn descriptor(of: &str) -> Descriptor {
        Descriptor { media_type: String::new(), digest: Digest::of(of.as_bytes()), size: of.len() as u64 }
    }

    /// An image with these layers; each letter is one, and what it unpacks to is called the same in capitals.
    fn image(layers: &str) -> Image {
        let diff_ids = unpacked(layers);
        let config = serde_json::json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": diff_ids } });
        let config = Config::parse(&Verified::hash(config.to_string())).unwrap();
        let parts = Manifest {
            config: descriptor("config"),
            layers: layers.chars().map(|name| descriptor(&name.to_string())).collect(),
            artifact: None,
            unproved: false,
        };
        Image::new(descriptor("root"), descriptor("manifest"), parts, config).unwrap()
    }

    fn unpacked(layers: &str) -> Vec<Digest> {
        layers.to_uppercase().chars().map(|name| Digest::of(name.to_string().as_bytes())).collect()
    }

    fn named(layers: &str) -> BTreeSet<Digest> {
        layers.chars().map(|name| descriptor(&name.to_string()).digest).collect()
    }

    #[test]
    fn below_a_base_nothing_is_needed_but_what_occurs_again() {
        let table = [
            ("abc", "abd", "ab"),
            ("abc", "abc", "abc"),
            ("abca", "abcd", "bc"),
            ("abca", "abcab", "abc"),
            ("abc", "xbc", ""),
            ("", "a", ""),
        ];
        for (wanted, there, held) in table {
            let image = image(wanted);
            assert_eq!(below(&image, common_base(&image, &unpacked(there))), named(held), "{wanted} {there}");
        }
        assert_eq!(below(&image("a"), 9), named("a"));
    }

    #[test]
    fn relatives_are_asked_for_only_where_they_add_something() {
        let image = image("abc");
        let relative = |layers| Relative {
            root: Digest::of(b"root"),
            manifest: Digest::of(b"manifest"),
            image_id: Digest::of(b"config"),
            layers: named(layers),
        };
        let table = [("abx", "", Some("ab")), ("abx", "a", Some("ab")), ("abx", "ab", None), ("xyz", "", None), ("", "", None)];
        for (layers, held, more) in table {
            assert_eq!(in_common(&image, &relative(layers), &named(held)), more.map(named), "{layers} {held}");
        }
    }

    #[test]
    fn an_incomplete_image_under_the_name_has_nothing() {
        let shown = |complete| Shown {
            id: Digest::of(b"id"),
            id_of: crate::engine::IdOf::Config,
            digests: Vec::new(),
            diff_ids: unpacked("cax"),
            platform: None,
            complete,
            manifests: Vec::new(),
            raw: serde_json::Value::Null,
        };
        assert_eq!(like_shown(&image("abc"), Some(&shown(true))), named("ac"));
        assert_eq!(like_shown(&image("abc"), Some(&shown(false))), named(""));
        assert_eq!(like_shown(&image("abc"), None), named(""));
    }
}
