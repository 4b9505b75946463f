//! The store kept in order: `verify` finds and mends what is wrong, `prune` removes what nobody needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use larder::digest::Digest;
use larder::oci::Descriptor;
use serde_json::Value;

use crate::support::image::{Compression, Made, Recipe};
use crate::support::registry::{Fault, Registry};
use crate::support::sandbox::{Output, Sandbox};

/// A store with some images in it, and the registry that they came from.
struct Kept {
    registry: Registry,
    sandbox: Sandbox,
    made: Vec<Made>,
}

const AMD64: [&str; 2] = ["--platform", "linux/amd64"];

impl Kept {
    /// Pulls so many images, which share their base.
    fn new(images: u32) -> Kept {
        let (registry, sandbox) = (Registry::start(), Sandbox::new());
        let made: Vec<Made> = (0..images).map(|revision| Recipe { revision, ..Recipe::default() }.make()).collect();
        let kept = Kept { registry, sandbox, made };
        for (number, made) in kept.made.iter().enumerate() {
            serve(&kept.registry, "team/app", &format!("v{number}"), made);
            let _ = kept.run(["pull", "--engine", "none", &kept.pinned(number)].into_iter().chain(AMD64)).expect(0);
        }
        kept
    }

    fn pinned(&self, number: usize) -> String {
        format!("{}/team/app:v{number}@{}", self.registry.host(), self.made[number].root.digest)
    }

    fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.sandbox.run(arguments)
    }

    /// The largest layer of an image.
    fn layer(&self, number: usize) -> &Descriptor {
        self.made[number].platform("linux/amd64").layers.iter().max_by_key(|l| l.size).unwrap()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.sandbox.store().join("blobs/sha256").join(digest.hex())
    }

    /// Changes a blob on the disk.
    fn damage(&self, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.blob(digest);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }

    fn pin_file(&self, number: usize) -> PathBuf {
        let folder = self.sandbox.store().join("pins").join(self.registry.host()).join("team/app");
        let start = format!("v{number}@");
        let found = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        found.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start)).unwrap()
    }
}

fn serve(registry: &Registry, repository: &str, tag: &str, made: &Made) {
    for bytes in made.blobs.values() {
        registry.put_blob(bytes.clone());
    }
    for document in &made.documents {
        let name = if document.digest == made.root.digest { tag.to_owned() } else { document.digest.to_string() };
        registry.put_manifest(repository, &name, &document.media_type, made.bytes(document).to_vec());
    }
}

/// The objects but the last, which sums up, as pairs of a status and a digest or path.
fn faults(output: &Output) -> Vec<(String, String)> {
    let mut objects = output.json();
    let sum = objects.pop().unwrap();
    assert_eq!(sum["status"], "verified", "{output}");
    let faults: Vec<&Value> = objects.iter().filter(|o| o["fault"] == true).collect();
    assert_eq!(sum["faults"], faults.len(), "{output}");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let named = |o: &Value| text(&o["digest"]).or_else(|| text(&o["path"])).unwrap();
    let mut faults: Vec<_> = faults.into_iter().map(|o| (text(&o["status"]).unwrap(), named(o))).collect();
    faults.sort();
    faults
}

#[test]
fn a_store_in_order_is_said_to_be() {
    let kept = Kept::new(2);
    let output = kept.run(["verify"]).expect(0);
    assert!(
        output.stdout.is_empty() && output.stderr.starts_with("2 images, ") && output.stderr.ends_with(" hashed: nothing is wrong\n"),
        "{output}"
    );
    let sum = kept.run(["verify", "--json"]).expect(0).one_json();
    assert_eq!((&sum["images"], &sum["faults"], &sum["mended"]), (&2.into(), &0.into(), &0.into()), "{sum}");
    assert_eq!(kept.run(["verify", "--quick", "--json"]).expect(0).one_json()["hashed_bytes"], 0);
    let none = Sandbox::new().run(["verify"]).expect(0);
    assert!(none.stderr.contains("there is no store at"), "{none}");
    assert!(kept.run(["verify", "redis:7"]).expect(3).stderr.contains("is not in the store"));
}

