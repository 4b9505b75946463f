//! Image files: larder beside those who write the same.

use std::path::Path;
use std::process::Command;

use super::contest::{Entry, Outcome, contest};
use super::{Arguments, Bench, quiet, report};
use crate::packages;
use crate::run::{Result, fail};
use crate::support::engine::{Make, RealEngine};

pub(super) fn run(bench: &Bench, arguments: &Arguments) -> Result {
    bench.must(&["pull", "--engine", "none", "--platform", "linux/amd64", &bench.reference])?;
    report::table(&bench.exports(usize::from(arguments.rounds))?);
    Ok(())
}

impl Bench {
    /// Out of the store, a layout or an engine into one file. larder brings it to the disk, the others leave that to the system.
    fn exports(&self, rounds: usize) -> Result<Vec<Outcome>> {
        let file = |name: &str| self.path().join(name).display().to_string();
        // skopeo 1.9 finds no image with Docker's media types by its name in a layout, so it gets one with nothing else in it.
        let layout = file("layout");
        self.must(&["export", &self.reference, "--platform", "linux/amd64", "--format", "layout", "--output", &layout])?;
        let engines = [(Make::Docker, "docker"), (Make::Podman, "podman")].map(|(make, kind)| (RealEngine::start(make), kind));
        for (engine, _) in &engines {
            let loaded = engine.load_file(&self.archive);
            if !loaded.status.success() {
                return fail(String::from_utf8_lossy(&loaded.stderr));
            }
        }
        let larder = |format: &'static str| {
            let to = file(&format!("larder-{format}"));
            let remove = to.clone();
            Entry::program(format!("larder export --format {format}"), move || {
                self.larder(&["export", &self.reference, "--platform", "linux/amd64", "--format", format, "--output", &to])
            })
            .before(move || absent(&remove))
        };
        let mut entries = vec![larder("archive"), larder("docker"), larder("layout")];
        if packages::is_there("skopeo") {
            let to = file("skopeo.tar");
            let (remove, from) = (to.clone(), format!("oci:{layout}"));
            entries.push(
                Entry::program("skopeo copy oci: docker-archive:", move || {
                    let mut command = Command::new("skopeo");
                    command.args(["copy", "--quiet", &from, &format!("docker-archive:{to}:{}", self.name())]).env("HOME", self.path());
                    quiet(command)
                })
                // It does not write over a file.
                .before(move || absent(&remove)),
            );
        }
        for (engine, kind) in &engines {
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
