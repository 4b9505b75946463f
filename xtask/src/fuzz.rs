//! libFuzzer on the readers of what comes from outside, with the stable compiler.
//!
//! The targets are those of `larder::fuzzing`, and each has a folder of seeds. What a run learns is kept under `target/fuzz`
//! for the next. Built with the sanitizer's counters, which are an ordinary pass of the code generator, so that no
//! nightly compiler is needed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::packages;
use crate::run::{self, Message, Result, cargo, fail};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these targets: names of folders in fuzz/seeds
    targets: Vec<String>,
    /// How long to look in each target, in seconds
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
}

/// How long the tests look, in all.
const BOUNDED: Duration = Duration::from_secs(60);

/// What libFuzzer learns from: which edges were taken, and what was compared with what.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// A target takes no longer for any input, in seconds, and no more memory, in MiB.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

/// Longer inputs are bounded elsewhere, and slow.
const LENGTH: &str = "-max_len=16384";

pub(crate) fn run(arguments: &Arguments) -> Result {
    packages::require(&[packages::FUZZ])?;
    let all = targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !all.contains(*name)) {
        let all: Vec<_> = all.into_iter().collect();
        return fail(format!("there is no target `{unknown}`\n  the targets: {}", all.join(", ")));
    }
    let wanted = if arguments.targets.is_empty() { all } else { arguments.targets.iter().cloned().collect() };
    let program = build()?;
    look(&program, &wanted, 1, Duration::from_secs(arguments.seconds))
}

/// What of it the tests run: a minute in all, a target on each processor.
pub(crate) fn bounded() -> Result {
    let targets = targets()?;
    let program = build()?;
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let rounds = targets.len().div_ceil(at_once);
    let each = BOUNDED.as_secs() / u64::try_from(rounds).unwrap_or(u64::MAX).max(1);
    look(&program, &targets, at_once, Duration::from_secs(each.max(1)))
}

fn targets() -> Result<BTreeSet<String>> {
    let folders = fs::read_dir(run::root().join("fuzz/seeds"))?;
    folders.map(|folder| Ok(folder?.file_name().to_string_lossy().into_owned())).collect()
}

/// The target of the compiler is named, so that build scripts are not instrumented.
fn build() -> Result<PathBuf> {
    eprintln!("building the targets (a few minutes, the first time) …");
    let version = run::read(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or_else(|| Message("rustc does not say its host".into()))?;
    let folder = run::root().join("target/fuzz");
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "--package", "fuzz", "--profile", "fuzz", "--target", host]);
    command.arg("--target-dir").arg(&folder).env("RUSTFLAGS", INSTRUMENTED);
    run::run(&mut command)?;
    Ok(folder.join(host).join("fuzz/fuzz"))
}

/// Looks for input that a target does not stand, in several targets at once, and says what was found where.
fn look(program: &Path, targets: &BTreeSet<String>, at_once: usize, each: Duration) -> Result {
    let mut waiting = targets.iter();
    let mut working: Vec<Search> = Vec::new();
    let mut found = Vec::new();
    loop {
        while working.len() < at_once
            && let Some(target) = waiting.next()
        {
            working.push(Search::start(program, target, each)?);
        }
        let Some(at) = working.iter_mut().position(Search::is_over) else {
            if working.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        found.extend(working.swap_remove(at).end()?);
    }
    if found.is_empty() { Ok(()) } else { fail(found.join("\n  ")) }
}

/// A run of libFuzzer on one target.
struct Search {
    target: String,
    child: Child,
    began: Instant,
    log: PathBuf,
    finds: PathBuf,
}

impl Search {
    fn start(program: &Path, target: &str, each: Duration) -> Result<Search> {
        let folder = run::root().join("target/fuzz/found").join(target);
        let [corpus, finds, log] = ["corpus", "finds", "log"].map(|name| folder.join(name));
        for folder in [&corpus, &finds] {
            fs::create_dir_all(folder)?;
        }
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.arg(&corpus).arg(run::root().join("fuzz/seeds").join(target));
        command.arg(format!("-max_total_time={}", each.as_secs())).args(LIMITS).arg(LENGTH);
        command.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", finds.display()));
        command.env("LARDER_FUZZ_TARGET", target).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let text = run::shown(&command);
        let child = command.spawn().map_err(|e| Message(format!("`{text}` could not be started: {e}")))?;
        Ok(Search { target: target.to_owned(), child, began: Instant::now(), log, finds })
    }

    fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Prints what was done; returns what was found.
    fn end(mut self) -> Result<Option<String>> {
        let status = self.child.wait()?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        let tried = number(&log, "stat::number_of_executed_units:");
        let edges = log.lines().rev().find_map(|line| line.split(" cov: ").nth(1)?.split_whitespace().next()).unwrap_or("?");
        let seconds = self.began.elapsed().as_secs();
        println!("{:18} {tried:>10} inputs in {seconds} s, {edges} edges taken", self.target);
        if status.success() {
            return Ok(None);
        }
        let said = log.lines().skip_while(|line| !(line.contains("panicked at") || line.contains("ERROR: libFuzzer")));
        said.take(12).for_each(|line| eprintln!("  {line}"));
        let input = log.lines().find_map(|line| line.split("Test unit written to ").nth(1));
        Ok(Some(match input {
            Some(input) => format!(
                "{} does not stand an input: {input}\n  hint: copy it to fuzz/seeds/{}/ and run `cargo test --lib fuzzing`",
                self.target, self.target
            ),
            None => {
                format!("{} ended with {status} and left no input in {}, see {}", self.target, self.finds.display(), self.log.display())
            }
        }))
    }
}

fn number<'a>(log: &'a str, name: &str) -> &'a str {
    log.lines().find_map(|line| Some(line.strip_prefix(name)?.trim())).unwrap_or("?")
}
