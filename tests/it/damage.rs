//! A thousand damages, each of another blob: each is refused on its way out, found by `verify`, and mended by fetching
//! exactly what was bad.

mod real;

use crate::support::damage::{Dice, Judged, MANY, Victims};
use crate::support::sandbox::Sandbox;
use crate::support::scene;

#[test]
fn every_damage_ends_what_leaves_the_store() {
    let victims = Victims::in_sandbox(Sandbox::new().in_memory());
    assert_eq!(victims.let_through(MANY, &mut Dice::new(2)), Vec::<String>::new());
    assert_eq!(scene::verified(&victims.scene.sandbox.store()), victims.blobs.len());
}

#[test]
fn every_damage_is_found_and_mended_and_nothing_else_is_fetched() {
    let (victims, mut dice) = (Victims::in_sandbox(Sandbox::new().in_memory()), Dice::new(3));
    for (many, find_first) in [(MANY, true), (100, false)] {
        let Judged { found, mended, asked, asked_besides, wrong } = victims.find_and_mend(many, &mut dice, find_first);
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!((found, mended, asked, asked_besides), (many, many, many, 0));
    }
    assert_eq!(scene::verified(&victims.scene.sandbox.store()), victims.blobs.len());
}
