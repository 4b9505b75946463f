//! Real engines, of several releases: one suite for all of them.
//!
//! Each file here has a table of cases. A table runs on one engine of every make, case after case; every case has names and images of its
//! own, so that it finds what it leaves and nothing else.

mod aside;
mod by_itself;
mod deep;
mod faults;
mod identities;
mod names;
mod partial;
mod platform;
mod rootless;
mod running;
mod several;
mod stopped;
mod ways;

use std::path::PathBuf;
use std::pin::Pin as Pinned;
use std::sync::Mutex;

use larder::digest::Digest;
use larder::engine::proof::{Proof, Standing, prove};
use larder::ensure::{Done, EnsureError, Report, Wish};
use larder::event::Event;
use larder::pin::Identity;
use larder::pull::{Cache, Unpinned};

use super::*;
use crate::support::engine::{Make, RealEngine};

/// A case: its name, and what it does with an engine.
type Case = (&'static str, for<'g> fn(&'g mut Ground) -> Pinned<Box<dyn Future<Output = ()> + 'g>>);

/// A table of cases out of the functions' names.
macro_rules! cases {
    ($($case:ident),* $(,)?) => { &[$((stringify!($case), |ground| Box::pin($case(ground)))),*] };
}
use cases;

/// What an image is called that needs no other name.
const NAME: &str = "r.example.com/team/app:v1";

const TABLES: [&[Case]; 5] = [identities::CASES, names::CASES, partial::CASES, running::CASES, faults::CASES];

#[test]
fn the_suite_is_as_large_as_it_should_be() {
    let names: std::collections::BTreeSet<_> = TABLES.iter().copied().flatten().map(|(name, _)| name).collect();
    let cases: usize = TABLES.iter().map(|table| table.len()).sum();
    assert!(cases >= 30 && names.len() == cases, "{cases} cases with {} names", names.len());
}

/// Runs a table on one engine of this make.
async fn run(make: Make, cases: &[Case]) {
    if left_out(make) {
        return;
    }
    let mut ground = Ground::start(make).await;
    for (name, case) in cases {
        let running = Running(name, make);
        case(&mut ground).await;
        drop(running);
    }
}

/// The engines of an unstable release are tested where somebody prepared them; all others always.
fn left_out(make: Make) -> bool {
    let unstable = [Make::DockerOf("sid"), Make::DockerWithContainerdOf("sid"), Make::PodmanOf("sid"), Make::ContainerdOf("sid")];
    !make.is_there() && unstable.contains(&make)
}

/// Says which case failed, if one does.
struct Running(&'static str, Make);

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "the test's own output, shown when it fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case `{}` failed on {:?}", self.0, self.1);
        }
    }
}

macro_rules! on_every_engine {
    ($($table:ident),*) => {
        on_every_engine!(@docker Make::Docker, $($table),*);
        on_every_engine!(@podman Make::Podman, $($table),*);
        on_every_engine!(@containerd Make::Containerd, $($table),*);
        on_every_engine!(@trixie_docker Make::DockerOf("trixie"), $($table),*);
        on_every_engine!(@trixie_docker_with_containerd Make::DockerWithContainerdOf("trixie"), $($table),*);
        on_every_engine!(@trixie_podman Make::PodmanOf("trixie"), $($table),*);
        on_every_engine!(@trixie_containerd Make::ContainerdOf("trixie"), $($table),*);
        on_every_engine!(@sid_docker Make::DockerOf("sid"), $($table),*);
        on_every_engine!(@sid_docker_with_containerd Make::DockerWithContainerdOf("sid"), $($table),*);
        on_every_engine!(@sid_podman Make::PodmanOf("sid"), $($table),*);
        on_every_engine!(@sid_containerd Make::ContainerdOf("sid"), $($table),*);
    };
    (@$engine:ident $make:expr, $($table:ident),*) => {
        mod $engine {
            use super::*;
            $(#[tokio::test]
            async fn $table() {
                run($make, super::$table::CASES).await;
            })*
        }
    };
}
on_every_engine!(identities, names, partial, running, faults);

/// Tests that need an engine of their own, on every make.
macro_rules! alone_on_every_engine {
    ($($test:ident),* $(,)?) => {
        alone_on_every_engine!(@docker Make::Docker, $($test),*);
        alone_on_every_engine!(@podman Make::Podman, $($test),*);
        alone_on_every_engine!(@containerd Make::Containerd, $($test),*);
        alone_on_every_engine!(@trixie_docker Make::DockerOf("trixie"), $($test),*);
        alone_on_every_engine!(@trixie_docker_with_containerd Make::DockerWithContainerdOf("trixie"), $($test),*);
        alone_on_every_engine!(@trixie_podman Make::PodmanOf("trixie"), $($test),*);
        alone_on_every_engine!(@trixie_containerd Make::ContainerdOf("trixie"), $($test),*);
        alone_on_every_engine!(@sid_docker Make::DockerOf("sid"), $($test),*);
        alone_on_every_engine!(@sid_docker_with_containerd Make::DockerWithContainerdOf("sid"), $($test),*);
        alone_on_every_engine!(@sid_podman Make::PodmanOf("sid"), $($test),*);
        alone_on_every_engine!(@sid_containerd Make::ContainerdOf("sid"), $($test),*);
    };
    (@$engine:ident $make:expr, $($test:ident),*) => {
        mod $engine {
            use super::*;
            $(#[tokio::test]
            async fn $test() {
                if !left_out($make) {
                    super::$test($make).await;
                }
            })*
        }
    };
}
use alone_on_every_engine;

