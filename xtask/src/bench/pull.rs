//! Pulls over ways that are as the world's: short, long, narrow for each connection, and broken.
//!
//! Every program brings the same image from the same registry in turn, larder and the copiers into an empty folder, docker and podman into their own
//! store, which for them means that it is unpacked too, so they do it once. A program that fails is not an error here, but what is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Arguments, Bench, REPOSITORY, TAG, quiet};
use crate::packages;
use crate::run::Result;
use crate::support::engine::{Make, RealEngine};
use crate::support::way::{Way, Wrong};

/// The ways: what they are called, and what is wrong with them.
const WAYS: [(&str, Option<Wrong>); 5] = [
    ("loopback", None),
    ("50 ms round trip", Some(Wrong { delay: Duration::from_millis(25), each: None, cut_every: None })),
    ("20 MB/s for each connection", Some(Wrong { delay: Duration::ZERO, each: Some(20_000_000), cut_every: None })),
    ("both", Some(Wrong { delay: Duration::from_millis(25), each: Some(20_000_000), cut_every: None })),
    ("a connection cut every 100 MB", Some(Wrong { delay: Duration::ZERO, each: None, cut_every: Some(100_000_000) })),
];

/// A program's name, and how it is run.
pub(super) type Copier<'a> = (String, Box<dyn Fn() -> Command + 'a>);

/// One who pulls.
struct Puller<'a> {
    name: String,
    /// What is done before each pull and not measured.
    before: Box<dyn Fn() -> Result + 'a>,
    command: Box<dyn Fn() -> Command + 'a>,
    /// Whether it unpacks what it pulls; then once has to do.
    unpacks: bool,
    /// Whether the program does the work itself, so that its time and memory mean something.
    itself: bool,
}

/// What came of one pull.
struct Run {
    took: Duration,
    done: bool,
    /// Seconds of the processor.
    busy: f64,
    /// In KiB.
    memory: u64,
    /// Bytes that came over the way, and connections at once; nothing where there is none.
    came: Option<(u64, usize)>,
}

pub(super) fn run(bench: &Bench, arguments: &Arguments) -> Result {
    let engines = [("docker pull", RealEngine::start(Make::Docker)), ("podman pull", RealEngine::start(Make::Podman))];
    let host = bench.registry.host();
    bench.must(&["pull", "--engine", "none", &bench.reference])?;
    let gigabytes = size(&bench.path().join("store/blobs/sha256"))? as f64 / 1e9;
    let verified = measured(bench.larder(&["verify"]), None)?;
    println!(
        "{:.0} MB are pulled. To read and hash them costs {:.2} s/GB of the processor (`larder verify`).\n",
        gigabytes * 1e3,
        verified.busy / gigabytes
    );
    println!("| way | program | median | beside larder | done | processor, s/GB | peak memory | came | connections |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|");
    let wanted = |name: &str| arguments.wants(name);
    for (name, wrong) in WAYS {
        let way = wrong.map(|wrong| Way::to(&host, wrong));
        let mut pullers = bench.pullers(&way.as_ref().map_or(host.clone(), Way::host), &engines);
        pullers.retain(|puller| wanted(&format!("{name}: {}", puller.name)));
        if pullers.is_empty() {
            continue;
        }
        let mut runs: Vec<Vec<Run>> = pullers.iter().map(|_| Vec::new()).collect();
        for round in 0..arguments.rounds {
            for (puller, runs) in pullers.iter().zip(&mut runs) {
                // An engine unpacks for ten times as long as the way takes.
                if round > 0 && puller.unpacks {
                    continue;
                }
                (puller.before)()?;
                runs.push(measured((puller.command)(), way.as_ref())?);
            }
        }
        let larder = median(&runs[0], |run| run.took.as_secs_f64());
        for (puller, runs) in pullers.iter().zip(&runs) {
            row(name, puller, runs, larder, gigabytes);
        }
    }
    Ok(())
}

