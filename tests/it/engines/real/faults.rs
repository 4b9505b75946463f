//! What goes wrong names nothing, is told, and is mended by the next run.

use larder::archive::ArchiveError;

use super::*;

pub(super) const CASES: &[Case] = cases![
    damage_on_the_disk_names_nothing,
    damage_leaves_the_name_where_it_was,
    two_loads_of_one_image_at_once,
    two_images_on_one_base_at_once,
    an_engine_that_dies_has_loaded_nothing,
    an_engine_that_dies_leaves_the_name_where_it_was,
    an_engine_that_hangs_is_not_waited_for,
    an_engine_that_was_restarted_still_knows_what_it_has,
];

async fn damage_on_the_disk_names_nothing(ground: &mut Ground) {
    for pick in 0..4 {
        // A store of its own, which is not whole afterwards.
        let stored = stored(&Recipe { seed: "damaged", ..Recipe::default() }.make(), "r.example.com/damaged/app:1");
        let image = &stored.image;
        let blob = [&image.layers[2], &image.config, &image.manifest, &image.root][pick].clone();
        let before = ground.real.count();
        damage(&stored, &blob);
        let error = ground.load(&stored).await.unwrap_err();
        assert_eq!(error.damaged(), Some(blob.digest), "{error:?}");
        assert_eq!((ground.standing(&stored).await, ground.real.count()), (Standing::Absent, before));

        let error = ground.load(&stored).await.unwrap_err();
        let EngineError::Archive(why) = error else { panic!("{error:?}") };
        let ArchiveError::Incomplete { layers, missing_layers, missing_documents, missing_bytes, .. } = *why else { panic!("{why:?}") };
        let missing = if pick == 0 { (1, 0) } else { (0, 1) };
        assert_eq!((layers, missing_bytes, (missing_layers, missing_documents)), (8, blob.size, missing));
    }
    ground.is_tidy();
}

async fn damage_leaves_the_name_where_it_was(ground: &mut Ground) {
    let name = "r.example.com/damaged/kept:1";
    let held = ground.stored(&Recipe { seed: "damaged", ..Recipe::default() }.make(), name);
    let _ = ground.sent(&held).await;
    let next = stored(&Recipe { seed: "damaged", revision: 2, ..Recipe::default() }.make(), name);
    damage(&next, &next.image.layers[3].clone());
    assert!(ground.load(&next).await.unwrap_err().damaged().is_some());
    ground.holds(&held).await;
    ground.is_tidy();
}

async fn two_loads_of_one_image_at_once(ground: &mut Ground) {
    let stored = ground.stored(&Recipe { seed: "at once", ..Recipe::default() }.make(), "r.example.com/once/app:1");
    let before = ground.real.count();
    let (one, two) = tokio::join!(ground.ensure(&stored), ground.ensure(&stored));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    ground.holds(&stored).await;
    assert_eq!(ground.real.count(), before + 1);
    ground.is_tidy();
}

async fn two_images_on_one_base_at_once(ground: &mut Ground) {
    let revision = |revision| Recipe { seed: "side by side", revision, ..Recipe::default() }.make();
    let one = ground.stored(&revision(1), "r.example.com/side/one:1");
    let two = ground.stored(&revision(2), "r.example.com/side/two:1");
    let done = tokio::join!(ground.ensure(&one), ground.ensure(&two));
    assert!(done.0.is_ok() && done.1.is_ok(), "{done:?}");
    ground.holds(&one).await;
    ground.holds(&two).await;
    ground.is_tidy();
}

fn large(seed: &'static str) -> Made {
    Recipe { seed, layers: 3, layer_size: 10_000_000, compression: Compression::None, ..Recipe::default() }.make()
}

/// Kills the engine when it was sent so many bytes of an image.
async fn killed_after(ground: &mut Ground, limit: u64, stored: &Stored) -> EngineError {
    let dying = Mutex::new((0, &mut ground.real));
    let tell = |event| {
        let mut dying = dying.lock().unwrap();
        if let Event::LoadProgress { bytes, .. } = event {
            dying.0 += bytes;
            if dying.0 > limit {
                dying.1.kill();
            }
        }
    };
    ground.engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &tell).await.unwrap_err()
}

async fn an_engine_that_dies_has_loaded_nothing(ground: &mut Ground) {
    let stored = ground.stored(&large("dies"), "r.example.com/dies/app:1");
    let error = killed_after(ground, 10_000_000, &stored).await;
    assert!(matches!(&error, EngineError::LoadBroken { sent, size, .. } if *sent > 10_000_000 && sent < size), "{error:?}");
    let error = ground.engine.inspect(&stored.pin.name).await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");

    ground.real.restart();
    assert_eq!(ground.standing(&stored).await, Standing::Absent);
    let _ = ground.sent(&stored).await;
    ground.is_tidy();
}

async fn an_engine_that_dies_leaves_the_name_where_it_was(ground: &mut Ground) {
    let name = "r.example.com/dies/kept:1";
    let held = ground.stored(&Recipe { seed: "survives", ..Recipe::default() }.make(), name);
    let next = ground.stored(&large("dies again"), name);
    let _ = ground.sent(&held).await;
    let _ = killed_after(ground, 1_000_000, &next).await;
    ground.real.restart();
    ground.holds(&held).await;
    let _ = ground.sent(&next).await;
    ground.is_tidy();
}

async fn an_engine_that_hangs_is_not_waited_for(ground: &mut Ground) {
    let stored = ground.stored(&Recipe { seed: "hangs", ..Recipe::default() }.make(), "r.example.com/hangs/app:1");
    let engine = engine::connect(&choice(&ground.real), &at(&ground.real.address(), Duration::from_secs(1))).await.unwrap();
    ground.real.freeze(true);
    let error = engine.inspect(&stored.pin.name).await.unwrap_err();
    ground.real.freeze(false);
    assert!(matches!(error, EngineError::TimedOut { .. }), "{error:?}");
    assert_eq!(ground.standing(&stored).await, Standing::Absent);
}

async fn an_engine_that_was_restarted_still_knows_what_it_has(ground: &mut Ground) {
    let revision = |revision| Recipe { seed: "restarted", revision, ..Recipe::default() }.make();
    let name = "r.example.com/restarted/app:1";
    let (old, new) = (ground.stored(&revision(1), name), ground.stored(&revision(2), name));
    let _ = ground.sent(&old).await;
    ground.real.restart();
    ground.holds(&old).await;
    let sent = ground.sent(&new).await;
    assert!(sent.contains(&new.image.layers[3].digest) && sent.len() < 8, "{sent:?}");
}
