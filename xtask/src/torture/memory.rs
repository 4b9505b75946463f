//! Memory: a control group that allows 128 MiB, and an image with a layer of 10 GB, and one with 4,096 layers.
//!
//! Everything that larder does to them is done in the group. Memory has to be the same however large the image is. The large layer is zeros,
//! and the store is on a btrfs that compresses them: only the memory is to be full.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use larder::digest::Digest;
use larder::oci::Descriptor;
use serde_json::json;
use tempfile::TempDir;

use super::table::Outcome;
use crate::packages;
use crate::run::{self, Message, Result};
use crate::support::mount::Mount;
use crate::support::registry::Registry;
use crate::support::sink::Sink;

/// What the group allows.
const LIMIT: u64 = 128 << 20;
/// What larder is to make do with, in KiB.
const ENOUGH: u64 = 64 << 10;

/// How large the disk says to be, in MiB.
const DISK: u64 = 16 << 10;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(super) fn run(bounded: bool) -> Result<Outcome> {
    packages::require(&[packages::PEERS])?;
    let folder = tempfile::Builder::new().prefix("memory-").tempdir_in(run::root().join("target"))?;
    let disk = Mount::made("btrfs", &["-q"], DISK, &folder.path().join("disk"), &folder.path().join("store"));
    disk.remount("compress=zstd:1");
    let bench = Bench { program: run::build_larder(true)?, group: Group::new(LIMIT)?, registry: Registry::start(), folder };
    let mut outcome = Outcome {
        title: "larder in a control group of 128 MiB",
        columns: &["image", "operation", "seconds", "peak memory of larder"],
        rows: Vec::new(),
        failures: Vec::new(),
    };
    let (gigabytes, layers) = if bounded { (1, 512) } else { (10, 4096) };
    bench.image(&format!("one layer of {gigabytes} GB"), &bench.large(gigabytes)?, &mut outcome)?;
    bench.image(&format!("{layers} layers"), &bench.many(layers)?, &mut outcome)?;
    drop(disk);
    Ok(outcome)
}

struct Bench {
    program: PathBuf,
    group: Group,
    registry: Registry,
    folder: TempDir,
}

/// An image in the registry.
struct Served {
    reference: String,
    config: Digest,
    diff_ids: Vec<String>,
}

impl Bench {
    /// An image with one layer of zeros, which is an empty tar archive. The registry reads it from a file that takes no room.
    fn large(&self, gigabytes: u64) -> Result<Served> {
        let source = self.folder.path().join("source/blobs/sha256");
        fs::create_dir_all(&source)?;
        let file = source.join("zeros");
        let size = gigabytes * 1_000_000_000;
        File::create(&file)?.set_len(size)?;
        let mut hasher = larder::digest::Hasher::new();
        let (mut zeros, mut chunk) = (io::repeat(0).take(size), vec![0; 1 << 20]);
        loop {
            match zeros.read(&mut chunk)? {
                0 => break,
                n => hasher.update(&chunk[..n]),
            }
        }
        let (digest, size) = hasher.finish();
        fs::rename(&file, source.join(digest.hex()))?;
        fs::write(self.folder.path().join("source/index.json"), json!({ "schemaVersion": 2, "manifests": [] }).to_string())?;
        self.registry.serve_layout("demo/large", &self.folder.path().join("source"))?;
        Ok(self.serve("demo/large", &[Descriptor { media_type: LAYER.to_owned(), digest, size }]))
    }

