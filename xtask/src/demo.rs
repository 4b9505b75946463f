//! The main job, shown to a newcomer.

use crate::run::{Result, fail};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// An image of your own to show it with; it is pulled from its registry
    reference: Option<String>,
}

pub(crate) fn run(_arguments: &Arguments) -> Result {
    fail("not yet")
}
