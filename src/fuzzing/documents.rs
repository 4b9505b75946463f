//! Targets for the documents of an image: what is accepted says the same to every reader of JSON.

use serde_json::Value;

use super::Target;
use crate::digest::{Digest, Verified};
use crate::oci::{self, Config, Descriptor, Document, Layout, Referrer};

pub(super) const TARGETS: &[Target] = &[("manifest", document), ("index", document), ("config", config), ("layout", layout)];

/// A manifest or an index.
fn document(input: &[u8]) {
    let bytes = Verified::hash(input.to_vec());
    let Ok((document, own)) = Document::parse(&bytes, None) else { return };
    assert_eq!((own.digest, own.size), (Digest::of(input), input.len() as u64));
    // A second look that knows its media type sees the same.
    let again = Document::parse(&bytes, Some(&own.media_type)).expect("it is what it said it is");
    assert_eq!(again, (document.clone(), own.clone()));
    let (value, rewritten) = rewritten(input);
    if let Ok(referrer) = Referrer::parse(&bytes, &own.media_type) {
        assert!(value["subject"]["digest"] == referrer.subject.to_string() && says(&value["config"], &referrer.config));
    }
    if let Ok(listed) = oci::listed_referrers(&bytes, None) {
        let entries = value["manifests"].as_array().expect("a list has manifests");
        assert!(entries.len() == listed.len() && entries.iter().zip(&listed).all(|(value, one)| says(value, one)));
    }
    let (meant, _) = Document::parse(&rewritten, None).expect("it says the same in other words");
    assert_eq!(meant, document);
    for content in oci::inline(&bytes) {
        let named = Value::from(content.digest().to_string());
        let listed = ["layers", "manifests"].iter().filter_map(|list| value[list].as_array()).flatten().chain([&value["config"]]);
        assert!(listed.into_iter().any(|entry| entry["digest"] == named && entry["size"] == content.size()));
        assert_eq!(oci::inline(&rewritten).iter().filter(|again| **again == content).count().min(1), 1);
    }
    match document {
        Document::Manifest(manifest) => {
            assert!(says(&value["config"], &manifest.config));
            let layers = value["layers"].as_array().expect("a manifest has layers");
            assert_eq!(layers.len(), manifest.layers.len());
            assert!(layers.iter().zip(&manifest.layers).all(|(value, layer)| says(value, layer)));
            // An image has layers that can be unpacked; an artifact has whatever it has, and says what it is.
            assert!(manifest.artifact.is_some() || manifest.layers.iter().all(|layer| layer.compression().is_some()));
            assert!(manifest.artifact.is_none_or(|kind| value["artifactType"] == *kind || value["config"]["mediaType"] == *kind));
        }
        Document::Index(index) => {
            let entries = value["manifests"].as_array().expect("an index has manifests");
            assert_eq!(entries.len(), index.manifests.len() + index.others);
            for (platform, descriptor) in &index.manifests {
                assert!(entries.iter().any(|entry| says(entry, descriptor)));
                // Whoever asks for what is on offer gets it, or an entry before it that is for the same.
                let Some(platform) = platform else { continue };
                let (chosen, _) = index.select(platform).expect("it is on offer");
                assert!(chosen.as_ref().is_some_and(|chosen| platform.rank(chosen) == Some(0)));
            }
        }
    }
}

/// The config of an image.
fn config(input: &[u8]) {
    let Ok(config) = Config::parse(&Verified::hash(input.to_vec())) else { return };
    let (value, rewritten) = rewritten(input);
    let again = Config::parse(&rewritten).expect("it says the same in other words");
    assert_eq!((again.platform, &again.diff_ids, config.id), (config.platform, &config.diff_ids, Digest::of(input)));
    let diff_ids: Vec<String> = config.diff_ids.iter().map(Digest::to_string).collect();
    let seen = value["rootfs"]["diff_ids"].as_array().map(|ids| ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect());
    assert_eq!(seen.unwrap_or_else(Vec::new), diff_ids);
}

/// The `index.json` of an image layout.
fn layout(input: &[u8]) {
    Layout::is_known_version(input);
    let Ok(layout) = Layout::parse(&Verified::hash(input.to_vec())) else { return };
    let (value, rewritten) = rewritten(input);
    assert_eq!(Layout::parse(&rewritten).expect("it says the same in other words"), layout);
    let entries = value["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(layout.images.iter().all(|image| entries.iter().any(|entry| says(entry, &image.root))));
}

/// What another reader of JSON sees, and how it would write that.
fn rewritten(input: &[u8]) -> (Value, Verified) {
    let value: Value = serde_json::from_slice(input).expect("what was accepted is JSON");
    let text = value.to_string();
    (value, Verified::hash(text))
}

fn says(value: &Value, descriptor: &Descriptor) -> bool {
    value["digest"].as_str() == Some(&descriptor.digest.to_string())
        && value["size"].as_u64() == Some(descriptor.size)
        && value["mediaType"].as_str().unwrap_or_default() == descriptor.media_type
}
