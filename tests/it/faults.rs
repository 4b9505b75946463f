//! What the command does when a registry is at fault: each fault in its own words and exit code, or survived; and a
//! store in which everything hashes to its name.

mod flaky;
mod real;

use std::path::Path;
use std::time::Duration;

use larder::digest::Digest;
use larder::oci::Descriptor;

use crate::support::image::{Compression, Made, Media, Recipe};
use crate::support::registry::{Fault, Registry};
use crate::support::sandbox::{Output, Sandbox};

const REPOSITORY: &str = "demo/app";

/// A registry that serves an image under `v1`, and a sandbox to pull it in.
struct Scene {
    registry: Registry,
    sandbox: Sandbox,
    made: Made,
}

impl Scene {
    fn of(recipe: Recipe) -> Scene {
        let (registry, made) = (Registry::start(), recipe.make());
        serve(&registry, &made, "v1");
        Scene { registry, sandbox: Sandbox::new(), made }
    }

    fn new() -> Scene {
        Scene::of(Recipe::default())
    }

    fn tagged(&self) -> String {
        format!("{}/{REPOSITORY}:v1", self.registry.host())
    }

    fn pinned(&self) -> String {
        format!("{}@{}", self.tagged(), self.made.root.digest)
    }

    fn pull(&self, more: &[&str]) -> Output {
        let pinned = self.pinned();
        let arguments = ["pull", "--engine", "none", "--platform", "linux/amd64", "--stall", "1", "--tries", "3", &pinned];
        self.sandbox.run(arguments.iter().chain(more))
    }

    /// The largest layer of the image that is pulled.
    fn layer(&self) -> &Descriptor {
        self.made.platform("linux/amd64").layers.iter().max_by_key(|l| l.size).unwrap()
    }
}

fn serve(registry: &Registry, made: &Made, tag: &str) {
    for (digest, bytes) in &made.blobs {
        assert_eq!(registry.put_blob(bytes.clone()), *digest);
    }
    for document in &made.documents {
        let name = if document.digest == made.root.digest { tag.to_owned() } else { document.digest.to_string() };
        registry.put_manifest(REPOSITORY, &name, &document.media_type, made.bytes(document).to_vec());
    }
}

/// Every file with a digest for a name has that digest; returns how many there are.
fn verified(store: &Path) -> usize {
    let Ok(blobs) = std::fs::read_dir(store.join("blobs/sha256")) else { return 0 };
    let mut count = 0;
    for blob in blobs {
        let blob = blob.unwrap();
        let name = blob.file_name().into_string().unwrap();
        assert_eq!(Digest::of(&std::fs::read(blob.path()).unwrap()).hex(), name, "a blob that is not what its name says");
        count += 1;
    }
    count
}

/// Pulls with a fault, and again without: the first ends as it should, in its time, and leaves nothing wrong.
#[track_caller]
fn refused(fault: Fault, at: impl Fn(&Scene) -> String, code: i32, says: &[&str]) {
    let scene = Scene::new();
    scene.registry.fault(at(&scene), fault.clone());
    let output = scene.pull(&[]).expect(code);
    for text in says {
        assert!(output.stderr.contains(text), "{fault:?} should say `{text}`:\n{output}");
    }
    assert!(output.stdout.is_empty(), "{output}");
    assert!(output.took < Duration::from_secs(40), "{fault:?} took too long:\n{output}");
    verified(&scene.sandbox.store());
    assert!(scene.sandbox.run(["list"]).expect(0).stdout.is_empty(), "nothing is pinned after {fault:?}");
    scene.registry.heal();
    let _ = scene.pull(&[]).expect(0);
    assert!(verified(&scene.sandbox.store()) > 0);
}

/// Pulls with a fault that a retry survives.
#[track_caller]
fn survived(fault: Fault, times: usize, at: impl Fn(&Scene) -> String) -> Output {
    let scene = Scene::new();
    scene.registry.fault_times(at(&scene), fault, times);
    let output = scene.pull(&[]).expect(0);
    verified(&scene.sandbox.store());
    output
}

fn layer(scene: &Scene) -> String {
    format!("/blobs/{}", scene.layer().digest)
}

fn config(scene: &Scene) -> String {
    format!("/blobs/{}", scene.made.platform("linux/amd64").config.digest)
}

fn root(scene: &Scene) -> String {
    format!("/manifests/{}", scene.made.root.digest)
}

fn manifest(scene: &Scene) -> String {
    format!("/manifests/{}", scene.made.platform("linux/amd64").manifest.digest)
}

