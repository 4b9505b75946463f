//! What an import proves, and what it says of what it cannot prove.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use larder::digest::Digest;
use larder::oci::{Compression as Form, Descriptor};
use serde_json::{Value, json};

use crate::support::image::{Compression, Made, OnePlatform, Recipe};
use crate::support::registry::Registry;
use crate::support::sandbox::{Output, Sandbox};
use crate::support::tarball::{Tarball, archive, config, docker_files};

const NAME: &str = "r.example.com/team/app:v1";

/// A registry that has an image, and a place for larder.
struct Scene {
    registry: Registry,
    sandbox: Sandbox,
    made: Made,
}

impl Scene {
    fn new(recipe: &Recipe) -> Scene {
        let (registry, sandbox, made) = (Registry::start(), Sandbox::new(), recipe.make());
        for document in &made.documents {
            let name = if document.digest == made.root.digest { "v1".to_owned() } else { document.digest.to_string() };
            registry.put_manifest("team/app", &name, &document.media_type, made.bytes(document).to_vec());
        }
        Scene { registry, sandbox, made }
    }

    fn name(&self) -> String {
        format!("{}/team/app:v1", self.registry.host())
    }

    fn pinned(&self) -> String {
        format!("{}@{}", self.name(), self.made.root.digest)
    }

    fn image(&self) -> &OnePlatform {
        &self.made.platforms[0]
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.sandbox.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.sandbox.run(arguments)
    }
}

