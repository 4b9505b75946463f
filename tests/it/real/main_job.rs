//! The main job on real images and real engines: pull once, and then without a registry into docker and podman, proved.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::engine::{Make, RealEngine, RealRegistry};
use crate::support::sandbox::{Output, Sandbox};

const IMAGE: &str = "k8s-minikube/kicbase:v0.0.22";

/// An image of real packages, as `fixtures/make-image.py` laid it out.
struct Fixture {
    layout: PathBuf,
}

impl Fixture {
    fn named(name: &str) -> Fixture {
        let folder = std::env::var("LARDER_TEST_FIXTURES").expect("`cargo xtask test` builds the images and names their folder");
        Fixture { layout: Path::new(&folder).join(name) }
    }

    fn document(&self, digest: &str) -> Value {
        let path = self.layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn index(&self) -> String {
        let index: Value = serde_json::from_slice(&std::fs::read(self.layout.join("index.json")).unwrap()).unwrap();
        index["manifests"][0]["digest"].as_str().unwrap().to_owned()
    }

    fn manifest(&self, architecture: &str) -> String {
        let index = self.document(&self.index());
        let all = index["manifests"].as_array().unwrap();
        let one = all.iter().find(|m| m["platform"]["architecture"] == architecture).unwrap();
        one["digest"].as_str().unwrap().to_owned()
    }

    /// The image ID, computed from the fixture itself.
    fn image_id(&self, architecture: &str) -> String {
        self.document(&self.manifest(architecture))["config"]["digest"].as_str().unwrap().to_owned()
    }

    fn push(&self, registry: &RealRegistry) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/make-image.py");
        let to = format!("http://{}/{}", registry.host(), IMAGE.split(':').next().unwrap());
        let pushed = Command::new("python3").arg(script).arg(&self.layout).args(["--push", &to]).output().unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }
}

/// One engine, a store with the image in it, and no registry any more.
struct Scene {
    engine: RealEngine,
    sandbox: Sandbox,
    fixture: Fixture,
    tagged: String,
}

impl Scene {
    fn offline(make: Make, fixture: &str, platform: &str) -> Scene {
        let mut scene = Scene::online(make, fixture, platform);
        scene.1.kill();
        scene.0
    }

    fn online(make: Make, fixture: &str, platform: &str) -> (Scene, RealRegistry) {
        let (registry, fixture) = (RealRegistry::start(), Fixture::named(fixture));
        fixture.push(&registry);
        let engine = RealEngine::start(make);
        let mut sandbox = Sandbox::new();
        let (name, variable) = match make {
            Make::Podman => ("podman", "CONTAINER_HOST"),
            Make::Containerd => ("containerd", "CONTAINERD_ADDRESS"),
            _ => ("docker", "DOCKER_HOST"),
        };
        sandbox.set(variable, engine.address()).set("LARDER_ENGINE", name);
        let tagged = format!("{}/{IMAGE}", registry.host());
        let scene = Scene { engine, sandbox, fixture, tagged };
        let _ = scene.run(&["pull", "--platform", platform, &scene.pinned()]).expect(0);
        (scene, registry)
    }

    fn pinned(&self) -> String {
        format!("{}@{}", self.tagged, self.fixture.index())
    }

    /// By what the engine knows the image of a fixture.
    fn id(&self, of: &Fixture, architecture: &str) -> String {
        if self.engine.make() == Make::Containerd { of.index() } else { of.image_id(architecture) }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.sandbox.run(arguments)
    }
}

fn pulled_once_it_is_loaded_offline_and_proved(make: Make, fixture: &str) {
    let scene = Scene::offline(make, fixture, "linux/amd64");
    let absent = scene.run(&["check", &scene.pinned()]).expect(3);
    assert!(absent.stdout.contains("has nothing under that name"), "{absent}");
    let loaded = scene.run(&["ensure", "--json", &scene.pinned()]).expect(0).one_json();
    assert_eq!(loaded["status"], "loaded");
    assert_eq!(scene.engine.inspect_id(&scene.tagged), Some(scene.id(&scene.fixture, "amd64")));
    assert_eq!(loaded["image_id"], scene.fixture.image_id("amd64"));

    // containerd's command line puts what is given in the place of the image's entry point.
    let command: &[&str] = if make == Make::Containerd { &["/bin/sh", "-c", "true"] } else { &["-c", "true"] };
    let ran = scene.engine.run(&scene.tagged, command);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let usable = loaded["use"].as_str().unwrap();
    let ran = scene.engine.run(usable, command);
    assert!(ran.status.success(), "{usable}: {}", String::from_utf8_lossy(&ran.stderr));

    let again = scene.run(&["ensure", "--json", &scene.pinned()]).expect(0).one_json();
    assert_eq!((&again["status"], &again["sent_bytes"]), (&"held".into(), &0.into()));
    let held = scene.run(&["check", "--quiet", &scene.tagged]).expect(0);
    assert_eq!(held.stdout.trim(), scene.tagged);
    only_the_engine_is_asked(&scene);
}

