//! Targets for files of images.

use std::fs;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::blobs::Limits;
use super::found::What;
use super::header::{BLOCK, Header};
use super::read::{self, Source};
use super::tar::{Kind, Tar};
use super::{docker, wrap};
use crate::store::Store;

/// A name, which is that of a folder of seeds, and what is tried.
type Target = (&'static str, fn(&[u8]));

pub(crate) const TARGETS: &[Target] = &[("archive", archive), ("docker_list", list), ("tar", tar), ("wrap", unwrap)];

/// The most that a member or a file may unpack to here.
const LIMITS: Limits = Limits { texts: 1 << 20, unpacked: 1 << 20 };

/// The archive with the right sum in every header: no fuzzer finds one.
fn summed(input: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at) = (input.to_vec(), 0_usize);
    while let Some(block) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<BLOCK>()) {
        at += BLOCK;
        if block.iter().all(|b| *b == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let Ok(header) = Header::parse(block, 0) else { break };
        let content = usize::try_from(header.size).ok().and_then(|size| size.checked_next_multiple_of(BLOCK));
        at = at.saturating_add(content.unwrap_or(usize::MAX));
    }
    bytes
}

/// Every member has as many bytes as it says, and what is accepted is what another reader finds.
fn tar(input: &[u8]) {
    let bytes = summed(input);
    let (mut tar, mut found) = (Tar::new(&bytes[..]), Vec::new());
    loop {
        match tar.next() {
            Ok(None) => break,
            Ok(Some(member)) => {
                let mut content = Vec::new();
                if tar.content().read_to_end(&mut content).is_err() {
                    return;
                }
                assert_eq!(content.len() as u64, member.size);
                assert!(!member.path.is_empty() && !member.path.chars().any(char::is_control));
                found.push((member.path, member.kind == Kind::File, content));
            }
            Err(_) => return,
        }
    }
    let mut other = ::tar::Archive::new(&bytes[..]);
    let entries = other.entries().expect("an archive that was accepted is one");
    let seen: Vec<_> = entries
        .map(|entry| {
            let mut entry = entry.expect("a member that was accepted is one");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("all of a member is there");
            let path = String::from_utf8(entry.path_bytes().into_owned()).expect("a name that was accepted is text");
            (path, entry.header().entry_type().is_file(), content)
        })
        .collect();
    assert_eq!(found, seen);
}

/// A store that is gone when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
        Scratch(folder.join(format!("larder-fuzzing-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is found is whole, and nothing is left of what came.
fn archive(input: &[u8]) {
    let bytes = if input.starts_with(&[0x1f, 0x8b]) { input.to_vec() } else { summed(input) };
    let scratch = Scratch::new();
    let store = Store::open(scratch.0.clone()).expect("a store can be made in a new folder");
    let counted_on = store.share().expect("nobody removes");
    if let Ok(contents) = read::read(&store, counted_on, Source::Stream(Box::new(Cursor::new(bytes))), LIMITS) {
        assert!(!contents.found.is_empty());
        for found in &contents.found {
            let (configs, layers): (Vec<_>, Vec<_>) = match &found.what {
                What::Whole(_, images) => images.iter().map(|image| (&image.config, (&image.layers, &image.diff_ids))).unzip(),
                What::Bare(bare) => (vec![&bare.config], vec![(&bare.layers, &bare.diff_ids)]),
            };
            assert!(!configs.is_empty() && configs.iter().all(|config| contents.blobs.text_of(&config.digest).is_some()));
            for (layers, diff_ids) in layers {
                assert_eq!(layers.len(), diff_ids.len());
                assert!(layers.iter().all(|layer| contents.blobs.get(&layer.digest).is_some_and(|blob| blob.size == layer.size)));
            }
        }
    }
    let left = fs::read_dir(store.root().join("ingest")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "what came is gone");
}

/// What is accepted says the same to another reader of JSON.
fn list(input: &[u8]) {
    let Ok(entries) = docker::entries(input) else { return };
    let other: Vec<Value> = serde_json::from_slice(input).expect("what was accepted is a list");
    assert_eq!(entries.len(), other.len());
    for (entry, other) in entries.iter().zip(&other) {
        assert_eq!(Some(entry.config.as_str()), other["Config"].as_str());
        let texts =
            |value: &Value| value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>();
        assert_eq!((&entry.repo_tags, &entry.layers), (&texts(&other["RepoTags"]), &texts(&other["Layers"])));
    }
}

/// Whatever a file is compressed with, unpacking it ends.
fn unwrap(input: &[u8]) {
    if let Ok(Some(plain)) = wrap::unwrapped(Box::new(Cursor::new(input.to_vec()))) {
        let _ = std::io::copy(&mut plain.take(LIMITS.unpacked), &mut std::io::sink());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The seeds are archives that are taken, so that what is made of them is near to such.
    #[test]
    fn the_archives_are_taken() {
        for seed in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/archive")).unwrap() {
            let (path, scratch) = (seed.unwrap().path(), Scratch::new());
            let store = Store::open(scratch.0.clone()).unwrap();
            let source = Source::Stream(Box::new(Cursor::new(fs::read(&path).unwrap())));
            let read = read::read(&store, store.share().unwrap(), source, LIMITS);
            assert!(read.is_ok_and(|contents| contents.found.len() == 1), "{}", path.display());
        }
    }
}
