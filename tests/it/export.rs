//! Images in files: the same bytes every time, nothing half, and what other tools make of them.

mod real;
mod round;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use larder::digest::Digest;
use larder::oci::Descriptor;
use serde_json::Value;

use crate::support::image::{Compression, Made, Recipe};
use crate::support::registry::Registry;
use crate::support::sandbox::{Output, Sandbox};

/// A store with an image in it, whose registry is still there.
pub(crate) struct Scene {
    pub(crate) registry: Registry,
    pub(crate) sandbox: Sandbox,
    pub(crate) made: Made,
    repository: String,
}

impl Scene {
    /// The image of a recipe, pulled for all of its platforms, or for the first.
    pub(crate) fn of(recipe: &Recipe, all: bool) -> Scene {
        Scene::named("team/app", recipe, all)
    }

    fn named(repository: &str, recipe: &Recipe, all: bool) -> Scene {
        let scene = Scene { registry: Registry::start(), sandbox: Sandbox::new(), made: recipe.make(), repository: repository.to_owned() };
        scene.serve(repository, &scene.made);
        let platform = if all { "all" } else { recipe.platforms[0] };
        scene.pull(&format!("{}@{}", scene.tagged(), scene.made.root.digest), platform);
        scene
    }

    /// Serves one more image.
    pub(crate) fn serve(&self, repository: &str, made: &Made) {
        made.serve(&self.registry, repository, "v1");
    }

    pub(crate) fn pull(&self, reference: &str, platform: &str) {
        let _ = self.sandbox.run(["pull", "--engine", "none", "--platform", platform, reference]).expect(0);
    }

    /// Pulls the image of another recipe beside the first.
    pub(crate) fn add(&self, repository: &str, recipe: &Recipe) -> Made {
        let made = recipe.make();
        self.serve(repository, &made);
        self.pull(&format!("{}/{repository}:v1@{}", self.registry.host(), made.root.digest), recipe.platforms[0]);
        made
    }

    /// Its name, without the digest.
    pub(crate) fn tagged(&self) -> String {
        format!("{}/{}:v1", self.registry.host(), self.repository)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.home().join(name)
    }

    pub(crate) fn export(&self, arguments: &[&str]) -> Output {
        self.sandbox.run(["export"].iter().chain(arguments))
    }

    /// Exports the image to a file in the home folder, and reads that.
    fn exported(&self, name: &str, arguments: &[&str]) -> Vec<u8> {
        let tagged = self.tagged();
        let _ = self.export(&[&[tagged.as_str(), "-o", name], arguments].concat()).expect(0);
        fs::read(self.path(name)).unwrap()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.sandbox.store().join("blobs/sha256").join(digest.hex())
    }

    /// Changes one byte in the middle of a blob.
    fn damage(&self, blob: &Descriptor) {
        let path = self.blob(&blob.digest);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

fn small() -> Recipe {
    Recipe { platforms: vec!["linux/amd64"], ..Recipe::default() }
}

pub(crate) fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        })
        .collect()
}

fn document(members: &[(String, Vec<u8>)], path: &str) -> Value {
    let (_, content) = members.iter().find(|(name, _)| name == path).unwrap_or_else(|| panic!("no {path}"));
    serde_json::from_slice(content).unwrap()
}

/// What lies in a folder, but for what was there before anything was exported.
fn left_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != ".local").collect();
    names.sort();
    names
}

#[test]
fn every_form_has_the_same_bytes_on_every_run_and_in_every_store() {
    let recipe = Recipe { compression: Compression::Mixed, ..small() };
    let (one, two) = (Scene::of(&recipe, false), Scene::of(&recipe, false));
    let name = ["--as", "r.example.com/team/app:v1"];
    for form in ["archive", "docker", "oci"] {
        for compress in ["none", "gzip", "zstd"] {
            let arguments = [&name[..], &["--format", form, "--compress", compress]].concat();
            let first = one.exported("first", &arguments);
            assert!(first == one.exported("again", &arguments), "{form} {compress}");
            assert!(first == two.exported("elsewhere", &arguments), "{form} {compress}");
            let unpacked = match compress {
                "gzip" => {
                    let mut out = Vec::new();
                    flate2::read::MultiGzDecoder::new(&first[..]).read_to_end(&mut out).unwrap();
                    out
                }
                "zstd" => zstd::decode_all(&first[..]).unwrap(),
                _ => first.clone(),
            };
            assert!(unpacked == one.exported("plain", &[&name[..], &["--format", form]].concat()), "{form} {compress}");
        }
    }
}

