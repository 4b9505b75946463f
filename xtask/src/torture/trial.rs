//! How a point is tried at which an operation is interrupted: the same for kills and for failing calls.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use serde_json::Value;

use super::judge::Seen;
use super::operations::Operation;
use super::scene::{self, Scene};
use super::tracer::{self, Meddling, Point, Traced};
use crate::run::{Message, Result, fail, shown};

/// What came of a point.
#[derive(Default)]
pub(super) struct Verdict {
    /// Whether the run came that far.
    pub(super) reached: bool,
    pub(super) lost: Vec<String>,
    pub(super) bad: Vec<String>,
    /// Why the run that was interrupted ended wrongly.
    pub(super) ended: Vec<String>,
    /// Why the next run was no good.
    pub(super) again: Vec<String>,
}

/// What came of many points.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) points: usize,
    pub(super) lost: usize,
    pub(super) bad: usize,
    pub(super) ended: usize,
    pub(super) again: usize,
    pub(super) failures: Vec<String>,
}

impl Operation {
    /// How many calls of each kind it makes, in a run that nothing happens to.
    pub(super) fn calls(&self, scene: &Scene, folder: &Path) -> Result<Vec<(&'static str, usize)>> {
        let store = folder.join("counted");
        let run = self.run(scene, &store, None)?;
        if run.code != Some(self.code) {
            return fail(format!("{}: ended with {:?} though nothing happened to it\n{}", self.name, run.code, run.stderr));
        }
        Ok(run.calls.into_iter().collect())
    }

    /// Tries one point: interrupts the operation there, looks at what is left, and does it again.
    ///
    /// A run that is not killed may end well or not, but may not say that it ended well if it did not.
    pub(super) fn try_at(&self, scene: &Scene, point: Point, folder: &Path) -> Result<Verdict> {
        let store = folder.join("store");
        let run = self.run(scene, &store, Some(point))?;
        let mut verdict = Verdict { reached: run.reached.is_some(), ..Verdict::default() };
        if !verdict.reached {
            return Ok(verdict);
        }
        let found = Seen::of(&store)?.judge(&self.during);
        let known = |what: &String| self.damaged.iter().any(|digest| what.contains(&digest.hex()));
        (verdict.lost, verdict.bad) = (found.lost, found.bad.into_iter().filter(|what| !known(what)).collect());
        if run.hung {
            verdict.ended.push("hung".to_owned());
        }
        if scene::panicked(run.code, &run.stderr) {
            verdict.ended.push(format!("panicked: {}", run.stderr));
        }
        if point.meddling != Meddling::Kill && run.code == Some(0) {
            verdict.ended.extend(self.succeeded(&store)?.into_iter().map(|what| format!("said that it succeeded: {what}")));
        }
        verdict.ended.extend(self.believed(&run, point, &store));
        if point.nth.is_multiple_of(2) && self.damaged.is_empty() {
            // At every other point only, since it may mend what the next run is to mend.
            verdict.bad.extend(verified(scene, &store)?);
        }
        verdict.again = self.again(scene, &store)?;
        Ok(verdict)
    }

    /// Why it was wrong to say that it succeeded.
    fn succeeded(&self, store: &Path) -> Result<Vec<String>> {
        let seen = Seen::of(store)?;
        let mut wrong = seen.judge(&self.after).lost;
        if self.code != 0 {
            wrong.push("there was something to find".to_owned());
        }
        // What cannot be told to be old is kept by `prune`.
        let too_many = seen.pins() > self.after.len() && self.arguments[0] != "prune";
        if self.code == 0 && (too_many || seen.pins() < self.after.len()) {
            wrong.push(format!("{} pins, and {} were expected", seen.pins(), self.after.len()));
        }
        Ok(wrong)
    }

    /// What a sync that failed was not allowed to end in.
    fn believed(&self, run: &Traced, point: Point, store: &Path) -> Option<String> {
        let failed = matches!(point.meddling, Meddling::Fail(Errno::EIO | Errno::ENOSPC));
        if !failed || !["fsync", "fdatasync", "syncfs"].contains(&point.call) {
            return None;
        }
        let file = run.reached.as_deref()?;
        let blob = store.join("blobs/sha256").join(file.file_stem()?);
        if file.extension().is_some_and(|e| e == "part") && blob.exists() {
            return Some(format!("{} was named though the sync failed", blob.display()));
        }
        // Where the damaged blob lies is promised to nobody.
        let promised = self.damaged.is_empty() || file != store;
        (promised && run.code == Some(0)).then(|| format!("said that it succeeded though the sync of {} failed", file.display()))
    }

