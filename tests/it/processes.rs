//! Many processes on one store: one download, every name kept, the dead replaced, the stuck named, and nothing taken from
//! under whoever counts on it.

use std::fs::File;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::archive::{Archive, Layers, Parts};
use larder::digest::Digest;
use larder::store::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::image::{Compression, Made, Recipe};
use crate::support::registry::Fault;
use crate::support::sandbox::Sandbox;
use crate::support::scene::{self, PLATFORM, Scene};

fn scene() -> Scene {
    Scene::in_sandbox(Sandbox::new())
}

/// Waits for all of them, and fails unless each succeeded.
#[track_caller]
fn all_succeed(crowd: Vec<Child>) -> Vec<String> {
    let outputs: Vec<_> = crowd.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for output in &outputs {
        assert!(output.status.success(), "{:?}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    outputs.into_iter().map(|output| String::from_utf8(output.stdout).unwrap()).collect()
}

#[test]
fn fifty_processes_make_one_download() {
    let scene = scene();
    let made = Recipe { layer_size: 400_000, compression: Compression::None, ..Recipe::default() }.make();
    let reference = scene.serve(&made, "demo/app", "v1");
    let said = all_succeed((0..50).map(|_| scene.start_pull(&reference, &["--quiet"])).collect());
    assert!(said.iter().all(|line| line.trim() == reference), "{said:?}");
    let blobs = scene::blobs(&made, made.platform(PLATFORM));
    for blob in &blobs {
        assert_eq!(scene.gets(&blob.digest), 1, "{} {}", blob.media_type, blob.digest);
    }
    assert_eq!(scene::verified(&scene.sandbox.store()), blobs.len());
    assert_eq!(leftovers(&scene), 0);
}

#[test]
fn twenty_processes_leave_twenty_names() {
    let scene = scene();
    let pull = |n: usize| {
        let made = Recipe { layers: 2, revision: n as u32, ..Recipe::default() }.make();
        scene.serve(&made, "demo/app", &format!("v{n}"))
    };
    let references: Vec<_> = (0..20).map(pull).collect();
    all_succeed(references.iter().map(|reference| scene.start_pull(reference, &["--quiet"])).collect());
    let listed = scene.sandbox.run(["list", "--json"]).expect(0).json();
    let mut pinned: Vec<_> = listed.iter().map(|pin| pin["pinned"].as_str().unwrap()).collect();
    let mut expected: Vec<_> = references.iter().map(String::as_str).collect();
    pinned.sort_unstable();
    expected.sort_unstable();
    assert_eq!(pinned, expected);
    let mut names: Vec<_> = index_names(&scene).into_iter().map(|(name, digest)| format!("{name}@{digest}")).collect();
    names.sort_unstable();
    assert_eq!(names, expected, "index.json names the same");
    assert_eq!(leftovers(&scene), 0);
}

#[test]
fn a_tag_that_two_processes_pin_to_different_digests_keeps_both() {
    let scene = scene();
    let made = [1, 2].map(|revision| Recipe { layers: 2, revision, ..Recipe::default() }.make());
    let references = made.each_ref().map(|made| scene.serve(made, "demo/app", "v1"));
    for _ in 0..25 {
        all_succeed(references.iter().map(|reference| scene.start_pull(reference, &["--quiet"])).collect());
        let listed = scene.sandbox.run(["list", "--json"]).expect(0).json();
        let pinned: Vec<_> = listed.iter().map(|pin| pin["pinned"].as_str().unwrap()).collect();
        assert!(pinned.len() == 2 && references.iter().all(|r| pinned.contains(&r.as_str())), "{pinned:?}");
        // The newest answers to the bare tag; the other bears its digest, and both readers say so.
        let (tag, _) = references[0].split_once('@').unwrap();
        let newest = scene.sandbox.run(["inspect", "--no-engines", "--quiet", tag]).expect(0).stdout;
        assert!(newest.starts_with(pinned[0]), "{newest}");
        let names = index_names(&scene);
        let bare: Vec<_> = names.iter().filter(|(name, _)| name == tag).collect();
        assert!(names.len() == 2 && bare.len() == 1 && pinned[0].ends_with(&bare[0].1), "{names:?}");
    }
}

/// The names in `index.json`, and the digests that they have there.
fn index_names(scene: &Scene) -> Vec<(String, String)> {
    let text = std::fs::read(scene.sandbox.store().join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&text).unwrap();
    let name = |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
    index["manifests"].as_array().unwrap().iter().map(|e| (name(e), e["digest"].as_str().unwrap().to_owned())).collect()
}

/// How many files are on their way or were forgotten there.
fn leftovers(scene: &Scene) -> usize {
    std::fs::read_dir(scene.sandbox.store().join("ingest")).unwrap().count()
}

/// An image that is nearly all one layer.
fn one_large_layer() -> Made {
    Recipe { layers: 1, layer_size: 4_000_000, compression: Compression::None, ..Recipe::default() }.make()
}

/// How many bytes of blobs and documents the registry gave, when of one request for `of` no more than `cut` bytes came.
fn given(scene: &Scene, of: &Digest, cut: u64) -> u64 {
    let mut stalled = false;
    let one = |seen: &crate::support::registry::Seen| {
        let digest: Digest = seen.path.rsplit('/').next()?.parse().ok()?;
        if seen.method != "GET" || seen.status >= 300 {
            return None;
        }
        if digest == *of && !std::mem::replace(&mut stalled, true) {
            return Some(cut);
        }
        let from: u64 = seen.header("range").strip_prefix("bytes=").and_then(|r| r.split('-').next()?.parse().ok()).unwrap_or(0);
        Some(std::fs::metadata(scene.blob(&digest)).map_or(0, |m| m.len()) - from)
    };
    scene.registry.seen().iter().filter_map(one).sum()
}

#[test]
fn a_downloader_that_dies_is_replaced_and_its_bytes_are_kept() {
    for percent in [10, 50, 90] {
        let (scene, made) = (scene(), one_large_layer());
        let reference = scene.serve(&made, "demo/app", "v1");
        let layer = &made.platform(PLATFORM).layers[0];
        let cut = layer.size * percent / 100;
        scene.registry.fault(layer.digest, Fault::StallOnceAfter(cut));
        let part = scene.part(&layer.digest);
        let mut first = scene.start_pull(&reference, &[]);
        scene::until(&mut first, || std::fs::metadata(&part).is_ok_and(|m| m.len() == cut));
        let mut second = scene.start_pull(&reference, &["--json"]);
        let waiting = second.id();
        scene::until(&mut second, || scene::has_open(waiting, &part));
        first.kill().unwrap();
        first.wait().unwrap();
        all_succeed(vec![second]);
        let image: u64 = scene::blobs(&made, made.platform(PLATFORM)).iter().map(|blob| blob.size).sum();
        let given = given(&scene, &layer.digest, cut);
        assert!(given * 100 <= image * 105, "killed at {percent} %: {given} bytes came for an image of {image}");
        scene::verified(&scene.sandbox.store());
        assert_eq!(leftovers(&scene), 0);
    }
}

#[test]
fn a_downloader_that_stands_still_is_named_to_those_who_wait() {
    let (scene, made) = (scene(), one_large_layer());
    let reference = scene.serve(&made, "demo/app", "v1");
    let layer = &made.platform(PLATFORM).layers[0];
    scene.registry.fault(layer.digest, Fault::StallAfter(layer.size / 2));
    let part = scene.part(&layer.digest);
    let mut first = scene.start_pull(&reference, &[]);
    scene::until(&mut first, || std::fs::metadata(&part).is_ok_and(|m| m.len() == layer.size / 2));
    kill_process(Pid::from_child(&first), Signal::STOP).unwrap();
    let waiting = scene.pull(&reference, &["--json", "--lock-timeout", "1"]).expect(1);
    let error = &waiting.one_json()["error"];
    assert_eq!(error["code"], "locked", "{waiting}");
    assert!(waiting.stderr.contains(&format!("({})", first.id())) && waiting.stderr.contains(".part is held"), "{waiting}");
    // What the other one is bringing was not asked for again.
    assert_eq!(scene.gets(&layer.digest), 1);
    first.kill().unwrap();
    first.wait().unwrap();
    scene.registry.heal();
    let _ = scene.pull(&reference, &["--lock-timeout", "1"]).expect(0);
    scene::verified(&scene.sandbox.store());
}

#[test]
fn a_lock_that_is_held_for_ever_ends_with_its_holder_named_and_stops_no_reader() {
    let (scene, made) = (scene(), Recipe { layers: 1, ..Recipe::default() }.make());
    let there = scene.serve(&made, "demo/app", "v1");
    let _ = scene.pull(&there, &[]).expect(0);
    let other = Recipe { layers: 1, revision: 2, ..Recipe::default() }.make();
    let wanted = scene.serve(&other, "demo/app", "v2");
    let hold = |name: &str| {
        let file = File::options().write(true).create(true).truncate(false).open(scene.sandbox.store().join(name)).unwrap();
        file.lock().unwrap();
        file
    };
    let pull = ["pull", "--engine", "none", "--platform", PLATFORM, &wanted];
    let remove = ["remove", &there];
    let part = format!("ingest/{}.part", other.platform(PLATFORM).config.digest.hex());
    let ours = format!("({})", std::process::id());
    for (lock, commands) in [
        ("lock", vec![&pull[..], &remove]),
        (&part, vec![&pull]),
        ("pins.lock", vec![&pull, &remove]),
        ("index.lock", vec![&pull, &remove]),
    ] {
        let held = hold(lock);
        for command in commands {
            let output = scene.sandbox.run(command.iter().chain(&["--lock-timeout", "1"])).expect(1);
            assert!(output.stderr.contains("is held by another process") && output.stderr.contains(&ours), "{lock}: {output}");
        }
        for reader in [&["list"][..], &["inspect", "--no-engines", &there], &["verify"]] {
            let _ = scene.sandbox.run(reader).expect(0);
        }
        // Pulling what is there, and pinned as it is asked for, changes nothing: only removing keeps it waiting.
        let _ = scene.pull(&there, &["--lock-timeout", "1"]).expect(if lock == "lock" { 1 } else { 0 });
        drop(held);
    }
    let _ = scene.sandbox.run(pull).expect(0);
    assert_eq!(scene.sandbox.run(["list", "--json"]).expect(0).json().len(), 2, "what could not be removed is there");
}

#[test]
fn what_is_pulled_or_loaded_is_not_removed_meanwhile() {
    let scene = scene();
    let made = |revision| Recipe { layers: 2, revision, ..Recipe::default() }.make();
    let references: Vec<_> = (0..4).map(|n| scene.serve(&made(n), "demo/app", &format!("v{n}"))).collect();
    let kept = &references[0];
    let _ = scene.pull(kept, &[]).expect(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pullers: Vec<_> = (0..8)
            .map(|first| {
                let (scene, references) = (&scene, &references);
                scope.spawn(move || (0..6).for_each(|n| drop(scene.pull(&references[(first + n) % 4], &[]).expect(0))))
            })
            .collect();
        scope.spawn(|| {
            for n in (1..4).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                let output = scene.sandbox.run(["remove", &references[n]]);
                assert!(matches!(output.code, Some(0 | 3)), "{output}");
                let _ = scene.sandbox.run(["prune"]).expect(0);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                load(&scene, kept);
            }
        });
        let ended: Vec<_> = pullers.into_iter().map(|puller| puller.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "every pull succeeds");
    });
    let _ = scene.sandbox.run(["verify"]).expect(0);
    load(&scene, kept);
    assert_eq!(leftovers(&scene), 0);
}

/// Sends an image out of the store, as a load into an engine does.
fn load(scene: &Scene, reference: &str) {
    let store = Store::open_existing(scene.sandbox.store()).unwrap().unwrap();
    let (image, name) = scene::stored(&store, reference);
    Archive::new(&store, &image, &name, &Parts::all(Layers::AsStored)).unwrap().write_to(&mut std::io::sink()).unwrap();
}
