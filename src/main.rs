//! The command `larder`. All it does is in the library; see `cli` for what is said, asked and answered.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