impl Bench {
    /// Every program that copies an image from the registry at this address into the folder that [`Bench::clear`] clears, with larder first.
    pub(super) fn copiers(&self, host: &str) -> Vec<Copier<'_>> {
        let into = self.pulled().display().to_string();
        let digest = self.reference.split_once('@').map_or("", |(_, digest)| digest);
        let (pinned, by_digest) = (format!("{host}/{REPOSITORY}:{TAG}@{digest}"), format!("{host}/{REPOSITORY}@{digest}"));
        let store = into.clone();
        let larder = move || {
            let mut command = self.larder(&["pull", "--engine", "none", &pinned]);
            command.env("LARDER_DIR", &store);
            command
        };
        let mut copiers: Vec<Copier<'_>> = vec![("larder pull".to_owned(), Box::new(larder))];
        let peers: [(&str, &[&str]); 3] = [
            ("skopeo", &["copy", "--quiet", "--src-tls-verify=false", "docker://{from}", "oci:{into}:v"]),
            ("crane", &["pull", "--insecure", "--platform", "linux/amd64", "--format", "oci", "{from}", "{into}"]),
            ("regctl", &["image", "copy", "--host", "reg={host},tls=disabled", "--platform", "linux/amd64", "{from}", "ocidir://{into}:v"]),
        ];
        for (program, arguments) in peers {
            if !packages::is_there(program) {
                eprintln!("{program} is not on the PATH and is not measured");
                continue;
            }
            let fill = |a: &&str| a.replace("{from}", &by_digest).replace("{into}", &into).replace("{host}", host);
            let arguments: Vec<String> = arguments.iter().map(fill).collect();
            let name = format!("{program} {}", arguments[0]);
            let command = move || {
                let mut command = Command::new(program);
                command.args(&arguments).env("HOME", self.path());
                quiet(command)
            };
            copiers.push((name, Box::new(command)));
        }
        copiers
    }

    fn pulled(&self) -> PathBuf {
        self.path().join("pulled")
    }

    /// Removes what was pulled.
    pub(super) fn clear(&self) -> Result {
        let pulled = self.pulled();
        if pulled.exists() {
            fs::remove_dir_all(pulled)?;
        }
        Ok(())
    }

    fn pullers<'a>(&'a self, host: &str, engines: &'a [(&str, RealEngine)]) -> Vec<Puller<'a>> {
        let copier =
            |(name, command): Copier<'a>| Puller { name, before: Box::new(|| self.clear()), command, unpacks: false, itself: true };
        let mut pullers: Vec<Puller<'a>> = self.copiers(host).into_iter().map(copier).collect();
        for (name, engine) in engines {
            let image = format!("{host}/{REPOSITORY}:{TAG}");
            // Whatever it is called there: an engine that has the layers under another name pulls none.
            let before = || {
                engine.names().iter().for_each(|name| engine.remove(name));
                Ok(())
            };
            let command = move || quiet(engine.pull(&image));
            pullers.push(Puller {
                name: (*name).to_owned(),
                before: Box::new(before),
                command: Box::new(command),
                unpacks: true,
                itself: engine.make().is_podman(),
            });
        }
        pullers
    }
}

/// Runs a program to its end, whatever that is.
fn measured(command: Command, way: Option<&Way>) -> Result<Run> {
    let file = tempfile::NamedTempFile::new()?;
    let mut wrapped = Command::new("/usr/bin/time");
    wrapped.args(["--quiet", "--format", "%U %S %M", "--output"]).arg(file.path()).arg(command.get_program()).args(command.get_args());
    // `env_clear` cannot be read back. What larder needs is set on its command; engines' own commands need what they inherit.
    if command.get_envs().any(|(name, _)| name == "LARDER_DIR") {
        wrapped.env_clear();
    }
    wrapped.env("PATH", packages::path());
    for (name, value) in command.get_envs() {
        value.map(|value| wrapped.env(name, value));
    }
    // What others left to be written is not for this one to pay.
    rustix::fs::sync();
    let before = way.map(|way| (way.came(), way.most_connections()));
    let started = Instant::now();
    let done = wrapped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success();
    let took = started.elapsed();
    let came = way.zip(before).map(|(way, (before, _))| (way.came() - before, way.most_connections()));
    let counted = fs::read_to_string(file.path())?;
    let mut numbers = counted.split_whitespace().filter_map(|number| number.parse::<f64>().ok());
    let mut next = || numbers.next().unwrap_or_default();
    Ok(Run { took, done, busy: next() + next(), memory: next() as u64, came })
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut all: Vec<f64> = runs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn row(way: &str, puller: &Puller<'_>, runs: &[Run], larder: f64, gigabytes: f64) {
    let took = median(runs, |run| run.took.as_secs_f64());
    let done = runs.iter().filter(|run| run.done).count();
    let own = |text: String| if puller.itself { text } else { "in its daemon".to_owned() };
    let busy = own(format!("{:.2}", median(runs, |run| run.busy) / gigabytes));
    let memory = own(format!("{:.1} MiB", runs.iter().map(|run| run.memory).max().unwrap_or(0) as f64 / 1024.0));
    let came = |of: fn((u64, usize)) -> f64| runs[0].came.map_or(f64::NAN, |_| median(runs, |run| run.came.map_or(0.0, of)));
    let (bytes, connections) = (came(|(bytes, _)| bytes as f64 / 1e6), came(|(_, connections)| connections as f64));
    let (bytes, connections) = match runs[0].came {
        Some(_) => (format!("{bytes:.0} MB"), format!("{connections:.0}")),
        None => (String::new(), String::new()),
    };
    println!(
        "| {way} | {} | {took:.2} s | {:.2} | {done} of {} | {busy} | {memory} | {bytes} | {connections} |",
        puller.name,
        took / larder,
        runs.len(),
    );
}

/// The bytes of all files in a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        bytes += file?.metadata()?.len();
    }
    Ok(bytes)
}
