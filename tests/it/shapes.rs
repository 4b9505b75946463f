//! What a manifest may be besides a usual image: other digests, indexes in indexes, artifacts, content that stands in it.

mod real;
mod referrers;

use std::fs;
use std::path::Path;

use larder::digest::{Algorithm, Digest};
use larder::oci::Descriptor;
use serde_json::{Value, json};

use crate::support::image::{Made, Recipe};
use crate::support::sandbox::Sandbox;
use crate::support::scene::Scene;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn scene() -> Scene {
    Scene::in_sandbox(Sandbox::new())
}

/// An image for one platform whose digests are of this algorithm.
fn named_by(algorithm: Algorithm) -> Made {
    Recipe { platforms: vec!["linux/amd64"], algorithm, ..Recipe::default() }.make()
}

/// A descriptor of some content, which the registry has.
fn served(scene: &Scene, media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": scene.registry.put_blob(content.to_vec()), "size": content.len() })
}

/// Serves a document under a tag; what means it and no other.
fn serve(scene: &Scene, media_type: &str, document: &Value, tag: &str) -> (String, Digest) {
    let digest = scene.registry.put_manifest("team/app", tag, media_type, document.to_string());
    (format!("{}/team/app:{tag}@{digest}", scene.registry.host()), digest)
}

/// An artifact of the kind that tools attach to images.
fn artifact(scene: &Scene) -> Value {
    let config = served(scene, "application/vnd.oci.empty.v1+json", b"{}");
    let layer = served(scene, "application/spdx+json", br#"{"spdxVersion":"SPDX-2.3"}"#);
    let subject = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"an image"), "size": 8 });
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.sbom.v1", "config": config, "layers": [layer],
        "subject": subject,
    })
}

fn code(error: &Value) -> &str {
    error["error"]["code"].as_str().unwrap_or_default()
}

#[test]
fn sha512_is_kept_compared_and_removed_like_sha256() {
    let (scene, made) = (scene(), named_by(Algorithm::Sha512));
    let reference = scene.serve(&made, "team/app", "v1");
    let pulled = scene.pull(&reference, &["--json"]).expect(0).one_json();
    assert_eq!((&pulled["root"], &pulled["pinned"]), (&json!(made.root.digest), &json!(reference)));
    let one = made.platform("linux/amd64");
    assert_eq!(pulled["image_id"], json!(Digest::of(made.bytes(&one.config))), "engines hash the config by SHA-256");
    for (digest, bytes) in &made.blobs {
        assert_eq!(fs::read(scene.blob(digest)).unwrap(), *bytes);
    }
    assert!(!pulled["size"].is_null());
    // A second pull asks for nothing, also not by the tag.
    scene.registry.forget();
    let _ = scene.pull(&reference, &["--offline"]).expect(0);
    assert!(scene.registry.seen().is_empty());

    let _ = scene.sandbox.run(["verify"]).expect(0);
    let layer = scene.blob(&one.layers[0].digest);
    flip(&layer);
    let told = scene.sandbox.run(["verify"]).expect(4);
    assert!(told.stdout.contains(&format!("damaged blob {}", one.layers[0].digest)), "{}", told.stdout);
    let _ = scene.sandbox.run(["verify", "--repair"]).expect(0);
    assert_eq!(fs::read(&layer).unwrap(), made.bytes(&one.layers[0]));

    let _ = scene.sandbox.run(["remove", &reference]).expect(0);
    assert_eq!(fs::read_dir(scene.sandbox.store().join("blobs/sha512")).unwrap().count(), 0);
    let _ = scene.pull(&reference, &[]).expect(0);
    fs::remove_dir_all(scene.sandbox.store().join("pins")).unwrap();
    fs::create_dir(scene.sandbox.store().join("pins")).unwrap();
    let _ = scene.sandbox.run(["prune"]).expect(0);
    assert_eq!(fs::read_dir(scene.sandbox.store().join("blobs/sha512")).unwrap().count(), 0, "what no pin needs goes");
}

