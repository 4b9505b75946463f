//! containerd by itself: what its own tools find after a load, and what becomes of loads that do not come to their end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::archive::ArchiveError;
use serde_json::json;

use super::*;
use crate::support::image::OnePlatform;
use crate::support::image::plain::Plain;

/// An image that prints a greeting.
fn runnable() -> Made {
    Plain { layers: vec![Plain::cat(), Plain::files(&[("greeting", b"hello")])], ..Plain::default() }.make()
}

/// Asks a containerd for images in one of its namespaces.
async fn in_namespace(socket: &Path, namespace: &str) -> Box<dyn Engine> {
    let address = format!("unix://{}", socket.display());
    let environment = Environment { containerd_namespace: Some(namespace.to_owned()), ..at(&address, Duration::from_secs(30)) };
    engine::connect(&Choice::Containerd, &environment).await.unwrap()
}

fn by_digest(pin: &Pin) -> String {
    format!("{}@{}", pin.name.repository(), pin.root.digest)
}

/// What `ctr images check` says of a name: that all is there and unpacked.
fn is_complete(real: &RealEngine, name: &str) -> bool {
    let checked = real.ctr("default", &["images", "check", &format!("name=={name}")]);
    checked.lines().any(|line| line.starts_with(name) && line.contains(" complete (") && line.trim_end().ends_with("true"))
}

/// Lets containerd remove at once whatever nothing refers to.
fn collect_garbage(real: &RealEngine) {
    real.ctr("default", &["leases", "create", "--id", "none"]);
    real.ctr("default", &["leases", "delete", "--sync", "none"]);
}

/// A load that is given up once so many bytes were taken, as if it had been killed.
async fn given_up_after(bytes: u64, engine: &dyn Engine, stored: &Stored) {
    let (taken, enough) = (AtomicU64::new(0), tokio::sync::Notify::new());
    let tell = |event| {
        if let Event::LoadProgress { bytes: more, .. } = event
            && taken.fetch_add(more, Ordering::Relaxed) + more > bytes
        {
            enough.notify_one();
        }
    };
    tokio::select! {
        done = engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &tell) => panic!("it came to an end: {done:?}"),
        () = enough.notified() => {}
    }
}

async fn its_own_tools_find_all_that_was_loaded(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let stored = stored(&Recipe { attestations: true, ..Recipe::default() }.make(), NAME);
    let listener = Listener::default();
    engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &|event| listener.hear(event)).await.unwrap();
    let unpacked = listener.heard().iter().filter(|event| matches!(event, Event::LoadUnpacking { .. })).count();
    assert_eq!(unpacked, stored.image.layers.len(), "it is told of every layer");
    // What is only held by the lease of the load would go here.
    collect_garbage(&real);
    for name in [NAME.to_owned(), by_digest(&stored.pin)] {
        assert_eq!(real.inspect_id(&name), Some(stored.pin.root.digest.to_string()), "{name}");
        assert!(is_complete(&real, &name), "{name}");
    }
    assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
    assert_eq!(real.ctr("default", &["leases", "list", "--quiet"]), "");

    let content = real.ctr("default", &["content", "list"]);
    for (layer, diff_id) in stored.image.layers.iter().zip(&stored.image.diff_ids) {
        let line = content.lines().find(|line| line.starts_with(&layer.digest.to_string())).expect("every layer is there");
        assert!(line.contains(&format!("containerd.io/uncompressed={diff_id}")), "{line}");
        assert!(line.contains("containerd.io/distribution.source.r.example.com=team/app"), "{line}");
    }
    assert_eq!(content.lines().skip(1).count(), stored.image.blobs().len(), "nothing else came: {content}");
}

async fn a_removed_image_leaves_nothing(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let stored = stored(&Recipe::default().make(), NAME);
    load(&*engine, &stored).await.unwrap();
    real.remove(NAME);
    real.remove(&by_digest(&stored.pin));
    collect_garbage(&real);
    assert_eq!(real.ctr("default", &["content", "list", "--quiet"]), "");
    assert_eq!(real.ctr("default", &["snapshots", "list"]).lines().skip(1).count(), 0);
}