#[test]
fn what_is_told_of_a_file_is_so() {
    let scene = Scene::of(&small(), false);
    let tagged = scene.tagged();
    let told = scene.export(&[&tagged, "-o", "a.tar", "--json"]).expect(0).one_json();
    let bytes = fs::read(scene.path("a.tar")).unwrap();
    assert_eq!(
        told["file"],
        serde_json::json!({ "path": "a.tar", "format": "archive", "bytes": bytes.len(), "sha256": Digest::of(&bytes) })
    );
    assert_eq!((&told["status"], &told["name"], &told["lacking_manifests"]), (&"exported".into(), &tagged.as_str().into(), &0.into()));
    assert_eq!(told["root"], serde_json::json!(scene.made.root.digest));

    let would = scene.export(&[&tagged, "-o", "b.tar", "--json", "--dry-run"]).expect(0).one_json();
    assert_eq!((&would["status"], &would["file"]["bytes"]), (&"would-export".into(), &told["file"]["bytes"]));
    assert!(!scene.path("b.tar").exists());
    assert_eq!(scene.export(&[&tagged, "-o", "a.tar", "--quiet"]).expect(0).stdout, "a.tar\n");

    let streamed = scene.export(&[&tagged, "-o", "-"]).expect(0);
    assert!(streamed.stderr.contains(&Digest::of(&bytes).to_string()), "{}", streamed.stderr);
    let mut command = scene.sandbox.command();
    let raw = command.args(["export", "--quiet", &tagged, "-o", "-"]).stdin(Stdio::null()).output().unwrap();
    assert!(raw.status.success() && raw.stdout == bytes && raw.stderr.is_empty());
}

#[test]
fn several_images_lie_in_one_file_in_an_order_of_their_own() {
    let scene = Scene::named("team/b", &small(), false);
    let other = scene.add("team/a", &Recipe { revision: 2, ..small() });
    let (b, a) = (scene.tagged(), format!("{}/team/a:v1", scene.registry.host()));
    let _ = scene.export(&[&b, &a, "-o", "one.tar"]).expect(0);
    let _ = scene.export(&[&a, &b, &a, "-o", "two.tar"]).expect(0);
    let bytes = fs::read(scene.path("one.tar")).unwrap();
    assert!(bytes == fs::read(scene.path("two.tar")).unwrap());
    let members = members(&bytes);
    let roots: Vec<Value> = document(&members, "index.json")["manifests"].as_array().unwrap().iter().map(|m| m["digest"].clone()).collect();
    assert_eq!(roots, [serde_json::json!(other.root.digest), serde_json::json!(scene.made.root.digest)]);
    let mut seen = HashMap::new();
    members.iter().for_each(|(path, _)| *seen.entry(path).or_insert(0) += 1);
    assert!(seen.values().all(|times| *times == 1), "what they share is there once");

    let missing = format!("{}/team/c:v1", scene.registry.host());
    let refused = scene.export(&[&a, &missing, "-o", "three.tar"]).expect(3);
    assert!(refused.stderr.contains("team/c:v1 is not in the store") && !scene.path("three.tar").exists(), "{refused}");
}

