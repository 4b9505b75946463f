//! `index.json`, for other tools that read OCI layouts.
//!
//! Owns that file, and `index.todo` and `index.current` beside it. It is derived from the pins and larder never believes it: only its lines are carried over from one change to the
//! next, so that adding an image does not cost a look at all others. Always true: it is replaced whole, by whoever has `index.lock`. Where
//! `index.current` names this run of the system, the index has all pins but those of the names in `index.todo`; a name is written there before its pins
//! change, and taken out when the index has them. So neither a killed process nor a power cut leaves an index that is believed and wrong.
//! Whoever is next to have the lock writes what all have noted until then: many who pull at once share few writings.
//!
//! The newest root of a name bears it; an older one bears the name with its digest, so that nothing looks unnamed to others.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::error::{Result, writing};
use super::lock::{self, Hold};
use super::{Store, disk};
use crate::oci::Descriptor;
use crate::pin::Pin;
use crate::reference::Name;

const HEAD: &str = "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[\n";
const TAIL: &str = "\n]}\n";

/// The name in an OCI layout, for podman and skopeo.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The name of an image, for docker and containerd.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// More than this is nothing that larder wrote.
const LIMIT: u64 = 256 << 20;

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    root: &'a Descriptor,
    annotations: BTreeMap<&'static str, &'a str>,
}

impl Store {
    /// Notes that the pins of this name are about to change. Called by whoever has the pins locked; when it has changed them,
    /// [`catch_up`](Store::catch_up) is called.
    pub(super) fn note_change(&self, name: &Name) -> Result<()> {
        // A line of its own also behind one that was cut off.
        disk::append(&self.todo(), format!("\n{name}\n").as_bytes())
    }

    /// Brings the index up to the changes that were noted, unless another did so meanwhile.
    pub(super) fn catch_up(&self) -> Result<()> {
        let _one_at_a_time = lock::lock_path(&self.index_lock(), Hold::Alone, &self.patience())?;
        self.do_what_is_to_do()
    }

    /// Brings the index up to the pins if a run that was cut off left it behind. As well as the store lets it: the pins are the truth.
    pub fn mend_index(&self) {
        let mend = || {
            if !self.index_is_current()? || disk::size(&self.todo())?.is_some() {
                // Whoever has it is at it.
                let _one_at_a_time = lock::lock_path(&self.index_lock(), Hold::Alone, &self.patience().at_most(Duration::ZERO))?;
                self.do_what_is_to_do()?;
            }
            Ok::<(), super::StoreError>(())
        };
        let _ = mend();
    }

    /// Locks the pins for a change of any of them, after which the index is derived anew: by whoever is next to look at it, if not by the caller.
    pub(super) fn lock_all_pins(&self) -> Result<[File; 2]> {
        let index = lock::lock_path(&self.index_lock(), Hold::Alone, &self.patience())?;
        let pins = self.lock_pins()?;
        // Nothing is allocated for this, so that it works on a disk that is full.
        disk::remove(&self.current())?;
        Ok([index, pins])
    }

    /// Writes the index anew from the pins, which are all. The caller has them locked.
    pub(super) fn derive_index(&self, pins: Vec<Pin>) -> Result<()> {
        self.write_all(pins)?;
        disk::remove(&self.todo())
    }

    fn do_what_is_to_do(&self) -> Result<()> {
        let current = self.index_is_current()?;
        if current && disk::size(&self.todo())?.is_none() {
            return Ok(());
        }
        let todo = {
            // Who noted a name keeps the pins locked until it has changed them: those of all names that are read here are as they are to be.
            let _settled = self.lock_pins()?;
            disk::read(&self.todo(), LIMIT)?.unwrap_or_default()
        };
        match names(&todo).filter(|_| current) {
            Some(names) => self.carry_over(&names)?,
            None => self.write_all(self.pins()?)?,
        }
        let _nobody_notes = self.lock_pins()?;
        match disk::read(&self.todo(), LIMIT)?.as_deref().and_then(|all| all.strip_prefix(&todo[..])) {
            Some([]) => disk::remove(&self.todo()),
            Some(rest) => disk::replace_derived(&self.scratch(), &self.todo(), rest),
            // Not what was read before, so it is read once more by whoever is next.
            None => Ok(()),
        }
    }

