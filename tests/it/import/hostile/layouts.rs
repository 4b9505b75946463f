//! OCI layouts whose parts do not belong together.

use larder::digest::Digest;
use serde_json::{Value, json};

use super::{Case, Files, LAYER, TAG, gzip};
use crate::support::tarball::{archive, config};

/// An OCI layout of one image, and a way to change it before it is written.
#[derive(Clone)]
pub(super) struct Layout {
    config: Value,
    layer: Vec<u8>,
    manifest: Value,
    /// What the index lists, over the manifest; `MANIFEST` stands for its digest.
    index: Option<Value>,
    mark: &'static str,
    list: Option<Value>,
}

pub(super) fn layout() -> Layout {
    let config = config(&[LAYER]);
    let text = config.to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(text.as_bytes()), "size": text.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(LAYER), "size": LAYER.len() }],
    });
    Layout { config, layer: LAYER.to_vec(), manifest, index: None, mark: r#"{"imageLayoutVersion":"1.0.0"}"#, list: None }
}

impl Layout {
    fn entry(&self) -> Value {
        let text = self.manifest.to_string();
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(text.as_bytes()), "size": text.len(),
            "annotations": { "io.containerd.image.name": TAG },
        })
    }

    fn files(&self) -> Files {
        let index = self.index.clone().unwrap_or_else(|| json!({ "schemaVersion": 2, "manifests": [self.entry()] }));
        let blobs = [self.config.to_string().into_bytes(), self.manifest.to_string().into_bytes(), self.layer.clone()];
        let mut files: Files = blobs.into_iter().map(|blob| (format!("blobs/sha256/{}", Digest::of(&blob).hex()), blob)).collect();
        files.push(("oci-layout".to_owned(), self.mark.into()));
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files.extend(self.list.iter().map(|list| ("manifest.json".to_owned(), list.to_string().into_bytes())));
        files
    }

    pub(super) fn archive(&self) -> Vec<u8> {
        archive(&self.files())
    }

    fn without(&self, which: &[u8]) -> Vec<u8> {
        let mut files = self.files();
        files.retain(|(_, content)| content != which);
        archive(&files)
    }
}

fn changed_layout(change: impl FnOnce(&mut Layout)) -> Vec<u8> {
    let mut layout = layout();
    change(&mut layout);
    layout.archive()
}

