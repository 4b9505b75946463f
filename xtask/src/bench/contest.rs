//! Programs that do the same, run in turn, so that what the machine does besides falls on all alike.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::run::{self, Message, Result, fail};

/// Rounds that take longer than this in all add nothing to what was seen.
const ENOUGH: Duration = Duration::from_secs(30);
/// A first run that takes longer than this warms nothing up, and counts.
const LONG: Duration = Duration::from_secs(1);

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
    pub(super) used: Option<Used>,
    pub(super) rounds: usize,
}

/// What a program used, as the kernel counts it.
#[derive(Clone, Copy)]
pub(super) struct Used {
    /// The most memory that it had at once, in KiB.
    pub(super) memory: u64,
    /// How many bytes it read, from files and all else.
    pub(super) read: u64,
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

    /// The first run: how long it took, and what the program used. The wrapper costs a fork.
    fn first(&self) -> Result<(Duration, Option<Used>)> {
        let Work::Program(command) = &self.work else { return Ok((self.time()?, None)) };
        self.ready()?;
        let command = command();
        let (file, said) = (tempfile::NamedTempFile::new()?, tempfile::tempfile()?);
        let mut wrapped = Command::new("/usr/bin/time");
        wrapped.args(["--format", "%M", "--output"]).arg(file.path()).arg(command.get_program()).args(command.get_args());
        // `env_clear` cannot be read back, so nothing is inherited: what a program needs was set on its command.
        wrapped.env_clear();
        for (name, value) in command.get_envs() {
            value.map(|value| wrapped.env(name, value));
        }
        wrapped.env("PATH", crate::packages::path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.try_clone()?);
        let started = Instant::now();
        let mut child = wrapped.spawn()?;
        // While nobody has taken note of its end, the kernel knows what it and its children read.
        waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let took = started.elapsed();
        let counts = fs::read_to_string(format!("/proc/{}/io", child.id()))?;
        let status = child.wait()?;
        if !status.success() {
            let said = std::io::read_to_string(rewound(said)?)?;
            return fail(format!("`{}` failed ({status})\n{said}", run::shown(&command)));
        }
        let read = counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0);
        let memory = fs::read_to_string(file.path())?.trim().parse().unwrap_or(0);
        Ok((took, Some(Used { memory, read })))
    }

    fn ready(&self) -> Result {
        (self.before)()?;
        // What others left to be written is not for this one to pay.
        rustix::fs::sync();
        Ok(())
    }
}

fn rewound(mut file: fs::File) -> Result<fs::File> {
    std::io::Seek::rewind(&mut file)?;
    Ok(file)
}

/// Runs all in turn, once for warming up and then as many rounds as asked; of what takes long, fewer.
pub(super) fn contest(operation: &str, rounds: usize, entries: Vec<Entry<'_>>) -> Result<Vec<Outcome>> {
    eprintln!("{operation}: {} …", entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "));
    let (mut times, mut used) = (Vec::new(), Vec::new());
    for entry in &entries {
        let (took, uses) = entry.first()?;
        times.push(if took > LONG { vec![took] } else { Vec::new() });
        used.push(uses);
    }
    for round in 0..rounds {
        for (entry, times) in entries.iter().zip(&mut times).filter(|(_, times)| times.len() == round) {
            if times.is_empty() || times.iter().sum::<Duration>() < ENOUGH {
                times.push(entry.time()?);
            }
        }
    }
    let outcome = |((entry, mut times), used): ((&Entry<'_>, Vec<Duration>), Option<Used>)| {
        times.sort();
        Outcome {
            operation: operation.to_owned(),
            name: entry.name.clone(),
            median: times[times.len() / 2],
            fastest: times[0],
            slowest: times[times.len() - 1],
            used,
            rounds: times.len(),
        }
    };
    Ok(entries.iter().zip(times).zip(used).map(outcome).collect())
}
