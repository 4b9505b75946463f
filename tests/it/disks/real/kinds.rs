//! File systems of every kind: a pull that is killed goes on, damage is found and mended, and what is removed is gone.

use std::path::Path;

use super::{Pantry, made};
use crate::support::damage::{Dice, Way, damage};
use crate::support::mount::Mount;
use crate::support::registry::Fault;
use crate::support::scene::{self, PLATFORM};

fn a_store_works(pantry: &Pantry) {
    let layer = pantry.made.platform(PLATFORM).layers.iter().max_by_key(|layer| layer.size).unwrap();
    let (scene, half) = (&pantry.scene, layer.size / 2);
    scene.registry.fault(layer.digest, Fault::StallOnceAfter(half));
    let mut killed = scene.start_pull(&pantry.wanted, &[]);
    scene::until(&mut killed, || std::fs::metadata(scene.part(&layer.digest)).is_ok_and(|m| m.len() == half));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let running: Vec<_> = (0..4).map(|_| scene.start_pull(&pantry.wanted, &[])).collect();
    assert!(running.into_iter().all(|mut pull| pull.wait().unwrap().success()));
    assert_eq!(scene.gets(&layer.digest), 2, "the second went on where the first was killed");
    pantry.what_was_kept_is_whole();

    let (path, mut dice) = (scene.blob(&layer.digest), Dice::new(1));
    damage(&mut dice, Way::Flip, &path, Path::new(""));
    let _ = pantry.run(&["verify"]).expect(4);
    let _ = pantry.run(&["verify", "--repair"]).expect(0);
    pantry.what_was_kept_is_whole();
    let _ = pantry.run(&["remove", &pantry.wanted]).expect(0);
    let _ = pantry.run(&["prune"]).expect(0);
    assert_eq!(pantry.run(&["list", "--json"]).expect(0).json().len(), 1);
    pantry.what_was_kept_is_whole();
}

#[test]
fn a_store_works_in_memory() {
    a_store_works(&Pantry::on(|scene| Mount::tmpfs(&scene.sandbox.store(), "size=8m")));
}

#[test]
fn a_store_works_on_an_overlay() {
    a_store_works(&Pantry::on(|scene| {
        let path = scene.sandbox.path();
        let lower = path.join("lower");
        std::fs::create_dir(&lower).unwrap();
        Mount::overlay(&lower, &path.join("scratch"), &scene.sandbox.store())
    }));
}

#[test]
fn a_store_works_on_ext4() {
    a_store_works(&made(0));
}

#[test]
fn a_store_works_on_xfs() {
    a_store_works(&made(1));
}

#[test]
fn a_store_works_on_btrfs() {
    a_store_works(&made(2));
}
