//! The experiments are tried themselves: each deliberate fault of the store is to be noticed by one of them, and without a fault the same one passes.

use std::fmt;
use std::path::Path;
use std::process::{Child, Stdio};

use bytes::Bytes;

use super::Arguments;
use super::apart::Memory;
use super::judge::Seen;
use super::power;
use super::scene::Scene;
use super::table::Outcome;
use crate::run::{self, Result, fail};
use crate::support::registry::{Fault, Registry};

/// Cuts of the power on each file system.
const STATES: usize = 60;

/// How many pull at once, and how often they begin anew: a lock that is not taken is missed now and then only.
const PULLERS: usize = 20;
const ROUNDS: usize = 80;

/// What came of an experiment: how often it was done, and how often something was wrong.
struct Came {
    tried: usize,
    wrong: usize,
}

/// An experiment on a scene, in a folder of its own.
type Experiment = fn(&Scene, &Path) -> Result<Came>;

/// Each fault, in words and by its name, and what is to notice it.
const FAULTS: [(&str, &str, &str, Experiment); 5] = [
    ("files are not synced", "no-file-sync", "power cuts", cuts),
    ("folders are not synced", "no-folder-sync", "power cuts", cuts),
    ("what comes in is not hashed", "no-hash", "a registry that flips one byte", lies),
    ("existence is taken for validity", "exists-is-valid", "a flipped bit in every layer, then a load", flips),
    ("a pin is written without its lock", "no-pin-lock", "20 processes pull 20 tags", crowds),
];

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let memory = Memory::new()?;
    let (sabotaged, honest) = (memory.path().join("sabotaged"), run::build_larder(false)?);
    run::build_sabotaged(&sabotaged)?;
    let mut outcome = Outcome {
        title: "deliberate faults are noticed",
        columns: &["fault", "experiment", "noticed", "without the fault"],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    let honest = Scene::new(&honest, memory.path())?;
    for (what, name, experiment, try_it) in FAULTS.into_iter().filter(|(what, ..)| arguments.wants(what)) {
        let folder = memory.path().join(name);
        std::fs::create_dir_all(&folder)?;
        let faulty = Scene::sabotaged(&sabotaged, &folder, name)?;
        let (faulty, honest) = (try_it(&faulty, &folder.join("faulty"))?, try_it(&honest, &folder.join("honest"))?);
        outcome.rows.push(vec![what.to_owned(), experiment.to_owned(), faulty.to_string(), honest.to_string()]);
        if faulty.wrong == 0 {
            outcome.failures.push(format!("{what}: {experiment} noticed nothing"));
        }
        if honest.wrong > 0 {
            outcome.failures.push(format!("{experiment} found fault where none was made"));
        }
    }
    Ok(outcome)
}

/// Power cuts on every file system.
fn cuts(scene: &Scene, folder: &Path) -> Result<Came> {
    let tallies = power::everywhere(scene, STATES, folder)?;
    Ok(Came { tried: STATES * tallies.len(), wrong: tallies.iter().map(|(_, tally, _)| tally.failures.len()).sum() })
}

/// Pulls from a registry that flips a byte in one of the layers: nothing wrong has a name, and success is not said.
fn lies(scene: &Scene, folder: &Path) -> Result<Came> {
    let layers = layers(scene);
    let mut wrong = 0;
    for digest in &layers {
        let store = folder.join(digest);
        scene.registry.fault(digest, Fault::FlipByte);
        let output = scene.larder(&store, &scene.pull("first")).output()?;
        scene.registry.heal();
        let found = Seen::of(&store)?.judge(&[]);
        wrong += usize::from(output.status.success() || !found.bad.is_empty());
    }
    Ok(Came { tried: layers.len(), wrong })
}

/// Flips a bit of a stored layer and loads the image into an engine: the engine never gets the whole of it.
fn flips(scene: &Scene, folder: &Path) -> Result<Came> {
    let layers = layers(scene);
    let engine = engine();
    let sound = folder.join("sound");
    scene.must(&sound, &scene.pull("first"))?;
    if !takes(&engine, scene, &sound)? {
        return fail("what stands in for an engine does not get an image that is sound");
    }
    let mut wrong = 0;
    for digest in &layers {
        let store = folder.join(digest);
        scene.must(&store, &scene.pull("first"))?;
        let path = store.join("blobs").join(digest.replace(':', "/"));
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::remove_file(&path)?;
        std::fs::write(&path, bytes)?;
        wrong += usize::from(takes(&engine, scene, &store)?);
    }
    Ok(Came { tried: layers.len(), wrong })
}

/// Whether the engine gets the whole of an image that is loaded.
fn takes(engine: &Registry, scene: &Scene, store: &Path) -> Result<bool> {
    engine.forget();
    let load = ["load", "--engine", "docker", &scene.name("first")].map(str::to_owned);
    scene.larder(store, &load).env("DOCKER_HOST", format!("tcp://{}", engine.host())).output()?;
    // Of a request that is cut off, nothing is remembered but that it came.
    Ok(engine.seen().iter().any(|seen| seen.path.ends_with("/images/load") && !seen.body.is_empty()))
}

/// Processes that pull different tags into one new store at once: every name is there, for larder and for other tools.
fn crowds(scene: &Scene, folder: &Path) -> Result<Came> {
    let tags: Vec<_> = (0..PULLERS).map(|n| format!("tag-{n}")).collect();
    tags.iter().for_each(|tag| scene.serve(&scene.first, tag));
    let mut wrong = 0;
    for round in 0..ROUNDS {
        let store = folder.join(round.to_string());
        let start = |tag: &String| Ok(scene.larder(&store, &scene.pull(tag)).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let pullers: Vec<Child> = tags.iter().map(start).collect::<Result<_>>()?;
        let mut succeeded = true;
        for mut puller in pullers {
            succeeded &= puller.wait()?.success();
        }
        let seen = Seen::of(&store)?;
        let held: Vec<_> = tags.iter().map(|tag| scene.held(tag, &[&scene.first])).collect();
        let found = seen.judge(&held);
        wrong += usize::from(!succeeded || !found.lost.is_empty() || !found.bad.is_empty() || !seen.index_is_right());
    }
    Ok(Came { tried: ROUNDS, wrong })
}

/// The layers of the first image, each once.
fn layers(scene: &Scene) -> Vec<String> {
    let mut layers: Vec<_> = scene.first.platforms[0].layers.iter().map(|layer| layer.digest.to_string()).collect();
    layers.sort();
    layers.dedup();
    layers
}

/// What answers as a docker would that holds no image, and takes any.
fn engine() -> Registry {
    let engine = Registry::start();
    let json = |value: serde_json::Value| Bytes::from(value.to_string());
    let version = serde_json::json!({ "Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64" });
    let answers = [
        ("/_ping", 200, Bytes::from("OK")),
        ("/version", 200, json(version)),
        ("/info", 200, json(serde_json::json!({ "Driver": "overlay2", "DriverStatus": [] }))),
        ("/images/load", 200, json(serde_json::json!({ "stream": "Loaded image" }))),
        ("/images/json", 200, json(serde_json::json!([]))),
        ("/json", 404, json(serde_json::json!({ "message": "No such image" }))),
    ];
    for (path, status, body) in answers {
        engine.fault(path, Fault::Answer(status, vec![("content-type", "application/json".to_owned())], body));
    }
    engine
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.wrong, self.tried)
    }
}