async fn what_is_there_is_not_sent_again(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let large = Recipe { layer_size: 1_000_000, compression: Compression::None, ..Recipe::default() };
    let (old, new) = (stored(&large.make(), NAME), stored(&Recipe { revision: 2, ..large.clone() }.make(), "r.example.com/team/app:v2"));
    load(&*engine, &old).await.unwrap();
    let there: HashSet<_> = old.image.blobs().into_iter().map(|blob| blob.digest).collect();
    let lacking: u64 = new.image.blobs().iter().filter(|blob| !there.contains(&blob.digest)).map(|blob| blob.size).sum();
    assert!(lacking < new.image.size() / 2);
    let lacks = engine.lacks(&new.image, None, &[]).await.unwrap();
    let documents: u64 = [&new.image.root, &new.image.manifest, &new.image.config].iter().map(|document| document.size).sum();
    assert_eq!(lacks.bytes() + documents, lacking, "it knows beforehand: {lacks:?}");
    assert_eq!(load(&*engine, &new).await.unwrap(), lacking);

    // The same image under another name, and in another namespace, costs nothing.
    let again = stored(&large.make(), "localhost/again:1");
    assert_eq!(load(&*engine, &again).await.unwrap(), 0);
    let other = in_namespace(&real.socket(), "other").await;
    assert_eq!(standing(&*other, &old.pin).await, Standing::Absent);
    assert_eq!(load(&*other, &old).await.unwrap(), 0, "content is shared between namespaces");
    assert_eq!(standing(&*other, &old.pin).await, identity(make, &old.pin).0);
    let names = real.ctr("other", &["images", "list", "--quiet"]);
    assert_eq!(names.lines().collect::<Vec<_>>(), [NAME, &by_digest(&old.pin)], "no other namespace is touched");
}

async fn a_broken_load_is_continued(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let large = Recipe { layers: 3, layer_size: 12_000_000, compression: Compression::None, ..Recipe::default() };
    let stored = stored(&large.make(), NAME);
    // In the midst of the second layer.
    given_up_after(18_000_000, &*engine, &stored).await;
    assert_eq!((standing(&*engine, &stored.pin).await, real.count()), (Standing::Absent, 0));
    collect_garbage(&real);
    let sent = load(&*engine, &stored).await.unwrap();
    assert!(sent <= stored.image.size() - 18_000_000, "{sent} of {}", stored.image.size());
    assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
    assert!(is_complete(&real, NAME));
}

async fn a_damaged_blob_is_never_there(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let large = Recipe { layers: 3, layer_size: 4_000_000, compression: Compression::None, ..Recipe::default() }.make();
    let bad = stored(&large, NAME);
    let layer = bad.image.layers[1].clone();
    damage(&bad, &layer);
    let error = load(&*engine, &bad).await.unwrap_err();
    assert_eq!(error.damaged(), Some(layer.digest), "{error:?}");
    let content = real.ctr("default", &["content", "list", "--quiet"]);
    assert!(!content.contains(&layer.digest.to_string()), "{content}");
    assert_eq!(real.ctr("default", &["content", "active"]).lines().skip(1).count(), 0, "what came of it is thrown away");
    assert_eq!(real.count(), 0);
    let good = stored(&large, NAME);
    load(&*engine, &good).await.unwrap();
    assert_eq!(standing(&*engine, &good.pin).await, identity(make, &good.pin).0);
}

/// A part that holds other bytes than it should, as no load of larder's leaves one.
async fn a_part_that_is_wrong_is_thrown_away(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let stored = stored(&Recipe { layer_size: 100_000, ..Recipe::default() }.make(), NAME);
    let reference = format!("larder-{}", stored.image.layers[0].digest);
    real.ingest(&reference, stored.image.layers[0].size, b"something else");
    let active = real.ctr("default", &["content", "active"]);
    assert!(active.contains(&reference), "{active}");
    load(&*engine, &stored).await.unwrap();
    assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
    assert!(is_complete(&real, NAME));
}