/// An engine and a store, which the cases of a table share.
struct Ground {
    make: Make,
    real: RealEngine,
    engine: Box<dyn Engine>,
    store: Store,
    _folder: TempDir,
}

impl Ground {
    async fn start(make: Make) -> Ground {
        let real = RealEngine::start(make);
        let engine = connected(&real).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        Ground { make, real, engine, store, _folder: folder }
    }

    /// Whether it is docker with the containerd image store.
    fn has_containerd(&self) -> bool {
        matches!(self.make, Make::DockerWithContainerdOf(_))
    }

    /// Whether it is docker with its own image store.
    fn is_classic(&self) -> bool {
        self.make.is_docker() && !self.has_containerd()
    }

    /// Whether it is containerd itself, which sees blob by blob what it lacks, whatever it was thought to have.
    fn is_containerd(&self) -> bool {
        self.make.is_containerd()
    }

    /// Puts an image into the store.
    fn stored(&self, made: &Made, reference: &str) -> Stored {
        stored_in(&self.store, made, 0, reference)
    }

    /// How this engine stands to an image that it holds, and the identity that it shows.
    fn held(&self, of: &Stored) -> (Standing, String) {
        identity(self.make, &of.pin)
    }

    async fn standing(&self, of: &Stored) -> Standing {
        standing(&*self.engine, &of.pin).await
    }

    /// Fails unless larder and the engine's own command line agree that it holds the image.
    #[track_caller]
    fn agree(&self, of: &Stored, standing: Standing) {
        let (held, id) = self.held(of);
        assert_eq!((standing, self.real.inspect_id(&of.pin.name.to_string())), (held, Some(id)));
    }

    async fn holds(&self, of: &Stored) {
        let standing = self.standing(of).await;
        self.agree(of, standing);
    }

    /// Sends all of an image.
    async fn load(&self, of: &Stored) -> Result<u64, EngineError> {
        load(&*self.engine, of).await
    }

    /// The main line, without a network.
    async fn ensure(&self, of: &Stored) -> Result<Report, EnsureError> {
        self.ensure_telling(of, &event::silent).await
    }

    async fn ensure_telling(&self, of: &Stored, tell: &event::Tell<'_>) -> Result<Report, EnsureError> {
        Cache { store: &of.store, upstream: None, tell }.ensure(&wish(of), &*self.engine).await
    }

    /// The main line, of which nothing may fail; the digests of the layers that were sent.
    async fn sent(&self, of: &Stored) -> Vec<Digest> {
        let report = self.ensure(of).await.unwrap();
        self.holds(of).await;
        report.lacked.expect("it was loaded").layers.iter().map(|layer| layer.digest).collect()
    }

    /// Fails if something of larder's own is left in the engine.
    fn is_tidy(&self) {
        // Nowhere else are images loaded aside, and podman takes long to list what it has.
        let names = if self.has_containerd() { self.real.names() } else { Vec::new() };
        assert!(!names.iter().any(|name| name.contains("larder.invalid")), "{names:?}");
    }
}

fn wish(of: &Stored) -> Wish {
    Wish {
        reference: of.pin.pinned(),
        name: of.pin.name.clone(),
        platform: Some(of.pin.platform.clone()),
        from: Vec::new(),
        unpinned: Unpinned::Resolve,
    }
}

/// What kind of identity an engine shows, and which digest that is for an image.
fn identity(make: Make, pin: &Pin) -> (Standing, String) {
    let (identity, digest) = match make {
        Make::DockerWithContainerdOf(_) | Make::Containerd | Make::ContainerdOf(_) => (Identity::Root, pin.root.digest),
        _ => (Identity::ImageId, pin.image_id()),
    };
    (Standing::Held(Proof::Identity(identity)), digest.to_string())
}

async fn connected(to: &RealEngine) -> Box<dyn Engine> {
    engine::connect(&choice(to), &at(&to.address(), Duration::from_secs(30))).await.unwrap()
}

/// How an engine is chosen, where all of them are looked for at its address.
fn choice(of: &RealEngine) -> Choice {
    if of.make().is_containerd() { Choice::Containerd } else { Choice::Docker }
}

async fn standing(engine: &dyn Engine, pin: &Pin) -> Standing {
    let shown = engine.inspect(&pin.name).await.unwrap();
    prove(pin, shown.as_ref(), None)
}

/// Sends all of an image.
async fn load(engine: &dyn Engine, of: &Stored) -> Result<u64, EngineError> {
    engine.load(Parcel::whole(&of.store, &of.image, &of.pin.name), &event::silent).await
}

/// Changes one byte in the middle of a blob on the disk.
fn damage(stored: &Stored, blob: &Descriptor) {
    use std::os::unix::fs::PermissionsExt;
    let path = stored.store.root().join("blobs/sha256").join(blob.digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
}

/// Remembers what is told.
#[derive(Default)]
struct Listener(Mutex<Vec<Event>>);

impl Listener {
    fn hear(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn heard(self) -> Vec<Event> {
        self.0.into_inner().unwrap()
    }
}