    /// Looks at the pins of these names, and carries the lines of all others over; if there are none that larder wrote, all is derived anew.
    fn carry_over(&self, names: &HashSet<Name>) -> Result<()> {
        let old = disk::read(&self.index(), LIMIT)?.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(lines) = old.as_deref().and_then(|text| text.strip_prefix(HEAD)?.strip_suffix(TAIL)) else {
            return self.write_all(self.pins()?);
        };
        let own = names.iter().map(|name| lines_of(&self.find(&name.to_reference(), None)?)).collect::<Result<Vec<_>>>()?;
        let names: HashSet<String> = names.iter().map(Name::to_string).collect();
        let others = lines.split(",\n").filter(|line| !line.is_empty() && !names.contains(name_in(line)));
        self.write_index(&others.chain(own.iter().flatten().map(String::as_str)).collect::<Vec<_>>())
    }

    fn index_is_current(&self) -> Result<bool> {
        let written_in = disk::read(&self.current(), 64)?;
        Ok(written_in.is_some() && written_in == disk::run_of_the_system())
    }

    fn write_all(&self, pins: Vec<Pin>) -> Result<()> {
        self.write_index(&lines_of_all(pins)?)
    }

    /// Not brought to the disk: after a power cut it is not believed, and the next run derives it anew.
    fn write_index<L: Borrow<str>>(&self, lines: &[L]) -> Result<()> {
        let text = [HEAD, &lines.join(",\n"), TAIL].concat();
        disk::replace_derived(&self.scratch(), &self.index(), text.as_bytes())?;
        match disk::run_of_the_system() {
            Some(run) => disk::note(&self.current(), &run),
            None => Ok(()),
        }
    }

    fn index(&self) -> PathBuf {
        self.root().join("index.json")
    }

    fn current(&self) -> PathBuf {
        self.root().join("index.current")
    }

    fn todo(&self) -> PathBuf {
        self.root().join("index.todo")
    }

    fn index_lock(&self) -> PathBuf {
        self.root().join("index.lock")
    }
}

/// The names that were noted; `None` if one is none.
fn names(todo: &[u8]) -> Option<HashSet<Name>> {
    let lines = str::from_utf8(todo).ok()?.lines();
    lines.filter(|line| !line.is_empty()).map(|name| name.parse().ok()).collect()
}

/// The lines of all pins, in the order of their names.
fn lines_of_all(mut pins: Vec<Pin>) -> Result<Vec<String>> {
    super::pins::newest_first(&mut pins);
    let mut by_name: BTreeMap<Name, Vec<Pin>> = BTreeMap::new();
    for pin in pins {
        by_name.entry(pin.name.clone()).or_default().push(pin);
    }
    let lines = by_name.values().map(|pins| lines_of(pins)).collect::<Result<Vec<_>>>()?;
    Ok(lines.into_iter().flatten().collect())
}

/// One line for every root of a name, the newest first.
fn lines_of(pins: &[Pin]) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let roots = pins.iter().filter(|pin| seen.insert(pin.root.digest));
    roots.enumerate().map(|(age, pin)| line(pin, age > 0)).collect()
}

fn line(pin: &Pin, older: bool) -> Result<String> {
    let name = if older { pin.name.pinned_to(pin.root.digest).to_string() } else { pin.name.to_string() };
    let annotations = [(REF_NAME, name.as_str()), (IMAGE_NAME, name.as_str())].into();
    serde_json::to_string(&Entry { root: &pin.root, annotations }).map_err(|e| writing("writing", "index.json".as_ref())(e.into()))
}

/// The name that a line of ours is for, with or without a digest; nothing in a line that is none of ours.
fn name_in(line: &str) -> &str {
    let after = line.split_once(REF_NAME).and_then(|(_, after)| after.strip_prefix("\":\"")).unwrap_or_default();
    &after[..after.find(['"', '@']).unwrap_or(0)]
}
