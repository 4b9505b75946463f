//! Archives that would mislead somebody: refused, each for its own reason, and nothing is left of them.

mod layouts;
mod tars;

use std::io::Write;

use larder::digest::Digest;
use larder::import::Wish;
use larder::store::Store;
use serde_json::{Value, json};

use super::{everything, import};
use crate::support::tarball::{Head, Tarball, archive, config, docker_files, record};
use layouts::{bad_layouts, layout};
use tars::{bad_extensions, bad_headers, broken_streams};

const TAG: &str = "r.example.com/team/app:v1";
const LAYER: &[u8] = b"this is the layer; nobody unpacks it as a tar archive here, and its digest is all that counts";

type Files = Vec<(String, Vec<u8>)>;

/// What is refused: what it is, the archive, and a part of the reason.
type Case = (&'static str, Vec<u8>, &'static str);

fn good() -> Files {
    docker_files(&config(&[LAYER]), &[LAYER], TAG)
}

/// The good archive with something behind its members.
fn with(add: impl FnOnce(Tarball) -> Tarball) -> Vec<u8> {
    let files = good();
    add(Tarball::of(files.iter().map(|(name, content)| (name, content.as_slice())))).end()
}

/// The good archive with one of its files changed.
fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut files = good();
    let file = files.iter_mut().find(|(own, _)| own.ends_with(name)).unwrap();
    change(&mut file.1);
    archive(&files)
}