#[test]
fn what_is_wrong_is_found_said_and_mended() {
    let kept = Kept::new(2);
    let (flipped, gone) = (kept.layer(0).digest, kept.made[1].platform("linux/amd64").config.digest);
    kept.damage(&flipped, |bytes| bytes[7] ^= 0x20);
    fs::remove_file(kept.blob(&gone)).unwrap();
    let output = kept.run(["verify"]).expect(4);
    for said in [
        format!("damaged blob {flipped}\n  found:     sha256:"),
        format!("moved to:  {}", kept.sandbox.store().join("damaged").join(flipped.hex()).display()),
        format!("needed by: {} for linux/amd64", kept.pinned(0)),
        format!(": {gone}\n  needed by: {} for linux/amd64", kept.pinned(1)),
    ] {
        assert!(output.stdout.contains(&said), "{said}\n{output}");
    }
    assert!(output.stderr.contains("2 faults found") && output.stderr.contains("hint: `larder verify --repair`"), "{output}");
    // The damaged one is out of the way by now, so what is left to say is that both are missing.
    let mut missing = [("missing".to_owned(), flipped.to_string()), ("missing".to_owned(), gone.to_string())];
    missing.sort();
    assert_eq!(faults(&kept.run(["verify", "--json"]).expect(3)), missing);
    assert_eq!(faults(&kept.run(["verify", "--quick", "--json"]).expect(3)), missing);
    assert_eq!(faults(&kept.run(["verify", "--json", &kept.pinned(0)]).expect(3)).len(), 1, "only of the image that was named");

    kept.registry.forget();
    let output = kept.run(["verify", "--repair", "--json"]).expect(0);
    assert_eq!(faults(&output), missing);
    assert!(output.json().iter().filter(|o| o["fault"] == true).all(|o| o["mended"] == true), "{output}");
    let asked: Vec<String> = kept.registry.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(asked.len(), 2, "exactly what is missing is asked for: {asked:?}");
    assert!(kept.run(["verify"]).expect(0).stderr.contains("nothing is wrong"));
    let again = kept.run(["pull", "--offline", "--engine", "none", &kept.pinned(0)].into_iter().chain(AMD64)).expect(0);
    assert!(again.stdout.contains("all of it was in the store"), "{again}");
}

#[test]
fn any_damage_to_any_blob_is_mended() {
    let kept = Kept::new(1);
    let image = kept.made[0].platform("linux/amd64");
    let blobs: Vec<Digest> = [kept.made[0].root.digest, image.manifest.digest, image.config.digest]
        .into_iter()
        .chain(image.layers.iter().map(|layer| layer.digest))
        .collect();
    let changes: [fn(&mut Vec<u8>); 4] =
        [|bytes| bytes[0] ^= 1, |bytes| bytes.truncate(1), |bytes| bytes.push(b'\n'), |bytes| bytes.fill(0)];
    for (number, blob) in blobs.iter().enumerate() {
        kept.damage(blob, changes[number % changes.len()]);
    }
    let output = kept.run(["verify", "--repair", "--json"]).expect(0);
    let found = faults(&output);
    assert!(blobs.iter().all(|blob| found.contains(&("damaged".to_owned(), blob.to_string()))), "{output}");
    assert!(kept.run(["verify"]).expect(0).stderr.contains("nothing is wrong"));
}

