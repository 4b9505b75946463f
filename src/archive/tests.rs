use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::*;
use crate::digest::Verified;
use crate::oci::{Config, Manifest};
use crate::store::StoreError;

/// Where a blob lies in every form but crane's.
fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(crate) struct Made {
    folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) image: Image,
    name: Name,
}

impl Made {
    fn path(&self, blob: &Descriptor) -> PathBuf {
        self.store.root().join("blobs/sha256").join(blob.digest.hex())
    }

    pub(crate) fn archive(&self, layers: Layers) -> Result<Archive, ArchiveError> {
        Archive::new(&self.store, &self.image, &self.name, &Parts::all(layers))
    }

    pub(crate) fn flip(&self, blob: &Descriptor, at: usize) {
        let path = self.path(blob);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

/// An image of an index, with layers in gzip, zstd and gzip, the first once more at the end.
pub(crate) fn made() -> Made {
    made_with((0..=255).cycle().take(400_000).collect())
}

/// The same with this content in its second layer.
pub(crate) fn made_with(content: Vec<u8>) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let put = |media_type: &str, bytes: Vec<u8>| {
        let document = Verified::hash(bytes);
        store.put(&document).unwrap();
        Descriptor { media_type: media_type.to_owned(), digest: document.digest(), size: document.size() }
    };
    let plain = [vec![1; 700], content, Vec::new(), vec![1; 700]];
    let kind = |how: &str| format!("application/vnd.oci.image.layer.v1.tar+{how}");
    let layers: Vec<Descriptor> = plain
        .iter()
        .enumerate()
        .map(|(n, plain)| match n {
            1 => put(&kind("zstd"), zstd::bulk::compress(plain, 3).unwrap()),
            _ => put(&kind("gzip"), gzip(plain)),
        })
        .collect();
    let diff_ids: Vec<Digest> = plain.iter().map(|plain| Digest::of(plain)).collect();
    let text = serde_json::json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": diff_ids } }).to_string();
    let config = Config::parse(&Verified::hash(text.clone())).unwrap();
    let parts = Manifest { config: put("config", text.into_bytes()), layers, artifact: None, unproved: false };
    let image = Image::new(put("index", b"the index".to_vec()), put("manifest", b"the manifest".to_vec()), parts, config).unwrap();
    Made { folder, store, image, name: "redis:7".parse().unwrap() }
}

pub(crate) fn written(archive: &Archive) -> Vec<u8> {
    let mut out = Vec::new();
    archive.write_to(&mut out).unwrap();
    assert_eq!(out.len() as u64, archive.size());
    out
}

fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let read = |entry: io::Result<tar::Entry<'_, _>>| {
        let mut entry: tar::Entry<'_, &[u8]> = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn one_archive_is_a_layout_and_a_docker_archive() {
    let made = made();
    let bytes = written(&made.archive(Layers::AsStored).unwrap());
    assert_eq!(bytes, written(&made.archive(Layers::AsStored).unwrap()), "the bytes are the same every time");
    let members = members(&bytes);
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    let mut expected = vec!["oci-layout".to_owned()];
    expected.extend(made.image.blobs().iter().map(|blob| path(&blob.digest)));
    expected.extend(["index.json".to_owned(), "manifest.json".to_owned()]);
    assert_eq!(names, expected);
    for (name, content) in &members {
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(Digest::of(content).hex(), hex);
        }
    }
    let member: HashMap<_, _> = members.iter().map(|(name, content)| (name.as_str(), std::str::from_utf8(content).unwrap_or(""))).collect();
    let root = &made.image.root;
    assert_eq!(member["oci-layout"], r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert_eq!(
        member["index.json"],
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"index","digest":"{}","size":9,"annotations":{{"io.containerd.image.name":"docker.io/library/redis:7","org.opencontainers.image.ref.name":"docker.io/library/redis:7"}}}}]}}"#,
            root.digest
        )
    );
    let layers: Vec<String> = made.image.layers.iter().map(|layer| format!("\"{}\"", path(&layer.digest))).collect();
    let (config, layers) = (path(&made.image.config.digest), layers.join(","));
    assert_eq!(
        member["manifest.json"],
        format!(r#"[{{"Config":"{config}","RepoTags":["docker.io/library/redis:7"],"Layers":[{layers}]}}]"#)
    );
}

