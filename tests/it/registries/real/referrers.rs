//! What refers to an image, in Debian's registry: it knows no interface for that, so that the list stands under a tag.

use larder::digest::{Algorithm, Digest};
use larder::oci::{INDEX_TYPES, MANIFEST_TYPES, referrers_tag};
use serde_json::{Value, json};

use super::push::Push;
use super::{images, pull};
use crate::support::image::Recipe;
use crate::support::sandbox::Sandbox;
use crate::support::servers::Server;

fn named(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content), "size": content.len() })
}

#[test]
fn what_a_tag_lists_is_kept_and_shown_with_the_registry_gone() {
    let images = images();
    let registry = Server::registry(&images.path(), &json!({}));
    let push = Push::to(&registry.host(), "team/app");
    let subject: Digest = images.digest.parse().unwrap();
    let (config, layer) = (b"{}", br#"{"spdxVersion":"SPDX-2.3"}"#);
    for content in [&config[..], &layer[..]] {
        assert_eq!(push.blob(&Digest::of(content), content), 201);
    }
    let sbom = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPES[0], "artifactType": "application/vnd.example.sbom.v1",
        "config": named("application/vnd.oci.empty.v1+json", config), "layers": [named("application/spdx+json", layer)],
        "subject": { "mediaType": INDEX_TYPES[0], "digest": subject, "size": 1 },
    })
    .to_string();
    assert_eq!(push.manifest(&Digest::of(sbom.as_bytes()).to_string(), MANIFEST_TYPES[0], sbom.as_bytes()), 201);
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [named(MANIFEST_TYPES[0], sbom.as_bytes())] });
    assert_eq!(push.manifest(&referrers_tag(&subject), INDEX_TYPES[0], list.to_string().as_bytes()), 201);

    let sandbox = Sandbox::new();
    let reference = images.pinned(&registry.host());
    let pulled = pull(&sandbox, &reference, &["--referrers"]).expect(0).one_json();
    assert_eq!(pulled["referrers"][0]["digest"], json!(Digest::of(sbom.as_bytes())), "{pulled}");
    let log = registry.log();
    assert!(log.contains(&format!("/v2/team/app/referrers/{subject}")) && log.contains(&referrers_tag(&subject)), "{log}");
    drop(registry);
    let shown = sandbox.run(["inspect", "--no-engines", "--json", &reference]).expect(0).one_json();
    assert_eq!((&shown["status"], &shown["referrers"]), (&json!("present"), &pulled["referrers"]));
    let _ = pull(&sandbox, &reference, &["--referrers", "--offline"]).expect(0);
    let _ = sandbox.run(["verify"]).expect(0);
}

#[test]
fn sha512_names_content_and_no_manifest_there() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Server::registry(folder.path(), &json!({}));
    let push = Push::to(&registry.host(), "team/app");
    let made = Recipe { platforms: vec!["linux/amd64"], index: false, algorithm: Algorithm::Sha512, ..Recipe::default() }.make();
    let one = made.platform("linux/amd64");
    for of in one.layers.iter().chain([&one.config]) {
        assert_eq!(push.blob(&of.digest, made.bytes(of)), 201);
    }
    let manifest = made.bytes(&made.root);
    assert_eq!(push.manifest(&made.root.digest.to_string(), &made.root.media_type, manifest), 400, "it computes SHA-256");
    assert_eq!(push.manifest("v1", &made.root.media_type, manifest), 201);

    let by_sha256 = format!("{}/team/app:v1@{}", registry.host(), Digest::of(manifest));
    let sandbox = Sandbox::new();
    let pulled = pull(&sandbox, &by_sha256, &[]).expect(0).one_json();
    assert_eq!(pulled["image_id"], json!(Digest::of(made.bytes(&one.config))));
    for of in one.layers.iter().chain([&one.config]) {
        assert!(sandbox.store().join(of.digest.path()).exists());
    }
    let by_sha512 = format!("{}/team/app:v1@{}", registry.host(), made.root.digest);
    let told = pull(&Sandbox::new(), &by_sha512, &[]).expect(6).one_json();
    assert_eq!(told["error"]["code"], "no-manifest");
}
