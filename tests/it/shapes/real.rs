//! What other tools make of it: they read what larder writes, and larder what they wrote.

use std::process::Command;

use super::*;
use crate::support::engine::{Make, RealEngine};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn skopeo_reads_an_artifact_out_of_a_layout() {
    let scene = scene();
    let (reference, digest) = serve(&scene, MANIFEST, &artifact(&scene), "sbom");
    let _ = scene.pull(&reference, &[]).expect(0);
    let _ = scene.sandbox.run(["export", &reference, "--format", "layout", "-o", "folder"]).expect(0);
    let folder = scene.sandbox.home().join("folder");
    let text = run(Command::new("skopeo").args(["inspect", "--raw", &format!("oci:{}", folder.display())]));
    assert_eq!(Digest::of(text.as_bytes()), digest);
}

#[test]
fn umoci_reads_an_image_behind_indexes() {
    let scene = scene();
    let made = Recipe { platforms: vec!["linux/amd64"], around: 1, ..Recipe::default() }.make();
    let reference = scene.serve(&made, "team/app", "v1");
    let _ = scene.pull(&reference, &[]).expect(0);
    let _ = scene.sandbox.run(["export", &reference, "--format", "layout", "-o", "folder"]).expect(0);
    let folder = scene.sandbox.home().join("folder");
    let name = format!("{}/team/app:v1", scene.registry.host());
    let told = run(Command::new("umoci").args(["stat", "--json", "--image", &format!("{}:{name}", folder.display())]));
    assert!(told.contains("history"), "{told}");
}

#[test]
fn no_engine_is_sent_an_artifact() {
    let mut scene = scene();
    let engine = RealEngine::start(Make::Podman);
    scene.sandbox.set("CONTAINER_HOST", engine.address());
    let (reference, _) = serve(&scene, MANIFEST, &artifact(&scene), "sbom");
    for words in [&["ensure"][..], &["load"], &["ensure", "--dry-run"]] {
        let arguments = [words, &["--engine", "podman", "--json", &reference]].concat();
        let told = scene.sandbox.run(&arguments).expect(1).one_json();
        assert_eq!(code(&told), "artifact", "{told}");
    }
    assert_eq!(engine.count(), 0);
}