#[test]
fn zstd_layers_go_out_plain_and_compared() {
    let made = made();
    let bytes = written(&made.archive(Layers::WithoutZstd).unwrap());
    let members = members(&bytes);
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    let plain = path(&made.image.diff_ids[1]);
    let [first, _, empty, _] = &made.image.layers[..] else { panic!("four layers") };
    assert_eq!(names, [&path(&made.image.config.digest), &path(&first.digest), &plain, &path(&empty.digest), "manifest.json"]);
    assert_eq!(Digest::of(&members[2].1), made.image.diff_ids[1]);
    let listed = [&path(&first.digest), &plain, &path(&empty.digest), &path(&first.digest)].map(|p| format!("\"{p}\"")).join(",");
    assert!(String::from_utf8_lossy(&members[4].1).contains(&listed));

    let mut wrong = made.image.clone();
    wrong.diff_ids[1] = wrong.diff_ids[0];
    let error = Archive::new(&made.store, &wrong, &made.name, &Parts::all(Layers::WithoutZstd)).err().unwrap();
    assert!(
        matches!(error, ArchiveError::DiffId { expected, found, .. } if expected == wrong.diff_ids[0] && found == made.image.diff_ids[1])
    );
}

#[test]
fn damage_ends_the_archive_before_anything_is_named() {
    for layers in [Layers::AsStored, Layers::WithoutZstd] {
        for pick in 0..6 {
            for end in [false, true] {
                let made = made();
                let blob = made.image.blobs()[pick].clone();
                if layers == Layers::WithoutZstd && pick < 2 {
                    continue;
                }
                let archive = made.archive(layers).unwrap();
                made.flip(&blob, if end { blob.size as usize - 1 } else { 0 });
                let mut out = Vec::new();
                let error = archive.write_to(&mut out).unwrap_err();
                assert!(
                    matches!(&*error, ArchiveError::Store(StoreError::Damaged { found, .. }) if found.expected == blob.digest),
                    "{error:?}"
                );
                assert!(!out.windows(13).any(|w| w == b"manifest.json"), "{layers:?} {pick}");
                assert!((out.len() as u64) < archive.size() && !made.store.has(&blob));
            }
        }
    }
}

#[test]
fn a_layer_damaged_before_is_damage_and_not_bad_compression() {
    let made = made();
    let zstd = made.image.layers[1].clone();
    made.flip(&zstd, 0);
    let error = made.archive(Layers::WithoutZstd).err().unwrap();
    assert!(matches!(error, ArchiveError::Store(StoreError::Damaged { .. })), "{error:?}");
}

#[test]
fn what_is_missing_is_counted() {
    let made = made();
    for blob in [&made.image.layers[0], &made.image.config] {
        fs::remove_file(made.path(blob)).unwrap();
    }
    let bytes = made.image.layers[0].size + made.image.config.size;
    let error = made.archive(Layers::AsStored).err().unwrap();
    assert!(
        matches!(error, ArchiveError::Incomplete { layers: 3, missing_layers: 1, missing_documents: 1, missing_bytes, .. } if missing_bytes == bytes)
    );
    fs::write(made.path(&made.image.config), "short").unwrap();
    assert!(matches!(made.archive(Layers::AsStored).err().unwrap(), ArchiveError::Store(StoreError::Damaged { .. })));
    drop(made.folder);
}

#[test]
fn who_takes_no_more_ends_the_archive() {
    let made = made();
    let error = made.archive(Layers::AsStored).unwrap().write_to(&mut [0; 1000].as_mut_slice()).unwrap_err();
    assert!(matches!(*error, ArchiveError::Write { .. }));
}

fn without(layers: Layers, left_out: &[&Descriptor]) -> Parts {
    Parts { layers, without: left_out.iter().map(|layer| layer.digest).collect() }
}

