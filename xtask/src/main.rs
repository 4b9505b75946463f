//! What is done with larder's source besides building it: show it, test it, measure it.

mod bench;
mod demo;
mod fixtures;
mod fuzz;
mod packages;
mod releases;
mod run;
mod socket;
mod test;
// It reaches into another program's registers, and knows those of one machine.
#[cfg(target_arch = "x86_64")]
mod torture;

#[allow(unreachable_pub, dead_code, clippy::unwrap_used, reason = "the support of the tests, which use more of it")]
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows larder at work, tests it, measures it
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the main job from end to end: pull by digest, lose the registry, load, prove
    Demo(demo::Arguments),
    /// Measure larder beside docker, podman, skopeo and others, in turn, on the same image
    Bench(bench::Arguments),
    /// Install the engines of other Debian releases into folders of their own, for the tests
    Engines(releases::Arguments),
    /// Look for input that a reader of what comes from outside does not stand
    Fuzz(fuzz::Arguments),
    /// Run every check: format, lints, tests on real engines, documentation, dependencies
    Test(test::Arguments),
    /// Kill it, cut its power, fail its system calls: the experiments of docs/reliability.md
    #[cfg(target_arch = "x86_64")]
    Torture(torture::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Engines(arguments) => releases::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        #[cfg(target_arch = "x86_64")]
        Task::Torture(arguments) => torture::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
