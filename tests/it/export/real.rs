//! What real engines and tools make of exported files: the same image, with its digest where they keep one, under its name.

use super::*;
use crate::support::engine::{Make, RealEngine};
use crate::support::image::Media;
use crate::support::mount::Mount;

const FORMS: [&[&str]; 9] = [
    &[],
    &["--platform", "linux/amd64"],
    &["--compress", "gzip"],
    &["--compress", "zstd"],
    &["--format", "docker"],
    &["--format", "docker", "--compress", "gzip"],
    &["--format", "oci"],
    &["--format", "oci", "--platform", "linux/amd64"],
    &["--format", "minikube"],
];

/// The digest that the archive has for the name, or the image ID where it keeps none.
fn root(made: &Made, form: &[&str]) -> Option<Digest> {
    match form {
        [.., "--platform", _] => Some(made.platforms[0].manifest.digest),
        ["--format", "docker" | "minikube", ..] => None,
        _ => Some(made.root.digest),
    }
}

/// What engines are known not to read: it is written down in `docs/archives.md`.
fn cannot_read(make: Make, form: &[&str], compression: Compression) -> bool {
    let zstd = compression == Compression::Zstd;
    match (make, form) {
        (Make::Docker, ["--compress", "zstd"]) => true,
        (Make::Docker, [] | ["--platform", _] | ["--compress", "gzip"]) => zstd,
        (Make::Docker | Make::DockerOf(_), ["--format", "oci", ..]) => true,
        (Make::Podman, ["--format", "docker", "--compress", _]) => true,
        (Make::Containerd | Make::ContainerdOf("trixie"), [.., "--compress", _]) => true,
        _ => false,
    }
}

fn every_form_is_read(make: Make) {
    for (media, compression) in [(Media::Docker, Compression::Gzip), (Media::Oci, Compression::Zstd)] {
        let mut real = Reading::start(make, Recipe { media, compression, ..Recipe::default() });
        for form in FORMS.iter().filter(|form| !cannot_read(make, form, compression)) {
            real.form(form);
        }
    }
}

/// An engine, and a store whose image it is to read.
struct Reading {
    real: RealEngine,
    scene: Scene,
}

impl Reading {
    fn start(make: Make, recipe: Recipe) -> Reading {
        let (real, mut scene) = (RealEngine::start(make), Scene::of(&recipe, false));
        scene.sandbox.set("DOCKER_HOST", real.address()).set("CONTAINER_HOST", real.address());
        Reading { real, scene }
    }

    fn form(&mut self, form: &[&str]) {
        let (tagged, make) = (self.scene.tagged(), self.real.make());
        let told = self.scene.export(&[&[tagged.as_str(), "-o", "file", "--json"], form].concat()).expect(0).one_json();
        let file = self.scene.path(told["file"]["path"].as_str().unwrap());
        let archive = fs::read(&file).unwrap();
        let loaded = self.real.load(&archive);
        assert!(loaded.status.success(), "{make:?} {form:?}: {loaded:?}");
        let id = self.real.inspect_id(&tagged).unwrap_or_else(|| panic!("{make:?} {form:?}: no {tagged}"));
        let (root, image) = (root(&self.scene.made, form), &self.scene.made.platforms[0]);
        let shows_roots = make.is_containerd() || matches!(make, Make::DockerWithContainerdOf(_));
        match (shows_roots, root) {
            (true, Some(root)) => assert_eq!(id, root.to_string(), "{make:?} {form:?}"),
            // It makes a manifest up, of which there is nothing to be said.
            (true, None) => {}
            (false, _) => assert_eq!(id, image.config.digest.to_string(), "{make:?} {form:?}"),
        }
        if let Some(root) = root.filter(|_| make.is_podman() || matches!(make, Make::DockerWithContainerdOf(_))) {
            let pinned = format!("{}@{root}", tagged.rsplit_once(':').unwrap().0);
            assert_eq!(self.real.inspect_id(&pinned), Some(id), "{make:?} {form:?}: the pinned name is usable");
        }
        if make.is_containerd() {
            self.all_platforms(form, root);
        } else {
            let engine = if make.is_podman() { "podman" } else { "docker" };
            let _ = self.scene.sandbox.run(["check", "--engine", engine, &format!("{tagged}@{}", self.scene.made.root.digest)]).expect(0);
        }
        self.real.remove(&tagged);
        if file.starts_with(self.scene.path("file")) && file != self.scene.path("file") {
            fs::remove_dir_all(self.scene.path("file")).unwrap();
        } else {
            fs::remove_file(file).unwrap();
        }
    }

