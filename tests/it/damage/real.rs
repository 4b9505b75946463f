//! A damaged image does not get into an engine, however it is damaged.

use crate::support::damage::{Dice, WAYS, damage};
use crate::support::engine::{Make, RealEngine};
use crate::support::image::Recipe;
use crate::support::sandbox::Sandbox;
use crate::support::scene::{self, PLATFORM, Scene};

fn no_damage_gets_into(make: Make) {
    let engine = RealEngine::start(make);
    let mut sandbox = Sandbox::new();
    sandbox.set("DOCKER_HOST", engine.address()).set("CONTAINER_HOST", engine.address());
    sandbox.set("LARDER_ENGINE", if make.is_docker() { "docker" } else { "podman" });
    let scene = Scene::in_sandbox(sandbox);
    let made = Recipe { layers: 2, ..Recipe::default() }.make();
    let reference = scene.serve(&made, "demo/app", "v1");
    let _ = scene.pull(&reference, &[]).expect(0);
    let blobs = scene::blobs(&made, made.platform(PLATFORM));
    let mut dice = Dice::new(4);
    for (n, way) in WAYS.iter().cycle().take(2 * blobs.len()).enumerate() {
        let (blob, other) = (&blobs[n % blobs.len()], &blobs[(n + 1) % blobs.len()]);
        let (path, other) = (scene.blob(&blob.digest), scene.blob(&other.digest));
        let damaged = damage(&mut dice, *way, &path, &other);
        let refused = scene.sandbox.run(["load", "--json", &reference]).expect(4);
        assert_eq!(refused.one_json()["error"]["code"], "damaged", "{way:?} of {}: {refused}", blob.media_type);
        for text in [&reference[..], "stored blob is damaged: sha256:", "damaged/", "hint: "] {
            assert!(refused.stderr.contains(text), "{way:?} of {} should say `{text}`: {refused}", blob.media_type);
        }
        assert_eq!(engine.count(), 0, "{way:?} of {}", blob.media_type);
        damaged.undo();
    }
    // With a network, the one command mends it by itself.
    let _ = damage(&mut dice, WAYS[0], &scene.blob(&blobs[3].digest), &scene.blob(&blobs[4].digest));
    scene.registry.forget();
    let _ = scene.sandbox.run(["ensure", &reference]).expect(0);
    let asked = scene.registry.seen().iter().filter(|seen| seen.method == "GET").count();
    assert_eq!((scene.gets(&blobs[3].digest), asked, engine.count()), (1, 1, 1));
    let _ = scene.sandbox.run(["verify"]).expect(0);
}

#[test]
fn no_damage_gets_into_docker() {
    no_damage_gets_into(Make::Docker);
}

#[test]
fn no_damage_gets_into_podman() {
    no_damage_gets_into(Make::Podman);
}
