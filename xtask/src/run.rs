//! Runs programs, says which, and how long they took.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a task ends with.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A message for whoever ran the task.
#[derive(Debug)]
pub(crate) struct Message(pub(crate) String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Message {}

/// Fails with a message.
pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(Box::new(Message(message.into())))
}

/// The folder of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the project's folder")
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let variables =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(&value?.to_string_lossy()))));
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let arguments = command.get_args().map(|a| quoted(&a.to_string_lossy()));
    let words: Vec<_> = variables.chain([program.to_string_lossy().into_owned()]).chain(arguments).collect();
    words.join(" ")
}

/// For a person to copy into a shell.
fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=@,+%".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Runs a program to its end with what it prints shown; fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result {
    let text = shown(command);
    let status = command.stdin(Stdio::null()).status().map_err(|e| Message(format!("`{text}` could not be started: {e}")))?;
    if status.success() { Ok(()) } else { fail(format!("`{text}` failed ({status})")) }
}

/// Runs a program to its end and returns what it prints; what it complains about is shown.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let text = shown(command);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| Message(format!("`{text}` could not be started: {e}")))?;
    if !output.status.success() {
        return fail(format!("`{text}` failed ({})", output.status));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds larder and says where it is.
pub(crate) fn build_larder(optimised: bool) -> Result<PathBuf> {
    eprintln!("building larder{} …", if optimised { ", optimised (a few minutes, the first time)" } else { "" });
    build(if optimised { &["--release"] } else { &[] })
}

/// Builds larder with its deliberate faults and copies it to where nobody takes it for larder.
pub(crate) fn build_sabotaged(copy: &Path) -> Result {
    eprintln!("building larder with deliberate faults …");
    std::fs::copy(build(&["--features", "sabotage"])?, copy)?;
    // What lies in `target/debug` is the honest one again.
    build(&[]).map(drop)
}

fn build(arguments: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "--package", "larder", "--message-format", "json-render-diagnostics"]).args(arguments);
    let messages = read(&mut command)?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = built.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
    Ok(program.ok_or_else(|| Message("cargo did not say where it put larder".into()))?)
}

/// Asks a question that is answered with yes or no. Without a terminal, or on CI, the answer is as given.
pub(crate) fn ask(question: &str, on_ci: bool) -> Result<bool> {
    if ci() {
        return Ok(on_ci);
    }
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Whether this runs on a machine where nobody answers.
pub(crate) fn ci() -> bool {
    std::env::var("CI").is_ok_and(|v| !matches!(v.as_str(), "" | "0" | "false"))
}

/// The steps of a task, with their times.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration, Option<String>)>,
}

impl Steps {
    /// Runs a step. One that fails does not keep the later ones from running.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result) {
        eprintln!("\n── {name}");
        let started = Instant::now();
        let failure = work().err().map(|e| e.to_string());
        let took = started.elapsed();
        eprintln!("── {name}: {} in {:.1} s", if failure.is_none() { "passed" } else { "FAILED" }, took.as_secs_f64());
        self.done.push((name, took, failure));
    }

    /// Prints one closing line, or what failed.
    pub(crate) fn close(self) -> Result {
        let all: Duration = self.done.iter().map(|(_, took, _)| *took).sum();
        let times: Vec<_> = self.done.iter().map(|(name, took, _)| format!("{name} {:.0} s", took.as_secs_f64())).collect();
        let failures: Vec<_> = self.done.iter().filter_map(|(name, _, failure)| Some(format!("{name}: {}", failure.as_ref()?))).collect();
        if failures.is_empty() {
            println!("\nall checks passed in {:.0} s ({})", all.as_secs_f64(), times.join(", "));
            return Ok(());
        }
        fail(format!("{} of {} checks failed\n  {}", failures.len(), self.done.len(), failures.join("\n  ")))
    }
}
