//! The one check, the same on every machine and on CI.

use std::process::Command;

use crate::fixtures;
use crate::fuzz;
use crate::packages;
use crate::releases;
use crate::run::{self, Result, Steps, cargo, fail};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out what needs engines, root or images of the real size; nothing is installed
    #[arg(long)]
    fast: bool,
    /// Run only the tests whose names contain one of these texts, and no other check
    filter: Vec<String>,
}

/// Tests under `real::` run engines and programs that have to be installed.
const REAL: &str = "real::";

pub(crate) fn run(arguments: &Arguments) -> Result {
    if !arguments.fast {
        if !packages::is_root() {
            return fail(
                "the tests start engines of their own, and those need root\n  \
                 hint: run `sudo -E env \"PATH=$PATH\" cargo xtask test`; `cargo xtask test --fast` does what needs no root",
            );
        }
        packages::require(&[packages::ENGINES, packages::OTHERS, packages::FIXTURES, packages::FAULTS, packages::FUZZ])?;
    }
    let mut steps = Steps::default();
    if !arguments.fast {
        steps.step("engines", || releases::prepare(releases::ALWAYS.iter().copied()));
        steps.step("images", || fixtures::build(fixtures::SMALL));
    }
    let whole = arguments.filter.is_empty();
    if whole {
        steps.step("format", || run::run(cargo().args(["fmt", "--all", "--check"])));
        steps.step("lints", lints);
    }
    steps.step("tests", || run::run(&mut tests(arguments)));
    #[cfg(target_arch = "x86_64")]
    if whole && !arguments.fast {
        steps.step("faults", crate::torture::bounded);
    }
    if whole && !arguments.fast {
        steps.step("fuzz", fuzz::bounded);
    }
    if whole {
        steps.step("doctests", || run::run(cargo().args(["test", "--doc"])));
        steps.step("documentation", || run::run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings")));
        steps.step("dependencies", dependencies);
    }
    steps.close()
}

/// Of the deliberate faults, which are not in a usual build, the library and the command alone.
fn lints() -> Result {
    run::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    run::run(cargo().args(["clippy", "--package", "larder", "--features", "sabotage", "--", "--deny", "warnings"]))
}

fn tests(arguments: &Arguments) -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--all-targets", "--"]).args(&arguments.filter);
    if arguments.fast {
        command.args(["--skip", REAL]);
    } else {
        command.env("LARDER_TEST_FIXTURES", fixtures::folder());
    }
    command
}

/// Licences, bans and sources need no network; advisories are asked for where the network allows.
fn dependencies() -> Result {
    if cargo().args(["deny", "--version"]).output().map_or(true, |o| !o.status.success()) {
        if !run::ask("cargo-deny is missing. Install it now?", true)? {
            return fail("cargo-deny is missing, so licences and bans were not checked\n  hint: cargo install --locked cargo-deny");
        }
        run::run(cargo().args(["install", "--locked", "--quiet", "cargo-deny"]))?;
    }
    run::run(cargo().args(["deny", "--workspace", "check", "bans", "licenses", "sources"]))?;
    let fetched = cargo().args(["deny", "fetch", "db"]).output().is_ok_and(|o| o.status.success());
    if !fetched {
        eprintln!("the advisory database cannot be had: advisories were not checked");
        return Ok(());
    }
    run::run(cargo().args(["deny", "--workspace", "check", "--disable-fetch", "advisories"]))
}