    /// The import of kind and k3d takes what says of nothing that it is there and has it not.
    fn all_platforms(&self, form: &[&str], root: Option<Digest>) {
        if root == Some(self.scene.made.root.digest) {
            return;
        }
        let namespace = form.join("").replace(['/', '-'], "");
        let file = self.real.folder().join("archive.tar").display().to_string();
        self.real.ctr(&namespace, &["images", "import", "--all-platforms", &file]);
        let listed = self.real.ctr(&namespace, &["images", "check"]);
        assert!(listed.contains(&self.scene.tagged()) && listed.contains("complete"), "{form:?}: {listed}");
    }
}

/// Several platforms, several images: what is in the file arrives.
fn several_images_arrive(make: Make) {
    let Reading { real, scene } = Reading::start(make, Recipe::default());
    let other = scene.add("team/other", &Recipe { revision: 2, ..Recipe::default() });
    let (name, other_name) = (scene.tagged(), format!("{}/team/other:v1", scene.registry.host()));
    let _ = scene.export(&[&name, &other_name, "-o", "two.tar"]).expect(0);
    let loaded = real.load(&fs::read(scene.path("two.tar")).unwrap());
    assert!(loaded.status.success(), "{loaded:?}");
    for (name, made) in [(&name, &scene.made), (&other_name, &other)] {
        let shows_roots = make.is_containerd() || matches!(make, Make::DockerWithContainerdOf(_));
        let expected = if shows_roots { made.root.digest } else { made.platforms[0].config.digest };
        assert_eq!(real.inspect_id(name), Some(expected.to_string()), "{name}");
    }
    if make.is_containerd() {
        scene.pull(&format!("{name}@{}", scene.made.root.digest), "all");
        let _ = scene.export(&[&name, "-o", "all.tar"]).expect(0);
        let file = real.folder().join("all.tar");
        fs::copy(scene.path("all.tar"), &file).unwrap();
        real.ctr("all", &["images", "import", "--all-platforms", &file.display().to_string()]);
        let listed = real.ctr("all", &["images", "list"]);
        assert!(listed.contains(&scene.made.root.digest.to_string()) && listed.contains("linux/amd64,linux/arm64"), "{listed}");
    }
}

fn left_out(make: Make) -> bool {
    !make.is_there()
        && matches!(make, Make::DockerOf("sid") | Make::DockerWithContainerdOf("sid") | Make::PodmanOf("sid") | Make::ContainerdOf("sid"))
}

macro_rules! into_every_engine {
    ($($engine:ident $make:expr,)*) => {$(
        mod $engine {
            use super::*;

            #[test]
            fn every_form_is_read() {
                if !left_out($make) {
                    super::every_form_is_read($make);
                }
            }

            #[test]
            fn several_images_arrive() {
                if !left_out($make) {
                    super::several_images_arrive($make);
                }
            }
        }
    )*};
}
into_every_engine! {
    docker Make::Docker,
    podman Make::Podman,
    containerd Make::Containerd,
    trixie_docker Make::DockerOf("trixie"),
    trixie_docker_with_containerd Make::DockerWithContainerdOf("trixie"),
    trixie_podman Make::PodmanOf("trixie"),
    trixie_containerd Make::ContainerdOf("trixie"),
    sid_docker Make::DockerOf("sid"),
    sid_docker_with_containerd Make::DockerWithContainerdOf("sid"),
    sid_podman Make::PodmanOf("sid"),
    sid_containerd Make::ContainerdOf("sid"),
}

