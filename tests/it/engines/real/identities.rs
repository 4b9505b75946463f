//! What an engine shows of an image after a load is what was pinned, for every kind of image.

use larder::archive::{Archive, Layers, Parts};
use larder::digest::Algorithm;
use serde_json::json;

use super::*;
use crate::support::image::Media;
use crate::support::image::plain::Plain;

pub(super) const CASES: &[Case] = cases![
    an_index_of_docker,
    a_manifest_of_docker_without_compression,
    an_index_of_oci_with_attestations,
    a_manifest_of_oci_with_mixed_compression,
    an_image_compressed_with_zstd,
    zstd_under_dockers_media_types_is_proved_or_refused,
    an_index_in_indexes,
    an_image_whose_digests_are_sha512,
    an_image_with_a_single_layer,
    an_image_without_layers,
    one_layer_several_times,
    another_platform_of_an_index,
    both_platforms_of_an_index_under_two_names,
    what_another_tool_loaded_is_proved_by_its_content,
    the_same_content_with_another_config_is_another_image,
];

async fn an_index_of_docker(ground: &mut Ground) {
    let made = Recipe { seed: "docker", media: Media::Docker, ..Recipe::default() }.make();
    is_loaded_and_proved(ground, &made, "library/app:docker").await;
}

async fn a_manifest_of_docker_without_compression(ground: &mut Ground) {
    let recipe = Recipe { seed: "plain", media: Media::Docker, compression: Compression::None, index: false, ..Recipe::default() };
    is_loaded_and_proved(ground, &recipe.make(), "localhost:5000/app:plain").await;
}

async fn an_index_of_oci_with_attestations(ground: &mut Ground) {
    let made = Recipe { seed: "oci", attestations: true, ..Recipe::default() }.make();
    is_loaded_and_proved(ground, &made, "r.example.com/a/b/c/app:oci").await;
}

async fn a_manifest_of_oci_with_mixed_compression(ground: &mut Ground) {
    let made = Recipe { seed: "mixed", compression: Compression::Mixed, index: false, ..Recipe::default() }.make();
    is_loaded_and_proved(ground, &made, "r.example.com/app:mixed").await;
}

async fn an_image_compressed_with_zstd(ground: &mut Ground) {
    let made = Recipe { seed: "zstd", compression: Compression::Zstd, attestations: true, ..Recipe::default() }.make();
    is_loaded_and_proved(ground, &made, "app:zstd").await;
}

async fn an_index_in_indexes(ground: &mut Ground) {
    let made = Recipe { seed: "deep", around: 2, ..Recipe::default() }.make();
    let stored = ground.stored(&made, "r.example.com/app:deep");
    loaded_as_told(ground, &stored).await;
    ground.holds(&stored).await;
    ground.is_tidy();
    let shown = ground.engine.inspect(&stored.pin.name).await.unwrap().unwrap();
    let usable = ground.engine.usable(&stored.pin, &shown);
    assert_eq!(ground.real.inspect_id(&usable), Some(ground.held(&stored).1), "{usable}");
}

async fn an_image_whose_digests_are_sha512(ground: &mut Ground) {
    let made = Recipe { seed: "long", algorithm: Algorithm::Sha512, ..Recipe::default() }.make();
    let stored = ground.stored(&made, "r.example.com/app:sha512");
    assert_eq!(stored.pin.root.digest.algorithm(), Algorithm::Sha512);
    assert_eq!(stored.pin.image_id(), Digest::of(made.bytes(&stored.pin.config)));
    match ground.load(&stored).await {
        Ok(_) => ground.holds(&stored).await,
        Err(EngineError::Algorithm { digest, .. }) => {
            assert!(ground.has_containerd() || ground.is_containerd(), "{:?} takes such an image", ground.make);
            assert_eq!(digest, stored.pin.root.digest);
            assert_eq!(ground.standing(&stored).await, Standing::Absent, "what is refused is not named");
        }
        Err(other) => panic!("{other:?}"),
    }
    ground.is_tidy();
}

