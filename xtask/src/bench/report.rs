//! What was measured, as a table, and where.

use std::fs;
use std::time::Duration;

use super::contest::Outcome;
use super::{Bench, first_line};
use crate::packages;
use crate::run::Result;

/// The machine, the image, and the programs with their versions.
pub(super) fn machine(bench: &Bench) -> Result {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        cpus.lines().find_map(|l| l.strip_prefix("model name")).map_or("unknown processor", |l| l.trim_start_matches(['\t', ' ', ':']));
    let cores = cpus.lines().filter(|l| l.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory: u64 = memory.lines().next().and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0);
    println!("Machine: {cores} cores, {model}, {} GB; Linux {}.", memory / 1_000_000, first_line("uname", &["-r"])?);
    let load: f64 = fs::read_to_string("/proc/loadavg")?.split(' ').next().unwrap_or_default().parse().unwrap_or(0.0);
    if load > 0.5 {
        println!("The machine was not idle: load {load}. Read ratios, not times.");
    }
    println!("Image: `{}`, {:.0} MB as a docker archive.", bench.fixture, megabytes(fs::metadata(&bench.archive)?.len()));
    let size = fs::metadata(&bench.program)?.len();
    println!("larder: {}, {:.1} MB.", first_line(&bench.program.display().to_string(), &["--version"])?, megabytes(size));
    let versions = [
        ("dockerd", "--version"),
        ("containerd", "--version"),
        ("podman", "--version"),
        ("skopeo", "--version"),
        ("crane", "version"),
        ("regctl", "version"),
    ];
    for (program, argument) in versions {
        if packages::is_there(program) {
            println!("{program}: {}.", first_line(program, &[argument])?);
        }
    }
    println!();
    Ok(())
}

/// One line for each program, beside the first of its operation.
pub(super) fn table(outcomes: &[Outcome]) {
    println!("| operation | program | median | from … to | beside larder | peak memory | read | rounds |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for outcome in outcomes {
        let first = outcomes.iter().find(|o| o.operation == outcome.operation).unwrap_or(outcome);
        let ratio = outcome.median.as_secs_f64() / first.median.as_secs_f64();
        let memory = outcome.used.map_or(String::new(), |used| format!("{:.1} MiB", used.memory as f64 / 1024.0));
        let read = outcome.used.map_or(String::new(), |used| format!("{:.1} MB", megabytes(used.read)));
        println!(
            "| {} | {} | {} | {} … {} | {ratio:.2} | {memory} | {read} | {} |",
            outcome.operation,
            outcome.name,
            shown(outcome.median),
            shown(outcome.fastest),
            shown(outcome.slowest),
            outcome.rounds
        );
    }
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) { format!("{:.1} ms", time.as_secs_f64() * 1000.0) } else { format!("{:.2} s", time.as_secs_f64()) }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