/// Traces the connections of an `ensure` that has nothing to do.
fn only_the_engine_is_asked(scene: &Scene) {
    let trace = scene.sandbox.path().join("trace");
    let larder = scene.sandbox.command();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=connect", "-o"]).arg(&trace).arg(larder.get_program());
    strace.args(["ensure", &scene.pinned()]).env_clear();
    strace.envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(strace.output().unwrap().status.success());
    let trace = std::fs::read_to_string(trace).unwrap();
    let connections: Vec<_> = trace.lines().filter(|line| line.contains("connect(")).collect();
    let socket = scene.engine.socket().display().to_string();
    assert!(!connections.is_empty() && connections.iter().all(|line| line.contains(&socket)), "{trace}");
}

#[test]
fn docker_holds_what_was_pulled_once() {
    pulled_once_it_is_loaded_offline_and_proved(Make::Docker, "docker");
}

#[test]
fn podman_holds_what_was_pulled_once() {
    pulled_once_it_is_loaded_offline_and_proved(Make::Podman, "docker");
}

#[test]
fn containerd_holds_what_was_pulled_once() {
    pulled_once_it_is_loaded_offline_and_proved(Make::Containerd, "docker");
}

#[test]
fn oci_images_are_held_alike() {
    pulled_once_it_is_loaded_offline_and_proved(Make::Containerd, "oci-zstd");
    pulled_once_it_is_loaded_offline_and_proved(Make::Docker, "oci");
    pulled_once_it_is_loaded_offline_and_proved(Make::Podman, "oci");
    pulled_once_it_is_loaded_offline_and_proved(Make::Docker, "oci-zstd");
}

fn an_impostor_is_found_out_and_replaced(make: Make) {
    let (scene, registry) = Scene::online(make, "docker", "linux/amd64");
    let first = scene.pinned();
    // The next release under the same tag: a second pin beside the first.
    let newer = Fixture::named("docker-2");
    newer.push(&registry);
    let second = scene.run(&["ensure", "--json", &format!("{}@{}", scene.tagged, newer.index())]).expect(0).one_json();
    drop(registry);
    let second = second["pinned"].as_str().unwrap().to_owned();

    let checked = scene.run(&["check", &first]).expect(4);
    for identity in [scene.id(&scene.fixture, "amd64"), scene.id(&newer, "amd64")] {
        assert!(checked.stdout.contains(&identity), "{checked}");
    }
    assert!(checked.stdout.contains(&format!("that is:  {second}")), "{checked}");

    for (wanted, before, after) in [(&first, &newer, &scene.fixture), (&second, &scene.fixture, &newer)] {
        let replaced = scene.run(&["ensure", "--json", wanted]).expect(0).one_json();
        assert_eq!(replaced["status"], "replaced");
        assert_eq!(replaced["replaced"]["id"], scene.id(before, "amd64"));
        assert_eq!(scene.engine.inspect_id(&scene.tagged), Some(scene.id(after, "amd64")));
        let _ = scene.run(&["check", wanted]).expect(0);
    }

    // A local image that merely bears the tag.
    let local = "localhost/another:1";
    scene.engine.tag(&scene.tagged, local);
    let _ = scene.run(&["ensure", &first]).expect(0);
    scene.engine.tag(local, &scene.tagged);
    let checked = scene.run(&["check", "--json", &first]).expect(4).one_json();
    assert_eq!((&checked["status"], &checked["found"]["id"]), (&"another".into(), &scene.id(&newer, "amd64").into()));
    let _ = scene.run(&["ensure", &first]).expect(0);
    assert_eq!(scene.engine.inspect_id(&scene.tagged), Some(scene.id(&scene.fixture, "amd64")));
}