#[test]
fn wrong_bytes_are_never_kept() {
    refused(
        Fault::FlipByte,
        layer,
        4,
        &["a layer of ", "failed verification and was thrown away", "expected: sha256:", "received: sha256:", "hint: run it again"],
    );
    refused(Fault::FlipByte, config, 4, &["a config of ", "failed verification"]);
    refused(Fault::FlipByte, root, 4, &["failed verification"]);
    refused(Fault::FlipByte, manifest, 4, &["failed verification"]);
    refused(Fault::Longer(1), layer, 4, &["more than"]);
    refused(Fault::Endless, layer, 4, &["more than"]);
    refused(Fault::Endless, root, 1, &["larger than 4194304 bytes"]);
    refused(Fault::WrongLength(-1), layer, 4, &["announces"]);
    refused(Fault::WrongLength(1), layer, 4, &["announces"]);
    refused(Fault::Encoded("gzip"), layer, 1, &["encoding `gzip`"]);
}

#[test]
fn wrong_bytes_once_are_fetched_again() {
    let output = survived(Fault::FlipByte, 1, layer);
    assert!(output.stderr.contains("did not verify; fetching it again from its beginning"), "{output}");
}

#[test]
fn headers_prove_nothing() {
    for at in [root, manifest, layer] {
        let _ = survived(Fault::WrongDigestHeader, 99, at);
        let _ = survived(Fault::NoDigestHeader, 99, at);
        let _ = survived(Fault::Chunked, 99, at);
    }
    refused(Fault::ContentType("application/vnd.oci.image.manifest.v1+json"), root, 1, &["is not what its media type says"]);
}

#[test]
fn what_is_cut_goes_on() {
    let _ = survived(Fault::CutOnceAfter(1000), 99, layer);
    let _ = survived(Fault::StallOnceAfter(1000), 99, layer);
    let output = survived(Fault::Status(503, Some("1"), 1), 1, layer);
    assert!(output.stderr.contains("trying again in"), "{output}");
    let _ = survived(Fault::Status(429, Some("1"), 1), 1, root);
    refused(Fault::CutAfter(0), layer, 1, &["a layer of "]);
    refused(Fault::Silent, root, 1, &["gave nothing"]);
}

#[test]
fn what_a_killed_run_left_is_continued() {
    let scene = Scene::of(Recipe { layer_size: 3_000_000, compression: Compression::None, ..Recipe::default() });
    scene.registry.fault(layer(&scene), Fault::StallAfter(1_000_000));
    let pinned = scene.pinned();
    let mut command = scene.sandbox.command();
    command.args(["pull", "--engine", "none", "--platform", "linux/amd64", &pinned]);
    let mut running = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let part = scene.sandbox.store().join(format!("ingest/{}.part", scene.layer().digest.hex()));
    let came = || std::fs::metadata(&part).is_ok_and(|m| m.len() >= 1_000_000);
    while !came() {
        assert!(running.try_wait().unwrap().is_none(), "the pull waits for the rest");
        std::thread::yield_now();
    }
    running.kill().unwrap();
    running.wait().unwrap();
    scene.registry.heal();
    let output = scene.pull(&[]).expect(0);
    assert!(output.stderr.contains("resuming"), "{output}");
    let seen = scene.registry.seen();
    let resumed = seen.iter().find(|s| s.path.contains(&scene.layer().digest.to_string()) && s.status == 206).unwrap();
    assert!(resumed.header("range").starts_with("bytes=1"), "{:?}", resumed.header("range"));
    verified(&scene.sandbox.store());
}

#[test]
fn refusals_are_told_apart() {
    refused(Fault::Missing, root, 6, &["could not be had from", "MANIFEST_UNKNOWN"]);
    refused(Fault::Missing, layer, 6, &["a layer of", "there is no blob"]);
    refused(Fault::Status(401, None, 99), root, 6, &["credentials"]);
    refused(Fault::Status(403, None, 99), root, 6, &["is denied"]);
    refused(Fault::Status(429, None, 99), root, 6, &["was asked too often"]);
    refused(Fault::Status(503, None, 99), root, 1, &["status 503"]);
    refused(Fault::Status(418, None, 99), root, 1, &["status 418"]);
}

