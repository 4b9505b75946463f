//! A store of 10,000 images beside one of ten: what costs more for the images of others?
//!
//! The stores are written file by file, as `docs/store.md` says they are, since pulling so many images would take long. larder
//! verifies them before anything is measured.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larder::digest::{Digest, Verified};
use larder::oci::{Config, Descriptor, Document, Image};
use larder::pin::Pin;
use larder::reference::Reference;
use serde_json::json;

use super::table::{Outcome, median};
use crate::run::{self, Message, Result, fail};
use crate::support::engine::{Make, RealEngine};
use crate::support::registry::Registry;

/// How many images the stores have.
const SIZES: [usize; 2] = [10, 10_000];
/// How many tags a repository has.
const TAGS: usize = 10;
/// How often each operation is measured.
const ROUNDS: usize = 11;
/// How many pulls run at once.
const AT_ONCE: usize = 8;
/// How many times as long as in the small store an operation may take in the large one that does not depend on the images of others.
const ALIKE: f64 = 2.0;
/// How long `list` may take in the large store.
const LIST: Duration = Duration::from_millis(100);

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is asked of both stores, and how many times as long it may take in the large one.
const OPERATIONS: [(&str, Option<f64>, &str); 11] = [
    ("check", Some(ALIKE), "check --engine docker PINNED"),
    ("ensure of what the engine holds", Some(ALIKE), "ensure --engine docker PINNED"),
    ("pull of what is there", Some(ALIKE), "pull --engine none --platform linux/amd64 PINNED"),
    ("the same, offline, by its tag", Some(ALIKE), "pull --engine none --platform linux/amd64 --offline TAGGED"),
    ("inspect", None, "inspect --no-engines PINNED"),
    ("list", None, "list"),
    ("list --json", None, "list --json"),
    ("remove --dry-run", None, "remove --dry-run PINNED"),
    ("prune --dry-run", None, "prune --dry-run"),
    ("verify --quick", None, "verify --quick"),
    ("verify", None, "verify"),
];

pub(super) fn run() -> Result<Outcome> {
    // On the disk that the project is on: `/tmp` may be memory.
    let folder = tempfile::Builder::new().prefix("scale-").tempdir_in(run::root().join("target"))?;
    let program = run::build_larder(true)?;
    let (registry, engine, served) = (Registry::start(), RealEngine::start(Make::Docker), Cell::new(SIZES[1]));
    let bench = Bench { program: &program, home: folder.path(), registry: &registry, engine: &engine, served: &served };
    let shelves = SIZES.map(|images| Shelf { bench: &bench, store: folder.path().join(images.to_string()) });
    for (shelf, images) in shelves.iter().zip(SIZES) {
        eprintln!("writing a store of {images} images …");
        shelf.fill(images)?;
        shelf.must("verify")?;
        // Brings `index.json`, which the writing left out.
        shelf.pull_new()?;
    }
    shelves[0].must("load --engine docker PINNED")?;
    let mut outcome = Outcome {
        title: "a store of 10,000 images beside one of ten, medians",
        columns: &["operation", "10 images", "10,000 images", "ratio"],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    for (name, most, arguments) in OPERATIONS {
        let medians = medians(&shelves, |shelf| shelf.must(arguments))?;
        add(&mut outcome, name, medians, most);
        if name == "list" && medians[1] > LIST {
            outcome.failures.push(format!("list took {:?}, and {LIST:?} is the most", medians[1]));
        }
    }
    add(&mut outcome, "pull of a new image", medians(&shelves, |shelf| shelf.pull_new())?, None);
    add(&mut outcome, "eight such pulls at once", medians(&shelves, |shelf| shelf.pull_new_at_once())?, None);
    Ok(outcome)
}

fn add(outcome: &mut Outcome, name: &str, [few, many]: [Duration; 2], most: Option<f64>) {
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    eprintln!("{name}: {}, {}", milliseconds(few), milliseconds(many));
    outcome.rows.push(vec![name.to_owned(), milliseconds(few), milliseconds(many), format!("{ratio:.2}")]);
    if most.is_some_and(|most| ratio > most) {
        outcome.failures.push(format!("{name} takes {ratio:.2} times as long with 10,000 images as with ten"));
    }
}

/// The median for each store, measured in turn, so that what the machine does besides falls on both alike.
fn medians(shelves: &[Shelf<'_>; 2], mut work: impl FnMut(&Shelf<'_>) -> Result) -> Result<[Duration; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    // What was left to be written before is not for these to pay.
    rustix::fs::sync();
    for _ in 0..ROUNDS {
        for (shelf, times) in shelves.iter().zip(&mut times) {
            let started = Instant::now();
            work(shelf)?;
            times.push(started.elapsed());
        }
    }
    Ok(times.map(median))
}

/// What both stores are measured with.
struct Bench<'a> {
    program: &'a Path,
    home: &'a Path,
    registry: &'a Registry,
    engine: &'a RealEngine,
    /// How many images were made so far.
    served: &'a Cell<usize>,
}

