//! Files that the usual tools wrote: what is read is what they say that they wrote.

mod buildah;
mod unproved;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use larder::digest::Digest;
use larder::event;
use larder::import::{Imported, Proof, Source, Wish};
use larder::pull::Cache;
use larder::store::Store;
use serde_json::Value;

use crate::support::engine::{Make, RealEngine};
use crate::support::image::{Compression, Made, OnePlatform, Recipe};

const NAME: &str = "r.example.com/team/app:v1";
const OTHER: &str = "docker.io/library/busybox:1";

/// What tells images apart that are the same to every engine: image ID and diff IDs.
type Identity = (Digest, Vec<Digest>);

/// A folder for files, and the images that they are made of.
struct Scene {
    folder: tempfile::TempDir,
    read: usize,
}

impl Scene {
    fn new() -> Scene {
        Scene { folder: tempfile::tempdir().unwrap(), read: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An OCI layout of an image under the tag `v1`.
    fn layout(&self, name: &str, recipe: &Recipe) -> (Made, PathBuf) {
        let (made, folder) = (recipe.make(), self.path(name));
        made.write_layout(&folder, "v1").unwrap();
        (made, folder)
    }

    /// Imports a file or layout into an empty store, and compares.
    #[track_caller]
    fn reads(&mut self, file: &Path, expected: &[Identity]) -> Vec<Imported> {
        let store = tempfile::tempdir_in(self.folder.path()).unwrap();
        let store = Store::open(store.path().join("store")).unwrap();
        let cache = Cache { store: &store, upstream: None, tell: &event::silent };
        let source = match file.is_dir() {
            true => Source::Folder(file.to_owned()),
            false => Source::Stream(Box::new(File::open(file).unwrap())),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let imported = runtime.block_on(cache.import(source, &Wish { accept_names: true, ..Wish::default() }));
        let imported = imported.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let found: BTreeSet<Identity> = imported.iter().map(|image| (image.pin.image_id(), image.pin.diff_ids.clone())).collect();
        assert_eq!(found, expected.iter().cloned().collect(), "{}", file.display());
        self.read += 1;
        imported
    }
}

fn identity(image: &OnePlatform) -> Identity {
    (image.config.digest, image.diff_ids.clone())
}

fn names(imported: &[Imported]) -> Vec<String> {
    let names: BTreeSet<String> = imported.iter().map(|image| image.pin.name.to_string()).collect();
    names.into_iter().collect()
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// skopeo in a setting of its own.
#[track_caller]
fn skopeo(from: &str, to: &str, more: &[&str]) {
    run("skopeo", &[&["copy", "--quiet", "--insecure-policy"], more, &[from, to]].concat());
}

fn of_one_platform(compression: Compression) -> Recipe {
    Recipe { platforms: vec!["linux/amd64"], index: false, compression, ..Recipe::default() }
}

#[test]
fn skopeo_writes() {
    let mut scene = Scene::new();
    for (number, compression) in [Compression::Gzip, Compression::Zstd, Compression::None, Compression::Mixed].into_iter().enumerate() {
        let (made, layout) = scene.layout(&format!("layout{number}"), &of_one_platform(compression));
        let (from, expected) = (format!("oci:{}:v1", layout.display()), [identity(&made.platforms[0])]);
        let file = |name: &str| scene.path(&format!("{name}{number}"));
        let [docker, nameless, archive, folder] = ["docker", "nameless", "archive", "folder"].map(file);
        // Docker's media types have no name for zstd, and skopeo 1.9 none for it either.
        if matches!(compression, Compression::Gzip | Compression::None) {
            skopeo(&from, &format!("docker-archive:{}:{NAME}", docker.display()), &[]);
            skopeo(&from, &format!("docker-archive:{}", nameless.display()), &[]);
            assert_eq!(names(&scene.reads(&docker, &expected)), [NAME]);
            assert!(names(&scene.reads(&nameless, &expected))[0].starts_with("localhost/imported:id-"));
        }
        skopeo(&from, &format!("oci-archive:{}:{NAME}", archive.display()), &[]);
        skopeo(&from, &format!("oci:{}:{NAME}", folder.display()), &[]);
        let imported = scene.reads(&archive, &expected);
        assert_eq!((names(&imported), &imported[0].proof), (vec![NAME.to_owned()], &Proof::InFile));
        if matches!(compression, Compression::Gzip | Compression::Zstd) {
            assert_eq!(imported[0].pin.root.digest, made.root.digest, "skopeo keeps what is OCI and compressed already");
        }
        scene.reads(&folder, &expected);
        scene.reads(&layout, &expected);
    }
    let (made, layout) = scene.layout("all", &Recipe { attestations: true, ..Recipe::default() });
    let (from, all) = (format!("oci:{}:v1", layout.display()), scene.path("all.tar"));
    skopeo(&from, &format!("oci-archive:{}:{NAME}", all.display()), &["--all"]);
    let both: Vec<Identity> = made.platforms.iter().map(identity).collect();
    assert_eq!(scene.reads(&all, &both)[0].pin.root.digest, made.root.digest);
    scene.reads(&layout, &both);
    assert_eq!(scene.read, 18);
}

#[test]
fn umoci_writes() {
    let mut scene = Scene::new();
    let layout = scene.path("layout");
    let at = format!("{}:empty", layout.display());
    run("umoci", &["init", "--layout", &layout.display().to_string()]);
    run("umoci", &["new", "--image", &at]);
    let document = |digest: &Value| -> Value {
        let path = layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = document(&index["manifests"][0]["digest"]);
    let image_id: Digest = manifest["config"]["digest"].as_str().unwrap().parse().unwrap();
    let expected = [(image_id, Vec::new())];
    scene.reads(&layout, &expected);
    for (name, options) in [("plain.tar", "-cf"), ("gzip.tgz", "-czf"), ("xz.txz", "-cJf"), ("zstd.tzst", "-c --zstd -f")] {
        let file = scene.path(name);
        let options: Vec<&str> = options.split(' ').collect();
        run("tar", &[&options[..], &[&file.display().to_string(), "--directory", &layout.display().to_string(), "."]].concat());
        scene.reads(&file, &expected);
    }
    // One stream behind the other, as parallel writers make them, and the check that xz makes by default or another.
    let (plain, file) = (scene.path("plain.tar").display().to_string(), scene.path("streams.xz"));
    let half = fs::metadata(&plain).unwrap().len() / 2;
    let stream = |bytes: &[u8], check: &str| {
        let part = scene.path("part");
        fs::write(&part, bytes).unwrap();
        Command::new("xz").args(["--stdout", "-9", check]).arg(part).output().unwrap().stdout
    };
    let (first, second) = fs::read(&plain).map(|bytes| (bytes[..half as usize].to_vec(), bytes[half as usize..].to_vec())).unwrap();
    fs::write(&file, [stream(&first, "--check=crc64"), vec![0; 8], stream(&second, "--check=crc32")].concat()).unwrap();
    scene.reads(&file, &expected);
    assert_eq!(scene.read, 6);
}

/// Loads an image, saves it in every way, and reads what came.
fn saved_by(scene: &mut Scene, engine: &RealEngine, ways: &[(&str, &[&str], &[&str])], proof: fn(&Proof) -> bool) {
    for (number, compression) in [Compression::Gzip, Compression::None].into_iter().enumerate() {
        let (made, layout) = scene.layout(&format!("from{number}"), &of_one_platform(compression));
        let image = &made.platforms[0];
        let load = engine.folder().join("load.tar");
        let _ = fs::remove_file(&load);
        skopeo(&format!("oci:{}:v1", layout.display()), &format!("docker-archive:{}:{NAME}", load.display()), &[]);
        assert!(engine.load_file(&load).status.success());
        engine.tag(NAME, OTHER);
        for (way, options, images) in ways {
            let to = engine.folder().join(format!("{way}{number}"));
            let id = image.config.digest.to_string();
            let images: Vec<&str> = images.iter().map(|name| if *name == "ID" { id.as_str() } else { *name }).collect();
            engine.save(options, &to, &images);
            let imported = scene.reads(&to, &[(config_of(&to, options).unwrap_or(image.config.digest), image.diff_ids.clone())]);
            assert!(proof(&imported[0].proof), "{way}: {:?}", imported[0].proof);
            let named = images.iter().filter(|name| **name != id).count();
            assert_eq!(names(&imported).len(), named.max(1), "{way}");
        }
        engine.remove(NAME);
        engine.remove(OTHER);
    }
}

/// The config that skopeo finds in an OCI archive or layout: podman writes the config anew when it converts an image to OCI.
fn config_of(file: &Path, options: &[&str]) -> Option<Digest> {
    let transport = match options {
        [_, "oci-archive"] => "oci-archive",
        [_, "oci-dir"] => "oci",
        _ => return None,
    };
    let manifest = run("skopeo", &["inspect", "--raw", &format!("{transport}:{}", file.display())]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().parse().ok()
}

#[test]
fn docker_20_writes() {
    let (mut scene, engine) = (Scene::new(), RealEngine::start(Make::Docker));
    let ways: [(&str, &[&str], &[&str]); 3] = [("one", &[], &[NAME]), ("two", &[], &[NAME, OTHER]), ("id", &[], &["ID"])];
    saved_by(&mut scene, &engine, &ways, |proof| matches!(proof, Proof::ImageId(_)));
    assert_eq!(scene.read, 6);
}

#[test]
fn docker_26_writes() {
    let (mut scene, engine) = (Scene::new(), RealEngine::start(Make::DockerOf("trixie")));
    let ways: [(&str, &[&str], &[&str]); 3] = [("one", &[], &[NAME]), ("two", &[], &[NAME, OTHER]), ("id", &[], &["ID"])];
    saved_by(&mut scene, &engine, &ways, |proof| *proof == Proof::InFile);
    assert_eq!(scene.read, 6);
}

#[test]
fn docker_26_with_containerd_writes() {
    let (mut scene, engine) = (Scene::new(), RealEngine::start(Make::DockerWithContainerdOf("trixie")));
    let ways: [(&str, &[&str], &[&str]); 2] = [("one", &[], &[NAME]), ("two", &[], &[NAME, OTHER])];
    saved_by(&mut scene, &engine, &ways, |proof| *proof == Proof::InFile);
    assert_eq!(scene.read, 4);
}

#[test]
fn podman_writes() {
    let (mut scene, engine) = (Scene::new(), RealEngine::start(Make::Podman));
    let ways: [(&str, &[&str], &[&str]); 4] = [
        ("docker", &["--format", "docker-archive"], &[NAME]),
        ("several", &["--multi-image-archive"], &[NAME, OTHER]),
        ("oci", &["--format", "oci-archive"], &[NAME]),
        ("folder", &["--format", "oci-dir"], &[NAME]),
    ];
    saved_by(&mut scene, &engine, &ways, |_| true);
    assert_eq!(scene.read, 8);
}

#[test]
fn containerd_writes() {
    let (mut scene, engine) = (Scene::new(), RealEngine::start(Make::Docker));
    let address = engine.containerd().display().to_string();
    let ctr = |arguments: &[&str]| run("ctr", &[&["--address", &address, "--namespace", "larder"], arguments].concat());
    let recipes =
        [of_one_platform(Compression::Gzip), of_one_platform(Compression::Zstd), Recipe { attestations: true, ..Recipe::default() }];
    for (number, recipe) in recipes.iter().enumerate() {
        let (made, layout) = scene.layout(&format!("layout{number}"), recipe);
        let (archive, name) = (scene.path(&format!("in{number}.tar")), format!("r.example.com/team/app{number}:v1"));
        skopeo(&format!("oci:{}:v1", layout.display()), &format!("oci-archive:{}:{name}", archive.display()), &["--all"]);
        // By its own annotation alone does ctr give a full name.
        ctr(&["images", "import", "--all-platforms", "--digests", "--base-name", &name, &archive.display().to_string()]);
        let image = ctr(&["images", "ls", "--quiet"]).lines().find(|line| line.contains(&format!("app{number}"))).unwrap().to_owned();
        for (way, options) in [
            ("as-it-is", &[][..]),
            ("one", &["--platform", "linux/amd64"]),
            ("all", &["--all-platforms"]),
            ("without-list", &["--skip-manifest-json"]),
        ] {
            let to = scene.path(&format!("{way}{number}.tar"));
            ctr(&[&["images", "export"], options, &[&to.display().to_string(), &image]].concat());
            let all: Vec<Identity> = made.platforms.iter().map(identity).collect();
            let expected = if way == "one" || way == "as-it-is" || way == "without-list" { &all[..1] } else { &all[..] };
            let imported = scene.reads(&to, expected);
            assert_eq!(imported[0].proof, Proof::InFile);
        }
    }
    assert_eq!(scene.read, 12);
}