#[test]
fn an_index_goes_whole_or_as_far_as_it_is_there_and_one_platform_by_itself() {
    let scene = Scene::of(&Recipe { attestations: false, ..Recipe::default() }, true);
    let [amd, arm] = &scene.made.platforms[..] else { panic!("two platforms") };
    let roots = |arguments: &[&str]| {
        let members = members(&scene.exported("a.tar", arguments));
        let blobs = [amd, arm].map(|p| members.iter().any(|(path, _)| path.ends_with(&p.manifest.digest.hex())));
        (document(&members, "index.json")["manifests"][0]["digest"].clone(), blobs)
    };
    let digest = |of: &Descriptor| serde_json::json!(of.digest);
    assert_eq!(roots(&[]), (digest(&scene.made.root), [true, true]));
    assert_eq!(roots(&["--platform", "all"]), (digest(&scene.made.root), [true, true]));
    assert_eq!(roots(&["--platform", "linux/arm64,linux/amd64"]), (digest(&scene.made.root), [true, true]));
    assert_eq!(roots(&["--platform", "linux/arm64"]), (digest(&arm.manifest), [false, true]));
    let docker = members(&scene.exported("d.tar", &["--format", "docker", "--platform", "linux/arm64"]));
    assert!(document(&docker, "manifest.json")[0]["Config"].as_str().unwrap().ends_with(&arm.config.digest.hex()));

    let refused = scene.export(&[&scene.tagged(), "-o", "x.tar", "--platform", "linux/s390x"]).expect(3);
    assert!(refused.stderr.contains("for linux/s390x") && refused.stderr.contains("there is: linux/amd64, linux/arm64"), "{refused}");

    let partial = Scene::of(&Recipe { attestations: true, ..Recipe::default() }, false);
    let told = partial.export(&[&partial.tagged(), "-o", "p.tar", "--json"]).expect(0);
    assert_eq!(told.one_json()["lacking_manifests"], 3, "another platform and two attestations");
    assert!(told.stderr.contains("--platform linux/amd64 writes that platform alone"), "{told}");
    let members = members(&fs::read(partial.path("p.tar")).unwrap());
    assert_eq!(document(&members, "index.json")["manifests"][0]["digest"], digest(&partial.made.root));
}

#[test]
fn damage_is_said_with_its_image_and_leaves_what_was_there() {
    for form in ["archive", "docker", "oci", "layout", "minikube"] {
        let scene = Scene::of(&small(), false);
        let to = if matches!(form, "layout" | "minikube") { "folder" } else { "a.tar" };
        let tagged = scene.tagged();
        let pinned = format!("{tagged}@{}", scene.made.root.digest);
        let first = scene.export(&[&tagged, "-o", to, "--format", form, "--json"]).expect(0).one_json();
        let path = scene.path(first["file"]["path"].as_str().unwrap());
        let before = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if form == "layout" {
            fs::remove_dir_all(&path).unwrap();
        }
        let layer = scene.made.platforms[0].layers[2].clone();
        scene.damage(&layer);
        let failed = scene.export(&[&tagged, "-o", to, "--format", form]).expect(4);
        for text in [
            format!("stored blob is damaged: {}", layer.digest),
            format!("image:    {pinned} for linux/amd64"),
            format!("hint: `larder verify --repair {pinned}` brings it again"),
            "damaged/".to_owned(),
        ] {
            assert!(failed.stderr.contains(&text), "{form}: `{text}` is not in\n{failed}");
        }
        match form {
            "layout" => assert!(!path.join("index.json").exists() && !path.join("index.json.part").exists()),
            _ => assert!(fs::read(&path).unwrap() == before && left_in(path.parent().unwrap()).len() == 1),
        }
        let missing = scene.export(&[&tagged, "-o", to, "--format", form]).expect(3);
        assert!(missing.stderr.contains("1 of 8 layers are missing"), "{missing}");
        let _ = scene.sandbox.run(["verify", "--repair", &pinned]).expect(0);
        let _ = scene.export(&[&tagged, "-o", to, "--format", form]).expect(0);
    }
}

#[test]
fn a_stream_that_is_cut_names_nothing_and_fails() {
    for compress in ["none", "gzip", "zstd"] {
        let scene = Scene::of(&Recipe { layer_size: 2_000_000, ..small() }, false);
        let whole = scene.exported("whole", &["--compress", compress]);
        scene.damage(&scene.made.platforms[0].layers[3].clone());
        let output = scene.sandbox.command().args(["export", &scene.tagged(), "-o", "-", "--compress", compress]).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(!output.stdout.is_empty() && output.stdout.len() < whole.len(), "{compress}");
        let unpacker = match compress {
            "gzip" => "gzip",
            "zstd" => "zstd",
            _ => "tar",
        };
        let mut unpack = Command::new(unpacker);
        let cut = scene.path("cut");
        fs::write(&cut, &output.stdout).unwrap();
        match unpacker {
            "tar" => unpack.args(["-tf"]).arg(&cut),
            _ => unpack.args(["-tq"]).arg(&cut).stdin(fs::File::open(&cut).unwrap()),
        };
        assert!(!unpack.output().unwrap().status.success(), "{compress}: what is cut looks whole");
    }
    let scene = Scene::of(&small(), false);
    let full = scene.export(&[&scene.tagged(), "-o", "/dev/full"]).expect(1);
    assert!(full.stderr.contains("/dev/full") && full.stderr.contains("No space left"), "{full}");
}

