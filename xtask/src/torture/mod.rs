//! The experiments that hold the store to its promise; `docs/reliability.md` has what they show.
//!
//! One file each. An experiment brings its own registry, stores and file systems, does what is to be survived, and gives
//! an [`Outcome`]: a table, and what was not survived. Always true: nothing that it started or mounted outlives it, however
//! it ends; see [`apart`].

mod apart;
mod flips;
mod inject;
mod judge;
mod kill;
mod memory;
mod operations;
mod power;
mod processes;
mod sabotage;
mod scale;
mod scene;
mod storm;
mod table;
mod tracer;
mod trial;

use std::time::Instant;

use clap::Subcommand;

use self::table::Outcome;
use crate::packages;
use crate::run::{self, Result, fail};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    experiment: Option<Experiment>,
    /// As much of it as fits into minutes: what `cargo xtask test` runs
    #[arg(long, global = true)]
    bounded: bool,
    /// Only rows whose names contain this text
    #[arg(long, global = true, value_name = "TEXT")]
    only: Option<String>,
}

impl Arguments {
    fn wants(&self, operation: &str) -> bool {
        self.only.as_ref().is_none_or(|text| operation.contains(text.as_str()))
    }
}

#[derive(Clone, Copy, Subcommand)]
enum Experiment {
    /// Kill larder before every system call that concerns its store, and go on from what is left
    Kill,
    /// Cut the power while larder works, on ext4, xfs and btrfs
    Power,
    /// Let every system call that concerns the store fail once
    Inject,
    /// See that deliberate faults of the store are noticed by these experiments
    Sabotage,
    /// Let many processes pull one image, and pull, load, remove and prune at once
    Processes,
    /// Kill some of eight processes at random, and take files away from under a run
    Storm,
    /// Damage a thousand blobs at random, again and again
    Flips,
    /// Ask of a store of 10,000 images what is asked of one of ten
    Scale,
    /// Work on a layer of 10 GB, and on 4,096 layers, in 128 MiB of memory
    Memory,
}

/// All of them, in the order of the document.
const ALL: [Experiment; 9] = [
    Experiment::Kill,
    Experiment::Power,
    Experiment::Inject,
    Experiment::Sabotage,
    Experiment::Processes,
    Experiment::Storm,
    Experiment::Flips,
    Experiment::Scale,
    Experiment::Memory,
];

/// How many of them `--bounded` means: the others have a short form among the tests.
const BOUNDED: usize = 4;

impl Experiment {
    fn run(self, arguments: &Arguments) -> Result<Outcome> {
        let bounded = arguments.bounded;
        match self {
            Experiment::Kill => kill::run(arguments),
            Experiment::Power => power::run(bounded),
            Experiment::Inject => inject::run(arguments),
            Experiment::Sabotage => sabotage::run(arguments),
            Experiment::Processes => processes::run(bounded),
            Experiment::Storm => storm::run(arguments),
            Experiment::Flips => flips::run(bounded),
            Experiment::Scale => scale::run(),
            Experiment::Memory => memory::run(bounded),
        }
    }
}

/// Runs one experiment, or all of them, and prints their tables.
pub(crate) fn run(arguments: &Arguments) -> Result {
    if !packages::is_root() {
        return fail(
            "the experiments mount file systems of their own, and that needs root\n  \
             hint: run `sudo -E env \"PATH=$PATH\" cargo xtask torture`",
        );
    }
    if !apart::is_apart() {
        packages::require(&[packages::FAULTS])?;
        return apart::run_again();
    }
    let all = if arguments.bounded { &ALL[..BOUNDED] } else { &ALL };
    let wanted = arguments.experiment.map_or_else(|| all.to_vec(), |one| vec![one]);
    let mut failed = 0;
    for experiment in wanted {
        let started = Instant::now();
        let outcome = experiment.run(arguments)?;
        outcome.print(started.elapsed());
        failed += outcome.failures.len();
    }
    if failed == 0 { Ok(()) } else { fail(format!("{failed} times something was not survived, see above")) }
}

/// What of it the tests run, in a process that is not this one.
pub(crate) fn bounded() -> Result {
    run::run(std::process::Command::new(std::env::current_exe()?).args(["torture", "--bounded"]))
}
