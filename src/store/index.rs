//! `index.json`, for other tools that read OCI layouts.
//!
//! Owns that file, and `index.current`. It is derived from the pins and larder never believes it: only its lines are carried over from one change to the
//! next, so that adding an image does not cost a look at all others. Always true: it is replaced whole, by whoever has `pins.lock`. A change
//! begins by removing `index.current` and ends by writing it; it names the run of the system that it was written in, so that neither a killed process nor a
//! power cut leaves one that is believed. Where it is missing or of another run, or the text is not as larder writes it, all is derived anew.
//!
//! The newest root of a name bears it; an older one bears the name with its digest, so that nothing looks unnamed to others.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde::Serialize;

use super::error::{Result, writing};
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

/// More than this is no index that larder wrote.
const LIMIT: u64 = 256 << 20;

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    root: &'a Descriptor,
    annotations: BTreeMap<&'static str, &'a str>,
}

/// Whether the lines that are there may be carried over.
pub(super) struct Change {
    current: bool,
}

impl Store {
    /// Called before a pin is written or removed, by whoever has the pins locked.
    pub(super) fn index_begins_to_change(&self) -> Result<Change> {
        let current = self.index_is_current()?;
        // Nothing is allocated for this, so that it works on a disk that is full.
        disk::remove(&self.current())?;
        Ok(Change { current })
    }

    /// Derives the index anew if a run that was cut off left it behind the pins. As well as the store lets it: the pins are the truth.
    pub fn mend_index(&self) {
        let mend = || {
            if !self.index_is_current()? {
                let _one_at_a_time = self.lock_pins()?;
                self.derive_index(self.pins()?)?;
            }
            Ok::<(), super::StoreError>(())
        };
        let _ = mend();
    }

    fn index_is_current(&self) -> Result<bool> {
        let written_in = disk::read(&self.current(), 64)?;
        Ok(written_in.is_some() && written_in == disk::run_of_the_system())
    }

    /// Called after the pins of one name were changed; these are now all of them, newest first.
    pub(super) fn index_changed(&self, change: Change, same_name: &[Pin]) -> Result<()> {
        let Some(first) = same_name.first() else { return self.derive_index(self.pins()?) };
        let old = if change.current { disk::read(&self.index(), LIMIT)? } else { None };
        let old = old.and_then(|bytes| String::from_utf8(bytes).ok());
        let carried = old.as_deref().and_then(|text| text.strip_prefix(HEAD)?.strip_suffix(TAIL));
        match carried {
            Some(lines) => {
                let (is_of_name, own) = (lines_about(&first.name), lines_of(same_name)?);
                let others = lines.split(",\n").filter(|line| !line.is_empty() && !is_of_name(line));
                self.write_index(&others.chain(own.iter().map(String::as_str)).collect::<Vec<_>>())
            }
            None => self.derive_index(self.pins()?),
        }
    }

    /// Writes it anew from the pins, which are all.
    pub(super) fn derive_index(&self, mut pins: Vec<Pin>) -> Result<()> {
        super::pins::newest_first(&mut pins);
        let mut by_name: BTreeMap<Name, Vec<Pin>> = BTreeMap::new();
        for pin in pins {
            by_name.entry(pin.name.clone()).or_default().push(pin);
        }
        let lines = by_name.values().map(|pins| lines_of(pins)).collect::<Result<Vec<_>>>()?;
        self.write_index(&lines.iter().flatten().map(String::as_str).collect::<Vec<_>>())
    }

    /// Not brought to the disk: after a power cut it is not believed, and the next run derives it anew.
    fn write_index(&self, lines: &[&str]) -> Result<()> {
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

/// Whether a line of ours is for this name, with or without a digest.
fn lines_about(name: &Name) -> impl Fn(&str) -> bool {
    let named = format!("\"{REF_NAME}\":\"{name}");
    move |line| line.split_once(&named).is_some_and(|(_, after)| after.starts_with(['"', '@']))
}
