//! Which paths an archive has: a mark for each, whatever its length.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::split;

/// What the archive says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It has an entry, and is a folder.
    Folder,
    /// It has an entry, and is a symbolic link.
    Link,
    /// It has an entry, and is something else.
    Leaf,
    /// It has no entry, but something in it has.
    Implied,
}

/// Two hashes under keys of this run's own: nobody can make two paths that have both.
type Key = (u64, u64);

/// The paths of an archive.
#[derive(Default)]
pub(super) struct Marks {
    keys: (RandomState, RandomState),
    marks: HashMap<Key, Mark>,
    opaque: HashSet<Key>,
    gone: HashSet<Key>,
}

impl Marks {
    fn key(&self, path: &[u8]) -> Key {
        (self.keys.0.hash_one(path), self.keys.1.hash_one(path))
    }

    /// Marks a path and the folders above it; returns the mark of an earlier entry for it.
    pub(super) fn put(&mut self, path: &[u8], mark: Mark) -> Option<Mark> {
        self.imply(path);
        self.marks.insert(self.key(path), mark).filter(|before| *before != Mark::Implied)
    }

    pub(super) fn of(&self, path: &[u8]) -> Option<Mark> {
        self.marks.get(&self.key(path)).copied()
    }

    /// Marks a folder that hides what is below it.
    pub(super) fn opaque(&mut self, path: &[u8]) {
        self.imply(path);
        let key = self.key(path);
        self.marks.entry(key).or_insert(Mark::Implied);
        self.opaque.insert(key);
    }

    pub(super) fn is_opaque(&self, path: &[u8]) -> bool {
        self.opaque.contains(&self.key(path))
    }

    /// Marks a folder that is not there.
    pub(super) fn gone(&mut self, path: &[u8]) {
        self.gone.insert(self.key(path));
    }

    pub(super) fn is_gone(&self, path: &[u8]) -> bool {
        self.gone.contains(&self.key(path))
    }

    fn imply(&mut self, path: &[u8]) {
        let mut folder = split(path).0;
        while !folder.is_empty() {
            let key = self.key(folder);
            if self.marks.contains_key(&key) {
                return;
            }
            self.marks.insert(key, Mark::Implied);
            folder = split(folder).0;
        }
    }
}
