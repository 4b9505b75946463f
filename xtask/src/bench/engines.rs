//! Loads into every kind of engine, beside the engine's own ways to get the same image.

use std::path::PathBuf;
use std::process::Command;

use super::contest::{Entry, Outcome, contest};
use super::{Arguments, Bench, done, published, quiet, report};
use crate::fixtures::{self, Fixture};
use crate::releases;
use crate::run::{self, Message, Result};
use crate::socket;
use crate::support::engine::{Make, RealEngine};

/// The engines, and what they are called here.
const MAKES: [(&str, Make); 4] = [
    ("docker", Make::Docker),
    ("docker with containerd", Make::DockerWithContainerdOf("trixie")),
    ("podman", Make::Podman),
    ("containerd", Make::Containerd),
];

/// The engines that are loaded into at once.
const TOGETHER: [Make; 3] = [Make::Docker, Make::Podman, Make::Containerd];

/// Where larder is told of engines.
const ADDRESSES: [&str; 3] = ["DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS"];

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
    let wanted = |name: &str| arguments.wants(name);
    let rounds = usize::from(arguments.rounds);
    let mut outcomes = Vec::new();
    for (name, make) in MAKES {
        let rows = [format!("{name}: cold"), format!("{name}: held"), format!("{name}: new revision")];
        if rows.iter().any(|row| wanted(row)) {
            let measured = Measured { bench, engine: RealEngine::start(make), rounds };
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
    rounds: usize,
}

impl Measured<'_> {
    /// Nothing held: larder, the engine's own load and pull, and skopeo.
    fn cold(&self, row: &str, image: &Loaded) -> Result<Vec<Outcome>> {
        let empty = || self.remove(image);
        let mut entries = vec![
            Entry::program("larder load", || self.larder("load", image)).before(empty),
            Entry::call(self.own("load"), || self.load(image)).before(empty),
            Entry::call(self.own("pull"), || run::read(&mut self.engine.pull(&image.by_digest())).map(drop)).before(empty),
        ];
        // skopeo does not know containerd.
        if !self.engine.make().is_containerd() {
            entries.push(Entry::call("skopeo copy", || run::read(&mut self.skopeo(image)).map(drop)).before(empty));
        }
        contest(row, self.rounds, entries)
    }

    /// Held already: larder's answer and the engine's own to one question, and the engine's own load.
    fn held(&self, row: &str, image: &Loaded) -> Result<Vec<Outcome>> {
        run::read(&mut self.larder("ensure", image))?;
        let entries = vec![
            Entry::program("larder ensure", || self.larder("ensure", image)),
            Entry::call(self.own("answer"), || answer(&self.engine, image.name())),
        ];
        let mut outcomes = contest(row, 10 * self.rounds, entries)?;
        let load = Entry::call(self.own("load"), || self.load(image));
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
            Entry::call(self.own("load"), || self.load(new)).before(before),
        ];
        contest(row, self.rounds, entries)
    }

    /// What the engine's own way is called: to load, to pull, or to answer one question.
    fn own(&self, word: &str) -> String {
        match (kind(self.engine.make()), word) {
            ("containerd", "load") => "ctr images import".to_owned(),
            ("containerd", word) => format!("ctr images {}", if word == "answer" { "list" } else { word }),
            (kind, "answer") => format!("{kind}'s own answer"),
            (kind, word) => format!("{kind} {word}"),
        }
    }

    fn larder(&self, word: &str, image: &Loaded) -> Command {
        let mut command = self.bench.larder(&[word, "--offline", "--engine", kind(self.engine.make()), &image.reference]);
        command.envs(ADDRESSES.map(|variable| (variable, self.engine.address())));
        command
    }

    fn load(&self, image: &Loaded) -> Result {
        done(self.engine.load_file(&image.archive))
    }

    fn skopeo(&self, image: &Loaded) -> Command {
        let (target, options) = self.engine.skopeo_target(image.name());
        // That of Debian 12 does not speak with docker of Debian 13.
        let mut command = self.engine.program("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]).args(options);
        command.arg(format!("docker://{}", image.name())).arg(target);
        quiet(command)
    }

    fn remove(&self, image: &Loaded) -> Result {
        remove(&self.engine, image)
    }
}

/// All three engines by one call of larder, beside one call for each.
fn several(bench: &Bench, image: &Loaded, rounds: usize) -> Result<Vec<Outcome>> {
    let engines = TOGETHER.map(RealEngine::start);
    let load = |command: Command| {
        let mut command = command;
        command.envs(ADDRESSES.into_iter().zip(engines.iter().map(RealEngine::address)));
        command
    };
    let names = TOGETHER.map(kind);
    let at_once = || load(bench.larder(&["load", "--engine", &names.join(","), &image.reference]));
    let one_by_one = || {
        let larder = load(bench.larder(&[]));
        let mut command = Command::new("sh");
        command.env_clear().envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let script = r#"larder=$1 image=$2; shift 2; for engine; do "$larder" load --quiet --engine "$engine" "$image" || exit; done"#;
        command.args(["-c", script, "sh"]).arg(larder.get_program()).arg(&image.reference).args(names);
        quiet(command)
    };
    let empty = || engines.iter().try_for_each(|engine| remove(engine, image));
    let entries = vec![
        Entry::program("larder load, all at once", at_once).before(empty),
        Entry::program("larder load, one after the other", one_by_one).before(empty),
    ];
    contest("several at once", rounds, entries)
}

/// The engine as larder calls it.
fn kind(make: Make) -> &'static str {
    match make {
        make if make.is_podman() => "podman",
        make if make.is_containerd() => "containerd",
        _ => "docker",
    }
}

/// Asks an engine for what it has under a name.
pub(super) fn answer(engine: &RealEngine, name: &str) -> Result {
    match engine.make().is_containerd() {
        true => engine.inspect_id(name).map(drop).ok_or_else(|| Message("it is not there".to_owned()).into()),
        false => socket::get(&engine.address(), &format!("/images/{name}/json")).map(drop),
    }
}

/// Takes an image away, however it came. containerd keeps what any of its names points to.
fn remove(engine: &RealEngine, image: &Loaded) -> Result {
    for name in [image.name().to_owned(), image.by_digest()] {
        if engine.inspect_id(&name).is_some() {
            engine.remove(&name);
        }
    }
    Ok(())
}
