//! Deliberate faults, so that the experiments of `cargo xtask torture` can be seen to notice them.
//!
//! Compiled only with the feature `sabotage`, which no release has. One fault at most is chosen, once, for the whole process.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

use super::error::{Result, reading};
use super::hash;
use crate::digest::Hasher;
use crate::oci::Descriptor;

/// What a store can be made to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Files are named without having been brought to the disk.
    NoFileSync,
    /// Names are not brought to the disk.
    NoFolderSync,
    /// What comes in is named without having been compared with its digest.
    NoHash,
    /// A blob that is there is taken for valid, and leaves unhashed.
    ExistsIsValid,
    /// Pins are written without their lock.
    NoPinLock,
}

static CHOSEN: OnceLock<Fault> = OnceLock::new();

/// Chooses the fault by its name; `None` if there is no such fault. The first choice stands.
pub fn choose(name: &str) -> Option<Fault> {
    let fault = match name {
        "no-file-sync" => Fault::NoFileSync,
        "no-folder-sync" => Fault::NoFolderSync,
        "no-hash" => Fault::NoHash,
        "exists-is-valid" => Fault::ExistsIsValid,
        "no-pin-lock" => Fault::NoPinLock,
        _ => return None,
    };
    Some(*CHOSEN.get_or_init(|| fault))
}

/// Whether this fault was chosen.
pub(super) fn is(fault: Fault) -> bool {
    CHOSEN.get() == Some(&fault)
}

/// What is expected of a blob that leaves: whatever is there, if that is the fault.
pub(super) fn expected(blob: &Descriptor, path: &Path) -> Result<Descriptor> {
    let mut expected = blob.clone();
    if is(Fault::ExistsIsValid) {
        let mut hasher = Hasher::by(blob.digest.algorithm());
        let hashed = File::open(path).and_then(|mut file| hash(&mut file, &mut hasher));
        hashed.map_err(reading("reading", path))?;
        (expected.digest, expected.size) = hasher.finish();
    }
    Ok(expected)
}
