//! Containers of a loaded image start, without a network, under every name that larder says works.

use super::*;
use crate::support::image::plain::Plain;

pub(super) const CASES: &[Case] = cases![
    an_image_runs_by_its_name,
    an_image_runs_by_its_name_and_digest_where_the_engine_keeps_it,
    an_image_runs_whose_base_was_there,
    an_image_runs_after_it_took_the_place_of_another,
];

fn greeting(text: &str) -> Made {
    Plain { layers: vec![Plain::cat(), Plain::files(&[("greeting", text.as_bytes())])], ..Plain::default() }.make()
}

#[track_caller]
fn greets(ground: &Ground, image: &str, text: &str) {
    let ran = ground.real.run(image, &["/bin/cat", "/greeting"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), text, "{image}: {ran:?}");
}

async fn an_image_runs_by_its_name(ground: &mut Ground) {
    let stored = ground.stored(&greeting("hello"), "r.example.com/runs/app:1");
    let _ = ground.sent(&stored).await;
    greets(ground, "r.example.com/runs/app:1", "hello");
}

async fn an_image_runs_by_its_name_and_digest_where_the_engine_keeps_it(ground: &mut Ground) {
    let stored = ground.stored(&greeting("pinned"), "r.example.com/runs/pinned:1");
    let usable = ground.ensure(&stored).await.unwrap().usable;
    greets(ground, &usable, "pinned");
    let pinned = stored.pin.pinned().to_string();
    assert_eq!(usable.contains(&stored.pin.root.digest.to_string()), !ground.is_classic(), "{usable}");
    if ground.is_classic() {
        // The limit is docker's: it never learns of a digest by a load.
        assert!(!ground.real.run(&pinned, &["/bin/cat", "/greeting"]).status.success());
    }
}

async fn an_image_runs_whose_base_was_there(ground: &mut Ground) {
    let (one, two) =
        (ground.stored(&greeting("one"), "r.example.com/runs/one:1"), ground.stored(&greeting("two"), "r.example.com/runs/two:1"));
    let _ = ground.sent(&one).await;
    assert_eq!(ground.sent(&two).await, [two.image.layers[1].digest]);
    ground.real.remove("r.example.com/runs/one:1");
    greets(ground, "r.example.com/runs/two:1", "two");
}

async fn an_image_runs_after_it_took_the_place_of_another(ground: &mut Ground) {
    let name = "r.example.com/runs/moved:1";
    let (old, new) = (ground.stored(&greeting("old"), name), ground.stored(&greeting("new"), name));
    let _ = ground.sent(&old).await;
    greets(ground, name, "old");
    let usable = ground.ensure(&new).await.unwrap().usable;
    greets(ground, name, "new");
    greets(ground, &usable, "new");
}
