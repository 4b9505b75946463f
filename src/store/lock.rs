//! Locks: kernel locks on files, which end with whoever holds them, and how long they are waited for.
//!
//! Owns every lock. Always true: who waits is woken when the lock is free, and a wait ends when its time is over, whoever holds the lock and however he hangs.
//!
//! After a crash nothing is locked.

use std::cell::Cell;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::disk::open_or_make;
use super::error::{Result, StoreError, reading};

/// The longest wait in which a lock is tried again and again, and how long is slept in between. For longer ones the system wakes a thread.
const BRIEF: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// After how long it is told that a lock is waited for.
const NOTICEABLE: Duration = Duration::from_secs(1);

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Beside others.
    Shared,
    /// Alone.
    Alone,
}

/// Who is told that a lock is waited for: its file, and the process that holds it.
pub(super) type Waiting = Arc<dyn Fn(&Path, Option<u32>) + Send + Sync>;

/// Until when a lock is waited for, and who is told meanwhile.
#[derive(Clone)]
pub(super) struct Patience {
    since: Instant,
    limit: Duration,
    waiting: Option<Waiting>,
    told: Rc<Cell<bool>>,
}

impl Patience {
    pub(super) fn starting_now(limit: Duration, waiting: Option<Waiting>) -> Patience {
        Patience { since: Instant::now(), limit, waiting, told: Rc::default() }
    }

    /// The same, but over after so much from now at the latest.
    pub(super) fn at_most(&self, more: Duration) -> Patience {
        Patience { limit: self.limit.min(self.since.elapsed() + more), ..self.clone() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.since.elapsed())
    }

    /// Tells, once, when it has taken so long that people begin to wonder.
    fn tell(&self, path: &Path, file: &File) {
        if let Some(waiting) = &self.waiting
            && self.since.elapsed() >= NOTICEABLE
            && !self.told.replace(true)
        {
            waiting(path, holder(file));
        }
    }
}

impl Hold {
    fn attempt(self, file: &File) -> std::result::Result<(), TryLockError> {
        match self {
            Hold::Shared => file.try_lock_shared(),
            Hold::Alone => file.try_lock(),
        }
    }

    fn wait(self, file: &File) -> io::Result<()> {
        match self {
            Hold::Shared => file.lock_shared(),
            Hold::Alone => file.lock(),
        }
    }
}

/// Waits for a lock on an open file. It ends with the file, also when the process dies.
pub(super) fn lock(file: &File, path: &Path, hold: Hold, patience: &Patience) -> Result<()> {
    loop {
        match hold.attempt(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(reading("locking", path)(e)),
            Err(TryLockError::WouldBlock) => {}
        }
        match patience.left() {
            Duration::ZERO => return Err(locked_out(file, path, patience)),
            left if left <= BRIEF => thread::sleep(PAUSE.min(left)),
            _ => return be_woken(file, path, hold, patience),
        }
    }
}

/// The file's lock is not tried for meanwhile: it would be the same one that the thread waits for, and gives back.
fn be_woken(file: &File, path: &Path, hold: Hold, patience: &Patience) -> Result<()> {
    let failed = |e| reading("locking", path)(e);
    let woken = waiting(file, hold).map_err(failed)?;
    loop {
        match woken.recv_timeout(patience.left().min(NOTICEABLE)) {
            Ok(locked) => return locked.map(drop).map_err(failed),
            Err(RecvTimeoutError::Timeout) if patience.is_over() => return Err(locked_out(file, path, patience)),
            Err(RecvTimeoutError::Timeout) => patience.tell(path, file),
            Err(RecvTimeoutError::Disconnected) => return Err(failed(io::ErrorKind::Other.into())),
        }
    }
}

fn locked_out(file: &File, path: &Path, patience: &Patience) -> StoreError {
    StoreError::Locked { path: path.to_owned(), waited: patience.since.elapsed(), holder: holder(file) }
}

/// Waits in a thread of its own, which cannot be called back: the file that comes is the same open file, locked. Where nobody takes it any more,
/// the lock is given back as soon as it is got.
fn waiting(file: &File, hold: Hold) -> io::Result<Receiver<io::Result<File>>> {
    let file = file.try_clone()?;
    let (send, receive) = sync_channel(0);
    let wait = move || {
        let locked = loop {
            match hold.wait(&file) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                locked => break locked,
            }
        };
        if let Err(SendError(Ok(file))) = send.send(locked.map(|()| file)) {
            let _ = file.unlock();
        }
    };
    thread::Builder::new().name("lock".to_owned()).spawn(wait)?;
    Ok(receive)
}

/// Opens a file that is there only to be locked, and waits for the lock.
pub(super) fn lock_path(path: &Path, hold: Hold, patience: &Patience) -> Result<File> {
    loop {
        let file = open_or_make(path)?;
        lock(&file, path, hold, patience)?;
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether the open file is still the one that has this name.
pub(super) fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().map_err(reading("looking at", path))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(reading("looking at", path)(e)),
    }
}

/// Whether no other process or thread has the file locked.
pub(super) fn is_free(file: &File) -> bool {
    file.try_lock().is_ok()
}

/// The process that has locked this file, as Linux lists it.
fn holder(file: &File) -> Option<u32> {
    let file = file.metadata().ok()?;
    let at = format!("{:02x}:{:02x}:{}", rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()), file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut held = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF; those that wait have `->` before the kind.
    held.find_map(|words| match words[..] {
        [_, "FLOCK", _, _, pid, place, ..] if place == at => pid.parse().ok(),
        _ => None,
    })
}
