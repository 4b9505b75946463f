//! The content of an archive's members, on its way into the store.
//!
//! Owns what is coming: one thread reads, hashes and writes, the others bring what came to the disk and unpack it. Always true: every byte was
//! hashed as it came; small texts stay in memory, of which there is a limit, all else is staged on the disk without a name, unless the store has
//! these very bytes already; a layer was unpacked and hashed before anything is made of it. When reading ends, for good or not, no thread is left.

use std::collections::{HashMap, HashSet};
use std::io::{self, Cursor, Read};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::blobs::{Blob, Blobs, Limits, Place, TEXTS};
use super::error::ImportError;
use super::tar::of_content;
use super::unpack::Unpacking;
use super::wrap::{self, Form};
use crate::digest::{Algorithm, Digest, Verified};
use crate::oci::DOCUMENT_LIMIT;
use crate::store::{Shared, Stage, Store, StoreError};

type Result<T> = std::result::Result<T, ImportError>;

/// The most threads that unpack. Each may need a window of zstd's.
const THREADS: usize = 4;
/// How many blobs wait to be unpacked at most. Each is an open file.
const WAITING: usize = 16;

/// What is coming.
pub(super) struct Intake<'a> {
    texts: HashMap<Digest, Verified>,
    bytes_of_texts: u64,
    handed_over: HashSet<Digest>,
    limits: Limits,
    store: &'a Store,
    counted_on: &'a Shared,
    jobs: SyncSender<Job>,
}

/// A blob that came and that nobody looked into yet.
struct Job {
    form: Form,
    stage: Stage,
}

/// Lets `read` take in what it reads, and gives what came, when all was looked into.
pub(super) fn taking_in<T>(
    store: &Store,
    counted_on: Shared,
    limits: Limits,
    read: impl FnOnce(&mut Intake<'_>) -> Result<T>,
) -> Result<(T, Blobs)> {
    let (jobs, waiting) = sync_channel(WAITING);
    let (waiting, stop) = (Mutex::new(waiting), AtomicBool::new(false));
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    let unpacking = Unpacking { limit: limits.unpacked, stop: &stop };
    let work = || work(store, &waiting, unpacking);
    let (done, came) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let (texts, handed_over) = (HashMap::new(), HashSet::new());
        let mut intake = Intake { texts, bytes_of_texts: 0, handed_over, limits, store, counted_on: &counted_on, jobs };
        let done = read(&mut intake);
        stop.store(done.is_err(), Ordering::Relaxed);
        let Intake { texts, jobs, .. } = intake;
        // The threads end when nothing more can come.
        drop(jobs);
        let mut came: Result<HashMap<Digest, Blob>> = Ok(texts.into_values().map(Blob::of_text).collect());
        for worker in workers {
            match (&mut came, worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))) {
                (Ok(came), Ok(more)) => {
                    for (digest, blob) in more {
                        came.entry(digest).or_insert(blob);
                    }
                }
                (Ok(_), Err(error)) => came = Err(error),
                (Err(_), _) => {}
            }
        }
        (done, came)
    });
    Ok((done?, Blobs::new(came?, limits, store, counted_on)))
}

impl Intake<'_> {
    /// Takes in a file of the archive, and gives its digest. A file that is named after its digest has to have it.
    pub(super) fn take(&mut self, path: &str, size: u64, mut content: impl Read) -> Result<Digest> {
        let named = digest_in(path)?;
        let start = wrap::beginning(&mut content, 512).map_err(reading)?;
        let is_text = TEXTS.contains(&path) || looks_like_json(&start);
        let whole = Cursor::new(&start).chain(content);
        let (found, size) = match size {
            size if is_text && size <= DOCUMENT_LIMIT => self.text(named, whole)?,
            size if TEXTS.contains(&path) => {
                return Err(ImportError::TextTooLarge { path: path.to_owned(), size, limit: DOCUMENT_LIMIT });
            }
            size => self.blob(named, size, Form::of(&start), whole)?,
        };
        match named {
            Some(expected) if expected != found => Err(ImportError::WrongBlob { expected, found, size }),
            _ => Ok(found),
        }
    }

    fn text(&mut self, named: Option<Digest>, mut content: impl Read) -> Result<(Digest, u64)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(reading)?;
        self.bytes_of_texts += bytes.len() as u64;
        if self.bytes_of_texts > self.limits.texts {
            return Err(ImportError::TooMuchText { limit: self.limits.texts });
        }
        let text = Verified::by(Algorithm::of(named), bytes);
        let hashed = (text.digest(), text.size());
        self.texts.entry(text.digest()).or_insert(text);
        Ok(hashed)
    }

    fn blob(&mut self, named: Option<Digest>, size: u64, form: Form, content: impl Read) -> Result<(Digest, u64)> {
        let mut stage = self.store.stage(named, size, self.counted_on)?;
        wrap::in_steps(content, reading, |step| Ok(stage.write(step)?))?;
        let (digest, size) = stage.hashed();
        if named.is_none_or(|named| named == digest) && self.handed_over.insert(digest) {
            // Whoever unpacks is there for as long as something may come.
            let _ = self.jobs.send(Job { form, stage });
        }
        Ok((digest, size))
    }

    /// A text that came; `None` if it did not, or is none.
    pub(super) fn text_of(&self, digest: &Digest) -> Option<&Verified> {
        self.texts.get(digest)
    }
}

/// Looks into one blob after the other, until no more can come.
fn work(store: &Store, waiting: &Mutex<Receiver<Job>>, unpacking: Unpacking<'_>) -> Result<Vec<(Digest, Blob)>> {
    let mut done = Ok(Vec::new());
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return done };
        // After a failure the rest is only taken, so that nobody waits.
        if let Ok(blobs) = &mut done
            && !unpacking.stop.load(Ordering::Relaxed)
        {
            match job.done(store, unpacking) {
                Ok(blob) => blobs.push(blob),
                Err(error) => done = Err(error),
            }
        }
    }
}

impl Job {
    fn done(self, store: &Store, unpacking: Unpacking<'_>) -> Result<(Digest, Blob)> {
        let staged = self.stage.finish()?;
        let (digest, size) = (staged.digest(), staged.size());
        let unpacked = unpacking.layer(staged.content()?, digest, self.form);
        let failed = |source| StoreError::Io { doing: "reading", path: store.root().to_owned(), source };
        let layer = unpacked.map_err(failed)?;
        Ok((digest, Blob { size, layer, place: Place::Staged(staged) }))
    }
}

fn reading(error: io::Error) -> ImportError {
    ImportError::Tar(of_content(error))
}

/// The digest that a file is named after, where readers go by that: `blobs/sha256/<hex>`.
fn digest_in(path: &str) -> Result<Option<Digest>> {
    let of = |algorithm: Algorithm| Some((algorithm, path.strip_prefix("blobs/")?.strip_prefix(algorithm.name())?.strip_prefix('/')?));
    let Some((algorithm, hex)) = Algorithm::ALL.into_iter().find_map(of) else { return Ok(None) };
    match Digest::with_hex(algorithm, hex) {
        Ok(digest) => Ok(Some(digest)),
        Err(source) => Err(ImportError::BlobName { path: path.to_owned(), source }),
    }
}

fn looks_like_json(start: &[u8]) -> bool {
    matches!(start.iter().find(|b| !b.is_ascii_whitespace()), Some(b'{' | b'['))
}
