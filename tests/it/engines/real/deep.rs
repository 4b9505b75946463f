//! What engines unpacked, damaged by hand: found, and mended.

use std::os::unix::fs::PermissionsExt;

use larder::deep::{DeepError, Harm, Level};
use larder::ensure::Wish;
use larder::examine::{Difference, Kind as What, Octal};
use larder::pull::{Cache, Unpinned};
use serde_json::json;

use super::*;
use crate::support::sandbox::Sandbox;

/// The layer that is damaged, from the base up, and a file in it.
const PLACE: usize = 2;
const FILE: &str = "usr/share/layer2/1";

type Damage = fn(&Path);

/// What is done to the unpacked layer, where it shows, and as what.
fn damages() -> Vec<(Damage, &'static str, Difference)> {
    let size = 5000;
    vec![
        (
            |root| fs::File::options().write(true).open(root.join(FILE)).unwrap().set_len(100).unwrap(),
            FILE,
            Difference::Size { expected: size, found: 100 },
        ),
        (
            |root| {
                let mut content = fs::read(root.join(FILE)).unwrap();
                content[1000] ^= 1;
                fs::write(root.join(FILE), content).unwrap();
            },
            FILE,
            Difference::Content { same: 1000 },
        ),
        (|root| fs::write(root.join("usr/share/more"), "").unwrap(), "usr/share/more", Difference::Added { found: What::File }),
        (|root| fs::remove_file(root.join(FILE)).unwrap(), FILE, Difference::Missing),
        (
            |root| fs::set_permissions(root.join(FILE), fs::Permissions::from_mode(0o4755)).unwrap(),
            FILE,
            Difference::Mode { expected: Octal(0o644), found: Octal(0o4755) },
        ),
    ]
}

/// One engine, and an image that it is to hold.
struct Scene {
    real: RealEngine,
    engine: Box<dyn Engine>,
    stored: Stored,
}

impl Scene {
    async fn new(make: Make, recipe: Recipe) -> Scene {
        let real = RealEngine::start(make);
        let mut environment = at(&real.address(), Duration::from_secs(30));
        if matches!(make, Make::DockerWithContainerdOf(_)) {
            // The one that this docker brings with it. Before release 27 it does not say where that is.
            environment.containerd_address = Some(real.folder().join("exec/containerd/containerd.sock").display().to_string());
        }
        let engine = engine::connect(&choice(&real), &environment).await.unwrap();
        let stored = stored(&recipe.make(), NAME);
        stored.store.pin(&stored.pin).unwrap();
        Scene { real, engine, stored }
    }

    fn cache(&self) -> Cache<'_> {
        Cache { store: &self.stored.store, upstream: None, tell: &event::silent }
    }

    fn wish(&self) -> Wish {
        let pin = &self.stored.pin;
        let platform = Some(pin.platform.clone());
        Wish { reference: pin.pinned(), name: pin.name.clone(), platform, from: Vec::new(), unpinned: Unpinned::Refuse }
    }

    async fn checked(&self) -> larder::ensure::Checked {
        let wish = self.wish();
        self.cache().check(&wish.reference, &wish.name, wish.platform.as_ref(), &*self.engine).await.unwrap()
    }

    async fn examined(&self) -> larder::deep::Examination {
        self.cache().examine(&self.checked().await, &*self.engine).await.unwrap().expect("it is held")
    }

    async fn mended(&self) -> Result<larder::deep::Mended, DeepError> {
        self.cache().replace(&self.wish(), &*self.engine).await
    }

    async fn is_whole(&self) {
        let whole = self.examined().await;
        assert_eq!((whole.level, whole.damage.as_slice(), whole.layers), (Level::Deep, &[][..], 9), "{whole:?}");
    }

    /// The folder of the layer that is damaged.
    async fn folder(&self) -> PathBuf {
        match self.engine.unpacked(&self.checked().await.shown.unwrap()).await.unwrap() {
            engine::Unpacked::Folders(folders) => folders[PLACE].clone(),
            other => panic!("{other:?}"),
        }
    }
}

