//! Eight processes on one store, killed at random; then a store that loses files while larder works on it.
//!
//! What ended well before is there, whole, whoever was killed beside it; what the killed left goes with the next `prune`. Of a store that loses
//! files nothing is expected but this: no run panics or hangs, and one that says that an image is there is right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::Arguments;
use super::apart::Memory;
use super::judge::{Held, Seen};
use super::scene::{self, Scene, next, panicked, words};
use super::table::Outcome;
use crate::run::{self, Result};

/// How often eight processes are started, and how often a store loses something.
const ROUNDS: usize = 500;
const LOSSES: usize = 1_000;
/// No process lives longer than this before it may be killed; a run that nothing happens to takes about as long.
const LONGEST: Duration = Duration::from_millis(40);
/// What takes longer than this hangs.
const HUNG: Duration = Duration::from_secs(60);
/// So that every run of the experiment does the same, as far as the system lets it.
const SEED: u64 = 0x5d58_8b65_6c07_8965;

/// What came of an experiment.
#[derive(Default)]
struct Tally {
    runs: usize,
    killed: usize,
    failures: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let memory = Memory::new()?;
    let scene = Scene::new(&run::build_larder(false)?, memory.path())?;
    let mut outcome = Outcome {
        title: "processes that are killed, and files that vanish, at random",
        columns: &["experiment", "runs", "of them killed", "lost, wrong, left over, panicked or hung"],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    let experiments: [(&str, Experiment); 2] =
        [("four pulls, two imports and two prunes at once, some of them killed", kills), ("files and folders of the store vanish", losses)];
    for (name, experiment) in experiments.into_iter().filter(|(name, _)| arguments.wants(name)) {
        let tally = experiment(&scene, memory.path())?;
        outcome.rows.push(vec![name.to_owned(), tally.runs.to_string(), tally.killed.to_string(), tally.failures.len().to_string()]);
        outcome.failures.extend(tally.failures);
    }
    Ok(outcome)
}

type Experiment = fn(&Scene, &Path) -> Result<Tally>;

/// Starts larder on a store; what it says on standard error is kept.
fn start(scene: &Scene, store: &Path, arguments: &[String]) -> Result<Child> {
    Ok(scene.larder(store, arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

fn below(random: &mut u64, limit: usize) -> usize {
    usize::try_from(next(random) >> 1).unwrap_or_default() % limit.max(1)
}

fn kills(scene: &Scene, folder: &Path) -> Result<Tally> {
    let (store, file) = (folder.join("killed"), folder.join("second.tar"));
    let tags = ["first", "second", "third", "fourth"];
    scene.serve(&scene.first, tags[2]);
    scene.serve(&scene.second, tags[3]);
    // A file of an image that is pulled too, so that all of them count on the same blobs.
    scene.must(&folder.join("source"), &scene.pull("second"))?;
    let to = file.display().to_string();
    scene.must(&folder.join("source"), &words(&["export", &scene.name("second"), "-o", &to]))?;
    let import =
        |name| (words(&["import", &to, "--as", name]), Some(Held { name: name.to_owned(), roots: vec![scene.second.root.digest] }));
    let mut operations: Vec<(Vec<String>, Option<Held>)> = Vec::new();
    for (n, tag) in tags.into_iter().enumerate() {
        operations.push((scene.pull(tag), Some(scene.held(tag, &[[&scene.first, &scene.second][n % 2]]))));
    }
    operations.extend(["localhost/carried:one", "localhost/carried:two"].map(import));
    operations.extend(["0s", "1h"].map(|age| (words(&["prune", "--parts-older-than", age]), None)));
    let (mut tally, mut random) = (Tally::default(), SEED);
    for round in 0..ROUNDS {
        let mut running = Vec::new();
        for (arguments, held) in &operations {
            running.push((start(scene, &store, arguments)?, held));
        }
        std::thread::sleep(LONGEST.mul_f64(below(&mut random, 1000) as f64 / 1000.0));
        let mut acknowledged = Vec::new();
        for (mut child, held) in running {
            let kill = next(&mut random) & 1 == 0;
            if kill {
                child.kill()?;
            }
            let output = child.wait_with_output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            tally.runs += 1;
            tally.killed += usize::from(output.status.code().is_none());
            match output.status.code() {
                Some(0) => acknowledged.extend(held.clone()),
                None if kill => {}
                _ => tally.failures.push(format!("round {round}: ended with {}: {stderr}", output.status)),
            }
        }
        let found = Seen::of(&store)?.judge(&acknowledged);
        tally.failures.extend(found.lost.into_iter().chain(found.bad).map(|what| format!("round {round}: {what}")));
        // All that is there goes, so that the next round has something to do; nothing is left then but what somebody may continue.
        scene.must(&store, &words(&["prune", "--keep-size", "0B", "--parts-older-than", "0s"]))?;
        let seen = Seen::of(&store)?;
        tally.failures.extend(seen.leftovers()?.into_iter().map(|what| format!("round {round}: {what} is left")));
        if seen.pins() > 0 {
            tally.failures.push(format!("round {round}: {} pins are left", seen.pins()));
        }
    }
    Ok(tally)
}

fn losses(scene: &Scene, folder: &Path) -> Result<Tally> {
    let (whole, store) = (folder.join("whole"), folder.join("losing"));
    for tag in ["first", "second"] {
        scene.must(&whole, &scene.pull(tag))?;
    }
    let to = folder.join("out.tar").display().to_string();
    let operations = [
        scene.pull("first"),
        words(&["verify"]),
        words(&["verify", "--repair"]),
        words(&["list"]),
        words(&["export", &scene.name("first"), "-o", &to]),
        words(&["remove", &scene.name("second")]),
        words(&["prune", "--keep-size", "0B"]),
    ];
    let (mut tally, mut random) = (Tally::default(), SEED);
    for round in 0..LOSSES {
        scene::copy(&whole, &store)?;
        let operation = &operations[round % operations.len()];
        let mut child = start(scene, &store, operation)?;
        std::thread::sleep(LONGEST.mul_f64(below(&mut random, 1000) as f64 / 8000.0));
        lose(&store, &mut random)?;
        tally.runs += 1;
        let wrong = |what: &str| format!("round {round}: `larder {}` {what}", operation.join(" "));
        let started = Instant::now();
        while child.try_wait()?.is_none() && started.elapsed() < HUNG {
            std::thread::sleep(Duration::from_millis(1));
        }
        if child.try_wait()?.is_none() {
            child.kill()?;
            tally.failures.push(wrong("hung"));
        }
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if panicked(output.status.code(), &stderr) {
            tally.failures.push(wrong(&stderr));
        }
        // A store that lost what makes it one is refused; where a pull says that the image is there, it is.
        let pull = scene.larder(&store, &scene.pull("first")).output()?;
        let found = Seen::of(&store)?.judge(&[scene.held("first", &[&scene.first])]);
        if pull.status.success() && !found.lost.is_empty() {
            tally.failures.push(wrong(&format!("and a pull after it that ended well: {}", found.lost.join(", "))));
        }
    }
    Ok(tally)
}

/// Removes something that is in the store: a file, or a folder with all that is in it.
fn lose(store: &Path, random: &mut u64) -> Result {
    let (mut all, mut folders) = (Vec::new(), vec![store.to_owned()]);
    while let Some(folder) = folders.pop() {
        // It may change while it is listed.
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let entries: Vec<PathBuf> = entries.collect();
        folders.extend(entries.iter().filter(|path| path.is_dir()).cloned());
        all.extend(entries);
    }
    all.sort();
    let Some(path) = all.get(below(random, all.len())) else { return Ok(()) };
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    Ok(())
}
