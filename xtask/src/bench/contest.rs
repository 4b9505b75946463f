//! Programs that do the same, run in turn, so that what the machine does besides falls on all alike.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{self, Message, Result, fail};

/// One that takes part.
pub(super) struct Entry<'a> {
    name: String,
    before: Box<dyn Fn() -> Result + 'a>,
    work: Work<'a>,
}

enum Work<'a> {
    /// A program, whose memory is measured too.
    Program(Box<dyn Fn() -> Command + 'a>),
    /// A call that runs something by itself.
    Call(Box<dyn Fn() -> Result + 'a>),
}

/// What was measured.
pub(super) struct Outcome {
    pub(super) operation: String,
    pub(super) name: String,
    pub(super) median: Duration,
    pub(super) fastest: Duration,
    pub(super) slowest: Duration,
    /// In KiB.
    pub(super) memory: Option<u64>,
    pub(super) rounds: usize,
}

impl<'a> Entry<'a> {
    pub(super) fn program(name: impl Into<String>, command: impl Fn() -> Command + 'a) -> Entry<'a> {
        Entry { name: name.into(), before: Box::new(|| Ok(())), work: Work::Program(Box::new(command)) }
    }

    pub(super) fn call(name: impl Into<String>, call: impl Fn() -> Result + 'a) -> Entry<'a> {
        Entry { name: name.into(), before: Box::new(|| Ok(())), work: Work::Call(Box::new(call)) }
    }

    /// What is done before every run and not measured.
    pub(super) fn before(self, work: impl Fn() -> Result + 'a) -> Entry<'a> {
        Entry { before: Box::new(work), ..self }
    }

    fn time(&self) -> Result<Duration> {
        self.ready()?;
        match &self.work {
            Work::Call(call) => {
                let started = Instant::now();
                call()?;
                Ok(started.elapsed())
            }
            Work::Program(command) => {
                let mut command = command();
                let started = Instant::now();
                let output = command.output().map_err(|e| Message(format!("{}: {e}", self.name)))?;
                let took = started.elapsed();
                if !output.status.success() {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    return fail(format!("`{}` failed ({})\n{said}", run::shown(&command), output.status));
                }
                Ok(took)
            }
        }
    }

    /// The most memory that the program had at once, as the kernel counts it. Not timed: the wrapper costs a fork.
    fn memory(&self) -> Result<Option<u64>> {
        let Work::Program(command) = &self.work else { return Ok(None) };
        self.ready()?;
        let command = command();
        let file = tempfile::NamedTempFile::new()?;
        let mut wrapped = Command::new("/usr/bin/time");
        wrapped.args(["--format", "%M", "--output"]).arg(file.path()).arg(command.get_program()).args(command.get_args());
        // `env_clear` cannot be read back, so nothing is inherited: what a program needs was set on its command.
        wrapped.env_clear();
        for (name, value) in command.get_envs() {
            value.map(|value| wrapped.env(name, value));
        }
        wrapped.env("PATH", crate::packages::path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        run::run(&mut wrapped)?;
        Ok(fs::read_to_string(file.path())?.trim().parse().ok())
    }

    fn ready(&self) -> Result {
        (self.before)()?;
        // What others left to be written is not for this one to pay.
        rustix::fs::sync();
        Ok(())
    }
}

/// Runs all in turn, once for warming up and then as many rounds as asked.
pub(super) fn contest(operation: &str, rounds: usize, entries: Vec<Entry<'_>>) -> Result<Vec<Outcome>> {
    eprintln!("{operation}: {} …", entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "));
    let mut times = vec![Vec::new(); entries.len()];
    for entry in &entries {
        entry.time()?;
    }
    for _ in 0..rounds {
        for (entry, times) in entries.iter().zip(&mut times) {
            times.push(entry.time()?);
        }
    }
    let mut outcomes = Vec::new();
    for (entry, mut times) in entries.iter().zip(times) {
        times.sort();
        outcomes.push(Outcome {
            operation: operation.to_owned(),
            name: entry.name.clone(),
            median: times[times.len() / 2],
            fastest: times[0],
            slowest: times[times.len() - 1],
            memory: entry.memory()?,
            rounds,
        });
    }
    Ok(outcomes)
}
