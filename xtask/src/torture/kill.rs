//! `kill -9` before every system call that concerns the store.
//!
//! Nothing that was acknowledged is lost, nothing wrong has a name, the same command run again succeeds, and nothing is
//! left over but what is removed by whoever tidies up.

use std::time::Instant;

use super::Arguments;
use super::apart::Memory;
use super::operations;
use super::scene::Scene;
use super::table::Outcome;
use super::tracer::{Meddling, Point};
use super::trial;
use crate::run::{self, Result};

/// Calls that change nothing: a kill before one of them leaves what a kill before the next call does.
const DULL: [&str; 5] = ["read", "pread64", "statx", "statfs", "getdents64"];

/// Fewer points than this are no enumeration: larder would have got past the tracer.
const AT_LEAST: usize = 1_000;

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let memory = Memory::new()?;
    let scene = Scene::new(&run::build_larder(false)?, memory.path())?;
    let mut outcome = Outcome {
        title: "kill -9 before every system call that concerns the store",
        columns: &["operation", "points", "acknowledged images lost", "wrong content or pins", "second runs failed", "seconds"],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    let mut all = 0;
    for operation in operations::all(&scene, memory.path())?.into_iter().filter(|operation| arguments.wants(operation.name)) {
        let started = Instant::now();
        let calls = operation.calls(&scene, memory.path())?;
        let kinds = calls.into_iter().filter(|(call, _)| !DULL.contains(call));
        let points = kinds.flat_map(|(call, count)| (1..=count).map(move |nth| Point { call, nth, meddling: Meddling::Kill }));
        let tally = trial::all(&scene, &operation, &points.collect::<Vec<_>>(), memory.path())?;
        let figures = [tally.points, tally.lost, tally.bad, tally.again].map(|n| n.to_string());
        let seconds = format!("{:.0}", started.elapsed().as_secs_f64());
        outcome.rows.push([operation.name.to_owned()].into_iter().chain(figures).chain([seconds]).collect());
        outcome.failures.extend(tally.failures);
        all += tally.points;
    }
    if all < AT_LEAST && arguments.only.is_none() {
        outcome.failures.push(format!("only {all} points were met, and {AT_LEAST} are the least"));
    }
    Ok(outcome)
}
