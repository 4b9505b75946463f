//! The main job, shown to a newcomer: an image is pulled by its digest, its registry goes away, and an engine gets it all the
//! same, proved.
//!
//! Without a reference of the user's, the registry and the image are made here, so neither the network nor an installed
//! program is needed. The store is a temporary folder, and what was loaded into the user's engine is removed from it again.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use larder::digest::Digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::run::{self, Result, fail};
use crate::socket;
use crate::support::image::{Media, Recipe};
use crate::support::registry::Registry;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// An image of your own to show it with, pulled from its registry
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// The engine to load into [default: the first that answers]
    #[arg(long)]
    engine: Option<EngineName>,
    /// Build larder without optimisation: ready sooner, slower
    #[arg(long)]
    debug: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    Docker,
    Podman,
    None,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let program = run::build_larder(!arguments.debug)?;
    let started = Instant::now();
    let stage = Stage::new(program)?;
    println!("The store of this demonstration is a temporary folder; everywhere else leave the next line out.\n");
    println!("$ export LARDER_DIR={}", stage.store().display());
    match &arguments.reference {
        Some(reference) => stage.play(reference, None, &[], arguments.engine)?,
        None => {
            let made = Recipe { layers: 8, layer_size: 3_000_000, media: Media::Docker, ..Recipe::default() }.make();
            let layout = stage.folder.path().join("image");
            made.write_layout(&layout, "v1")?;
            let registry = Registry::start();
            registry.serve_layout("demo/app", &layout)?;
            let reference = format!("{}/demo/app:v1@{}", registry.host(), made.root.digest);
            println!("# a registry on {} serves an image made for this, for linux/amd64 and linux/arm64", registry.host());
            let identities: Vec<_> = made.platforms.iter().map(|p| p.config.digest).chain([made.root.digest]).collect();
            stage.play(&reference, Some(registry), &identities, arguments.engine)?;
        }
    }
    println!("\nThat was all, in {:.1} s; the temporary store is gone again.", started.elapsed().as_secs_f64());
    Ok(())
}

/// The engine that is shown, as `larder engines --json` describes it.
struct Found {
    kind: String,
    address: String,
}

/// Where the demonstration takes place.
struct Stage {
    program: PathBuf,
    folder: TempDir,
}

