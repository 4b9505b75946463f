//! Other tools read the store by name, while larder adds and removes.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::engine::{Make, RealEngine};
use crate::support::image::Recipe;
use crate::support::sandbox::Sandbox;
use crate::support::scene::{PLATFORM, Scene};

/// How many images are added while others read.
const IMAGES: usize = 40;

/// Reads an image of a layout by its name.
type Reader<'a> = &'a (dyn Fn(&Path, &str) -> Output + Sync);

/// A store that an engine's programs see, and an image that is in it all the time.
struct Library {
    scene: Scene,
    engine: RealEngine,
    kept: String,
}

impl Library {
    fn beside(make: Make) -> Library {
        let engine = RealEngine::start(make);
        let mut sandbox = Sandbox::new();
        sandbox.set("LARDER_DIR", engine.folder().join("store").display().to_string());
        let scene = Scene::in_sandbox(sandbox);
        let kept = scene.serve(&recipe(0), "demo/app", "kept");
        let _ = scene.pull(&kept, &[]).expect(0);
        Library { scene, engine, kept }
    }

    /// Reads again and again with each of these, until images were added and removed for long enough; nobody fails.
    fn is_read_while_it_changes(&self, readers: &[Reader<'_>]) {
        let layout = self.engine.folder().join("store");
        let (name, _) = self.kept.split_once('@').unwrap();
        let (added, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for first in 0..2 {
                let added = &added;
                scope.spawn(move || {
                    for n in (1 + first..=IMAGES).step_by(2) {
                        let reference = self.scene.serve(&recipe(n as u32), "demo/app", &format!("v{n}"));
                        let _ = self.scene.pull(&reference, &[]).expect(0);
                        if n % 4 == 0 {
                            let _ = self.scene.sandbox.run(["remove", &reference]).expect(0);
                        }
                        added.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for reader in readers {
                scope.spawn(|| {
                    // Once at least, and until there is nothing more to disturb it.
                    loop {
                        let output = reader(&layout, name);
                        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                        read.fetch_add(1, Ordering::Relaxed);
                        if added.load(Ordering::Relaxed) >= IMAGES {
                            break;
                        }
                    }
                });
            }
        });
        assert!(read.load(Ordering::Relaxed) >= readers.len());
    }

    /// What the others list are the names that larder lists.
    fn is_listed_alike(&self) {
        let umoci = Command::new("umoci").args(["ls", "--layout"]).arg(self.engine.folder().join("store")).output().unwrap();
        let mut theirs: Vec<_> = String::from_utf8(umoci.stdout).unwrap().lines().map(str::to_owned).collect();
        let listed = self.scene.sandbox.run(["list", "--quiet"]).expect(0).stdout;
        let mut ours: Vec<_> = listed.lines().map(|line| line.split_once('@').unwrap().0.to_owned()).collect();
        theirs.sort_unstable();
        ours.sort_unstable();
        assert_eq!(theirs, ours);
        assert_eq!(ours.len(), IMAGES - IMAGES / 4 + 1);
    }
}

/// Of one platform: umoci takes no name that stands for several.
fn recipe(revision: u32) -> crate::support::image::Made {
    Recipe { layers: 2, revision, platforms: vec![PLATFORM], ..Recipe::default() }.make()
}

fn others_read_the_store_by_name(make: Make) {
    let library = Library::beside(make);
    let skopeo = |layout: &Path, name: &str| {
        let mut skopeo = library.engine.program("skopeo");
        skopeo.args(["inspect", "--config"]).arg(format!("oci:{}:{name}", layout.display())).output().unwrap()
    };
    let umoci = |layout: &Path, name: &str| {
        Command::new("umoci").args(["stat", "--json", "--image"]).arg(format!("{}:{name}", layout.display())).output().unwrap()
    };
    let podman = |layout: &Path, name: &str| library.engine.pull_layout(layout, name);
    library.is_read_while_it_changes(&[&skopeo, &umoci, &podman]);
    library.is_listed_alike();
}

#[test]
fn skopeo_umoci_and_podman_read_a_store_that_changes() {
    others_read_the_store_by_name(Make::Podman);
}

#[test]
fn newer_skopeo_and_podman_read_a_store_that_changes() {
    others_read_the_store_by_name(Make::PodmanOf("trixie"));
}

/// Where somebody prepared the engines of Debian's unstable release.
#[test]
fn skopeo_and_podman_of_an_unstable_release_read_a_store_that_changes() {
    if Make::PodmanOf("sid").is_there() {
        others_read_the_store_by_name(Make::PodmanOf("sid"));
    }
}
