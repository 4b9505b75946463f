//! Image files: larder beside those who write the same.

use std::path::Path;
use std::process::Command;

use super::contest::{Entry, Outcome, contest};
use super::{Arguments, Bench, done, quiet, report};
use crate::run::Result;
use crate::support::engine::{Make, RealEngine};

pub(super) fn run(bench: &Bench, arguments: &Arguments) -> Result {
    bench.must(&["pull", "--engine", "none", "--platform", "linux/amd64", &bench.reference])?;
    let rounds = usize::from(arguments.rounds);
    let wanted = |name: &str| arguments.wants(name);
    let mut outcomes = Vec::new();
    // skopeo 1.9 finds no image with Docker's media types by its name in a layout, so it gets one with nothing else in it.
    let layout = bench.beside("layout");
    bench.must(&["export", &bench.reference, "--platform", "linux/amd64", "--format", "layout", "--output", &layout])?;
    let engines = [(Make::Docker, "docker"), (Make::Podman, "podman")].map(|(make, kind)| (RealEngine::start(make), kind));
    if wanted("export") {
        outcomes.extend(bench.exports(rounds, &layout, &engines)?);
    }
    if wanted("import") {
        outcomes.extend(bench.imports(rounds, &engines)?);
    }
    report::table(&outcomes);
    Ok(())
}

impl Bench {
    fn beside(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    fn skopeo(&self, from: &str, to: &str) -> Command {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", from, to]).env("HOME", self.path());
        quiet(command)
    }

    /// Out of the store, a layout or an engine into one file. larder brings it to the disk, the others leave that to the system.
    fn exports(&self, rounds: usize, layout: &str, engines: &[(RealEngine, &str)]) -> Result<Vec<Outcome>> {
        for (engine, _) in engines {
            done(engine.load_file(&self.archive))?;
        }
        let larder = |format: &'static str| {
            let to = self.beside(&format!("larder-{format}"));
            let remove = to.clone();
            Entry::program(format!("larder export --format {format}"), move || {
                self.larder(&["export", &self.reference, "--platform", "linux/amd64", "--format", format, "--output", &to])
            })
            .before(move || absent(&remove))
        };
        let mut entries = vec![larder("archive"), larder("docker"), larder("layout")];
        // It does not write over a file.
        let (from, to) = (format!("oci:{layout}"), self.beside("skopeo.tar"));
        let remove = to.clone();
        let copy = move || self.skopeo(&from, &format!("docker-archive:{to}:{}", self.name()));
        entries.push(Entry::program("skopeo copy oci: docker-archive:", copy).before(move || absent(&remove)));
        for (engine, kind) in engines {
            // Both run here, and see the disk that the project is on.
            let to = self.path().join(format!("{kind}.tar"));
            let remove = to.clone();
            let save = move || {
                engine.save(&[], &to, &[self.name()]);
                Ok(())
            };
            entries.push(Entry::call(format!("{kind} save"), save).before(move || absent(&remove)));
        }
        contest("export", rounds, entries)
    }

    /// Out of a file into an empty store, layout or engine. larder unpacks every layer to compare it, and brings all to the disk; skopeo looks into
    /// no layer of an OCI archive, and compresses those of a docker archive.
    fn imports(&self, rounds: usize, engines: &[(RealEngine, &str)]) -> Result<Vec<Outcome>> {
        let (oci, docker) = (self.beside("oci.tar"), self.archive.display().to_string());
        self.must(&["export", &self.reference, "--platform", "linux/amd64", "--format", "oci", "--output", &oci])?;
        let mut outcomes = Vec::new();
        for (form, file) in [("oci-archive", &oci), ("docker-archive", &docker)] {
            let (store, layout) = (self.beside("imported"), self.beside("copied"));
            let (old, copied) = (store.clone(), layout.clone());
            let import = move || {
                let mut command = self.larder(&["import", "--offline", file]);
                command.env("LARDER_DIR", &store);
                command
            };
            let copy = move || self.skopeo(&format!("{form}:{file}"), &format!("oci:{layout}:v1"));
            let mut entries = vec![
                Entry::program(format!("larder import, {form}"), import).before(move || absent(&old)),
                Entry::program(format!("skopeo copy {form}: oci:"), copy).before(move || absent(&copied)),
            ];
            for (engine, kind) in engines.iter().filter(|_| form == "docker-archive") {
                let load = || done(engine.load_file(&self.archive));
                let remove = || {
                    if engine.inspect_id(self.name()).is_some() {
                        engine.remove(self.name());
                    }
                    Ok(())
                };
                entries.push(Entry::call(format!("{kind} load"), load).before(remove));
            }
            outcomes.extend(contest("import", rounds, entries)?);
        }
        Ok(outcomes)
    }
}

/// Takes a file or folder away, so that all write into nothing.
fn absent(path: impl AsRef<Path>) -> Result {
    let path = path.as_ref();
    if path.is_dir() {
        std::fs::remove_dir_all(path)?;
    } else if path.exists() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
