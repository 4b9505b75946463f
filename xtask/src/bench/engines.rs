//! Loads into every kind of engine, beside the engine's own ways to get the same image.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::contest::{Entry, Outcome, contest};
use super::{Arguments, Bench, published, quiet, report};
use crate::fixtures::{self, Fixture};
use crate::releases;
use crate::run::{self, Result, fail};
use crate::socket;
use crate::support::engine::{Make, RealEngine};

/// The engines, and what they are called here.
const MAKES: [(&str, Make); 3] =
    [("docker", Make::Docker), ("docker with containerd", Make::DockerWithContainerdOf("trixie")), ("podman", Make::Podman)];

const NEXT_TAG: &str = "v0.0.23";

/// What is loaded: a pinned reference, and an archive of the same image.
struct Loaded {
    reference: String,
    archive: PathBuf,
}

impl Loaded {
    fn name(&self) -> &str {
        self.reference.split('@').next().unwrap_or_default()
    }

    /// The reference as engines take it: by digest, without a tag.
    fn by_digest(&self) -> String {
        let (repository, _) = self.name().rsplit_once(':').unwrap_or_default();
        format!("{repository}@{}", self.reference.split('@').nth(1).unwrap_or_default())
    }
}

pub(super) fn run(bench: &Bench, next: &Fixture, arguments: &Arguments) -> Result {
    fixtures::build(std::slice::from_ref(next))?;
    releases::prepare(releases::ALWAYS.iter().copied())?;
    let old = Loaded { reference: bench.reference.clone(), archive: bench.archive.clone() };
    let (reference, archive) = published(&bench.registry.host(), next, NEXT_TAG, bench.path())?;
    let new = Loaded { reference, archive };
    for image in [&old, &new] {
        bench.must(&["pull", "--engine", "none", &image.reference])?;
    }
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|text| name.contains(text.as_str()));
    let rounds = usize::from(arguments.rounds);
    let mut outcomes = Vec::new();
    for (name, make) in MAKES {
        let rows = [format!("{name}: cold"), format!("{name}: held"), format!("{name}: new revision")];
        if rows.iter().any(|row| wanted(row)) {
            let measured = Measured { bench, engine: RealEngine::start(make), docker: name != "podman", rounds };
            let [cold, held, revision] = rows;
            outcomes.extend(if wanted(&cold) { measured.cold(&cold, &old)? } else { Vec::new() });
            outcomes.extend(if wanted(&held) { measured.held(&held, &old)? } else { Vec::new() });
            outcomes.extend(if wanted(&revision) { measured.revision(&revision, &old, &new)? } else { Vec::new() });
        }
    }
    if wanted("several at once") {
        outcomes.extend(several(bench, &old, rounds)?);
    }
    report::table(&outcomes);
    Ok(())
}

struct Measured<'a> {
    bench: &'a Bench,
    engine: RealEngine,
    docker: bool,
    rounds: usize,
}

impl Measured<'_> {
    /// Nothing held: larder, the engine's own load and pull, and skopeo.
    fn cold(&self, row: &str, image: &Loaded) -> Result<Vec<Outcome>> {
        let kind = self.kind();
        let empty = || self.remove(image);
        let entries = vec![
            Entry::program("larder load", || self.larder("load", image)).before(empty),
            Entry::call(format!("{kind} load"), || self.load(image)).before(empty),
            Entry::call(format!("{kind} pull"), || done(self.engine.pull(&image.by_digest()))).before(empty),
            Entry::call("skopeo copy", || run::read(&mut self.skopeo(image)).map(drop)).before(empty),
        ];
        contest(row, self.rounds, entries)
    }

    /// Held already: larder's answer and the engine's own to one question, and the engine's own load.
    fn held(&self, row: &str, image: &Loaded) -> Result<Vec<Outcome>> {
        run::read(&mut self.larder("ensure", image))?;
        let ask = || socket::get(&self.engine.address(), &format!("/images/{}/json", image.name())).map(drop);
        let entries = vec![
            Entry::program("larder ensure", || self.larder("ensure", image)),
            Entry::call(format!("{}'s own answer", self.kind()), ask),
        ];
        let mut outcomes = contest(row, 10 * self.rounds, entries)?;
        let load = Entry::call(format!("{} load", self.kind()), || self.load(image));
        outcomes.extend(contest(row, self.rounds, vec![load])?);
        Ok(outcomes)
    }

    /// The engine has the image before; two layers of the next are new.
    fn revision(&self, row: &str, old: &Loaded, new: &Loaded) -> Result<Vec<Outcome>> {
        self.remove(old)?;
        run::read(&mut self.larder("ensure", old))?;
        let before = || self.remove(new);
        let entries = vec![
            Entry::program("larder load", || self.larder("load", new)).before(before),
            Entry::call(format!("{} load", self.kind()), || self.load(new)).before(before),
        ];
        contest(row, self.rounds, entries)
    }

    fn kind(&self) -> &'static str {
        if self.docker { "docker" } else { "podman" }
    }

    fn larder(&self, word: &str, image: &Loaded) -> Command {
        let mut command = self.bench.larder(&[word, "--offline", "--engine", self.kind(), &image.reference]);
        command.env("DOCKER_HOST", self.engine.address()).env("CONTAINER_HOST", self.engine.address());
        command
    }

    fn load(&self, image: &Loaded) -> Result {
        done(self.engine.load_file(&image.archive))
    }

    fn skopeo(&self, image: &Loaded) -> Command {
        let (target, options) = self.engine.skopeo_target(image.name());
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--src-tls-verify=false"]).args(options);
        command.arg(format!("docker://{}", image.name())).arg(target);
        quiet(command)
    }

    /// Takes the image away, however it came.
    fn remove(&self, image: &Loaded) -> Result {
        for name in [image.name(), &image.by_digest()] {
            if self.engine.inspect_id(name).is_some() {
                self.engine.remove(name);
            }
        }
        Ok(())
    }
}

/// Docker and podman by one call of larder, beside one call for each.
fn several(bench: &Bench, image: &Loaded, rounds: usize) -> Result<Vec<Outcome>> {
    let (docker, podman) = (RealEngine::start(Make::Docker), RealEngine::start(Make::Podman));
    let load = |engines: &str| {
        let mut command = bench.larder(&["load", "--engine", engines, &image.reference]);
        command.env("DOCKER_HOST", docker.address()).env("CONTAINER_HOST", podman.address());
        command
    };
    let empty = || {
        for engine in [&docker, &podman] {
            if engine.inspect_id(image.name()).is_some() {
                engine.remove(image.name());
            }
        }
        Ok(())
    };
    let one_by_one = || ["docker", "podman"].iter().try_for_each(|engine| run::read(&mut load(engine)).map(drop));
    let entries = vec![
        Entry::program("larder load, both at once", || load("docker,podman")).before(empty),
        Entry::call("larder load, one after the other", one_by_one).before(empty),
    ];
    contest("several at once", rounds, entries)
}

fn done(output: Output) -> Result {
    if output.status.success() { Ok(()) } else { fail(String::from_utf8_lossy(&output.stderr)) }
}