    /// An image with very many layers of one small file each.
    fn many(&self, layers: usize) -> Result<Served> {
        let mut all = Vec::new();
        for n in 0..layers {
            let mut tar = tar::Builder::new(Vec::new());
            let content = n.to_string();
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("srv/{n}"), content.as_bytes())?;
            let bytes = tar.into_inner()?;
            let size = bytes.len() as u64;
            all.push(Descriptor { media_type: LAYER.to_owned(), digest: self.registry.put_blob(bytes), size });
        }
        Ok(self.serve("demo/many", &all))
    }

    /// Layers that are plain tar archives, as an image.
    fn serve(&self, repository: &str, layers: &[Descriptor]) -> Served {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest.to_string()).collect();
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string();
        let (size, digest) = (config.len() as u64, self.registry.put_blob(config));
        let config = Descriptor { media_type: CONFIG.to_owned(), digest, size };
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }).to_string();
        let root = self.registry.put_manifest(repository, "v1", MANIFEST, manifest);
        Served { reference: format!("{}/{repository}:v1@{root}", self.registry.host()), config: digest, diff_ids }
    }

    /// Does everything to an image, from an empty store to an empty store.
    fn image(&self, name: &str, served: &Served, outcome: &mut Outcome) -> Result {
        let tagged = served.reference.split('@').next().unwrap_or_default();
        let sockets = tempfile::tempdir()?;
        let sink = Sink::start(sockets.path(), tagged, &served.config.to_string(), &served.diff_ids)?;
        let reference = served.reference.as_str();
        for (operation, arguments) in [
            ("pull", &["pull", "--engine", "none", "--platform", "linux/amd64", reference][..]),
            ("pull of what is there", &["pull", "--engine", "none", "--platform", "linux/amd64", reference]),
            ("verify", &["verify"]),
            ("load into an engine that throws it away", &["load", "--engine", "docker", reference]),
            ("check", &["check", "--engine", "docker", reference]),
            ("list", &["list"]),
            ("remove", &["remove", reference]),
            ("prune", &["prune"]),
        ] {
            let ended = self.group.run(self.larder(&sink, arguments))?;
            outcome.rows.push(vec![
                name.to_owned(),
                operation.to_owned(),
                format!("{:.1}", ended.took.as_secs_f64()),
                format!("{:.1} MiB", ended.peak as f64 / 1024.0),
            ]);
            if !ended.succeeded {
                outcome.failures.push(format!("{name}: {operation} failed: {}", ended.said));
            } else if ended.peak > ENOUGH {
                outcome.failures.push(format!("{name}: {operation} took {} KiB of memory, more than {ENOUGH}", ended.peak));
            }
        }
        if sink.taken() < served.diff_ids.len() as u64 {
            outcome.failures.push(format!("{name}: nothing was sent"));
        }
        Ok(())
    }

    fn larder(&self, sink: &Sink, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("HOME", self.folder.path()).env("LARDER_DIR", self.folder.path().join("store"));
        command.env("DOCKER_HOST", sink.address());
        command
    }
}

/// A control group that limits memory. Gone when it is dropped.
struct Group {
    folder: PathBuf,
}

/// How a program in the group ended.
struct Ended {
    succeeded: bool,
    took: Duration,
    /// The most memory that it had at once, in KiB.
    peak: u64,
    said: String,
}

impl Group {
    fn new(limit: u64) -> Result<Group> {
        let folder = Path::new("/sys/fs/cgroup/memory").join(format!("larder-torture-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|e| {
            Message(format!("{}: {e}\n  hint: the memory controller of control groups, version 1, has to be mounted", folder.display()))
        })?;
        let group = Group { folder };
        fs::write(group.folder.join("memory.limit_in_bytes"), limit.to_string())?;
        Ok(group)
    }

    /// Runs a program in it to its end.
    fn run(&self, command: Command) -> Result<Ended> {
        let measured = tempfile::NamedTempFile::new()?;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "echo $$ >\"$0\" && exec /usr/bin/time --quiet --format %M --output \"$@\""])
            .arg(self.folder.join("cgroup.procs"));
        shell.arg(measured.path()).arg(command.get_program()).args(command.get_args());
        shell.env_clear().env("PATH", packages::path());
        for (name, value) in command.get_envs() {
            value.map(|value| shell.env(name, value));
        }
        let started = Instant::now();
        let output = shell.output()?;
        let peak = fs::read_to_string(measured.path())?.trim().parse().unwrap_or(0);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Ended { succeeded: output.status.success(), took: started.elapsed(), peak, said })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