#[test]
fn layers_that_are_left_out_are_named_and_not_sent() {
    let made = made();
    let [first, zstd, ..] = &made.image.layers[..] else { panic!("four layers") };
    for layers in [Layers::AsStored, Layers::WithoutZstd] {
        let all = written(&made.archive(layers).unwrap());
        let part = Archive::new(&made.store, &made.image, &made.name, &without(layers, &[first, zstd])).unwrap();
        let part = written(&part);
        let gone = [path(&first.digest), path(if layers == Layers::AsStored { &zstd.digest } else { &made.image.diff_ids[1] })];
        let kept: Vec<_> = members(&all).into_iter().filter(|(name, _)| !gone.contains(name)).collect();
        assert_eq!(members(&part), kept);
        assert_eq!(members(&all).len(), kept.len() + 2);
    }
    // The documents are no layers, whatever they are called.
    let documents = without(Layers::AsStored, &[&made.image.root, &made.image.manifest, &made.image.config]);
    let whole = Archive::new(&made.store, &made.image, &made.name, &documents).unwrap();
    assert_eq!(written(&whole), written(&made.archive(Layers::AsStored).unwrap()));
}

#[test]
fn a_layer_that_is_left_out_need_not_unpack() {
    let made = made();
    let zstd = made.image.layers[1].clone();
    made.flip(&zstd, 0);
    let part = Archive::new(&made.store, &made.image, &made.name, &without(Layers::WithoutZstd, &[&zstd])).unwrap();
    assert_eq!(members(&written(&part)).len(), 4);
}

/// Takes so many bytes and no more, and remembers how it ended.
struct Cup {
    room: usize,
    taken: Vec<u8>,
    ended: Vec<Outcome>,
}

impl Cup {
    fn of(room: usize) -> Cup {
        Cup { room, taken: Vec::new(), ended: Vec::new() }
    }

    fn end(&self) -> &Outcome {
        assert_eq!(self.ended.len(), 1, "it is told once");
        &self.ended[0]
    }
}

impl Write for Cup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room - self.taken.len());
        self.taken.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Taker for Cup {
    fn end(&mut self, outcome: Outcome) {
        self.ended.push(outcome);
    }
}

/// Fills a cup of some size with each archive, all in one go.
fn poured(archives: &[Archive], rooms: &[usize]) -> Vec<Cup> {
    let mut cups: Vec<Cup> = rooms.iter().map(|room| Cup::of(*room)).collect();
    let mut pairs: Vec<_> = archives.iter().zip(&mut cups).map(|(archive, cup)| (archive, cup as &mut dyn Taker)).collect();
    write_each(&mut pairs);
    cups
}

#[test]
fn several_archives_are_written_in_one_go_and_each_as_if_alone() {
    let made = made();
    let [first, zstd, empty, _] = &made.image.layers[..] else { panic!("four layers") };
    let every = [
        Parts::all(Layers::AsStored),
        without(Layers::AsStored, &[first, empty]),
        Parts::all(Layers::WithoutZstd),
        without(Layers::WithoutZstd, &[zstd]),
        without(Layers::AsStored, &[first, zstd, empty]),
    ];
    let archives: Vec<_> = every.iter().map(|parts| Archive::new(&made.store, &made.image, &made.name, parts).unwrap()).collect();
    let expected: Vec<_> = archives.iter().map(written).collect();
    let no_limit = vec![usize::MAX; archives.len()];
    for (cup, expected) in poured(&archives, &no_limit).iter().zip(&expected) {
        assert!(cup.end().is_ok() && cup.taken == *expected);
    }
    // One that takes no more, at any point, is no hindrance to the others.
    for room in (0..expected[0].len()).step_by(100_000) {
        let mut rooms = no_limit.clone();
        rooms[0] = room;
        let cups = poured(&archives, &rooms);
        assert!(matches!(cups[0].end(), Err(why) if matches!(**why, ArchiveError::Write { .. })));
        assert!(cups[1..].iter().zip(&expected[1..]).all(|(cup, expected)| cup.end().is_ok() && cup.taken == *expected));
    }
}

#[test]
fn damage_ends_those_whom_it_concerns() {
    let made = made();
    let zstd = made.image.layers[1].clone();
    let every = [Parts::all(Layers::AsStored), without(Layers::AsStored, &[&zstd]), without(Layers::AsStored, &[&made.image.layers[0]])];
    let archives: Vec<_> = every.iter().map(|parts| Archive::new(&made.store, &made.image, &made.name, parts).unwrap()).collect();
    made.flip(&zstd, 5);
    let cups = poured(&archives, &[usize::MAX; 3]);
    for cup in [&cups[0], &cups[2]] {
        assert!(matches!(cup.end(), Err(why) if matches!(&**why, ArchiveError::Store(StoreError::Damaged { .. }))));
        assert!(!cup.taken.windows(13).any(|w| w == b"manifest.json"));
    }
    assert!(cups[1].end().is_ok());
}

