//! What durability costs: the exact number of times that a pull waits for the disk.

use std::process::Command;

use crate::support::image::Recipe;
use crate::support::sandbox::Sandbox;
use crate::support::scene::{self, PLATFORM, Scene};

/// Traces a pull; how often it asked for something to be on the disk.
fn syncs(scene: &Scene, reference: &str) -> usize {
    let trace = scene.sandbox.path().join("trace");
    let larder = scene.sandbox.command();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,sync", "-o"]).arg(&trace).arg(larder.get_program());
    strace.args(["pull", "--engine", "none", "--platform", PLATFORM, reference]).env_clear();
    strace.envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?))));
    crate::support::run(&mut strace);
    let trace = std::fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| !line.contains("resumed")).count()
}

#[test]
fn a_pull_waits_for_the_disk_as_often_as_it_must_and_no_more() {
    let scene = Scene::in_sandbox(Sandbox::new());
    let recipe = |layers, revision| Recipe { layers, revision, ..Recipe::default() }.make();
    // The store and the folders of this name are made once.
    let first = recipe(1, 1);
    let _ = scene.pull(&scene.serve(&first, "demo/app", "v1"), &[]).expect(0);
    let mut there: std::collections::HashSet<_> = first.blobs.keys().copied().collect();
    for (layers, tag) in [(1, "v2"), (10, "v3"), (100, "v4")] {
        let made = recipe(layers, layers as u32 + 1);
        let reference = scene.serve(&made, "demo/app", tag);
        let blobs = scene::blobs(&made, made.platform(PLATFORM)).iter().filter(|blob| there.insert(blob.digest)).count();
        let syncs = syncs(&scene, &reference);
        // Two for a layer, the file and its name; one for each of the three documents, whose names go with the pin's three: the names of
        // all blobs, the pin's file, and its name.
        assert_eq!(syncs, 2 * (blobs - 3) + 3 + 3, "{blobs} blobs");
    }
    // What another process may have named a moment ago is brought to the disk before it is said to be there.
    assert_eq!(self::syncs(&scene, &scene.serve(&first, "demo/app", "v1")), 1);
}