fn tool(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).env("HOME", "/nonexistent").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn skopeo_and_umoci_read_what_they_can() {
    let scene = Scene::of(&Recipe::default(), false);
    let (tagged, image) = (scene.tagged(), &scene.made.platforms[0]);
    let at = |name: &str| scene.path(name).display().to_string();
    let config = |from: &str| Digest::of(&tool("skopeo", &["inspect", "--raw", "--config", from]));
    let raw = |from: &str| Digest::of(&tool("skopeo", &["inspect", "--raw", from]));
    for (form, transport) in
        [("archive", "oci-archive"), ("archive", "docker-archive"), ("oci", "oci-archive"), ("docker", "docker-archive"), ("layout", "oci")]
    {
        let name = format!("{form}.out");
        let _ = scene.export(&[&tagged, "-o", &name, "--format", form]).expect(0);
        let source = format!("{transport}:{}", at(&name));
        assert_eq!(config(&source), image.config.digest, "{form} by {transport}");
        if transport != "docker-archive" {
            assert_eq!(raw(&format!("{source}:{tagged}")), scene.made.root.digest, "{form} by {transport}, named");
        }
        let copy = at(&format!("{form}-{transport}.copy"));
        tool("skopeo", &["copy", "--quiet", &source, &format!("dir:{copy}")]);
    }
    // umoci reads layouts of one platform.
    let _ = scene.export(&[&tagged, "-o", "one", "--format", "layout", "--platform", "linux/amd64"]).expect(0);
    let listed = tool("umoci", &["ls", "--layout", &at("one")]);
    assert_eq!(String::from_utf8_lossy(&listed).trim(), tagged);
    let told: Value = serde_json::from_slice(&tool("umoci", &["stat", "--json", "--image", &format!("{}:{tagged}", at("one"))])).unwrap();
    let layers: Vec<_> = told["history"].as_array().unwrap().iter().filter_map(|h| h["layer"]["digest"].as_str()).collect();
    assert_eq!(layers, image.layers.iter().map(|layer| layer.digest.to_string()).collect::<Vec<_>>());
    // An archive is a layout once it is unpacked.
    fs::create_dir(scene.path("unpacked")).unwrap();
    tool("tar", &["-xf", &at("archive.out"), "-C", &at("unpacked")]);
    let listed = tool("umoci", &["ls", "--layout", &at("unpacked")]);
    assert_eq!(String::from_utf8_lossy(&listed).trim(), tagged);
}

#[test]
fn a_full_disk_is_said_and_nothing_is_left_on_it() {
    let scene = Scene::of(&small(), false);
    let tagged = scene.tagged();
    let full = Mount::tmpfs(&scene.path("full"), "size=24k");
    for arguments in [&["-o", "full/a.tar"][..], &["-o", "full/a.tar", "--compress", "gzip"], &["-o", "full/layout", "--format", "layout"]]
    {
        let failed = scene.export(&[&[tagged.as_str()], arguments].concat()).expect(1);
        assert!(failed.stderr.contains("no space left for full/") && failed.stderr.contains("hint: make room"), "{failed}");
        assert!(!scene.path("full/a.tar").exists() && !scene.path("full/a.tar.part").exists());
        assert!(!scene.path("full/layout/index.json").exists());
    }
    drop(full);
}

/// On a file system that can, a layout costs no room, and what is in it is hashed all the same.
#[test]
fn a_layout_shares_bytes_where_the_file_system_can() {
    let mut scene = Scene::of(&Recipe { layer_size: 1_000_000, ..small() }, false);
    let disk = scene.path("disk");
    let mounted = Mount::made("btrfs", &["--quiet"], 200, &scene.path("image"), &disk);
    tool("cp", &["-a", &scene.sandbox.store().display().to_string(), &disk.join("store").display().to_string()]);
    scene.sandbox.set("LARDER_DIR", disk.join("store").display().to_string());
    let tagged = scene.tagged();
    let _ = scene.export(&[&tagged, "-o", "disk/layout", "--format", "layout"]).expect(0);
    let layer = scene.made.platforms[0].layers[0].clone();
    let of = |folder: &str| disk.join(folder).join("blobs/sha256").join(layer.digest.hex());
    assert_eq!(Digest::of(&fs::read(of("layout")).unwrap()), layer.digest);
    let extents = String::from_utf8(tool("filefrag", &["-v", &of("layout").display().to_string()])).unwrap();
    assert!(extents.contains("shared"), "{extents}");
    fs::remove_dir_all(disk.join("layout")).unwrap();
    let mut bytes = fs::read(of("store")).unwrap();
    bytes[9] ^= 1;
    fs::set_permissions(of("store"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(of("store"), bytes).unwrap();
    let failed = scene.export(&[&tagged, "-o", "disk/layout", "--format", "layout"]).expect(4);
    assert!(failed.stderr.contains(&format!("stored blob is damaged: {}", layer.digest)), "{failed}");
    assert!(!disk.join("layout/index.json").exists());
    drop(mounted);
}
