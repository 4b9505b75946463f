//! Real engines, of several releases: loads are proved, and what goes wrong names nothing.

mod by_itself;

use std::sync::Mutex;

use larder::archive::{Archive, ArchiveError, Layers, Parts};
use larder::digest::Digest;
use larder::engine::proof::{Proof, Standing, prove};
use larder::event::Event;
use larder::oci::Platform;
use larder::pin::Identity;
use serde_json::json;

use super::*;
use crate::support::engine::{Make, RealEngine};
use crate::support::image::{Media, OnePlatform};

const NAME: &str = "r.example.com/team/app:v1";

/// What kind of identity an engine shows, and which digest that is for an image.
fn identity(make: Make, pin: &Pin) -> (Standing, String) {
    let (identity, digest) = match make {
        Make::DockerWithContainerdOf(_) | Make::Containerd | Make::ContainerdOf(_) => (Identity::Root, pin.root.digest),
        _ => (Identity::ImageId, pin.image_id()),
    };
    (Standing::Held(Proof::Identity(identity)), digest.to_string())
}

async fn connected(to: &RealEngine) -> Box<dyn Engine> {
    engine::connect(&choice(to), &at(&to.address(), Duration::from_secs(30))).await.unwrap()
}

/// How an engine is chosen, where all of them are looked for at its address.
fn choice(of: &RealEngine) -> Choice {
    if of.make().is_containerd() { Choice::Containerd } else { Choice::Docker }
}

async fn standing(engine: &dyn Engine, pin: &Pin) -> Standing {
    let shown = engine.inspect(&pin.name).await.unwrap();
    prove(pin, shown.as_ref(), None)
}

async fn load(engine: &dyn Engine, stored: &Stored) -> Result<u64, EngineError> {
    engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &event::silent).await
}

/// Changes one byte in the middle of a blob on the disk.
fn damage(stored: &Stored, blob: &Descriptor) {
    use std::os::unix::fs::PermissionsExt;
    let path = stored.store.root().join("blobs/sha256").join(blob.digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
}

async fn every_kind_of_image_is_loaded_and_proved(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let recipes = [
        (Media::Docker, Compression::Gzip, true),
        (Media::Docker, Compression::None, false),
        (Media::Oci, Compression::Gzip, true),
        (Media::Oci, Compression::Mixed, false),
        (Media::Oci, Compression::Zstd, true),
    ];
    for (number, (media, compression, index)) in (1..).zip(recipes) {
        let made = Recipe { media, compression, index, attestations: index, revision: number, ..Recipe::default() }.make();
        let name = if index { format!("library/app:v{number}") } else { format!("localhost:5000/app:v{number}") };
        let stored = stored(&made, &name);
        assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
        loaded_as_told(make, &*engine, &stored).await;
        let (held, id) = identity(make, &stored.pin);
        assert_eq!(standing(&*engine, &stored.pin).await, held);
        assert_eq!(real.inspect_id(&stored.pin.name.to_string()), Some(id.clone()));
        assert_eq!(real.count(), number as usize, "one load brings one image");

        let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
        assert_eq!((shown.platform.as_ref(), &shown.diff_ids), (Some(&stored.pin.platform), &stored.pin.diff_ids));
        let usable = engine.usable(&stored.pin, &shown);
        assert_eq!(real.inspect_id(&usable), Some(id), "{usable}");
        assert_eq!(usable.contains('@'), !matches!(make, Make::Docker | Make::DockerOf(_)), "{usable}");
    }
}

/// Loads an image and compares what is told on the way with what was sent.
async fn loaded_as_told(make: Make, engine: &dyn Engine, stored: &Stored) {
    let told = Mutex::new(Vec::new());
    let tell = |event| told.lock().unwrap().push(event);
    let sent = engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &tell).await.unwrap();
    let told = told.into_inner().unwrap();
    let bytes: u64 = told.iter().map(|event| if let Event::LoadProgress { bytes, .. } = event { *bytes } else { 0 }).sum();
    assert!(matches!(&told[0], Event::LoadStarted { bytes, .. } if *bytes == sent), "{told:?}");
    let unpacked = told.iter().any(|event| matches!(event, Event::LoadUnpacking { bytes, of, .. } if bytes == of));
    assert_eq!(unpacked, matches!(make, Make::Docker | Make::DockerOf(_)), "{told:?}");
    let told: Vec<_> = told.iter().filter(|event| !matches!(event, Event::LoadUnpacking { .. })).collect();
    assert!(matches!(told[told.len() - 2..], [Event::LoadSent { .. }, Event::LoadFinished { .. }]), "{told:?}");
    assert_eq!(bytes, sent);
}