/// Layouts whose parts do not belong together, or that have two lists which say different things.
pub(super) fn bad_layouts() -> Vec<Case> {
    let base = layout();
    let with_entries =
        |entries: Vec<Value>| changed_layout(|layout| layout.index = Some(json!({ "schemaVersion": 2, "manifests": entries })));
    let entry = |change: fn(&mut Value)| {
        let mut entry = layout().entry();
        change(&mut entry);
        entry
    };
    let hex = Digest::of(LAYER).hex();
    let path = format!("blobs/sha256/{hex}");
    let renamed = |name: String| {
        let mut files = layout().files();
        files.iter_mut().find(|(own, _)| *own == path).unwrap().0 = name;
        archive(&files)
    };
    let other_config = config(&[b"another layer"]);
    let (config, manifest) = (base.config.to_string().into_bytes(), base.manifest.to_string().into_bytes());
    let config_path = format!("blobs/sha256/{}", Digest::of(&config).hex());
    let with_list = |tag: &str, config: &str, layer: &str| {
        let list = json!([{ "Config": config, "RepoTags": [tag], "Layers": [layer] }]);
        let mut files = Layout { list: Some(list), ..layout() }.files();
        files.push(("other.json".to_owned(), other_config.to_string().into_bytes()));
        files.push(("other.tar".to_owned(), b"another layer".to_vec()));
        files.push(("layer.tar.gz".to_owned(), gzip(LAYER)));
        archive(&files)
    };
    let index_of = |platform: Value| {
        let (text, mut layout) = (layout().manifest.to_string(), layout());
        let inner = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(text.as_bytes()), "size": text.len(), "platform": platform }],
        })
        .to_string();
        layout.index = Some(json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": Digest::of(inner.as_bytes()), "size": inner.len(),
        }] }));
        let mut files = layout.files();
        files.push((format!("blobs/sha256/{}", Digest::of(inner.as_bytes()).hex()), inner.into_bytes()));
        archive(&files)
    };
    vec![
        ("a blob that is not its name", changed_file(&path, |blob| blob[0] ^= 1), "is not what its name says"),
        ("a document that is not its name", changed_file(&config_path, |blob| blob.push(b' ')), "is not what its name says"),
        ("a blob in capitals", renamed(format!("blobs/sha256/{}", hex.to_uppercase())), "not named after a SHA-256 digest"),
        ("a blob with a short name", renamed(format!("blobs/sha256/{}", &hex[1..])), "not named after a SHA-256 digest"),
        ("no mark", base.without(base.mark.as_bytes()), "without an oci-layout"),
        (
            "a later version",
            changed_layout(|layout| layout.mark = r#"{"imageLayoutVersion":"2.0.0"}"#),
            "without an oci-layout of version 1.0.0",
        ),
        (
            "a mark that says two things",
            changed_layout(|layout| layout.mark = r#"{"imageLayoutVersion":"1.0.0","ImageLayoutVersion":"2"}"#),
            "without an oci-layout",
        ),
        ("nothing listed", with_entries(Vec::new()), "lists no image"),
        (
            "a list of another schema",
            changed_layout(|layout| layout.index = Some(json!({ "schemaVersion": 1, "manifests": [layout.entry()] }))),
            "not a container image",
        ),
        ("no manifest", base.without(&manifest), "is not complete"),
        ("no config", base.without(&config), "is not complete"),
        ("no layer", base.without(LAYER), "is not complete"),
        ("a wrong size of the manifest", with_entries(vec![entry(|entry| entry["size"] = json!(7))]), "is said to have 7"),
        ("a negative size", with_entries(vec![entry(|entry| entry["size"] = json!(-7))]), "cannot be read"),
        ("a wrong size of the layer", changed_layout(|layout| layout.manifest["layers"][0]["size"] = json!(7)), "is said to have 7"),
        ("a wrong size of the config", changed_layout(|layout| layout.manifest["config"]["size"] = json!(7)), "is said to have 7"),
        (
            "another digest algorithm",
            with_entries(vec![entry(|entry| entry["digest"] = json!(format!("sha384:{}", "0".repeat(96))))]),
            "cannot be read",
        ),
        (
            "a digest that is a path",
            with_entries(vec![entry(|entry| entry["digest"] = json!("sha256:../../../../etc/passwd"))]),
            "cannot be read",
        ),
        ("inline content that is another", with_entries(vec![entry(|entry| entry["data"] = json!("AAAA"))]), "inline data"),
        (
            "an index that is a manifest",
            with_entries(vec![entry(|entry| entry["mediaType"] = json!("application/vnd.oci.image.index.v1+json"))]),
            "not what its media type says",
        ),
        ("index and manifest in one", changed_layout(|layout| layout.manifest["manifests"] = json!([])), "not what its media type says"),
        ("schema 1", changed_layout(|layout| layout.manifest = json!({ "schemaVersion": 1, "fsLayers": [] })), "schema 1"),
        (
            "a layer that lies elsewhere",
            changed_layout(|layout| layout.manifest["layers"][0]["urls"] = json!(["https://e.example.com"])),
            "foreign",
        ),
        (
            "a layer that is none",
            changed_layout(|layout| layout.manifest["layers"][0]["mediaType"] = json!("text/plain")),
            "not a container image",
        ),
        (
            "more layers than diff IDs",
            changed_layout(|layout| layout.manifest["layers"] = json!([layout.manifest["layers"][0], layout.manifest["layers"][0]])),
            "1 diff IDs for 2 layers",
        ),
        ("a layer that its config does not name", changed_layout(wrong_layer), "layer 1 of the image"),
        (
            "an index for another platform",
            index_of(json!({ "os": "linux", "architecture": "s390x" })),
            "another platform than its index says",
        ),
        ("two images of one name", two_of_one_name(), "two images in the file are called"),
        ("lists with different images under one name", with_list(TAG, "other.json", "other.tar"), "do not agree about"),
        ("lists with different images", with_list("r.example.com/other:v1", "other.json", "other.tar"), "do not agree about"),
        ("lists with different layers", with_list(TAG, &config_path, "layer.tar.gz"), "do not agree about"),
        ("a list without an image in it", changed_layout(|layout| layout.list = Some(json!([]))), "lists no image"),
    ]
}

fn changed_file(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut files = layout().files();
    change(&mut files.iter_mut().find(|(own, _)| own == name).unwrap().1);
    archive(&files)
}

fn wrong_layer(layout: &mut Layout) {
    layout.layer = b"another layer".to_vec();
    layout.manifest["layers"][0]["digest"] = json!(Digest::of(&layout.layer));
    layout.manifest["layers"][0]["size"] = json!(layout.layer.len());
}

fn two_of_one_name() -> Vec<u8> {
    let one = layout();
    let mut two = layout();
    two.config["author"] = json!("somebody else");
    let text = two.config.to_string();
    two.manifest["config"]["digest"] = json!(Digest::of(text.as_bytes()));
    two.manifest["config"]["size"] = json!(text.len());
    let both = Layout { index: Some(json!({ "schemaVersion": 2, "manifests": [one.entry(), two.entry()] })), ..one };
    let mut files = both.files();
    files.extend(two.files().into_iter().take(2));
    archive(&files)
}
