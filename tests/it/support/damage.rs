//! Damage as disks and hands do it to blobs, by a die that falls the same on every run.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder::archive::{Archive, ArchiveError, Layers, Parts};
use larder::digest::Digest;
use larder::oci::Image;
use larder::reference::Name;
use larder::store::{Store, StoreError};
use serde_json::Value;

use super::image::{Made, Recipe};
use super::sandbox::{Output, Sandbox};
use super::scene::{self, PLATFORM, Scene};

/// How many blobs are damaged.
pub const MANY: usize = 1000;

/// Images with more than a thousand blobs between them, in a store and in the registry that they came from.
pub struct Victims {
    /// Where they are.
    pub scene: Scene,
    /// Their references.
    pub images: Vec<(String, Made)>,
    /// All blobs, in an order of their own.
    pub blobs: Vec<Digest>,
}

impl Victims {
    /// Pulls them.
    pub fn in_sandbox(sandbox: Sandbox) -> Victims {
        let scene = Scene::in_sandbox(sandbox);
        let made = |n: usize| {
            let made = Recipe { layers: 100, layer_size: 1000 + 8 * n, platforms: vec![PLATFORM], ..Recipe::default() }.make();
            (scene.serve(&made, "demo/app", &format!("v{n}")), made)
        };
        let images: Vec<_> = (0..10).map(made).collect();
        let running: Vec<_> = images.iter().map(|(reference, _)| scene.start_pull(reference, &[])).collect();
        for pull in running {
            let output = pull.wait_with_output().expect("a child can be waited for");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let blobs: BTreeSet<_> = images.iter().flat_map(|(_, made)| made.blobs.keys().copied()).collect();
        let mut blobs: Vec<_> = blobs.into_iter().collect();
        Dice::new(1).shuffle(&mut blobs);
        assert!(blobs.len() > MANY, "{} blobs", blobs.len());
        scene.registry.forget();
        Victims { scene, images, blobs }
    }

    /// Damages so many blobs, in every way in turn. Tells after each what was done to which.
    pub fn damage(&self, many: usize, dice: &mut Dice, mut each: impl FnMut(Damaged, &[Digest])) -> BTreeSet<Digest> {
        let mut chosen = self.blobs.clone();
        dice.shuffle(&mut chosen);
        let mut left = chosen[..many].iter().copied();
        let mut bad = BTreeSet::new();
        for way in WAYS.iter().cycle() {
            let Some(first) = left.next() else { break };
            let other = if *way == Way::Swap { left.next() } else { None };
            // The last one has nobody to change places with.
            let way = if *way == Way::Swap && other.is_none() { Way::Flip } else { *way };
            let hit: Vec<_> = [Some(first), other].into_iter().flatten().collect();
            bad.extend(&hit);
            each(damage(dice, way, &self.scene.blob(&first), &self.scene.blob(&other.unwrap_or(first))), &hit);
        }
        bad
    }

    /// Damages so many blobs, one after the other, and sends an image that needs it out of the store each time; then the blob is put
    /// back. Says what left the store all the same, or was blamed on another blob.
    pub fn let_through(&self, many: usize, dice: &mut Dice) -> Vec<String> {
        let store = Store::open_existing(self.scene.sandbox.store()).expect("a store").expect("it is there");
        let images: Vec<_> = self.images.iter().map(|(reference, made)| (made, scene::stored(&store, reference))).collect();
        let mut wrong = Vec::new();
        self.damage(many, dice, |damaged, hit| {
            let bad: Vec<_> = damaged.files.iter().map(|(path, _)| fs::read(path).expect("a blob of ours")).collect();
            damaged.undo();
            // One at a time, so that each is blamed by name.
            for (blob, bad) in hit.iter().zip(&bad) {
                put(&self.scene.blob(blob), bad);
                let (_, image) = images.iter().find(|(made, _)| made.blobs.contains_key(blob)).expect("it is some image's");
                wrong.extend(sent_out(&store, image, blob).map(|what| format!("{:?} of {blob}: {what}", damaged.way)));
                damaged.undo();
            }
        });
        wrong
    }
}

/// Sends an image out of the store that is to be refused for this blob; what happened, if it was not.
fn sent_out(store: &Store, (image, name): &(Image, Name), blob: &Digest) -> Option<String> {
    let mut out = Vec::new();
    let archive = Archive::new(store, image, name, &Parts::all(Layers::AsStored)).map_err(Arc::new);
    let error = match archive.and_then(|archive| archive.write_to(&mut out)) {
        Ok(()) => return Some("it left the store".to_owned()),
        Err(error) => error,
    };
    if !matches!(&*error, ArchiveError::Store(StoreError::Damaged { found, .. }) if found.expected == *blob) {
        return Some(format!("{error:?}"));
    }
    out.windows(13).any(|w| w == b"manifest.json").then(|| "half an archive names the image".to_owned())
}

/// Chooses at random, and the same on every run.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// A die that falls as this number decides.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below this one.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    /// Brings these into another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for n in (1..all.len()).rev() {
            all.swap(n, self.below(n + 1));
        }
    }
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One bit is another.
    Flip,
    /// The end is gone, perhaps all of it.
    Truncate,
    /// Something stands after the end.
    Extend,
    /// A stretch is zero, as a sector that was never written.
    Zero,
    /// Two files have each other's content.
    Swap,
}