/// The kernel ends a program that writes more than it may.
#[test]
fn one_that_is_killed_halfway_leaves_the_old_file_and_the_next_run_tidies_up() {
    let scene = Scene::of(&small(), false);
    let tagged = scene.tagged();
    fs::write(scene.path("a.tar"), "the old one").unwrap();
    for format in ["archive", "layout"] {
        let to = if format == "layout" { "folder" } else { "a.tar" };
        let larder = scene.sandbox.command();
        let mut limited = Command::new("prlimit");
        limited.args(["--fsize=9000", "--core=0"]).arg(larder.get_program()).args(["export", &tagged, "-o", to, "--format", format]);
        limited.env_clear().envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(scene.sandbox.home());
        let ended = limited.output().unwrap();
        assert_eq!(ended.status.code(), None, "a signal ends it: {ended:?}");
    }
    assert_eq!(fs::read_to_string(scene.path("a.tar")).unwrap(), "the old one");
    assert!(scene.path("a.tar.part").exists() && !scene.path("folder/index.json").exists());
    let _ = scene.export(&[&tagged, "-o", "a.tar"]).expect(0);
    let _ = scene.export(&[&tagged, "-o", "folder", "--format", "layout"]).expect(0);
    assert_eq!(left_in(&scene.sandbox.home()), ["a.tar", "folder"]);
    assert_eq!(left_in(&scene.path("folder")), ["blobs", "index.json", "oci-layout"]);
    assert_eq!(left_in(&scene.path("folder/blobs/sha256")).len(), left_in(&scene.sandbox.store().join("blobs/sha256")).len());
}

#[test]
fn a_file_has_one_writer_and_the_rights_that_files_have() {
    let scene = Scene::of(&small(), false);
    let tagged = scene.tagged();
    let part = fs::File::create(scene.path("a.tar.part")).unwrap();
    part.lock().unwrap();
    let busy = scene.export(&[&tagged, "-o", "a.tar"]).expect(1);
    assert!(busy.stderr.starts_with("error: another process writes a.tar.part\n"), "{busy}");
    drop(part);
    fs::write(scene.path("behind"), "old").unwrap();
    std::os::unix::fs::symlink("behind", scene.path("link")).unwrap();
    let _ = scene.export(&[&tagged, "-o", "link"]).expect(0);
    assert!(scene.path("link").is_symlink() && fs::metadata(scene.path("behind")).unwrap().len() > 1000, "the link is followed");
    let _ = scene.export(&[&tagged, "-o", "a.tar"]).expect(0);
    let plain = fs::File::create(scene.path("plain")).unwrap().metadata().unwrap();
    assert_eq!(fs::metadata(scene.path("a.tar")).unwrap().mode(), plain.mode());
    // A file that somebody else put where ours would be is not followed.
    std::os::unix::fs::symlink(scene.path("plain"), scene.path("b.tar.part")).unwrap();
    let refused = scene.export(&[&tagged, "-o", "b.tar"]).expect(1);
    assert!(refused.stderr.contains("b.tar.part") && fs::metadata(scene.path("plain")).unwrap().len() == 0, "{refused}");
}