#[test]
fn what_cannot_be_mended_is_named_with_the_reason() {
    let kept = Kept::new(1);
    let layer = kept.layer(0).digest;
    kept.damage(&layer, |bytes| bytes.clear());
    let offline = kept.run(["verify", "--repair", "--offline"]).expect(4);
    assert!(offline.stdout.contains("not mended: ") && offline.stdout.contains("the network is off"), "{offline}");
    kept.registry.fault(format!("/blobs/{layer}"), Fault::Missing);
    let output = kept.run(["verify", "--repair", "--tries", "1", "--json"]).expect(6);
    let fault = &output.json()[0];
    assert_eq!((&fault["mended"], &fault["status"]), (&false.into(), &"missing".into()), "{output}");
    assert!(fault["error"]["message"].as_str().unwrap().contains("could not be fetched"), "{output}");

    // Other sources: a repository, a mirror in the settings, and a file.
    serve(&kept.registry, "copies/app", "v0", &kept.made[0]);
    kept.registry.heal();
    kept.registry.fault(format!("/v2/team/app/blobs/{layer}"), Fault::Missing);
    let from = format!("{}/copies/app", kept.registry.host());
    let output = kept.run(["verify", "--repair", "--tries", "1", "--from", &from]).expect(0);
    assert!(output.stdout.contains("mended:    yes"), "{output}");

    fs::remove_file(kept.blob(&layer)).unwrap();
    serve(&kept.registry, "mirror/team/app", "v0", &kept.made[0]);
    let settings = kept.sandbox.home().join(".config/larder");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("config.toml"), format!("[mirrors]\n\"{0}\" = [\"{0}/mirror\"]\n", kept.registry.host())).unwrap();
    let _ = kept.run(["verify", "--repair", "--tries", "1"]).expect(0);
    assert!(kept.registry.count(&format!("mirror/team/app/blobs/{layer}")) == 1);
}

#[test]
fn a_file_of_images_mends_too() {
    let kept = Kept::new(1);
    let layout = kept.sandbox.home().join("layout");
    kept.made[0].write_layout(&layout, "v0").unwrap();
    let layers: Vec<Digest> = kept.made[0].platform("linux/amd64").layers.iter().map(|layer| layer.digest).collect();
    let damage = || layers.iter().for_each(|layer| drop(fs::remove_file(kept.blob(layer))));
    damage();
    let output = kept.run(["verify", "--repair", "--offline", "--from", "./layout"]).expect(0);
    assert!(output.stderr.contains("./layout: ") && output.stderr.contains("taken"), "{output}");

    let archive = kept.sandbox.home().join("images.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_dir_all("", &layout).unwrap();
    builder.into_inner().unwrap();
    let packed = fs::File::create(kept.sandbox.home().join("images.tar.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    std::io::copy(&mut fs::File::open(&archive).unwrap(), &mut packed).unwrap();
    packed.finish().unwrap();
    for file in ["./images.tar", "./images.tar.gz"] {
        damage();
        let _ = kept.run(["verify", "--repair", "--offline", "--from", file]).expect(0);
        assert!(kept.run(["verify"]).expect(0).stderr.contains("nothing is wrong"));
    }

    damage();
    let output = kept.run(["verify", "--repair", "--offline", "--from", "./nowhere.tar"]).expect(3);
    assert!(output.stderr.contains("./nowhere.tar cannot be read as an OCI layout or tar archive"), "{output}");
    assert!(kept.run(["verify", "--from", "./layout"]).expect(2).stderr.contains("--repair"));
}

#[test]
fn a_pin_that_cannot_be_read_stops_removing_and_is_written_again() {
    let kept = Kept::new(2);
    let file = kept.pin_file(0);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("amd64", "amd65", 1)).unwrap();
    let stopped = kept.run(["prune", "--keep-size", "0"]).expect(1);
    assert!(stopped.stderr.contains("is damaged") && stopped.stderr.contains("hint: `larder verify --repair`"), "{stopped}");
    let output = kept.run(["verify", "--json"]).expect(1);
    assert_eq!(faults(&output), [("bad-pin".to_owned(), file.display().to_string())]);
    assert!(!output.stdout.contains("unreferenced"), "nobody knows what a pin needs that cannot be read");

    // Where it cannot be written again, it stays as it is.
    fs::remove_file(kept.blob(&kept.made[0].root.digest)).unwrap();
    let _ = kept.run(["verify", "--repair", "--offline"]).expect(3);
    assert!(file.exists());

    kept.registry.forget();
    let output = kept.run(["verify", "--repair"]).expect(0);
    assert!(output.stdout.contains("a pin that cannot be read") && output.stdout.contains("mended:    yes"), "{output}");
    assert_eq!(kept.registry.count("/blobs/"), 0, "its blobs were there");
    assert!(kept.run(["verify"]).expect(0).stderr.contains("2 images"));
    let listed = kept.run(["list", "--quiet"]).expect(0);
    assert_eq!(
        listed.stdout.lines().collect::<std::collections::BTreeSet<_>>(),
        [kept.pinned(0), kept.pinned(1)].iter().map(String::as_str).collect()
    );
}

#[test]
fn pruning_removes_what_nobody_needs_and_nothing_else() {
    let kept = Kept::new(2);
    let stray = b"a blob that no image needs";
    fs::write(kept.blob(&Digest::of(stray)), stray).unwrap();
    let scratch = kept.sandbox.store().join("ingest");
    let part = |name: &str, days: u64| {
        let path = scratch.join(format!("{}.part", Digest::of(name.as_bytes()).hex()));
        fs::write(&path, "part").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86400)).unwrap();
        path
    };
    let (young, old) = (part("young", 1), part("old", 8));
    fs::write(scratch.join("0123456789abcdef.tmp"), "half").unwrap();
    let dry = kept.run(["prune", "--dry-run", "--json"]).expect(0).one_json();
    let expected = |status: &str, dry: bool| serde_json::json!({"status": status, "dry_run": dry, "images": 0, "blobs": 1, "files": 2, "freed_bytes": stray.len() + 8});
    assert_eq!(dry, expected("would-prune", true));
    assert!(old.exists() && kept.blob(&Digest::of(stray)).exists());
    assert_eq!(kept.run(["prune", "--json"]).expect(0).one_json(), expected("pruned", false));
    assert!(young.exists() && !old.exists());
    assert!(kept.run(["prune", "--parts-older-than", "0s"]).expect(0).stderr.starts_with("0 images, 0 blobs, 1 leftover file: 4 B freed"));
    assert!(kept.run(["prune"]).expect(0).stderr.contains("0 B freed"));
    assert!(kept.run(["verify"]).expect(0).stderr.contains("2 images"));
}

