//! The power goes while larder works on ext4, xfs and btrfs.
//!
//! Every write that the disk is told is recorded, and what larder acknowledged when. From that, disks are made as a power cut at some
//! moment could have left them: all that was flushed until then, and of what was written since none, all or a random half of the blocks. Each
//! is mounted and looked at. What larder had acknowledged is there whole, nothing wrong has a name, and the next pull
//! succeeds and leaves an index for other tools that is right.

mod disk;
mod log;
mod workload;

use std::path::Path;
use std::time::{Duration, Instant};

use self::disk::{FileSystem, Recorded};
use self::log::Kept;
use self::workload::Said;
use super::apart::Memory;
use super::judge::Seen;
use super::scene::Scene;
use super::table::Outcome;
use crate::run::{self, Message, Result};

/// How many disks are looked at for each file system.
const STATES: usize = 1_000;
const BOUNDED: usize = 100;

/// The same cuts in every run.
const SEED: u64 = 0x1a7d_e700_0000_0001;

/// What came of the cuts on one file system.
#[derive(Default)]
pub(super) struct Tally {
    writes: usize,
    states: usize,
    lost: usize,
    bad: usize,
    again: usize,
    pub(super) failures: Vec<String>,
}

pub(super) fn run(bounded: bool) -> Result<Outcome> {
    let memory = Memory::new()?;
    let scene = Scene::new(&run::build_larder(false)?, memory.path())?;
    let mut outcome = Outcome {
        title: "the power is cut",
        columns: &[
            "file system",
            "requests to the disk",
            "crash states",
            "lost an acknowledged image",
            "wrong content or pins",
            "next pull failed",
            "seconds",
        ],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    for (system, tally, took) in everywhere(&scene, if bounded { BOUNDED } else { STATES }, memory.path())? {
        let figures = [tally.writes, tally.states, tally.lost, tally.bad, tally.again].map(|n| n.to_string());
        let seconds = format!("{:.0}", took.as_secs_f64());
        outcome.rows.push([system.to_owned()].into_iter().chain(figures).chain([seconds]).collect());
        outcome.failures.extend(tally.failures);
    }
    Ok(outcome)
}

/// Cuts the power so many times on each file system.
pub(super) fn everywhere(scene: &Scene, states: usize, folder: &Path) -> Result<Vec<(&'static str, Tally, Duration)>> {
    // One disk of a file system at a time: to the kernel, two copies of one btrfs are one.
    let one = |system: &'static FileSystem| {
        let started = Instant::now();
        let tally = on(system, scene, states, &folder.join(system.name)).map_err(|e| format!("{}: {e}", system.name))?;
        Ok((system.name, tally, started.elapsed()))
    };
    let results: std::result::Result<Vec<_>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = disk::ALL.iter().map(|system| scope.spawn(move || one(system))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))).collect()
    });
    Ok(results.map_err(Message)?)
}

fn on(system: &FileSystem, scene: &Scene, states: usize, folder: &Path) -> Result<Tally> {
    std::fs::create_dir_all(folder)?;
    let base = folder.join("base");
    system.make(&base)?;
    let disk = Recorded::start(system, folder, &base)?;
    let said = workload::run(scene, &disk, system.name)?;
    let log = disk.stop()?;
    let mut tally = Tally { writes: log.len(), ..Tally::default() };
    let mut random = SEED;
    for n in 0..states {
        let after = 1 + usize::try_from(log::next(&mut random))? % log.len();
        let kept = match n % 4 {
            0 => Kept::Flushed,
            1 => Kept::All,
            _ => Kept::Some(log::next(&mut random)),
        };
        let state = folder.join("state");
        log.cut(&base, &state, after, kept)?;
        let wrong = look(system, scene, &state, workload::at(&said, after), folder)?;
        tally
            .add(&wrong, || format!("{}, cut after request {after} of {}, kept of what was not flushed: {kept:?}", system.name, log.len()));
    }
    Ok(tally)
}

/// What is wrong on a disk that was cut off.
#[derive(Default)]
struct Wrong {
    lost: Vec<String>,
    bad: Vec<String>,
    again: Vec<String>,
}

fn look(system: &FileSystem, scene: &Scene, state: &Path, said: &Said, folder: &Path) -> Result<Wrong> {
    let mounted = match system.mount(state, &folder.join("looked-at")) {
        Ok(mounted) => mounted,
        Err(e) => return Ok(Wrong { bad: vec![e.to_string()], ..Wrong::default() }),
    };
    let store = mounted.path().join(workload::STORE);
    let seen = Seen::of(&store)?;
    let found = seen.judge(&said.held);
    let mut wrong = Wrong { lost: found.lost, bad: found.bad, again: Vec::new() };
    wrong.bad.extend(said.gone.iter().filter(|name| seen.has(name)).map(|name| format!("{name} was removed, and is there")));
    let output = scene.larder(&store, &scene.pull("first")).output()?;
    if !output.status.success() {
        wrong.again.push(format!("the next pull ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
        return Ok(wrong);
    }
    let seen = Seen::of(&store)?;
    let held = said.held.iter().cloned().chain([scene.held("first", &[&scene.first])]).collect::<Vec<_>>();
    let found = seen.judge(&held);
    wrong.again.extend(found.lost.into_iter().chain(found.bad));
    if !seen.index_is_right() {
        wrong.again.push("index.json does not say what the pins do".to_owned());
    }
    Ok(wrong)
}

impl Tally {
    fn add(&mut self, wrong: &Wrong, what: impl Fn() -> String) {
        self.states += 1;
        for (count, found) in [(&mut self.lost, &wrong.lost), (&mut self.bad, &wrong.bad), (&mut self.again, &wrong.again)] {
            *count += usize::from(!found.is_empty());
        }
        let all: Vec<_> = [&wrong.lost, &wrong.bad, &wrong.again].into_iter().flatten().cloned().collect();
        if !all.is_empty() {
            self.failures.push(format!("{}:\n{}", what(), all.join("\n")));
        }
    }
}
