//! Files of images into the store: what is proved, what is refused, and what is left when something is.

mod held;
mod hostile;
mod proof;
mod random;
mod real;

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use larder::event;
use larder::import::{ImportError, Imported, Source, Wish};
use larder::pull::Cache;
use larder::store::Store;

/// Imports an archive with the library alone, offline.
fn import(store: &Store, archive: Vec<u8>, wish: &Wish) -> Result<Vec<Imported>, ImportError> {
    let cache = Cache { store, upstream: None, tell: &event::silent };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(cache.import(Source::Stream(Box::new(Cursor::new(archive))), wish))
}

/// All that lies under a folder, with sizes.
fn everything(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            if meta.is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path(), if meta.is_dir() { 0 } else { meta.len() });
        }
    }
    found
}