async fn an_image_with_a_single_layer(ground: &mut Ground) {
    let made = Plain { layers: vec![Plain::files(&[("only", b"one file")])], ..Plain::default() }.make();
    is_loaded_and_proved(ground, &made, "r.example.com/app:single").await;
}

async fn an_image_without_layers(ground: &mut Ground) {
    is_loaded_and_proved(ground, &Plain::default().make(), "r.example.com/app:bare").await;
}

async fn one_layer_several_times(ground: &mut Ground) {
    let (one, two, empty) = (Plain::files(&[("a", b"1")]), Plain::files(&[("a", b"2")]), Plain::files(&[]));
    let layers = vec![one.clone(), empty.clone(), empty.clone(), one.clone(), two, empty, one];
    is_loaded_and_proved(ground, &Plain { layers, ..Plain::default() }.make(), "r.example.com/app:again").await;
}

/// Loads an image and looks at all that larder and the engine's own command line say of it.
async fn is_loaded_and_proved(ground: &Ground, made: &Made, name: &str) {
    let stored = ground.stored(made, name);
    let before = ground.real.count();
    assert_eq!(ground.standing(&stored).await, Standing::Absent);
    loaded_as_told(ground, &stored).await;
    ground.holds(&stored).await;
    assert_eq!(ground.real.count(), before + 1, "one load brings one image");
    ground.is_tidy();

    let shown = ground.engine.inspect(&stored.pin.name).await.unwrap().unwrap();
    assert_eq!((shown.platform.as_ref(), &shown.diff_ids), (Some(&stored.pin.platform), &stored.pin.diff_ids));
    let usable = ground.engine.usable(&stored.pin, &shown);
    assert_eq!(ground.real.inspect_id(&usable), Some(ground.held(&stored).1), "{usable}");
    assert_eq!(usable.contains('@'), !ground.is_classic(), "{usable}");
}

/// Loads an image and compares what is told on the way with what was sent.
async fn loaded_as_told(ground: &Ground, stored: &Stored) {
    let listener = Listener::default();
    let parcel = Parcel::whole(&stored.store, &stored.image, &stored.pin.name);
    let sent = ground.engine.load(parcel, &|event| listener.hear(event)).await.unwrap();
    let told = listener.heard();
    let bytes: u64 = told.iter().map(|event| if let Event::LoadProgress { bytes, .. } = event { *bytes } else { 0 }).sum();
    assert!(matches!(&told[0], Event::LoadStarted { bytes, name, .. } if *bytes == sent && *name == stored.pin.name), "{told:?}");
    assert_eq!(bytes, sent);
    let unpacked = told.iter().any(|event| matches!(event, Event::LoadUnpacking { bytes, of, .. } if bytes == of));
    // What containerd has unpacked for another image it does not unpack again.
    if !ground.is_containerd() {
        assert_eq!(unpacked, ground.is_classic() && !stored.image.layers.is_empty(), "{told:?}");
    }
    let told: Vec<_> = told.iter().filter(|event| !matches!(event, Event::LoadUnpacking { .. })).collect();
    assert!(matches!(told[told.len() - 2..], [Event::LoadSent { .. }, Event::LoadFinished { .. }]), "{told:?}");
}

/// Docker's media types have no name for zstd layers, but builders write one. Engines differ in what they make of it.
async fn zstd_under_dockers_media_types_is_proved_or_refused(ground: &mut Ground) {
    let recipe = Recipe { seed: "odd", media: Media::Docker, compression: Compression::Mixed, ..Recipe::default() };
    let stored = ground.stored(&recipe.make(), "r.example.com/team/app:odd");
    match ground.load(&stored).await {
        Ok(_) => {
            ground.holds(&stored).await;
            let shown = ground.engine.inspect(&stored.pin.name).await.unwrap().unwrap();
            assert_eq!(ground.real.inspect_id(&ground.engine.usable(&stored.pin, &shown)), Some(ground.held(&stored).1));
        }
        Err(EngineError::NotLoaded { .. }) => {
            assert!(ground.has_containerd() || ground.is_containerd(), "{:?} can load such an image", ground.make);
            assert_eq!(ground.standing(&stored).await, Standing::Absent, "what is refused is not named");
        }
        Err(other) => panic!("{other:?}"),
    }
    ground.is_tidy();
}