#[test]
fn content_that_has_another_sha512_digest_is_refused() {
    let (scene, made) = (scene(), named_by(Algorithm::Sha512));
    let reference = scene.serve(&made, "team/app", "v1");
    let layer = made.platform("linux/amd64").layers[1].digest;
    // Of the same length, and right by SHA-256 of itself.
    let mut other = made.blobs[&layer].clone();
    other[20] ^= 1;
    scene.registry.put_blob_as(layer, other);
    assert_eq!(code(&scene.pull(&reference, &["--json"]).expect(4).one_json()), "mismatch");
    assert!(!scene.blob(&layer).exists());
    let (root, text) = (made.root.digest, b"{}".to_vec());
    scene.registry.put_manifest("team/app", &root.to_string(), INDEX, text);
    let fresh = Scene { registry: scene.registry, sandbox: Sandbox::new() };
    let _ = fresh.pull(&reference, &[]).expect(4);
}

#[test]
fn a_long_tag_and_a_long_digest_have_a_file_all_the_same() {
    let (scene, made) = (scene(), named_by(Algorithm::Sha512));
    let tag = "t".repeat(128);
    let reference = scene.serve(&made, "team/app", &tag);
    let _ = scene.pull(&reference, &[]).expect(0);
    let listed = scene.sandbox.run(["list", "--json"]).expect(0).one_json();
    assert_eq!(listed["pinned"], json!(reference));
    let _ = scene.sandbox.run(["remove", &reference]).expect(0);
}

#[test]
fn sha512_goes_through_archives_and_layouts_and_back() {
    let (scene, made) = (scene(), named_by(Algorithm::Sha512));
    let reference = scene.serve(&made, "team/app", "v1");
    let _ = scene.pull(&reference, &[]).expect(0);
    for (format, file) in [("archive", "a.tar"), ("oci", "b.tar"), ("layout", "folder")] {
        let _ = scene.sandbox.run(["export", &reference, "--format", format, "-o", file]).expect(0);
        let fresh = Sandbox::new();
        let from = scene.sandbox.home().join(file);
        let told = fresh.run(["import", "--json", from.to_str().unwrap()]).expect(0).one_json();
        assert_eq!((&told["root"], &told["proved"]), (&json!(made.root.digest), &json!(true)), "{format}");
        let _ = fresh.run(["verify"]).expect(0);
        for digest in made.blobs.keys() {
            assert!(fresh.store().join(digest.path()).exists(), "{format}: {digest}");
        }
    }
}

#[test]
fn indexes_in_indexes_are_followed_and_kept() {
    let scene = scene();
    let made = Recipe { around: 7, ..Recipe::default() }.make();
    let reference = scene.serve(&made, "team/app", "v1");
    let pulled = scene.pull(&reference, &["--json"]).expect(0).one_json();
    let one = made.platform("linux/amd64");
    assert_eq!((&pulled["root"], &pulled["manifest"]), (&json!(made.root.digest), &json!(one.manifest.digest)));
    for index in made.via.iter().chain([&made.root]) {
        assert!(scene.blob(&index.digest).exists());
    }
    assert!(!scene.blob(&made.platform("linux/arm64").manifest.digest).exists(), "only one platform was asked for");
    scene.registry.forget();
    let _ = scene.pull(&reference, &["--offline"]).expect(0);
    let _ = scene.sandbox.run(["prune"]).expect(0);
    assert!(made.via.iter().all(|index| scene.blob(&index.digest).exists()), "the pin needs what leads to it");
    let _ = scene.sandbox.run(["export", &reference, "--format", "layout", "-o", "folder"]).expect(0);
    let fresh = Sandbox::new();
    let told = fresh.run(["import", "--json", scene.sandbox.home().join("folder").to_str().unwrap()]).expect(0).one_json();
    assert_eq!((&told["root"], &told["manifest"]), (&pulled["root"], &pulled["manifest"]));
    let _ = fresh.run(["verify"]).expect(0);
}