async fn every_damage_is_found_and_mended(make: Make) {
    let scene = Scene::new(make, Recipe::default()).await;
    assert!(scene.mended().await.unwrap().taken_out.is_none(), "nothing was damaged");
    for (damage, path, difference) in damages() {
        scene.is_whole().await;
        damage(&scene.folder().await);
        assert!(matches!(scene.checked().await.standing, Standing::Held(_)), "the identity shows nothing of it");
        let found = scene.examined().await;
        let [one] = &found.damage[..] else { panic!("{found:?}") };
        let Harm::Files(files) = &one.harm else { panic!("{found:?}") };
        assert_eq!((one.place, one.diff_id, found.level), (PLACE, scene.stored.pin.diff_ids[PLACE], before_deep(&scene).await));
        let seen: Vec<_> = files.findings.iter().map(|finding| (finding.path.as_str(), &finding.difference)).collect();
        assert_eq!(seen, [(path, &difference)]);

        // Loading it again does not heal it: the engine believes that it has the layers.
        load(&*scene.engine, &scene.stored).await.unwrap();
        assert!(!scene.examined().await.is_whole(), "{difference}");
        let mended = scene.mended().await.unwrap();
        assert_eq!((mended.examination.level, mended.taken_out.map(|out| out.damage)), (Level::Deep, Some(found.damage)));
    }
    scene.is_whole().await;
}

async fn before_deep(scene: &Scene) -> Level {
    match scene.checked().await.standing {
        Standing::Held(Proof::Identity(_)) => Level::Identity,
        _ => Level::Content,
    }
}

async fn another_image_under_the_name_is_found_and_mended(make: Make) {
    let scene = Scene::new(make, Recipe::default()).await;
    load(&*scene.engine, &scene.stored).await.unwrap();
    // The tag is moved to an image that is somebody's own, and then to the same release for another platform.
    let moved = stored(&Recipe { revision: 7, ..Recipe::default() }.make(), "r.example.com/somebody/else:1");
    let platform = stored(&Recipe { platforms: vec!["linux/arm64"], ..Recipe::default() }.make(), NAME);
    for other in [moved, platform] {
        load(&*scene.engine, &other).await.unwrap();
        if other.pin.name != scene.stored.pin.name {
            scene.real.tag(&other.pin.name.to_string(), NAME);
        }
        let checked = scene.checked().await;
        assert_eq!(checked.standing, Standing::Another);
        assert_eq!(scene.cache().examine(&checked, &*scene.engine).await.unwrap(), None, "there is nothing to examine");
        assert_eq!(scene.mended().await.unwrap().examination.level, Level::Deep);
        scene.is_whole().await;
    }
}

async fn what_is_in_use_is_named_and_left_alone(make: Make) {
    let scene = Scene::new(make, Recipe::default()).await;
    load(&*scene.engine, &scene.stored).await.unwrap();
    let damage = damages()[0].0;
    damage(&scene.folder().await);
    let refused = async || match scene.mended().await {
        Err(DeepError::InUse { obstacles, .. }) => obstacles,
        other => panic!("{other:?}"),
    };

    scene.real.create(NAME, "keeper");
    let obstacles = refused().await;
    assert_eq!((obstacles.containers, obstacles.images), (vec!["keeper".to_owned()], vec![]));
    scene.real.remove_container("keeper");

    // The next release shares all but its last layers of files.
    let next = stored(&Recipe { revision: 2, ..Recipe::default() }.make(), "r.example.com/team/app:v2");
    load(&*scene.engine, &next).await.unwrap();
    let obstacles = refused().await;
    assert!(obstacles.containers.is_empty() && obstacles.images.contains(&next.pin.name.to_string()), "{obstacles:?}");
    assert!(matches!(scene.checked().await.standing, Standing::Held(_)), "nothing was taken out");
    obstacles.images.iter().for_each(|name| scene.real.remove(name));

    // Another name of the same image goes and comes back with it.
    scene.real.tag(NAME, "localhost/mine:1");
    let mended = scene.mended().await.unwrap();
    assert_eq!(mended.taken_out.unwrap().names, ["localhost/mine:1"]);
    assert_eq!(scene.real.inspect_id("localhost/mine:1"), scene.real.inspect_id(NAME));
    scene.is_whole().await;
}

