//! Many processes on one store: one download for all, and nothing taken from under whoever counts on it.

use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::table::{Outcome, median};
use crate::run::{self, Result, fail};
use crate::support::engine::{Make, RealEngine};
use crate::support::image::{Compression, Recipe};
use crate::support::sandbox::{Output, Sandbox};
use crate::support::scene::{self, PLATFORM, Scene};

/// How many processes pull one image.
const CROWD: usize = 50;
/// How often that is done.
const ROUNDS: usize = 5;
/// The layers of that image, and how large they are: a small image, and one of about the size of a Kubernetes node's.
const LAYERS: usize = 8;
const LAYER_SIZES: [usize; 2] = [16 << 20, 64 << 20];
/// How many times as long as one pull of the larger image the pulls of a crowd may take. To start so many processes takes a time of its own, which is
/// much beside the pull of a small image.
const TOGETHER: f64 = 1.5;
/// For how long images are pulled, loaded, removed and pruned.
const CHURN: Duration = Duration::from_secs(180);
/// How many images there are to pull. They share layers.
const IMAGES: usize = 8;

pub(super) fn run(bounded: bool) -> Result<Outcome> {
    let mut outcome =
        Outcome { title: "many processes on one store", columns: &["experiment", "figure", "of"], rows: Vec::new(), failures: Vec::new() };
    crowd(&mut outcome)?;
    churn(&mut outcome, if bounded { CHURN / 10 } else { CHURN })?;
    Ok(outcome)
}

impl Outcome {
    fn figure(&mut self, experiment: &str, figure: impl ToString, of: impl ToString) {
        self.rows.push(vec![experiment.to_owned(), figure.to_string(), of.to_string()]);
    }
}

/// One pull, and fifty at once, each time into an empty store; then fifty of what is there, which is what fifty processes take by themselves.
fn crowd(outcome: &mut Outcome) -> Result {
    let program = run::build_larder(true)?;
    let mut ratio = 0.0;
    for layer_size in LAYER_SIZES {
        let made = Recipe { layers: LAYERS, layer_size, compression: Compression::None, ..Recipe::default() }.make();
        let (mut alone, mut together, mut there, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            for (processes, times) in [(1, &mut alone), (CROWD, &mut together)] {
                let scene = Scene::in_sandbox(Sandbox::of(&program));
                let reference = scene.serve(&made, "demo/app", "v1");
                rustix::fs::sync();
                times.push(at_once(&scene, &reference, processes, outcome)?);
                let blobs = scene::blobs(&made, made.platform(PLATFORM));
                most = most.max(blobs.iter().map(|blob| scene.gets(&blob.digest)).max().unwrap_or(0));
                if processes == CROWD {
                    there.push(at_once(&scene, &reference, processes, outcome)?);
                }
            }
        }
        let [alone, together, there] = [alone, together, there].map(|times| median(times).as_secs_f64());
        ratio = together / alone;
        let size = format!("{} MB", (LAYERS * layer_size).div_ceil(1_000_000));
        outcome.figure(&format!("{size}: requests for the blob, manifest or config that was asked for most"), most, "1");
        outcome.figure(&format!("{size}: one pull"), format!("{alone:.2} s"), "");
        outcome.figure(&format!("{size}: fifty processes pull it at once"), format!("{together:.2} s, {ratio:.2} times one"), "");
        outcome.figure(&format!("{size}: fifty processes pull it when it is there"), format!("{there:.2} s"), "");
        if most > 1 {
            outcome.failures.push(format!("something was asked for {most} times"));
        }
    }
    outcome.figure("of the larger image, how many times one pull", format!("{ratio:.2}"), TOGETHER);
    if ratio > TOGETHER {
        outcome.failures.push(format!("fifty pulls took {ratio:.2} times as long as one"));
    }
    Ok(())
}

