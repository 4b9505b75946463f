//! Stores that cannot be written: all that only reads works, engines included, and the rest fails by name and changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Pantry, made};
use crate::support::engine::{Make, RealEngine};
use crate::support::mount::Mount;
use crate::support::run;
use crate::support::sandbox::Output;

/// A store that cannot be written, beside an engine that has nothing yet.
struct Shelf {
    pantry: Pantry,
    engine: RealEngine,
    store: PathBuf,
    /// Who asks.
    user: Option<u32>,
}

impl Shelf {
    fn new(mut pantry: Pantry, store: PathBuf) -> Shelf {
        let engine = RealEngine::start(Make::Podman);
        pantry.scene.sandbox.set("CONTAINER_HOST", engine.address()).set("LARDER_ENGINE", "podman");
        Shelf { pantry, engine, store, user: None }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let store = self.store.display().to_string();
        let arguments = [arguments, &["--store", &store]].concat();
        match self.user {
            None => self.pantry.scene.sandbox.run(arguments),
            Some(user) => self.pantry.scene.sandbox.run_as(user, arguments),
        }
    }

    /// Every file with its content and when it was written.
    fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.store.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => drop(files.insert(path.clone(), (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap()))),
                }
            }
        }
        files
    }

    fn serves_and_says_so(&self) {
        let (kept, wanted) = (self.pantry.kept.as_str(), self.pantry.wanted.as_str());
        let before = self.files();
        for (arguments, code) in [
            (&["list"][..], 0),
            (&["inspect", kept], 0),
            (&["verify"], 0),
            (&["check", kept], 3),
            (&["load", kept], 0),
            (&["check", kept], 0),
            (&["ensure", kept], 0),
            (&["pull", kept], 0),
            (&["pull", "--offline", kept], 0),
        ] {
            let _ = self.run(arguments).expect(code);
        }
        assert_eq!(self.engine.count(), 1);
        for arguments in [&["pull", wanted][..], &["ensure", wanted], &["remove", kept], &["prune"]] {
            let output = self.run(&[arguments, &["--json"]].concat()).expect(1);
            assert!(output.stderr.contains("the store cannot be written"), "{output}");
            let code = output.json().iter().find_map(|object| Some(object["error"]["code"].as_str()?.to_owned()));
            assert!(code.is_none_or(|code| code == "read-only"), "{output}");
        }
        assert_eq!(self.files(), before, "nothing changed");
    }
}

#[test]
fn a_store_on_a_read_only_mount_serves() {
    let pantry = made(0);
    let at = pantry.scene.sandbox.path().join("shelf");
    let mount = Mount::read_only(&pantry.scene.sandbox.store(), &at);
    Shelf::new(pantry, at).serves_and_says_so();
    drop(mount);
}

#[test]
fn a_store_on_a_read_only_file_system_serves() {
    let pantry = made(0);
    pantry.mount().remount("ro");
    let store = pantry.scene.sandbox.store();
    Shelf::new(pantry, store).serves_and_says_so();
}

#[test]
fn a_store_in_a_squashfs_serves() {
    let pantry = Pantry::on(|scene| Mount::tmpfs(&scene.sandbox.store(), "size=8m"));
    let at = pantry.scene.sandbox.path().join("shelf");
    // As somebody packs it who knows that nobody will need a lock.
    for lock in ["lock", "lock.turn", "index.lock", "pins.lock"] {
        fs::remove_file(pantry.scene.sandbox.store().join(lock)).unwrap();
    }
    let mount = Mount::packed(&pantry.scene.sandbox.store(), &pantry.scene.sandbox.path().join("packed"), &at);
    Shelf::new(pantry, at).serves_and_says_so();
    drop(mount);
}

#[test]
fn a_store_of_somebody_else_serves() {
    let pantry = Pantry::on(|scene| Mount::tmpfs(&scene.sandbox.store(), "size=8m"));
    let (store, root) = (pantry.scene.sandbox.store(), pantry.scene.sandbox.path().to_owned());
    let mut shelf = Shelf::new(pantry, store);
    // Nobody may get there and ask the engine, and no more.
    for folder in [&root, shelf.engine.folder()] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(shelf.engine.socket(), Permissions::from_mode(0o666)).unwrap();
    shelf.user = Some(65534);
    shelf.serves_and_says_so();
}

#[test]
fn a_store_whose_files_cannot_be_changed_serves() {
    let pantry = made(0);
    let store = pantry.scene.sandbox.store();
    immutable(&store, "+i");
    let shelf = Shelf::new(pantry, store.clone());
    shelf.serves_and_says_so();
    immutable(&store, "-i");
}

fn immutable(folder: &Path, how: &str) {
    run(Command::new("chattr").args(["-R", how]).arg(folder));
}