#[test]
fn pruning_by_age_and_size_takes_images_used_longest_ago() {
    let kept = Kept::new(3);
    for (number, days) in [(0, 40), (1, 20), (2, 1)] {
        let file = fs::File::open(kept.pin_file(number)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86400)).unwrap();
    }
    let dry = kept.run(["prune", "--unused-for", "30d", "--dry-run", "--quiet"]).expect(0);
    assert_eq!(dry.stdout.trim(), kept.pinned(0));
    // What is used is not unused.
    let _ = kept.run(["load", "--engine", "none", &kept.pinned(0)].into_iter().chain(AMD64)).expect(0);
    let all = kept.run(["list", "--json"]).expect(0).json();
    let one = all[0]["own_bytes"].as_u64().unwrap() + all[0]["shared_bytes"].as_u64().unwrap();
    let gone = kept.run(["prune", "--keep-size", &format!("{one}B"), "--json"]).expect(0).json();
    let pinned: Vec<_> = gone.iter().filter_map(|o| o["pinned"].as_str()).collect();
    assert_eq!(pinned.len(), 2, "{gone:?}");
    assert!(kept.run(["verify"]).expect(0).stderr.starts_with("1 image, "));
    for wrong in [["--unused-for", "1 month"], ["--unused-for", "soon"], ["--keep-size", "many"], ["--parts-older-than", "-1d"]] {
        let _ = kept.run(["prune"].into_iter().chain(wrong)).expect(2);
    }
}

#[test]
fn what_was_set_aside_goes_when_asked_for() {
    let kept = Kept::new(1);
    let layer = kept.layer(0);
    kept.damage(&layer.digest, |bytes| bytes[0] ^= 1);
    let _ = kept.run(["verify", "--repair"]).expect(0);
    let aside = kept.sandbox.store().join("damaged").join(layer.digest.hex());
    assert!(kept.run(["prune"]).expect(0).stderr.contains("0 B freed") && aside.exists());
    let sum = kept.run(["prune", "--damaged", "--json"]).expect(0).one_json();
    assert_eq!(sum["freed_bytes"], layer.size);
    assert!(!aside.exists());
}