async fn layers_that_are_not_what_the_config_says_are_not_named(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let mut made = Recipe { index: false, ..Recipe::default() }.make();
    let mut changed = |of: &Descriptor, change: &dyn Fn(&mut serde_json::Value)| {
        let mut json: serde_json::Value = serde_json::from_slice(made.bytes(of)).unwrap();
        change(&mut json);
        let bytes = json.to_string().into_bytes();
        let changed = Descriptor { digest: Digest::of(&bytes), size: bytes.len() as u64, ..of.clone() };
        made.blobs.insert(changed.digest, bytes);
        changed
    };
    let one = Recipe { index: false, ..Recipe::default() }.make().platforms.remove(0);
    let config = changed(&one.config, &|config| config["rootfs"]["diff_ids"][1] = json!(Digest::of(b"another")));
    let manifest = changed(&one.manifest, &|manifest| manifest["config"] = json!(config));
    made.root = manifest.clone();
    made.platforms = vec![OnePlatform { config, manifest, ..one }];
    let stored = stored(&made, NAME);
    let error = load(&*engine, &stored).await.unwrap_err();
    let layer = stored.image.layers[1].digest;
    let EngineError::Archive(why) = &error else { panic!("{error:?}") };
    assert!(matches!(&**why, ArchiveError::DiffId { digest, .. } if *digest == layer), "{why:?}");
    assert_eq!((standing(&*engine, &stored.pin).await, real.count()), (Standing::Absent, 0));
    assert_eq!(real.ctr("default", &["snapshots", "list"]).lines().skip(1).count(), 0);
}

async fn two_platforms_of_one_index_live_side_by_side(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let made = Recipe::default().make();
    let mut turned = made.clone();
    turned.platforms.reverse();
    let (amd64, arm64) = (stored(&made, NAME), stored(&turned, NAME));
    for of in [&amd64, &arm64] {
        assert_ne!(standing(&*engine, &of.pin).await, identity(make, &of.pin).0);
        load(&*engine, of).await.unwrap();
    }
    collect_garbage(&real);
    for of in [&amd64, &arm64] {
        assert_eq!(standing(&*engine, &of.pin).await, identity(make, &of.pin).0, "{}", of.pin.platform);
    }
}

async fn loads_at_once_are_all_proved(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let large = Recipe { layer_size: 2_000_000, compression: Compression::None, ..Recipe::default() };
    let (one, two) = (stored(&large.make(), NAME), stored(&Recipe { revision: 2, ..large.clone() }.make(), "r.example.com/team/app:v2"));
    let (a, b, c) = tokio::join!(load(&*engine, &one), load(&*engine, &one), load(&*engine, &two));
    let sent = a.unwrap() + b.unwrap() + c.unwrap();
    for of in [&one, &two] {
        assert_eq!(standing(&*engine, &of.pin).await, identity(make, &of.pin).0);
        assert!(is_complete(&real, &of.pin.name.to_string()));
    }
    assert!(sent < one.image.size() + two.image.size(), "what two loads need is sent once: {sent}");
}

async fn containers_start_by_tag_and_by_digest(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let stored = stored(&runnable(), NAME);
    load(&*engine, &stored).await.unwrap();
    for name in [NAME.to_owned(), by_digest(&stored.pin)] {
        let ran = real.run(&name, &["/bin/cat", "/greeting"]);
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "hello", "{ran:?}");
    }
}

/// Killed at any point, containerd has the name and all that it points to, or neither; and the next load is whole.
async fn killed_at_any_point_it_names_nothing_half(make: Make) {
    let large = Recipe { layers: 3, layer_size: 3_000_000, compression: Compression::None, ..Recipe::default() };
    let mut real = RealEngine::start(make);
    let engine = connected(&real).await;
    for (revision, point) in (1..).zip([0, 1, 3_500_000, 6_500_000, 9_000_000, u64::MAX]) {
        let stored = stored(&Recipe { revision, ..large.clone() }.make(), &format!("r.example.com/team/app:v{revision}"));
        let dying = Mutex::new((0, &mut real));
        let tell = |event| {
            let mut dying = dying.lock().unwrap();
            match event {
                Event::LoadProgress { bytes, .. } => dying.0 += bytes,
                // All was sent, and is being unpacked.
                Event::LoadSent { .. } => dying.0 = u64::MAX,
                _ => {}
            }
            if dying.0 >= point {
                dying.1.kill();
            }
        };
        let error = engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &tell).await.unwrap_err();
        assert!(matches!(error, EngineError::LoadBroken { .. }), "{point}: {error:?}");
        real.restart();
        assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent, "{point}");
        load(&*engine, &stored).await.unwrap();
        assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0, "{point}");
        assert!(is_complete(&real, &stored.pin.name.to_string()), "{point}");
    }
}

