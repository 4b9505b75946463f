//! Shell completions and manual pages, made from the arguments' own descriptions.

use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;
use super::display::Screen;
use super::failure::{Exit, Failure};

pub(crate) fn completions(shell: clap_complete::Shell, screen: &Screen) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "larder", &mut script);
    screen.line(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}

pub(crate) fn write(dir: &Path, screen: &Screen) -> Result<Exit, Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Exit::Failed, "manual", format!("the manual pages could not be written into {}", dir.display())).with("it said", e)
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    screen.note(&format!("wrote the manual pages into {}", dir.display()));
    Ok(Exit::Done)
}
