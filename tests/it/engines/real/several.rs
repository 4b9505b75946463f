//! Several engines at once: one reading of the store, and nobody suffers for another.

use std::process::{Command, Stdio};

use larder::engine::Kind;

use super::*;
use crate::support::sandbox::Sandbox;

fn revision(seed: &'static str, revision: u32) -> Made {
    Recipe { seed, revision, ..Recipe::default() }.make()
}

/// Larder with a store that is filled already, and these engines.
fn sandbox(stored: &Stored, docker: &RealEngine, podman: &RealEngine, containerd: &str) -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.set("LARDER_DIR", stored.store.root().display().to_string()).set("LARDER_OFFLINE", "1");
    sandbox.set("DOCKER_HOST", docker.address()).set("CONTAINER_HOST", podman.address()).set("CONTAINERD_ADDRESS", containerd);
    sandbox
}

#[test]
fn the_store_is_read_once_for_all() {
    let [docker, podman, containerd] = [Make::Docker, Make::Podman, Make::Containerd].map(RealEngine::start);
    let stored = stored(&revision("several", 1), "r.example.com/several/app:1");
    let sandbox = sandbox(&stored, &docker, &podman, &containerd.address());
    let trace = sandbox.path().join("trace");
    let larder = sandbox.command();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=openat", "-o"]).arg(&trace).arg(larder.get_program());
    strace.args(["ensure", "--json", "--engine", "all", "r.example.com/several/app:1"]).env_clear().stdin(Stdio::null());
    strace.envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = strace.output().unwrap();
    assert!(output.status.success(), "{output:?}");

    let said = String::from_utf8(output.stdout).unwrap();
    let mut loaded: Vec<_> = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    loaded.sort_by_key(|object| object["engine"].to_string());
    assert_eq!(loaded.len(), 3, "{said}");
    for (object, engine) in loaded.iter().zip(["containerd", "docker", "podman"]) {
        assert_eq!((&object["engine"], &object["status"]), (&engine.into(), &"loaded".into()));
        assert_eq!((&object["sent_layers"], &object["held_layers"]), (&8.into(), &0.into()));
    }
    for engine in [&docker, &podman, &containerd] {
        assert_eq!(engine.inspect_id("r.example.com/several/app:1"), Some(identity(engine.make(), &stored.pin).1));
    }
    let trace = fs::read_to_string(trace).unwrap();
    for layer in &stored.image.layers {
        assert_eq!(trace.matches(&layer.digest.hex()).count(), 1, "{trace}");
    }
}

#[test]
fn one_that_is_gone_costs_the_others_nothing_but_the_exit_code() {
    let (mut docker, podman) = (RealEngine::start(Make::Docker), RealEngine::start(Make::Podman));
    let stored = stored(&revision("several", 1), "r.example.com/several/app:1");
    let sandbox = sandbox(&stored, &docker, &podman, "/nowhere");
    docker.kill();
    let arguments = ["ensure", "--json", "--engine", "docker", "--engine", "podman", "r.example.com/several/app:1"];
    let output = sandbox.run(arguments).expect(5);
    let mut status: Vec<_> = output.json().iter().map(|object| object["status"].as_str().unwrap().to_owned()).collect();
    status.sort();
    assert_eq!(status, ["failed", "loaded"], "{output}");
    assert!(output.stderr.contains("docker did not answer"), "{output}");
    // Who takes every engine that answers has nothing to complain of.
    let held = sandbox.run(["check", "--quiet", "--engine", "all", "r.example.com/several/app:1"]).expect(0);
    assert_eq!(held.stdout.lines().count(), 1, "{held}");
    let dry = sandbox.run(["ensure", "--dry-run", "--engine", "podman,none", "r.example.com/several/app:1"]).expect(0);
    assert!(dry.stdout.contains("held by podman, nothing to do"), "{dry}");
}

/// What became of an image in several engines, in the order in which it was told.
async fn ensured(of: &Stored, engines: &[&dyn Engine], tell: &event::Tell<'_>, also: &(dyn Fn(usize) + Sync)) -> Vec<(usize, bool)> {
    let told = Mutex::new(Vec::new());
    let done = |place, report: Result<Report, EnsureError>| {
        told.lock().unwrap().push((place, report.is_ok()));
        also(place);
    };
    Cache { store: &of.store, upstream: None, tell }.ensure_each(&wish(of), engines, &done).await;
    told.into_inner().unwrap()
}