#[test]
fn a_registry_that_is_gone_is_said_to_be_gone() {
    let scene = Scene::new();
    let (pinned, sandbox) = (scene.pinned(), scene.sandbox);
    drop(scene.registry);
    let output = sandbox.run(["pull", "--engine", "none", "--tries", "2", &pinned]).expect(1);
    assert!(output.stderr.contains("refused"), "{output}");
}

#[test]
fn what_is_there_asks_the_network_nothing() {
    let scene = Scene::new();
    let first = scene.pull(&["--json"]).expect(0).one_json();
    assert_eq!(first["status"], "pulled");
    let asked = scene.registry.seen().len();
    let second = scene.pull(&["--json"]).expect(0).one_json();
    assert_eq!((&second["status"], &second["fetched_bytes"]), (&"present".into(), &0.into()));
    assert_eq!(scene.registry.seen().len(), asked, "no request was made");
    let offline = scene.pull(&["--offline"]).expect(0);
    assert!(offline.stdout.starts_with(&scene.pinned()), "{offline}");
    let tagged = scene.sandbox.run(["pull", "--offline", "--engine", "none", "--platform", "linux/amd64", &scene.tagged()]).expect(0);
    assert!(tagged.stdout.starts_with(&scene.pinned()), "the newest pin answers to the bare tag: {tagged}");
}

#[test]
fn each_blob_is_asked_for_once() {
    let scene = Scene::of(Recipe { layers: 12, ..Recipe::default() });
    let _ = scene.pull(&[]).expect(0);
    for blob in scene.made.platform("linux/amd64").layers.iter() {
        assert_eq!(scene.registry.count(&blob.digest.to_string()), 1, "{}", blob.digest);
    }
    let other = scene.made.platform("linux/arm64");
    assert_eq!(scene.registry.count(&other.config.digest.to_string()), 0, "another platform's config was asked for");
}