/// The archive that `crane pull` and minikube write of an image: config and layers as they are in the registry, and no manifest
/// ([go-containerregistry, tarball](https://github.com/google/go-containerregistry/blob/main/pkg/v1/tarball/README.md)).
fn crane(made: &Made, image: &OnePlatform, tag: &str) -> Vec<u8> {
    let suffix = |layer: &Descriptor| match layer.compression() {
        Some(Form::Zstd) => ".tar.zst",
        _ => ".tar.gz",
    };
    let path = |layer: &Descriptor| layer.digest.hex() + suffix(layer);
    let (mut tar, mut written) = (Tarball::new().file(&image.config.digest.to_string(), made.bytes(&image.config)), Vec::new());
    for layer in &image.layers {
        if !written.contains(&layer.digest) {
            written.push(layer.digest);
            tar = tar.file(&path(layer), made.bytes(layer));
        }
    }
    let layers: Vec<String> = image.layers.iter().map(path).collect();
    let list = json!([{ "Config": image.config.digest, "RepoTags": [tag], "Layers": layers }]);
    tar.file("manifest.json", list.to_string().as_bytes()).end()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn level(output: &Output) -> String {
    text(&output.one_json()["proof"], "level").to_owned()
}

#[test]
fn a_registrys_manifests_prove_layers_that_came_by_file() {
    for index in [true, false] {
        let scene = Scene::new(&Recipe { index, compression: Compression::Mixed, ..Recipe::default() });
        let file = scene.file("app.tar", &crane(&scene.made, scene.image(), &scene.name()));
        let output = scene.run(&["import", "--json", "--as", &scene.pinned(), &file.display().to_string()]).expect(0);
        let image = output.one_json();
        assert_eq!((level(&output).as_str(), text(&image, "status"), text(&image, "pinned")), ("registry", "imported", &*scene.pinned()));
        assert_eq!((text(&image, "image_id"), &image["proved"]), (&*scene.image().config.digest.to_string(), &json!(true)));
        assert_eq!(scene.registry.count("/blobs/"), 0, "only manifests are asked for");
        // The pin is whole: all else needs no network.
        let pulled =
            scene.run(&["pull", "--offline", "--engine", "none", "--platform", "linux/amd64", "--json", &scene.pinned()]).expect(0);
        assert_eq!(text(&pulled.one_json(), "status"), "present");
        let _ = scene.run(&["verify"]).expect(0);
        let again = scene.run(&["import", "--json", "--offline", "--as", &scene.name(), &file.display().to_string()]).expect(0);
        assert_eq!((level(&again).as_str(), text(&again.one_json(), "status")), ("known", "present"));
    }
}

#[test]
fn another_image_than_was_asked_for_is_not_kept() {
    let scene = Scene::new(&Recipe::default());
    let other = Recipe { revision: 2, ..Recipe::default() }.make();
    let file = scene.file("app.tar", &crane(&other, &other.platforms[0], NAME)).display().to_string();
    let output = scene.run(&["import", "--as", &scene.pinned(), &file]).expect(4);
    assert!(output.stderr.contains("the image in the file is not"), "{output}");
    assert!(output.stderr.contains(&scene.image().config.digest.to_string()), "{output}");
    assert!(scene.run(&["list", "--quiet"]).expect(0).stdout.is_empty());
    let _ = scene.run(&["verify", "--json"]).expect(0);
    assert!(fs::read_dir(scene.sandbox.store().join("blobs/sha256")).unwrap().next().is_none());
    assert!(fs::read_dir(scene.sandbox.store().join("ingest")).unwrap().next().is_none());
}

#[test]
fn offline_the_manifest_of_a_usual_writer_is_found_again() {
    let made = Recipe { index: false, platforms: vec!["linux/amd64"], ..Recipe::default() }.make();
    let image = &made.platforms[0];
    let descriptor = |of: &Descriptor, kind: &str| format!(r#"{{"mediaType":"{kind}","size":{},"digest":"{}"}}"#, of.size, of.digest);
    let layers: Vec<String> =
        image.layers.iter().map(|layer| descriptor(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip")).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[{}]}}"#,
        descriptor(&image.config, "application/vnd.docker.container.image.v1+json"),
        layers.join(",")
    );
    let pinned = format!("{NAME}@{}", Digest::of(manifest.as_bytes()));
    let sandbox = Sandbox::new();
    // In minikube's cache the name of the file tells the pin.
    let file = sandbox.path().join(format!("cache/kic/amd64/app_v1@sha256_{}.tar", Digest::of(manifest.as_bytes()).hex()));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, crane(&made, image, NAME)).unwrap();
    for arguments in [
        vec!["--accept-names".to_owned(), sandbox.path().join("cache").display().to_string()],
        vec!["--as".to_owned(), pinned.clone(), file.display().to_string()],
    ] {
        let output = sandbox.run(["import", "--json", "--offline"].map(str::to_owned).into_iter().chain(arguments)).expect(0);
        assert_eq!(text(&output.one_json(), "pinned"), pinned);
        assert!(["rebuilt", "known"].contains(&&*level(&output)), "{output}");
    }
    let _ = sandbox.run(["pull", "--offline", "--engine", "none", "--platform", "linux/amd64", &pinned]).expect(0);
}

#[test]
fn what_is_not_proved_is_called_that_and_answers_to_no_digest() {
    let scene = Scene::new(&Recipe::default());
    let file = scene.file("app.tar", &crane(&scene.made, scene.image(), NAME)).display().to_string();
    let output = scene.run(&["import", "--offline", "--as", &scene.pinned(), &file]).expect(0);
    let (id, name) = (scene.image().config.digest, scene.name());
    assert!(output.stdout.contains(&format!("{name}\n  linux/amd64 ")), "{output}");
    assert!(output.stdout.contains("image ID known, pin not proved") && output.stdout.contains(&id.to_string()), "{output}");
    assert!(output.stderr.contains("warning: ") && output.stderr.contains("is not proved: the file has no manifest"), "{output}");

    let listed = scene.run(&["list", "--json"]).expect(0).one_json();
    assert_eq!((&listed["proved"], &listed["root"], &listed["manifest"]), (&json!(false), &Value::Null, &Value::Null));
    assert_eq!((text(&listed, "pinned"), text(&listed, "image_id")), (&*name, &*id.to_string()));
    assert!(scene.run(&["inspect", "--no-engines", &name]).expect(0).stdout.contains("image ID known, pin not proved"));
    let _ = scene.run(&["verify"]).expect(0);

    // Neither the digest that was asked for nor that of larder's own manifest means it.
    let own = fs::read_to_string(scene.sandbox.store().join("index.json")).unwrap();
    let own: Value = serde_json::from_str(&own).unwrap();
    let own = format!("{name}@{}", text(&own["manifests"][0], "digest"));
    for reference in [&own, &scene.pinned()] {
        let _ = scene.run(&["pull", "--offline", "--engine", "none", reference]).expect(3);
        let _ = scene.run(&["inspect", "--no-engines", reference]).expect(3);
    }
    assert!(!scene.run(&["prune", "--json"]).expect(0).stdout.contains("\"images\":1"));
    let pulled = scene.run(&["pull", "--offline", "--engine", "none", "--json", "--platform", "linux/amd64", &name]).expect(0);
    assert_eq!(pulled.one_json()["proved"], false);

    // With the registry it is proved after all, by the same blobs.
    let output = scene.run(&["import", "--json", "--as", &scene.pinned(), &file]).expect(0);
    assert_eq!((level(&output).as_str(), text(&output.one_json(), "pinned")), ("registry", &*scene.pinned()));
    let _ = scene.run(&["remove", "--all", &name]).expect(0);
    assert!(fs::read_dir(scene.sandbox.store().join("blobs/sha256")).unwrap().next().is_none());
}

#[test]
fn layers_that_came_unpacked_are_never_given_a_registrys_digest() {
    let scene = Scene::new(&Recipe { index: false, ..Recipe::default() });
    let image = scene.image();
    let plain: Vec<Vec<u8>> = image
        .layers
        .iter()
        .map(|layer| {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(scene.made.bytes(layer)), &mut plain).unwrap();
            plain
        })
        .collect();
    let layers: Vec<&[u8]> = plain.iter().map(Vec::as_slice).collect();
    let mut files = docker_files(&json!({}), &layers, NAME);
    files[0].1 = scene.made.bytes(&image.config).to_vec();
    let hex = image.config.digest.hex();
    let list = String::from_utf8(files.pop().unwrap().1).unwrap().replace(files[0].0.trim_end_matches(".json"), &hex);
    files[0].0 = format!("{hex}.json");
    files.push(("manifest.json".to_owned(), list.into_bytes()));
    let file = scene.file("app.tar", &archive(&files)).display().to_string();
    let output = scene.run(&["import", "--json", "--as", &scene.pinned(), &file]).expect(0);
    let said = output.one_json();
    assert_eq!(
        (level(&output).as_str(), text(&said["proof"], "doubt"), text(&said, "pinned")),
        ("image-id", "other-blobs", &*scene.name())
    );
    assert_eq!(text(&said, "image_id"), image.config.digest.to_string());
    let _ = scene.run(&["pull", "--offline", "--engine", "none", &scene.pinned()]).expect(3);
}

#[test]
fn manifests_in_the_file_are_the_proof_and_others_are_refused() {
    let scene = Scene::new(&Recipe { attestations: true, ..Recipe::default() });
    let folder = scene.sandbox.path().join("layout");
    scene.made.write_layout(&folder, "v1").unwrap();
    let folder = folder.display().to_string();
    let import = |more: &[&str]| scene.run(&[&["import", "--json", "--offline"], more, &[&folder]].concat());
    let output = import(&["--as", &scene.pinned()]).expect(0);
    let platforms: Vec<_> = output.json().iter().map(|image| text(image, "platform").to_owned()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert!(output.json().iter().all(|image| text(&image["proof"], "level") == "file" && text(image, "pinned") == scene.pinned()));

    let arm = &scene.made.platforms[1];
    let of_one = format!("{NAME}@{}", arm.manifest.digest);
    let one = import(&["--as", &of_one]).expect(0).one_json();
    assert_eq!((text(&one, "pinned"), text(&one, "image_id")), (&*of_one, &*arm.config.digest.to_string()));
    let one = import(&["--platform", "linux/arm64", "--as", NAME]).expect(0).one_json();
    assert_eq!((text(&one, "root"), text(&one, "platform")), (&*scene.made.root.digest.to_string(), "linux/arm64"));

    let wrong = format!("{NAME}@{}", Digest::of(b"another"));
    let output = scene.run(&["import", "--offline", "--as", &wrong, &folder]).expect(4);
    assert!(output.stderr.contains("is not in the file") && output.stderr.contains(&scene.made.root.digest.to_string()), "{output}");
    let _ = import(&["--platform", "linux/s390x", "--as", NAME]).expect(3);
}

#[test]
fn names_in_a_file_are_shown_and_applied_only_when_asked() {
    let sandbox = Sandbox::new();
    let layers: [&[u8]; 2] = [b"one", b"two"];
    let (one, two) = (config(&layers[..1]), config(&layers));
    let mut files = docker_files(&one, &layers[..1], "busybox:1");
    let second = docker_files(&two, &layers, "\u{202e}evil");
    let list = |files: &[(String, Vec<u8>)]| serde_json::from_slice::<Value>(&files.last().unwrap().1).unwrap()[0].clone();
    let both = json!([list(&files), list(&second)]);
    files.pop();
    files.extend(second.into_iter().filter(|(name, _)| !name.starts_with('0') && name != "manifest.json"));
    files.push(("manifest.json".to_owned(), both.to_string().into_bytes()));
    let path = sandbox.path().join("both.tar");
    fs::write(&path, archive(&files)).unwrap();
    let file = path.display().to_string();

    let output = sandbox.run(["import", &file]).expect(0);
    assert_eq!(output.stdout.matches("localhost/imported:id-").count(), 2, "{output}");
    assert!(output.stderr.contains(r"note: names in the file: busybox:1, \u{202e}evil; --accept-names or --as gives them"), "{output}");
    assert!(!sandbox.run(["list", "--quiet"]).expect(0).stdout.contains("busybox"));

    let output = sandbox.run(["import", "--as", "app:1", &file]).expect(2);
    assert!(output.stderr.contains("holds 2 images, and one name was given"), "{output}");
    // The one that the file calls so is meant.
    let named = sandbox.run(["import", "--json", "--as", "docker.io/library/busybox:1", &file]).expect(0).one_json();
    assert_eq!(text(&named, "image_id"), Digest::of(one.to_string().as_bytes()).to_string());
    let named = sandbox.run(["import", "--quiet", "--accept-names", &file]).expect(0);
    assert!(named.stdout.starts_with("docker.io/library/busybox:1\n"), "{named}");
}

#[test]
fn a_file_may_be_compressed_and_come_by_standard_input() {
    let sandbox = Sandbox::new();
    let layer: &[u8] = &b"a layer of some length ".repeat(20_000);
    let plain = archive(&docker_files(&config(&[layer]), &[layer], NAME));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let forms = [plain.clone(), gzip.finish().unwrap(), zstd::bulk::compress(&plain, 3).unwrap()];
    for form in forms {
        let output = piped(sandbox.command().args(["import", "--accept-names", "--quiet", "-"]), &form);
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{NAME}\n"), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn piped(command: &mut Command, input: &[u8]) -> std::process::Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    })
}

#[test]
fn what_is_wrong_is_said_with_the_file() {
    let scene = Scene::new(&Recipe::default());
    let file = scene.file("app.tar", b"hello");
    let output = scene.run(&["import", &file.display().to_string()]).expect(1);
    let said = output.stderr.replace(&file.display().to_string(), "FILE");
    insta::assert_snapshot!(said, @r"
    error: it is not a tar archive
      file:     FILE
      expected: an archive of docker, podman or another tool, an OCI layout, or one of these compressed with gzip, zstd or xz
    ");
    let _ = scene.run(&["import", "nothing.tar"]).expect(3);
    let _ = scene.run(&["import", &scene.sandbox.path().display().to_string()]).expect(1);
    let _ = scene.run(&["import", "-", "-"]).expect(2);
}
