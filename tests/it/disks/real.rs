//! Real file systems, mounted for the test: what does not fit is refused before it begins, what is there stays and can be
//! used and removed.

mod full;
mod kinds;
mod read_only;

use std::fs;

use crate::support::image::{Compression, Made, Recipe};
use crate::support::mount::Mount;
use crate::support::sandbox::{Output, Sandbox};
use crate::support::scene::{self, PLATFORM, Scene};

/// A store on a file system of its own, with an image in it, and another image that is not.
struct Pantry {
    scene: Scene,
    kept: String,
    wanted: String,
    made: Made,
    /// Unmounted before the sandbox goes.
    mount: Option<Mount>,
}

impl Pantry {
    fn on(mount: impl FnOnce(&Scene) -> Mount) -> Pantry {
        let scene = Scene::in_sandbox(Sandbox::new());
        let mount = Some(mount(&scene));
        let kept = scene.serve(&Recipe { layers: 2, ..Recipe::default() }.make(), "demo/kept", "v1");
        let made = Recipe { layer_size: 100_000, compression: Compression::None, ..Recipe::default() }.make();
        let wanted = scene.serve(&made, "demo/wanted", "v1");
        let _ = scene.pull(&kept, &[]).expect(0);
        scene.registry.forget();
        Pantry { scene, kept, wanted, made, mount }
    }

    fn mount(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.scene.sandbox.run(arguments)
    }

    /// The bytes of the image that is wanted and not there.
    fn missing(&self) -> u64 {
        let blobs = scene::blobs(&self.made, self.made.platform(PLATFORM));
        blobs.iter().filter(|blob| !self.scene.blob(&blob.digest).exists()).map(|blob| blob.size).sum()
    }

    fn layers_asked_for(&self) -> usize {
        self.made.platform(PLATFORM).layers.iter().map(|layer| self.scene.gets(&layer.digest)).sum()
    }

    /// The bytes of blobs that are on their way.
    fn begun(&self) -> u64 {
        let parts = fs::read_dir(self.scene.sandbox.store().join("ingest")).into_iter().flatten().flatten();
        parts.filter_map(|part| Some(part.metadata().ok()?.len())).sum()
    }

    /// What was there before is all there, and is listed.
    fn what_was_kept_is_whole(&self) {
        let _ = self.scene.pull(&self.kept, &["--offline"]).expect(0);
        let _ = self.run(&["verify"]).expect(0);
        assert!(self.run(&["list", "--quiet"]).expect(0).stdout.contains(&self.kept));
        scene::verified(&self.scene.sandbox.store());
    }
}

impl Drop for Pantry {
    fn drop(&mut self) {
        drop(self.mount.take());
    }
}

/// What `mkfs` is told, and how large the smallest one may be.
const KINDS: [(&str, &[&str], u64); 3] = [("ext4", &["-q", "-m", "0"], 32), ("xfs", &["-q"], 320), ("btrfs", &["-q"], 128)];

fn made(kind: usize) -> Pantry {
    let (kind, options, megabytes) = KINDS[kind];
    Pantry::on(|scene| Mount::made(kind, options, megabytes, &scene.sandbox.path().join("disk"), &scene.sandbox.store()))
}
