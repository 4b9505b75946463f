//! What was found wrong, put together for a report: one problem for each blob or file, with the images that it concerns.

use std::collections::BTreeMap;
use std::path::PathBuf;

use larder::digest::{Digest, Mismatch};
use larder::oci::{Descriptor, Platform};
use larder::pin::Pin;
use larder::reference::Reference;
use larder::store::{Finding, Store, StoreError, Whereabouts};
use serde_json::{Value, json};

use crate::cli::display;
use crate::cli::failure::{Exit, Failure};

/// Something that was found.
pub(super) struct Problem {
    pub(super) fault: Fault,
    /// The images that need the blob.
    images: Vec<Pin>,
    pub(super) bytes: u64,
    pub(super) mended: bool,
    /// Why it could not be mended.
    pub(super) failed: Option<Failure>,
    /// Whether the store failed meanwhile, so that what is there may not have reached the disk.
    unsettled: bool,
}

pub(super) enum Fault {
    Damaged { found: Mismatch, now: Whereabouts },
    Missing { blob: Descriptor },
    Unreadable { digest: Digest, error: StoreError },
    BadPin { path: PathBuf, error: StoreError, meant: Option<(Reference, Platform)> },
    Foreign { path: PathBuf },
    Leftover { path: PathBuf },
    Unreferenced { digest: Digest },
    SetAside { path: PathBuf },
}

/// One problem for each blob: one that is damaged is missing too, once it was moved away, and may be missed by several images.
pub(super) fn put_together(findings: Vec<Finding>, store: &Store, pins: &[Pin]) -> Vec<Problem> {
    let mut of_blobs: BTreeMap<Digest, Problem> = BTreeMap::new();
    let mut others = Vec::new();
    // Damage was found before it was missed.
    for finding in findings {
        match finding {
            Finding::Damaged { found, now } => {
                let (digest, bytes) = (found.expected, found.found_size);
                of_blobs.insert(digest, Problem::of(Fault::Damaged { found, now }, needing(pins, &digest), bytes));
            }
            Finding::Unreadable { digest, error } => {
                of_blobs.insert(digest, Problem::of(Fault::Unreadable { digest, error }, needing(pins, &digest), 0));
            }
            Finding::Missing { blob, .. } => {
                let bytes = blob.size;
                let images = needing(pins, &blob.digest);
                of_blobs.entry(blob.digest).or_insert_with(|| Problem::of(Fault::Missing { blob }, images, bytes));
            }
            Finding::BadPin { path, error } => {
                let meant = store.meant_by(&path);
                others.push(Problem::of(Fault::BadPin { path, error, meant }, Vec::new(), 0));
            }
            Finding::Foreign { path } => others.push(Problem::of(Fault::Foreign { path }, Vec::new(), 0)),
            Finding::Leftover { path, bytes } => others.push(Problem::of(Fault::Leftover { path }, Vec::new(), bytes)),
            Finding::Unreferenced { digest, bytes } => others.push(Problem::of(Fault::Unreferenced { digest }, Vec::new(), bytes)),
            Finding::SetAside { path, bytes } => others.push(Problem::of(Fault::SetAside { path }, Vec::new(), bytes)),
            // What a later library finds is not known here.
            _ => {}
        }
    }
    // What was set aside just now is told with the blob.
    let just_now: Vec<PathBuf> = of_blobs.values().filter_map(|problem| problem.aside().cloned()).collect();
    others.retain(|other| !matches!(&other.fault, Fault::SetAside { path } if just_now.contains(path)));
    of_blobs.into_values().chain(others).collect()
}

fn needing(pins: &[Pin], digest: &Digest) -> Vec<Pin> {
    pins.iter().filter(|pin| pin.blobs().iter().any(|blob| blob.digest == *digest)).cloned().collect()
}

impl Problem {
    fn of(fault: Fault, images: Vec<Pin>, bytes: u64) -> Problem {
        Problem { fault, images, bytes, mended: false, failed: None, unsettled: false }
    }

    fn aside(&self) -> Option<&PathBuf> {
        match &self.fault {
            Fault::Damaged { now: Whereabouts::Aside(path), .. } => Some(path),
            _ => None,
        }
    }

    /// Whether something is wrong; else it only lies about.
    pub(super) fn is_a_fault(&self) -> bool {
        matches!(self.fault, Fault::Damaged { .. } | Fault::Missing { .. } | Fault::Unreadable { .. } | Fault::BadPin { .. })
    }

    /// Whether it concerns this image.
    pub(super) fn is_of(&self, pin: &Pin) -> bool {
        self.images.contains(pin)
    }

    /// Notes why an image that it concerns could not be mended.
    pub(super) fn failed_with(&mut self, failure: &Failure, unsettled: bool) {
        self.failed = Some(failure.clone());
        self.unsettled |= unsettled;
    }

    fn digest(&self) -> Option<&Digest> {
        match &self.fault {
            Fault::Damaged { found, .. } => Some(&found.expected),
            Fault::Missing { blob } => Some(&blob.digest),
            Fault::Unreadable { digest, .. } | Fault::Unreferenced { digest } => Some(digest),
            _ => None,
        }
    }