#[test]
fn an_impostor_in_docker_is_found_out_and_replaced() {
    an_impostor_is_found_out_and_replaced(Make::Docker);
}

#[test]
fn an_impostor_in_podman_is_found_out_and_replaced() {
    an_impostor_is_found_out_and_replaced(Make::Podman);
}

#[test]
fn an_impostor_in_containerd_is_found_out_and_replaced() {
    an_impostor_is_found_out_and_replaced(Make::Containerd);
}

fn another_platform_is_loaded_only_when_asked_for(make: Make) {
    let scene = Scene::offline(make, "docker", "linux/arm64");
    let refused = scene.run(&["load", &scene.pinned()]).expect(3);
    assert!(refused.stderr.contains("the network is off"), "{refused}");
    assert_eq!(scene.engine.count(), 0, "nothing was loaded");
    let nothing = scene.run(&["check", &scene.pinned()]).expect(3);
    assert!(nothing.stderr.contains("there is: linux/arm64"), "{nothing}");
    let loaded = scene.run(&["load", "--json", "--platform", "linux/arm64", &scene.pinned()]).expect(0).one_json();
    assert_eq!((&loaded["status"], &loaded["platform"]), (&"loaded".into(), &"linux/arm64".into()));
    assert_eq!(scene.engine.inspect_id(&scene.tagged), Some(scene.id(&scene.fixture, "arm64")));
}

#[test]
fn docker_gets_another_platform_only_when_asked_for() {
    another_platform_is_loaded_only_when_asked_for(Make::Docker);
}

#[test]
fn podman_gets_another_platform_only_when_asked_for() {
    another_platform_is_loaded_only_when_asked_for(Make::Podman);
}

#[test]
fn containerd_gets_another_platform_only_when_asked_for() {
    another_platform_is_loaded_only_when_asked_for(Make::Containerd);
}

#[test]
fn a_digest_alone_gets_a_name_that_lasts() {
    let scene = Scene::offline(Make::Docker, "docker", "linux/amd64");
    let (repository, _) = scene.tagged.rsplit_once(':').unwrap();
    let digest = scene.fixture.index();
    let loaded = scene.run(&["ensure", "--json", &format!("{repository}@{digest}")]).expect(0).one_json();
    let name = format!("{repository}:pinned-{}", &digest["sha256:".len()..][..16]);
    assert_eq!(loaded["name"], name);
    assert_eq!(scene.engine.inspect_id(&name), Some(scene.fixture.image_id("amd64")));
    let named = scene.run(&["ensure", "--json", "--as", "busybox:1", &format!("{repository}@{digest}")]).expect(0).one_json();
    assert_eq!((&named["name"], &named["use"]), (&"docker.io/library/busybox:1".into(), &"docker.io/library/busybox:1".into()));
    assert_eq!(scene.engine.inspect_id("busybox:1"), Some(scene.fixture.image_id("amd64")));
}

/// A file system of a few bytes over a folder, until it is dropped.
struct Full(PathBuf);

impl Full {
    fn over(folder: &Path, size: &str) -> Full {
        std::fs::create_dir_all(folder).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("mode=755,size={size}"), "tmpfs"]).arg(folder).status().unwrap();
        assert!(mounted.success());
        Full(folder.to_owned())
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        // Whoever holds it open lets go when the test ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_under_the_store_is_said_and_survived() {
    let (registry, fixture) = (RealRegistry::start(), Fixture::named("docker"));
    fixture.push(&registry);
    let sandbox = Sandbox::new();
    let pinned = format!("{}/{IMAGE}@{}", registry.host(), fixture.index());
    let full = Full::over(&sandbox.store(), "8m");
    let output = sandbox.run(["pull", "--engine", "none", "--platform", "linux/amd64", &pinned]).expect(1);
    for text in ["no space left for the store", "needed:", "free:", "hint: make room"] {
        assert!(output.stderr.contains(text), "{output}");
    }
    assert!(sandbox.run(["list"]).expect(0).stdout.is_empty());
    drop(full);
    let _ = sandbox.run(["pull", "--engine", "none", "--platform", "linux/amd64", &pinned]).expect(0);
}