#[test]
fn all_platforms_of_indexes_in_indexes_are_pulled() {
    let scene = scene();
    let made = Recipe { around: 1, ..Recipe::default() }.make();
    let reference = scene.serve(&made, "team/app", "v1");
    let _ = scene.sandbox.run(["pull", "--engine", "none", "--platform", "all", &reference]).expect(0);
    let listed = scene.sandbox.run(["list", "--json"]).expect(0);
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    let told = scene.sandbox.run(["export", &reference, "-o", "a.tar", "--json"]).expect(0);
    assert!(told.stdout.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["lacking_manifests"] == 0), "{}", told.stdout);
}

#[test]
fn indexes_are_not_followed_for_ever() {
    let scene = scene();
    let made = Recipe { around: 8, ..Recipe::default() }.make();
    let reference = scene.serve(&made, "team/app", "v1");
    let told = scene.pull(&reference, &[]).expect(1);
    assert!(told.stderr.contains("more than 8 deep"), "{}", told.stderr);
    // Many of them, each listing as many as one may.
    let wide = |n: usize| {
        let entry = json!({ "mediaType": MANIFEST, "digest": Digest::of(&n.to_le_bytes()), "size": 9 });
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": vec![entry; 4000] })
    };
    let inner: Vec<Value> = (0..3)
        .map(|n| {
            let text = wide(n).to_string();
            let digest = scene.registry.put_manifest("team/app", "inner", INDEX, text.clone());
            json!({ "mediaType": INDEX, "digest": digest, "size": text.len() })
        })
        .collect();
    let (reference, _) = serve(&scene, INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": inner }), "wide");
    let told = scene.sandbox.run(["pull", "--engine", "none", "--platform", "all", &reference]).expect(1);
    assert!(told.stderr.contains("more than the 10000"), "{}", told.stderr);
}

#[test]
fn an_artifact_is_kept_and_shown_and_no_engine_gets_it() {
    let scene = scene();
    let document = artifact(&scene);
    let (reference, digest) = serve(&scene, MANIFEST, &document, "sbom");
    let pulled = scene.pull(&reference, &["--json"]).expect(0).one_json();
    assert_eq!((&pulled["root"], &pulled["artifact"]), (&json!(digest), &json!("application/vnd.example.sbom.v1")));
    for part in [&document["config"], &document["layers"][0]] {
        assert!(scene.blob(&part["digest"].as_str().unwrap().parse().unwrap()).exists());
    }
    let listed = scene.sandbox.run(["list"]).expect(0).stdout;
    assert!(listed.contains("artifact") && listed.contains(&digest.to_string()), "{listed}");
    let shown = scene.sandbox.run(["inspect", "--no-engines", &reference]).expect(0).stdout;
    assert!(shown.contains("application/vnd.example.sbom.v1"), "{shown}");
    let _ = scene.sandbox.run(["verify"]).expect(0);
    let _ = scene.sandbox.run(["prune"]).expect(0);
    scene.registry.forget();
    let _ = scene.pull(&reference, &["--offline"]).expect(0);
    assert!(scene.registry.seen().is_empty());

    let refused = scene.sandbox.run(["export", &reference, "--format", "docker", "-o", "x.tar", "--json"]).expect(2).one_json();
    assert_eq!(code(&refused), "artifact");
    for (format, file) in [("archive", "a.tar"), ("oci", "b.tar"), ("layout", "folder")] {
        let _ = scene.sandbox.run(["export", &reference, "--format", format, "-o", file]).expect(0);
        let fresh = Sandbox::new();
        let told = fresh.run(["import", "--json", scene.sandbox.home().join(file).to_str().unwrap()]).expect(0).one_json();
        assert_eq!((&told["root"], &told["artifact"]), (&json!(digest), &pulled["artifact"]), "{format}");
    }
}

#[test]
fn an_artifact_that_an_index_lists_is_not_taken_for_an_image() {
    let scene = scene();
    let made = Recipe { platforms: vec!["linux/amd64"], index: false, ..Recipe::default() }.make();
    made.serve(&scene.registry, "team/app", "image");
    let text = artifact(&scene).to_string();
    let digest = scene.registry.put_manifest("team/app", "sbom", MANIFEST, text.clone());
    let listed = json!({ "mediaType": MANIFEST, "digest": digest, "size": text.len() });
    let image = json!({ "mediaType": MANIFEST, "digest": made.root.digest, "size": made.root.size, "platform": { "os": "linux", "architecture": "amd64" } });
    let (both, _) = serve(&scene, INDEX, &json!({ "schemaVersion": 2, "manifests": [listed, image] }), "both");
    for platform in ["linux/amd64", "all"] {
        let pulled = scene.sandbox.run(["pull", "--engine", "none", "--json", "--platform", platform, &both]).expect(0).one_json();
        assert_eq!(pulled["manifest"], json!(made.root.digest), "{platform}");
    }
    let (alone, _) = serve(&scene, INDEX, &json!({ "schemaVersion": 2, "manifests": [listed] }), "alone");
    assert_eq!(code(&scene.pull(&alone, &["--json"]).expect(3).one_json()), "no-such-platform");
}

#[test]
fn content_that_stands_in_a_manifest_is_not_fetched() {
    let scene = scene();
    let made = Recipe { platforms: vec!["linux/amd64"], index: false, ..Recipe::default() }.make();
    for (digest, bytes) in &made.blobs {
        scene.registry.put_blob_as(*digest, bytes.clone());
    }
    let with_data = |of: &Descriptor, data: &[u8]| {
        let mut value = json!(of);
        value["data"] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, data).into();
        value
    };
    let one = made.platform("linux/amd64");
    let manifest = |config: Value| {
        let layers: Vec<Value> = one.layers.iter().map(|layer| with_data(layer, made.bytes(layer))).collect();
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
    };
    let (reference, _) = serve(&scene, MANIFEST, &manifest(with_data(&one.config, made.bytes(&one.config))), "inline");
    scene.registry.forget();
    let _ = scene.pull(&reference, &[]).expect(0);
    let asked: Vec<_> = scene.registry.seen().into_iter().map(|seen| seen.path).filter(|path| path.contains("/blobs/")).collect();
    assert!(asked.is_empty(), "{asked:?}");
    let _ = scene.sandbox.run(["verify"]).expect(0);

    let (lying, _) = serve(&scene, MANIFEST, &manifest(with_data(&one.config, b"{}")), "lying");
    let told = scene.pull(&lying, &[]).expect(1);
    assert!(told.stderr.contains("inline data"), "{}", told.stderr);
}

