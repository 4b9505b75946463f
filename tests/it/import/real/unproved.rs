//! An image whose pin is not proved goes into every engine all the same, and is proved to be there by its image ID or by the manifest that larder
//! made: identity, and what the engine unpacked.

use std::path::{Path, PathBuf};

use super::*;
use crate::support::sandbox::Sandbox;

const MAKES: [Make; 6] = [
    Make::Docker,
    Make::DockerOf("trixie"),
    Make::DockerWithContainerdOf("trixie"),
    Make::Podman,
    Make::Containerd,
    Make::ContainerdOf("trixie"),
];

fn kind(make: Make) -> (&'static str, &'static str) {
    match make {
        make if make.is_docker() => ("docker", "DOCKER_HOST"),
        make if make.is_podman() => ("podman", "CONTAINER_HOST"),
        _ => ("containerd", "CONTAINERD_ADDRESS"),
    }
}

/// A file of an image's among those of an engine.
fn unpacked(below: &Path, file: &Path) -> Option<PathBuf> {
    let here = below.join(file);
    if here.is_file() {
        return Some(here);
    }
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).find_map(|entry| unpacked(&entry.path(), file))
}

/// It can also be loaded again where it is damaged there.
#[test]
fn what_is_not_proved_is_loaded_all_the_same() {
    let scene = Scene::new();
    let (made, layout) = scene.layout("layout", &of_one_platform(Compression::Gzip));
    let image = &made.platforms[0];
    let file = scene.path("docker.tar");
    skopeo(&format!("oci:{}:v1", layout.display()), &format!("docker-archive:{}:{NAME}", file.display()), &[]);
    let file = file.display().to_string();
    for make in MAKES {
        let (engine, mut sandbox) = (RealEngine::start(make), Sandbox::new());
        let (kind, variable) = kind(make);
        sandbox.set(variable, engine.address()).set("LARDER_OFFLINE", "1");
        if matches!(make, Make::DockerWithContainerdOf(_)) {
            // Before release 27 docker does not say where the containerd is that it brings with it.
            sandbox.set("CONTAINERD_ADDRESS", format!("unix://{}", engine.containerd().display()));
        }
        let run = |arguments: &[&str]| sandbox.run([arguments, &["--engine", kind, "--json", NAME]].concat());
        let _ = sandbox.run(["import", "--accept-names", &file]).expect(0);
        for (command, status) in [("ensure", "loaded"), ("ensure", "held"), ("check", "held")] {
            let said = run(&[command]).expect(0).one_json();
            assert_eq!((said["status"].as_str(), &said["root"], &said["pinned"]), (Some(status), &Value::Null, &NAME.into()), "{said}");
            assert!(said["use"].is_null() || said["use"] == NAME, "{said}");
        }
        let deep = run(&["check", "--deep"]).expect(0).one_json();
        assert_eq!((&deep["status"], &deep["deep"]["level"]), (&"held".into(), &"deep".into()), "{make:?}: {deep}");
        fs::write(unpacked(&engine.folder().join("data"), Path::new("usr/share/layer2/1")).unwrap(), "damaged").unwrap();
        let deep = run(&["check", "--deep"]).expect(4).one_json();
        assert_eq!(deep["status"], "damaged", "{make:?}: {deep}");
        let mended = run(&["load", "--replace"]).expect(0).one_json();
        assert_eq!((&mended["status"], &mended["deep"]["level"]), (&"mended".into(), &"deep".into()), "{make:?}: {mended}");
        if !make.is_containerd() {
            if !matches!(make, Make::DockerWithContainerdOf(_)) {
                assert_eq!(engine.inspect_id(NAME), Some(image.config.digest.to_string()));
            }
            engine.tag(NAME, OTHER);
        }
        let _ = run(&["load", "--dry-run"]).expect(0);
    }
}

/// There is no registry to mend it from, so it is said which blob is damaged; the file brings it again.
#[test]
fn what_is_cut_in_the_store_is_damaged_and_comes_again_with_the_file() {
    let scene = Scene::new();
    let (_, layout) = scene.layout("layout", &of_one_platform(Compression::None));
    let (file, engine, mut sandbox) = (scene.path("docker.tar"), RealEngine::start(Make::Podman), Sandbox::new());
    skopeo(&format!("oci:{}:v1", layout.display()), &format!("docker-archive:{}:{NAME}", file.display()), &[]);
    sandbox.set("CONTAINER_HOST", engine.address()).set("LARDER_OFFLINE", "1").set("LARDER_ENGINE", "podman");
    let import = ["import", "--accept-names", &file.display().to_string()].map(str::to_owned);
    let layer = sandbox.run(&import).expect(0);
    assert!(layer.stderr.is_empty(), "{layer}");
    let layer = sandbox.run(["inspect", "--json", NAME]).expect(0).one_json()["layers"][1]["digest"].as_str().unwrap().to_owned();
    let path = sandbox.store().join("blobs").join(layer.replace(':', "/"));
    let half = fs::metadata(&path).unwrap().len() / 2;
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &whole[..half as usize]).unwrap();
    let refused = sandbox.run(["ensure", NAME]).expect(4);
    assert!(refused.stderr.contains(&format!("stored blob is damaged: {layer}")), "{refused}");
    let _ = sandbox.run(&import).expect(0);
    let _ = sandbox.run(["ensure", NAME]).expect(0);
    assert_eq!(fs::read(&path).unwrap(), whole);
}
