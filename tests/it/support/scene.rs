//! A registry that serves images from memory, and the command in a sandbox beside it, once or many times at once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use larder::digest::Digest;
use larder::oci::{Config, Descriptor, Document, Image};
use larder::reference::Name;
use larder::store::Store;

use super::image::{Made, OnePlatform};
use super::registry::Registry;
use super::sandbox::{Output, Sandbox};

/// The only platform that is pulled.
pub const PLATFORM: &str = "linux/amd64";

/// A registry, and one store that images are pulled into.
pub struct Scene {
    /// What the registry was asked is what the store lacked.
    pub registry: Registry,
    /// Where the command runs.
    pub sandbox: Sandbox,
}

impl Scene {
    /// A registry with nothing in it, and no store yet.
    pub fn in_sandbox(sandbox: Sandbox) -> Scene {
        Scene { registry: Registry::start(), sandbox }
    }

    /// Serves an image; the reference that means it and no other.
    pub fn serve(&self, made: &Made, repository: &str, tag: &str) -> String {
        made.serve(&self.registry, repository, tag);
        format!("{}/{repository}:{tag}@{}", self.registry.host(), made.root.digest)
    }

    /// Pulls an image to its end.
    pub fn pull(&self, reference: &str, more: &[&str]) -> Output {
        self.sandbox.run(pull(reference).iter().chain(more))
    }

    /// Starts a pull; what it says is kept for [`Child::wait_with_output`].
    pub fn start_pull(&self, reference: &str, more: &[&str]) -> Child {
        self.start(pull(reference).iter().chain(more))
    }

    /// Starts the command.
    pub fn start<'a>(&self, arguments: impl IntoIterator<Item = &'a &'a str>) -> Child {
        let mut command: Command = self.sandbox.command();
        command.args(arguments.into_iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("larder can be started")
    }

    /// Where a blob is, once it is there.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.sandbox.store().join(digest.path())
    }

    /// Where a blob is while it is on its way.
    pub fn part(&self, digest: &Digest) -> PathBuf {
        self.sandbox.store().join(format!("ingest/{}.part", digest.hex()))
    }

    /// How often this was asked for with GET.
    pub fn gets(&self, digest: &Digest) -> usize {
        let digest = digest.to_string();
        self.registry.seen().iter().filter(|seen| seen.method == "GET" && seen.path.ends_with(&digest)).count()
    }
}

fn pull(reference: &str) -> [&str; 6] {
    ["pull", "--engine", "none", "--platform", PLATFORM, reference]
}

/// Everything that one platform's image consists of, each once: root, manifest, config and layers.
pub fn blobs(made: &Made, of: &OnePlatform) -> Vec<Descriptor> {
    let mut blobs = vec![made.root.clone(), of.manifest.clone(), of.config.clone()];
    blobs.extend(of.layers.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    blobs.retain(|blob| seen.insert(blob.digest));
    blobs
}

/// A stored image and its name, as they leave the store.
pub fn stored(store: &Store, reference: &str) -> (Image, Name) {
    let pin = store.find(&reference.parse().expect("a reference"), None).expect("pins can be read").remove(0);
    let document = |digest: &Digest| store.document(digest).expect("it is whole").expect("it is there");
    let (parsed, _) = Document::parse(&document(&pin.manifest.digest), None).expect("what was pinned is a manifest");
    let Document::Manifest(manifest) = parsed else { panic!("what was pinned is a manifest") };
    let config = Config::parse(&document(&pin.config.digest)).expect("what was pinned has a config");
    (Image::new(pin.root, pin.manifest, manifest, config).expect("they belong together"), pin.name)
}

/// Waits until something is so, which it will be if `running` gets on with it.
pub fn until(running: &mut Child, mut so: impl FnMut() -> bool) {
    while !so() {
        assert!(running.try_wait().expect("a child can be waited for").is_none(), "the command ended too early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Whether a process has this file open.
pub fn has_open(process: u32, path: &Path) -> bool {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|target| target == path)
}

/// Every file with a digest for a name has that digest; returns how many there are.
pub fn verified(store: &Path) -> usize {
    let Ok(blobs) = std::fs::read_dir(store.join("blobs/sha256")) else { return 0 };
    let mut count = 0;
    for blob in blobs {
        let blob = blob.expect("the store can be listed");
        let name = blob.file_name().to_string_lossy().into_owned();
        let bytes = std::fs::read(blob.path()).expect("a blob can be read");
        assert_eq!(Digest::of(&bytes).hex(), name, "a blob that is not what its name says");
        count += 1;
    }
    count
}