/// containerd gives snapshots numbers, and one that is killed between making a folder and writing its number down uses the number again.
async fn folders_that_a_killed_containerd_left_are_no_hindrance(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    for number in 1..100 {
        fs::create_dir_all(real.folder().join(format!("data/io.containerd.snapshotter.v1.overlayfs/snapshots/{number}/fs"))).unwrap();
    }
    let stored = stored(&Recipe::default().make(), NAME);
    load(&*engine, &stored).await.unwrap();
    assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
    assert!(is_complete(&real, NAME));
}

async fn another_snapshotter_unpacks_where_it_was_chosen(make: Make) {
    let real = RealEngine::start(make);
    let with = async |snapshotter: &str| {
        let environment = at(&real.address(), Duration::from_secs(30));
        let environment = Environment { containerd_snapshotter: Some(snapshotter.to_owned()), ..environment };
        engine::connect(&Choice::Containerd, &environment).await.unwrap()
    };
    let (usual, native) = (connected(&real).await, with("native").await);
    let stored = stored(&Recipe::default().make(), NAME);
    load(&*native, &stored).await.unwrap();
    assert_eq!(standing(&*native, &stored.pin).await, identity(make, &stored.pin).0);
    assert_eq!(standing(&*usual, &stored.pin).await, Standing::Incomplete, "what is not unpacked cannot be run");
    assert_eq!(load(&*usual, &stored).await.unwrap(), 0);
    // By the namespace's own label as well.
    real.ctr("default", &["namespaces", "label", "default", "containerd.io/defaults/snapshotter=native"]);
    assert_eq!(connected(&real).await.image_store().await.unwrap(), "native");

    let error = load(&*with("none").await, &stored).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::Snapshotter { snapshotter, usable, .. } if snapshotter == "none" && usable.iter().any(|name| name == "native")),
        "{error:?}"
    );
}

/// Docker finds in its own containerd what was loaded there without it.
async fn dockers_own_containerd_takes_images_for_docker(make: Make) {
    let real = RealEngine::start(make);
    let socket = real.folder().join("exec/containerd/containerd.sock");
    let (engine, docker) = (in_namespace(&socket, "moby").await, connected(&real).await);
    let stored = stored(&runnable(), NAME);
    load(&*engine, &stored).await.unwrap();
    for asked in [&engine, &docker] {
        assert_eq!(standing(&**asked, &stored.pin).await, identity(make, &stored.pin).0);
    }
    assert_eq!(real.count(), 1);
    let names = real.inspect(NAME, "{{json .RepoTags}} {{json .RepoDigests}}");
    assert_eq!(names, Some(format!("[\"{NAME}\"] [\"{}\"]", by_digest(&stored.pin))));
    for name in [NAME.to_owned(), by_digest(&stored.pin), stored.pin.pinned().to_string()] {
        let ran = real.run(&name, &["/bin/cat", "/greeting"]);
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "hello", "{ran:?}");
    }
}

macro_rules! on {
    (@$engine:ident $make:expr, $($test:ident),*) => {
        mod $engine {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                if !left_out($make) {
                    super::$test($make).await;
                }
            })*
        }
    };
    ($($test:ident),*) => {
        on!(@debian_12 Make::Containerd, $($test),*);
        on!(@trixie Make::ContainerdOf("trixie"), $($test),*);
        on!(@sid Make::ContainerdOf("sid"), $($test),*);
    };
}
on!(
    its_own_tools_find_all_that_was_loaded,
    a_removed_image_leaves_nothing,
    what_is_there_is_not_sent_again,
    a_broken_load_is_continued,
    a_damaged_blob_is_never_there,
    a_part_that_is_wrong_is_thrown_away,
    layers_that_are_not_what_the_config_says_are_not_named,
    two_platforms_of_one_index_live_side_by_side,
    loads_at_once_are_all_proved,
    containers_start_by_tag_and_by_digest,
    killed_at_any_point_it_names_nothing_half,
    folders_that_a_killed_containerd_left_are_no_hindrance,
    another_snapshotter_unpacks_where_it_was_chosen
);
on!(@trixie_docker Make::DockerWithContainerdOf("trixie"), dockers_own_containerd_takes_images_for_docker);
on!(@sid_docker Make::DockerWithContainerdOf("sid"), dockers_own_containerd_takes_images_for_docker);
