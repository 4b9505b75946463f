//! Out of one store, into another, and out again: the same bytes.
//!
//! That holds for every image and format, the file's name in minikube's cache alone excepted: it tells the digest of the index, of which the file
//! itself has nothing. The registry tells it where the layers are still the registry's; offline, or where they were Zstandard and are
//! plain in the file, the image is known by its ID alone, and what is exported again has the same content under another name.

use std::collections::BTreeMap;

use super::*;
use crate::support::image::Media;

/// All files of a folder, or the one that it is.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    if path.is_file() {
        return [(PathBuf::new(), fs::read(path).unwrap())].into();
    }
    let (mut found, mut folders) = (BTreeMap::new(), vec![path.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => drop(found.insert(entry.strip_prefix(path).unwrap().to_owned(), fs::read(&entry).unwrap())),
            }
        }
    }
    found
}

/// Imports what was exported into an empty store, exports it again in the same way, and gives both.
#[track_caller]
fn there_and_back(scene: &Scene, names: &[&str], form: &[&str], network: &str) -> [BTreeMap<PathBuf, Vec<u8>>; 2] {
    let other = Sandbox::new();
    let first = scene.sandbox.path().join("first").display().to_string();
    let again = other.path().join("again").display().to_string();
    let export = |to: &str| [&["export", "--output", to], form, names].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let _ = scene.sandbox.run(export(&first)).expect(0);
    let _ = other.run(["import", "--accept-names", network, &first]).expect(0);
    let _ = other.run(export(&again)).expect(0);
    let _ = other.run(["verify"]).expect(0);
    let both = [&first, &again].map(|path| contents(Path::new(path)));
    if Path::new(&first).is_dir() {
        fs::remove_dir_all(&first).unwrap()
    } else {
        fs::remove_file(&first).unwrap()
    }
    both
}

#[test]
fn what_went_out_and_came_in_goes_out_as_the_same_bytes() {
    let one = || Recipe { platforms: vec!["linux/amd64"], ..Recipe::default() };
    let shapes = [
        (Recipe { index: false, ..one() }, false),
        (Recipe { media: Media::Docker, ..Recipe::default() }, true),
        (Recipe { compression: Compression::Zstd, attestations: true, ..Recipe::default() }, true),
        (Recipe { attestations: true, ..Recipe::default() }, false),
        (Recipe { compression: Compression::None, layers: 0, media: Media::Docker, ..one() }, false),
        (Recipe { compression: Compression::Mixed, layers: 7, platforms: vec!["linux/amd64", "linux/arm/v7"], ..one() }, true),
        (Recipe { layers: 1, layer_size: 3_000_000, ..one() }, false),
    ];
    for (number, (recipe, all)) in shapes.iter().enumerate() {
        let scene = Scene::of(recipe, *all);
        let tagged = scene.tagged();
        for form in ["archive", "oci", "docker", "layout"] {
            let [first, again] = there_and_back(&scene, &[&tagged], &["--format", form], "--offline");
            assert!(first == again, "shape {number}, {form}");
        }
        let [first, again] = there_and_back(&scene, &[&tagged], &["--compress", "zstd"], "--offline");
        assert!(first == again, "shape {number}, compressed");
        let minikube = ["--format", "minikube", "--platform", "linux/amd64"];
        let [first, again] = there_and_back(&scene, &[&tagged], &minikube, "--quiet");
        let told = matches!(recipe.compression, Compression::Gzip | Compression::None);
        assert_eq!(first.keys().eq(again.keys()), told, "shape {number}, {:?} {:?}", first.keys(), again.keys());
        assert!(first.values().eq(again.values()), "shape {number}, minikube");
        let [first, again] = there_and_back(&scene, &[&tagged], &minikube, "--offline");
        assert!(first.keys().ne(again.keys()) && first.values().eq(again.values()), "shape {number}, minikube offline");
    }
}

#[test]
fn several_images_that_share_layers_do_too() {
    let scene = Scene::named("team/b", &Recipe::default(), true);
    scene.add("team/a", &Recipe { revision: 2, ..Recipe::default() });
    scene.add("team/c", &Recipe { revision: 3, compression: Compression::Zstd, ..small() });
    let names = ["a", "b", "c"].map(|name| format!("{}/team/{name}:v1", scene.registry.host()));
    let names = names.each_ref().map(String::as_str);
    for form in ["archive", "oci", "docker", "layout"] {
        let [first, again] = there_and_back(&scene, &names, &["--format", form], "--offline");
        assert!(first == again, "{form}");
    }
}
