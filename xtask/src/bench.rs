//! larder beside docker, podman, skopeo and others on the same image, in turn, on engines and a registry of their own.

mod archives;
mod contest;
mod engines;
mod pull;
mod report;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::ValueEnum;
use larder::digest::Digest;
use serde_json::Value;
use tempfile::TempDir;

use self::contest::{Entry, Outcome, contest};
use crate::fixtures::{self, Fixture};
use crate::packages;
use crate::run::{self, Message, Result, fail};
use crate::support::engine::{Make, RealEngine, RealRegistry};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What is measured; without it the main job
    #[arg(value_enum)]
    what: Option<What>,
    /// How often each program runs; short questions run ten times as often
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// The image: about that of a Kubernetes node, or one tenth of it
    #[arg(long, value_enum, default_value_t = Size::Full)]
    size: Size,
    /// Only operations whose names contain one of these texts
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Loads into every kind of engine: held already, a new revision, cold, several at once
    Engines,
    /// Image files: out of the store, a layout or an engine
    Archives,
    /// Pulls over ways that are short, long, narrow for each connection, or broken
    Pull,
}

impl Arguments {
    /// Whether what has this name is to be measured.
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    Small,
    Full,
}

/// The name that the image bears on the measured registry and in the engines.
const REPOSITORY: &str = "k8s-minikube/kicbase";
const TAG: &str = "v0.0.22";

pub(crate) fn run(arguments: &Arguments) -> Result {
    if !packages::is_root() {
        return fail("the engines that are measured need root\n  hint: run `sudo -E env \"PATH=$PATH\" cargo xtask bench`");
    }
    packages::require(&[packages::ENGINES, packages::FIXTURES, packages::PEERS])?;
    let (fixture, next) = match arguments.size {
        Size::Full => (&fixtures::FULL, &fixtures::FULL_NEXT),
        Size::Small => (&fixtures::SMALL[0], &fixtures::SMALL[1]),
    };
    fixtures::build(std::slice::from_ref(fixture))?;
    let program = run::build_larder(true)?;
    let bench = Bench::set_up(program, fixture)?;
    report::machine(&bench)?;
    match arguments.what {
        Some(What::Engines) => return engines::run(&bench, next, arguments),
        Some(What::Archives) => return archives::run(&bench, arguments),
        Some(What::Pull) => return pull::run(&bench, arguments),
        None => {}
    }

    let wanted = |name: &str| arguments.wants(name);
    let rounds = usize::from(arguments.rounds);
    let mut outcomes = Vec::new();
    if wanted("start") {
        outcomes.extend(contest("start", 10 * rounds, vec![Entry::program("larder --version", || bench.larder(&["--version"]))])?);
    }
    if wanted("pull") {
        outcomes.extend(contest("pull", rounds, bench.pulls())?);
    }
    bench.must(&["pull", "--engine", "none", &bench.reference])?;
    for (make, kind) in [(Make::Docker, "docker"), (Make::Podman, "podman"), (Make::Containerd, "containerd")] {
        let operations = [format!("load into {kind}"), format!("held by {kind}")];
        if operations.iter().any(|name| wanted(name)) {
            outcomes.extend(bench.engine(make, kind, rounds, &operations, &wanted)?);
        }
    }
    report::table(&outcomes);
    Ok(())
}

/// What is measured, and on what.
struct Bench {
    program: PathBuf,
    /// On the disk that the project is on: `/tmp` may be memory.
    folder: TempDir,
    registry: RealRegistry,
    /// The pinned reference.
    reference: String,
    /// The image as `docker save` wrote it for as long as docker exists.
    archive: PathBuf,
    fixture: &'static str,
}

