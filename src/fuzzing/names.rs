//! Targets for what people write: digests, references, platforms.

use std::str;

use super::Target;
use crate::digest::Digest;
use crate::oci::Platform;
use crate::reference::{Name, Reference, ReferenceError};

pub(super) const TARGETS: &[Target] = &[("digest", digest), ("reference", reference), ("platform", platform)];

/// A digest has one spelling.
fn digest(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.to_string(), text);
    assert_eq!(Digest::with_hex(digest.algorithm(), &digest.hex()).as_ref(), Ok(&digest));
    assert_eq!(digest.path(), format!("blobs/{}/{}", digest.algorithm(), digest.hex()));
}

/// What is shown means the same again, and a complaint points at what is wrong.
fn reference(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match text.parse::<Reference>() {
        Ok(reference) => {
            assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference));
            let name = reference.name();
            assert_eq!(name.to_string().parse::<Name>().as_ref(), Ok(&name));
            assert_eq!(name.familiar().parse::<Name>().as_ref(), Ok(&name), "{}", name.familiar());
            let pinned = reference.pinned_to(Digest::of(input));
            assert_eq!(pinned.to_string().parse::<Reference>().as_ref(), Ok(&pinned));
        }
        Err(ReferenceError::Malformed { found, position, suggestion, .. }) => {
            assert_eq!(text.chars().nth(position - 1), found);
            assert!(suggestion.is_none_or(|meant| meant.parse::<Reference>().is_ok()));
        }
        Err(_) => {}
    }
}

/// What is shown is the normal form, and every platform suits itself best, and itself alone so well. A second one may stand in a second line.
fn platform(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let (text, other) = text.split_once('\n').unwrap_or((text, text));
    let Ok(platform) = text.parse::<Platform>() else { return };
    assert_eq!(platform.to_string().parse::<Platform>().as_ref(), Ok(&platform));
    assert_eq!(platform.rank(&platform), Some(0));
    let Ok(other) = other.parse::<Platform>() else { return };
    if let Some(rank) = platform.rank(&other) {
        assert!(platform.os() == other.os() && (rank == 0) == (platform == other), "{platform} {other}");
    }
}