/// Every way.
pub const WAYS: [Way; 5] = [Way::Flip, Way::Truncate, Way::Extend, Way::Zero, Way::Swap];

/// Files as they were, to be put back.
#[derive(Debug)]
pub struct Damaged {
    /// How it was done.
    pub way: Way,
    /// The files, with what was in them.
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

impl Damaged {
    /// Writes the files as they were.
    pub fn undo(&self) {
        for (path, bytes) in &self.files {
            put(path, bytes);
        }
    }
}

/// Damages a file, and with [`Way::Swap`] the other one too. Their times stay as they were: nothing shows but the content.
pub fn damage(dice: &mut Dice, way: Way, path: &Path, other: &Path) -> Damaged {
    let before = fs::read(path).expect("a blob can be read");
    if way == Way::Swap {
        let theirs = fs::read(other).expect("a blob can be read");
        put(path, &theirs);
        put(other, &before);
        return Damaged { way, files: vec![(path.to_owned(), before), (other.to_owned(), theirs)] };
    }
    let mut bytes = before.clone();
    // Zeros over zeros are no damage.
    while bytes == before {
        spoil(dice, way, &mut bytes);
    }
    put(path, &bytes);
    Damaged { way, files: vec![(path.to_owned(), before)] }
}

fn spoil(dice: &mut Dice, way: Way, bytes: &mut Vec<u8>) {
    let at = dice.below(bytes.len());
    match way {
        Way::Flip => bytes[at] ^= 1 << dice.below(8),
        Way::Truncate => bytes.truncate(at),
        Way::Extend => bytes.extend((0..=dice.below(600)).map(|n| n as u8)),
        Way::Zero => {
            let end = bytes.len().min(at + 1 + dice.below(512));
            bytes[at..end].fill(0);
        }
        Way::Swap => unreachable!("two files are swapped as they are"),
    }
}

/// Writes what a blob's file is to hold; its time stays as it was.
pub fn put(path: &Path, bytes: &[u8]) {
    let times =
        fs::metadata(path).ok().and_then(|m| Some(FileTimes::new().set_modified(m.modified().ok()?).set_accessed(m.accessed().ok()?)));
    if path.exists() {
        fs::set_permissions(path, Permissions::from_mode(0o644)).expect("a blob of ours");
    }
    fs::write(path, bytes).expect("a blob of ours");
    if let Some(times) = times {
        File::options().write(true).open(path).and_then(|file| file.set_times(times)).expect("a blob of ours");
    }
    fs::set_permissions(path, Permissions::from_mode(0o444)).expect("a blob of ours");
}

/// What `verify` found of the damage, and what `verify --repair` made of it.
#[derive(Debug, Default)]
pub struct Judged {
    /// How many damaged blobs were found.
    pub found: usize,
    /// How many are right again.
    pub mended: usize,
    /// How many requests there were for what was bad.
    pub asked: usize,
    /// How many requests there were for anything else.
    pub asked_besides: usize,
    /// What was not as it should be.
    pub wrong: Vec<String>,
}

impl Victims {
    /// Damages so many blobs at once, lets `verify` find them if it is to, and `verify --repair` mend them.
    pub fn find_and_mend(&self, many: usize, dice: &mut Dice, find_first: bool) -> Judged {
        let bad = self.damage(many, dice, |_, _| {});
        let mut judged = Judged::default();
        if find_first {
            let verified = self.scene.sandbox.run(["verify", "--json"]);
            judged.found = faults(&verified, "damaged", &bad, &mut judged.wrong);
            judged.expect(&verified, 4);
        }
        self.scene.registry.forget();
        let repaired = self.scene.sandbox.run(["verify", "--repair", "--json"]);
        let status = if find_first { "missing" } else { "damaged" };
        let named = faults(&repaired, status, &bad, &mut judged.wrong);
        if !find_first {
            judged.found = named;
        }
        judged.expect(&repaired, 0);
        judged.asked = bad.iter().map(|blob| self.scene.gets(blob)).sum();
        judged.asked_besides = self.scene.registry.seen().len() - judged.asked;
        let right = |blob: &&Digest| fs::read(self.scene.blob(blob)).is_ok_and(|bytes| Digest::of(&bytes) == **blob);
        judged.mended = bad.iter().filter(right).count();
        judged.expect(&self.scene.sandbox.run(["verify"]), 0);
        judged
    }
}

impl Judged {
    fn expect(&mut self, output: &Output, code: i32) {
        if output.code != Some(code) {
            self.wrong.push(format!("exit code {code} was expected from\n{output}"));
        }
    }
}

/// How many of these blobs are told as faults of this kind; anything else that is told as one is wrong.
fn faults(output: &Output, status: &str, bad: &BTreeSet<Digest>, wrong: &mut Vec<String>) -> usize {
    let told: Vec<_> = output.json().into_iter().filter(|object| object["fault"] == true).collect();
    let digest = |object: &Value| object["digest"].as_str()?.parse().ok();
    let (right, others): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|object| object["status"] == status && digest(object).is_some_and(|d| bad.contains(&d)));
    wrong.extend(others.iter().map(ToString::to_string));
    right.iter().filter_map(digest).collect::<BTreeSet<_>>().len()
}