/// How long so many pulls take that begin at once.
fn at_once(scene: &Scene, reference: &str, processes: usize, outcome: &mut Outcome) -> Result<Duration> {
    let started = Instant::now();
    let running: Vec<Child> = (0..processes).map(|_| scene.start_pull(reference, &[])).collect();
    for child in running {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            outcome.failures.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(started.elapsed())
}

/// What was done in the churn, and what failed.
#[derive(Default)]
struct Tally {
    pulls: AtomicUsize,
    loads: AtomicUsize,
    imports: AtomicUsize,
    removals: AtomicUsize,
    prunes: AtomicUsize,
    failures: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Tally {
    /// Counts a run that was to end with one of these codes.
    fn count(&self, what: &AtomicUsize, output: &Output, codes: &[i32]) {
        what.fetch_add(1, Ordering::Relaxed);
        if !output.code.is_some_and(|code| codes.contains(&code)) {
            self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(output.to_string());
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Eight pull, two import a file, docker and podman are loaded, and two remove and prune all the while.
fn churn(outcome: &mut Outcome, time: Duration) -> Result {
    let (docker, podman) = (RealEngine::start(Make::Docker), RealEngine::start(Make::Podman));
    let mut sandbox = Sandbox::of(run::build_larder(false)?);
    sandbox.set("DOCKER_HOST", docker.address()).set("CONTAINER_HOST", podman.address());
    let scene = Scene::in_sandbox(sandbox);
    let made = |n: usize| Recipe { layers: 3, layer_size: 200_000, revision: n as u32, ..Recipe::default() }.make();
    let references: Vec<String> = (0..IMAGES).map(|n| scene.serve(&made(n), "demo/app", &format!("v{n}"))).collect();
    // A file of an image that the others pull too, so that what an import counts on may go and come.
    let _ = scene.pull(&references[0], &[]).expect(0);
    let _ = scene.sandbox.run(["export", &references[0], "--platform", PLATFORM, "-o", "./carried.tar"]).expect(0);
    let tally = Tally::default();
    std::thread::scope(|scope| {
        let (scene, references, tally) = (&scene, &references, &tally);
        for first in 0..8 {
            scope.spawn(move || {
                for n in (0..IMAGES).cycle().skip(first).take_while(|_| !tally.is_over()) {
                    tally.count(&tally.pulls, &scene.pull(&references[n], &[]), &[0]);
                }
            });
        }
        for (kind, engine) in [("docker", &docker), ("podman", &podman)] {
            scope.spawn(move || {
                for reference in references.iter().cycle().take_while(|_| !tally.is_over()) {
                    let output = scene.sandbox.run(["ensure", "--engine", kind, reference]);
                    tally.count(&tally.loads, &output, &[0]);
                    if output.code == Some(0) {
                        engine.remove(reference.split('@').next().unwrap_or_default());
                    }
                }
            });
        }
        for name in ["localhost/carried:one", "localhost/carried:two"] {
            scope.spawn(move || {
                while !tally.is_over() {
                    tally.count(&tally.imports, &scene.sandbox.run(["import", "./carried.tar", "--as", name]), &[0]);
                }
            });
        }
        scope.spawn(move || {
            for reference in references.iter().cycle().take_while(|_| !tally.is_over()) {
                // It may be gone already.
                tally.count(&tally.removals, &scene.sandbox.run(["remove", reference]), &[0, 3]);
            }
        });
        scope.spawn(move || {
            for keep in ["0B", "1MB"].iter().cycle().take_while(|_| !tally.is_over()) {
                tally.count(&tally.prunes, &scene.sandbox.run(["prune", "--keep-size", keep]), &[0]);
            }
        });
        std::thread::sleep(time);
        tally.over.store(true, Ordering::Relaxed);
    });
    let done = |what: &AtomicUsize| what.load(Ordering::Relaxed);
    let seconds = format!("{} s", time.as_secs());
    let all = [
        ("pulls", &tally.pulls),
        ("loads", &tally.loads),
        ("imports", &tally.imports),
        ("removals", &tally.removals),
        ("prunes", &tally.prunes),
    ];
    for (name, what) in all {
        outcome.figure(&format!("{name} while others remove and prune"), done(what), &seconds);
    }
    let mut failures = tally.failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcome.figure("of these failed", failures.len(), "0");
    let verified = scene.sandbox.run(["verify"]);
    if verified.code != Some(0) {
        failures.push(format!("afterwards something is missing or wrong\n{verified}"));
    }
    scene::verified(&scene.sandbox.store());
    if all.iter().any(|(_, what)| done(what) == 0) {
        return fail("something had no turn at all");
    }
    outcome.failures.extend(failures);
    Ok(())
}
