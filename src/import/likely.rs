//! Manifests over a config and layers: those that the usual writers would have made, and larder's own.
//!
//! A manifest is JSON, and its digest goes by every blank. Docker, buildkit, skopeo, podman and crane write theirs in a few fixed forms; where one of these over
//! exactly these blobs has the digest that somebody pinned, it is the manifest that was pinned, with or without a registry.

use std::fmt::Write;

use super::found::Bare;
use crate::digest::{Digest, Verified};
use crate::oci::{Compression, Descriptor, MANIFEST_TYPES, UNPROVED};

/// How a writer of manifests sets them.
#[derive(Clone, Copy)]
struct Style {
    /// Docker's media types, or OCI's.
    docker: bool,
    /// Whether the manifest says its own media type.
    typed: bool,
    /// Whether the size of a blob comes before its digest.
    size_first: bool,
    /// How many blanks a level is set in by; none: all on one line.
    indent: Option<usize>,
}

/// The manifest over these blobs that has this digest, if a usual writer would have made it.
pub(super) fn manifest(image: &Bare, wanted: &Digest) -> Option<(Descriptor, Verified)> {
    let forms = [None, Some(2), Some(3)];
    let styles = forms.into_iter().flat_map(|indent| {
        let style = move |docker, typed, size_first| Style { docker, typed, size_first, indent };
        [style(true, true, true), style(true, true, false), style(false, true, false), style(false, true, true)]
            .into_iter()
            .chain([style(false, false, false), style(false, false, true)])
    });
    let texts = styles.map(|style| (style.docker, Verified::hash(style.text(image, ""))));
    let (docker, text) = texts.into_iter().find(|(_, text)| text.digest() == *wanted)?;
    Some((described(docker, &text), text))
}

/// The manifest that larder writes where there is none: it says so, and is the same on every machine.
pub(super) fn own(image: &Bare) -> (Descriptor, Verified) {
    let style = Style { docker: false, typed: true, size_first: false, indent: None };
    let text = Verified::hash(style.text(image, &format!(r#","annotations":{{"{UNPROVED}":"true"}}"#)));
    (described(false, &text), text)
}

fn described(docker: bool, text: &Verified) -> Descriptor {
    let media_type = MANIFEST_TYPES[usize::from(docker)].to_owned();
    Descriptor { media_type, digest: text.digest(), size: text.size() }
}

impl Style {
    fn text(self, image: &Bare, more: &str) -> String {
        let (own, config) = match self.docker {
            true => (MANIFEST_TYPES[1], "application/vnd.docker.container.image.v1+json"),
            false => (MANIFEST_TYPES[0], "application/vnd.oci.image.config.v1+json"),
        };
        let colon = if self.indent.is_some() { ": " } else { ":" };
        let mut text = "{".to_owned();
        write!(text, "{}\"schemaVersion\"{colon}2,", self.line(1)).expect("a String takes all");
        if self.typed {
            write!(text, "{}\"mediaType\"{colon}\"{own}\",", self.line(1)).expect("a String takes all");
        }
        write!(text, "{}\"config\"{colon}{},", self.line(1), self.descriptor(1, config, &image.config)).expect("a String takes all");
        let layers: Vec<String> = image.layers.iter().map(|layer| self.line(2) + &self.descriptor(2, self.layer(layer), layer)).collect();
        let end = if layers.is_empty() { String::new() } else { self.line(1) };
        write!(text, "{}\"layers\"{colon}[{}{end}]{more}{}}}", self.line(1), layers.join(","), self.line(0)).expect("a String takes all");
        text
    }

    fn descriptor(self, level: usize, media_type: &str, of: &Descriptor) -> String {
        let colon = if self.indent.is_some() { ": " } else { ":" };
        let line = self.line(level + 1);
        let size = format!("{line}\"size\"{colon}{}", of.size);
        let digest = format!("{line}\"digest\"{colon}\"{}\"", of.digest);
        let (first, second) = if self.size_first { (size, digest) } else { (digest, size) };
        format!("{{{line}\"mediaType\"{colon}\"{media_type}\",{first},{second}{}}}", self.line(level))
    }

    fn layer(self, layer: &Descriptor) -> &str {
        match (self.docker, layer.compression()) {
            (true, Some(Compression::Gzip)) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (true, Some(Compression::Zstd)) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            (true, _) => "application/vnd.docker.image.rootfs.diff.tar",
            (false, _) => &layer.media_type,
        }
    }

    /// What begins a line at this level.
    fn line(self, level: usize) -> String {
        self.indent.map_or(String::new(), |blanks| format!("\n{}", " ".repeat(blanks * level)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Document, Platform};

    fn image(layers: usize) -> Bare {
        let blob = |media_type: &str, text: &str| Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
        };
        let layers = (0..layers).map(|n| blob("application/vnd.oci.image.layer.v1.tar+gzip", &format!("layer {n}"))).collect();
        Bare { config: blob("config", "a config"), layers, platform: Platform::host(), diff_ids: Vec::new() }
    }

    #[test]
    fn the_forms_are_those_of_the_usual_writers() {
        let image = image(1);
        let (config, layer) = (image.config.digest, image.layers[0].digest);
        // As `docker push` writes it.
        let docker = format!(
            "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \"config\": {{\n      \
             \"mediaType\": \"application/vnd.docker.container.image.v1+json\",\n      \"size\": 8,\n      \"digest\": \"{config}\"\n   }},\n   \
             \"layers\": [\n      {{\n         \"mediaType\": \"application/vnd.docker.image.rootfs.diff.tar.gzip\",\n         \"size\": 7,\n         \
             \"digest\": \"{layer}\"\n      }}\n   ]\n}}"
        );
        // As buildkit writes it.
        let buildkit = format!(
            "{{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\",\n  \"config\": {{\n    \
             \"mediaType\": \"application/vnd.oci.image.config.v1+json\",\n    \"digest\": \"{config}\",\n    \"size\": 8\n  }},\n  \
             \"layers\": [\n    {{\n      \"mediaType\": \"application/vnd.oci.image.layer.v1.tar+gzip\",\n      \"digest\": \"{layer}\",\n      \
             \"size\": 7\n    }}\n  ]\n}}"
        );
        // As skopeo writes it.
        let skopeo = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":8}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{layer}","size":7}}]}}"#
        );
        for text in [docker, buildkit, skopeo] {
            let (descriptor, found) = manifest(&image, &Digest::of(text.as_bytes())).unwrap_or_else(|| panic!("nobody writes {text}"));
            assert_eq!(found.bytes(), text.as_bytes());
            let (Document::Manifest(parts), read) = Document::parse(&found, None).unwrap() else { panic!("an index") };
            assert_eq!((read, parts.unproved), (descriptor, false));
        }
        assert!(manifest(&image, &Digest::of(b"another")).is_none());
    }

    #[test]
    fn a_manifest_of_ours_says_that_it_is() {
        for layers in [0, 1, 3] {
            let image = image(layers);
            let (descriptor, text) = own(&image);
            let (Document::Manifest(parts), read) = Document::parse(&text, None).unwrap() else { panic!("an index") };
            assert_eq!((read, parts.unproved, &parts.layers), (descriptor, true, &image.layers));
        }
    }
}