    /// Looks whether the blob is there by now. A damaged one that no image needs is dealt with when it is out of the way.
    pub(super) fn look_again(&mut self, store: &Store) {
        let moved = !matches!(self.fault, Fault::Damaged { now: Whereabouts::InPlace(_), .. });
        let Some(digest) = self.digest().filter(|_| self.is_a_fault() && moved) else { return };
        let needed = self.images.iter().flat_map(Pin::blobs).find(|blob| blob.digest == *digest);
        self.mended = !self.unsettled && needed.is_none_or(|blob| store.has(blob));
        if self.mended {
            self.failed = None;
        }
    }

    pub(super) fn exit(&self) -> Exit {
        let unmended = match self.fault {
            _ if self.mended => return Exit::Done,
            Fault::Damaged { .. } => Exit::NotPinned,
            Fault::Missing { .. } => Exit::NotThere,
            Fault::Unreadable { .. } | Fault::BadPin { .. } => Exit::Failed,
            _ => return Exit::Done,
        };
        self.failed.as_ref().map_or(unmended, |failure| unmended.max(failure.exit))
    }

    fn status(&self) -> &'static str {
        match self.fault {
            Fault::Damaged { .. } => "damaged",
            Fault::Missing { .. } => "missing",
            Fault::Unreadable { .. } => "unreadable",
            Fault::BadPin { .. } => "bad-pin",
            Fault::Foreign { .. } => "foreign",
            Fault::Leftover { .. } => "leftover",
            Fault::Unreferenced { .. } => "unreferenced",
            Fault::SetAside { .. } => "set-aside",
        }
    }

    fn path(&self) -> Option<&PathBuf> {
        match &self.fault {
            Fault::Damaged { now: Whereabouts::Aside(path) | Whereabouts::InPlace(path), .. } => Some(path),
            Fault::BadPin { path, .. } | Fault::Foreign { path } | Fault::Leftover { path } | Fault::SetAside { path } => Some(path),
            _ => None,
        }
    }

    /// What scripts call it: its digest, or its file.
    pub(super) fn name(&self) -> String {
        let path = || self.path().map(|path| path.display().to_string());
        self.digest().map(ToString::to_string).or_else(path).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        let mut text = match &self.fault {
            Fault::Damaged { .. } => format!("damaged blob {}", self.name()),
            Fault::Missing { blob } => format!("missing blob, {}: {}", display::size(blob.size), blob.digest),
            Fault::Unreadable { digest, .. } => format!("unreadable blob {digest}"),
            Fault::BadPin { path, .. } => format!("a pin that cannot be read: {}", path.display()),
            Fault::Foreign { path } => format!("not larder's: {}", path.display()),
            Fault::Leftover { path } => format!("left by an interrupted run, {}: {}", display::size(self.bytes), path.display()),
            Fault::Unreferenced { digest } => format!("needed by no image, {}: {digest}", display::size(self.bytes)),
            Fault::SetAside { path } => format!("set aside as damaged, {}: {}", display::size(self.bytes), path.display()),
        };
        let mut line = |label: &str, value: &str| text.push_str(&format!("\n  {label:10} {value}"));
        match &self.fault {
            Fault::Damaged { found, now } => {
                line("found:", &format!("{}  {} bytes", found.found, found.found_size));
                match now {
                    Whereabouts::Aside(path) => line("moved to:", &path.display().to_string()),
                    Whereabouts::InPlace(path) => line("still at:", &path.display().to_string()),
                }
            }
            Fault::Unreadable { error, .. } | Fault::BadPin { error, .. } => line("because:", &Failure::from(error).in_one_line()),
            _ => {}
        }
        for pin in &self.images {
            line("needed by:", &format!("{} for {}", pin.pinned(), pin.platform));
        }
        if self.is_a_fault() && self.images.is_empty() && self.digest().is_some() {
            line("needed by:", "no image");
        }
        match (&self.failed, self.mended) {
            (Some(failure), _) => line("not mended:", &failure.in_one_line()),
            (None, true) if self.images.is_empty() && self.digest().is_some() => {}
            (None, true) => line("mended:", "yes"),
            _ => {}
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let images: Vec<Value> = self.images.iter().map(|pin| json!({ "pinned": pin.pinned(), "platform": pin.platform })).collect();
        let found = match &self.fault {
            Fault::Damaged { found, .. } => json!({ "digest": found.found, "bytes": found.found_size }),
            _ => Value::Null,
        };
        let why = match &self.fault {
            Fault::Unreadable { error, .. } | Fault::BadPin { error, .. } => json!(Failure::from(error).in_one_line()),
            _ => Value::Null,
        };
        json!({
            "status": self.status(), "fault": self.is_a_fault(), "digest": self.digest(), "path": self.path(), "bytes": self.bytes,
            "found": found, "because": why, "images": images, "mended": self.mended, "error": self.failed.as_ref().map(Failure::json),
        })
    }
}
