//! What is interrupted, at which points, and how a point is tried: the same for kills and for failing calls.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use larder::digest::Digest;
use larder::store::{Pruning, Store};
use nix::errno::Errno;

use super::judge::{Held, Seen};
use super::scene::{self, Scene};
use super::tracer::{self, Meddling, Point, Traced};
use crate::run::{Message, Result, fail, shown};

/// A run of larder that is interrupted, and what that may not harm.
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// A store as it is before; where there is none, the operation makes it.
    start: PathBuf,
    arguments: Vec<String>,
    /// How it may end when it is run again; the first is how it ends when nothing happens.
    codes: &'static [i32],
    /// What is there whatever happens.
    during: Vec<Held>,
    /// What is there when it succeeded, and nothing else.
    after: Vec<Held>,
    /// What is wrong before, and may be until it succeeded.
    damaged: Vec<Digest>,
}

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

/// What larder does to a store, each from a start that it is worth interrupting at.
pub(super) fn operations(scene: &Scene, folder: &Path) -> Result<Vec<Operation>> {
    let starts = folder.join("starts");
    std::fs::create_dir_all(&starts)?;
    let with = |name: &str, tags: &[&str]| -> Result<PathBuf> {
        let store = starts.join(name);
        tags.iter().try_for_each(|tag| scene.must(&store, &scene.pull(tag)))?;
        Ok(store)
    };
    let (first, second) = (|tag: &str| scene.held(tag, &[&scene.first]), |tag: &str| scene.held(tag, &[&scene.second]));
    let pull =
        |name, start, during, after| Operation { name, start, arguments: scene.pull("first"), codes: &[0], during, after, damaged: vec![] };
    let moved = move_tag(scene, &starts)?;
    let (start, damaged) = damage(scene, with("damaged", &["first"])?)?;
    let heal = Operation { damaged, ..pull("pull of a damaged image", start, vec![], vec![first("first")]) };
    let remove = |name, start, tag: &str, after: Vec<Held>| {
        let arguments = vec!["remove".to_owned(), scene.name(tag)];
        Operation { name, start, arguments, codes: &[0, 3], during: after.clone(), after, damaged: vec![] }
    };
    Ok(vec![
        pull("pull into nothing", starts.join("nothing"), vec![], vec![first("first")]),
        pull("pull from parts", parts(scene, with("parts", &["second"])?)?, vec![second("second")], vec![first("first"), second("second")]),
        pull("pull beside an image", with("beside", &["second"])?, vec![second("second")], vec![first("first"), second("second")]),
        heal,
        moved,
        remove("remove one of two", with("two", &["first", "second"])?, "first", vec![second("second")]),
        remove("remove the only one", with("only", &["first"])?, "first", vec![]),
    ])
}

/// A pull by a tag that means another image than when it was pinned: there are two pins then, and the newer one answers.
fn move_tag(scene: &Scene, starts: &Path) -> Result<Operation> {
    let start = starts.join("moved");
    scene.serve(&scene.first, "moved");
    scene.must(&start, &scene.pull("moved"))?;
    scene.serve(&scene.second, "moved");
    let (old, new) = (scene.held("moved", &[&scene.first]), scene.held("moved", &[&scene.second]));
    let arguments = scene.pull("moved");
    let (during, after) = (vec![old.clone()], vec![old, new]);
    Ok(Operation { name: "pull of a tag that moved", start, arguments, codes: &[0], during, after, damaged: vec![] })
}

/// Leaves half of every blob of the first image, as a run that was cut off would.
fn parts(scene: &Scene, store: PathBuf) -> Result<PathBuf> {
    for (digest, bytes) in &scene.first.blobs {
        if !store.join("blobs/sha256").join(digest.hex()).exists() {
            std::fs::write(store.join("ingest").join(format!("{}.part", digest.hex())), &bytes[..bytes.len() / 2])?;
        }
    }
    Ok(store)
}

/// Cuts off most of the largest layer and of the manifest.
fn damage(scene: &Scene, store: PathBuf) -> Result<(PathBuf, Vec<Digest>)> {
    let one = &scene.first.platforms[0];
    let largest = one.layers.iter().max_by_key(|layer| layer.size).ok_or_else(|| Message("the image has no layers".into()))?;
    for (digest, length) in [(largest.digest, 100), (one.manifest.digest, 10)] {
        let path = store.join("blobs/sha256").join(digest.hex());
        let bytes = std::fs::read(&path)?;
        std::fs::remove_file(&path)?;
        std::fs::write(&path, &bytes[..length])?;
    }
    Ok((store, vec![largest.digest, one.manifest.digest]))
}

impl Operation {
    /// How many calls of each kind it makes, in a run that nothing happens to.
    pub(super) fn calls(&self, scene: &Scene, folder: &Path) -> Result<Vec<(&'static str, usize)>> {
        let store = folder.join("counted");
        let run = self.run(scene, &store, None)?;
        if run.code != Some(self.codes[0]) {
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
        if run.code == Some(101) || run.stderr.contains("panicked") {
            verdict.ended.push(format!("panicked: {}", run.stderr));
        }
        if point.meddling != Meddling::Kill && run.code == Some(self.codes[0]) {
            let found = Seen::of(&store)?.judge(&self.after);
            verdict.ended.extend(found.lost.into_iter().map(|what| format!("said that it succeeded: {what}")));
        }
        verdict.ended.extend(self.believed(&run, point, &store));
        verdict.again = self.again(scene, &store)?;
        Ok(verdict)
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

    /// The same command once more, with nothing in its way; what is wrong afterwards.
    fn again(&self, scene: &Scene, store: &Path) -> Result<Vec<String>> {
        let mut command = scene.larder(store, &self.arguments);
        let output = command.output()?;
        let mut wrong = Vec::new();
        if !output.status.code().is_some_and(|code| self.codes.contains(&code)) {
            wrong.push(format!("`{}` ended with {}: {}", shown(&command), output.status, String::from_utf8_lossy(&output.stderr)));
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
        let kept = Store::open(store)?;
        let everything = Pruning { parts_since: Some(Timestamp::MAX), damaged: true, ..Pruning::default() };
        kept.prune(&everything, &kept.exclude()?)?;
        wrong.extend(Seen::of(store)?.leftovers()?.into_iter().map(|left| format!("{left} is left over")));
        Ok(wrong)
    }
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