fn flip(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn of_images_for_one_platform_the_first_is_kept_and_the_others_are_named() {
    let scene = scene();
    let made = |revision| Recipe { platforms: vec!["windows/amd64"], index: false, revision, ..Recipe::default() }.make();
    let (first, second) = (made(1), made(2));
    let entry = |of: &Made, version: &str| {
        of.serve(&scene.registry, "team/app", version);
        let platform = json!({ "os": "windows", "architecture": "amd64", "os.version": version });
        json!({ "mediaType": MANIFEST, "digest": of.root.digest, "size": of.root.size, "platform": platform })
    };
    let list =
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&first, "10.0.17763.1"), entry(&second, "10.0.20348.1")] });
    let (reference, _) = serve(&scene, INDEX, &list, "both");
    let output = scene.sandbox.run(["pull", "--engine", "none", "--json", "--platform", "all", &reference]).expect(0);
    assert_eq!(output.one_json()["manifest"], json!(first.root.digest));
    assert!(output.stderr.contains(&format!("{} is for windows/amd64 too", second.root.digest)), "{output}");
    assert!(!scene.blob(&second.root.digest).exists());
    let one = scene.sandbox.run(["pull", "--engine", "none", "--json", "--platform", "windows/amd64", &reference]).expect(0).one_json();
    assert_eq!(one["manifest"], json!(first.root.digest));
}
