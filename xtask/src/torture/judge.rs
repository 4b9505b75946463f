//! Looks at a store from outside: none of larder's code but the digest, so that what judges is not what is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use larder::digest::Digest;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::run::{Message, Result, fail};

/// An image that was acknowledged: under this name there is to be one of these roots, whole.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) roots: Vec<Digest>,
}

/// What is wrong in a store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged images that are not there, or not whole.
    pub(super) lost: Vec<String>,
    /// What may never be, whatever happened: content that is not what its name says, pins that cannot be read or met.
    pub(super) bad: Vec<String>,
}

/// A store as it lies on the disk.
pub(super) struct Seen {
    root: PathBuf,
    /// Every file under `blobs/`, with what it hashes to.
    blobs: BTreeMap<String, (Digest, u64)>,
    /// Every pin's file: what it says, or why it cannot be read.
    pins: BTreeMap<PathBuf, Result<Value>>,
}

impl Seen {
    /// Reads all of it. A folder in which nothing was made yet is an empty store.
    pub(super) fn of(root: &Path) -> Result<Seen> {
        let mut seen = Seen { root: root.to_owned(), blobs: BTreeMap::new(), pins: BTreeMap::new() };
        for path in files(&root.join("blobs"))? {
            let bytes = fs::read(&path)?;
            let name = path.strip_prefix(root)?.display().to_string();
            seen.blobs.insert(name, (Digest::of(&bytes), bytes.len() as u64));
        }
        for path in files(&root.join("pins"))? {
            let pin = fs::read(&path).map_err(Into::into).and_then(|bytes| pin(&bytes));
            seen.pins.insert(path, pin);
        }
        Ok(seen)
    }

    /// Whether all that was acknowledged is there, and nothing is wrong.
    pub(super) fn judge(&self, acknowledged: &[Held]) -> Findings {
        let mut found = Findings::default();
        for (name, (digest, _)) in &self.blobs {
            if *name != format!("blobs/sha256/{}", digest.hex()) {
                found.bad.push(format!("{name} hashes to {digest}"));
            }
        }
        let mut held: BTreeSet<(&str, &str)> = BTreeSet::new();
        for (path, pin) in &self.pins {
            match pin.as_ref().map_err(ToString::to_string).and_then(|pin| self.needs(pin).map_err(|e| e.to_string()).map(|_| pin)) {
                Ok(pin) => drop(held.insert((text(&pin["name"]), text(&pin["root"]["digest"])))),
                Err(e) => found.bad.push(format!("{}: {e}", path.display())),
            }
        }
        for image in acknowledged {
            if !image.roots.iter().any(|root| held.contains(&(image.name.as_str(), root.to_string().as_str()))) {
                found.lost.push(format!("{} is not there whole", image.name));
            }
        }
        found
    }

    /// What no pin needs: blobs, and files outside of their place.
    pub(super) fn leftovers(&self) -> Result<Vec<String>> {
        let mut needed = BTreeSet::new();
        for pin in self.pins.values().flatten() {
            needed.extend(self.needs(pin)?.into_iter().map(|digest| format!("blobs/sha256/{}", digest.hex())));
        }
        let unneeded = self.blobs.keys().filter(|name| !needed.contains(*name)).cloned();
        let files = [files(&self.root.join("ingest"))?, files(&self.root.join("damaged"))?].concat();
        Ok(unneeded.chain(files.into_iter().map(|path| path.display().to_string())).collect())
    }

    /// Whether `index.json` names what the pins do, and nothing else.
    pub(super) fn index_is_right(&self) -> bool {
        let index = fs::read(self.root.join("index.json")).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(entries) = index.as_ref().and_then(|index| index["manifests"].as_array()) else { return false };
        // An older root of a name bears the name with its digest.
        let bare = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
        let named =
            |entry: &Value| (bare(text(&entry["annotations"]["org.opencontainers.image.ref.name"])), text(&entry["digest"]).to_owned());
        let pinned = |pin: &Value| (text(&pin["name"]).to_owned(), text(&pin["root"]["digest"]).to_owned());
        let named: BTreeSet<_> = entries.iter().map(named).collect();
        named == self.pins.values().flatten().map(pinned).collect()
    }

    /// Whether a pin has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.pins.values().flatten().any(|pin| text(&pin["name"]) == name)
    }

    /// How many pins there are.
    pub(super) fn pins(&self) -> usize {
        self.pins.len()
    }

    /// Every blob that a pin needs, all of them there and right.
    fn needs(&self, pin: &Value) -> Result<Vec<Digest>> {
        let mut needed: Vec<Value> = ["root", "manifest", "config"].map(|part| pin[part].clone()).into();
        let manifest = self.whole(&pin["manifest"])?;
        let manifest: Value = serde_json::from_slice(&fs::read(self.root.join(format!("blobs/sha256/{}", manifest.hex())))?)?;
        needed.extend(manifest["layers"].as_array().cloned().unwrap_or_default());
        needed.iter().map(|descriptor| self.whole(descriptor)).collect()
    }

    fn whole(&self, descriptor: &Value) -> Result<Digest> {
        let digest: Digest = text(&descriptor["digest"]).parse()?;
        match self.blobs.get(&format!("blobs/sha256/{}", digest.hex())) {
            Some((found, size)) if *found == digest && Some(*size) == descriptor["size"].as_u64() => Ok(digest),
            Some(_) => Err(Message(format!("{digest} is damaged")).into()),
            None => Err(Message(format!("{digest} is missing")).into()),
        }
    }
}

/// What a pin's file says, if it has the digest that stands in it.
fn pin(bytes: &[u8]) -> Result<Value> {
    let parts: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes)?;
    let part = |name: &str| parts.get(name).map(|part| part.get()).ok_or_else(|| Message(format!("it has no `{name}`")));
    let (check, pin) = (part("check")?, part("pin")?);
    if check.trim_matches('"') != Digest::of(pin.as_bytes()).to_string() {
        return fail(format!("it does not have the digest {check} that it names"));
    }
    Ok(serde_json::from_str(pin)?)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Every file below a folder, in order; none if there is no such folder.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}