/// The good archive with another list.
fn listed(list: &str) -> Vec<u8> {
    let files = good();
    let name = &files[0].0;
    let list = list.replace("CONFIG", name).into_bytes();
    changed("manifest.json", |old| *old = list)
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

/// Names that lead somewhere else, or to two things.
fn bad_names() -> Vec<Case> {
    let link = |flag, name: &str, target: &str| with(|tar| tar.member(&Head::link(name, flag, target), &[]));
    let hex = Digest::of(LAYER).hex();
    vec![
        ("at the root", with(|tar| tar.file("/etc/passwd", b"")), "begins at the root"),
        ("out of the archive", with(|tar| tar.file("../x", b"")), "climbs out"),
        ("out and in again", with(|tar| tar.file("0/../0/layer.tar", b"")), "climbs out"),
        ("a folder out of the archive", with(|tar| tar.member(&Head::new("../d/", b'5', 0), &[])), "climbs out"),
        ("out by a long name", with(|tar| tar.long_name(b"../../x\0").file("x", b"")), "climbs out"),
        ("out by an extension", with(|tar| tar.pax(record("path", "/x").as_bytes()).file("x", b"")), "begins at the root"),
        ("a file twice", with(|tar| tar.file("0/layer.tar", LAYER)), "stands twice"),
        ("a file twice, written otherwise", with(|tar| tar.file("./0//layer.tar", LAYER)), "stands twice"),
        ("the list twice", with(|tar| tar.file("manifest.json", b"[]")), "`manifest.json` stands twice"),
        (
            "the list twice, by an extension",
            with(|tar| tar.pax(record("path", "./manifest.json").as_bytes()).file("x", b"[]")),
            "`manifest.json` stands twice",
        ),
        ("a file under a file", with(|tar| tar.file("0/layer.tar/x", b"")), "a folder and something else"),
        ("a file over a folder", with(|tar| tar.file("0", b"")), "a folder and something else"),
        ("a link to the root", link(b'2', "l", "/etc/passwd"), "leads out of the archive"),
        ("a link out of the archive", link(b'2', "a/l", "../../etc/passwd"), "leads out of the archive"),
        ("a link to a folder above", link(b'2', "a/l", ".."), "leads out of the archive"),
        ("a link to itself", link(b'2', "l", "l"), "leads to another link"),
        ("a link to nothing", link(b'2', "l", "nothing"), "which is not there"),
        (
            "links in a circle",
            with(|tar| tar.member(&Head::link("a", b'2', "b"), &[]).member(&Head::link("b", b'2', "a"), &[])),
            "leads to another link",
        ),
        (
            "a link to a link",
            with(|tar| tar.member(&Head::link("a", b'2', "0/layer.tar"), &[]).member(&Head::link("b", b'2', "a"), &[])),
            "leads to another link",
        ),
        ("a hard link to what comes later", with(|tar| tar.member(&Head::link("a", b'1', "b"), &[]).file("b", b"")), "which is not there"),
        ("a hard link out of the archive", link(b'1', "a", "../b"), "leads out of the archive"),
        ("a hard link to the root", link(b'1', "a", "/etc/shadow"), "leads out of the archive"),
        ("a link over a file", link(b'2', "0/layer.tar", "x"), "stands twice"),
        ("a file through a link", with(|tar| tar.member(&Head::link("l", b'2', "0"), &[]).file("l/x", b"")), "a folder and something else"),
        (
            "a link in place of a blob",
            link(b'2', &format!("blobs/sha256/{hex}"), "../../0/layer.tar"),
            "named after a digest and is a link",
        ),
    ]
}

/// Lists, configs and layers of a docker archive that do not belong together.
fn bad_images() -> Vec<Case> {
    let entry = |rest: &str| listed(&format!(r#"[{{"Config":"CONFIG",{rest}}}]"#));
    let of = |config: Value, layers: &[&[u8]]| archive(&docker_files(&config, layers, TAG));
    let two = [LAYER, b"another layer"];
    let mut spoofed = docker_files(&config(&[LAYER]), &[LAYER], TAG);
    let other = config(&two).to_string().into_bytes();
    spoofed[0].1 = other.clone();
    let mut twice = good();
    let name = format!("{}.json", Digest::of(&other).hex());
    twice.push((name.clone(), other));
    twice.push(("1/layer.tar".to_owned(), two[1].to_vec()));
    let first = twice[0].0.clone();
    twice.retain(|(name, _)| name != "manifest.json");
    let one = json!({ "Config": first, "RepoTags": ["app:1"], "Layers": ["0/layer.tar"] });
    let same_name = json!({ "Config": name, "RepoTags": ["docker.io/library/app:1"], "Layers": ["0/layer.tar", "1/layer.tar"] });
    twice.push(("manifest.json".to_owned(), json!([one, same_name]).to_string().into_bytes()));
    let mut window = zstd::bulk::compress(LAYER, 3).unwrap();
    // A window of 256 MiB in a frame that has one.
    window[4] &= !0x20;
    window.insert(5, 18 << 3);
    vec![
        ("no list", archive(&good()[..2]), "neither a manifest.json nor an index.json"),
        ("an empty list", listed("[]"), "lists no image"),
        ("no JSON", listed("[{"), "`manifest.json` cannot be read"),
        ("two lists in one", listed("[] []"), "`manifest.json` cannot be read"),
        ("a key twice", entry(r#""Layers":["0/layer.tar"],"Layers":["0/layer.tar"]"#), "`manifest.json` cannot be read"),
        ("a key twice, in another case", entry(r#""config":"x","Layers":["0/layer.tar"]"#), "`manifest.json` cannot be read"),
        ("a key in another case", entry(r#""layers":["0/layer.tar"]"#), "`manifest.json` cannot be read"),
        ("a key with a long s", entry(r#""Layerſ":["0/layer.tar"]"#), "`manifest.json` cannot be read"),
        ("a huge list", listed(&" ".repeat(5 << 20)), "`manifest.json` has 5242880 bytes"),
        ("a list that is a link", with_linked_list(), "stands twice"),
        ("no config", listed(r#"[{"Config":"other.json","Layers":[]}]"#), "the config `other.json` is not in the archive"),
        ("no layer", entry(r#""Layers":["1/layer.tar"]"#), "the layer `1/layer.tar` is not in the archive"),
        ("a config out of the archive", listed(r#"[{"Config":"../CONFIG","Layers":[]}]"#), "climbs out"),
        ("a layer at the root", entry(r#""Layers":["/0/layer.tar"]"#), "begins at the root"),
        ("another config under the name of one", archive(&spoofed), "is not what its name says"),
        ("a config that is a layer", listed(r#"[{"Config":"0/layer.tar","Layers":[]}]"#), "is no JSON"),
        ("a config with a key twice", of_text(r#"{"os":"linux","architecture":"amd64","os":"linux"}"#), "cannot be read"),
        ("a config with a key in another case", of_text(r#"{"os":"linux","Architecture":"amd64"}"#), "cannot be read"),
        ("a config without a platform", of(json!({ "rootfs": { "diff_ids": [Digest::of(LAYER)] } }), &[LAYER]), "not a container image"),
        ("more layers than diff IDs", of(config(&[LAYER]), &two), "1 diff IDs for 2 layers"),
        ("fewer layers than diff IDs", of(config(&two), &[LAYER]), "2 diff IDs for 1 layers"),
        ("layers in another order", of(config(&two), &[two[1], two[0]]), "layer 1 of the image"),
        ("one layer twice in place of two", of(config(&two), &[LAYER, LAYER]), "layer 2 of the image"),
        ("a layer with one byte changed", changed("0/layer.tar", |layer| layer[5] ^= 1), "layer 1 of the image"),
        ("a layer cut short", changed("0/layer.tar", |layer| layer.truncate(20)), "layer 1 of the image"),
        ("a layer compressed and another", of(config(&[LAYER]), &[&gzip(b"another layer")]), "layer 1 of the image"),
        ("gzip that ends early", of(config(&[LAYER]), &[&gzip(LAYER)[..30]]), "cannot be unpacked"),
        ("gzip with bytes behind", of(config(&[LAYER]), &[&[gzip(LAYER), b"behind".to_vec()].concat()]), "cannot be unpacked"),
        ("gzip with a wrong sum", of(config(&[LAYER]), &[&flipped(gzip(LAYER))]), "cannot be unpacked"),
        ("zstd that ends early", of(config(&[LAYER]), &[&zstd::bulk::compress(LAYER, 3).unwrap()[..20]]), "cannot be unpacked"),
        ("zstd with a huge window", of(config(&[LAYER]), &[&window]), "cannot be unpacked"),
        ("a layer in xz", of(config(&[LAYER]), &[b"\xfd7zXZ\0and so on"]), "compressed with xz"),
        ("a layer in bzip2", of(config(&[LAYER]), &[b"BZh91AY&SY and so on"]), "compressed with bzip2"),
        ("two images of one name", archive(&twice), "two images in the file are called docker.io/library/app:1"),
    ]
}

fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 6;
    bytes[at] ^= 1;
    bytes
}

fn of_text(config: &str) -> Vec<u8> {
    let list = r#"[{"Config":"c.json","Layers":[]}]"#;
    archive(&[("c.json".to_owned(), config.into()), ("manifest.json".to_owned(), list.into())])
}

fn with_linked_list() -> Vec<u8> {
    with(|tar| tar.member(&Head::link("manifest.json", b'2', "0/layer.tar"), &[]))
}

#[test]
fn every_one_is_refused_for_its_reason_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    // Something is there already, and stays as it is.
    let there = archive(&docker_files(&config(&[b"it is there"]), &[b"it is there"], TAG));
    import(&store, there, &Wish { accept_names: true, ..Wish::default() }).unwrap();
    let before = everything(folder.path());
    let cases = [broken_streams(), bad_headers(), bad_extensions(), bad_names(), bad_images(), bad_layouts()].concat();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (what, archive, reason) in cases {
        match import(&store, archive, &Wish { accept_names: true, ..Wish::default() }) {
            Ok(_) => wrong.push(format!("{what}: accepted")),
            Err(error) => {
                let mut said = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(error) = source {
                    said = format!("{said}: {error}");
                    source = error.source();
                }
                if !said.contains(reason) {
                    wrong.push(format!("{what}: expected `{reason}`, found `{said}`"));
                }
            }
        }
        assert_eq!(everything(folder.path()), before, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_hostile_ones_were_made_of_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let wish = Wish { accept_names: true, ..Wish::default() };
    let compressed = docker_files(&config(&[LAYER]), &[&gzip(LAYER)], "r.example.com/team/app:v2");
    let linked = with(|tar| {
        tar.member(&Head::link("1/layer.tar", b'2', "../0/layer.tar"), &[]).member(&Head::link("2.tar", b'1', "0/layer.tar"), &[])
    });
    let long = with(|tar| {
        tar.long_name(&[&[b'n'; 300][..], b"\0"].concat()).file("n", b"").pax(record("path", &"m".repeat(200)).as_bytes()).file("m", b"")
    });
    for good in [archive(&good()), layout().archive(), archive(&compressed), linked, long, [archive(&good()), vec![0; 9000]].concat()] {
        let imported = import(&store, good, &wish).unwrap();
        assert_eq!(imported[0].pin.image_id(), Digest::of(config(&[LAYER]).to_string().as_bytes()));
    }
    assert_eq!(store.pins().unwrap().len(), 3, "the same image under one name is pinned once");
}