    fn run(&self, scene: &Scene, store: &Path, point: Option<Point>) -> Result<Traced> {
        scene::copy(&self.start, store)?;
        tracer::run(&scene.larder(store, &self.arguments), store, point)
    }

    /// Runs what brings it to its end, with nothing in the way, and tells what is wrong afterwards.
    fn again(&self, scene: &Scene, store: &Path) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (arguments, codes) in &self.then {
            wrong.extend(ends(scene, store, arguments, codes)?);
        }
        let seen = Seen::of(store)?;
        let found = seen.judge(&self.after);
        wrong.extend(found.lost.into_iter().chain(found.bad));
        if seen.pins() != self.after.len() {
            wrong.push(format!("{} pins, and {} were expected", seen.pins(), self.after.len()));
        }
        if !seen.index_is_right() {
            wrong.push("index.json does not say what the pins do".to_owned());
        }
        wrong.extend(verified(scene, store)?);
        let prune = ["prune", "--parts-older-than", "0s", "--damaged"].map(str::to_owned);
        wrong.extend(ends(scene, store, &prune, &[0])?);
        wrong.extend(Seen::of(store)?.leftovers()?.into_iter().map(|left| format!("{left} is left over")));
        Ok(wrong)
    }
}

/// Runs larder; what is wrong if it does not end like this.
fn ends(scene: &Scene, store: &Path, arguments: &[String], codes: &[i32]) -> Result<Option<String>> {
    let mut command = scene.larder(store, arguments);
    let output = command.output()?;
    if output.status.code().is_some_and(|code| codes.contains(&code)) {
        return Ok(None);
    }
    Ok(Some(format!("`{}` ended with {}: {}", shown(&command), output.status, String::from_utf8_lossy(&output.stderr))))
}

/// What larder itself finds wrong, but for what merely lies about.
fn verified(scene: &Scene, store: &Path) -> Result<Vec<String>> {
    let output = scene.larder(store, &["verify".to_owned(), "--json".to_owned()]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let found = printed.lines().filter(|line| serde_json::from_str::<Value>(line).map_or(true, |line| line["fault"] == true));
    let mut wrong: Vec<_> = found.map(|line| format!("verify finds: {line}")).collect();
    if !output.status.success() {
        wrong.push(format!("verify ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(wrong)
}

/// Tries all points, on every core, and counts what came of them.
pub(super) fn all(scene: &Scene, operation: &Operation, points: &[Point], folder: &Path) -> Result<Tally> {
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let work = |worker: usize| -> std::result::Result<(), String> {
        let folder = folder.join(format!("worker-{worker}"));
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = operation.try_at(scene, *point, &folder);
            let verdict = verdict.map_err(|e| format!("{}, {}: {e}", operation.name, Shown(point)))?;
            tally.lock().unwrap_or_else(PoisonError::into_inner).add(operation, point, verdict);
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
        let ended = started.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a worker panicked".to_owned())));
        ended.collect::<std::result::Result<Vec<()>, String>>()
    })
    .map_err(Message)?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Tally {
    fn add(&mut self, operation: &Operation, point: &Point, verdict: Verdict) {
        self.points += usize::from(verdict.reached);
        let Verdict { lost, bad, ended, again, .. } = verdict;
        for (count, what) in [(&mut self.lost, &lost), (&mut self.bad, &bad), (&mut self.ended, &ended), (&mut self.again, &again)] {
            *count += usize::from(!what.is_empty());
        }
        let wrong = [lost, bad, ended, again].concat();
        if !wrong.is_empty() {
            self.failures.push(format!("{}, {}:\n{}", operation.name, Shown(point), wrong.join("\n")));
        }
    }
}

/// A point as a person would say it.
struct Shown<'a>(&'a Point);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Point { call, nth, meddling } = self.0;
        match meddling {
            Meddling::Kill => write!(f, "killed before {call} number {nth}"),
            Meddling::Fail(errno) => write!(f, "{call} number {nth} fails with {errno}"),
            Meddling::Short => write!(f, "{call} number {nth} moves one byte"),
        }
    }
}