/// A store.
struct Shelf<'a> {
    bench: &'a Bench<'a>,
    store: std::path::PathBuf,
}

/// A small image of three blobs: manifest, config, layer.
struct Small {
    reference: Reference,
    blobs: [(Descriptor, Vec<u8>); 3],
}

impl Shelf<'_> {
    fn larder(&self, arguments: &str) -> Command {
        let there = self.bench.small(0).map(|small| small.reference);
        let mut command = Command::new(self.bench.program);
        command.env_clear().env("HOME", self.bench.home).env("LARDER_DIR", &self.store).env("DOCKER_HOST", self.bench.engine.address());
        for word in arguments.split(' ') {
            match (word, &there) {
                ("PINNED", Ok(there)) => command.arg(there.to_string()),
                ("TAGGED", Ok(there)) => command.arg(there.name().to_string()),
                _ => command.arg(word),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn must(&self, arguments: &str) -> Result {
        ended(arguments, self.larder(arguments).spawn()?)
    }

    fn pull_new(&self) -> Result {
        let arguments = self.bench.serve_another()?;
        self.must(&arguments)
    }

    fn pull_new_at_once(&self) -> Result {
        let commands = (0..AT_ONCE).map(|_| self.bench.serve_another()).collect::<Result<Vec<_>>>()?;
        let running = commands.iter().map(|arguments| Ok(self.larder(arguments).spawn()?)).collect::<Result<Vec<_>>>()?;
        commands.iter().zip(running).try_for_each(|(arguments, child)| ended(arguments, child))
    }

    /// Writes images into the store, as pulls would have left them, but for `index.json`.
    fn fill(&self, images: usize) -> Result {
        let blobs = self.store.join("blobs/sha256");
        for folder in [&blobs, &self.store.join("ingest"), &self.store.join("pins")] {
            fs::create_dir_all(folder)?;
        }
        for n in 0..images {
            let small = self.bench.small(n)?;
            for (descriptor, bytes) in &small.blobs {
                fs::write(blobs.join(descriptor.digest.hex()), bytes)?;
            }
            let pin = small.pin()?;
            let repository = pin.name.repository();
            let folder = self.store.join("pins").join(repository.registry()).join(repository.path());
            fs::create_dir_all(&folder)?;
            let name = format!("{}@{}+linux_amd64.json", pin.name.tag(), pin.root.digest.hex());
            let text = serde_json::to_string(&pin)?;
            fs::write(folder.join(name), format!("{{\"check\":\"{}\",\"pin\":{text}}}\n", Digest::of(text.as_bytes())))?;
        }
        for (name, text) in [("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#), ("larder.json", r#"{"format":1}"#)] {
            fs::write(self.store.join(name), text)?;
        }
        Ok(())
    }
}

fn ended(arguments: &str, child: Child) -> Result {
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    fail(format!("`larder {arguments}` ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

impl Bench<'_> {
    /// Makes one more image; the arguments that pull it.
    fn serve_another(&self) -> Result<String> {
        let n = self.served.get();
        self.served.set(n + 1);
        let small = self.small(n)?;
        for (_, bytes) in &small.blobs {
            self.registry.put_blob(bytes.clone());
        }
        let name = small.reference.name();
        self.registry.put_manifest(name.repository().path(), name.tag(), MANIFEST, small.blobs[0].1.clone());
        Ok(format!("pull --engine none --platform linux/amd64 {}", small.reference))
    }

    /// The image of this number: the same for every store.
    fn small(&self, n: usize) -> Result<Small> {
        let described = |media_type: &str, bytes: Vec<u8>| {
            let document = Verified::hash(bytes.clone());
            (Descriptor { media_type: media_type.to_owned(), digest: document.digest(), size: document.size() }, bytes)
        };
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        let content = format!("image {n}\n");
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "etc/number", content.as_bytes())?;
        let layer = described(LAYER, tar.into_inner()?);
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [layer.0.digest] } });
        let config = described(CONFIG, config.to_string().into_bytes());
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config.0, "layers": [layer.0] });
        let manifest = described(MANIFEST, manifest.to_string().into_bytes());
        let host = self.registry.host();
        let reference = format!("{host}/team{}/app{}:v{}@{}", n / TAGS % 100, n / TAGS, n % TAGS, manifest.0.digest);
        Ok(Small { reference: reference.parse()?, blobs: [manifest, config, layer] })
    }
}

impl Small {
    fn pin(&self) -> Result<Pin> {
        let [(root, manifest), (_, config), _] = &self.blobs;
        let (parsed, _) = Document::parse(&Verified::hash(manifest.clone()), None)?;
        let Document::Manifest(parts) = parsed else { return Err(Message("a manifest is no index".into()).into()) };
        let config = Config::parse(&Verified::hash(config.clone()))?;
        let image = Image::new(root.clone(), root.clone(), parts, config)?;
        let from = Some(self.reference.repository().to_string());
        Ok(Pin::new(self.reference.clone(), self.reference.name(), &image, from))
    }
}