async fn another_platform_of_an_index(ground: &mut Ground) {
    let made = Recipe { seed: "arm", ..Recipe::default() }.make();
    let stored = stored_in(&ground.store, &made, 1, "r.example.com/team/app:arm");
    assert_eq!(stored.pin.platform.to_string(), "linux/arm64");
    ground.load(&stored).await.unwrap();
    ground.holds(&stored).await;
    let shown = ground.engine.inspect(&stored.pin.name).await.unwrap().unwrap();
    // The containerd image store shows the index, and of an index the machine's own platform, if it has that.
    if !ground.has_containerd() && !ground.is_containerd() {
        assert_eq!(shown.platform, Some(stored.pin.platform));
    }
}

async fn both_platforms_of_an_index_under_two_names(ground: &mut Ground) {
    let made = Recipe { seed: "two", ..Recipe::default() }.make();
    let one = stored_in(&ground.store, &made, 0, "r.example.com/team/app:amd");
    let other = stored_in(&ground.store, &made, 1, "r.example.com/team/app:also-arm");
    for stored in [&one, &other] {
        let _ = ground.sent(stored).await;
    }
    ground.holds(&one).await;
    ground.holds(&other).await;
}

async fn what_another_tool_loaded_is_proved_by_its_content(ground: &mut Ground) {
    let zstd = |revision| Recipe { seed: "rewritten", compression: Compression::Zstd, revision, ..Recipe::default() }.make();
    let name = "r.example.com/team/app:rewritten";
    let (stored, next) = (ground.stored(&zstd(1), name), ground.stored(&zstd(2), name));
    let mut archive = Vec::new();
    let parts = Parts::all(Layers::WithoutZstd);
    Archive::new(&stored.store, &stored.image, &stored.pin.name, &parts).unwrap().write_to(&mut archive).unwrap();
    let loaded = ground.real.load(&archive);
    assert!(loaded.status.success(), "{loaded:?}");
    let shown = ground.engine.inspect(&stored.pin.name).await.unwrap().unwrap();
    let standing = |of: &Stored| prove(&of.pin, Some(&shown), of.store.document(&of.pin.image_id()).unwrap().as_ref());
    match ground.has_containerd() || ground.is_containerd() {
        true => assert_eq!(standing(&stored), Standing::Held(Proof::Content)),
        false => assert_eq!(standing(&stored), ground.held(&stored).0),
    }
    assert_eq!(standing(&next), Standing::Another);
    assert_eq!(ground.engine.usable(&stored.pin, &shown), name);
}

async fn the_same_content_with_another_config_is_another_image(ground: &mut Ground) {
    let layers = vec![Plain::files(&[("a", b"the same")])];
    let labelled = |label| Plain { layers: layers.clone(), run: json!({ "Labels": { "is": label } }) }.make();
    let name = "r.example.com/team/app:labelled";
    let (pinned, spoof) = (ground.stored(&labelled("pinned"), name), ground.stored(&labelled("spoof"), name));
    assert_eq!(pinned.pin.diff_ids, spoof.pin.diff_ids);
    ground.load(&spoof).await.unwrap();
    let checked = Cache { store: &ground.store, upstream: None, tell: &event::silent };
    let checked = checked.check(&pinned.pin.pinned(), &pinned.pin.name, None, &*ground.engine).await.unwrap();
    assert_eq!((checked.standing, checked.mistaken_for.map(|pin| pin.root.digest)), (Standing::Another, Some(spoof.pin.root.digest)));
    let _ = ground.sent(&pinned).await;
}