/// The same image under another name, and another image that has layers in common with it.
fn several(made: &Made) -> [Item; 3] {
    let put = |media_type: &str, text: String| {
        let document = Verified::hash(text.into_bytes());
        made.store.put(&document).unwrap();
        Descriptor { media_type: media_type.to_owned(), digest: document.digest(), size: document.size() }
    };
    let mut other = made.image.clone();
    other.layers.truncate(2);
    other.diff_ids.truncate(2);
    other.config = put("config", "another config".to_owned());
    other.manifest = put("manifest", "another manifest".to_owned());
    other.root = other.manifest.clone();
    let item = |name: &str, image: &Image| Item { name: name.parse().unwrap(), root: image.root.clone(), images: vec![image.clone()] };
    [item("a:1", &made.image), item("localhost:5000/b:1", &other), item("c:1", &made.image)]
}

#[test]
fn several_images_share_what_they_have_in_common() {
    let made = made();
    let items = several(&made);
    let blobs: HashSet<Digest> = items.iter().flat_map(|item| &item.images).flat_map(Image::blobs).map(|blob| blob.digest).collect();
    let archive = Archive::of(&made.store, &items, Form::Both).unwrap();
    let written = members(&written(&archive));
    let paths: HashSet<&str> = written.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!((written.len(), paths.len()), (blobs.len() + 3, blobs.len() + 3), "each blob once, and the three documents");
    let document = |path: &str| serde_json::from_slice::<serde_json::Value>(&written.iter().find(|(p, _)| p == path).unwrap().1).unwrap();
    let index = document("index.json");
    let named: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|m| (&m["digest"], &m["annotations"][REF_NAME])).collect();
    let roots: Vec<_> = items.iter().map(|item| (serde_json::json!(item.root.digest), serde_json::json!(item.name))).collect();
    assert_eq!(named, roots.iter().map(|(root, name)| (root, name)).collect::<Vec<_>>());
    let docker = document("manifest.json");
    let tags: Vec<_> = docker.as_array().unwrap().iter().map(|entry| entry["RepoTags"].clone()).collect();
    assert_eq!(serde_json::json!(tags), serde_json::json!([["docker.io/library/a:1", "docker.io/library/c:1"], ["localhost:5000/b:1"]]));
    let bare = members(&self::written(&Archive::of(&made.store, &items, Form::Oci).unwrap()));
    assert_eq!(bare, written[..written.len() - 1], "an OCI archive is the same without docker's list");
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[test]
fn one_name_for_two_images_is_refused() {
    let made = made();
    let [first, mut other, _] = several(&made);
    other.name = first.name.clone();
    let error = Archive::of(&made.store, &[first, other], Form::Both).err().unwrap();
    assert!(matches!(error, ArchiveError::NameTwice { name } if name.to_string() == "docker.io/library/a:1"));
}

#[test]
fn crane_calls_its_members_otherwise() {
    let made = made();
    let [item, ..] = several(&made);
    let image = &made.image;
    let written = members(&written(&Archive::of(&made.store, &[item], Form::Crane).unwrap()));
    let names: Vec<&str> = written.iter().map(|(name, _)| name.as_str()).collect();
    let [first, _, empty, _] = &image.layers[..] else { panic!("four layers") };
    let gzip = |layer: &Descriptor| format!("{}.tar.gz", layer.digest.hex());
    let layers = [gzip(first), format!("{}.tar", image.diff_ids[1].hex()), gzip(empty)];
    assert_eq!(names, [image.config.digest.to_string().as_str(), &layers[0], &layers[1], &layers[2], "manifest.json"]);
}

#[test]
fn spans_tell_what_is_compressed() {
    let made = made();
    let [item, ..] = several(&made);
    for form in [Form::Both, Form::Docker] {
        let archive = Archive::of(&made.store, std::slice::from_ref(&item), form).unwrap();
        let bytes = written(&archive);
        let mut at = 0;
        for span in archive.spans() {
            let content = &bytes[at..at + span.size as usize];
            let looks = content.starts_with(&[0x1f, 0x8b]) || content.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
            assert_eq!(span.compressed, looks, "{form:?} at {at}");
            at += span.size as usize;
        }
        assert_eq!(at, bytes.len());
    }
}
