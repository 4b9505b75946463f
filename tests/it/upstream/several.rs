//! Several blobs at once, and no more in a second than is allowed.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use larder::upstream::Settings;

use super::super::support::image::{Compression, Recipe};
use super::super::support::sandbox::Sandbox;
use super::super::support::scene::{PLATFORM, Scene};
use super::super::support::way::{Way, Wrong};
use super::{Door, content, settings};

/// Slow enough for all that is asked for at once to be under way at once.
const NARROW: Wrong = Wrong { delay: Duration::ZERO, each: Some(2_000_000), cut_every: None };

/// The most connections that were open at once while an image of eight layers came.
fn connections(options: &[&str]) -> usize {
    let scene = Scene::in_sandbox(Sandbox::new());
    let made = Recipe { layers: 8, layer_size: 400_000, compression: Compression::None, ..Recipe::default() }.make();
    let _ = scene.serve(&made, "demo/app", "v1");
    let way = Way::to(&scene.registry.host(), NARROW);
    let reference = format!("{}/demo/app@{}", way.host(), made.root.digest);
    let pull = ["pull", "--engine", "none", "--platform", PLATFORM, &reference];
    let _ = scene.sandbox.run(pull.iter().chain(options)).expect(0);
    way.most_connections()
}

#[test]
fn as_many_layers_come_at_once_as_are_asked_for() {
    assert_eq!(["1", "3", "8"].map(|jobs| connections(&["-j", jobs])), [1, 3, 8]);
    assert_eq!(connections(&[]), 5);
}

#[test]
fn a_number_of_layers_that_makes_no_sense_is_refused() {
    let sandbox = Sandbox::new();
    for jobs in ["0", "65", "many"] {
        let refused = sandbox.run(["pull", "--jobs", jobs, "demo/app"]).expect(2);
        assert!(refused.stderr.contains("expected a number from 1 to 64"), "{refused}");
    }
    let refused = sandbox.run(["pull", "--limit-rate", "fast", "demo/app"]).expect(2);
    assert!(refused.stderr.contains("such as 10MB or 512KiB"), "{refused}");
}

#[test]
fn no_more_is_taken_than_the_limit_allows() {
    let door = Door::with(Settings { limit_rate: NonZeroU64::new(4_000_000), ..settings() });
    let blob = door.put(&content(6_000_000));
    let began = Instant::now();
    door.get_whole(&blob);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1300), "{took:?}");
}
