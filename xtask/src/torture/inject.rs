//! Every system call that concerns the store fails once, in every way that it can, or moves one byte only.
//!
//! The run may fail, and the next one succeeds; but it never says that it succeeded when it did not, never panics, loses nothing that
//! was acknowledged, and what the disk would not take is neither named nor acknowledged.

use std::time::Instant;

use nix::errno::Errno;

use super::Arguments;
use super::apart::Memory;
use super::operations;
use super::scene::Scene;
use super::table::Outcome;
use super::tracer::{Meddling, Point};
use super::trial;
use crate::run::{self, Result};

/// How a kind of call goes wrong.
const FAULTS: &[(&[&str], &[Meddling])] = {
    use Errno::{EINTR, EIO, EMFILE, ENOSPC, EROFS};
    use Meddling::{Fail, Short};
    &[
        (&["openat"], &[Fail(EIO), Fail(EMFILE), Fail(ENOSPC), Fail(EROFS), Fail(EINTR)]),
        (&["read", "pread64"], &[Fail(EIO), Fail(EINTR), Short]),
        (&["write", "pwrite64", "copy_file_range"], &[Fail(EIO), Fail(ENOSPC), Fail(EINTR), Short]),
        (&["fsync", "fdatasync", "syncfs"], &[Fail(EIO), Fail(ENOSPC), Fail(EINTR)]),
        (&["mkdir", "mkdirat", "rename", "renameat2", "link", "linkat", "fallocate"], &[Fail(EIO), Fail(ENOSPC), Fail(EROFS)]),
        (&["unlink", "unlinkat", "rmdir", "fchmod", "chmod", "utimensat"], &[Fail(EIO), Fail(EROFS)]),
        (&["ftruncate"], &[Fail(EIO), Fail(ENOSPC), Fail(EINTR)]),
        (&["flock", "statx", "statfs", "getdents64", "close"], &[Fail(EIO), Fail(EINTR)]),
    ]
};

/// Of so many points, the tests try one.
const SAMPLE: usize = 8;

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let memory = Memory::new()?;
    let scene = Scene::new(&run::build_larder(false)?, memory.path())?;
    let mut outcome = Outcome {
        title: "every system call that concerns the store fails once",
        columns: &[
            "operation",
            "points",
            "acknowledged images lost",
            "wrong content or pins",
            "wrong successes, panics, hangs",
            "second runs failed",
            "seconds",
        ],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    for operation in operations::all(&scene, memory.path())?.into_iter().filter(|operation| arguments.wants(operation.name)) {
        let started = Instant::now();
        let calls = operation.calls(&scene, memory.path())?;
        let points = calls.iter().flat_map(|(call, count)| points(call, *count));
        let points: Vec<_> = points.step_by(if arguments.bounded { SAMPLE } else { 1 }).collect();
        let tally = trial::all(&scene, &operation, &points, memory.path())?;
        let figures = [tally.points, tally.lost, tally.bad, tally.ended, tally.again].map(|n| n.to_string());
        let seconds = format!("{:.0}", started.elapsed().as_secs_f64());
        outcome.rows.push([operation.name.to_owned()].into_iter().chain(figures).chain([seconds]).collect());
        outcome.failures.extend(tally.failures);
    }
    Ok(outcome)
}

/// Every way in which these calls go wrong, one call after the other.
fn points(call: &'static str, count: usize) -> impl Iterator<Item = Point> {
    let faults = FAULTS.iter().find(|(calls, _)| calls.contains(&call)).map_or(&[][..], |(_, faults)| faults);
    (1..=count).flat_map(move |nth| faults.iter().map(move |meddling| Point { call, nth, meddling: *meddling }))
}