impl Stage {
    fn new(program: PathBuf) -> Result<Stage> {
        Ok(Stage { program, folder: tempfile::Builder::new().prefix("larder-demo-").tempdir()? })
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The acts, in order. `identities` are those that an engine may show, where they are known without larder.
    fn play(&self, reference: &str, registry: Option<Registry>, identities: &[Digest], engine: Option<EngineName>) -> Result {
        heading("Which engines are there?");
        let engine = self.engine(engine)?;

        heading("Pull once, by digest. Every byte is compared with its digest before it gets its name.");
        let choice = engine.as_ref().map_or("none", |e| e.kind.as_str());
        let pulled = self.larder(&["pull", "--engine", choice, reference])?;
        pulled.succeeded()?;
        self.larder(&["list"])?.succeeded()?;
        let pinned = self.pinned()?;
        let reference = pinned.as_str();
        let name = reference.split('@').next().unwrap_or(reference);

        match registry {
            Some(registry) => {
                let host = registry.host().to_string();
                drop(registry);
                heading("The registry goes away. Nothing after this line can reach it.");
                println!("# {host}: {}", TcpStream::connect(&host).map_or_else(|e| e.to_string(), |_| "still there?".into()));
            }
            None => heading("From here on no registry is asked: --offline."),
        }
        match engine {
            Some(engine) => self.load_into(reference, name, &engine, identities),
            None => self.as_layout(reference),
        }
    }

    /// The reference with its digest, which means the same from now on, whatever was written.
    fn pinned(&self) -> Result<String> {
        let listed = run::read(&mut self.command(&["list", "--json"]))?;
        let first: Value = serde_json::from_str(listed.lines().next().unwrap_or_default())?;
        Ok(text(&first["pinned"]).to_owned())
    }

    fn engine(&self, wanted: Option<EngineName>) -> Result<Option<Found>> {
        if wanted == Some(EngineName::None) {
            return Ok(None);
        }
        self.larder(&["engines"])?;
        let listed = self.command(&["engines", "--json"]).output()?;
        let listed = String::from_utf8(listed.stdout)?;
        let engines = listed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let word = wanted.and_then(|w| w.to_possible_value()).map(|v| v.get_name().to_owned());
        let mut usable = engines
            .filter(|e| e["status"] == "usable")
            .filter_map(|e| Some(Found { kind: e["engine"].as_str()?.to_owned(), address: e["address"].as_str()?.to_owned() }));
        let found = usable.find(|e| word.as_ref().is_none_or(|w| *w == e.kind));
        match (found, word) {
            (None, Some(word)) => fail(format!("{word} did not answer, see above")),
            (found, _) => Ok(found),
        }
    }

    fn load_into(&self, reference: &str, name: &str, engine: &Found, identities: &[Digest]) -> Result {
        let kind = engine.kind.as_str();
        heading("Does the engine hold it? Exit code 3 says: there is nothing under that name.");
        let before = self.larder(&["check", "--offline", "--engine", kind, reference])?;
        match before.code {
            Some(3) => {}
            Some(0) => println!("# {kind} holds it already, so there is nothing to load"),
            Some(4) => return fail(format!("{kind} has another image under {name}; the demonstration does not replace it")),
            _ => before.succeeded()?,
        }
        let guard = (before.code == Some(3)).then(|| Guest { engine, name });

        heading("Load it and have it proved: larder asks the engine afterwards what it shows under the name.");
        self.larder(&["ensure", "--offline", "--engine", kind, reference])?.succeeded()?;

        heading("Again: one look at the pin, one question to the engine.");
        self.larder(&["ensure", "--offline", "--engine", kind, reference])?.succeeded()?;
        self.larder(&["check", "--engine", kind, reference])?.succeeded()?;

        heading("What the engine itself says, asked without larder.");
        let shown = socket::get(&engine.address, &format!("/images/{name}/json"))?;
        println!("$ {kind} image inspect {name}");
        println!("  Id:          {}\n  RepoTags:    {}\n  RepoDigests: {}", text(&shown["Id"]), shown["RepoTags"], shown["RepoDigests"]);
        compare(text(&shown["Id"]), identities)?;
        if let Some(guest) = guard {
            drop(guest);
            println!("\n# {name} was removed from {kind} again");
        }
        Ok(())
    }

    /// What there is to see without an engine: the store is an image layout that other tools read.
    fn as_layout(&self, reference: &str) -> Result {
        heading("There is no engine to load into. The store itself is an OCI image layout, which other tools read.");
        self.larder(&["inspect", "--offline", reference])?.succeeded()?;
        println!("$ ls $LARDER_DIR");
        for entry in fs::read_dir(self.store())? {
            println!("  {}", entry?.file_name().display());
        }
        let (blobs, bytes) = check_layout(&self.store())?;
        println!(
            "# read without larder's command: index.json leads to a root, and all {blobs} blobs ({bytes} bytes) have the digests that they are named by"
        );
        heading("Again: all of it is in the store, so no registry is asked.");
        self.larder(&["pull", "--offline", "--engine", "none", reference])?.succeeded()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("LARDER_DIR", self.store())
            .env_remove("LARDER_ENGINE")
            .env_remove("LARDER_OFFLINE")
            .stdin(Stdio::null());
        command
    }

    /// Runs larder as a newcomer would, and shows the command, what it printed and how long it took.
    fn larder(&self, arguments: &[&str]) -> Result<Shown> {
        let mut command = self.command(arguments);
        let typed: Vec<_> = ["larder"].iter().chain(arguments).copied().collect();
        println!("$ {}", typed.join(" "));
        let started = Instant::now();
        let output = command.output()?;
        let took = started.elapsed();
        for line in
            [&output.stderr, &output.stdout].iter().flat_map(|o| String::from_utf8_lossy(o).lines().map(str::to_owned).collect::<Vec<_>>())
        {
            println!("  {line}");
        }
        let code = output.status.code();
        let ended = code.filter(|c| *c != 0).map(|c| format!(", exit code {c}")).unwrap_or_default();
        println!("# {}{ended}\n", shown_time(took));
        Ok(Shown { command: typed.join(" "), code })
    }
}

struct Shown {
    command: String,
    code: Option<i32>,
}

impl Shown {
    fn succeeded(&self) -> Result {
        match self.code {
            Some(0) => Ok(()),
            code => fail(format!("`{}` ended with {code:?}, see above", self.command)),
        }
    }
}

/// An image in the user's engine that was not there before: removed when this goes out of scope, also after a failure.
struct Guest<'a> {
    engine: &'a Found,
    name: &'a str,
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if let Err(e) = socket::delete(&self.engine.address, &format!("/images/{}", self.name)) {
            eprintln!("{} could not be removed from {}: {e}", self.name, self.engine.kind);
        }
    }
}

fn heading(text: &str) {
    println!("\n── {text}\n");
}

/// Compares what the engine shows with what was computed when the image was made.
fn compare(id: &str, identities: &[Digest]) -> Result {
    if identities.is_empty() {
        return Ok(());
    }
    if !identities.iter().any(|digest| digest.to_string() == id) {
        return fail(format!("the engine shows {id}, which is none of {identities:?}"));
    }
    println!("# the same was computed when the image was made");
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("nothing")
}

fn shown_time(took: Duration) -> String {
    if took < Duration::from_secs(1) { format!("{:.1} ms", took.as_secs_f64() * 1000.0) } else { format!("{:.2} s", took.as_secs_f64()) }
}

/// Reads the layout as another tool would; how many blobs there are, and their bytes.
fn check_layout(root: &Path) -> Result<(usize, u64)> {
    let index: Value = serde_json::from_slice(&fs::read(root.join("index.json"))?)?;
    let blobs = root.join("blobs/sha256");
    let entry = text(&index["manifests"][0]["digest"]).parse::<Digest>()?;
    if !blobs.join(entry.hex()).exists() {
        return fail(format!("index.json names {entry}, which is not there"));
    }
    let (mut count, mut bytes) = (0, 0);
    for entry in fs::read_dir(blobs)? {
        let path = entry?.path();
        let content = fs::read(&path)?;
        let found = Digest::of(&content);
        if path.file_name() != Some(found.hex().as_ref()) {
            return fail(format!("{} has the digest {found}", path.display()));
        }
        count += 1;
        bytes += content.len() as u64;
    }
    Ok((count, bytes))
}
