//! The power goes while larder works on ext4, xfs and btrfs.
//!
//! Every write that the disk is told is recorded, and what larder acknowledged when. From that, disks are made as a power cut at some
//! moment could have left them: all that was flushed until then, and of what was written since none, all or a random half of the blocks. Each
//! is mounted and looked at. What larder had acknowledged is there whole, nothing wrong has a name, and the next pull
//! succeeds and leaves an index for other tools that is right.

mod disk;
mod log;
mod workload;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::disk::{FileSystem, Recorded};
use self::log::{Kept, Log};
use self::workload::Said;
use super::apart::{self, Memory};
use super::judge::Seen;
use super::scene::{Scene, next};
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
    requests: usize,
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
        let figures = [tally.requests, tally.states, tally.lost, tally.bad, tally.again].map(|n| n.to_string());
        let seconds = format!("{:.0}", took.as_secs_f64());
        outcome.rows.push([system.to_owned()].into_iter().chain(figures).chain([seconds]).collect());
        outcome.failures.extend(tally.failures);
    }
    Ok(outcome)
}

/// Cuts the power so many times on each file system.
pub(super) fn everywhere(scene: &Scene, states: usize, folder: &Path) -> Result<Vec<(&'static str, Tally, Duration)>> {
    let works = on_each(disk::ALL.iter(), |system| Work::record(system, scene, &folder.join(system.name)))?;
    // What is looked at from here on was left by an earlier run of the system.
    apart::reboot(folder)?;
    // One disk of a file system at a time: to the kernel, two copies of one btrfs are one.
    on_each(works.iter(), |work| {
        let started = Instant::now();
        Ok((work.system.name, work.cut(scene, states)?, started.elapsed()))
    })
}

/// Does something with each of these, all at once.
fn on_each<T: Send, R: Send>(each: impl Iterator<Item = T>, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let work = &work;
    let results: std::result::Result<Vec<R>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = each.map(|one| scope.spawn(move || work(one).map_err(|e| e.to_string()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))).collect()
    });
    Ok(results.map_err(Message)?)
}

/// What was done on a file system, recorded.
struct Work {
    system: &'static FileSystem,
    folder: PathBuf,
    /// The disk as it was before.
    base: PathBuf,
    said: Vec<Said>,
    log: Log,
}

impl Work {
    fn record(system: &'static FileSystem, scene: &Scene, folder: &Path) -> Result<Work> {
        std::fs::create_dir_all(folder)?;
        let base = folder.join("base");
        system.make(&base)?;
        let disk = Recorded::start(system, folder, &base)?;
        let said = workload::run(scene, &disk, system.name)?;
        Ok(Work { system, folder: folder.to_owned(), base, said, log: disk.stop()? })
    }

    fn cut(&self, scene: &Scene, states: usize) -> Result<Tally> {
        let (state, requests) = (self.folder.join("state"), self.log.len());
        let mut tally = Tally { requests, ..Tally::default() };
        let moments = workload::moments(&self.said);
        let mut random = SEED;
        for n in 0..states {
            let anywhere = 1 + usize::try_from(next(&mut random))? % requests;
            let (after, kept) = match n % 4 {
                // At once when something was said, and nothing is kept that need not be.
                0 => (moments[n / 4 % moments.len()], Kept::Flushed),
                1 => (anywhere, Kept::All),
                _ => (anywhere, Kept::Some(next(&mut random))),
            };
            self.log.cut(&self.base, &state, after, kept)?;
            let wrong = look(self.system, scene, &state, workload::at(&self.said, after), &self.folder)?;
            tally.add(&wrong, || {
                format!("{}, cut after request {after} of {requests}, of what was not flushed is kept: {kept:?}", self.system.name)
            });
        }
        Ok(tally)
    }
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
    let damaged = |what: &String| said.damaged.is_some_and(|digest| what.contains(&digest.hex()));
    let mut wrong = Wrong { lost: found.lost, bad: found.bad.into_iter().filter(|what| !damaged(what)).collect(), again: Vec::new() };
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
