//! What the experiments pull: a registry on loopback, small images that share some of their layers, and larder.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::judge::Held;
use crate::run::{self, Result, fail};
use crate::support::image::{Made, Recipe};
use crate::support::registry::Registry;

const REPOSITORY: &str = "demo/app";

/// The registry with its images, and the program.
pub(super) struct Scene {
    program: PathBuf,
    /// The fault that the program is to make, if it is one that can.
    fault: Option<&'static str>,
    pub(super) registry: Registry,
    /// Served as `first`.
    pub(super) first: Made,
    /// Served as `second`; it shares the odd layers with the first.
    pub(super) second: Made,
}

impl Scene {
    /// With the program copied into a folder, so that a build that runs meanwhile does not change it.
    pub(super) fn new(program: &Path, folder: &Path) -> Result<Scene> {
        let copy = folder.join("larder");
        std::fs::copy(program, &copy)?;
        let make = |layer_size| Recipe { layers: 6, layer_size, platforms: vec!["linux/amd64"], ..Recipe::default() }.make();
        let scene = Scene { program: copy, fault: None, registry: Registry::start(), first: make(4_000), second: make(6_000) };
        scene.serve(&scene.first, "first");
        scene.serve(&scene.second, "second");
        Ok(scene)
    }

    /// With a program that makes a deliberate fault.
    pub(super) fn sabotaged(program: &Path, folder: &Path, fault: &'static str) -> Result<Scene> {
        Ok(Scene { fault: Some(fault), ..Scene::new(program, folder)? })
    }

    /// Serves an image under a tag, from now on.
    pub(super) fn serve(&self, made: &Made, tag: &str) {
        for bytes in made.blobs.values() {
            self.registry.put_blob(bytes.clone());
        }
        for document in &made.documents {
            let name = if document.digest == made.root.digest { tag.to_owned() } else { document.digest.to_string() };
            self.registry.put_manifest(REPOSITORY, &name, &document.media_type, made.bytes(document).to_vec());
        }
    }

    /// The name of what is served under a tag.
    pub(super) fn name(&self, tag: &str) -> String {
        format!("{}/{REPOSITORY}:{tag}", self.registry.host())
    }

    /// That one of these images is there under a tag.
    pub(super) fn held(&self, tag: &str, images: &[&Made]) -> Held {
        Held { name: self.name(tag), roots: images.iter().map(|made| made.root.digest).collect() }
    }

    /// The arguments that pull what is served under a tag.
    pub(super) fn pull(&self, tag: &str) -> Vec<String> {
        ["pull", "--engine", "none", "--platform", "linux/amd64"].map(str::to_owned).into_iter().chain([self.name(tag)]).collect()
    }

    /// larder on a store, with a home and an environment that hold nothing else.
    pub(super) fn larder(&self, store: &Path, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", "/nowhere").env("LARDER_DIR", store).args(arguments);
        if let Some(fault) = self.fault {
            command.env("LARDER_SABOTAGE", fault);
        }
        command
    }

    /// Runs larder to its end, which is to be a good one.
    pub(super) fn must(&self, store: &Path, arguments: &[String]) -> Result {
        let output = self.larder(store, arguments).output()?;
        if output.status.success() {
            return Ok(());
        }
        let command = run::shown(&self.larder(store, arguments));
        fail(format!("`{command}` ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// A copy of a store, times and permissions included; nothing where there is nothing.
pub(super) fn copy(from: &Path, to: &Path) -> Result {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    if from.exists() { run::run(Command::new("cp").arg("-a").arg(from).arg(to)) } else { Ok(()) }
}

/// The next of a row of numbers that is the same on every machine (xorshift).
pub(super) fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Arguments for larder.
pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Whether a run that ended so, and said this on standard error, panicked.
pub(super) fn panicked(code: Option<i32>, stderr: &str) -> bool {
    code == Some(101) || stderr.contains("panicked")
}
