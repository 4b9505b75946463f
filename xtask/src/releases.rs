//! Engines of other Debian releases, in folders of their own: see `tests/engines/debian`.

use std::process::Command;

use crate::packages;
use crate::run::{self, Result, fail};

/// The release whose engines the tests always use: docker with both of its image stores, and a newer podman.
pub(crate) const ALWAYS: &[&str] = &["trixie"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Debian releases whose engines are wanted
    #[arg(value_name = "SUITE", default_values = ["trixie", "sid"])]
    suites: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    if !packages::is_root() {
        return fail("the engines of other releases are installed with debootstrap, and that needs root");
    }
    prepare(arguments.suites.iter().map(String::as_str))
}

/// Installs the engines of these releases, once.
pub(crate) fn prepare<'a>(suites: impl IntoIterator<Item = &'a str>) -> Result {
    packages::require(&[packages::RELEASES])?;
    for suite in suites {
        let script = run::root().join("tests/engines/debian");
        run::run(Command::new("sh").arg(script).args(["prepare", suite]))?;
    }
    Ok(())
}