async fn what_the_store_cannot_bring_back_is_not_taken_out(make: Make) {
    let scene = Scene::new(make, Recipe::default()).await;
    load(&*scene.engine, &scene.stored).await.unwrap();
    damages()[0].0(&scene.folder().await);
    super::damage(&scene.stored, &scene.stored.image.config.clone());
    let error = scene.mended().await.unwrap_err();
    assert!(matches!(error, DeepError::Ensure(_)), "{error:?}");
    assert!(matches!(scene.checked().await.standing, Standing::Held(_)), "nothing was taken out");
}

alone_on_every_engine!(
    every_damage_is_found_and_mended,
    another_image_under_the_name_is_found_and_mended,
    what_is_in_use_is_named_and_left_alone,
    what_the_store_cannot_bring_back_is_not_taken_out
);

/// What the command says of it all, to people and to scripts.
#[tokio::test]
async fn the_command_says_where_the_damage_is_and_mends_it() {
    let scene = Scene::new(Make::Docker, Recipe::default()).await;
    let mut sandbox = Sandbox::new();
    sandbox.set("LARDER_DIR", scene.stored.store.root().display().to_string()).set("DOCKER_HOST", scene.real.address());
    let run = |arguments: &str| sandbox.run(arguments.split(' ').chain([NAME]));
    let _ = run("load").expect(0);
    let whole = run("check --deep").expect(0);
    assert!(whole.stdout.contains("in 9 layers") && whole.stdout.contains("compared with the files that docker unpacked"), "{whole}");
    for (damage, _, _) in [&damages()[0], &damages()[2]] {
        damage(&scene.folder().await);
    }
    let _ = run("check").expect(0);

    let text = run("check --deep").expect(4);
    let diff_id = scene.stored.pin.diff_ids[PLACE];
    for line in [
        "docker has it damaged",
        &format!("layer:  {diff_id} (3 of 9)"),
        "    usr/share/layer2/1: 100 bytes, expected 5000",
        "    usr/share/more: a file that is not in the layer",
        &format!("hint:   `larder load --replace {}` puts it right", scene.stored.pin.pinned()),
    ] {
        assert!(text.stdout.contains(line), "no `{line}` in\n{text}");
    }
    let object = run("check --deep --json").expect(4).one_json();
    assert_eq!((&object["status"], &object["proof"]["level"]), (&json!("damaged"), &json!("identity")));
    let findings = json!([
        { "path": FILE, "what": "size", "expected": 5000, "found": 100 },
        { "path": "usr/share/more", "what": "added", "found": "file" },
    ]);
    let damage = json!([{ "layer": diff_id, "number": 3, "harm": "files", "findings": findings, "more_findings": 0 }]);
    assert_eq!(object["deep"]["damage"], damage);

    let foreseen = run("load --replace --dry-run --json").expect(0).one_json();
    assert_eq!((&foreseen["status"], &foreseen["names"]), (&json!("would-replace"), &json!([NAME])));
    scene.real.create(NAME, "keeper");
    let refused = run("load --replace").expect(5);
    for line in [
        "error: r.example.com/team/app:v1 is damaged in docker, and what is damaged is in use",
        "containers: keeper",
        "nothing was changed",
    ] {
        assert!(refused.stderr.contains(line), "no `{line}` in\n{refused}");
    }
    scene.real.remove_container("keeper");
    let mended = run("load --replace --json").expect(0).one_json();
    assert_eq!((&mended["status"], &mended["proof"]["level"], &mended["taken_out"]["damage"]), (&json!("mended"), &json!("deep"), &damage));
    let held = run("ensure --offline --replace --json").expect(0).one_json();
    assert_eq!((&held["status"], &held["proof"]["level"], &held["sent_bytes"]), (&json!("held"), &json!("deep"), &json!(0)));
}