#[test]
fn a_layout_is_added_to_and_shares_nothing_with_the_store() {
    let scene = Scene::named("team/b", &small(), false);
    scene.add("team/a", &Recipe { revision: 2, ..small() });
    let (b, a) = (scene.tagged(), format!("{}/team/a:v1", scene.registry.host()));
    let _ = scene.export(&[&b, "-o", "folder", "--format", "layout"]).expect(0);
    let alone = fs::read(scene.path("folder/index.json")).unwrap();
    let _ = scene.export(&[&b, "-o", "folder", "--format", "layout"]).expect(0);
    let index = || serde_json::from_slice::<Value>(&fs::read(scene.path("folder/index.json")).unwrap()).unwrap();
    assert_eq!(index(), serde_json::from_slice::<Value>(&alone).unwrap(), "the same again changes nothing");
    // What others wrote there stays.
    let mut others = index();
    others["manifests"][0]["annotations"]["com.example"] = "mine".into();
    others["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "theirs".into();
    others["annotations"] = serde_json::json!({ "com.example": "kept" });
    fs::write(scene.path("folder/index.json"), others.to_string()).unwrap();
    let _ = scene.export(&[&a, &b, "-o", "folder", "--format", "layout"]).expect(0);
    let merged = index();
    let names: Vec<_> =
        merged["manifests"].as_array().unwrap().iter().map(|m| &m["annotations"]["org.opencontainers.image.ref.name"]).collect();
    assert_eq!(names, ["theirs", &a, &b]);
    assert_eq!((&merged["annotations"], &merged["manifests"][0]), (&others["annotations"], &others["manifests"][0]));
    for entry in fs::read_dir(scene.path("folder/blobs/sha256")).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        assert_eq!(Digest::of(&fs::read(&path).unwrap()).hex(), name.to_str().unwrap());
        let found = fs::metadata(&path).unwrap();
        assert_eq!(found.nlink(), 1, "no link leads into the store");
    }
    // A blob that is wrong is replaced.
    let layer = scene.path("folder/blobs/sha256").join(scene.made.platforms[0].layers[0].digest.hex());
    fs::write(&layer, "wrong").unwrap();
    let _ = scene.export(&[&b, "-o", "folder", "--format", "layout"]).expect(0);
    assert_eq!(Digest::of(&fs::read(&layer).unwrap()), scene.made.platforms[0].layers[0].digest);
}

#[test]
fn minikube_finds_its_file() {
    let scene = Scene::named("k8s-minikube/kicbase", &Recipe::default(), false);
    let told =
        scene.export(&[&scene.tagged(), "-o", "home", "--format", "minikube", "--json", "--platform", "linux/amd64"]).expect(0).one_json();
    let path = format!("home/cache/kic/amd64/kicbase_v1@sha256_{}.tar", scene.made.root.digest.hex());
    assert_eq!(told["file"]["path"], path);
    let members = members(&fs::read(scene.path(&path)).unwrap());
    let image = &scene.made.platforms[0];
    let manifest = document(&members, "manifest.json");
    let layers: Vec<String> = image.layers.iter().map(|layer| format!("{}.tar.gz", layer.digest.hex())).collect();
    assert_eq!(manifest, serde_json::json!([{ "Config": image.config.digest, "RepoTags": [scene.tagged()], "Layers": layers }]));
    assert_eq!(members.len(), 1 + image.layers.len() - 1 + 1, "config, each layer once, and the list");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let scene = Scene::of(&small(), false);
    let tagged = scene.tagged();
    fs::create_dir(scene.path("folder")).unwrap();
    fs::write(scene.path("folder/mine"), "").unwrap();
    let store = scene.sandbox.store().display().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["-o", "folder"], "is a folder, and an archive is a file"),
        (&["-o", "folder", "--format", "layout"], "is no image layout, and not empty: it holds `mine`"),
        (&["-o", &store, "--format", "layout"], "is a store of larder's"),
        (&["-o", "-", "--format", "layout"], "are folders, which standard output is not"),
        (&["-o", "-", "--json"], "cannot share standard output"),
        (&["-o", "x", "--format", "layout", "--compress", "gzip"], "--compress is for archives"),
        (&["-o", "x", "--format", "docker", "--platform", "all"], "hold an image for one platform"),
        (&["-o", "x", "--as", "Bad"], "is not an image reference"),
    ];
    for (arguments, said) in cases {
        let refused = scene.export(&[&[tagged.as_str()], *arguments].concat()).expect(2);
        assert!(refused.stderr.contains(said), "{refused}");
    }
    let nowhere = scene.export(&[&tagged, "-o", "none/a.tar"]).expect(1);
    assert!(
        nowhere.stderr.contains("writing none/a.tar.part failed") && nowhere.stderr.contains("hint: make the folder none first"),
        "{nowhere}"
    );
    let larder = scene.sandbox.command();
    let line = format!("{} export {tagged} -o -", larder.get_program().display());
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    terminal.env_clear().envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = terminal.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(2) && said.contains("an archive is nothing for a terminal"), "{output:?}");
    assert_eq!(left_in(&scene.sandbox.home()), ["folder"]);
}