/// Docker's media types have no name for zstd layers, but builders write one. Engines differ in what they make of it.
async fn zstd_under_dockers_media_types_is_proved_or_refused(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let stored = stored(&Recipe { media: Media::Docker, compression: Compression::Mixed, ..Recipe::default() }.make(), NAME);
    match load(&*engine, &stored).await {
        Ok(_) => {
            let (held, id) = identity(make, &stored.pin);
            assert_eq!(standing(&*engine, &stored.pin).await, held);
            let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
            assert_eq!(real.inspect_id(&engine.usable(&stored.pin, &shown)), Some(id));
        }
        Err(EngineError::NotLoaded { .. }) => {
            assert!(matches!(make, Make::DockerWithContainerdOf(_)), "{make:?} can load such an image");
            let standing = standing(&*engine, &stored.pin).await;
            assert!(!matches!(standing, Standing::Held(_)), "{standing:?}");
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn archive(stored: &Stored, layers: Layers) -> Vec<u8> {
    let mut out = Vec::new();
    Archive::new(&stored.store, &stored.image, &stored.pin.name, &Parts::all(layers)).unwrap().write_to(&mut out).unwrap();
    out
}

async fn what_another_tool_loaded_is_proved_by_its_content(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let zstd = |revision| stored(&Recipe { compression: Compression::Zstd, revision, ..Recipe::default() }.make(), NAME);
    let (stored, next) = (zstd(1), zstd(2));
    let loaded = real.load(&archive(&stored, Layers::WithoutZstd));
    assert!(loaded.status.success(), "{loaded:?}");
    let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
    let standing = |of: &Stored| prove(&of.pin, Some(&shown), of.store.document(&of.pin.image_id()).unwrap().as_ref());
    match make {
        Make::DockerWithContainerdOf(_) | Make::Containerd | Make::ContainerdOf(_) => {
            assert_eq!(standing(&stored), Standing::Held(Proof::Content));
        }
        _ => assert_eq!(standing(&stored), identity(make, &stored.pin).0),
    }
    assert_eq!(standing(&next), Standing::Another);
    assert_eq!(engine.usable(&stored.pin, &shown), NAME);
}

async fn an_image_without_all_its_layers_is_not_held(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let stored = stored(&Recipe::default().make(), NAME);
    let whole = archive(&stored, Layers::AsStored);
    let mut cut = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        if !entry.path().unwrap().ends_with(stored.image.layers[2].digest.hex()) {
            let header = entry.header().clone();
            cut.append(&header, entry).unwrap();
        }
    }
    // Whether the engine notices is the engine's affair.
    let _ = real.load(&cut.into_inner().unwrap());
    // containerd gives such an image its name before version 2.
    let bad: &[Standing] = match make {
        Make::DockerWithContainerdOf(_) => &[Standing::Incomplete],
        Make::Containerd | Make::ContainerdOf(_) => &[Standing::Incomplete, Standing::Absent],
        _ => &[Standing::Absent],
    };
    assert!(bad.contains(&standing(&*engine, &stored.pin).await));
    load(&*engine, &stored).await.unwrap();
    assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
}

async fn what_is_usable_runs(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let stored = stored(&runnable(), NAME);
    load(&*engine, &stored).await.unwrap();
    let shown = engine.inspect(&stored.pin.name).await.unwrap().unwrap();
    let ran = real.run(&engine.usable(&stored.pin, &shown), &["/bin/cat", "/greeting"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "hello", "{ran:?}");
}

/// An image that prints a greeting, with this machine's `cat` and what that needs.
fn runnable() -> Made {
    let mut tar = tar::Builder::new(Vec::new());
    let linked = std::process::Command::new("ldd").arg("/bin/cat").output().unwrap();
    let linked = String::from_utf8(linked.stdout).unwrap();
    for path in linked.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/cat"]) {
        tar.append_path_with_name(fs::canonicalize(path).unwrap(), path.trim_start_matches('/')).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(5);
    tar.append_data(&mut header, "greeting", &b"hello"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut blobs = std::collections::BTreeMap::new();
    let mut put = |kind: &str, bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let media_type = format!("application/vnd.oci.image.{kind}");
        let descriptor = Descriptor { media_type, digest, size: bytes.len() as u64 };
        blobs.insert(digest, bytes);
        descriptor
    };
    let platform = Platform::host();
    let diff_ids = vec![Digest::of(&tar)];
    let config =
        json!({ "os": platform.os(), "architecture": platform.architecture(), "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = put("config.v1+json", config.to_string().into_bytes());
    let layers = vec![put("layer.v1.tar", tar)];
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let manifest = put("manifest.v1+json", manifest.to_string().into_bytes());
    let one = OnePlatform { platform, manifest: manifest.clone(), config, layers, diff_ids };
    Made { root: manifest, platforms: vec![one], blobs, documents: Vec::new() }
}

async fn another_image_under_the_name_is_found_out(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    let (old, new) = (stored(&Recipe::default().make(), NAME), stored(&Recipe { revision: 2, ..Recipe::default() }.make(), NAME));
    load(&*engine, &old).await.unwrap();
    assert_eq!(standing(&*engine, &new.pin).await, Standing::Another);
    load(&*engine, &new).await.unwrap();
    let (held, _) = identity(make, &new.pin);
    assert_eq!((standing(&*engine, &new.pin).await, standing(&*engine, &old.pin).await), (held, Standing::Another));

    let near = stored(&Recipe::default().make(), "r.example.com/team/app:v11");
    assert_eq!(standing(&*engine, &near.pin).await, Standing::Absent);
    real.tag(NAME, "localhost/busybox:1");
    let short = stored(&Recipe { revision: 2, ..Recipe::default() }.make(), "busybox:1");
    assert_eq!(standing(&*engine, &short.pin).await, Standing::Absent, "an engine that guesses is not believed");
    real.remove(NAME);
    assert_eq!(standing(&*engine, &new.pin).await, Standing::Absent);
}

async fn damage_on_the_disk_names_nothing(make: Make) {
    let real = RealEngine::start(make);
    let engine = connected(&real).await;
    for pick in 0..4 {
        let stored = stored(&Recipe::default().make(), NAME);
        let image = &stored.image;
        let blob = [&image.layers[2], &image.config, &image.manifest, &image.root][pick].clone();
        damage(&stored, &blob);
        let error = load(&*engine, &stored).await.unwrap_err();
        assert_eq!(error.damaged(), Some(blob.digest), "{error:?}");
        assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
        assert_eq!(real.count(), 0);

        let error = load(&*engine, &stored).await.unwrap_err();
        let missing = match error {
            EngineError::Archive(why) => match *why {
                ArchiveError::Incomplete { layers, missing_layers, missing_documents, missing_bytes, .. } => {
                    assert_eq!((layers, missing_bytes), (8, blob.size));
                    (missing_layers, missing_documents)
                }
                ref other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(missing, if pick == 0 { (1, 0) } else { (0, 1) });
    }
}

async fn an_engine_that_dies_has_loaded_nothing(make: Make) {
    let mut real = RealEngine::start(make);
    let engine = connected(&real).await;
    let large = Recipe { layers: 3, layer_size: 10_000_000, compression: Compression::None, ..Recipe::default() };
    let stored = stored(&large.make(), NAME);
    let dying = Mutex::new((0, &mut real));
    let tell = |event| {
        let mut dying = dying.lock().unwrap();
        if let Event::LoadProgress { bytes, .. } = event {
            dying.0 += bytes;
            if dying.0 > 10_000_000 {
                dying.1.kill();
            }
        }
    };
    let error = engine.load(Parcel::whole(&stored.store, &stored.image, &stored.pin.name), &tell).await.unwrap_err();
    assert!(matches!(&error, EngineError::LoadBroken { sent, size, .. } if *sent > 10_000_000 && sent < size), "{error:?}");
    let error = engine.inspect(&stored.pin.name).await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error:?}");

    real.restart();
    assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
    load(&*engine, &stored).await.unwrap();
    assert_eq!(standing(&*engine, &stored.pin).await, identity(make, &stored.pin).0);
}

async fn an_engine_that_hangs_is_not_waited_for(make: Make) {
    let real = RealEngine::start(make);
    let stored = stored(&Recipe::default().make(), NAME);
    let engine = engine::connect(&choice(&real), &at(&real.address(), Duration::from_secs(1))).await.unwrap();
    real.freeze(true);
    let error = engine.inspect(&stored.pin.name).await.unwrap_err();
    real.freeze(false);
    assert!(matches!(error, EngineError::TimedOut { .. }), "{error:?}");
    assert_eq!(standing(&*engine, &stored.pin).await, Standing::Absent);
}

/// The engines of an unstable release are tested where somebody prepared them; all others always.
fn left_out(make: Make) -> bool {
    let unstable = [Make::DockerOf("sid"), Make::DockerWithContainerdOf("sid"), Make::PodmanOf("sid"), Make::ContainerdOf("sid")];
    !make.is_there() && unstable.contains(&make)
}

macro_rules! on_every_engine {
    ($($test:ident),*) => {
        on_every_engine!(@docker Make::Docker, $($test),*);
        on_every_engine!(@podman Make::Podman, $($test),*);
        on_every_engine!(@containerd Make::Containerd, $($test),*);
        on_every_engine!(@trixie_docker Make::DockerOf("trixie"), $($test),*);
        on_every_engine!(@trixie_docker_with_containerd Make::DockerWithContainerdOf("trixie"), $($test),*);
        on_every_engine!(@trixie_podman Make::PodmanOf("trixie"), $($test),*);
        on_every_engine!(@trixie_containerd Make::ContainerdOf("trixie"), $($test),*);
        on_every_engine!(@sid_docker Make::DockerOf("sid"), $($test),*);
        on_every_engine!(@sid_docker_with_containerd Make::DockerWithContainerdOf("sid"), $($test),*);
        on_every_engine!(@sid_podman Make::PodmanOf("sid"), $($test),*);
        on_every_engine!(@sid_containerd Make::ContainerdOf("sid"), $($test),*);
    };
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
}
on_every_engine!(
    every_kind_of_image_is_loaded_and_proved,
    zstd_under_dockers_media_types_is_proved_or_refused,
    what_another_tool_loaded_is_proved_by_its_content,
    an_image_without_all_its_layers_is_not_held,
    what_is_usable_runs,
    another_image_under_the_name_is_found_out,
    damage_on_the_disk_names_nothing,
    an_engine_that_dies_has_loaded_nothing,
    an_engine_that_hangs_is_not_waited_for
);