impl Bench {
    fn set_up(program: PathBuf, fixture: &Fixture) -> Result<Bench> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(run::root().join("target"))?;
        let registry = RealRegistry::start();
        let host = registry.host();
        eprintln!("pushing the image to a registry on {host} …");
        let (reference, archive) = published(&host, fixture, TAG, folder.path())?;
        Ok(Bench { program, registry, reference, archive, fixture: fixture.name, folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn name(&self) -> &str {
        self.reference.split('@').next().unwrap_or_default()
    }

    /// larder, on a store and in a home of its own.
    fn larder(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", self.path()).env("LARDER_DIR", self.path().join("store")).args(arguments).arg("--quiet");
        quiet(command)
    }

    fn must(&self, arguments: &[&str]) -> Result {
        run::read(&mut self.larder(arguments)).map(drop)
    }

    /// Every program that copies an image from the registry into a folder, each into an empty one.
    fn pulls(&self) -> Vec<Entry<'_>> {
        let entry = |(name, command)| Entry::program(name, command).before(|| self.clear());
        self.copiers(&self.registry.host()).into_iter().map(entry).collect()
    }

    /// Loading into an empty engine, and asking an engine that holds the image.
    fn engine(
        &self,
        make: Make,
        kind: &str,
        rounds: usize,
        operations: &[String; 2],
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Outcome>> {
        let engine = RealEngine::start(make);
        let [load, held] = operations;
        let larder = |words: &[&str]| {
            let mut command = self.larder(words);
            command.args(["--engine", kind, &self.reference]);
            for variable in ["DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS"] {
                command.env(variable, engine.address());
            }
            command
        };
        let loaded = || done(engine.load_file(&self.archive));
        let mut outcomes = Vec::new();
        if wanted(load) {
            // containerd keeps what any of its names points to.
            let pinned = self.name().rsplit_once(':').zip(self.reference.split_once('@'));
            let names = [pinned.map(|((repository, _), (_, digest))| format!("{repository}@{digest}")), Some(self.name().to_owned())];
            let remove = || {
                let there = |name: &&String| (make == Make::Containerd || *name == self.name()) && engine.inspect_id(name).is_some();
                names.iter().flatten().filter(there).for_each(|name| engine.remove(name));
                Ok(())
            };
            let entries = vec![
                Entry::program("larder load", || larder(&["load"])).before(remove),
                Entry::call(format!("{kind} load"), loaded).before(remove),
            ];
            outcomes.extend(contest(load, rounds, entries)?);
        }
        run::read(&mut larder(&["ensure", "--offline"]))?;
        if wanted(held) {
            let entries = vec![
                Entry::program("larder check", || larder(&["check"])),
                Entry::program("larder ensure", || larder(&["ensure"])),
                Entry::call(format!("{kind}'s own answer"), || engines::answer(&engine, self.name())),
            ];
            outcomes.extend(contest(held, 10 * rounds, entries)?);
            outcomes.extend(contest(held, rounds, vec![Entry::call(format!("{kind} load"), loaded)])?);
        }
        Ok(outcomes)
    }
}

/// Pushes an image to the registry, and has `skopeo` make the archive of it that `docker save` would make; the pinned reference and the
/// archive's path.
fn published(host: &str, fixture: &Fixture, tag: &str, folder: &Path) -> Result<(String, PathBuf)> {
    let script = run::root().join("fixtures/make-image.py");
    let mut push = Command::new("python3");
    push.arg(script).arg(fixture.layout()).args(["--tag", tag, "--push", &format!("http://{host}/{REPOSITORY}")]);
    let printed = run::read(&mut push)?;
    let digests: Value = serde_json::from_str(printed.lines().last().unwrap_or_default())?;
    let index: Digest = digests["index"].as_str().unwrap_or_default().parse()?;
    let archive = folder.join(format!("{}.tar", fixture.name));
    let name = format!("{host}/{REPOSITORY}:{tag}");
    // From the registry, as skopeo does not find Docker's media types by name in a layout.
    let (from, to) = (format!("docker://{name}"), format!("docker-archive:{}:{name}", archive.display()));
    run::read(Command::new("skopeo").args(["copy", "--quiet", "--src-tls-verify=false", &from, &to]))?;
    Ok((format!("{name}@{index}"), archive))
}

/// Nothing that it prints is shown or costs anything.
fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The first line of what a program prints.
fn first_line(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| Message(format!("{program}: {e}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// Fails with what a program said, if it failed.
fn done(output: Output) -> Result {
    if output.status.success() { Ok(()) } else { fail(String::from_utf8_lossy(&output.stderr)) }
}