#[test]
fn platforms_are_chosen_or_named() {
    let scene = Scene::of(Recipe { platforms: vec!["linux/arm64"], ..Recipe::default() });
    let output = scene.pull(&[]).expect(3);
    let shown = output.stderr.replace(&scene.pinned(), "REF");
    insta::assert_snapshot!(shown, @r"
    error: REF is not offered for linux/amd64
      on offer: linux/arm64
      hint: choose one of these with --platform
    ");
    let pinned = scene.pinned();
    let taken = scene.sandbox.run(["pull", "--json", "--platform", "linux/arm64", &pinned]).expect(0).one_json();
    assert_eq!(taken["platform"], "linux/arm64");

    let scene = Scene::of(Recipe { attestations: true, media: Media::Docker, ..Recipe::default() });
    let pinned = scene.pinned();
    let all = scene.sandbox.run(["pull", "--json", "--platform", "all", &pinned]).expect(0).json();
    let platforms: Vec<_> = all.iter().map(|p| p["platform"].as_str().unwrap().to_owned()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!(all[0]["root"], all[1]["root"]);
}

#[test]
fn a_single_manifest_for_another_platform_is_refused() {
    let scene = Scene::of(Recipe { platforms: vec!["linux/arm64"], index: false, ..Recipe::default() });
    let output = scene.pull(&[]).expect(3);
    assert!(output.stderr.contains("is not offered for linux/amd64") && output.stderr.contains("linux/arm64"), "{output}");
    assert_eq!(scene.registry.count(&scene.layer_of("linux/arm64")), 0, "no layer was fetched");
}

impl Scene {
    fn layer_of(&self, platform: &str) -> String {
        self.made.platform(platform).layers[0].digest.to_string()
    }
}

#[test]
fn every_kind_of_image_is_pulled() {
    for media in [Media::Oci, Media::Docker] {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None, Compression::Mixed] {
            for index in [true, false] {
                let scene = Scene::of(Recipe { media, compression, index, attestations: index, ..Recipe::default() });
                let pulled = scene.pull(&["--json"]).expect(0).one_json();
                let one = scene.made.platform("linux/amd64");
                assert_eq!(pulled["image_id"], one.config.digest.to_string());
                assert_eq!(pulled["manifest"], one.manifest.digest.to_string());
                assert_eq!(pulled["root"], scene.made.root.digest.to_string());
            }
        }
    }
}

#[test]
fn unpinned_references_are_resolved_refused_or_taken_instead() {
    let scene = Scene::new();
    let tagged = scene.tagged();
    let pull = |more: &[&str]| scene.sandbox.run(["pull", "--engine", "none", "--platform", "linux/amd64"].iter().chain(more));
    let refused = pull(&["--pinned-only", &tagged]).expect(1);
    assert!(refused.stderr.contains("has no digest, and only pinned references are allowed"), "{refused}");
    let resolved = pull(&[&tagged]).expect(0);
    assert!(resolved.stdout.starts_with(&scene.pinned()), "{resolved}");

    let gone = format!("{tagged}@{}", Digest::of(b"gone"));
    let unmet = pull(&[&gone]).expect(6);
    assert!(unmet.stderr.contains("could not be had from") && unmet.stdout.is_empty(), "{unmet}");
    let instead = pull(&["--json", "--allow-unpinned", &gone]).expect(0);
    assert!(instead.stderr.contains("THE PIN WAS NOT MET"), "{instead}");
    assert_eq!(
        (&instead.one_json()["pin_not_met"], &instead.one_json()["root"]),
        (&true.into(), &scene.made.root.digest.to_string().into())
    );
}

#[test]
fn another_source_may_have_it() {
    let scene = Scene::new();
    let empty = Registry::start();
    let wanted = format!("{}/{REPOSITORY}:v1@{}", empty.host(), scene.made.root.digest);
    let from = format!("{}/{REPOSITORY}", scene.registry.host());
    let pulled = scene
        .sandbox
        .run(["pull", "--engine", "none", "--platform", "linux/amd64", "--json", "--from", &from, &wanted])
        .expect(0)
        .one_json();
    assert_eq!((pulled["pinned"].as_str(), pulled["from"].as_str()), (Some(wanted.as_str()), Some(from.as_str())));
}

#[test]
fn a_tag_that_moved_is_a_fact() {
    let scene = Scene::new();
    serve(&scene.registry, &Recipe { revision: 2, ..Recipe::default() }.make(), "v1");
    let output = scene.pull(&["--json"]).expect(0);
    assert_eq!(output.one_json()["tag_now"]["state"], "moved");
    assert!(output.stderr.contains("has moved to sha256:"), "{output}");
    assert_eq!(output.one_json()["root"], scene.made.root.digest.to_string());
}

#[test]
fn pins_of_one_tag_lie_side_by_side() {
    let scene = Scene::new();
    let _ = scene.pull(&[]).expect(0);
    let newer = Recipe { revision: 2, ..Recipe::default() }.make();
    serve(&scene.registry, &newer, "v1");
    let tagged = scene.tagged();
    let _ = scene.sandbox.run(["pull", "--platform", "linux/amd64", &tagged]).expect(0);
    let listed = scene.sandbox.run(["list", "--json"]).expect(0).json();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["root"], newer.root.digest.to_string(), "the newest comes first");
    assert!(listed.iter().all(|pin| pin["shared_bytes"].as_u64() > Some(0)), "{listed:?}");
    let ambiguous = scene.sandbox.run(["remove", &tagged]).expect(1);
    assert!(ambiguous.stderr.contains("has 2 digests in the store"), "{ambiguous}");
    let removed = scene.sandbox.run(["remove", &scene.pinned()]).expect(0);
    assert!(removed.stderr.contains("freed"), "{removed}");
    let rest = scene.sandbox.run(["inspect", "--no-engines", "--json", &tagged]).expect(0).one_json();
    assert_eq!((&rest["status"], &rest["root"]), (&"present".into(), &newer.root.digest.to_string().into()));
    let offline =
        scene.sandbox.run(["pull", "--offline", "--platform", "linux/amd64", &format!("{tagged}@{}", newer.root.digest)]).expect(0);
    assert!(offline.stdout.contains("all of it was in the store"), "{offline}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let scene = Scene::new();
    let output = scene.pull(&["--dry-run", "--json"]).expect(0);
    assert_eq!(output.one_json()["status"], "would-pull");
    assert!(output.one_json()["fetch_bytes"].as_u64() > Some(1000));
    assert_eq!(verified(&scene.sandbox.store()), 0);
    assert_eq!(scene.registry.count(&layer(&scene)), 0);
}

#[test]
fn damage_is_found_and_mended() {
    let scene = Scene::new();
    let _ = scene.pull(&[]).expect(0);
    let manifest = scene.made.platform("linux/amd64").manifest.digest;
    let path = scene.sandbox.store().join("blobs/sha256").join(manifest.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let offline = scene.pull(&["--offline"]).expect(4);
    assert!(offline.stderr.contains("stored blob is damaged") && offline.stderr.contains("damaged/"), "{offline}");
    let _ = scene.pull(&[]).expect(0);
    assert!(verified(&scene.sandbox.store()) > 0);
}