fn a_full_disk_under_the_engine_is_said_and_mended(make: Make) {
    let scene = Scene::offline(make, "docker", "linux/amd64");
    let full = Full::over(&scene.engine.folder().join("tmp"), "8m");
    let output = scene.run(&["ensure", &scene.pinned()]).expect(5);
    assert!(output.stderr.contains("no space left on device"), "{output}");
    assert_eq!(scene.engine.inspect_id(&scene.tagged), None);
    drop(full);
    let _ = scene.run(&["ensure", &scene.pinned()]).expect(0);
}

#[test]
fn a_full_disk_under_docker_is_said_and_mended() {
    a_full_disk_under_the_engine_is_said_and_mended(Make::Docker);
}

#[test]
fn a_full_disk_under_podman_is_said_and_mended() {
    a_full_disk_under_the_engine_is_said_and_mended(Make::Podman);
}

#[test]
fn a_full_disk_under_containerd_is_said_and_mended() {
    let scene = Scene::offline(Make::Containerd, "docker", "linux/amd64");
    let content = scene.engine.folder().join("data/io.containerd.content.v1.content");
    let full = Full::over(&content, "8m");
    std::fs::create_dir(content.join("ingest")).unwrap();
    let output = scene.run(&["ensure", &scene.pinned()]).expect(5);
    assert!(output.stderr.contains("no space left on device"), "{output}");
    assert_eq!(scene.engine.inspect_id(&scene.tagged), None);
    assert_eq!(scene.engine.ctr("default", &["content", "list", "--quiet"]), "", "what came is not left on a full disk");
    drop(full);
    let _ = scene.run(&["ensure", &scene.pinned()]).expect(0);
}

#[test]
fn an_engine_that_dies_halfway_has_loaded_nothing_and_the_next_run_mends_it() {
    let mut scene = Scene::offline(Make::Docker, "docker", "linux/amd64");
    scene.engine.freeze(true);
    let hung = scene.run(&["ensure", "--engine-timeout", "1", &scene.pinned()]).expect(5);
    assert!(hung.stderr.contains("docker did not answer") && hung.stderr.contains("waited: 1 s"), "{hung}");
    scene.engine.freeze(false);
    scene.engine.kill();
    let dead = scene.run(&["ensure", &scene.pinned()]).expect(5);
    assert!(dead.stderr.contains("docker did not answer"), "{dead}");
    scene.engine.restart();
    let _ = scene.run(&["ensure", &scene.pinned()]).expect(0);
}

#[test]
fn containerd_is_said_with_its_namespace() {
    let scene = Scene::offline(Make::Containerd, "docker", "linux/amd64");
    let engines = scene.run(&["engines", "--json"]).expect(0).json();
    let found = engines.iter().find(|found| found["engine"] == "containerd").unwrap();
    for (field, value) in [("status", "usable"), ("namespace", "default"), ("image_store", "overlayfs"), ("platform", "linux/amd64")] {
        assert_eq!(found[field], value, "{found}");
    }
    let loaded = scene.run(&["load", "--namespace", "k8s.io", &scene.pinned()]).expect(0);
    assert!(loaded.stdout.contains("loaded into containerd (namespace k8s.io)"), "{loaded}");
    let absent = scene.run(&["check", &scene.pinned()]).expect(3);
    assert!(absent.stdout.contains("containerd (namespace default) has nothing under that name"), "{absent}");
    assert_eq!(scene.engine.ctr("k8s.io", &["images", "list", "--quiet"]).lines().count(), 2);
    let wrong = scene.run(&["check", "--namespace", "k8s/io", &scene.pinned()]).expect(5);
    assert!(wrong.stderr.contains("hint: Kubernetes keeps its images in `k8s.io`"), "{wrong}");
}

fn without_permission_the_socket_is_named(make: Make) {
    let scene = Scene::offline(make, "docker", "linux/amd64");
    let larder = scene.sandbox.command();
    let mut nobody = Command::new("setpriv");
    nobody
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(larder.get_program())
        .args(["engines", "--store", "/nowhere"]);
    nobody.env_clear().envs(larder.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = nobody.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("ermission denied") && said.contains(&scene.engine.address()), "{said}");
}

#[test]
fn without_permission_dockers_socket_is_named() {
    without_permission_the_socket_is_named(Make::Docker);
}

#[test]
fn without_permission_containerds_socket_is_named() {
    without_permission_the_socket_is_named(Make::Containerd);
}