#[test]
fn a_blob_that_is_damaged_is_named_with_its_image_and_what_mends_it() {
    let kept = Kept::new(1);
    let config = kept.made[0].platform("linux/amd64").config.digest;
    kept.damage(&config, |bytes| bytes[3] ^= 1);
    let output = kept.run(["pull", "--offline", "--engine", "none", &kept.pinned(0)].into_iter().chain(AMD64)).expect(4);
    for said in [
        format!("error: stored blob is damaged: {config}\n"),
        format!("image:    {}\n", kept.pinned(0)),
        format!("moved to: {}\n", kept.sandbox.store().join("damaged").join(config.hex()).display()),
        format!("hint: `larder pull {}` brings it again", kept.pinned(0)),
    ] {
        assert!(output.stderr.contains(&said), "{said}\n{output}");
    }
    // One that has lost some bytes is damaged too, not missing.
    let layer = kept.layer(0).digest;
    kept.damage(&layer, |bytes| bytes.truncate(9));
    let output = kept.run(["pull", "--engine", "none", &kept.pinned(0)].into_iter().chain(AMD64)).expect(0);
    assert!(output.stdout.contains("fetched and verified"), "{output}");
    kept.damage(&layer, |bytes| bytes.truncate(9));
    let output = kept.run(["pull", "--offline", "--engine", "none", &kept.pinned(0)].into_iter().chain(AMD64)).expect(4);
    assert!(output.stderr.contains(&format!("error: stored blob is damaged: {layer}\n")), "{output}");
    let healed = kept.run(["pull", "--engine", "none", &kept.pinned(0)].into_iter().chain(AMD64)).expect(0);
    assert!(healed.stdout.contains("fetched and verified"), "{healed}");
}

#[test]
fn an_index_that_was_left_behind_is_mended_by_the_same_command() {
    let kept = Kept::new(2);
    let [index, current, todo] = ["index.json", "index.current", "index.todo"].map(|name| kept.sandbox.store().join(name));
    let pinned = kept.pinned(0);
    let pull: Vec<&str> = ["pull", "--engine", "none", &pinned].into_iter().chain(AMD64).collect();
    for again in [&pull[..], &["remove", "nothing/there"], &["prune"], &["verify"]] {
        for noted in [true, false] {
            // As a run leaves them that is killed after its pin, or in the midst of removing.
            if noted {
                fs::write(&todo, format!("\n{pinned}\n").split('@').next().unwrap()).unwrap();
            } else {
                fs::remove_file(&current).unwrap();
            }
            fs::remove_file(&index).unwrap();
            let _ = kept.run(again.iter().copied());
            let text = fs::read_to_string(&index).unwrap();
            assert!((0..2).all(|number| text.contains(&kept.made[number].root.digest.to_string())), "{again:?}: {text}");
        }
    }
}

#[test]
fn one_of_many_processes_asks_for_an_image() {
    let recipe = Recipe { compression: Compression::Gzip, ..Recipe::default() };
    let (registry, sandbox, made) = (Registry::start(), Sandbox::new(), recipe.make());
    serve(&registry, "team/app", "v1", &made);
    let pinned = format!("{}/team/app:v1@{}", registry.host(), made.root.digest);
    let mut pulls: Vec<_> = (0..12)
        .map(|_| {
            let mut command = sandbox.command();
            command.args(["pull", "--quiet", "--engine", "none", &pinned]).args(AMD64);
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert!(pulls.iter_mut().all(|pull| pull.wait().unwrap().success()));
    let image = made.platform("linux/amd64");
    for blob in image.layers.iter().chain([&image.config]) {
        assert_eq!(registry.count(&format!("/blobs/{}", blob.digest)), 1, "{blob:?}");
    }
    for manifest in [&made.root, &image.manifest] {
        assert_eq!(registry.count(&format!("/manifests/{}", manifest.digest)), 1, "{manifest:?}");
    }
    assert!(Path::new(&sandbox.store()).join("index.json").exists());
}
