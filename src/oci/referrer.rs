//! What refers to an image: manifests that name it as their `subject`, and the lists of them that registries keep
//! ([distribution-spec, Listing Referrers](https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers)).

use serde::{Deserialize, Serialize};

use super::{
    Descriptor, DocumentError, INDEX_LIMIT, Kind, LAYER_LIMIT, bounded, checked, confused, document, kind_of_artifact, layer, read,
};
use crate::digest::{Digest, Verified};

/// A manifest that names another as its subject: a signature, a list of what is in it, a statement of how it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Referrer {
    /// What it refers to: an index or a manifest.
    pub subject: Digest,
    /// What kind it is: the manifest's `artifactType`, or the media type of its config.
    pub kind: String,
    /// The manifest that says so.
    pub manifest: Descriptor,
    /// Its config.
    pub config: Descriptor,
    /// Its layers, which may be anything.
    pub layers: Vec<Descriptor>,
}

impl Referrer {
    /// Reads a manifest that is to have a subject; `said` is the media type that its descriptor gives it.
    pub fn parse(bytes: &Verified, said: &str) -> Result<Referrer, DocumentError> {
        let (raw, found, manifest) = read(bytes, Some(said))?;
        let digest = manifest.digest;
        let (Kind::Manifest, Some(config), Some(layers)) = (found, raw.config, raw.layers) else {
            return Err(confused(digest, Some(said), found.words()));
        };
        let subject = raw.subject.ok_or(DocumentError::NoSubject { digest })?.digest;
        bounded(digest, layers.len(), LAYER_LIMIT)?;
        let config = document(checked(config)?)?;
        let kind = kind_of_artifact(&config, raw.artifact_type)?;
        let layers = layers.into_iter().map(|raw| layer(raw, true)).collect::<Result<_, _>>()?;
        Ok(Referrer { subject, kind, manifest, config, layers })
    }

    /// Its manifest, config and layers; one may be there more than once.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.manifest, &self.config].into_iter().chain(&self.layers)
    }

    /// The bytes of its manifest, config and layers.
    pub fn size(&self) -> u64 {
        self.blobs().map(|blob| blob.size).fold(0, u64::saturating_add)
    }
}

/// What a registry lists as referring to something, in its order. What it says of them is nothing but a list: each manifest says itself
/// what it refers to.
pub fn listed_referrers(bytes: &Verified, said: Option<&str>) -> Result<Vec<Descriptor>, DocumentError> {
    let (raw, found, own) = read(bytes, said)?;
    if found != Kind::Index {
        return Err(confused(own.digest, Some(&own.media_type), found.words()));
    }
    let entries = raw.manifests.unwrap_or_default();
    bounded(own.digest, entries.len(), INDEX_LIMIT)?;
    entries.into_iter().map(checked).collect()
}

/// The tag under which registries without an interface for it keep that list.
pub fn referrers_tag(subject: &Digest) -> String {
    // A tag has at most 128 characters, so that the rest of longer digests is cut off.
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm(), &hex[..hex.len().min(64)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::oci::{INDEX_TYPES, MANIFEST_TYPES};

    fn named(content: &[u8], media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, Digest::of(content), content.len())
    }

    fn manifest(fields: &str) -> String {
        let (config, layer) = (named(b"{}", "application/vnd.oci.empty.v1+json"), named(b"signed", "application/vnd.example.signature"));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{fields}}}"#)
    }

    fn parse(text: &str) -> Result<Referrer, DocumentError> {
        Referrer::parse(&Verified::hash(text.to_owned()), MANIFEST_TYPES[0])
    }

    #[test]
    fn a_manifest_says_itself_what_it_refers_to() {
        let subject = format!(r#","subject":{}"#, named(b"image", MANIFEST_TYPES[0]));
        let found = parse(&manifest(&format!(r#"{subject},"artifactType":"application/vnd.example.kind""#))).unwrap();
        assert_eq!((found.subject, found.kind.as_str()), (Digest::of(b"image"), "application/vnd.example.kind"));
        assert_eq!((found.blobs().count(), found.layers[0].digest), (3, Digest::of(b"signed")));
        // One that calls itself an image may have anything for layers, as signatures of old have it.
        let image = manifest(&subject).replace("application/vnd.oci.empty.v1+json", "application/vnd.oci.image.config.v1+json");
        assert_eq!(parse(&image).unwrap().kind, "application/vnd.oci.image.config.v1+json");

        assert!(matches!(parse(&manifest("")), Err(DocumentError::NoSubject { .. })));
        assert!(matches!(parse(&manifest(r#","subject":null"#)), Err(DocumentError::NoSubject { .. })));
        assert!(matches!(parse(&manifest(&subject).replace("sha256:", "sha256:x")), Err(DocumentError::Json { .. })));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[]{subject}}}"#);
        assert!(matches!(parse(&index), Err(DocumentError::Confused { .. })));
        let foreign = manifest(&subject).replace(r#""size":6"#, r#""size":6,"urls":["https://elsewhere.example"]"#);
        assert!(matches!(parse(&foreign), Err(DocumentError::Foreign { .. })));
    }

    #[test]
    fn a_list_is_an_index_of_anything() {
        let listed = |text: &str, said| listed_referrers(&Verified::hash(text.to_owned()), said);
        let list = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, named(b"1", MANIFEST_TYPES[0]), named(b"2", "text/odd"));
        for said in [None, Some(INDEX_TYPES[0]), Some("application/json")] {
            assert_eq!(listed(&list, said).unwrap().len(), 2, "{said:?}");
        }
        assert!(listed(r#"{"schemaVersion":2,"manifests":[]}"#, None).unwrap().is_empty());
        assert!(listed(&manifest(""), None).is_err());
        assert!(listed(&list, Some("text/html")).is_err());
        let entry = named(b"1", MANIFEST_TYPES[0]);
        let many = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, vec![entry; INDEX_LIMIT + 1].join(","));
        assert!(matches!(listed(&many, None), Err(DocumentError::TooMany { .. })));
    }

    #[test]
    fn the_tag_of_a_list_is_a_tag() {
        let digest = Digest::of(b"image");
        assert_eq!(referrers_tag(&digest), format!("sha256-{}", digest.hex()));
        let long = Digest::by(Algorithm::Sha512, b"image");
        assert_eq!(referrers_tag(&long), format!("sha512-{}", &long.hex()[..64]));
    }
}
