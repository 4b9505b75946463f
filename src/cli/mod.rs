//! The command: arguments in, words and exit codes out. Nothing is decided here that the library could decide.

mod args;
mod check;
mod deadline;
mod deep;
mod display;
mod engines;
mod ensure;
mod export;
mod failure;
mod import;
mod inspect;
mod list;
mod manual;
mod progress;
mod prune;
mod pull;
mod remove;
mod routes;
mod session;
mod settings;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use display::Screen;
use failure::Exit;
use session::Session;

/// Does what the arguments say.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let screen = Screen::new(&cli.global);
    let exit = match dispatch(&cli, &screen) {
        Ok(exit) => exit,
        Err(failure) => {
            screen.failure(serde_json::json!({}), &failure);
            failure.exit
        }
    };
    ExitCode::from(screen.finish(exit).code())
}

fn dispatch(cli: &Cli, screen: &Screen) -> Result<Exit, failure::Failure> {
    let command = match &cli.command {
        Command::Completions { shell } => return manual::completions(*shell, screen),
        Command::Manual { dir } => return manual::write(dir, screen),
        other => other,
    };
    let session = Session::open(&cli.global, screen)?;
    match command {
        Command::Ensure(args) => session.wait(ensure::ensure(&session, args)),
        Command::Load(args) => session.wait(ensure::load(&session, args)),
        Command::Pull(args) => session.wait(pull::pull(&session, args)),
        Command::Import(args) => session.wait(import::import(&session, args)),
        Command::Check(args) => session.wait(check::check(&session, args)),
        Command::Export(args) => export::export(&session, args),
        Command::List(args) => list::list(&session, args),
        Command::Inspect(args) => session.wait(inspect::inspect(&session, args)),
        Command::Remove(args) => remove::remove(&session, args),
        Command::Verify(args) => session.wait(verify::verify(&session, args)),
        Command::Prune(args) => prune::prune(&session, args),
        Command::Engines => session.wait(engines::engines(&session)),
        Command::Completions { .. } | Command::Manual { .. } => Ok(Exit::Done),
    }
}