#[tokio::test]
async fn each_is_sent_what_it_lacks() {
    let mut grounds = Vec::new();
    for make in [Make::Docker, Make::Podman, Make::DockerWithContainerdOf("trixie"), Make::Containerd] {
        grounds.push(Ground::start(make).await);
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let name = "r.example.com/several/app:1";
    let [old, new] = [1, 2].map(|number| stored_in(&store, &revision("different", number), 0, name));
    let first = ensured(&old, &[&*grounds[1].engine], &event::silent, &|_| ()).await;
    assert_eq!(first, [(0, true)]);

    let engines: Vec<&dyn Engine> = grounds.iter().map(|ground| &*ground.engine).collect();
    let sizes = Mutex::new(Vec::new());
    let tell = |event| {
        if let Event::LoadStarted { bytes, .. } = event {
            sizes.lock().unwrap().push(bytes);
        }
    };
    let mut all = ensured(&new, &engines, &tell, &|_| ()).await;
    all.sort_unstable();
    assert_eq!(all, [(0, true), (1, true), (2, true), (3, true)]);
    for ground in &grounds {
        ground.holds(&new).await;
        ground.is_tidy();
    }
    let mut sizes = sizes.into_inner().unwrap();
    sizes.sort_unstable();
    assert!(sizes.len() == 4 && sizes[0] < sizes[1] / 2, "podman lacked one layer: {sizes:?}");
}

#[tokio::test]
async fn one_that_dies_or_hangs_in_the_midst_keeps_nobody_from_it() {
    let mut dying = Ground::start(Make::Docker).await;
    let (hanging, well) = (Ground::start(Make::DockerOf("trixie")).await, Ground::start(Make::Podman).await);
    let large = Recipe { seed: "several large", layers: 3, layer_size: 10_000_000, compression: Compression::None, ..Recipe::default() };
    let stored = stored(&large.make(), "r.example.com/several/large:1");
    assert_eq!(well.engine.about().kind, Kind::Podman);
    let Ground { real, engine, .. } = &mut dying;
    let victim = Mutex::new(Some(real));
    let tell = |event| {
        if let Event::LoadProgress { .. } = event
            && let Some(victim) = victim.lock().unwrap().take()
        {
            victim.kill();
            hanging.real.freeze(true);
        }
    };
    let engines: [&dyn Engine; 3] = [&**engine, &*hanging.engine, &*well.engine];
    // It hangs until the one that is well has it all.
    let wake = |place| {
        if place == 2 {
            hanging.real.freeze(false)
        }
    };
    let told = ensured(&stored, &engines, &tell, &wake).await;
    assert_eq!(told, [(0, false), (2, true), (1, true)]);
    hanging.holds(&stored).await;
    well.holds(&stored).await;
    dying.real.restart();
    assert_eq!(dying.standing(&stored).await, Standing::Absent);
    let _ = dying.sent(&stored).await;
}

/// What docker has in a containerd of its own is docker's affair, also where that containerd is asked for.
#[test]
fn dockers_own_containerd_is_no_second_engine() {
    let docker = RealEngine::start(Make::DockerWithContainerdOf("trixie"));
    let stored = stored(&revision("several", 1), "r.example.com/several/app:1");
    let mut sandbox = Sandbox::new();
    sandbox.set("LARDER_DIR", stored.store.root().display().to_string()).set("LARDER_OFFLINE", "1");
    sandbox.set("DOCKER_HOST", docker.address()).set("CONTAINER_HOST", "unix:///nowhere");
    sandbox.set("CONTAINERD_ADDRESS", docker.containerd().display().to_string()).set("CONTAINERD_NAMESPACE", "moby");
    let loaded = sandbox.run(["load", "--json", "--engine", "all", "r.example.com/several/app:1"]).expect(0).one_json();
    assert_eq!((&loaded["engine"], &loaded["status"]), (&"docker".into(), &"loaded".into()));
    // Whoever asks for it by name finds there what docker has.
    let asked = sandbox.run(["load", "--json", "--engine", "docker,containerd", "r.example.com/several/app:1"]).expect(0);
    let held: Vec<_> = asked.json().iter().map(|object| object["status"].as_str().unwrap().to_owned()).collect();
    assert_eq!(held, ["held", "held"], "{asked}");
    assert_eq!(docker.names(), ["r.example.com/several/app:1"]);
}
